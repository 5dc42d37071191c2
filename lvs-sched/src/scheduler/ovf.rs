use super::ranked::{Ranked, Ratio, Rule, ranked_scheduler};
use crate::real_server::Load;

/// `ovf`, weighted overflow.
///
/// Takes the server with the largest weight among the usable ones whose active connections are not
/// more than their weight; among equals the first in list order. So a server takes weight + 1
/// connections, then they overflow to the next; when all are full there is no server. Inactive
/// connections do not matter, so UDP never overflows.
#[derive(Debug, Default)]
pub struct Overflow(Ranked<Rank>);

ranked_scheduler!(Overflow);

#[derive(Debug)]
struct Rank;

impl Rule for Rank {
    fn rank(load: Load, weight: u32) -> Ratio {
        if load.active() <= weight {
            Ratio::new(1, weight)
        } else {
            Ratio::NEVER
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::SchedulerKind::Overflow;
    use crate::scheduler::tests::Pool;

    #[test]
    fn worked_example() {
        let pool = || Pool::filled(Overflow, &[('A', 3), ('B', 2), ('C', 1)]);
        assert_eq!(pool().binds(10), "AAAABBBCC-");
        assert_eq!(pool().loaded([(6, 0), (3, 0), (1, 0)]), 'C');
        assert_eq!(pool().loaded([(0, 900), (0, 0), (0, 0)]), 'A');
    }
}
