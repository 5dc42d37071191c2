//! What has to be taken from the host: packets to services, and replies of NAT and FULLNAT servers.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use lvs_fwd::marks::{MarkRule, MarkTable};
use lvs_fwd::view::{ClaimSet, Endpoint};
use lvs_fwd::wire::protocol;
use lvs_sched::{Director, Family, ForwardMethod, Protocol, ServiceKey};

use crate::plan::Plan;

/// What decides besides the services which packets are taken.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Which packets have marks.
    pub marks: Vec<MarkRule>,
    /// Addresses that move by VRRP and are not here now: packets to them are another director's, even where one comes by.
    pub absent: BTreeSet<IpAddr>,
}

impl Terms {
    /// Of a plan, while VRRP wants these of its virtual addresses.
    pub fn new(marks: Vec<MarkRule>, plan: &Plan, held: &BTreeSet<IpAddr>) -> Self {
        let planned = plan.virtual_addresses.iter().map(|planned| planned.addr);
        let absent = planned.filter(|addr| !held.contains(addr)).collect();
        Self { marks, absent }
    }

    /// The rules of marks that are for packets of this host. One whose receivers are absent addresses is not.
    fn marks_here(&self) -> Vec<MarkRule> {
        let is_absent = |rule: &&MarkRule| {
            rule.destination.is_some_and(|prefix| {
                let all_bits = if prefix.addr().is_ipv4() { 32 } else { 128 };
                prefix.length() == all_bits && self.absent.contains(&prefix.addr())
            })
        };
        let rules = self.marks.iter();
        rules.filter(|rule| !is_absent(rule)).cloned().collect()
    }
}

/// The claim of what stands in the scheduler, whoever put it there, and of the planned servers of its services: one that
/// is down keeps its claim, because its old connections go on.
pub fn present(scheduler: &Director, plan: &Plan, terms: &Terms) -> ClaimSet {
    let mut claims = ClaimSet::new();
    let marks = &terms.marks[..];
    for service in scheduler.services() {
        let Some(key) = service.key() else { continue };
        add_service(&mut claims, &key, terms);
        let reach = Reach {
            key,
            is_persistent: service.config().persistence.is_some(),
            marks,
        };
        for server in service.servers() {
            add_server(&mut claims, &reach, server.addr(), server.method());
        }
        for local in service.local_addresses_in_use() {
            claims.insert_local(local);
        }
    }
    add_pools(&mut claims, plan, marks, |key| {
        scheduler.service(key).is_some()
    });
    let serves =
        |ipv6, mark| mark_key(ipv6, mark).is_some_and(|key| scheduler.service(&key).is_some());
    claims.set_marks(MarkTable::new(terms.marks_here(), serves));
    claims
}

/// The claim of what a plan has, when all of it stands in the scheduler.
pub fn planned(plan: &Plan, terms: &Terms) -> ClaimSet {
    let mut claims = ClaimSet::new();
    for service in &plan.services {
        add_service(&mut claims, &service.key, terms);
        for local in &service.locals {
            claims.insert_local(*local);
        }
    }
    add_pools(&mut claims, plan, &terms.marks, |_| true);
    let serves = |ipv6, mark| {
        mark_key(ipv6, mark)
            .is_some_and(|key| plan.services.iter().any(|service| service.key == key))
    };
    claims.set_marks(MarkTable::new(terms.marks_here(), serves));
    claims
}

/// Adds a service of an address that is here.
pub fn add_service(claims: &mut ClaimSet, key: &ServiceKey, terms: &Terms) {
    if let ServiceKey::Address {
        protocol,
        vip,
        vport,
    } = key
        && !terms.absent.contains(vip)
    {
        let endpoint = |port| Endpoint {
            protocol: protocol.number(),
            addr: *vip,
            port,
        };
        claims.insert_service(endpoint(*vport));
        for protocol in companions(key) {
            claims.insert_service(Endpoint {
                protocol,
                ..endpoint(0)
            });
        }
        if is_ftp(key) {
            // Data connections come to any port. What turns out to be none is given back to the host.
            claims.insert_service(endpoint(0));
        }
    }
}

/// From where the servers of a service answer.
#[derive(Debug, Clone, Copy)]
pub struct Reach<'a> {
    /// The service.
    pub key: ServiceKey,
    /// Whether it is persistent: then its templates may send clients to other ports than a server's own.
    pub is_persistent: bool,
    /// Rules of marks, which say what protocols a mark's service has.
    pub marks: &'a [MarkRule],
}

/// Adds a service's server, if its replies have to come by here.
pub fn add_server(
    claims: &mut ClaimSet,
    reach: &Reach<'_>,
    addr: SocketAddr,
    method: ForwardMethod,
) {
    if method == ForwardMethod::Tunnel {
        claims.insert_tunnel_server(addr.ip());
    }
    let answers_here = matches!(method, ForwardMethod::Nat | ForwardMethod::FullNat);
    if !answers_here {
        return;
    }
    let mut claim = |protocol, port| {
        let server = Endpoint {
            protocol,
            addr: addr.ip(),
            port,
        };
        if method == ForwardMethod::Nat {
            claims.insert_server(server);
        } else {
            claims.insert_local_server(server);
        }
    };
    match reach.key {
        ServiceKey::Address {
            protocol, vport, ..
        } => {
            let port = match addr.port() {
                _ if is_ftp(&reach.key) || vport == 0 && reach.is_persistent => 0,
                0 => vport,
                port => port,
            };
            claim(protocol.number(), port);
            companions(&reach.key).for_each(|protocol| claim(protocol, 0));
        }
        ServiceKey::Mark { family, mark } => {
            let port = if reach.is_persistent { 0 } else { addr.port() };
            for rule in reach.marks {
                if rule.mark == mark.get() && rule.is_of(family == Family::Inet6) {
                    rule.protocols().for_each(|protocol| claim(protocol, port));
                }
            }
        }
    }
}

/// The services of these that no rule marks packets for.
pub fn without_rule<'a>(
    services: impl IntoIterator<Item = &'a ServiceKey>,
    marks: &[MarkRule],
) -> Vec<ServiceKey> {
    let has_rule = |key: &ServiceKey| match key {
        ServiceKey::Mark { family, mark } => marks
            .iter()
            .any(|rule| rule.mark == mark.get() && rule.is_of(*family == Family::Inet6)),
        ServiceKey::Address { .. } => true,
    };
    let services = services.into_iter();
    services.filter(|key| !has_rule(key)).copied().collect()
}

/// The warning about such a service.
pub fn remark_without_rule(key: &ServiceKey) -> String {
    format!(
        "virtual service {key}: no rule gives packets this mark, it gets none; add one to the file .marks beside the \
         configuration, or by `director mark add`"
    )
}

/// Protocols without ports whose packets follow those of this service: ESP and AH those of a key exchange.
fn companions(key: &ServiceKey) -> impl Iterator<Item = u8> {
    let is_exchange = matches!(
        key,
        ServiceKey::Address {
            protocol: Protocol::Udp,
            vport: ISAKMP | 0,
            ..
        }
    );
    [protocol::ESP, protocol::AH]
        .into_iter()
        .filter(move |_| is_exchange)
}

/// Whether clients open more connections to the address of this service.
fn is_ftp(key: &ServiceKey) -> bool {
    matches!(
        key,
        ServiceKey::Address {
            protocol: Protocol::Tcp,
            vport: FTP,
            ..
        }
    )
}

fn mark_key(ipv6: bool, mark: u32) -> Option<ServiceKey> {
    Some(ServiceKey::Mark {
        family: if ipv6 { Family::Inet6 } else { Family::Inet },
        mark: NonZeroU32::new(mark)?,
    })
}

fn add_pools(
    claims: &mut ClaimSet,
    plan: &Plan,
    marks: &[MarkRule],
    stands: impl Fn(&ServiceKey) -> bool,
) {
    let services = plan.services.iter();
    let persistent: HashSet<ServiceKey> = services
        .filter(|service| service.config.persistence.is_some())
        .map(|service| service.key)
        .collect();
    for pool in &plan.pools {
        for key in pool.services.iter().filter(|key| stands(key)) {
            let reach = Reach {
                key: *key,
                is_persistent: persistent.contains(key),
                marks,
            };
            for (addr, config) in pool.all_servers() {
                if pool.serves(key, addr, config.method) {
                    add_server(claims, &reach, addr, config.method);
                }
            }
        }
    }
}

const FTP: u16 = 21;
const ISAKMP: u16 = 500;
