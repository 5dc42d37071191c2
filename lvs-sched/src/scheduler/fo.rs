use super::ranked::{Ranked, Ratio, Rule, ranked_scheduler};
use crate::real_server::Load;

/// `fo`, weighted failover.
///
/// Takes the usable server with the largest weight, among equals the first in list order: all
/// connections go there until it is overloaded, quiesced, lowered or removed.
#[derive(Debug, Default)]
pub struct Failover(Ranked<Rank>);

ranked_scheduler!(Failover);

#[derive(Debug)]
struct Rank;

impl Rule for Rank {
    fn rank(load: Load, weight: u32) -> Ratio {
        let _ = load;
        Ratio::new(1, weight)
    }
}

#[cfg(test)]
mod tests {
    use crate::SchedulerKind::Failover;
    use crate::scheduler::tests::Pool;

    #[test]
    fn worked_example() {
        let pool = Pool::filled(Failover, &[('A', 3), ('B', 2), ('C', 1)]);
        assert_eq!(pool.binds(5), "AAAAA");
        pool.overload('A', true);
        assert_eq!(pool.pick(), 'B');
        pool.overload('B', true);
        assert_eq!(pool.pick(), 'C');
        pool.overload('C', true);
        assert_eq!(pool.pick(), '-');
        pool.overload('A', false);
        assert_eq!(pool.pick(), 'A');
    }

    #[test]
    fn the_first_of_equals_is_taken() {
        let pool = Pool::filled(Failover, &[('A', 1), ('B', 2), ('C', 2)]);
        assert_eq!(pool.pick(), 'B');
        pool.edit('A', 2);
        assert_eq!(pool.pick(), 'A');
    }
}
