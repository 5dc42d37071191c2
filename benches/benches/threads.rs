//! Two threads that pick from one service at once.
//!
//! ```text
//! cargo bench -p lvs-benches --bench threads
//! ```
//!
//! Hash schedulers share nothing that is written, so two threads should do twice as much as one.
//! `rr`, `wrr` and the least-connection schedulers have one order of all picks: they are measured beside
//! the least that such an order costs, two threads that add to one atomic and look something up with it. Where a pick
//! must see what the picks before it changed at several places, it needs a lock: two threads that add to a number behind
//! one lock stand beside it. A lease is two steps, which the other thread's next pick must see: beside it stand two threads
//! that add behind one lock and then take off one atomic.
//!
//! The machine may have other work. So many short rounds are run, and only those count in which all
//! threads ran at the same time and none was interrupted; the figure is their median.

#![allow(missing_docs)]

mod common;

use std::hint::{black_box, spin_loop};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lvs_sched::*;
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use common::{Clients, server};

const SERVERS: u32 = 100;
const SCHEDULERS: [SchedulerKind; 13] = [
    SchedulerKind::RoundRobin,
    SchedulerKind::WeightedRoundRobin,
    SchedulerKind::SourceHash,
    SchedulerKind::DestinationHash,
    SchedulerKind::MaglevHash,
    SchedulerKind::Maglev,
    SchedulerKind::LeastConnection,
    SchedulerKind::WeightedLeastConnection,
    SchedulerKind::ShortestExpectedDelay,
    SchedulerKind::NeverQueue,
    SchedulerKind::Failover,
    SchedulerKind::Overflow,
    SchedulerKind::TwoChoices,
];

fn main() {
    // As `cargo bench -- --test`: only that it runs.
    let quick = std::env::args().any(|arg| arg == "--test");
    let effort = if quick { QUICK } else { FULL };

    let atomic = AtomicU64::new(0);
    let servers: Vec<SocketAddr> = (0..SERVERS).map(server).collect();
    let floor = Pair::measure(effort, || {
        let (atomic, servers, mut clients) = (&atomic, &servers, Clients::new());
        move || {
            black_box(clients.next());
            let turn = atomic.fetch_add(1, Ordering::Relaxed);
            black_box(servers[turn as u32 as usize % servers.len()]);
        }
    });
    println!("{:<26}{}", "one atomic", floor.row(None));
    let locked = Mutex::new(0_u64);
    let lock = Pair::measure(effort, || {
        let (locked, mut clients) = (&locked, Clients::new());
        move || {
            black_box(clients.next());
            *locked.lock() += 1;
        }
    });
    println!("{:<26}{}", "one lock", lock.row(Some(&floor)));
    let twice = Pair::measure(effort, || {
        let (locked, atomic, mut clients) = (&locked, &atomic, Clients::new());
        move || {
            black_box(clients.next());
            *locked.lock() += 1;
            atomic.fetch_sub(1, Ordering::Relaxed);
        }
    });
    println!(
        "{:<26}{}",
        "one lock and one atomic",
        twice.row(Some(&floor))
    );
    for kind in SCHEDULERS {
        let service = service(kind);
        let picks = Pair::measure(effort, || {
            let (mut clients, mut picker) = (Clients::new(), service.picker());
            move || {
                black_box(picker.pick(clients.next()).is_some());
            }
        });
        println!("{:<26}{}", format!("{kind} pick"), picks.row(Some(&floor)));
        let leases = Pair::measure(effort, || {
            let (mut clients, mut picker) = (Clients::new(), service.picker());
            move || drop(black_box(picker.connect(clients.next())))
        });
        println!(
            "{:<26}{}",
            format!("{kind} pick and lease"),
            leases.row(Some(&floor))
        );
    }
}

/// Nanoseconds of one call, by one thread and by each of two at once.
struct Pair {
    one: Option<f64>,
    two: Option<f64>,
}

impl Pair {
    fn measure<F: FnMut()>(effort: Effort, make: impl Fn() -> F + Sync) -> Self {
        Self {
            one: together(1, effort, &make),
            two: together(2, effort, &make),
        }
    }

    fn row(&self, floor: Option<&Self>) -> String {
        let Some(one) = self.one else {
            return BUSY.to_owned();
        };
        let Some(two) = self.two else {
            return format!("{one:7.1} ns alone, by two:{BUSY}");
        };
        let gain = 2.0 * one / two;
        let mut row =
            format!("{one:7.1} ns alone {two:7.1} ns each of two  {gain:4.2}x one thread");
        if let Some(floor) = floor.and_then(|floor| floor.two) {
            row += &format!("  {:5.2}x one atomic", two / floor);
        }
        row
    }
}

const BUSY: &str = " no undisturbed round: the machine is busy";

#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    calls: u32,
}

const QUICK: Effort = Effort {
    rounds: 3,
    calls: 100,
};
const FULL: Effort = Effort {
    rounds: 300,
    calls: 5_000,
};

/// What one thread saw of a round.
struct Seen {
    begin: Instant,
    end: Instant,
    cpu: Duration,
}

fn together<F: FnMut()>(
    threads: usize,
    effort: Effort,
    make: &(impl Fn() -> F + Sync),
) -> Option<f64> {
    let ready = AtomicUsize::new(0);
    let run = || {
        let mut call = make();
        let round = |number: usize| {
            ready.fetch_add(1, Ordering::SeqCst);
            let mut waited = 0_u32;
            while ready.load(Ordering::SeqCst) < threads * (number + 1) {
                // Who stays on its processor meets the other one there for several rounds.
                waited += 1;
                if waited.is_multiple_of(1_000_000) {
                    std::thread::yield_now();
                }
                spin_loop();
            }
            let (cpu, begin) = (cpu_time(), Instant::now());
            (0..effort.calls).for_each(|_| call());
            Seen {
                begin,
                end: Instant::now(),
                cpu: cpu_time() - cpu,
            }
        };
        (0..effort.rounds).map(round).collect::<Vec<_>>()
    };
    let all: Vec<Vec<Seen>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|seen| seen.unwrap_or_default()).collect()
    });
    let mut times: Vec<_> = (0..effort.rounds)
        .filter_map(|round| {
            let seen: Vec<_> = all.iter().filter_map(|seen| seen.get(round)).collect();
            let took = seen.iter().map(|seen| seen.end - seen.begin).max()?;
            let begin = seen.iter().map(|seen| seen.begin).max()?;
            let end = seen.iter().map(|seen| seen.end).min()?;
            let shared = end.saturating_duration_since(begin);
            let ran = |seen: &&Seen| (seen.end - seen.begin) < seen.cpu.mul_f64(1.05);
            (shared > took.mul_f64(0.85) && seen.iter().all(ran))
                .then(|| took.as_secs_f64() * 1e9 / f64::from(effort.calls))
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn service(kind: SchedulerKind) -> VirtualService {
    let service = VirtualService::new(ServiceConfig {
        scheduler: kind,
        ..ServiceConfig::default()
    });
    for number in 0..SERVERS {
        service
            .add_server(server(number), ServerConfig::default())
            .expect("addresses differ");
    }
    service
}
