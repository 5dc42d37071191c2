//! Open-addressing hash index from 32-bit hashes to slab ids.
//!
//! Eight bytes a slot and nothing else: hash and id, so that a probe touches one cache line and
//! growing needs no key. The keys live in the slab, the caller compares them. Linear probing with
//! backward-shift deletion leaves no tombstones.

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// 0 is empty, else the hash in the high half and id + 1 in the low half.
    slots: Vec<u64>,
    len: usize,
}

impl Index {
    /// Number of keys.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The id with this hash for which `equal` holds.
    pub(crate) fn find(&self, hash: u32, equal: impl Fn(u32) -> bool) -> Option<u32> {
        let mut position = self.home(hash)?;
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

    /// Adds an id whose key is not in the index.
    pub(crate) fn insert(&mut self, hash: u32, id: u32) {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        self.put(slot(hash, id));
        self.len += 1;
    }

    /// Lets the key of `old` lead to `new`.
    pub(crate) fn replace(&mut self, hash: u32, old: u32, new: u32) {
        if let Some(position) = self.position(hash, old) {
            self.slots[position] = slot(hash, new);
        }
    }

    pub(crate) fn remove(&mut self, hash: u32, id: u32) {
        let Some(mut hole) = self.position(hash, id) else {
            return;
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
    }

    fn position(&self, hash: u32, id: u32) -> Option<usize> {
        let wanted = slot(hash, id);
        let mut position = self.home(hash)?;
        while self.slots[position] != wanted {
            if self.slots[position] == 0 {
                debug_assert!(false, "the index lost an entry");
                return None;
            }
            position = self.after(position);
        }
        Some(position)
    }

    fn home(&self, hash: u32) -> Option<usize> {
        (!self.slots.is_empty()).then(|| hash as usize & (self.slots.len() - 1))
    }

    fn after(&self, position: usize) -> usize {
        (position + 1) & (self.slots.len() - 1)
    }

    fn put(&mut self, slot: u64) {
        let mask = self.slots.len() - 1;
        let mut position = (slot >> 32) as usize & mask;
        while self.slots[position] != 0 {
            position = (position + 1) & mask;
        }
        self.slots[position] = slot;
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(64);
        let old = std::mem::replace(&mut self.slots, vec![0; size]);
        old.into_iter()
            .filter(|&slot| slot != 0)
            .for_each(|slot| self.put(slot));
    }
}

fn slot(hash: u32, id: u32) -> u64 {
    u64::from(hash) << 32 | (u64::from(id) + 1)
}

fn id_of(slot: u64) -> u32 {
    (slot as u32).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

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
