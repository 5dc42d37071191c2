//! Hierarchical timer wheel over small integer ids, which never does much at once.
//!
//! Eight levels of 128 slots, a tick of 2^14 ns (about 16 µs) at the lowest, each level 64 times as
//! wide as the one below: every time within 1,100 years has a slot. Arming and cancelling are O(1);
//! nothing is ever searched but slots of bitmaps and the entries of the present tick. Entries are
//! linked by index in ten bytes each, so the wheel allocates only when the ids grow, and never moves
//! a link.
//!
//! A slot of a higher level must be empty when its time begins. Its entries move to lower levels a
//! few at a time, from the beginning of the slot before it: 128 slots of a level, where 64 would do
//! for the slot of the level above that is running, have room for the next one too. Slots with few
//! entries are left until they begin. So a call moves a bounded number of entries besides those that
//! are due, as long as somebody calls when [`Wheel::next`] says so. Who comes late finds slots that
//! have begun, and they move at once: there is no other way to find out which of their entries are
//! due.
//!
//! The wheel is a hint, never the truth: it is told the real deadline again when a slot comes up. A
//! deadline that moved later costs nothing until then.

use super::chunks::{Chunks, NONE};
use crate::time::{NEVER, Nanos};

/// The wheel. Ids are positions in the caller's slab.
#[derive(Debug)]
pub(crate) struct Wheel {
    slots: Box<[Slot; LEVELS * SLOTS]>,
    occupied: [u128; LEVELS],
    links: Chunks<Link>,
    /// The slot of each id, or `UNLINKED`; apart from the links, which it would pad.
    places: Chunks<u16>,
    /// The tick up to which everything was handled. No slot above the lowest level has begun.
    elapsed: u64,
    /// Not later than the earliest deadline, nor than any slot's beginning; `NEVER` when empty.
    next: Nanos,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    head: u32,
    len: u32,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            slots: Box::new([Slot::EMPTY; LEVELS * SLOTS]),
            occupied: [0; LEVELS],
            links: Chunks::default(),
            places: Chunks::default(),
            elapsed: 0,
            next: NEVER,
        }
    }
}

impl Slot {
    const EMPTY: Self = Self { head: NONE, len: 0 };
}

impl Wheel {
    /// A time not later than the first deadline, `NEVER` if nothing is armed.
    pub(crate) fn next(&self) -> Nanos {
        self.next
    }

    /// Arms `id`, which must not be armed. The present is what [`pass`](Self::pass) or
    /// [`advance`](Self::advance) was told last.
    pub(crate) fn arm(&mut self, id: u32, at: Nanos) {
        let place = self.place(id, at);
        self.next = self.next.min(at);
        if place >= SLOTS {
            self.next = self.next.min(self.wake(place));
        }
    }

    /// `id`, which is armed, will be due earlier than it was.
    pub(crate) fn lower(&mut self, id: u32, at: Nanos) {
        let place = self.place_of(id);
        debug_assert_ne!(place, UNLINKED, "lowered but not armed");
        if place == UNLINKED || at / TICK < self.start_of(usize::from(place)) {
            self.cancel(id);
            self.arm(id, at);
        }
        self.next = self.next.min(at);
    }

    /// Disarms `id` if it is armed.
    pub(crate) fn cancel(&mut self, id: u32) {
        let place = self.place_of(id);
        let Some(&Link { previous, next }) = self.links.get(id) else {
            return;
        };
        if place == UNLINKED {
            return;
        }
        if let Some(link) = self.links.get_mut(next) {
            link.previous = previous;
        }
        let place = usize::from(place);
        self.slots[place].len -= 1;
        if let Some(link) = self.links.get_mut(previous) {
            link.next = next;
        } else {
            self.slots[place].head = next;
            if next == NONE {
                self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
            }
        }
        self.unlink(id);
        if self.occupied == [0; LEVELS] {
            self.next = NEVER;
        }
    }

    /// Moves to `now` if there is nothing to do until then. Returns whether it did.
    pub(crate) fn pass(&mut self, now: Nanos) -> bool {
        let is_idle = now < self.next;
        if is_idle {
            self.elapsed = self.elapsed.max(now / TICK);
        }
        is_idle
    }

    /// Moves to `now`. `deadline` tells an id's real deadline: those that are due are disarmed and
    /// pushed to `due`, others are put where they belong. Afterwards [`next`](Self::next) is later
    /// than `now`.
    pub(crate) fn advance(
        &mut self,
        now: Nanos,
        mut deadline: impl FnMut(u32) -> Nanos,
        due: &mut Vec<u32>,
    ) {
        if self.pass(now) {
            return;
        }
        let target = now / TICK;
        while let Some((place, start)) = self.first_slot() {
            if start > target {
                break;
            }
            self.elapsed = start.max(self.elapsed);
            let mut id = std::mem::replace(&mut self.slots[place], Slot::EMPTY).head;
            self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
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
            if place < SLOTS && start >= target {
                break;
            }
        }
        self.elapsed = self.elapsed.max(target);
        self.migrate(&mut deadline);
        self.next = (0..LEVELS)
            .filter_map(|level| self.first_of(level))
            .map(|(place, start)| {
                if start <= target {
                    self.earliest_in(place, &mut deadline)
                } else {
                    // Work that is left: soon, but not at once.
                    let soon = (now + PAUSE).min(start * TICK);
                    self.wake(place).max(soon)
                }
            })
            .min()
            .unwrap_or(NEVER);
        debug_assert!(self.next > now, "deadlines move forward");
    }

    /// Moves some entries of slots that begin next.
    fn migrate(&mut self, mut deadline: impl FnMut(u32) -> Nanos) {
        let mut left = STEPS;
        for level in 1..LEVELS {
            let place = level * SLOTS + ((self.elapsed >> shift_of(level)) as usize + 1) % SLOTS;
            while left > 0 && self.slots[place].len > FEW {
                let id = self.slots[place].head;
                self.cancel(id);
                self.place(id, deadline(id));
                left -= 1;
            }
        }
    }

    /// When something has to be done about a slot: when it begins, or the one before it if it has
    /// many entries. May be past.
    fn wake(&self, place: usize) -> Nanos {
        let (level, start) = (place / SLOTS, self.start_of(place));
        if level > 0 && self.slots[place].len > FEW {
            (start - (1 << shift_of(level))) * TICK
        } else {
            start * TICK
        }
    }

    /// Links an id into the narrowest slot that is not too far ahead.
    fn place(&mut self, id: u32, at: Nanos) -> usize {
        let top = shift_of(LEVELS - 1);
        // What lies beyond the last slot comes up there and is put off.
        let last = ((self.elapsed >> top) + SLOTS as u64 - 1) << top;
        let tick = (at / TICK).clamp(self.elapsed, last);
        let ahead = |level| (tick >> shift_of(level)) - (self.elapsed >> shift_of(level));
        let bits = 64 - ((tick - self.elapsed) | (SLOTS as u64 - 1)).leading_zeros();
        let mut level = (bits - SLOTS.trailing_zeros()).div_ceil(STRIDE) as usize;
        if ahead(level) >= SLOTS as u64 {
            level += 1;
        }
        let index = (tick >> shift_of(level)) as usize % SLOTS;
        let place = level * SLOTS + index;
        while self.links.len() <= id {
            self.links.push(Link {
                previous: NONE,
                next: NONE,
            });
            self.places.push(UNLINKED);
        }
        debug_assert_eq!(self.place_of(id), UNLINKED, "armed twice");
        let slot = &mut self.slots[place];
        slot.len += 1;
        let next = std::mem::replace(&mut slot.head, id);
        if let Some(link) = self.links.get_mut(next) {
            link.previous = id;
        }
        if let Some(link) = self.links.get_mut(id) {
            *link = Link {
                previous: NONE,
                next,
            };
        }
        if let Some(of_id) = self.places.get_mut(id) {
            *of_id = place as u16;
        }
        self.occupied[level] |= 1 << index;
        place
    }

    /// The slot that begins first and the tick at which it does; the widest of several.
    fn first_slot(&self) -> Option<(usize, u64)> {
        (0..LEVELS)
            .rev()
            .filter_map(|level| self.first_of(level))
            .min_by_key(|&(_, start)| start)
    }

    /// The first occupied slot of a level and the tick at which it begins.
    fn first_of(&self, level: usize) -> Option<(usize, u64)> {
        let occupied = self.occupied[level];
        if occupied == 0 {
            return None;
        }
        let present = self.elapsed >> shift_of(level);
        let turned = occupied.rotate_right((present % SLOTS as u64) as u32);
        let first = present + u64::from(turned.trailing_zeros());
        let place = level * SLOTS + first as usize % SLOTS;
        Some((place, first << shift_of(level)))
    }

    /// The tick at which an occupied slot begins.
    fn start_of(&self, place: usize) -> u64 {
        let shift = shift_of(place / SLOTS);
        let present = self.elapsed >> shift;
        let ahead = (place as u64).wrapping_sub(present) % SLOTS as u64;
        (present + ahead) << shift
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

    fn earliest_in(&self, place: usize, mut deadline: impl FnMut(u32) -> Nanos) -> Nanos {
        let mut id = self.slots[place].head;
        let mut earliest = NEVER;
        while id != NONE {
            earliest = earliest.min(deadline(id));
            id = self.following(id);
        }
        earliest
    }
}

/// Width of a level's slots in ticks, as a power of two.
const fn shift_of(level: usize) -> u32 {
    STRIDE * level as u32
}

const LEVELS: usize = 8;
const SLOTS: usize = 128;
const STRIDE: u32 = SLOTS.trailing_zeros() - 1;
const TICK: Nanos = 1 << 14;
const UNLINKED: u16 = u16::MAX;
/// Entries that a call moves ahead of time.
const STEPS: u32 = 32;
/// A slot of no more entries is left until it begins.
const FEW: u32 = 16;
/// Between two calls that move entries ahead of time.
const PAUSE: Nanos = 1 << 12;

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

    /// Drives a wheel whose timers come in a flood and are put off by then, and one whose clock
    /// leaps, and counts what each call looks at.
    #[test]
    fn a_call_looks_at_few_entries_that_are_not_due() {
        const COUNT: u32 = 300_000;
        // Nanoseconds between two arrivals: from two million a second to one in 10 ms.
        for gap in [500, 20_000, 10_000_000] {
            let mut wheel = Wheel::default();
            let mut deadlines: Vec<Nanos> = Vec::new();
            let (mut now, mut due, mut ended, mut most) = (0, Vec::new(), 0, 0);
            let mut advance = |wheel: &mut Wheel, now, deadlines: &[Nanos]| {
                let mut looks: usize = 0;
                due.clear();
                wheel.advance(
                    now,
                    |id| {
                        looks += 1;
                        deadlines[id as usize]
                    },
                    &mut due,
                );
                assert!(due.iter().all(|&id| deadlines[id as usize] <= now));
                assert!(wheel.next() > now);
                ended += due.len();
                most = most.max(looks - due.len());
            };
            for id in 0..COUNT {
                now += gap;
                advance(&mut wheel, now, &deadlines);
                // A short timeout for the first packet, then a long one.
                wheel.arm(id, now + 3_000_000_000);
                deadlines.push(now + 60_000_000_000 + u64::from(id % 7) * 120_000_000_000);
            }
            // Nobody sends any more: only the deadline says when to call.
            while wheel.next() != NEVER {
                now = wheel.next();
                advance(&mut wheel, now, &deadlines);
            }
            assert_eq!(ended, COUNT as usize);
            // Those that are moved ahead, what is left of a slot of each level, and the entries of
            // the present tick twice.
            let in_a_tick = (TICK / gap) as usize + 1;
            let bound = STEPS as usize + (LEVELS - 1) * FEW as usize + 2 * in_a_tick;
            assert!(most <= bound, "{most} of {bound} at {gap} ns");
        }
    }
}
