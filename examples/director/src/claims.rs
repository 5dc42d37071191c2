//! What has to be taken from the host: packets to services, and replies of NAT servers.

use std::net::SocketAddr;

use lvs_fwd::view::{ClaimSet, Endpoint};
use lvs_sched::{Director, ForwardMethod, Protocol, ServiceKey};

use crate::plan::Plan;

/// The claim of what stands in the scheduler, whoever put it there, and of the planned servers of its services: one that
/// is down keeps its claim, because its old connections go on.
pub fn present(scheduler: &Director, plan: &Plan) -> ClaimSet {
    let mut claims = ClaimSet::new();
    for service in scheduler.services() {
        let Some(key) = service.key() else { continue };
        add_service(&mut claims, &key);
        for server in service.servers() {
            add_server(&mut claims, &key, server.addr(), server.method());
        }
    }
    add_pools(&mut claims, plan, |key| scheduler.service(key).is_some());
    claims
}

/// Adds all that a plan has.
pub fn add_plan(claims: &mut ClaimSet, plan: &Plan) {
    for service in &plan.services {
        add_service(claims, &service.key);
    }
    add_pools(claims, plan, |_| true);
}

/// Adds a service, if the data path can serve it.
pub fn add_service(claims: &mut ClaimSet, key: &ServiceKey) {
    if let (
        ServiceKey::Address {
            protocol,
            vip,
            vport,
        },
        None,
    ) = (key, why_unserved(key))
    {
        claims.insert_service(Endpoint {
            protocol: protocol.number(),
            addr: *vip,
            port: *vport,
        });
    }
}

/// Adds a service's server, if its replies have to come by here.
pub fn add_server(
    claims: &mut ClaimSet,
    key: &ServiceKey,
    addr: SocketAddr,
    method: ForwardMethod,
) {
    let ServiceKey::Address {
        protocol, vport, ..
    } = key
    else {
        return;
    };
    if method == ForwardMethod::Nat && why_unserved(key).is_none() {
        claims.insert_server(Endpoint {
            protocol: protocol.number(),
            addr: addr.ip(),
            port: if addr.port() == 0 {
                *vport
            } else {
                addr.port()
            },
        });
    }
}

/// What the data path can't serve is not taken from the host.
pub fn why_unserved(key: &ServiceKey) -> Option<&'static str> {
    match key {
        ServiceKey::Mark { .. } => Some("firewall marks are not seen by the data path yet"),
        ServiceKey::Address {
            protocol: Protocol::Sctp,
            ..
        } => Some("SCTP is not forwarded yet"),
        ServiceKey::Address { .. } => None,
    }
}

fn add_pools(claims: &mut ClaimSet, plan: &Plan, stands: impl Fn(&ServiceKey) -> bool) {
    for pool in plan.pools.iter().filter(|pool| stands(&pool.service)) {
        let servers = pool
            .servers
            .iter()
            .map(|server| (server.addr, server.config));
        for (addr, config) in servers.chain(pool.sorry) {
            add_server(claims, &pool.service, addr, config.method);
        }
    }
}
