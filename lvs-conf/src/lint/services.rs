//! Rules about virtual servers, real servers and checkers.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Findings, Rule, finding, first, leaf, named};
use crate::model::{
    Checker, Config, Protocol, RealServer, Scheduler, ServiceAddress, VirtualServer,
};
use crate::tree::{Statement, Tree};

pub(super) fn check(findings: &mut Findings, tree: &Tree, config: &Config) {
    let services: Vec<_> = services(tree, config).collect();
    for service in &services {
        service.checkers(findings);
        service.ports(findings);
        service.quorum(findings, config);
        service.weights(findings);
        service.persistence(findings);
        service.sorry_server(findings, config);
    }
    differing_checks(findings, &services);
    absent_addresses(findings, &services, config);
}

/// A service as written and as understood.
struct Service<'a> {
    block: &'a Statement,
    server: &'a VirtualServer,
    /// The same for its servers.
    servers: Vec<(&'a Statement, &'a RealServer)>,
}

/// The services that survived, each with the block that it came from.
fn services<'a>(tree: &'a Tree, config: &'a Config) -> impl Iterator<Item = Service<'a>> {
    let mut rest = config.virtual_servers.iter().peekable();
    named(&tree.statements, "virtual_server").filter_map(move |block| {
        let server = rest.next_if(|server| names(block, &server.service))?;
        let mut reals = server.real_servers.iter().peekable();
        let servers = named(block.statements(), "real_server")
            .filter_map(|statement| {
                let real = reals.next_if(|r| address(statement) == Some(r.address.ip()))?;
                Some((statement, real))
            })
            .collect();
        Some(Service {
            block,
            server,
            servers,
        })
    })
}

fn names(block: &Statement, service: &ServiceAddress) -> bool {
    let second = block.args.get(1).map(|word| word.text.as_str());
    match service {
        ServiceAddress::Mark(mark) => {
            first(block) == "fwmark" && second.and_then(|s| s.parse().ok()) == Some(*mark)
        }
        ServiceAddress::Group(name) => first(block) == "group" && second == Some(name),
        ServiceAddress::Address { address: ip, port } => {
            address(block) == Some(*ip) && written_port(block) == *port
        }
    }
}

/// The address of a block; what follows a `-` or `/` does not count.
fn address(block: &Statement) -> Option<IpAddr> {
    let text = first(block);
    text.split(['-', '/']).next()?.parse().ok()
}

fn written_port(block: &Statement) -> Option<u16> {
    let port: u16 = block.args.get(1)?.text.parse().ok()?;
    (port != 0).then_some(port)
}

impl Service<'_> {
    fn checkers(&self, findings: &mut Findings) {
        let unchecked: Vec<_> = self
            .servers
            .iter()
            .filter(|(_, real)| real.checkers.is_empty())
            .collect();
        if let Some((statement, real)) = unchecked.first() {
            let more = match unchecked.len() - 1 {
                0 => String::new(),
                more => format!(", and {more} more of this service"),
            };
            findings.report(
                Rule::NoChecker,
                statement.head(),
                format!("`{}` is never checked{more}", real.address),
            );
        }
        self.slow_checks(findings);
        let mut by_tcp = false;
        for (statement, real) in &self.servers {
            for (block, checker) in checkers(statement, real) {
                self.timing(findings, statement, block, checker);
                let stream = matches!(
                    checker,
                    Checker::TcpCheck(_) | Checker::HttpGet(_) | Checker::SslGet(_)
                );
                let udp = self.server.protocol == Protocol::Udp
                    && !matches!(self.server.service, ServiceAddress::Mark(_));
                if stream && udp && !by_tcp {
                    by_tcp = true;
                    let mut found = finding(
                        Rule::CheckOfOtherProtocol,
                        block.head(),
                        format!("`{}` says nothing about a UDP service", checker.keyword()),
                    );
                    if let Some(protocol) = leaf(self.block, "protocol") {
                        found = found.note(protocol.head(), "the service is UDP");
                    }
                    findings.push(Rule::CheckOfOtherProtocol, found);
                }
            }
        }
    }

    fn slow_checks(&self, findings: &mut Findings) {
        let mut slow = |block: &Statement| {
            let delay = leaf(block, "delay_loop");
            if let Some(statement) = delay
                && first(statement).parse().is_ok_and(|s: f64| s > MINUTE)
            {
                findings.report(
                    Rule::SlowCheck,
                    statement.head(),
                    "more than a minute passes between two checks",
                );
            }
        };
        slow(self.block);
        for (statement, _) in &self.servers {
            slow(statement);
            statement.statements().iter().for_each(&mut slow);
        }
    }

    fn timing(
        &self,
        findings: &mut Findings,
        server: &Statement,
        block: &Statement,
        checker: &Checker,
    ) {
        let probe = checker.probe();
        let told = matches!(
            checker,
            Checker::MiscCheck(_) | Checker::BfdCheck(_) | Checker::FileCheck(_)
        );
        if told || probe.connect_timeout < probe.delay_loop {
            return;
        }
        let places = [block, server, self.block];
        let written = |name| places.iter().find_map(|place| leaf(place, name));
        let (timeout, delay) = (written("connect_timeout"), written("delay_loop"));
        let Some(place) = timeout.or(delay) else {
            return;
        };
        let mut found = finding(
            Rule::TimeoutExceedsDelay,
            place.head(),
            format!(
                "an attempt may take {}, but the next check is due after {}",
                seconds(probe.connect_timeout),
                seconds(probe.delay_loop)
            ),
        );
        if let (Some(_), Some(delay)) = (timeout, delay) {
            found = found.note(delay.head(), "the time between checks");
        }
        findings.push(Rule::TimeoutExceedsDelay, found);
    }

    fn ports(&self, findings: &mut Findings) {
        let ServiceAddress::Address {
            port: Some(port), ..
        } = self.server.service
        else {
            return;
        };
        let servers = self.servers.iter().map(|(s, real)| (*s, real.method));
        let sorry = self.server.sorry_server.as_ref();
        let sorry = leaf(self.block, "sorry_server").zip(sorry.map(|sorry| sorry.method));
        for (statement, method) in servers.chain(sorry) {
            let Some(own) = written_port(statement).filter(|own| *own != port) else {
                continue;
            };
            if method.keeps_port() {
                findings.push(
                    Rule::DrPortDiffers,
                    finding(
                        Rule::DrPortDiffers,
                        statement.head(),
                        format!("{method} does not change ports, but {own} is not {port}"),
                    )
                    .note(self.block.head(), format!("the service has port {port}")),
                );
            }
        }
    }

    fn quorum(&self, findings: &mut Findings, config: &Config) {
        let Some(statement) = leaf(self.block, "quorum") else {
            return;
        };
        let server = self.server;
        let fifos = &config.global.fifos;
        let heard = server.quorum_down.is_some()
            || server.smtp_alert
            || fifos.all.is_some()
            || fifos.lvs.is_some();
        if server.quorum > 1 && !heard {
            findings.report(
                Rule::QuorumWithoutNotify,
                statement.head(),
                "nobody hears when this quorum is lost",
            );
        }
        let total: u64 = server
            .real_servers
            .iter()
            .map(|r| u64::from(r.weight))
            .sum();
        let needed = u64::from(server.quorum) + u64::from(server.hysteresis);
        if server.hysteresis > 0 && needed > total {
            let mut found = finding(
                Rule::QuorumUnreachable,
                statement.head(),
                format!(
                    "a lost quorum comes back with a weight of {needed}, all servers together have {total}"
                ),
            );
            if let Some(hysteresis) = leaf(self.block, "hysteresis") {
                found = found.note(hysteresis.head(), "this comes on top");
            }
            findings.push(Rule::QuorumUnreachable, found);
        }
    }

    fn weights(&self, findings: &mut Findings) {
        let server = self.server;
        if server.real_servers.iter().all(|real| real.weight == 0) {
            findings.report(
                Rule::AllWeightsZero,
                self.block.head(),
                "every server of this service has weight 0",
            );
        }
        let blind = matches!(
            server.scheduler,
            Scheduler::RoundRobin | Scheduler::LeastConnections
        );
        let weighed = server.real_servers.iter().map(|r| r.weight);
        let weighed: HashSet<u32> = weighed.filter(|weight| *weight > 0).collect();
        if !blind || weighed.len() < 2 {
            return;
        }
        let heavy = self.servers.iter().find(|(_, real)| real.weight > 1);
        let Some(weight) = heavy.and_then(|(s, _)| leaf(s, "weight")) else {
            return;
        };
        let mut found = finding(
            Rule::WeightWithoutEffect,
            weight.head(),
            format!("`{}` does not look at weights", server.scheduler),
        );
        if let Some(scheduler) = leaf(self.block, "lb_algo") {
            found = found.note(scheduler.head(), "the scheduler is chosen here");
        }
        findings.push(Rule::WeightWithoutEffect, found);
    }

    fn persistence(&self, findings: &mut Findings) {
        let hashes = matches!(
            self.server.scheduler,
            Scheduler::SourceHashing | Scheduler::MaglevHashing
        );
        let persistence = leaf(self.block, "persistence_timeout");
        if let (true, Some(statement)) = (hashes, persistence) {
            let mut found = finding(
                Rule::PersistenceWithHash,
                statement.head(),
                format!(
                    "`{}` keeps clients at their server without persistence",
                    self.server.scheduler
                ),
            );
            if let Some(scheduler) = leaf(self.block, "lb_algo") {
                found = found.note(scheduler.head(), "the scheduler is chosen here");
            }
            findings.push(Rule::PersistenceWithHash, found);
        }
    }

    fn sorry_server(&self, findings: &mut Findings, config: &Config) {
        let sorry = self.server.sorry_server.as_ref();
        let (Some(statement), Some(sorry)) = (leaf(self.block, "sorry_server"), sorry) else {
            return;
        };
        let ip = sorry.address.ip();
        let own =
            matches!(self.server.service, ServiceAddress::Address { address, .. } if address == ip);
        if own || addresses(config).any(|vip| vip == ip) {
            let found = finding(
                Rule::SorryIsVip,
                statement.head(),
                format!("`{ip}` is a virtual address"),
            );
            let found = if own {
                found.note(self.block.head(), "it is this service's")
            } else {
                found
            };
            findings.push(Rule::SorryIsVip, found);
        }
    }
}

/// The checkers of a server that survived, each with its block.
fn checkers<'a>(
    server: &'a Statement,
    real: &'a RealServer,
) -> impl Iterator<Item = (&'a Statement, &'a Checker)> {
    let mut rest = real.checkers.iter().peekable();
    server.statements().iter().filter_map(move |block| {
        let checker = rest.next_if(|checker| checker.keyword() == block.spec.canonical())?;
        Some((block, checker))
    })
}

/// Servers that services check in different ways.
fn differing_checks(findings: &mut Findings, services: &[Service<'_>]) {
    type Seen<'a> = (&'a Statement, &'a RealServer);
    let mut seen: HashMap<(SocketAddr, Protocol), Seen<'_>> = HashMap::new();
    for service in services {
        for (statement, real) in &service.servers {
            let key = (real.address, service.server.protocol);
            let (before, other) = *seen.entry(key).or_insert((*statement, *real));
            if other.checkers.is_empty() || real.checkers.is_empty() {
                continue;
            }
            if other.checkers != real.checkers {
                findings.push(
                    Rule::CheckDiffers,
                    finding(
                        Rule::CheckDiffers,
                        statement.head(),
                        format!("`{}` is checked in another way elsewhere", real.address),
                    )
                    .note(before.head(), "the other way is here"),
                );
            }
        }
    }
}

/// Services on an address that the file's instances lack, while others are on one that they have.
fn absent_addresses(findings: &mut Findings, services: &[Service<'_>], config: &Config) {
    let set: HashSet<IpAddr> = addresses(config).collect();
    let of = |service: &Service<'_>| match service.server.service {
        ServiceAddress::Address { address, .. } => Some(address),
        ServiceAddress::Mark(_) | ServiceAddress::Group(_) => None,
    };
    if !services.iter().filter_map(of).any(|ip| set.contains(&ip)) {
        return;
    }
    for service in services {
        if let Some(ip) = of(service).filter(|ip| !set.contains(ip)) {
            findings.report(
                Rule::ServiceWithoutVip,
                service.block.head(),
                format!("no instance has the address `{ip}`"),
            );
        }
    }
}

/// The addresses that the configuration sets.
fn addresses(config: &Config) -> impl Iterator<Item = IpAddr> {
    let instances = config.instances.iter();
    instances
        .flat_map(|i| i.virtual_addresses.iter().chain(&i.excluded_addresses))
        .chain(&config.static_addresses)
        .map(|vip| vip.address)
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

const MINUTE: f64 = 60.0;
