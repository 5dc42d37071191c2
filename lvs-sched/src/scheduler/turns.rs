//! An order of turns that several threads take from without a lock.

use std::sync::atomic::Ordering::SeqCst;

use super::Superseded;
use crate::atomic::AtomicU64;

/// Positions in a list that are taken in turn, round and round, while nothing changes: whose turn it
/// is follows from a counter alone, and taking it is one addition.
///
/// The additions form one order, and each answer is what the scheduler says in that order. A change
/// first freezes the counter: who adds afterwards learns that the order is superseded.
#[derive(Debug)]
pub(super) struct Turns {
    next: Counter,
    order: Box<[u32]>,
    /// The counter's first value, below the order's length.
    first: u64,
}

/// Alone on its cache lines (two, since neighbours are fetched in pairs): the order is only read.
#[derive(Debug)]
#[repr(align(128))]
struct Counter(AtomicU64);

impl Turns {
    /// Begins at `order[first]`, or at the front if that is behind the end.
    pub(super) fn new(order: Vec<u32>, first: usize) -> Self {
        let first = if first < order.len() { first as u64 } else { 0 };
        Self {
            next: Counter(AtomicU64::new(first)),
            order: order.into(),
            first,
        }
    }

    /// Takes a turn. Without anybody in the order there is none, and nothing moves.
    pub(super) fn take(&self) -> Result<Option<usize>, Superseded> {
        if self.order.is_empty() {
            return Ok(None);
        }
        let turn = self.next.0.fetch_add(1, SeqCst);
        if turn & FROZEN != 0 {
            return Err(Superseded);
        }
        Ok(Some(self.order[self.place(turn)] as usize))
    }

    /// Who is next.
    pub(super) fn peek(&self) -> Option<usize> {
        let turn = self.next.0.load(SeqCst) & !FROZEN;
        let position = *self.order.get(self.place(turn))?;
        Some(position as usize)
    }

    /// The end, told once. Returns the place in the order of the turn that was taken last, if one was.
    pub(super) fn freeze(&self) -> Option<usize> {
        let turn = self.next.0.fetch_or(FROZEN, SeqCst) & !FROZEN;
        (turn > self.first).then(|| self.place(turn - 1))
    }

    /// The position at a place of the order.
    pub(super) fn at(&self, place: usize) -> usize {
        self.order[place] as usize
    }

    /// The place in the order of a turn; 0 if nobody is there.
    fn place(&self, turn: u64) -> usize {
        // A division of 32 bits takes a fraction of the time.
        match (u32::try_from(turn), self.order.len() as u32) {
            (_, 0) => 0,
            (Ok(turn), len) => (turn % len) as usize,
            (Err(_), len) => (turn % u64::from(len)) as usize,
        }
    }
}

const FROZEN: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_go_round_from_where_they_begin() {
        let turns = Turns::new(vec![3, 5, 7], 1);
        assert_eq!(turns.peek(), Some(5));
        let taken: Vec<_> = (0..5).map(|_| turns.take()).collect();
        assert_eq!(taken, [5, 7, 3, 5, 7].map(|position| Ok(Some(position))));
        assert_eq!(turns.freeze().map(|place| turns.at(place)), Some(7));
        assert_eq!(turns.take(), Err(Superseded));
    }

    #[test]
    fn without_a_turn_taken_there_is_no_last_one() {
        assert_eq!(Turns::new(vec![4], 9).freeze(), None);
        let nobody = Turns::new(Vec::new(), 0);
        assert_eq!(
            (nobody.take(), nobody.peek(), nobody.freeze()),
            (Ok(None), None, None)
        );
    }

    #[test]
    fn after_four_thousand_million_turns_it_goes_on() {
        let turns = Turns::new(vec![0, 1, 2], 0);
        turns.next.0.store((1 << 32) - 1, SeqCst);
        let taken: Vec<_> = (0..4).map(|_| turns.take()).collect();
        // 2^32 − 1 is divisible by three.
        assert_eq!(taken, [0, 1, 2, 0].map(|position| Ok(Some(position))));
    }
}
