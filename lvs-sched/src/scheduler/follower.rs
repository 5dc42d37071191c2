//! Which servers of a list a scheduler has to look at again.

use std::sync::Arc;

use super::{Marks, Servers};
use crate::RealServer;
use crate::real_server::Load;

/// Follows the counts of a list's servers for a scheduler that keeps something computed of them.
///
/// Servers mark themselves when their counts change; a pick first looks at those again. After a
/// change of the list it looks at all.
#[derive(Debug, Default)]
pub(super) struct Follower {
    /// `None`: the list is another one than that which was followed.
    marks: Option<Arc<Marks>>,
    /// The server chosen last: it is bound without a mark.
    chosen: Option<usize>,
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

    /// Follows a list from here on, beginning with the counts of all.
    pub(super) fn follow(&mut self, servers: &Servers, mut each: impl FnMut(usize, Load)) {
        let marks = Arc::new(Marks::new(servers.len()));
        for (index, server) in servers.iter().enumerate() {
            each(index, server.report_to(&marks, index as u32));
        }
        self.marks = Some(marks);
        self.chosen = None;
    }

    /// The counts of those that may have changed.
    ///
    /// Looks again until nobody changes meanwhile: what is told then was true of all servers at one
    /// moment, so that the pick has its place in an order of all changes. With so many changes that
    /// there is no such moment it makes do.
    pub(super) fn refresh(&mut self, servers: &Servers, mut each: impl FnMut(usize, Load)) {
        if let Some(index) = self.chosen.take() {
            each(index, servers[index].take_note());
        }
        if let Some(marks) = &self.marks {
            for _ in 0..LOOKS {
                if !marks.take(|index| each(index, servers[index].load())) {
                    break;
                }
            }
        }
    }

    /// The server at this position is the answer, and looked at again before the next one.
    pub(super) fn choose(&mut self, index: usize) -> usize {
        self.chosen = Some(index);
        index
    }

    /// The position of a server that was found in another way, if the list has it.
    pub(super) fn place(&self, servers: &Servers, server: &RealServer) -> Option<usize> {
        let index = server.slot();
        let here = servers.get(index)?;
        std::ptr::eq(Arc::as_ptr(here), server).then_some(index)
    }
}

const LOOKS: usize = 100;
