//! A scheduler of the program's own: the server whose address is nearest to the client's.
//!
//! ```text
//! cargo run -p lvs-sched --example own_scheduler
//! ```
//!
//! Expect each client at the server in its own network, and somewhere else while that one is down.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};

use lvs_sched::{Request, Scheduler, ServerConfig, Servers, ServiceConfig, VirtualService};

/// Most leading bits in common; the first in list order among equals.
#[derive(Debug)]
struct Nearest;

impl Scheduler for Nearest {
    fn pick(&mut self, servers: &Servers, request: &Request) -> Option<usize> {
        let distance = |index: &usize| bits(servers[*index].addr()) ^ bits(request.client);
        (0..servers.len())
            .filter(|index| servers[*index].is_usable())
            .min_by_key(|index| distance(index).checked_ilog2())
    }
}

fn bits(addr: SocketAddr) -> u128 {
    match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let service = VirtualService::with_scheduler(ServiceConfig::default(), Box::new(Nearest));
    for server in ["10.1.0.9:80", "10.2.0.9:80", "192.0.2.9:80"] {
        service.add_server(server.parse()?, ServerConfig::default())?;
    }
    let clients = ["10.1.7.7:4000", "10.2.7.7:4000", "192.0.2.77:4000"];
    for healthy in [true, false] {
        service.set_healthy("10.2.0.9:80".parse()?, healthy)?;
        for client in clients {
            let lease = service.connect(client.parse::<SocketAddr>()?)?;
            println!("{client} -> {}", lease.addr());
        }
    }
    Ok(())
}
