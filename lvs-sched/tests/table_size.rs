//! What a tracked connection costs: bytes, and the time of the slowest insert while the table grows
//! and its timers turn.
//!
//! A machine that does other things interrupts an insert now and then. So a table is filled three
//! times in the same way, and an insert counts as slow as it was at its fastest. A million
//! connections come in a second, so that the first timers of most are looked at meanwhile.
//!
//! `cargo test --release -p lvs-sched --test table_size -- --nocapture --include-ignored --test-threads 1` prints the
//! figures for one and ten million connections.

#![allow(clippy::unwrap_used, reason = "a test outside of a test function")]

mod sys;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lvs_sched::*;

#[global_allocator]
static ALLOCATOR: sys::Counting = sys::Counting;

#[test]
fn a_million_connections_take_at_most_96_bytes_each() {
    let bytes = fill(1 << 20, &mut Slow::default());
    assert!(bytes <= 96.0, "{bytes:.1} bytes");
}

#[test]
#[ignore = "a gigabyte and some minutes"]
fn ten_million_connections() {
    let mut slow = Slow::default();
    for _ in 0..3 {
        let bytes = fill(10_000_000, &mut slow);
        assert!(bytes <= 96.0, "{bytes:.1} bytes");
        slow.end_round();
    }
    let mut times: Vec<_> = slow
        .times
        .iter()
        .map(|(number, time)| (time, number))
        .collect();
    times.sort_unstable();
    let over = times
        .iter()
        .filter(|(time, _)| **time >= Duration::from_micros(50))
        .count();
    println!(
        "{} inserts took 20 us and more in each round, {over} of them 50 us and more, the slowest {:?}",
        times.len(),
        &times[times.len().saturating_sub(12)..]
    );
}

/// The inserts that were slow in each round so far, and the shortest that each took.
#[derive(Default)]
struct Slow {
    times: BTreeMap<u32, Duration>,
    round: BTreeMap<u32, Duration>,
    rounds: u32,
}

impl Slow {
    fn note(&mut self, number: u32, took: Duration) {
        if took >= Duration::from_micros(20) {
            self.round.insert(number, took);
        }
    }

    fn end_round(&mut self) {
        let round = std::mem::take(&mut self.round);
        if self.rounds == 0 {
            self.times = round;
        } else {
            self.times.retain(|number, time| {
                round.get(number).is_some_and(|again| {
                    *time = (*time).min(*again);
                    true
                })
            });
        }
        self.rounds += 1;
    }
}

/// Opens so many connections. Returns the bytes of each, index and timer included.
fn fill(connections: u32, slow: &mut Slow) -> f64 {
    let mut config = DirectorConfig::new([1, 2, 3, 4]);
    config.max_connections = usize::MAX;
    let director = Arc::new(Director::new(config));
    let start = Instant::now();
    let vip = SocketAddr::from(([203, 0, 113, 10], 80));
    let key = ServiceKey::Address {
        protocol: Protocol::Tcp,
        vip: vip.ip(),
        vport: vip.port(),
    };
    let service = ServiceConfig {
        scheduler: SchedulerKind::RoundRobin,
        ..ServiceConfig::default()
    };
    director.add_service(key, service).unwrap();
    for last in 1..=10 {
        let server = SocketAddr::from(([192, 0, 2, last], 8080));
        let config = ServerConfig {
            method: ForwardMethod::Nat,
            ..ServerConfig::default()
        };
        director.add_server(start, &key, server, config).unwrap();
    }
    let syn = |number: u32| Packet {
        protocol: Protocol::Tcp,
        source: SocketAddr::from((
            (0x0a00_0000 + number / 16).to_be_bytes(),
            1024 + number as u16 % 16,
        )),
        destination: vip,
        direction: Direction::Inbound,
        tcp_flags: TcpFlags::SYN,
        sctp: None,
        length: 60,
        mark: 0,
    };
    let mut worker = director.worker();
    let before = sys::used();
    sys::take_peak();
    let begin = Instant::now();
    for number in 0..connections {
        let now = start + Duration::from_micros(u64::from(number));
        let from = Instant::now();
        let verdict = worker.handle_packet(now, &syn(number));
        let took = from.elapsed();
        assert!(matches!(verdict, Verdict::Forward { .. }));
        slow.note(number, took);
    }
    let each = begin.elapsed().as_nanos() / u128::from(connections);
    assert_eq!(worker.len(), connections as usize);
    let per = |bytes: usize| bytes as f64 / f64::from(connections);
    let (used, peak) = (per(sys::used() - before), per(sys::take_peak() - before));
    println!(
        "{connections} connections: {used:.1} bytes each, {peak:.1} at the peak; inserted in {each} ns \
         each"
    );

    // The same packets again, one by one and in batches, in an order that no cache likes.
    let packets: Vec<_> = (0..connections.min(1 << 20))
        .map(|number| syn((u64::from(number) * 7_919 % u64::from(connections)) as u32))
        .map(|packet| Packet {
            tcp_flags: TcpFlags::ACK,
            ..packet
        })
        .collect();
    let now = start + Duration::from_micros(u64::from(connections));
    let begin = Instant::now();
    for packet in &packets {
        assert!(matches!(
            worker.handle_packet(now, packet),
            Verdict::Forward { .. }
        ));
    }
    let single = begin.elapsed();
    let mut verdicts = Vec::with_capacity(32);
    let begin = Instant::now();
    for packets in packets.chunks(32) {
        verdicts.clear();
        worker.handle_batch(now, packets, &mut verdicts);
        assert!(matches!(verdicts[0], Verdict::Forward { .. }));
    }
    let batch = begin.elapsed();
    let each = |took: Duration| took.as_nanos() / packets.len() as u128;
    println!(
        "known connections: {} ns a packet one by one, {} ns in batches of 32",
        each(single),
        each(batch)
    );
    used
}
