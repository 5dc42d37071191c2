use super::ranked::{Ranked, Ratio, Rule, ranked_scheduler};
use crate::real_server::Load;

/// `sed`, shortest expected delay.
///
/// Takes the usable server with the smallest `(active + 1) / weight`; among equals the first in
/// list order. Inactive connections do not matter, so UDP always goes to the largest weight.
#[derive(Debug, Default)]
pub struct ShortestExpectedDelay(Ranked<Rank>);

ranked_scheduler!(ShortestExpectedDelay);

#[derive(Debug)]
struct Rank;

impl Rule for Rank {
    fn rank(load: Load, weight: u32) -> Ratio {
        Ratio::new(u64::from(load.active()) + 1, weight)
    }
}

#[cfg(test)]
mod tests {
    use crate::SchedulerKind::ShortestExpectedDelay;
    use crate::scheduler::tests::Pool;

    #[test]
    fn worked_example() {
        let pool = || Pool::filled(ShortestExpectedDelay, &[('A', 3), ('B', 2), ('C', 1)]);
        assert_eq!(pool().loaded([(3, 0), (2, 0), (1, 0)]), 'A');
        assert_eq!(pool().loaded([(6, 0), (3, 0), (1, 0)]), 'B');
        assert_eq!(pool().loaded([(1, 0), (1, 0), (0, 0)]), 'A');
        assert_eq!(pool().loaded([(0, 900), (0, 0), (0, 0)]), 'A');
        assert_eq!(pool().binds(10), "ABAABCABAA");
    }
}
