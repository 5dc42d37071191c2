//! Virtual servers, real servers and checkers.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Changes, CheckerId, Edit, Object, ServiceId, matched};
use crate::model::{Checker, Config, GroupEntry, LocalAddress, Probe, RealServer, VirtualServer};

pub(super) fn diff(out: &mut Changes, old: &Config, new: &Config) {
    out.changed_if(old.ssl != new.ssl, Object::Ssl);
    out.members(entries(old), entries(new), |(group, entry)| {
        Object::GroupEntry(group, entry)
    });
    out.members(locals(old), locals(new), |(group, local)| {
        Object::LocalAddress(group, local)
    });
    let (removed, kept, added) = matched(&old.virtual_servers, &new.virtual_servers, ServiceId::of);
    for (id, _) in removed {
        out.push(Edit::Remove, Object::Service(id));
    }
    for (id, before, after) in kept {
        if before != after {
            service(out, &id, before, after);
        }
    }
    for (id, _) in added {
        out.push(Edit::Add, Object::Service(id));
    }
}

fn entries(config: &Config) -> impl Iterator<Item = (String, GroupEntry)> {
    let groups = config.server_groups.iter();
    in_groups(groups.map(|group| (&group.name, group.entries.as_slice())))
}

fn locals(config: &Config) -> impl Iterator<Item = (String, LocalAddress)> {
    let groups = config.local_address_groups.iter();
    let groups = groups.map(|group| (&group.name, group.addresses.as_slice()));
    in_groups(groups.filter(|(_, addresses)| !addresses.is_empty()))
}

/// The members of groups, each beside its group's name. Of groups with one name the first counts.
fn in_groups<'a, T: Clone + 'a>(
    groups: impl Iterator<Item = (&'a String, &'a [T])>,
) -> impl Iterator<Item = (String, T)> {
    let mut names = HashSet::new();
    groups
        .filter(move |(name, _)| names.insert(*name))
        .flat_map(|(name, members)| members.iter().map(|member| (name.clone(), member.clone())))
}

fn service(out: &mut Changes, id: &ServiceId, old: &VirtualServer, new: &VirtualServer) {
    let settings = |server: &VirtualServer| VirtualServer {
        quorum: 0,
        hysteresis: 0,
        sorry_server: None,
        real_servers: Vec::new(),
        ..server.clone_settings()
    };
    out.changed_if(settings(old) != settings(new), Object::Service(id.clone()));
    let (removed, kept, added) = matched(&old.real_servers, &new.real_servers, |s| s.address);
    for (address, _) in removed {
        out.push(Edit::Remove, Object::Server(id.clone(), address));
    }
    for (address, before, after) in kept {
        if before != after {
            server(out, id, address, before, after);
        }
    }
    for (address, _) in added {
        out.push(Edit::Add, Object::Server(id.clone(), address));
    }
    match (&old.sorry_server, &new.sorry_server) {
        (Some(before), Some(after)) if before.address == after.address => {
            let object = Object::SorryServer(id.clone(), after.address);
            out.changed_if(before != after, object);
        }
        (before, after) => {
            if let Some(sorry) = before {
                out.push(Edit::Remove, Object::SorryServer(id.clone(), sorry.address));
            }
            if let Some(sorry) = after {
                out.push(Edit::Add, Object::SorryServer(id.clone(), sorry.address));
            }
        }
    }
    out.changed_if(
        (old.quorum, old.hysteresis) != (new.quorum, new.hysteresis),
        Object::Quorum(id.clone()),
    );
}

fn server(
    out: &mut Changes,
    id: &ServiceId,
    address: SocketAddr,
    old: &RealServer,
    new: &RealServer,
) {
    let settings = |server: &RealServer| RealServer {
        checkers: Vec::new(),
        ..server.clone()
    };
    out.changed_if(
        settings(old) != settings(new),
        Object::Server(id.clone(), address),
    );
    if old.checkers == new.checkers {
        return;
    }
    let numbered = |server: &RealServer| -> Vec<(usize, Checker)> {
        server.checkers.iter().cloned().enumerate().collect()
    };
    let (before, after) = (numbered(old), numbered(new));
    let (removed, kept, added) = matched(&before, &after, |(_, checker)| identity(checker));
    let object = |checker: &(usize, Checker)| {
        let checker = CheckerId {
            kind: checker.1.keyword(),
            index: checker.0,
        };
        Object::Checker(id.clone(), address, checker)
    };
    for (_, checker) in removed {
        out.push(Edit::Remove, object(checker));
    }
    for (_, before, after) in kept {
        out.changed_if(before.1 != after.1, object(after));
    }
    for (_, checker) in added {
        out.push(Edit::Add, object(checker));
    }
}

/// What a checker is matched by: everything but times and numbers of attempts.
fn identity(checker: &Checker) -> String {
    let mut checker = checker.clone();
    let probe: &mut Probe = match &mut checker {
        Checker::TcpCheck(probe) | Checker::PingCheck(probe) => probe,
        Checker::HttpGet(check) | Checker::SslGet(check) => &mut check.probe,
        Checker::SmtpCheck(check) => &mut check.probe,
        Checker::DnsCheck(check) => &mut check.probe,
        Checker::MiscCheck(check) => {
            check.timeout = Duration::ZERO;
            &mut check.probe
        }
        Checker::UdpCheck(check) => &mut check.probe,
        Checker::BfdCheck(check) => &mut check.probe,
        Checker::FileCheck(check) => {
            (check.weight, check.reverse) = (None, None);
            &mut check.probe
        }
    };
    probe.connect_timeout = Duration::ZERO;
    probe.retry = 0;
    probe.delay_before_retry = Duration::ZERO;
    probe.delay_loop = Duration::ZERO;
    probe.warmup = Duration::ZERO;
    probe.alpha = false;
    probe.log_all_failures = false;
    format!("{checker:?}")
}

impl VirtualServer {
    /// Everything but the servers.
    fn clone_settings(&self) -> Self {
        Self {
            service: self.service.clone(),
            family: self.family,
            protocol: self.protocol,
            scheduler: self.scheduler,
            flags: self.flags,
            method: self.method,
            persistence_timeout: self.persistence_timeout,
            persistence_granularity: self.persistence_granularity,
            persistence_engine: self.persistence_engine.clone(),
            local_address_group: self.local_address_group.clone(),
            one_packet: self.one_packet,
            quorum: self.quorum,
            hysteresis: self.hysteresis,
            quorum_up: self.quorum_up.clone(),
            quorum_down: self.quorum_down.clone(),
            alpha: self.alpha,
            omega: self.omega,
            ha_suspend: self.ha_suspend,
            smtp_alert: self.smtp_alert,
            snmp_name: self.snmp_name.clone(),
            sorry_server: None,
            real_servers: Vec::new(),
        }
    }
}
