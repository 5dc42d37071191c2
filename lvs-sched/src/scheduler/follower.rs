//! Which servers of a list a scheduler has to look at again.

use std::sync::Arc;

use super::{Marks, Servers};
use crate::RealServer;
use crate::real_server::Load;

/// Follows the counts of a list's servers for a scheduler that keeps something computed of them.
///
/// Servers mark themselves when their counts change; a pick first looks at those again. After a
/// change of the list it looks at all. The servers that were chosen last are looked at by each pick, so that their
/// leases end without a mark: where connections are short, that is all there is to look at.
#[derive(Debug, Default)]
pub(super) struct Follower {
    /// `None`: the list is another one than that which was followed.
    marks: Option<Arc<Marks>>,
    /// The first `len`, oldest first.
    recent: [Recent; RECENT],
    len: usize,
}

/// A server that was chosen lately, and what was last told of it.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    index: usize,
    /// `None`: it was chosen after that.
    load: Option<Load>,
}

impl Follower {
    /// The list is another one.
    pub(super) fn list_changed(&mut self) {
        *self = Self::default();
    }

    /// Whether this is the list that was followed last.
    pub(super) fn is_current(&self) -> bool {
        self.marks.is_some()
    }

    /// Where the servers of the list that is followed mark themselves.
    pub(super) fn marks(&self) -> Option<&Arc<Marks>> {
        self.marks.as_ref()
    }

    /// Follows a list from here on, beginning with the counts of all.
    pub(super) fn follow(&mut self, servers: &Servers, mut each: impl FnMut(usize, Load)) {
        let marks = Arc::new(Marks::new(servers.len()));
        for (index, server) in servers.iter().enumerate() {
            each(index, server.report_to(&marks, index as u32));
        }
        self.marks = Some(marks);
        self.len = 0;
    }

    /// The counts of those that may have changed.
    ///
    /// Looks again until nobody changes meanwhile: what is told then was true of all servers at one
    /// moment, so that the pick has its place in an order of all changes. (Without a mark counts only fall, so a
    /// count that is seen again has not changed meanwhile.) With so many changes that there is no such moment it
    /// makes do.
    pub(super) fn refresh(&mut self, servers: &Servers, mut each: impl FnMut(usize, Load)) {
        if self.len == RECENT {
            self.part(1, servers, &mut each);
        }
        let Some(marks) = &self.marks else { return };
        let recent = &mut self.recent[..self.len];
        for _ in 0..LOOKS {
            let mut changed = false;
            for seen in recent.iter_mut() {
                let load = servers[seen.index].load();
                if seen.load != Some(load) {
                    seen.load = Some(load);
                    each(seen.index, load);
                    changed = true;
                }
            }
            changed |= marks.take(|index| {
                let load = servers[index].load();
                note(recent, index, load);
                each(index, load);
            });
            if !changed {
                break;
            }
        }
    }

    /// As [`refresh`](Self::refresh). From here on all changes are marked, those of the servers chosen last too.
    pub(super) fn refresh_and_part(
        &mut self,
        servers: &Servers,
        mut each: impl FnMut(usize, Load),
    ) {
        self.part(self.len, servers, &mut each);
        self.refresh(servers, each);
    }

    /// What is known otherwise of a server's counts.
    pub(super) fn note(&mut self, index: usize, load: Load) {
        note(&mut self.recent[..self.len], index, load);
    }

    /// The server at this position is the answer, and looked at again by the next pick. At most once after each
    /// refresh.
    pub(super) fn choose(&mut self, index: usize) -> usize {
        let is_known = self.recent[..self.len]
            .iter()
            .any(|seen| seen.index == index);
        debug_assert!(
            is_known || self.len < RECENT,
            "there is a refresh before each choice"
        );
        if !is_known && let Some(place) = self.recent.get_mut(self.len) {
            *place = Recent { index, load: None };
            self.len += 1;
        }
        index
    }

    /// The position of a server that was found in another way, if the list has it.
    pub(super) fn place(&self, servers: &Servers, server: &RealServer) -> Option<usize> {
        let index = server.slot();
        let here = servers.get(index)?;
        std::ptr::eq(Arc::as_ptr(here), server).then_some(index)
    }

    /// The oldest `count` of those chosen last mark their changes again.
    fn part(&mut self, count: usize, servers: &Servers, each: &mut impl FnMut(usize, Load)) {
        for seen in &self.recent[..count] {
            each(seen.index, servers[seen.index].take_note());
        }
        self.recent.copy_within(count..self.len, 0);
        self.len -= count;
    }
}

fn note(recent: &mut [Recent], index: usize, load: Load) {
    if let Some(seen) = recent.iter_mut().find(|seen| seen.index == index) {
        seen.load = Some(load);
    }
}

const LOOKS: usize = 100;

/// A few: as many threads as pick at once may hold a short lease each.
const RECENT: usize = 4;
