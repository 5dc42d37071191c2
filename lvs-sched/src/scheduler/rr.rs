use std::sync::Arc;

use super::cursor::{Cursor, Place};
use super::turns::Turns;
use super::{Peek, Request, Scheduler, Servers, SharedPick, Superseded};

/// `rr`, round robin.
///
/// Walks the list from the server after the one chosen last, to the end, then from the front up to
/// and including that one, and takes the first usable server. Weights other than 0 do not matter.
/// When the server chosen last is removed, its predecessor takes its place, so nobody is skipped or
/// served twice. With nobody usable the position stays.
#[derive(Debug, Default)]
pub struct RoundRobin {
    /// The server chosen last; `None` is "before the first".
    position: Option<usize>,
    /// Where the position lives while picks need no lock.
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a list has one of them")]
enum Shared {
    /// Without thresholds it stands when a list is shared who is usable.
    Turns(Turns),
    /// Overload flags are looked at with each pick.
    Walk(Cursor),
}

impl Scheduler for RoundRobin {
    fn pick(&mut self, servers: &Servers, _: &Request) -> Option<usize> {
        self.settle();
        let picked = next(servers, self.position)?;
        self.position = Some(picked);
        Some(picked)
    }

    fn peek(&mut self, servers: &Servers, _: &Request) -> Peek {
        Peek::Known(match &self.shared {
            Some(shared) => shared.peek(servers),
            None => next(servers, self.position),
        })
    }

    fn list_changed(&mut self) {
        self.settle();
    }

    fn server_added(&mut self, _: &Servers, index: usize) {
        self.settle();
        if let Some(position) = &mut self.position
            && index <= *position
        {
            *position += 1;
        }
    }

    fn server_removed(&mut self, _: &Servers, index: usize) {
        self.settle();
        if let Some(position) = self.position
            && index <= position
        {
            self.position = position.checked_sub(1);
        }
    }

    fn share(&mut self, servers: &Servers) -> Option<Arc<dyn SharedPick>> {
        self.settle();
        let shared = Arc::new(Shared::new(servers, self.position));
        self.shared = Some(Arc::clone(&shared));
        Some(shared)
    }
}

impl RoundRobin {
    fn settle(&mut self) {
        if let Some(shared) = self.shared.take()
            && let Some(position) = shared.freeze()
        {
            self.position = Some(position);
        }
    }
}

impl Shared {
    fn new(servers: &Servers, position: Option<usize>) -> Self {
        if servers.is_limited() {
            return Self::Walk(Cursor::new(Place {
                position: position.map(|position| position as u32),
                level: 0,
            }));
        }
        let usable = (0..servers.len()).filter(|&index| servers[index].is_usable());
        let order: Vec<_> = usable.map(|index| index as u32).collect();
        let passed = |index: &u32| position.is_some_and(|position| *index as usize <= position);
        let first = order.partition_point(passed);
        Self::Turns(Turns::new(order, first))
    }

    /// The server chosen last, if one was.
    fn freeze(&self) -> Option<usize> {
        match self {
            Self::Turns(turns) => turns.freeze().map(|place| turns.at(place)),
            Self::Walk(cursor) => cursor.freeze().position.map(|position| position as usize),
        }
    }

    fn peek(&self, servers: &Servers) -> Option<usize> {
        match self {
            Self::Turns(turns) => turns.peek(),
            Self::Walk(cursor) => {
                let position = cursor.place().position;
                next(servers, position.map(|position| position as usize))
            }
        }
    }
}

impl SharedPick for Shared {
    fn pick(&self, servers: &Servers, _: &Request) -> Result<Option<usize>, Superseded> {
        match self {
            Self::Turns(turns) => turns.take(),
            Self::Walk(cursor) => cursor.advance(|place| {
                match next(servers, place.position.map(|position| position as usize)) {
                    Some(picked) => {
                        let position = Some(picked as u32);
                        (Place { position, ..place }, Some(picked))
                    }
                    None => (place, None),
                }
            }),
        }
    }

    fn peek(&self, servers: &Servers, _: &Request) -> Peek {
        Peek::Known(self.peek(servers))
    }
}

fn next(servers: &Servers, position: Option<usize>) -> Option<usize> {
    let start = position.map_or(0, |position| position + 1);
    (start..servers.len())
        .chain(0..start.min(servers.len()))
        .find(|&index| servers[index].is_usable())
}

#[cfg(test)]
mod tests {
    use crate::SchedulerKind::RoundRobin;
    use crate::scheduler::tests::{Pool, addr};

    #[test]
    fn worked_example() {
        let pool = Pool::adding(RoundRobin, &[('A', 1), ('B', 1), ('C', 1)]);
        assert_eq!(pool.picks(7), "CBACBAC");
        pool.edit('B', 0);
        assert_eq!(pool.picks(4), "ACAC");
        pool.edit('B', 1);
        pool.overload('A', true);
        assert_eq!(pool.picks(4), "BCBC");
        pool.overload('A', false);
        pool.service.remove_server(addr('C')).unwrap();
        assert_eq!(pool.picks(4), "BABA");
        pool.service
            .add_server(addr('D'), Default::default())
            .unwrap();
        assert_eq!(pool.picks(6), "DBADBA");
    }

    #[test]
    fn removal_before_and_behind_the_position_skips_nobody() {
        let pool = Pool::adding(RoundRobin, &[('A', 1), ('B', 1), ('C', 1), ('D', 1)]);
        assert_eq!(pool.picks(2), "DC");
        pool.service.remove_server(addr('D')).unwrap();
        assert_eq!(pool.picks(1), "B");
        pool.service.remove_server(addr('A')).unwrap();
        assert_eq!(pool.picks(3), "CBC");
    }
}
