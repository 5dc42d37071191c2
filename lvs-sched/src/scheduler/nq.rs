use super::ranked::{Ranked, Ratio, Rule, ranked_scheduler};
use crate::real_server::Load;

/// `nq`, never queue.
///
/// Takes the first usable server in list order that has no active connection, whatever its weight;
/// without one the choice is that of [`sed`](crate::ShortestExpectedDelay).
#[derive(Debug, Default)]
pub struct NeverQueue(Ranked<Rank>);

ranked_scheduler!(NeverQueue);

#[derive(Debug)]
struct Rank;

impl Rule for Rank {
    fn rank(load: Load, weight: u32) -> Ratio {
        if load.active() == 0 {
            Ratio::new(0, 1)
        } else {
            Ratio::new(u64::from(load.active()) + 1, weight)
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::SchedulerKind::NeverQueue;
    use crate::scheduler::tests::Pool;

    #[test]
    fn worked_example() {
        let pool = || Pool::filled(NeverQueue, &[('A', 3), ('B', 2), ('C', 1)]);
        assert_eq!(pool().loaded([(1, 0), (1, 0), (0, 0)]), 'C');
        assert_eq!(pool().loaded([(6, 0), (3, 0), (1, 0)]), 'B');
        assert_eq!(pool().loaded([(0, 9), (0, 0), (0, 0)]), 'A');
        assert_eq!(pool().binds(10), "ABCAABABAA");
    }
}
