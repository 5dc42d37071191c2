use super::ranked::Ratio;
use super::{Peek, Request, Scheduler, Servers};

/// `twos`, weighted random choice of two.
///
/// Draws two usable servers at random, each with a probability of its share of the weights, and
/// takes the one with the smaller `cost / weight`; the first one if they are equal. Draws run over
/// `0..=sum of weights`, so the first usable server is favoured by one part.
///
/// The draws come from a seed: equal seeds and lives give equal choices.
#[derive(Debug)]
pub struct TwoChoices {
    state: u64,
}

impl TwoChoices {
    /// With a seed for the draws.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
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
        let total = total_weight(servers);
        if total == 0 {
            return None;
        }
        let draws = [self.draw(total), self.draw(total)];
        choose(servers, draws)
    }

    fn peek(&mut self, servers: &Servers, request: &Request) -> Peek {
        // The same draws come again.
        Peek::Known(Self::new(self.state).pick(servers, request))
    }
}

fn total_weight(servers: &Servers) -> u64 {
    let usable = servers.iter().filter(|server| server.is_usable());
    usable
        .map(|server| u64::from(server.effective_weight().get()))
        .sum()
}

fn choose(servers: &Servers, draws: [u64; 2]) -> Option<usize> {
    let [first, second] = draws.map(|draw| drawn(servers, draw));
    // A server may have become unusable since the sum was taken; the other draw still counts.
    let (Some(first), Some(second)) = (first, second) else {
        return first.or(second);
    };
    let ratio = |index: usize| {
        let server = &servers[index];
        Ratio::new(server.cost(), server.effective_weight().get())
    };
    if ratio(second).is_less(ratio(first)) {
        Some(second)
    } else {
        Some(first)
    }
}

/// The first usable server at which the running sum of weights reaches the draw.
fn drawn(servers: &Servers, draw: u64) -> Option<usize> {
    let mut sum = 0;
    servers.iter().position(|server| {
        let usable = server.is_usable();
        if usable {
            sum += u64::from(server.effective_weight().get());
        }
        usable && sum >= draw
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SchedulerKind::TwoChoices as Twos;
    use crate::scheduler::tests::Pool;

    #[test]
    fn worked_draws() {
        let pool = Pool::filled(Twos, &[('A', 1), ('B', 2), ('C', 3)]);
        pool.load('A', 1, 0);
        pool.load('B', 2, 0);
        pool.load('C', 6, 5);
        let servers = pool.servers();
        assert_eq!(total_weight(&servers), 6);
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
            assert_eq!(choose(&servers, draws), Some(expected), "{draws:?}");
        }
    }

    #[test]
    fn with_equal_costs_the_first_draw_wins() {
        let pool = Pool::filled(Twos, &[('A', 1), ('B', 2), ('C', 3)]);
        let servers = pool.servers();
        let mut counts = [0; 3];
        for x in 0..=6 {
            for y in 0..=6 {
                counts[choose(&servers, [x, y]).unwrap()] += 1;
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
