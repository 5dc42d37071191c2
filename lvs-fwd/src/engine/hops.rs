//! A worker's memory of where addresses lead.

use std::net::IpAddr;
use std::time::Instant;

use crate::route::{Hop, NeighbourState};
use crate::stats::DropReason;
use crate::steer;
use crate::view::{Port, PortId, View};
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

/// A way on which nothing has to be asked or told: to a neighbour that is known and not stale, at an address that is not the
/// host's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clear {
    pub(super) port: PortId,
    pub(super) mtu: u32,
    pub(super) source: [u8; 6],
    pub(super) destination: [u8; 6],
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
    clear: Option<Clear>,
    source: Option<IpAddr>,
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
            clear: clear(view, &addr, &path),
            source: look_up_source(view, addr),
            next_probe: None,
        });
        path
    }

    /// The way to an address, if it is [clear](Clear) and was looked up before.
    #[inline]
    pub(super) fn clear(&self, view: &View, addr: &IpAddr) -> Option<&Clear> {
        let entry = self.entries[place(addr)].as_ref()?;
        match entry.addr == *addr && entry.generation == view.generation {
            true => entry.clear.as_ref(),
            false => None,
        }
    }

    /// An address of the director's to send to this one from.
    pub(super) fn source(&mut self, view: &View, addr: IpAddr) -> Option<IpAddr> {
        self.path(view, addr);
        self.entries[place(&addr)].as_ref()?.source
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

#[inline]
fn place(addr: &IpAddr) -> usize {
    steer::place(addr, PLACES)
}

fn clear(view: &View, addr: &IpAddr, path: &Path) -> Option<Clear> {
    match *path {
        Path::Send {
            port,
            mtu,
            source,
            destination,
            stale: false,
            ..
        } if !view.local.contains(addr) && is_global(addr) => Some(Clear {
            port,
            mtu,
            source,
            destination,
        }),
        _ => None,
    }
}

/// Whether an address is the same host's everywhere.
fn is_global(addr: &IpAddr) -> bool {
    !addr.is_loopback() && !matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}

fn look_up(view: &View, addr: IpAddr) -> Path {
    match way(view, addr) {
        Way::Host => Path::Local,
        Way::Nowhere { reason, .. } => Path::Drop(reason),
        Way::Out {
            port,
            hop,
            neighbour,
            mtu,
            ..
        } => match neighbour {
            Some(neighbour) if neighbour.state.is_usable() => Path::Send {
                port: port.index,
                mtu,
                source: port.mac,
                destination: neighbour.mac,
                hop,
                stale: neighbour.state == NeighbourState::Stale,
            },
            _ => Path::Resolve {
                port: port.index,
                mtu,
                hop,
            },
        },
    }
}

/// What the route prefers, else an address of the interface that it leaves by, else any. An address that clients know is
/// the last choice: it may move to another host.
fn look_up_source(view: &View, addr: IpAddr) -> Option<IpAddr> {
    let route = view.routes.lookup(&addr)?;
    if route.source.is_some() {
        return route.source;
    }
    let ipv6 = addr.is_ipv6();
    let own = |port: &Port| {
        let mut addresses = port.addresses_of(ipv6).peekable();
        let first = addresses.peek().copied();
        addresses.find(|addr| !view.claims.holds(addr)).or(first)
    };
    view.port_of_interface(route.ifindex)
        .and_then(own)
        .or_else(|| view.ports.iter().find_map(own))
}

const PLACES: usize = 1024;
