//! Open-addressing hash index from 32-bit hashes to slab ids, in segments.
//!
//! Eight bytes a slot and nothing else: hash and id, so that a probe touches one cache line and
//! growing needs no key. The keys live in the slab, the caller compares them. Linear probing with
//! backward-shift deletion leaves no tombstones.
//!
//! The high bits of a hash choose a segment through a directory, the low bits the place in it. A
//! full segment is split in two by the next bit (extendible hashing), so no insert ever moves more
//! than one segment of 16 KiB, however large the index is.

use super::chunks::Chunks;
use crate::sys;

/// The index.
#[derive(Debug)]
pub(crate) struct Index {
    /// 2^`depth` numbers of segments, by the high bits of a hash.
    directory: Vec<u32>,
    segments: Chunks<Segment>,
    depth: u32,
    len: usize,
}

#[derive(Debug)]
struct Segment {
    /// 0 is empty, else the hash in the high half and id + 1 in the low half.
    slots: Box<[u64]>,
    len: u32,
    /// How many high bits all its hashes share.
    depth: u32,
}

impl Default for Index {
    fn default() -> Self {
        let mut segments = Chunks::default();
        segments.push(Segment::new(16, 0));
        Self {
            directory: vec![0],
            segments,
            depth: 0,
            len: 0,
        }
    }
}

impl Index {
    /// Number of keys.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The id with this hash for which `equal` holds.
    #[inline]
    pub(crate) fn find(&self, hash: u32, equal: impl Fn(u32) -> bool) -> Option<u32> {
        self.segment(self.number(hash)).find(hash, equal)
    }

    /// Fetches where a search for `hash` will begin.
    #[inline]
    pub(crate) fn fetch(&self, hash: u32) {
        let segment = self.segment(self.number(hash));
        sys::prefetch(&segment.slots[segment.home(hash)]);
    }

    /// The first id with this hash, whatever its key: nearly always the one that a search will find.
    #[inline]
    pub(crate) fn guess(&self, hash: u32) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// Adds an id whose key is not in the index.
    pub(crate) fn insert(&mut self, hash: u32, id: u32) {
        let mut number = self.number(hash);
        while self.segment(number).is_full() {
            self.grow(number);
            number = self.number(hash);
        }
        let segment = self.segment_mut(number);
        segment.put(slot(hash, id));
        segment.len += 1;
        self.len += 1;
    }

    /// Lets the key of `old` lead to `new`.
    pub(crate) fn replace(&mut self, hash: u32, old: u32, new: u32) {
        let segment = self.segment_mut(self.number(hash));
        if let Some(position) = segment.position(hash, old) {
            segment.slots[position] = slot(hash, new);
        }
    }

    pub(crate) fn remove(&mut self, hash: u32, id: u32) {
        if self.segment_mut(self.number(hash)).remove(hash, id) {
            self.len -= 1;
        }
    }

    /// The number of a hash's segment.
    #[inline]
    fn number(&self, hash: u32) -> u32 {
        // A shift by 32 in two steps, for the directory of one.
        self.directory[(hash >> 1 >> (31 - self.depth)) as usize]
    }

    #[inline]
    fn segment(&self, number: u32) -> &Segment {
        self.segments
            .get(number)
            .expect("the directory leads to segments")
    }

    fn segment_mut(&mut self, number: u32) -> &mut Segment {
        self.segments
            .get_mut(number)
            .expect("the directory leads to segments")
    }

    fn grow(&mut self, number: u32) {
        let (directory_depth, new) = (self.depth, self.segments.len());
        let segment = self.segment_mut(number);
        if segment.slots.len() < SEGMENT || segment.depth == MAX_DEPTH {
            segment.double();
            return;
        }
        let depth = segment.depth + 1;
        let old = std::mem::replace(segment, Segment::new(SEGMENT, depth));
        if depth > directory_depth {
            let mut directory = Vec::with_capacity(self.directory.len() * 2);
            for &number in &self.directory {
                directory.push(number);
                directory.push(number);
            }
            self.directory = directory;
            self.depth += 1;
        }
        let first = self.segment_mut(number);
        let mut second = Segment::new(SEGMENT, depth);
        let mut prefix = 0;
        for &slot in old.slots.iter().filter(|&&slot| slot != 0) {
            let hash = (slot >> 32) as u32;
            prefix = hash >> (32 - depth) >> 1;
            let half = if hash >> (32 - depth) & 1 == 0 {
                &mut *first
            } else {
                &mut second
            };
            half.put(slot);
            half.len += 1;
        }
        self.segments.push(second);
        // The directory's entries for the prefix and a one.
        let width = 1 << (self.depth - depth);
        let first = ((prefix as usize) << 1 | 1) * width;
        self.directory[first..first + width].fill(new);
    }
}

impl Segment {
    fn new(size: usize, depth: u32) -> Self {
        Self {
            slots: vec![0; size].into_boxed_slice(),
            len: 0,
            depth,
        }
    }

    fn is_full(&self) -> bool {
        self.len as usize * 8 >= self.slots.len() * 7
    }

    #[inline]
    fn find(&self, hash: u32, equal: impl Fn(u32) -> bool) -> Option<u32> {
        let mut position = self.home(hash);
        loop {
            let slot = self.slots[position];
            if slot == 0 {
                return None;
            }
            if (slot >> 32) as u32 == hash && equal(id_of(slot)) {
                return Some(id_of(slot));
            }
            position = self.after(position);
        }
    }

    fn remove(&mut self, hash: u32, id: u32) -> bool {
        let Some(mut hole) = self.position(hash, id) else {
            return false;
        };
        let mask = self.slots.len() - 1;
        let mut position = hole;
        loop {
            position = (position + 1) & mask;
            let slot = self.slots[position];
            if slot == 0 {
                break;
            }
            // An entry may fill the hole unless its home lies behind the hole.
            let home = (slot >> 32) as usize & mask;
            if position.wrapping_sub(home) & mask >= position.wrapping_sub(hole) & mask {
                self.slots[hole] = slot;
                hole = position;
            }
        }
        self.slots[hole] = 0;
        self.len -= 1;
        true
    }

    fn position(&self, hash: u32, id: u32) -> Option<usize> {
        let wanted = slot(hash, id);
        let mut position = self.home(hash);
        while self.slots[position] != wanted {
            if self.slots[position] == 0 {
                debug_assert!(false, "the index lost an entry");
                return None;
            }
            position = self.after(position);
        }
        Some(position)
    }

    #[inline]
    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    #[inline]
    fn after(&self, position: usize) -> usize {
        (position + 1) & (self.slots.len() - 1)
    }

    fn put(&mut self, slot: u64) {
        let mut position = self.home((slot >> 32) as u32);
        while self.slots[position] != 0 {
            position = self.after(position);
        }
        self.slots[position] = slot;
    }

    fn double(&mut self) {
        let size = self.slots.len() * 2;
        let old = std::mem::replace(&mut self.slots, vec![0; size].into_boxed_slice());
        old.iter()
            .filter(|&&slot| slot != 0)
            .for_each(|&slot| self.put(slot));
    }
}

fn slot(hash: u32, id: u32) -> u64 {
    u64::from(hash) << 32 | (u64::from(id) + 1)
}

fn id_of(slot: u64) -> u32 {
    (slot as u32).wrapping_sub(1)
}

const SEGMENT: usize = 2048;
/// With keyed hashes no segment gets here; should one, it grows by itself.
const MAX_DEPTH: u32 = 20;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn segments_split_and_keep_everything() {
        // Spread by a multiplication, and all in one segment by their high bits.
        for spread in [0x9E37_79B1u32, 1] {
            let mut index = Index::default();
            let hash = |id: u32| id.wrapping_mul(spread);
            for id in 0..40_000 {
                index.insert(hash(id), id);
            }
            for id in 0..40_000 {
                assert_eq!(index.find(hash(id), |found| found == id), Some(id));
                let guess = index.guess(hash(id)).unwrap();
                assert_eq!(hash(guess), hash(id));
            }
            for id in (0..40_000).step_by(3) {
                index.remove(hash(id), id);
            }
            for id in 0..40_000 {
                let found = index.find(hash(id), |found| found == id);
                assert_eq!(found, (id % 3 != 0).then_some(id));
            }
            assert_eq!(index.len(), 40_000 - 13_334);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(steps in prop::collection::vec((any::<bool>(), 0u32..300), 1..600)) {
            let mut index = Index::default();
            let mut map = HashMap::new();
            for (add, id) in steps {
                // Few hashes, so that runs are long and wrap around.
                let hash = (id % 7).wrapping_sub(3);
                if add && map.insert(id, hash).is_none() {
                    index.insert(hash, id);
                } else if !add && map.remove(&id).is_some() {
                    index.remove(hash, id);
                }
                let found = index.find(hash, |found| found == id);
                prop_assert_eq!(found, map.contains_key(&id).then_some(id));
            }
            for id in 0u32..300 {
                let found = index.find((id % 7).wrapping_sub(3), |found| found == id);
                prop_assert_eq!(found, map.contains_key(&id).then_some(id));
            }
        }
    }
}
