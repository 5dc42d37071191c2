use super::ranked::{Ranked, Ratio, Rule, ranked_scheduler};
use crate::real_server::Load;

/// `wlc`, weighted least connection.
///
/// Takes the usable server with the smallest `cost / weight`, where [cost](crate::RealServer::cost)
/// is `active × 256 + inactive`; among equals the first in list order. Compared by
/// cross-multiplication, never divided. A pick costs O(log n) for each server whose counts changed
/// since the last one.
#[derive(Debug, Default)]
pub struct WeightedLeastConnection(Ranked<Rank>);

ranked_scheduler!(WeightedLeastConnection);

#[derive(Debug)]
struct Rank;

impl Rule for Rank {
    fn rank(load: Load, weight: u32) -> Ratio {
        Ratio::new(load.cost(), weight)
    }
}

#[cfg(test)]
mod tests {
    use crate::SchedulerKind::WeightedLeastConnection;
    use crate::scheduler::tests::Pool;

    fn pool() -> Pool {
        Pool::filled(WeightedLeastConnection, &[('A', 3), ('B', 2), ('C', 1)])
    }

    #[test]
    fn worked_example() {
        type Loads = [(u32, u32); 3];
        let cases: [(Loads, char); 4] = [
            ([(3, 0), (2, 0), (1, 0)], 'A'),
            ([(2, 0), (1, 300), (1, 0)], 'A'),
            ([(6, 0), (3, 0), (1, 255)], 'B'),
            ([(1, 0), (1, 0), (0, 0)], 'C'),
        ];
        for (loads, expected) in cases {
            let pool = pool();
            for (name, (active, inactive)) in ['A', 'B', 'C'].into_iter().zip(loads) {
                pool.load(name, active, inactive);
            }
            assert_eq!(pool.pick(), expected, "{loads:?}");
        }
        assert_eq!(pool().binds(10), "ABCABAABCA");
    }

    #[test]
    fn overloaded_and_quiesced_servers_are_passed_over() {
        let pool = pool();
        pool.overload('A', true);
        assert_eq!(pool.pick(), 'B');
        pool.edit('B', 0);
        assert_eq!(pool.pick(), 'C');
    }
}
