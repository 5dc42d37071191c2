//! The tournament against the plain rules, over random lives of a service.

use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::tests::{Pool, addr, weighing};
use crate::real_server::Class;
use crate::{RealServer, SchedulerKind, ServerConfig, ServiceConfig, Weight};

/// One thing that happens to the service. Servers are named by number, modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Add {
        weight: u32,
        upper: u32,
    },
    Remove(usize),
    Weigh(usize, u32),
    Limit(usize, u32),
    Heal(usize, bool),
    Schedule(SchedulerKind),
    Connect(Class),
    Pick,
    End(usize),
    Move(usize),
    Template(usize),
    /// Several threads bind, move and unbind at once, then all are done.
    Storm(Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let weight = || {
        prop_oneof![
            4 => 0_u32..6,
            1 => Just(i32::MAX as u32),
            1 => any::<u32>().prop_map(|weight| weight >> 1),
        ]
    };
    let any_server = || 0_usize..64;
    let class = prop_oneof![Just(Class::Active), Just(Class::Inactive)];
    let step = prop_oneof![
        3 => (weight(), prop_oneof![2 => Just(0_u32), 1 => 1_u32..4])
            .prop_map(|(weight, upper)| Step::Add { weight, upper }),
        1 => any_server().prop_map(Step::Remove),
        2 => (any_server(), weight()).prop_map(|(server, weight)| Step::Weigh(server, weight)),
        1 => (any_server(), 0_u32..4).prop_map(|(server, upper)| Step::Limit(server, upper)),
        1 => (any_server(), any::<bool>()).prop_map(|(server, on)| Step::Heal(server, on)),
        1 => kinds().prop_map(Step::Schedule),
        9 => class.prop_map(Step::Connect),
        2 => Just(Step::Pick),
        5 => any_server().prop_map(Step::End),
        3 => any_server().prop_map(Step::Move),
        1 => any_server().prop_map(Step::Template),
        1 => prop::collection::vec(any::<u8>(), 1..60).prop_map(Step::Storm),
    ];
    prop::collection::vec(step, 1..120)
}

fn kinds() -> impl Strategy<Value = SchedulerKind> {
    use SchedulerKind::{
        Failover, LeastConnection, NeverQueue, Overflow, RoundRobin, ShortestExpectedDelay,
        WeightedLeastConnection,
    };
    prop::sample::select(vec![
        LeastConnection,
        WeightedLeastConnection,
        ShortestExpectedDelay,
        NeverQueue,
        Failover,
        Overflow,
        RoundRobin,
    ])
}

/// The rules as the specification words them: a scan in list order, strictly better replaces.
fn plain(kind: SchedulerKind, servers: &[Arc<RealServer>]) -> Option<usize> {
    let usable = || servers.iter().enumerate().filter(|(_, s)| s.is_usable());
    let weight = |s: &RealServer| u128::from(s.effective_weight().get());
    let least = |load: fn(&RealServer) -> u64| {
        usable()
            .reduce(|best, other| {
                let left = u128::from(load(other.1)) * weight(best.1);
                let right = u128::from(load(best.1)) * weight(other.1);
                if left < right { other } else { best }
            })
            .map(|(index, _)| index)
    };
    let heaviest = |able: fn(&RealServer) -> bool| {
        usable()
            .filter(|(_, s)| able(s))
            .reduce(|best, other| {
                if weight(other.1) > weight(best.1) {
                    other
                } else {
                    best
                }
            })
            .map(|(index, _)| index)
    };
    let delay = |s: &RealServer| u64::from(s.active()) + 1;
    match kind {
        SchedulerKind::LeastConnection => usable()
            .reduce(|best, other| {
                if other.1.cost() < best.1.cost() {
                    other
                } else {
                    best
                }
            })
            .map(|(index, _)| index),
        SchedulerKind::WeightedLeastConnection => least(RealServer::cost),
        SchedulerKind::ShortestExpectedDelay => least(delay),
        SchedulerKind::NeverQueue => usable()
            .find(|(_, s)| s.active() == 0)
            .map(|(index, _)| index)
            .or_else(|| least(delay)),
        SchedulerKind::Failover => heaviest(|_| true),
        SchedulerKind::Overflow => heaviest(|s| s.active() <= s.effective_weight().get()),
        other => panic!("{other} has no plain rule here"),
    }
}

struct Life {
    pool: Pool,
    kind: SchedulerKind,
    added: u32,
    bound: Vec<(Arc<RealServer>, Class)>,
}

impl Life {
    fn server(&self, number: usize) -> Option<Arc<RealServer>> {
        let servers = self.pool.service.servers();
        (!servers.is_empty()).then(|| Arc::clone(&servers[number % servers.len()]))
    }

    fn run(&mut self, step: &Step) {
        let service = &self.pool.service;
        match step {
            Step::Add { weight, upper } => {
                self.added += 1;
                let addr =
                    SocketAddr::from(([10, 0, (self.added / 256) as u8, self.added as u8], 80));
                let config = ServerConfig {
                    upper_threshold: *upper,
                    ..weighing(*weight)
                };
                service.add_server(addr, config).unwrap();
            }
            Step::Remove(number) => {
                if let Some(server) = self.server(*number) {
                    service.remove_server(server.addr()).unwrap();
                }
            }
            Step::Weigh(number, weight) => {
                if let Some(server) = self.server(*number) {
                    let weight = Weight::new(*weight).unwrap();
                    service.set_weight(server.addr(), weight).unwrap();
                }
            }
            Step::Limit(number, upper_threshold) => {
                if let Some(server) = self.server(*number) {
                    let config = ServerConfig {
                        upper_threshold: *upper_threshold,
                        ..server.config()
                    };
                    service.edit_server(server.addr(), config).unwrap();
                }
            }
            Step::Heal(number, healthy) => {
                if let Some(server) = self.server(*number) {
                    service.set_healthy(server.addr(), *healthy).unwrap();
                }
            }
            Step::Schedule(kind) => {
                self.kind = *kind;
                let config = ServiceConfig {
                    scheduler: *kind,
                    ..ServiceConfig::default()
                };
                service.edit(config).unwrap();
            }
            Step::Connect(class) => self.check(Some(*class)),
            Step::Pick => self.check(None),
            Step::End(number) => {
                if !self.bound.is_empty() {
                    let (server, class) = self.bound.swap_remove(number % self.bound.len());
                    server.unbind(class);
                }
            }
            Step::Move(number) => {
                if !self.bound.is_empty() {
                    let number = number % self.bound.len();
                    let (server, class) = &mut self.bound[number];
                    toggle(server, class);
                }
            }
            Step::Template(number) => {
                if let Some(server) = self.server(*number) {
                    server.bind(Class::Persistent);
                    server.unbind(Class::Persistent);
                }
            }
            Step::Storm(orders) => self.storm(orders),
        }
    }

    fn check(&mut self, class: Option<Class>) {
        let servers = self.pool.service.servers();
        let request = crate::Request::new(addr('x'), addr('y'));
        let expected = (self.kind != SchedulerKind::RoundRobin)
            .then(|| plain(self.kind, &servers).map(|index| servers[index].addr()));
        let picked = match class {
            Some(class) => self.pool.service.schedule_and_bind(&request, class),
            None => self.pool.service.schedule(&request),
        };
        if let Some(expected) = expected {
            assert_eq!(
                picked.as_ref().map(|server| server.addr()),
                expected,
                "{}",
                self.kind
            );
        }
        // Without the lock, unless something has changed.
        if let (None, Some(expected)) = (class, expected) {
            let mut picker = self.pool.service.picker();
            for _ in 0..2 {
                let again = picker.pick(request.client).map(|server| server.addr());
                assert_eq!(again, expected, "{}", self.kind);
            }
        }
        if let (Some(class), Some(server)) = (class, picked) {
            self.bound.push((server, class));
        }
    }

    fn storm(&mut self, orders: &[u8]) {
        let servers = self.pool.service.servers();
        if servers.is_empty() {
            return;
        }
        let bound: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = orders
                .chunks(orders.len().div_ceil(2))
                .map(|orders| {
                    let servers = &servers;
                    scope.spawn(move || {
                        let mut bound = Vec::new();
                        for order in orders {
                            let server = &servers[usize::from(*order) % servers.len()];
                            let mut class = Class::Inactive;
                            server.bind(class);
                            toggle(server, &mut class);
                            if order % 3 == 0 {
                                server.unbind(class);
                            } else {
                                bound.push((Arc::clone(server), class));
                            }
                        }
                        bound
                    })
                })
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        self.bound.extend(bound);
    }
}

fn toggle(server: &RealServer, class: &mut Class) {
    *class = if *class == Class::Active {
        server.deactivate();
        Class::Inactive
    } else {
        server.activate();
        Class::Active
    };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_tournament_decides_as_the_plain_rule(kind in kinds(), steps in steps()) {
        let mut life = Life {
            pool: Pool::adding(kind, &[]),
            kind,
            added: 0,
            bound: Vec::new(),
        };
        for step in &steps {
            life.run(step);
            life.check(None);
        }
    }
}

#[test]
fn many_servers_make_several_rounds() {
    let kind = SchedulerKind::WeightedLeastConnection;
    let mut life = Life {
        pool: Pool::adding(kind, &[]),
        kind,
        added: 0,
        bound: Vec::new(),
    };
    for weight in 0..300 {
        life.run(&Step::Add {
            weight: weight * 7 % 13,
            upper: 0,
        });
    }
    for step in 0..3_000 {
        life.run(&Step::Connect(Class::Active));
        if step % 3 != 0 {
            life.run(&Step::End(step * 31));
        }
        if step % 100 == 0 {
            life.run(&Step::Weigh(step * 17, (step % 7) as u32));
        }
    }
}
