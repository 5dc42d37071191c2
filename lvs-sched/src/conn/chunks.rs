//! A vector that grows without moving anything.
//!
//! Growing a `Vec` of ten million entries copies half a gigabyte in one insert. Here only a new
//! chunk is reserved, and its pages come one by one as they are written. The list of chunks is in
//! parts too: copying it would take as long as hundreds of inserts.

use crate::sys;

/// The vector.
#[derive(Debug)]
pub(crate) struct Chunks<T> {
    parts: Vec<Vec<Vec<T>>>,
    len: u32,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self {
            parts: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Chunks<T> {
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    #[inline]
    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        let (part, chunk, place) = split(id);
        self.parts.get(part)?.get(chunk)?.get(place)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        let (part, chunk, place) = split(id);
        self.parts.get_mut(part)?.get_mut(chunk)?.get_mut(place)
    }

    pub(crate) fn push(&mut self, value: T) -> u32 {
        let id = self.len;
        let (part, _, place) = split(id);
        if part == self.parts.len() {
            self.parts.push(Vec::new());
        }
        let chunks = &mut self.parts[part];
        if place == 0 {
            // The first chunk grows as any vector, so that a small table stays small.
            chunks.push(Vec::with_capacity(if id == 0 { 4 } else { CHUNK }));
        }
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(value);
        }
        self.len += 1;
        id
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.parts.iter().flatten().flatten()
    }
}

/// The part, the chunk in it, and the place in that.
#[inline]
fn split(id: u32) -> (usize, usize, usize) {
    let id = id as usize;
    (id / CHUNK / PART, id / CHUNK % PART, id % CHUNK)
}

const CHUNK: usize = 4096;
const PART: usize = 512;

/// A slab over such a vector: freed places are used again, the last one first.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Chunks<Slot<T>>,
    free: u32,
    used: u32,
}

#[derive(Debug)]
enum Slot<T> {
    Used(T),
    /// And the next free one.
    Free(u32),
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            slots: Chunks::default(),
            free: NONE,
            used: 0,
        }
    }
}

impl<T> Slab<T> {
    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.used as usize
    }

    /// Places, used or free: ids are below.
    pub(crate) fn places(&self) -> u32 {
        self.slots.len()
    }

    #[inline]
    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        match self.slots.get(id)? {
            Slot::Used(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        match self.slots.get_mut(id)? {
            Slot::Used(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    /// Fetches a place without looking whether it is used: that would be waiting for it.
    #[inline]
    pub(crate) fn fetch(&self, id: u32) {
        if let Some(slot) = self.slots.get(id) {
            sys::prefetch(slot);
        }
    }

    pub(crate) fn insert_with(&mut self, value: impl FnOnce(u32) -> T) -> u32 {
        let id = if self.free == NONE {
            self.slots.len()
        } else {
            self.free
        };
        self.insert(value(id))
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.used += 1;
        let id = self.free;
        match self.slots.get_mut(id) {
            Some(slot) => {
                if let Slot::Free(next) = *slot {
                    self.free = next;
                }
                *slot = Slot::Used(value);
                id
            }
            None => self.slots.push(Slot::Used(value)),
        }
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let slot = self.slots.get_mut(id)?;
        if matches!(slot, Slot::Free(_)) {
            return None;
        }
        let Slot::Used(value) = std::mem::replace(slot, Slot::Free(self.free)) else {
            return None;
        };
        self.free = id;
        self.used -= 1;
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Used(value) => Some(value),
            Slot::Free(_) => None,
        })
    }
}

/// No id.
pub(crate) const NONE: u32 = u32::MAX;

/// Bytes that a value takes in a slab.
#[cfg(test)]
pub(crate) const fn slot_size<T>() -> usize {
    size_of::<Slot<T>>()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn chunks_keep_what_they_were_given() {
        let mut chunks = Chunks::default();
        for value in 0..3 * CHUNK as u32 + 7 {
            assert_eq!(chunks.push(value), value);
        }
        assert!(chunks.iter().copied().eq(0..3 * CHUNK as u32 + 7));
        assert_eq!(chunks.get(3 * CHUNK as u32 + 7), None);
        assert_eq!(chunks.get(NONE), None);
    }

    proptest! {
        #[test]
        fn the_slab_agrees_with_a_map(steps in prop::collection::vec((any::<bool>(), 0u32..40), 1..300)) {
            let mut slab = Slab::default();
            let mut map = BTreeMap::new();
            for (serial, (add, id)) in steps.into_iter().enumerate() {
                if add {
                    let id = slab.insert(serial);
                    prop_assert_eq!(map.insert(id, serial), None);
                } else {
                    prop_assert_eq!(slab.remove(id), map.remove(&id));
                }
                prop_assert_eq!(slab.len(), map.len());
                prop_assert!(slab.iter().collect::<std::collections::BTreeSet<_>>()
                    == map.values().collect::<std::collections::BTreeSet<_>>());
            }
        }
    }
}
