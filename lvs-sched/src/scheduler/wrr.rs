use std::sync::Arc;

use super::cursor::{Cursor, Place};
use super::{Peek, Request, Scheduler, Servers, SharedPick, Superseded};

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
#[derive(Debug)]
pub struct WeightedRoundRobin {
    cycle: Cycle,
    place: Place,
    /// Where the place lives while picks need no lock.
    shared: Option<Arc<Shared>>,
}

/// The levels of a list.
#[derive(Clone, Copy, Debug, Default)]
struct Cycle {
    step: u32,
    top: u32,
}

#[derive(Debug)]
struct Shared {
    cycle: Cycle,
    cursor: Cursor,
}

impl Default for WeightedRoundRobin {
    fn default() -> Self {
        Self {
            cycle: Cycle::default(),
            place: Place {
                position: None,
                level: 0,
            },
            shared: None,
        }
    }
}

impl Scheduler for WeightedRoundRobin {
    fn pick(&mut self, servers: &Servers, _: &Request) -> Option<usize> {
        self.settle();
        let (place, picked) = self.cycle.walk(servers, self.place);
        self.place = place;
        picked
    }

    fn peek(&mut self, servers: &Servers, _: &Request) -> Peek {
        let place = self
            .shared
            .as_ref()
            .map_or(self.place, |shared| shared.cursor.place());
        Peek::Known(self.cycle.walk(servers, place).1)
    }

    fn attached(&mut self, servers: &Servers) {
        self.settle();
        self.cycle = Cycle::of(servers);
        self.place = Place {
            position: None,
            level: self.cycle.top,
        };
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

    fn share(&mut self, _: &Servers) -> Option<Arc<dyn SharedPick>> {
        self.settle();
        let shared = Arc::new(Shared {
            cycle: self.cycle,
            cursor: Cursor::new(self.place),
        });
        self.shared = Some(Arc::clone(&shared));
        Some(shared)
    }
}

impl WeightedRoundRobin {
    fn settle(&mut self) {
        if let Some(shared) = self.shared.take() {
            self.place = shared.cursor.freeze();
        }
    }

    fn restart(&mut self, servers: &Servers) {
        self.settle();
        self.cycle = Cycle::of(servers);
        let Cycle { step, top } = self.cycle;
        let level = match self.place.level {
            level if level > top || level == 0 => top,
            level if step > 1 => level / step * step + 1,
            level => level,
        };
        self.place = Place {
            position: None,
            level,
        };
    }
}

impl SharedPick for Shared {
    fn pick(&self, servers: &Servers, _: &Request) -> Result<Option<usize>, Superseded> {
        self.cursor.advance(|place| self.cycle.walk(servers, place))
    }

    fn peek(&self, servers: &Servers, _: &Request) -> Peek {
        Peek::Known(self.cycle.walk(servers, self.cursor.place()).1)
    }
}

impl Cycle {
    fn of(servers: &Servers) -> Self {
        let weights = || servers.iter().map(|server| server.effective_weight().get());
        let step = weights().fold(0, gcd).max(1);
        let top = weights().max().unwrap_or(0).saturating_sub(step - 1);
        Self { step, top }
    }

    /// The next place and server.
    fn walk(self, servers: &Servers, mut place: Place) -> (Place, Option<usize>) {
        if self.top == 0 || servers.is_empty() {
            return (place, None);
        }
        // The walk gives up when the lowest level was tested to its end. Begun inside the lowest
        // level it may pass the top once more, and then ends where it began.
        let start = place.position.map(|position| position as usize);
        let began_lowest = start.is_some() && place.level <= self.step;
        let mut restarted = false;
        let mut largest = None;
        let mut next = start.map_or(0, |position| position + 1);
        loop {
            if next >= servers.len() {
                next = 0;
                if place.level > self.step {
                    place.level -= self.step;
                } else {
                    place.level = self.top;
                    if restarted || !began_lowest {
                        place.position = None;
                        return (place, None);
                    }
                    restarted = true;
                }
                // Levels that nobody reaches are passed over at once: there may be 2^31 of them.
                let largest = *largest.get_or_insert_with(|| largest_weight(servers));
                let empty = place.level.saturating_sub(largest).div_ceil(self.step);
                place.level -= self.step * empty.min((place.level - 1) / self.step);
            }
            let server = &servers[next];
            if server.effective_weight().get() >= place.level && !server.is_overloaded() {
                place.position = Some(next as u32);
                return (place, Some(next));
            }
            if restarted && place.level <= self.step && Some(next) == start {
                return (place, None);
            }
            next += 1;
        }
    }
}

/// Of the servers that are not overloaded.
fn largest_weight(servers: &Servers) -> u32 {
    let able = servers.iter().filter(|server| !server.is_overloaded());
    able.map(|server| server.effective_weight().get())
        .max()
        .unwrap_or(0)
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

    #[test]
    fn unreachable_levels_cost_nothing() {
        let pool = filled(&[('A', i32::MAX as u32), ('B', 1)]);
        pool.overload('A', true);
        assert_eq!(pool.picks(3), "BBB");
        pool.overload('B', true);
        assert_eq!(pool.picks(2), "--");
    }
}
