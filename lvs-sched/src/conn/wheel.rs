//! Hierarchical timer wheel over small integer ids.
//!
//! Seven levels of 64 slots, a tick of 2^20 ns (about 1 ms) at the lowest: every time within 146
//! years has a slot. Arming, cancelling and each of the at most seven moves of an entry are O(1);
//! nothing is ever scanned but the slot that is due, and bitmaps find it. Entries are linked by
//! index in ten bytes each, so the wheel allocates only when the ids grow, and never moves a link.
//!
//! The wheel is a hint, never the truth: it is told the real deadline again when a slot comes up. A
//! deadline that moved later costs nothing until then.

use super::chunks::{Chunks, NONE};
use crate::time::{NEVER, Nanos};

/// The wheel. Ids are positions in the caller's slab.
#[derive(Debug)]
pub(crate) struct Wheel {
    heads: Box<[u32; LEVELS * SLOTS]>,
    occupied: [u64; LEVELS],
    links: Chunks<Link>,
    /// The slot of each id, or `UNLINKED`; apart from the links, which it would pad.
    places: Chunks<u16>,
    /// The tick up to which everything was handled.
    elapsed: u64,
    /// Not later than the earliest deadline; `NEVER` when empty.
    next: Nanos,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            heads: Box::new([NONE; LEVELS * SLOTS]),
            occupied: [0; LEVELS],
            links: Chunks::default(),
            places: Chunks::default(),
            elapsed: 0,
            next: NEVER,
        }
    }
}

impl Wheel {
    /// A time not later than the first deadline, `NEVER` if nothing is armed.
    pub(crate) fn next(&self) -> Nanos {
        self.next
    }

    /// Arms `id`, which must not be armed.
    pub(crate) fn arm(&mut self, id: u32, at: Nanos) {
        self.place(id, at);
        self.next = self.next.min(at);
    }

    /// `id`, which is armed, will be due earlier than it was.
    pub(crate) fn lower(&mut self, id: u32, at: Nanos) {
        let place = self.place_of(id);
        debug_assert_ne!(place, UNLINKED, "lowered but not armed");
        if place == UNLINKED || at / TICK < self.start_of(usize::from(place)) {
            self.cancel(id);
            self.place(id, at);
        }
        self.next = self.next.min(at);
    }

    /// Disarms `id` if it is armed.
    pub(crate) fn cancel(&mut self, id: u32) {
        let slot = self.place_of(id);
        let Some(&Link { previous, next }) = self.links.get(id) else {
            return;
        };
        if slot == UNLINKED {
            return;
        }
        if let Some(link) = self.links.get_mut(next) {
            link.previous = previous;
        }
        if let Some(link) = self.links.get_mut(previous) {
            link.next = next;
        } else {
            self.heads[usize::from(slot)] = next;
            if next == NONE {
                self.occupied[usize::from(slot) / SLOTS] &= !(1 << (usize::from(slot) % SLOTS));
            }
        }
        self.unlink(id);
        if self.occupied == [0; LEVELS] {
            self.next = NEVER;
        }
    }

    /// Moves to `now`. `deadline` tells an id's real deadline: those that are due are disarmed and
    /// pushed to `due`, the others are put where they belong. Afterwards [`next`](Self::next) is
    /// later than `now`.
    pub(crate) fn advance(
        &mut self,
        now: Nanos,
        mut deadline: impl FnMut(u32) -> Nanos,
        due: &mut Vec<u32>,
    ) {
        if now < self.next {
            return;
        }
        let target = now / TICK;
        while let Some((slot, start)) = self.first_slot() {
            if start > target {
                break;
            }
            self.elapsed = start.max(self.elapsed);
            let mut id = std::mem::replace(&mut self.heads[slot], NONE);
            self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
            while id != NONE {
                let following = self.following(id);
                self.unlink(id);
                let at = deadline(id);
                if at <= now {
                    due.push(id);
                } else {
                    self.place(id, at);
                }
                id = following;
            }
            // What is left in the slot of the present tick is due within this tick, but later than
            // `now`.
            if start >= target {
                break;
            }
        }
        self.elapsed = self.elapsed.max(target);
        self.next = match self.first_slot() {
            None => NEVER,
            Some((slot, start)) if start <= target => self.earliest_in(slot, deadline),
            Some((_, start)) => start * TICK,
        };
        debug_assert!(self.next > now, "deadlines move forward");
    }

    fn place(&mut self, id: u32, at: Nanos) {
        // What lies beyond the last slot comes up there and is put off.
        let tick = (at / TICK).min((1 << (6 * LEVELS)) - 1).max(self.elapsed);
        let level = ((63 - ((self.elapsed ^ tick) | 63).leading_zeros()) / 6) as usize;
        let index = (tick >> (6 * level)) as usize % SLOTS;
        let slot = level * SLOTS + index;
        while self.links.len() <= id {
            self.links.push(Link {
                previous: NONE,
                next: NONE,
            });
            self.places.push(UNLINKED);
        }
        debug_assert_eq!(self.place_of(id), UNLINKED, "armed twice");
        let next = std::mem::replace(&mut self.heads[slot], id);
        if let Some(link) = self.links.get_mut(next) {
            link.previous = id;
        }
        if let Some(link) = self.links.get_mut(id) {
            *link = Link {
                previous: NONE,
                next,
            };
        }
        if let Some(place) = self.places.get_mut(id) {
            *place = slot as u16;
        }
        self.occupied[level] |= 1 << index;
    }

    /// The slot that comes up first and the tick at which it does.
    fn first_slot(&self) -> Option<(usize, u64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let shift = 6 * level as u32;
        let present = (self.elapsed >> shift) as u32 % SLOTS as u32;
        let ahead = self.occupied[level].rotate_right(present).trailing_zeros();
        debug_assert!(
            present + ahead < SLOTS as u32,
            "a slot lies behind the present"
        );
        let slot = level * SLOTS + ((present + ahead) as usize % SLOTS);
        Some((slot, self.start_of(slot)))
    }

    /// The tick at which an occupied slot comes up.
    fn start_of(&self, slot: usize) -> u64 {
        let shift = 6 * (slot / SLOTS) as u32;
        let round = self.elapsed >> shift & !(SLOTS as u64 - 1);
        (round | (slot % SLOTS) as u64) << shift
    }

    fn place_of(&self, id: u32) -> u16 {
        self.places.get(id).copied().unwrap_or(UNLINKED)
    }

    fn unlink(&mut self, id: u32) {
        if let Some(place) = self.places.get_mut(id) {
            *place = UNLINKED;
        }
    }

    fn following(&self, id: u32) -> u32 {
        self.links.get(id).map_or(NONE, |link| link.next)
    }

    fn earliest_in(&self, slot: usize, mut deadline: impl FnMut(u32) -> Nanos) -> Nanos {
        let mut id = self.heads[slot];
        let mut earliest = NEVER;
        while id != NONE {
            earliest = earliest.min(deadline(id));
            id = self.following(id);
        }
        earliest
    }
}

const LEVELS: usize = 7;
const SLOTS: usize = 64;
const TICK: Nanos = 1 << 20;
const UNLINKED: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_sorted_list(steps in prop::collection::vec((0u8..4, 0u32..24, 0u64..3_000, 0u32..38), 1..200)) {
            let mut wheel = Wheel::default();
            let mut deadlines = [NEVER; 24];
            let mut armed = [NEVER; 24];
            let mut now: Nanos = 0;
            for (what, id, amount, shift) in steps {
                let (at, slot) = (now + (amount << shift), id as usize);
                match what {
                    0 | 1 => {
                        // Later deadlines are only noted, earlier ones re-armed, as the table does.
                        deadlines[slot] = at;
                        if armed[slot] == NEVER {
                            wheel.arm(id, at);
                            armed[slot] = at;
                        } else if at < armed[slot] {
                            wheel.lower(id, at);
                            armed[slot] = at;
                        }
                    }
                    2 => {
                        wheel.cancel(id);
                        (deadlines[slot], armed[slot]) = (NEVER, NEVER);
                    }
                    _ => {
                        now = at;
                        let mut due = Vec::new();
                        let deadline = |id: u32| {
                            armed[id as usize] = deadlines[id as usize];
                            armed[id as usize]
                        };
                        wheel.advance(now, deadline, &mut due);
                        due.sort_unstable();
                        let expected: Vec<_> = (0..24).filter(|&id| deadlines[id as usize] <= now).collect();
                        prop_assert_eq!(&due, &expected);
                        for id in due {
                            (deadlines[id as usize], armed[id as usize]) = (NEVER, NEVER);
                        }
                        prop_assert!(wheel.next() > now);
                    }
                }
                let first = deadlines.iter().copied().min().unwrap_or(NEVER);
                prop_assert!(wheel.next() <= first);
            }
        }
    }
}
