use super::follower::Follower;
use super::ranked::Ratio;
use super::running_sum::RunningSum;
use super::{Peek, Request, Scheduler, Servers};
use crate::real_server::Load;

/// `twos`, weighted random choice of two.
///
/// Draws two usable servers at random, each with a probability of its share of the weights, and
/// takes the one with the smaller `cost / weight`; the first one if they are equal. Draws run over
/// `0..=sum of weights`, so the first usable server is favoured by one part.
///
/// The draws come from a seed: equal seeds and lives give equal choices. A draw is found in running
/// sums of the weights, so a pick costs O(log n), and as much for each server that became usable or
/// unusable since the last one.
#[derive(Debug)]
pub struct TwoChoices {
    state: u64,
    /// Of the weights; unusable servers have 0.
    sums: RunningSum,
    /// What was known of each server when it was looked at last.
    costs: Vec<u64>,
    follower: Follower,
}

impl TwoChoices {
    /// With a seed for the draws.
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed,
            sums: RunningSum::default(),
            costs: Vec::new(),
            follower: Follower::default(),
        }
    }

    /// Uniform over `0..=max`, by rejection.
    fn draw(&mut self, max: u64) -> u64 {
        let range = u128::from(max) + 1;
        loop {
            let product = u128::from(self.next()) * range;
            // Of 2^64 raw values those that would make some results more frequent are not used.
            if u128::from(product as u64) >= (1_u128 << 64) % range {
                return (product >> 64) as u64;
            }
        }
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl Scheduler for TwoChoices {
    fn pick(&mut self, servers: &Servers, _: &Request) -> Option<usize> {
        self.refresh(servers);
        let total = self.sums.total();
        if total == 0 {
            return None;
        }
        let draws = [self.draw(total), self.draw(total)];
        let index = self.choose(servers, draws);
        Some(self.follower.choose(index))
    }

    fn peek(&mut self, servers: &Servers, request: &Request) -> Peek {
        // The same draws come again.
        let state = self.state;
        let answer = self.pick(servers, request);
        self.state = state;
        Peek::Known(answer)
    }

    fn list_changed(&mut self) {
        self.follower.list_changed();
    }

    fn server_changed(&mut self, servers: &Servers, index: usize) {
        if self.follower.is_current() {
            let load = servers[index].load();
            self.follower.note(index, load);
            self.update(servers, index, load);
        }
    }
}

impl TwoChoices {
    fn refresh(&mut self, servers: &Servers) {
        // It is away while it is walked: `update` needs the rest of `self`.
        let mut follower = std::mem::take(&mut self.follower);
        if follower.is_current() {
            follower.refresh(servers, |index, load| self.update(servers, index, load));
        } else {
            self.costs.clear();
            let mut parts = Vec::with_capacity(servers.len());
            follower.follow(servers, |index, load| {
                parts.push(part(servers, index, load));
                self.costs.push(load.cost());
            });
            self.sums.rebuild(parts);
        }
        self.follower = follower;
    }

    fn update(&mut self, servers: &Servers, index: usize, load: Load) {
        self.sums.set(index, part(servers, index, load));
        self.costs[index] = load.cost();
    }

    fn choose(&self, servers: &Servers, draws: [u64; 2]) -> usize {
        let [first, second] = draws.map(|draw| self.drawn(draw));
        let ratio =
            |index: usize| Ratio::new(self.costs[index], servers[index].effective_weight().get());
        if ratio(second).is_less(ratio(first)) {
            second
        } else {
            first
        }
    }

    /// The first usable server at which the running sum of weights reaches the draw.
    fn drawn(&self, draw: u64) -> usize {
        // Every usable server reaches 0, those with a part reach 1.
        self.sums.reach(draw.max(1))
    }
}

/// What a server adds to the sum of weights.
fn part(servers: &Servers, index: usize, load: Load) -> u32 {
    if load.overloaded() {
        0
    } else {
        servers[index].effective_weight().get()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::SchedulerKind::TwoChoices as Twos;
    use crate::real_server::Class;
    use crate::scheduler::tests::{Pool, addr, weighing};
    use crate::{RealServer, Seeds, ServerConfig, ServiceConfig, VirtualService, Weight};

    fn current(servers: &Servers) -> TwoChoices {
        let mut twos = TwoChoices::new(0);
        twos.refresh(servers);
        twos
    }

    /// The choice as the specification words it, with a scan for each draw.
    fn plain(twos: &mut TwoChoices, servers: &[Arc<RealServer>]) -> Option<SocketAddr> {
        let usable: Vec<_> = servers.iter().filter(|s| s.is_usable()).collect();
        let weight = |s: &RealServer| u64::from(s.effective_weight().get());
        let total = usable.iter().map(|s| weight(s)).sum();
        if total == 0 {
            return None;
        }
        let [x, y] = [twos.draw(total), twos.draw(total)].map(|draw| {
            let mut sum = 0;
            let reaches = |s: &&&Arc<RealServer>| {
                sum += weight(s);
                sum >= draw
            };
            usable.iter().find(reaches).unwrap()
        });
        let is_less = u128::from(weight(y)) * u128::from(x.cost())
            > u128::from(weight(x)) * u128::from(y.cost());
        Some(if is_less { y } else { x }.addr())
    }

    /// What may happen to the service between two picks; numbers are taken modulo what there is.
    #[derive(Clone, Debug)]
    enum Step {
        Add(u32),
        Remove(usize),
        Weigh(usize, u32),
        Limit(usize, u32),
        Heal(usize, bool),
        Bind(usize),
        Unbind(usize),
        Connect,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let weight = || prop_oneof![0_u32..5, any::<u32>().prop_map(|weight| weight >> 1)];
        let server = || 0_usize..32;
        let step = prop_oneof![
            3 => weight().prop_map(Step::Add),
            1 => server().prop_map(Step::Remove),
            2 => (server(), weight()).prop_map(|(server, weight)| Step::Weigh(server, weight)),
            2 => (server(), 0_u32..4).prop_map(|(server, upper)| Step::Limit(server, upper)),
            1 => (server(), any::<bool>()).prop_map(|(server, on)| Step::Heal(server, on)),
            4 => server().prop_map(Step::Bind),
            4 => server().prop_map(Step::Unbind),
            6 => Just(Step::Connect),
        ];
        prop::collection::vec(step, 1..100)
    }

    proptest! {
        #[test]
        fn running_sums_decide_as_scans(steps in steps(), seed in any::<u64>()) {
            let config = ServiceConfig { scheduler: Twos, ..ServiceConfig::default() };
            let seeds = Seeds { draws: seed, ..Seeds::default() };
            let service = VirtualService::with_seeds(config, seeds);
            let mut reference = TwoChoices::new(seed);
            let mut added = 0;
            let mut bound: Vec<Arc<RealServer>> = Vec::new();
            for step in steps {
                let servers = service.servers();
                let some = |number: usize, act: &mut dyn FnMut(&Arc<RealServer>)| {
                    servers.get(number % servers.len().max(1)).into_iter().for_each(act);
                };
                match step {
                    Step::Add(weight) => {
                        added += 1;
                        let addr = SocketAddr::from(([10, 0, 0, added], 80));
                        service.add_server(addr, weighing(weight)).unwrap();
                    }
                    Step::Remove(number) => some(number, &mut |server| {
                        service.remove_server(server.addr()).unwrap();
                    }),
                    Step::Weigh(number, weight) => some(number, &mut |server| {
                        let weight = Weight::new(weight).unwrap();
                        service.set_weight(server.addr(), weight).unwrap();
                    }),
                    Step::Limit(number, upper_threshold) => some(number, &mut |server| {
                        let config = ServerConfig { upper_threshold, ..server.config() };
                        service.edit_server(server.addr(), config).unwrap();
                    }),
                    Step::Heal(number, healthy) => some(number, &mut |server| {
                        service.set_healthy(server.addr(), healthy).unwrap();
                    }),
                    Step::Bind(number) => some(number, &mut |server| {
                        server.bind(Class::Active);
                        bound.push(Arc::clone(server));
                    }),
                    Step::Unbind(number) if !bound.is_empty() => {
                        let number = number % bound.len();
                        bound.swap_remove(number).unbind(Class::Active);
                    }
                    Step::Unbind(_) => {}
                    Step::Connect => {
                        let expected = plain(&mut reference, &servers);
                        let lease = service.connect(addr('x')).ok();
                        prop_assert_eq!(lease.as_ref().map(|lease| lease.addr()), expected);
                        bound.extend(lease.map(|lease| {
                            let server = Arc::clone(lease.server());
                            std::mem::forget(lease);
                            server
                        }));
                    }
                }
                let expected = plain(&mut reference, &service.servers());
                let picked = service.pick(addr('x')).map(|server| server.addr());
                prop_assert_eq!(picked, expected);
            }
        }
    }

    #[test]
    fn worked_draws() {
        let pool = Pool::filled(Twos, &[('A', 1), ('B', 2), ('C', 3)]);
        pool.load('A', 1, 0);
        pool.load('B', 2, 0);
        pool.load('C', 6, 5);
        let servers = pool.servers();
        let twos = current(&servers);
        assert_eq!(twos.sums.total(), 6);
        let cases = [
            ([0, 0], 0),
            ([1, 2], 0),
            ([2, 6], 1),
            ([3, 4], 1),
            ([4, 3], 1),
            ([6, 1], 0),
            ([4, 6], 2),
        ];
        for (draws, expected) in cases {
            assert_eq!(twos.choose(&servers, draws), expected, "{draws:?}");
        }
    }

    #[test]
    fn with_equal_costs_the_first_draw_wins() {
        let pool = Pool::filled(Twos, &[('A', 1), ('B', 2), ('C', 3)]);
        let servers = pool.servers();
        let twos = current(&servers);
        let mut counts = [0; 3];
        for x in 0..=6 {
            for y in 0..=6 {
                counts[twos.choose(&servers, [x, y])] += 1;
            }
        }
        assert_eq!(counts, [14, 14, 21]);
    }

    #[test]
    fn draws_are_uniform_and_repeatable() {
        let mut counts = [0_u32; 7];
        let (mut a, mut b) = (TwoChoices::new(7), TwoChoices::new(7));
        for _ in 0..70_000 {
            let draw = a.draw(6);
            assert_eq!(draw, b.draw(6));
            counts[draw as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (9_600..10_400).contains(count)),
            "{counts:?}"
        );
        assert_eq!(TwoChoices::new(1).draw(0), 0);
    }
}
