//! Picks of each scheduler as servers grow, and the connection table as connections grow.
//!
//! The peer of a pick is what a program without this crate would write: a mutex around an index. The peer of a table lookup
//! is the standard hash map with the same keyed hash function over the five-tuple.

use std::collections::HashMap;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lvs_sched::{
    Direction, Director, DirectorConfig, ForwardMethod, Packet, Protocol, Request, SchedulerKind,
    ServerConfig, ServiceConfig, ServiceKey, TcpFlags, VirtualService, Weight, Worker,
};

criterion_group!(benches, picks, leases, table);
criterion_main!(benches);

fn picks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for servers in SERVERS {
        for kind in SchedulerKind::ALL {
            let service = service(kind, servers);
            let request = request();
            group.bench_function(BenchmarkId::new(kind.name(), servers), |bencher| {
                bencher.iter(|| service.schedule(black_box(&request)));
            });
        }
        let plain = Mutex::new((0, addresses(servers)));
        group.bench_function(
            BenchmarkId::new("peer: mutex and index", servers),
            |bencher| {
                bencher.iter(|| {
                    let mut plain = plain.lock().expect("nobody panics here");
                    plain.0 = (plain.0 + 1) % plain.1.len();
                    plain.1[plain.0]
                });
            },
        );
    }
    group.finish();
}

fn leases(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick and lease");
    let client: SocketAddr = (CLIENT, 40_000).into();
    for servers in SERVERS {
        for kind in SchedulerKind::ALL {
            let service = service(kind, servers);
            group.bench_function(BenchmarkId::new(kind.name(), servers), |bencher| {
                bencher.iter(|| service.lease(black_box(client)));
            });
        }
    }
    group.finish();
}

fn table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table");
    group.throughput(Throughput::Elements(1));
    let now = Instant::now();
    for connections in [1_000_u32, 1_000_000] {
        let (_director, mut worker) = filled(now, connections);
        let packets: Vec<Packet> = (0..connections).map(|n| packet(n, TcpFlags::ACK)).collect();
        let mut order = order(connections);
        group.bench_function(
            BenchmarkId::new("packet of a known connection", connections),
            |bencher| {
                bencher.iter(|| worker.handle_packet(now, &packets[order()]));
            },
        );
        let map: HashMap<(SocketAddr, SocketAddr, u8), u32> = packets
            .iter()
            .zip(0..)
            .map(|(packet, n)| ((packet.source, packet.destination, 6), n))
            .collect();
        let mut order = self::order(connections);
        group.bench_function(
            BenchmarkId::new("peer: std hash map lookup", connections),
            |bencher| {
                bencher.iter(|| {
                    let packet = &packets[order()];
                    map.get(black_box(&(packet.source, packet.destination, 6)))
                        .copied()
                });
            },
        );
    }
    for connections in [1_000_u32, 100_000] {
        group.throughput(Throughput::Elements(u64::from(connections)));
        group.bench_function(
            BenchmarkId::new("new connections", connections),
            |bencher| {
                let packets: Vec<Packet> =
                    (0..connections).map(|n| packet(n, TcpFlags::SYN)).collect();
                bencher.iter_batched_ref(
                    || filled(now, 0),
                    |(_director, worker)| {
                        for packet in &packets {
                            let _ = black_box(worker.handle_packet(now, packet));
                        }
                    },
                    BatchSize::LargeInput,
                );
            },
        );
        group.bench_function(BenchmarkId::new("expiry", connections), |bencher| {
            bencher.iter_batched_ref(
                || filled(now, connections),
                |(_director, worker)| worker.handle_timeout(now + Duration::from_secs(61)),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// A director with one service of ten NAT servers, and a worker with so many half-open connections.
fn filled(now: Instant, connections: u32) -> (Arc<Director>, Worker) {
    let director = Arc::new(Director::new(DirectorConfig::new([1, 2, 3, 4])));
    let key = ServiceKey::Address {
        protocol: Protocol::Tcp,
        vip: VIP.into(),
        vport: 80,
    };
    director
        .add_service(key, ServiceConfig::default())
        .expect("a fresh director has no service");
    for addr in addresses(10) {
        let config = ServerConfig {
            method: ForwardMethod::Nat,
            ..ServerConfig::default()
        };
        director
            .add_server(now, &key, addr, config)
            .expect("addresses differ");
    }
    let mut worker = director.worker();
    for n in 0..connections {
        let _ = worker.handle_packet(now, &packet(n, TcpFlags::SYN));
    }
    (director, worker)
}

fn service(kind: SchedulerKind, servers: u32) -> VirtualService {
    let service = VirtualService::new(ServiceConfig {
        scheduler: kind,
        ..ServiceConfig::default()
    });
    for (addr, n) in addresses(servers).into_iter().zip(0..) {
        let weight = Weight::new(1 + n % 4).expect("small weights are weights");
        let config = ServerConfig {
            weight,
            ..ServerConfig::default()
        };
        service.add_server(addr, config).expect("addresses differ");
    }
    service
}

fn addresses(count: u32) -> Vec<SocketAddr> {
    (0..count)
        .map(|n| (Ipv4Addr::from(0x0a01_0000 + n), 80).into())
        .collect()
}

fn packet(n: u32, tcp_flags: TcpFlags) -> Packet {
    let client = Ipv4Addr::from(0x0b00_0000 + n / 50_000);
    Packet {
        protocol: Protocol::Tcp,
        source: (client, 1024 + (n % 50_000) as u16).into(),
        destination: (VIP, 80).into(),
        direction: Direction::Inbound,
        tcp_flags,
        length: 60,
        mark: 0,
    }
}

fn request() -> Request {
    Request::new((CLIENT, 40_000).into(), (VIP, 80).into())
}

/// Visits all connections in an order that no cache foresees.
fn order(connections: u32) -> impl FnMut() -> usize {
    let mut at = 0_u64;
    move || {
        at = at
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((at >> 32) % u64::from(connections)) as usize
    }
}

const SERVERS: [u32; 3] = [10, 100, 1000];

const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
