//! The data path in memory: parse, look up, rewrite, next hop; no device, no system call.
//!
//! ```text
//! cargo run --release -p lvs-benches --bin engine                # 1,000 to 1,000,000 flows
//! cargo run --release -p lvs-benches --bin engine -- 1000 64000  # flows and packets, for counting instructions
//! ```
//!
//! Datagrams of so many flows, in random order and batches of 32, go through an engine with the scheduler's connection table
//! behind it, by NAT to eight servers. Beside that stands the same loop with a balancer that looks nothing up, and the
//! loop alone, which writes the headers of the next batch; its time is taken off the others. All are measured in turn and
//! the medians shown.

use std::hint::black_box;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, process};

use director::balance::SchedBalancer;
use lvs_fwd::balancer::{Balancer, Method, Packets, Verdict};
use lvs_fwd::checksum;
use lvs_fwd::engine::{Engine, EngineConfig, Output};
use lvs_fwd::frame::Frame;
use lvs_fwd::route::{
    Hop, Neighbour, NeighbourState, NeighbourTable, NextHop, Prefix, Route, RouteTable,
};
use lvs_fwd::view::{ClaimSet, Endpoint, Port, PortId, View};
use lvs_sched::{Director, DirectorConfig, Protocol, ServerConfig, ServiceConfig, ServiceKey};
use rustix::time::{ClockId, clock_gettime};

fn main() -> io::Result<()> {
    let numbers: Option<Vec<u32>> = env::args().skip(1).map(|it| it.parse().ok()).collect();
    match numbers.as_deref() {
        Some([]) => compare(),
        Some(&[flows, packets]) if flows > 0 => {
            let mut path = Path::new(flows);
            let mut lookup = Lookup::new(flows);
            path.connect(&mut lookup);
            path.run(&mut lookup, packets);
            Ok(())
        }
        _ => {
            eprintln!("usage: engine [FLOWS PACKETS]");
            process::exit(2);
        }
    }
}

fn compare() -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(
        out,
        "{:>10} {:>12} {:>12} {:>12}   nanoseconds a packet",
        "flows", "all", "engine", "table"
    )?;
    for flows in [1_000, 10_000, 100_000, 1_000_000] {
        let mut path = Path::new(flows);
        let mut lookup = Lookup::new(flows);
        let mut fixed = Fixed;
        path.connect(&mut lookup);
        let mut samples: [Vec<f64>; 3] = Default::default();
        for _ in 0..ROUNDS {
            samples[0].push(path.alone(PACKETS));
            samples[1].push(path.time(&mut fixed, PACKETS));
            samples[2].push(path.time(&mut lookup, PACKETS));
        }
        let [alone, engine, all] = samples.map(median);
        writeln!(
            out,
            "{flows:>10} {:>12.1} {:>12.1} {:>12.1}",
            all - alone,
            engine - alone,
            all - engine
        )?;
    }
    Ok(())
}

/// An engine and frames for it.
struct Path {
    engine: Engine,
    view: View,
    frames: Vec<Frame>,
    output: Output,
    flows: u32,
    number: Number,
    now: Instant,
}

/// Which flow is next.
enum Number {
    InOrder(u32),
    Random(u64),
}

impl Path {
    fn new(flows: u32) -> Self {
        Self {
            engine: Engine::new(EngineConfig::default()),
            view: view(),
            frames: (0..BATCH).map(|_| Frame::from_bytes(&packet())).collect(),
            output: Output::new(),
            flows,
            number: Number::Random(1),
            now: Instant::now(),
        }
    }

    /// Every flow gets its connection.
    fn connect(&mut self, balancer: &mut dyn Balancer) {
        self.number = Number::InOrder(0);
        self.run(balancer, self.flows.next_multiple_of(BATCH));
        self.number = Number::Random(1);
    }

    /// Nanoseconds for each of so many packets.
    fn time(&mut self, balancer: &mut dyn Balancer, packets: u32) -> f64 {
        let started = processor_time();
        self.run(balancer, packets);
        (processor_time() - started) / f64::from(packets)
    }

    fn run(&mut self, balancer: &mut dyn Balancer, packets: u32) {
        for _ in 0..packets / BATCH {
            self.fill();
            // Time passes, slowly enough for nothing to expire.
            self.now += Duration::from_micros(20);
            self.engine.process(
                self.now,
                &self.view,
                PortId(0),
                &mut self.frames,
                balancer,
                &mut self.output,
            );
            let sent = self.output.transmit.drain(..);
            self.frames.extend(sent.map(|(_, frame)| frame));
            assert_eq!(self.frames.len(), BATCH as usize, "every packet goes on");
        }
    }

    /// The same without the engine.
    fn alone(&mut self, packets: u32) -> f64 {
        let started = processor_time();
        for _ in 0..packets / BATCH {
            self.fill();
            black_box(&mut self.frames);
        }
        (processor_time() - started) / f64::from(packets)
    }

    /// Writes the next batch's headers, as a device would have brought them.
    fn fill(&mut self) {
        for frame in &mut self.frames {
            let flow = match &mut self.number {
                Number::InOrder(next) => {
                    *next += 1;
                    (*next - 1) % self.flows
                }
                Number::Random(state) => {
                    *state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (((*state >> 32) * u64::from(self.flows)) >> 32) as u32
                }
            };
            // Sixteen flows of each client.
            let client = 0x0b00_0000 + (flow >> 4);
            let bytes = frame.bytes_mut();
            bytes[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9]);
            bytes[22] = 64;
            bytes[24..26].copy_from_slice(&[0, 0]);
            bytes[26..30].copy_from_slice(&client.to_be_bytes());
            bytes[30..34].copy_from_slice(&VIP.octets());
            let port = 2000 + (flow & 15) as u16;
            bytes[34..36].copy_from_slice(&port.to_be_bytes());
            bytes[36..38].copy_from_slice(&PORT.to_be_bytes());
            let sum = checksum::finish(checksum::sum(&bytes[14..34]));
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

/// Looks nothing up.
struct Fixed;

impl Balancer for Fixed {
    fn decide(&mut self, _: Instant, packets: &Packets<'_>, verdicts: &mut Vec<Verdict>) {
        let rip = SocketAddr::from((server(0), PORT));
        verdicts.extend(
            packets
                .iter()
                .map(|_| Verdict::Forward(Method::Nat { rip })),
        );
    }
}

/// The scheduler, as the director asks it.
struct Lookup(SchedBalancer);

impl Lookup {
    fn new(flows: u32) -> Self {
        let mut config = DirectorConfig::new([1, 2, 3, 4]);
        config.max_connections = flows as usize + 1;
        let director = Arc::new(Director::new(config));
        let key = ServiceKey::Address {
            protocol: Protocol::Udp,
            vip: VIP.into(),
            vport: PORT,
        };
        director
            .add_service(key, ServiceConfig::default())
            .expect("it is the only one");
        for n in 0..SERVERS {
            let addr = SocketAddr::from((server(n), PORT));
            director
                .add_server(Instant::now(), &key, addr, ServerConfig::default())
                .expect("each has its address");
        }
        Self(SchedBalancer::new(director.worker(), Arc::default()))
    }
}

impl Balancer for Lookup {
    fn decide(&mut self, now: Instant, packets: &Packets<'_>, verdicts: &mut Vec<Verdict>) {
        self.0.decide(now, packets, verdicts);
    }
}

/// A datagram of 64 bytes without a checksum of its own.
fn packet() -> Vec<u8> {
    let mut bytes = vec![0; 14];
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes.extend_from_slice(&[0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[0, 0, 0, 0, 0, 26, 0, 0]);
    bytes.resize(60, 0);
    bytes
}

/// One port, and the servers on its link.
fn view() -> View {
    let mut claims = ClaimSet::new();
    claims.insert_service(Endpoint {
        protocol: 17,
        addr: VIP.into(),
        port: PORT,
    });
    let mut routes = RouteTable::new();
    routes.insert(Route::new(
        Prefix::new(IpAddr::from([10, 0, 0, 0]), 8),
        NextHop::OnLink,
        2,
    ));
    let mut neighbours = NeighbourTable::new();
    for n in 0..SERVERS {
        let hop = Hop {
            ifindex: 2,
            addr: server(n).into(),
        };
        let neighbour = Neighbour {
            mac: [2, 0, 0, 0, 1, n],
            state: NeighbourState::Reachable,
        };
        neighbours.insert(hop, neighbour);
    }
    View {
        claims: Arc::new(claims),
        routes: Arc::new(routes),
        neighbours: Arc::new(neighbours),
        ports: Arc::new([Port::new(PortId(0), 2, "eth0", [2, 0, 0, 0, 0, 1])]),
        ..View::default()
    }
}

fn server(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 11 + n)
}

/// Nanoseconds that this thread has worked: what else the machine does counts only as far as it takes the caches.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const PORT: u16 = 53;
const SERVERS: u8 = 8;
const BATCH: u32 = 32;
const PACKETS: u32 = 32 * 8_000;
const ROUNDS: usize = 15;
