//! Sends a capture through an engine, and writes what comes out to another one: what would this balancer have done?
//!
//! ```text
//! tcpdump -w in.pcap -i eth0                      # on a director, for example
//! cargo run -p lvs-fwd --example replay -- in.pcap out.pcap 192.0.2.10:80 10.0.0.11:8080
//! ```
//!
//! Every TCP and UDP packet to the service goes to the one server by NAT, and its answers come from the service. A line for
//! each frame, and the counters at the end, tell the rest.

use std::env;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use lvs_fwd::balancer::{Balancer, Direction, Method, Packets, Verdict};
use lvs_fwd::device::Device;
use lvs_fwd::device::pcap::Pcap;
use lvs_fwd::device::trace::Trace;
use lvs_fwd::engine::{Engine, EngineConfig, Output};
use lvs_fwd::route::{
    Hop, Neighbour, NeighbourState, NeighbourTable, NextHop, Prefix, Route, RouteTable,
};
use lvs_fwd::stats::{DropReason, LeftReason};
use lvs_fwd::view::{ClaimSet, Endpoint, Port, PortId, View};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [source, sink, service, server] = &arguments[..] else {
        eprintln!("usage: replay IN.pcap OUT.pcap VIP:PORT SERVER:PORT");
        return ExitCode::from(2);
    };
    let (Ok(service), Ok(server)) = (service.parse(), server.parse()) else {
        eprintln!("replay: service and server are addresses with ports");
        return ExitCode::from(2);
    };
    match replay(source, sink, service, server) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("replay: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One service, one server.
struct OneServer {
    service: SocketAddr,
    server: SocketAddr,
}

impl Balancer for OneServer {
    fn decide(&mut self, _now: Instant, packets: &Packets<'_>, verdicts: &mut Vec<Verdict>) {
        verdicts.extend(packets.iter().map(|packet| match packet.direction {
            Direction::Inbound => Verdict::Forward(Method::Nat { rip: self.server }),
            Direction::Outbound => Verdict::Reply {
                source: self.service,
            },
        }));
    }
}

fn replay(source: &str, sink: &str, service: SocketAddr, server: SocketAddr) -> io::Result<()> {
    let pcap = Pcap::new(
        BufReader::new(File::open(source)?),
        BufWriter::new(File::create(sink)?),
    )?;
    if !pcap.capabilities().link_header {
        return Err(io::Error::other("the capture has no Ethernet headers"));
    }
    let mut device = Trace::new(pcap, |line: std::fmt::Arguments<'_>| {
        let _ = writeln!(io::stdout(), "{line}");
    });
    let view = view(service, server);
    let mut balancer = OneServer { service, server };
    let mut engine = Engine::new(EngineConfig::default());
    let (mut frames, mut output) = (Vec::new(), Output::new());
    while device.receive(&mut frames, 32)? > 0 {
        let now = Instant::now();
        engine.process(
            now,
            &view,
            PortId(0),
            &mut frames,
            &mut balancer,
            &mut output,
        );
        for (_, frame) in output.transmit.drain(..) {
            device.transmit(frame);
        }
        device.flush()?;
        output.clear();
    }
    let counters = engine.counters();
    for reason in DropReason::ALL {
        let count = counters.drops(reason);
        if count > 0 {
            println!("dropped, {}: {count}", reason.name());
        }
    }
    for reason in LeftReason::ALL {
        let count = counters.left(reason);
        if count > 0 {
            println!("left to the host, {reason:?}: {count}");
        }
    }
    Ok(())
}

/// Everybody is behind one router, and every frame of the capture came in at one port.
fn view(service: SocketAddr, server: SocketAddr) -> View {
    let mut claims = ClaimSet::new();
    for protocol in [6, 17] {
        let endpoint = |addr: SocketAddr| Endpoint {
            protocol,
            addr: addr.ip(),
            port: addr.port(),
        };
        claims.insert_service(endpoint(service));
        claims.insert_server(endpoint(server));
    }
    let mut routes = RouteTable::new();
    let mut neighbours = NeighbourTable::new();
    for (any, router) in [
        (IpAddr::from([0; 4]), IpAddr::from([192, 0, 0, 8])),
        (
            IpAddr::from([0; 16]),
            IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1]),
        ),
    ] {
        routes.insert(Route::new(Prefix::new(any, 0), NextHop::Gateway(router), 1));
        let hop = Hop {
            ifindex: 1,
            addr: router,
        };
        let neighbour = Neighbour {
            mac: [2, 0, 0, 0, 0, 2],
            state: NeighbourState::Reachable,
        };
        neighbours.insert(hop, neighbour);
    }
    View {
        claims: Arc::new(claims),
        routes: Arc::new(routes),
        neighbours: Arc::new(neighbours),
        ports: Arc::new([Port::new(PortId(0), 1, "capture", [2, 0, 0, 0, 0, 1])]),
        ..View::default()
    }
}
