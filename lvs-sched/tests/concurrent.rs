//! Picks and changes from several threads: the outcome is one that some order of them has.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use lvs_sched::*;

const THREADS: u32 = 4;
const PICKS: u32 = 6_000;

fn addr(number: u32) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number as u8 + 1], 80))
}

fn service(kind: SchedulerKind, weights: &[u32]) -> VirtualService {
    let service = VirtualService::new(ServiceConfig {
        scheduler: kind,
        ..ServiceConfig::default()
    });
    for (number, weight) in (0..).zip(weights) {
        let config = ServerConfig {
            weight: Weight::new(*weight).expect("small"),
            ..ServerConfig::default()
        };
        service
            .add_server(addr(number), config)
            .expect("addresses differ");
    }
    service
}

fn flow(number: u32) -> SocketAddr {
    SocketAddr::from((std::net::Ipv4Addr::from_bits(0x0a00_0000 + number), 4000))
}

/// How often each server was chosen by all threads together.
fn counts(service: &VirtualService, leases: bool) -> BTreeMap<SocketAddr, u32> {
    let mut counts = BTreeMap::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let mut picker = service.picker();
                    let flows = (0..PICKS).map(|number| flow(thread * PICKS + number));
                    flows
                        .map(|flow| {
                            if leases {
                                service.connect(flow).expect("all are usable").addr()
                            } else {
                                picker.pick(flow).expect("all are usable").addr()
                            }
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for addr in threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("it does not panic"))
        {
            *counts.entry(addr).or_insert(0) += 1;
        }
    });
    counts
}

#[test]
fn shared_orders_have_no_gap_and_no_repetition() {
    for leases in [false, true] {
        let rr = counts(&service(SchedulerKind::RoundRobin, &[1; 6]), leases);
        let each = THREADS * PICKS / 6;
        assert!(
            rr.len() == 6 && rr.values().all(|count| *count == each),
            "{rr:?}"
        );

        let wrr = counts(
            &service(SchedulerKind::WeightedRoundRobin, &[1, 2, 3]),
            leases,
        );
        let part = THREADS * PICKS / 6;
        let expected: Vec<_> = (0..3).map(|n| (addr(n), part * (n + 1))).collect();
        assert_eq!(wrr.into_iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn least_connection_fills_evenly_from_all_threads() {
    let service = service(SchedulerKind::WeightedLeastConnection, &[1, 2, 3, 6]);
    let leases: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let service = &service;
                scope.spawn(move || {
                    let leases = (0..PICKS).map(|n| service.connect(flow(n)).unwrap());
                    leases.collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let active: Vec<_> = service
        .servers()
        .iter()
        .map(|server| server.active())
        .collect();
    let part = THREADS * PICKS / 12;
    assert_eq!(active, [6, 3, 2, 1].map(|weight| weight * part));
    // Dropped elsewhere, they are seen by the next pick.
    std::thread::scope(|scope| {
        let mut leases = leases.into_iter();
        let halves = [
            leases.by_ref().take(10_000).collect::<Vec<_>>(),
            leases.collect(),
        ];
        for half in halves {
            scope.spawn(move || drop(half));
        }
    });
    assert!(service.servers().iter().all(|server| server.active() == 0));
    assert_eq!(service.connect(flow(0)).unwrap().addr(), addr(3));
}

#[test]
fn thresholds_hold_in_every_scheduler() {
    for kind in SchedulerKind::ALL {
        if matches!(
            kind,
            SchedulerKind::None | SchedulerKind::LocalityLeastConnection
        ) {
            continue; // nobody, and a cache that does not look at the threshold
        }
        let service = service(kind, &[3, 3]);
        for number in 0..2 {
            let config = ServerConfig {
                upper_threshold: 3,
                lower_threshold: 3,
                ..service.server(addr(number)).unwrap().config()
            };
            service.edit_server(addr(number), config).unwrap();
        }
        let servers = service.servers();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (service, servers) = (&service, &servers);
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for number in 0..1_500 {
                        held.extend(service.connect(flow(thread * 1_500 + number)));
                        assert!(servers.iter().all(|server| server.active() <= 3), "{kind}");
                        if held.len() > 1 {
                            drop(held.remove(0));
                        }
                    }
                });
            }
        });
        assert!(
            servers
                .iter()
                .all(|server| server.active() == 0 && !server.is_overloaded())
        );
    }
}

#[test]
fn a_drained_server_gets_nothing_more_whatever_runs() {
    for kind in SchedulerKind::ALL {
        if kind == SchedulerKind::None {
            continue;
        }
        let service = service(kind, &[1, 1, 1]);
        let (stop, served) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (service, stop, served) = (&service, &stop, &served);
                scope.spawn(move || {
                    let mut number = thread;
                    while !stop.load(Ordering::Relaxed) {
                        number += 2;
                        if service.connect(flow(number)).is_ok() {
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            for round in 0..40 {
                let addr = addr(round % 3);
                let mut drain = service.drain(addr, None).unwrap();
                while drain.poll_event().is_none() {
                    std::thread::yield_now();
                }
                // Done is done: an attempt that was under way takes itself back.
                let server = service.server(addr).unwrap();
                let connections = server.stats().connections;
                std::thread::yield_now();
                assert_eq!(server.stats().connections, connections, "{kind}");
                service.set_weight(addr, Weight::ONE).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(service.servers().iter().all(|server| server.active() == 0));
    }
}

#[test]
fn picks_go_on_while_servers_come_and_go() {
    for kind in SchedulerKind::ALL {
        if kind == SchedulerKind::None {
            continue;
        }
        let service = service(kind, &[1, 1, 1]);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (service, stop) = (&service, &stop);
                scope.spawn(move || {
                    let (mut number, mut picker) = (thread, service.picker());
                    while !stop.load(Ordering::Relaxed) {
                        number += 2;
                        let lease = service.connect(flow(number));
                        // The plain hashes have no stand-in for an unhealthy server.
                        let strict = matches!(
                            kind,
                            SchedulerKind::DestinationHash
                                | SchedulerKind::SourceHash
                                | SchedulerKind::MaglevHash
                        );
                        assert!(strict || lease.is_ok(), "{kind}");
                        picker.pick(flow(number));
                    }
                });
            }
            for round in 0..150 {
                service.remove_server(addr(2)).unwrap();
                service
                    .add_server(addr(2), ServerConfig::default())
                    .unwrap();
                if round % 10 == 0 {
                    service.set_healthy(addr(1), round % 20 == 0).unwrap();
                }
            }
            service.set_healthy(addr(1), true).unwrap();
            stop.store(true, Ordering::Relaxed);
        });
        assert!(
            service.servers().iter().all(|server| server.active() == 0),
            "{kind}"
        );
    }
}
