//! A position that several threads advance without a lock.

use std::sync::atomic::Ordering::SeqCst;

use super::Superseded;
use crate::atomic::AtomicU64;

/// The state of a cyclic scheduler, as one word: the position in the low half, more in the high.
///
/// A pick reads the word, decides, and replaces it if it is still the same; so picks form one
/// order, and each is what the scheduler would do in that order. A change of the list first freezes
/// the word, which takes it away from picks that still see the old list.
#[derive(Debug)]
pub(crate) struct Cursor(AtomicU64);

/// A cursor's value. `position` is the one chosen last, `None` is "before the first".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: Option<u32>,
    /// The scheduler's own, below 2^31.
    pub(crate) level: u32,
}

impl Cursor {
    pub(crate) fn new(place: Place) -> Self {
        Self(AtomicU64::new(place.pack()))
    }

    /// Moves on by `step`, which returns the new place and the answer.
    pub(crate) fn advance(
        &self,
        mut step: impl FnMut(Place) -> (Place, Option<usize>),
    ) -> Result<Option<usize>, Superseded> {
        let mut present = self.0.load(SeqCst);
        loop {
            if present & FROZEN != 0 {
                return Err(Superseded);
            }
            let (next, answer) = step(Place::unpack(present));
            let next = next.pack();
            if next == present {
                return Ok(answer);
            }
            match self.0.compare_exchange_weak(present, next, SeqCst, SeqCst) {
                Ok(_) => return Ok(answer),
                Err(seen) => present = seen,
            }
        }
    }

    /// The present value.
    pub(crate) fn place(&self) -> Place {
        Place::unpack(self.0.load(SeqCst))
    }

    /// The last value there will be.
    pub(crate) fn freeze(&self) -> Place {
        Place::unpack(self.0.fetch_or(FROZEN, SeqCst))
    }
}

impl Place {
    fn pack(self) -> u64 {
        debug_assert!(self.level < 1 << 31);
        u64::from(self.level) << 32 | u64::from(self.position.map_or(0, |position| position + 1))
    }

    fn unpack(word: u64) -> Self {
        Self {
            position: (word as u32).checked_sub(1),
            level: (word >> 32) as u32 & 0x7fff_ffff,
        }
    }
}

const FROZEN: u64 = 1 << 63;
