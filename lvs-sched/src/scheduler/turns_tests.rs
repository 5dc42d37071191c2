//! Picks without a lock against the same scheduler under it, over random lives of a service.

use proptest::prelude::*;

use super::tests::{Pool, addr, weighing};
use crate::{Request, Scheduler, SchedulerKind, Seeds, ServerConfig, ServiceConfig, Weight};

#[derive(Clone, Debug)]
enum Step {
    Add {
        weight: u32,
        upper: u32,
    },
    Remove(usize),
    Weigh(usize, u32),
    Heal(usize, bool),
    /// The service is edited, of which the scheduler does not learn.
    Edit,
    Pick(usize),
    /// A pick that counts, for ever.
    Connect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Weights with divisors, some of cycles that are too long to be written down.
    let weight = || {
        prop_oneof![
            4 => 0_u32..5,
            2 => (0_u32..5).prop_map(|weight| weight * 10),
            1 => (0_u32..3).prop_map(|weight| weight * 1_000_000),
        ]
    };
    let upper = prop_oneof![8 => Just(0_u32), 1 => 1_u32..4];
    let any_server = || 0_usize..64;
    let step = prop_oneof![
        3 => (weight(), upper).prop_map(|(weight, upper)| Step::Add { weight, upper }),
        2 => any_server().prop_map(Step::Remove),
        2 => (any_server(), weight()).prop_map(|(server, weight)| Step::Weigh(server, weight)),
        1 => (any_server(), any::<bool>()).prop_map(|(server, on)| Step::Heal(server, on)),
        1 => Just(Step::Edit),
        6 => (0_usize..20).prop_map(Step::Pick),
        3 => Just(Step::Connect),
    ];
    prop::collection::vec(step, 1..80)
}

/// The service, and a scheduler of the same kind that has the same servers and always walks.
struct Life {
    pool: Pool,
    plain: Box<dyn Scheduler>,
    added: u8,
}

impl Life {
    fn new(kind: SchedulerKind) -> Self {
        let pool = Pool::adding(kind, &[]);
        let mut plain = kind.build(Seeds::default());
        plain.attached(&pool.servers());
        Self {
            pool,
            plain,
            added: 0,
        }
    }

    fn run(&mut self, step: &Step) {
        let servers = self.pool.servers();
        let index = |number: &usize| number.checked_rem(servers.len());
        let service = &self.pool.service;
        match step {
            Step::Add { weight, upper } => {
                self.added += 1;
                let config = ServerConfig {
                    upper_threshold: *upper,
                    ..weighing(*weight)
                };
                service
                    .add_server(addr(self.added as char), config)
                    .unwrap();
                self.plain.server_added(&self.pool.servers(), 0);
            }
            Step::Remove(number) => {
                if let Some(index) = index(number) {
                    service.remove_server(servers[index].addr()).unwrap();
                    self.plain.server_removed(&self.pool.servers(), index);
                }
            }
            Step::Weigh(number, weight) => {
                if let Some(index) = index(number) {
                    let weight = Weight::new(*weight).unwrap();
                    service.set_weight(servers[index].addr(), weight).unwrap();
                    self.plain.server_changed(&servers, index);
                }
            }
            Step::Heal(number, healthy) => {
                if let Some(index) = index(number)
                    && servers[index].is_healthy() != *healthy
                {
                    service
                        .set_healthy(servers[index].addr(), *healthy)
                        .unwrap();
                    self.plain.server_changed(&servers, index);
                }
            }
            Step::Edit => service
                .edit(ServiceConfig {
                    one_packet: !service.config().one_packet,
                    ..service.config()
                })
                .unwrap(),
            Step::Pick(times) => {
                let request = Request::new(addr('x'), addr('y'));
                for _ in 0..*times {
                    let expected = self.plain.pick(&servers, &request);
                    let expected = expected.map(|index| servers[index].addr());
                    let peeked = service.peek(&request).unwrap();
                    assert_eq!(peeked.map(|server| server.addr()), expected);
                    let picked = service.pick(addr('x'));
                    assert_eq!(picked.map(|server| server.addr()), expected);
                }
            }
            Step::Connect => {
                let request = Request::new(addr('x'), addr('y'));
                let expected = self.plain.pick(&servers, &request);
                let lease = service.connect(addr('x')).ok();
                assert_eq!(
                    lease.as_ref().map(|lease| lease.addr()),
                    expected.map(|index| servers[index].addr())
                );
                std::mem::forget(lease);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn turns_without_a_lock_are_those_of_the_walk(
        weighted in any::<bool>(),
        steps in steps(),
    ) {
        let mut life = Life::new(if weighted {
            SchedulerKind::WeightedRoundRobin
        } else {
            SchedulerKind::RoundRobin
        });
        for step in &steps {
            life.run(step);
        }
    }
}
