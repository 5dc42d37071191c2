//! Where an address leads: routes by longest prefix, and the hardware addresses of neighbours.
//!
//! Plain data, filled from the kernel's tables by the control thread. A worker asks per next hop, not per
//! packet: it remembers answers until the view's generation changes.

use std::collections::HashMap;
use std::net::IpAddr;

use ahash::RandomState;

use crate::view::hasher;

/// An address prefix; the host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    addr: IpAddr,
    length: u8,
}

impl Prefix {
    /// The prefix of `length` bits that holds `addr`. A length beyond the address is cut to it.
    pub fn new(addr: IpAddr, length: u8) -> Self {
        let length = length.min(bits(&addr));
        Self {
            addr: masked(addr, length),
            length,
        }
    }

    /// First address.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Number of leading bits that count: 0 to 32 or 128.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether the address lies inside.
    pub fn contains(&self, addr: &IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4() && masked(*addr, self.length) == self.addr
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.addr, self.length)
    }
}

/// Who gets the frame on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// The destination itself is on the link.
    OnLink,
    /// A router on the link.
    Gateway(IpAddr),
}

/// What a route says about its destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Forward to the next hop.
    Unicast,
    /// The host's own address.
    Local,
    /// Discard silently.
    Blackhole,
    /// Discard and tell the sender: host unreachable.
    Unreachable,
    /// Discard and tell the sender: administratively prohibited.
    Prohibit,
    /// A broadcast or multicast destination: nothing to forward.
    Broadcast,
}

/// One route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The destinations that it is for.
    pub destination: Prefix,
    /// Who gets the frame.
    pub next_hop: NextHop,
    /// Output interface; 0 where the kind needs none.
    pub ifindex: u32,
    /// What it says.
    pub kind: RouteKind,
    /// Of routes to the same prefix the lowest metric is used.
    pub metric: u32,
    /// Address that the host itself would send from; `None` leaves the choice.
    pub source: Option<IpAddr>,
    /// Largest IP packet in bytes on this way, if that is less than the interface's.
    pub mtu: Option<u32>,
}

impl Route {
    /// A unicast route of metric 0, which leaves the source to the host and the packet's length to the interface.
    pub fn new(destination: Prefix, next_hop: NextHop, ifindex: u32) -> Self {
        Self {
            destination,
            next_hop,
            ifindex,
            kind: RouteKind::Unicast,
            metric: 0,
            source: None,
            mtu: None,
        }
    }
}

/// Routes of both families, found by longest prefix, then lowest metric.
///
/// One hash table keyed by prefix, probed from the longest length in use to the shortest: a host has few
/// distinct lengths, a change costs one insertion, and workers cache the answers.
#[derive(Debug, Clone)]
pub struct RouteTable {
    routes: HashMap<Prefix, Vec<Route>, RandomState>,
    v4: Lengths,
    v6: Lengths,
}

impl RouteTable {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            routes: HashMap::with_hasher(hasher()),
            v4: Lengths::default(),
            v6: Lengths::default(),
        }
    }

    /// Adds a route. One with the same destination, metric, kind, interface and next hop is there only once.
    pub fn insert(&mut self, route: Route) {
        let entry = self.routes.entry(route.destination).or_default();
        if entry.contains(&route) {
            return;
        }
        // After its equals: of routes with one metric the first that came stays in use.
        let at = entry.partition_point(|other| other.metric <= route.metric);
        entry.insert(at, route);
        if entry.len() == 1 {
            self.lengths(&route.destination)
                .add(route.destination.length);
        }
    }

    /// Removes exactly this route; `false` if it was not there.
    pub fn remove(&mut self, route: &Route) -> bool {
        let Some(entry) = self.routes.get_mut(&route.destination) else {
            return false;
        };
        let Some(at) = entry.iter().position(|other| other == route) else {
            return false;
        };
        entry.remove(at);
        if entry.is_empty() {
            self.routes.remove(&route.destination);
            self.lengths(&route.destination)
                .sub(route.destination.length);
        }
        true
    }

    /// The route that an address takes.
    pub fn lookup(&self, addr: &IpAddr) -> Option<&Route> {
        let lengths = if addr.is_ipv4() { &self.v4 } else { &self.v6 };
        lengths.longest_first().find_map(|length| {
            let entry = self.routes.get(&Prefix::new(*addr, length))?;
            entry.first()
        })
    }

    /// All routes, ordered by destination, then metric.
    pub fn sorted(&self) -> Vec<Route> {
        let mut all: Vec<Route> = self.routes.values().flatten().copied().collect();
        all.sort_by_key(|route| (route.destination, route.metric));
        all
    }

    /// Number of routes.
    pub fn len(&self) -> usize {
        self.routes.values().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    fn lengths(&mut self, prefix: &Prefix) -> &mut Lengths {
        if prefix.addr.is_ipv4() {
            &mut self.v4
        } else {
            &mut self.v6
        }
    }
}

impl Default for RouteTable {
    fn default() -> Self {
        Self::new()
    }
}

/// A neighbour on a link: the key of everything about hardware addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hop {
    /// Interface.
    pub ifindex: u32,
    /// Address on that link.
    pub addr: IpAddr,
}

/// How far the kernel trusts a neighbour's hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NeighbourState {
    /// Being resolved; no address yet.
    Incomplete,
    /// Confirmed recently.
    Reachable,
    /// Known, but not confirmed lately: use it and ask again.
    Stale,
    /// Used while stale; a probe will follow unless traffic confirms it.
    Delay,
    /// Being probed; still usable.
    Probe,
    /// Did not answer.
    Failed,
    /// The link needs no resolution.
    NoArp,
    /// Set by the administrator.
    Permanent,
}

impl NeighbourState {
    /// Whether the hardware address may be used.
    pub fn is_usable(self) -> bool {
        !matches!(self, Self::Incomplete | Self::Failed)
    }
}

/// What is known of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Hardware address; meaningless unless the state [is usable](NeighbourState::is_usable).
    pub mac: [u8; 6],
    /// How far it is trusted.
    pub state: NeighbourState,
}

/// The kernel's neighbour entries, by interface and address.
#[derive(Debug, Clone)]
pub struct NeighbourTable(HashMap<Hop, Neighbour, RandomState>);

impl NeighbourTable {
    /// An empty table.
    pub fn new() -> Self {
        Self(HashMap::with_hasher(hasher()))
    }

    /// Sets a neighbour; returns what was known before.
    pub fn insert(&mut self, hop: Hop, neighbour: Neighbour) -> Option<Neighbour> {
        self.0.insert(hop, neighbour)
    }

    /// Forgets a neighbour; returns what was known.
    pub fn remove(&mut self, hop: &Hop) -> Option<Neighbour> {
        self.0.remove(hop)
    }

    /// What is known of a neighbour.
    pub fn lookup(&self, hop: &Hop) -> Option<&Neighbour> {
        self.0.get(hop)
    }

    /// All neighbours, ordered by interface, then address.
    pub fn sorted(&self) -> Vec<(Hop, Neighbour)> {
        let mut all: Vec<_> = self.0.iter().map(|(hop, entry)| (*hop, *entry)).collect();
        all.sort_by_key(|(hop, _)| *hop);
        all
    }

    /// Number of neighbours.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for NeighbourTable {
    fn default() -> Self {
        Self::new()
    }
}

/// How many prefixes of each length exist, longest first.
#[derive(Debug, Clone, Default)]
struct Lengths(Vec<(u8, u32)>);

impl Lengths {
    fn add(&mut self, length: u8) {
        match self.0.binary_search_by(|(other, _)| length.cmp(other)) {
            Ok(at) => self.0[at].1 += 1,
            Err(at) => self.0.insert(at, (length, 1)),
        }
    }

    fn sub(&mut self, length: u8) {
        if let Ok(at) = self.0.binary_search_by(|(other, _)| length.cmp(other)) {
            self.0[at].1 -= 1;
            if self.0[at].1 == 0 {
                self.0.remove(at);
            }
        }
    }

    fn longest_first(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.iter().map(|(length, _)| *length)
    }
}

fn bits(addr: &IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

fn masked(addr: IpAddr, length: u8) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((u32::from(addr) & mask).into())
        }
        IpAddr::V6(addr) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((u128::from(addr) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(destination: &str, length: u8, metric: u32, ifindex: u32) -> Route {
        Route {
            metric,
            ..Route::new(
                Prefix::new(destination.parse().unwrap(), length),
                NextHop::OnLink,
                ifindex,
            )
        }
    }

    #[test]
    fn longest_prefix_wins_then_lowest_metric() {
        let mut table = RouteTable::new();
        table.insert(route("0.0.0.0", 0, 0, 1));
        table.insert(route("10.0.0.0", 8, 100, 2));
        table.insert(route("10.0.0.0", 8, 50, 3));
        table.insert(route("10.1.2.3", 32, 0, 4));
        table.insert(route("2001:db8::", 32, 0, 5));
        let lookup = |addr: &str| table.lookup(&addr.parse().unwrap()).map(|r| r.ifindex);
        assert_eq!(lookup("192.0.2.1"), Some(1));
        assert_eq!(lookup("10.9.9.9"), Some(3));
        assert_eq!(lookup("10.1.2.3"), Some(4));
        assert_eq!(lookup("2001:db8::1"), Some(5));
        assert_eq!(lookup("2001:db9::1"), None);
    }

    #[test]
    fn removal_uncovers_the_next_best_route() {
        let mut table = RouteTable::new();
        let (a, b) = (route("10.0.0.0", 8, 50, 3), route("10.0.0.0", 8, 100, 2));
        table.insert(b);
        table.insert(a);
        table.insert(a);
        assert_eq!(table.len(), 2);
        let addr = "10.0.0.1".parse().unwrap();
        assert_eq!(table.lookup(&addr), Some(&a));
        assert!(table.remove(&a));
        assert!(!table.remove(&a));
        assert_eq!(table.lookup(&addr), Some(&b));
        assert!(table.remove(&b));
        assert_eq!(table.lookup(&addr), None);
        assert!(table.is_empty());
    }

    proptest! {
            #[test]
            fn lookup_equals_a_linear_scan(
                routes in prop::collection::vec((any::<u32>(), 0u8..=32, 0u32..4), 0..40),
                removed in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
                addr in any::<u32>(),
            ) {
                let mut table = RouteTable::new();
                let mut model: Vec<Route> = Vec::new();
                for (n, (addr, length, metric)) in routes.into_iter().enumerate() {
                    let route = Route {
    metric,
    ..Route::new(Prefix::new(IpAddr::V4((addr & 0xf000_00ff).into()), length), NextHop::OnLink, n as u32)
    };
                    table.insert(route);
                    model.push(route);
                }
                for index in removed {
                    if !model.is_empty() {
                        let gone = model.remove(index.index(model.len()));
                        prop_assert!(table.remove(&gone));
                    }
                }
                let addr = IpAddr::V4((addr & 0xf000_00ff).into());
                let best = model
                    .iter()
                    .filter(|route| route.destination.contains(&addr))
                    .min_by_key(|route| (std::cmp::Reverse(route.destination.length()), route.metric, route.ifindex));
                prop_assert_eq!(table.lookup(&addr), best);
                prop_assert_eq!(table.len(), model.len());
            }
        }
}
