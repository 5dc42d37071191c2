use super::{Request, Scheduler, Servers};

/// `wrr`, weighted round robin.
///
/// Walks the list again and again at a falling *level*: a server is taken when its weight reaches
/// the level. At the end of the list the level falls by `step`, the greatest common divisor of the
/// weights, and after the lowest level (1 … step) it starts again at `top = max − (step − 1)`. So
/// larger weights are taken in more rounds, spread over the cycle.
///
/// Any change of the list restarts the walk at the front but keeps the level (rounded to the new
/// step, capped at the new top). Servers that are added one by one therefore start at level 1, not
/// at the top.
#[derive(Debug, Default)]
pub struct WeightedRoundRobin {
    /// The server chosen last; `None` is "before the first".
    position: Option<usize>,
    step: u32,
    top: u32,
    level: u32,
}

impl Scheduler for WeightedRoundRobin {
    fn pick(&mut self, servers: &Servers, _: &Request) -> Option<usize> {
        if self.top == 0 {
            return None;
        }
        // The walk gives up when the lowest level was tested to its end. Begun inside the lowest
        // level it may pass the top once more, and then ends where it began.
        let start = self.position;
        let began_lowest = start.is_some() && self.level <= self.step;
        let mut restarted = false;
        let mut next = start.map_or(0, |position| position + 1);
        loop {
            if next >= servers.len() {
                next = 0;
                if self.level > self.step {
                    self.level -= self.step;
                } else {
                    self.level = self.top;
                    if restarted || !began_lowest {
                        self.position = None;
                        return None;
                    }
                    restarted = true;
                }
                if servers.is_empty() {
                    return None;
                }
            }
            let server = &servers[next];
            if !server.is_overloaded() && server.weight().get() >= self.level {
                self.position = Some(next);
                return Some(next);
            }
            if restarted && self.level <= self.step && Some(next) == start {
                return None;
            }
            next += 1;
        }
    }

    fn attached(&mut self, servers: &Servers) {
        self.position = None;
        self.measure(servers);
        self.level = self.top;
    }

    fn server_added(&mut self, servers: &Servers, _: usize) {
        self.restart(servers);
    }

    fn server_removed(&mut self, servers: &Servers, _: usize) {
        self.restart(servers);
    }

    fn server_changed(&mut self, servers: &Servers, _: usize) {
        self.restart(servers);
    }
}

impl WeightedRoundRobin {
    fn measure(&mut self, servers: &Servers) {
        let weights = || servers.iter().map(|server| server.weight().get());
        self.step = weights().fold(0, gcd).max(1);
        self.top = weights().max().unwrap_or(0).saturating_sub(self.step - 1);
    }

    fn restart(&mut self, servers: &Servers) {
        self.position = None;
        self.measure(servers);
        if self.level > self.top || self.level == 0 {
            self.level = self.top;
        } else if self.step > 1 {
            self.level = self.level / self.step * self.step + 1;
        }
    }
}

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use crate::SchedulerKind::WeightedRoundRobin;
    use crate::scheduler::tests::Pool;

    fn filled(servers: &[(char, u32)]) -> Pool {
        Pool::filled(WeightedRoundRobin, servers)
    }

    fn adding(servers: &[(char, u32)]) -> Pool {
        Pool::adding(WeightedRoundRobin, servers)
    }

    #[test]
    fn worked_examples() {
        assert_eq!(
            filled(&[('A', 4), ('B', 3), ('C', 2)]).picks(18),
            "AABABCABCAABABCABC"
        );
        assert_eq!(
            adding(&[('C', 2), ('B', 3), ('A', 4)]).picks(18),
            "ABCAABABCABCAABABC"
        );
        assert_eq!(
            filled(&[('A', 40), ('B', 20), ('C', 10)]).picks(14),
            "AAABABCAAABABC"
        );
        assert_eq!(
            adding(&[('C', 10), ('B', 20), ('A', 40)]).picks(14),
            "ABCAAABABCAAAB"
        );
        assert_eq!(filled(&[('A', 10), ('B', 6)]).picks(16), "AAABABABAAABABAB");
    }

    #[test]
    fn an_edit_in_mid_cycle_keeps_the_level() {
        let pool = filled(&[('A', 4), ('B', 3), ('C', 2)]);
        assert_eq!(pool.picks(2), "AA");
        pool.edit('C', 6);
        assert_eq!(pool.picks(12), "ABCABCABCCCA");
    }

    #[test]
    fn an_overloaded_server_is_passed_over() {
        let pool = filled(&[('A', 4), ('B', 3), ('C', 2)]);
        pool.overload('A', true);
        assert_eq!(pool.picks(10), "BBCBCBBCBC");
    }

    #[test]
    fn quiescing_keeps_the_cycle_of_the_others() {
        let pool = adding(&[('C', 1), ('B', 2), ('A', 4)]);
        assert_eq!(pool.picks(3), "ABC");
        pool.edit('A', 0);
        assert_eq!(pool.picks(6), "BCBBCB");
    }

    #[test]
    fn giving_up_from_each_kind_of_start() {
        // Before the first: level ends at the top.
        let pool = filled(&[('A', 2), ('B', 1)]);
        pool.overload('A', true);
        pool.overload('B', true);
        assert_eq!(pool.picks(2), "--");
        pool.overload('A', false);
        assert_eq!(pool.pick(), 'A');

        // At a server above the lowest level: the same, so the next walk begins at the front and
        // the top.
        let pool = filled(&[('A', 5), ('B', 3)]);
        assert_eq!(pool.pick(), 'A');
        pool.overload('A', true);
        pool.overload('B', true);
        assert_eq!(pool.pick(), '-');
        pool.overload('A', false);
        pool.overload('B', false);
        assert_eq!(pool.picks(3), "AAA");

        // At a server in the lowest level: position and lowest level stay.
        let pool = filled(&[('A', 2), ('B', 1)]);
        assert_eq!(pool.picks(2), "AA");
        pool.overload('A', true);
        pool.overload('B', true);
        assert_eq!(pool.pick(), '-');
        pool.overload('A', false);
        pool.overload('B', false);
        assert_eq!(pool.picks(4), "BAAB");
    }
}
