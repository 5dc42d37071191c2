//! A worker's memory of where addresses lead.

use std::net::IpAddr;
use std::time::Instant;

use crate::route::{Hop, NeighbourState};
use crate::stats::DropReason;
use crate::steer;
use crate::view::{PortId, View};
use crate::why::{Way, way};

/// Where an address leads under one view.
#[derive(Debug, Clone, Copy)]
pub(super) enum Path {
    /// Out of a port to a known hardware address.
    Send {
        port: PortId,
        mtu: u32,
        source: [u8; 6],
        destination: [u8; 6],
        hop: Hop,
        /// The neighbour should be asked for again.
        stale: bool,
    },
    /// Out of a port, once the neighbour is known.
    Resolve { port: PortId, mtu: u32, hop: Hop },
    /// To the host itself.
    Local,
    /// Nowhere.
    Drop(DropReason),
}

/// Answers of the route and neighbour tables, remembered until the view changes.
///
/// Direct-mapped and of fixed size: two addresses that meet in one place recompute each other's answers,
/// which costs two table lookups and nothing else.
#[derive(Debug)]
pub(super) struct HopCache {
    entries: Vec<Option<Entry>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    addr: IpAddr,
    generation: u64,
    path: Path,
    next_probe: Option<Instant>,
}

impl HopCache {
    pub(super) fn new() -> Self {
        Self {
            entries: vec![None; PLACES],
        }
    }

    #[inline]
    pub(super) fn path(&mut self, view: &View, addr: IpAddr) -> Path {
        let entry = &mut self.entries[place(&addr)];
        if let Some(entry) = entry
            && entry.addr == addr
            && entry.generation == view.generation
        {
            return entry.path;
        }
        let path = look_up(view, addr);
        *entry = Some(Entry {
            addr,
            generation: view.generation,
            path,
            next_probe: None,
        });
        path
    }

    /// Whether a stale neighbour on the way to this address has not been asked for lately.
    pub(super) fn may_probe(&self, addr: &IpAddr, now: Instant) -> bool {
        self.entries[place(addr)]
            .filter(|entry| entry.addr == *addr)
            .is_none_or(|entry| entry.next_probe.is_none_or(|at| now >= at))
    }

    pub(super) fn probed(&mut self, addr: &IpAddr, next: Instant) {
        if let Some(entry) = &mut self.entries[place(addr)]
            && entry.addr == *addr
        {
            entry.next_probe = Some(next);
        }
    }
}

fn place(addr: &IpAddr) -> usize {
    steer::place(addr, PLACES)
}

fn look_up(view: &View, addr: IpAddr) -> Path {
    match way(view, addr) {
        Way::Host => Path::Local,
        Way::Nowhere { reason, .. } => Path::Drop(reason),
        Way::Out {
            port,
            hop,
            neighbour,
            ..
        } => match neighbour {
            Some(neighbour) if neighbour.state.is_usable() => Path::Send {
                port: port.index,
                mtu: port.mtu,
                source: port.mac,
                destination: neighbour.mac,
                hop,
                stale: neighbour.state == NeighbourState::Stale,
            },
            _ => Path::Resolve {
                port: port.index,
                mtu: port.mtu,
                hop,
            },
        },
    }
}

const PLACES: usize = 1024;
