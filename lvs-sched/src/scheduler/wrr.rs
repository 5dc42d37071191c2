use std::sync::Arc;

use super::cursor::{Cursor, Place};
use super::turns::Turns;
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
#[expect(clippy::large_enum_variant, reason = "a list has one of them")]
enum Shared {
    /// Without thresholds it stands when a list is shared who is taken in a cycle, and when.
    Turns { turns: Turns, levels: Levels },
    /// Overload flags are looked at with each pick, or the cycle is too long to write down.
    Walk { cycle: Cycle, cursor: Cursor },
}

/// Which part of the order of a cycle belongs to which level.
#[derive(Debug)]
struct Levels {
    cycle: Cycle,
    /// Where each level begins, from the top down.
    begins: Vec<usize>,
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
        Peek::Known(match &self.shared {
            Some(shared) => shared.peek(servers),
            None => self.cycle.walk(servers, self.place).1,
        })
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

    fn share(&mut self, servers: &Servers) -> Option<Arc<dyn SharedPick>> {
        self.settle();
        let shared = Arc::new(Shared::new(servers, self.cycle, self.place));
        self.shared = Some(Arc::clone(&shared));
        Some(shared)
    }
}

impl WeightedRoundRobin {
    fn settle(&mut self) {
        if let Some(shared) = self.shared.take()
            && let Some(place) = shared.freeze()
        {
            self.place = place;
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

impl Shared {
    fn new(servers: &Servers, cycle: Cycle, place: Place) -> Self {
        if !servers.is_limited()
            && let Some((order, levels)) = cycle.write_down(servers)
        {
            let first = levels.turn_after(&order, place);
            let turns = Turns::new(order, first);
            return Self::Turns { turns, levels };
        }
        let cursor = Cursor::new(place);
        Self::Walk { cycle, cursor }
    }

    /// The last place, if there was a turn.
    fn freeze(&self) -> Option<Place> {
        match self {
            Self::Turns { turns, levels } => turns.freeze().map(|turn| Place {
                position: Some(turns.at(turn) as u32),
                level: levels.level_of(turn),
            }),
            Self::Walk { cursor, .. } => Some(cursor.freeze()),
        }
    }

    fn peek(&self, servers: &Servers) -> Option<usize> {
        match self {
            Self::Turns { turns, .. } => turns.peek(),
            Self::Walk { cycle, cursor } => cycle.walk(servers, cursor.place()).1,
        }
    }
}

impl SharedPick for Shared {
    fn pick(&self, servers: &Servers, _: &Request) -> Result<Option<usize>, Superseded> {
        match self {
            Self::Turns { turns, .. } => turns.take(),
            Self::Walk { cycle, cursor } => cursor.advance(|place| cycle.walk(servers, place)),
        }
    }

    fn peek(&self, servers: &Servers, _: &Request) -> Peek {
        Peek::Known(self.peek(servers))
    }
}

impl Levels {
    /// The turn that follows a place.
    fn turn_after(&self, order: &[u32], place: Place) -> usize {
        let Some(from) = self.number_of(place.level) else {
            return 0;
        };
        let begin = self.begins[from];
        let end = self.begins.get(from + 1).map_or(order.len(), |end| *end);
        let passed = |index: &u32| place.position.is_some_and(|position| *index <= position);
        begin + order[begin..end].partition_point(passed)
    }

    fn level_of(&self, turn: usize) -> u32 {
        let number = self.begins.partition_point(|begin| *begin <= turn) - 1;
        self.cycle.top - number as u32 * self.cycle.step
    }

    fn number_of(&self, level: u32) -> Option<usize> {
        let number = self.cycle.top.checked_sub(level)? / self.cycle.step;
        ((number as usize) < self.begins.len()).then_some(number as usize)
    }
}

impl Cycle {
    fn of(servers: &Servers) -> Self {
        let weights = || servers.iter().map(|server| server.effective_weight().get());
        let step = weights().fold(0, gcd).max(1);
        let top = weights().max().unwrap_or(0).saturating_sub(step - 1);
        Self { step, top }
    }

    /// A whole cycle from the top, unless it is long.
    fn write_down(self, servers: &Servers) -> Option<(Vec<u32>, Levels)> {
        let count = u64::from(self.top.div_ceil(self.step.max(1)));
        if count.saturating_mul(servers.len() as u64) > LOOKS {
            return None;
        }
        let weights = servers.iter().map(|server| server.effective_weight().get());
        let weights: Vec<_> = (0_u32..).zip(weights).collect();
        let (mut order, mut begins) = (Vec::new(), Vec::new());
        for level in (0..count as u32).map(|number| self.top - number * self.step) {
            begins.push(order.len());
            let able = weights.iter().filter(|(_, weight)| *weight >= level);
            order.extend(able.map(|(index, _)| *index));
        }
        Some((
            order,
            Levels {
                cycle: self,
                begins,
            },
        ))
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

/// A cycle is written down at a change if that takes so many looks at weights at most: some hundred
/// microseconds.
const LOOKS: u64 = 1 << 17;

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
