use super::ranked::{Ranked, Ratio, Rule, ranked_scheduler};
use crate::real_server::Load;

/// `lc`, least connection.
///
/// Takes the usable server with the smallest [cost](crate::RealServer::cost); among equals the
/// first in list order. Weights other than 0 do not matter.
#[derive(Debug, Default)]
pub struct LeastConnection(Ranked<Rank>);

ranked_scheduler!(LeastConnection);

#[derive(Debug)]
struct Rank;

impl Rule for Rank {
    fn rank(load: Load, weight: u32) -> Ratio {
        let _ = weight;
        Ratio::new(load.cost(), 1)
    }
}

#[cfg(test)]
mod tests {
    use crate::SchedulerKind::LeastConnection;
    use crate::scheduler::tests::Pool;

    #[test]
    fn worked_example() {
        let pool = || Pool::filled(LeastConnection, &[('A', 3), ('B', 2), ('C', 1)]);
        assert_eq!(pool().loaded([(3, 0), (2, 0), (1, 0)]), 'C');
        assert_eq!(pool().loaded([(2, 0), (1, 300), (1, 0)]), 'C');
        assert_eq!(pool().loaded([(6, 0), (3, 0), (1, 255)]), 'C');
        assert_eq!(pool().loaded([(0, 0); 3]), 'A');
        assert_eq!(pool().binds(10), "ABCABCABCA");
    }
}
