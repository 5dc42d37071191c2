use super::{Request, Scheduler, Servers};

/// `wlc`, weighted least connection.
///
/// Takes the usable server with the smallest `cost / weight`, where [cost](crate::RealServer::cost)
/// is `active × 256 + inactive`; among equals the first in list order. Compared by
/// cross-multiplication, never divided.
#[derive(Debug, Default)]
pub struct WeightedLeastConnection;

impl Scheduler for WeightedLeastConnection {
    fn pick(&mut self, servers: &Servers, _: &Request) -> Option<usize> {
        let mut best: Option<(usize, u64, u64)> = None;
        for (index, server) in servers.iter().enumerate() {
            if !server.is_usable() {
                continue;
            }
            let (cost, weight) = (server.cost(), u64::from(server.weight().get()));
            // A cost stays below 2^40 and a weight below 2^31: the products need more than 64 bits.
            let better = best.is_none_or(|(_, best_cost, best_weight)| {
                u128::from(cost) * u128::from(best_weight)
                    < u128::from(best_cost) * u128::from(weight)
            });
            if better {
                best = Some((index, cost, weight));
            }
        }
        best.map(|(index, ..)| index)
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
