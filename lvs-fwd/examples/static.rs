//! A static balancer: one TCP service, servers chosen by the client's address, by NAT.
//!
//! ```text
//! cargo run --release -p lvs-fwd --example static -- 192.0.2.10:80 10.0.0.11:8080 10.0.0.12:8080
//! ```
//!
//! It forwards at every Ethernet interface of the network namespace and needs CAP_NET_RAW and CAP_NET_ADMIN. The service's
//! address must lead here (`ip addr add 192.0.2.10/32 dev lo`), and this host must be the servers' router. There are no
//! checks and no connection table: who serves whom is a function of the client alone.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lvs_fwd::balancer::{Balancer, Direction, Method, Packets, Verdict};
use lvs_fwd::claim::Claim;
use lvs_fwd::device::Device;
use lvs_fwd::device::ring::{Ring, RingConfig};
use lvs_fwd::mirror::Mirror;
use lvs_fwd::runner::{self, RunnerConfig};
use lvs_fwd::steer;
use lvs_fwd::view::{ClaimSet, Endpoint, PortId, View};

struct Static {
    service: SocketAddr,
    servers: Vec<SocketAddr>,
}

impl Balancer for Static {
    fn decide(&mut self, _: Instant, packets: &Packets<'_>, verdicts: &mut Vec<Verdict>) {
        verdicts.extend(packets.iter().map(|packet| match packet.direction {
            Direction::Inbound => {
                let number = steer::owner(packet.source.ip(), self.servers.len() as u32);
                let rip = self.servers[number as usize];
                Verdict::Forward(Method::Nat { rip })
            }
            Direction::Outbound => Verdict::Reply {
                source: self.service,
            },
        }));
    }
}

/// Balances while `running` says so.
pub fn balance(
    service: SocketAddr,
    servers: Vec<SocketAddr>,
    running: &AtomicBool,
) -> Result<(), Box<dyn Error>> {
    let endpoint = |side: &SocketAddr| Endpoint {
        protocol: 6,
        addr: side.ip(),
        port: side.port(),
    };
    let mut claims = ClaimSet::new();
    claims.insert_service(endpoint(&service));
    for server in &servers {
        claims.insert_server(endpoint(server));
    }

    // Routes, neighbours and interfaces, as the kernel has them.
    let mut mirror = Mirror::open(&[""; 0])?;
    let mut links: Vec<_> = mirror.links().cloned().collect();
    links.retain(|link| !link.loopback && link.mac.is_some() && link.controller.is_none());
    let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
    mirror.set_ports(&names);
    mirror.poll()?;

    let (control, mut seats) = runner::new(RunnerConfig::default(), View::default())?;
    let mut devices: Vec<(PortId, Box<dyn Device>)> = Vec::new();
    for (number, link) in links.iter().enumerate() {
        let ring = Ring::open(&RingConfig::new(link.index))?;
        devices.push((PortId(number as u16), Box::new(ring)));
    }
    // From here on the host gets none of these packets; the kernel takes the claim back when this process ends.
    let _claim = Claim::install(&names, &claims)?;
    let claims = Arc::new(claims);
    let mut worker = seats
        .remove(0)
        .start(Static { service, servers }, devices, None);
    let mut is_new = true;
    while running.load(Ordering::Relaxed) {
        if is_new {
            let now = mirror.snapshot();
            control.publish(View {
                claims: Arc::clone(&claims),
                routes: now.routes,
                neighbours: now.neighbours,
                ports: now.ports,
                local: now.local,
                hostless: true, // what belongs to no connection is reset here, not by the host
                ..View::default()
            });
        }
        worker.run_once(Duration::from_millis(10))?;
        while let Some(hop) = control.poll_resolve() {
            mirror.netlink().probe_neighbour(&hop)?;
        }
        is_new = mirror.poll()?;
    }
    Ok(())
}

#[allow(dead_code, reason = "a test includes this file and calls `balance`")]
fn main() -> Result<(), Box<dyn Error>> {
    let addresses: Result<Vec<SocketAddr>, _> =
        std::env::args().skip(1).map(|text| text.parse()).collect();
    match addresses?.split_first() {
        Some((service, servers)) if !servers.is_empty() => {
            balance(*service, servers.to_vec(), &AtomicBool::new(true))
        }
        _ => Err("usage: static SERVICE SERVER…, each ADDRESS:PORT".into()),
    }
}
