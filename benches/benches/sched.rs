//! Picks and the connection table.
//!
//! ```text
//! cargo bench -p lvs-benches --bench sched -- pick
//! cargo bench -p lvs-benches --bench sched --features peers    # beside other crates
//! ```
//!
//! With the peers a table follows of all contestants, measured in turn, and how many times as long the others take; the
//! program `picks` prints it alone. `--bench threads` is about two threads at one service.

#![allow(missing_docs)]

mod common;
mod contest;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use lvs_sched::*;

use common::{Clients, server};
use contest::{SIZES, Tier, contestants, service, table};

fn picks(c: &mut Criterion) {
    for tier in Tier::ALL {
        let mut group = c.benchmark_group(tier.to_string());
        group.throughput(Throughput::Elements(1));
        let all = |size| {
            contestants(tier, size)
                .into_iter()
                .map(move |one| (one, size))
        };
        for (contestant, size) in SIZES.into_iter().flat_map(all) {
            let mut built = None;
            let id = BenchmarkId::new(contestant.name, size);
            group.bench_function(id, |b| {
                // Not before it is asked for: those that are left out need not be built.
                let calls = built.get_or_insert_with(|| contestant.build());
                b.iter_custom(|count| {
                    let begin = Instant::now();
                    calls(count);
                    begin.elapsed()
                });
            });
        }
        group.finish();
    }
    let mut group = c.benchmark_group("T0 pick by the service");
    let kinds = [
        SchedulerKind::RoundRobin,
        SchedulerKind::Maglev,
        SchedulerKind::WeightedLeastConnection,
    ];
    for kind in kinds {
        let service = service(kind, 100);
        let mut clients = Clients::new();
        group.bench_function(kind.name(), |b| b.iter(|| service.pick(clients.next())));
    }
    group.finish();
    let mut group = c.benchmark_group("T2 pick and lease by the service");
    for kind in kinds {
        let service = service(kind, 100);
        let mut clients = Clients::new();
        group.bench_function(kind.name(), |b| b.iter(|| service.connect(clients.next())));
    }
    group.finish();
}

fn tables(c: &mut Criterion) {
    let mut group = c.benchmark_group("build table");
    group.sample_size(20);
    for (name, kind) in [
        ("maglev", SchedulerKind::Maglev),
        ("mh", SchedulerKind::MaglevHash),
    ] {
        for size in [10, 100, 1_000] {
            let service = service(kind, size);
            let mut clients = Clients::new();
            let mut healthy = false;
            group.bench_function(BenchmarkId::new(name, size), |b| {
                b.iter(|| {
                    // A change and the pick that builds the table.
                    healthy = !healthy;
                    service
                        .set_healthy(server(0), healthy)
                        .expect("it was added");
                    service.pick(clients.next())
                });
            });
        }
    }
    group.finish();
}

const VIP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)), 80);

fn packet(client: u32, tcp_flags: TcpFlags) -> Packet {
    Packet {
        protocol: Protocol::Tcp,
        source: SocketAddr::from((
            Ipv4Addr::from_bits(0x0b00_0000 + client / 16),
            1024 + (client % 16) as u16,
        )),
        destination: VIP,
        direction: Direction::Inbound,
        tcp_flags,
        sctp: None,
        length: 60,
        mark: 0,
    }
}

fn connections(c: &mut Criterion) {
    let mut group = c.benchmark_group("connection table");
    group.throughput(Throughput::Elements(1));
    group.sample_size(20);
    for size in [1_000_u32, 1_000_000] {
        let now = Instant::now();
        let mut config = DirectorConfig::new([1, 2, 3, 4]);
        config.max_connections = 1 << 24;
        let director = Arc::new(Director::new(config));
        let key = ServiceKey::Address {
            protocol: Protocol::Tcp,
            vip: VIP.ip(),
            vport: VIP.port(),
        };
        director
            .add_service(key, ServiceConfig::default())
            .expect("it is the first");
        for number in 0..10 {
            director
                .add_server(now, &key, server(number), ServerConfig::default())
                .expect("addresses differ");
        }
        let mut worker = director.worker();
        for client in 0..size {
            let _ = worker.handle_packet(now, &packet(client, TcpFlags::SYN));
            let _ = worker.handle_packet(now, &packet(client, TcpFlags::ACK));
        }
        let mut client = 0_u32;
        group.bench_function(BenchmarkId::new("known packet", size), |b| {
            b.iter(|| {
                client = client.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                worker.handle_packet(now, &packet(client % size, TcpFlags::ACK))
            });
        });
        // A new connection, and the end of one of those before it: the table keeps its size.
        let mut time = now;
        let mut fresh = size;
        group.bench_function(BenchmarkId::new("new connection and expiry", size), |b| {
            b.iter(|| {
                fresh = fresh.wrapping_add(1) % (1 << 26);
                time += Duration::from_micros(2);
                worker.handle_packet(time, &packet(size + fresh, TcpFlags::SYN))
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(20);
    targets = picks, tables, connections
}

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let is_all = words.iter().all(|word| word.starts_with('-'));
    if cfg!(feature = "peers") && is_all {
        let quick = words.iter().any(|word| word == "--test");
        let effort = if quick { table::QUICK } else { table::FULL };
        let printed = table::compare(effort, &mut std::io::stdout());
        printed.expect("standard output takes it");
    }
}
