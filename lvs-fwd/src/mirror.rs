//! Keeps routes, neighbours, local addresses and ports equal to the kernel's.
//!
//! [`Tables`] is the machine: dumps and events go in, immutable snapshots come out; it makes no system call.
//! [`Mirror`] drives it over netlink. Neighbours change often and routes seldom, so each part is rebuilt only
//! when it changed itself, and snapshots share what did not.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::netlink::{
    Address, Event, Events, KernelRoute, Link, NeighbourEntry, Netlink, NetlinkError, RouteChange,
    Scope, TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN,
};
use crate::route::{NeighbourTable, Prefix, RouteTable};
use crate::view::{LocalAddresses, Port, PortId};

/// What the kernel knows, as parts of a [`View`](crate::view::View).
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Routes of the local, main and default tables.
    pub routes: Arc<RouteTable>,
    /// Neighbour entries.
    pub neighbours: Arc<NeighbourTable>,
    /// The host's own addresses.
    pub local: Arc<LocalAddresses>,
    /// The chosen interfaces, as far as they exist and are up.
    pub ports: Arc<[Port]>,
}

/// Follows the kernel's tables in one network namespace.
#[derive(Debug)]
pub struct Mirror {
    netlink: Netlink,
    events: Events,
    tables: Tables,
}

impl Mirror {
    /// Reads the tables of the calling thread's network namespace. `ports` names the interfaces to forward
    /// at; [`PortId`] is the place in this list.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn open<S: AsRef<str>>(ports: &[S]) -> Result<Self, NetlinkError> {
        let mut mirror = Self {
            // Subscribed before the dump, so nothing falls between the two.
            events: Events::open()?,
            netlink: Netlink::open()?,
            tables: Tables::new(ports),
        };
        mirror.dump(Stale::all())?;
        mirror.tables.publish();
        Ok(mirror)
    }

    /// Takes in what has happened since. Returns whether the snapshot changed.
    ///
    /// Call it from a thread in the same network namespace when the descriptor is readable.
    ///
    /// # Errors
    ///
    /// What the kernel reports; the snapshot stays as it was last known and the next call tries again.
    pub fn poll(&mut self) -> Result<bool, NetlinkError> {
        while let Some(event) = self.events.poll_event()? {
            // An interface is configured before its event is sent, and nothing else tells the first value.
            if let Event::Link(link) = &event
                && !self.tables.links.contains_key(&link.index)
            {
                self.tables
                    .set_forwarding(link.index, forwarding(&link.name));
            }
            self.tables.apply(event);
        }
        self.dump(self.tables.stale())?;
        Ok(self.tables.publish())
    }

    /// The present picture; shares everything that has not changed since the last.
    pub fn snapshot(&self) -> Snapshot {
        self.tables.snapshot()
    }

    /// Chooses other interfaces. Takes effect with the next [`poll`](Self::poll).
    pub fn set_ports<S: AsRef<str>>(&mut self, ports: &[S]) {
        self.tables.set_ports(ports);
    }

    /// The interfaces that exist.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.tables.links.values()
    }

    /// The request socket, for asking about neighbours and the like.
    pub fn netlink(&mut self) -> &mut Netlink {
        &mut self.netlink
    }

    fn dump(&mut self, stale: Stale) -> Result<(), NetlinkError> {
        if stale.links {
            let links = self.netlink.links()?;
            for link in &links {
                self.tables
                    .set_forwarding(link.index, forwarding(&link.name));
            }
            self.tables.set_links(links);
            self.tables.set_forwarding_v6(forwarding_v6());
        }
        if stale.addresses {
            self.tables.set_addresses(self.netlink.addresses()?);
        }
        if stale.routes {
            self.tables.set_routes(self.netlink.routes()?);
        }
        if stale.neighbours {
            self.tables.set_neighbours(self.netlink.neighbours()?);
        }
        Ok(())
    }
}

impl AsFd for Mirror {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// The mirrored tables, without any system call.
///
/// After [`apply`](Self::apply) ask [`stale`](Self::stale) what has to be read again and pass it to the
/// `set_…` methods, then [`publish`](Self::publish).
#[derive(Debug, Default)]
pub struct Tables {
    names: Vec<String>,
    links: BTreeMap<u32, Link>,
    forwarding: BTreeMap<u32, bool>,
    forwarding_v6: bool,
    addresses: Vec<Address>,
    routes: BTreeMap<RouteKey, Vec<KernelRoute>>,
    neighbours: NeighbourTable,
    stale: Stale,
    changed: Changed,
    snapshot: Snapshot,
}

/// Which tables have to be read again from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stale {
    /// Interfaces.
    pub links: bool,
    /// Addresses.
    pub addresses: bool,
    /// Routes.
    pub routes: bool,
    /// Neighbours.
    pub neighbours: bool,
}

impl Stale {
    /// Every table.
    pub fn all() -> Self {
        Self {
            links: true,
            addresses: true,
            routes: true,
            neighbours: true,
        }
    }
}

impl Tables {
    /// Empty tables; `ports` as in [`Mirror::open`].
    pub fn new<S: AsRef<str>>(ports: &[S]) -> Self {
        let mut tables = Self::default();
        tables.set_ports(ports);
        tables
    }

    /// Takes in one event.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Link(link) => {
                // IPv4 routes fall silently with their interface.
                let was_up = self.links.get(&link.index).is_some_and(|old| old.up);
                self.stale.routes |= was_up && !link.up;
                if self.links.get(&link.index) != Some(&link) {
                    self.changed.ports = true;
                    self.links.insert(link.index, link);
                }
            }
            Event::LinkGone { ifindex } => {
                self.changed.ports |= self.links.remove(&ifindex).is_some();
                self.forwarding.remove(&ifindex);
                self.stale.routes = true;
                self.stale.addresses = true;
                self.stale.neighbours = true;
            }
            Event::Address(address) => {
                let place = self
                    .addresses
                    .iter_mut()
                    .find(|other| same(other, &address));
                match place {
                    Some(old) if *old == address => {}
                    Some(old) => {
                        *old = address;
                        self.changed.addresses = true;
                    }
                    None => {
                        self.addresses.push(address);
                        self.changed.addresses = true;
                    }
                }
            }
            Event::AddressGone(address) => {
                let before = self.addresses.len();
                self.addresses.retain(|other| !same(other, &address));
                self.changed.addresses |= self.addresses.len() != before;
                // Routes that used it as their source fall silently.
                self.stale.routes = true;
            }
            Event::Route(route, change) => self.add_route(route, change),
            Event::RouteGone(route) => self.remove_route(&route),
            Event::Neighbour(entry) => {
                let old = self.neighbours.insert(entry.hop, entry.neighbour);
                self.changed.neighbours |= old != Some(entry.neighbour);
            }
            Event::NeighbourGone(entry) => {
                self.changed.neighbours |= self.neighbours.remove(&entry.hop).is_some();
            }
            Event::Forwarding { ifindex, enabled } => self.set_forwarding(ifindex, enabled),
            Event::ForwardingV6 { enabled } => self.set_forwarding_v6(enabled),
            Event::Overrun => self.stale = Stale::all(),
        }
    }

    /// What has to be read again.
    pub fn stale(&self) -> Stale {
        self.stale
    }

    /// Replaces the interfaces.
    pub fn set_links(&mut self, links: impl IntoIterator<Item = Link>) {
        let links: BTreeMap<u32, Link> = links.into_iter().map(|link| (link.index, link)).collect();
        self.changed.ports |= links != self.links;
        self.links = links;
        self.stale.links = false;
    }

    /// Says whether the kernel forwards what comes in at an interface.
    pub fn set_forwarding(&mut self, ifindex: u32, enabled: bool) {
        self.changed.ports |= self.forwarding.insert(ifindex, enabled) != Some(enabled);
    }

    /// Says whether the kernel forwards IPv6.
    pub fn set_forwarding_v6(&mut self, enabled: bool) {
        self.changed.ports |= self.forwarding_v6 != enabled;
        self.forwarding_v6 = enabled;
    }

    /// Replaces the addresses.
    pub fn set_addresses(&mut self, addresses: impl IntoIterator<Item = Address>) {
        let addresses: Vec<Address> = addresses.into_iter().collect();
        self.changed.addresses |= addresses != self.addresses;
        self.addresses = addresses;
        self.stale.addresses = false;
    }

    /// Replaces the routes.
    pub fn set_routes(&mut self, routes: impl IntoIterator<Item = KernelRoute>) {
        let mut table: BTreeMap<RouteKey, Vec<KernelRoute>> = BTreeMap::new();
        for route in routes {
            if let Some(key) = RouteKey::of(&route) {
                table.entry(key).or_default().push(route);
            }
        }
        self.changed.routes |= table != self.routes;
        self.routes = table;
        self.stale.routes = false;
    }

    /// Replaces the neighbours.
    pub fn set_neighbours(&mut self, neighbours: impl IntoIterator<Item = NeighbourEntry>) {
        let mut table = NeighbourTable::new();
        for entry in neighbours {
            table.insert(entry.hop, entry.neighbour);
        }
        self.changed.neighbours |= table.sorted() != self.neighbours.sorted();
        self.neighbours = table;
        self.stale.neighbours = false;
    }

    /// Chooses the interfaces that are ports.
    pub fn set_ports<S: AsRef<str>>(&mut self, ports: &[S]) {
        self.names = ports.iter().map(|name| name.as_ref().to_owned()).collect();
        self.changed.ports = true;
    }

    /// Makes a new snapshot of what changed; returns whether anything did since the last call that said so.
    pub fn publish(&mut self) -> bool {
        let changed = std::mem::take(&mut self.changed);
        if changed.routes {
            let mut table = RouteTable::new();
            // The key orders the tables as the kernel asks them.
            for route in self.routes.values().flatten().flat_map(KernelRoute::routes) {
                table.insert(route);
            }
            self.snapshot.routes = Arc::new(table);
        }
        if changed.neighbours {
            self.snapshot.neighbours = Arc::new(self.neighbours.clone());
        }
        if changed.addresses {
            let local = self.addresses.iter().map(|address| address.addr).collect();
            self.snapshot.local = Arc::new(local);
        }
        if changed.addresses || changed.ports {
            self.snapshot.ports = self.ports();
        }
        changed.routes || changed.neighbours || changed.addresses || changed.ports
    }

    /// The present snapshot.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    fn ports(&self) -> Arc<[Port]> {
        let port = |(place, name): (usize, &String)| {
            let link = self
                .links
                .values()
                .find(|link| link.name == *name && link.up)?;
            Some(Port {
                index: PortId(u16::try_from(place).ok()?),
                ifindex: link.index,
                name: link.name.clone(),
                mac: link.mac?,
                mtu: link.mtu,
                forwarding: self.forwarding.get(&link.index).copied().unwrap_or(false),
                forwarding_v6: self.forwarding_v6,
                addresses: self.addresses_of(link.index),
            })
        };
        self.names.iter().enumerate().filter_map(port).collect()
    }

    /// Addresses that others can answer to come first.
    fn addresses_of(&self, ifindex: u32) -> Vec<IpAddr> {
        let mut addresses: Vec<&Address> = self
            .addresses
            .iter()
            .filter(|address| address.ifindex == ifindex)
            .collect();
        // A stable sort: the kernel's order is the order of preference.
        addresses.sort_by_key(|address| address.scope != Scope::Global);
        addresses.iter().map(|address| address.addr).collect()
    }

    fn add_route(&mut self, route: KernelRoute, change: RouteChange) {
        let Some(key) = RouteKey::of(&route) else {
            return;
        };
        let equals = self.routes.entry(key).or_default();
        if change != RouteChange::Replaced && equals.contains(&route) {
            return;
        }
        let ipv4 = route.destination.addr().is_ipv4();
        match change {
            RouteChange::Replaced if !ipv4 => *equals = vec![route],
            RouteChange::Replaced => match equals.first_mut() {
                Some(first) => *first = route,
                None => equals.push(route),
            },
            RouteChange::Appended => equals.push(route),
            RouteChange::Prepended => equals.insert(0, route),
        }
        self.changed.routes = true;
    }

    fn remove_route(&mut self, route: &KernelRoute) {
        let Some(key) = RouteKey::of(route) else {
            return;
        };
        let Some(equals) = self.routes.get_mut(&key) else {
            return;
        };
        if let Some(at) = equals.iter().position(|other| other == route) {
            equals.remove(at);
            self.changed.routes = true;
        } else {
            // IPv6 tells of each way out by itself.
            for hop in &route.hops {
                if let Some(other) = equals.iter_mut().find(|other| other.hops.contains(hop)) {
                    other.hops.retain(|other| other != hop);
                    self.changed.routes = true;
                }
            }
            if !route.hops.is_empty() {
                equals.retain(|other| !other.hops.is_empty());
            }
        }
        if equals.is_empty() {
            self.routes.remove(&key);
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Changed {
    routes: bool,
    neighbours: bool,
    addresses: bool,
    ports: bool,
}

/// Routes with the same key are equals. Ordered so that of two routes to one prefix the table asked first
/// comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RouteKey {
    order: u8,
    destination: Prefix,
    metric: u32,
}

impl RouteKey {
    /// `None` for tables that plain packets are not looked up in, and for routes that depend on the type of
    /// service.
    fn of(route: &KernelRoute) -> Option<Self> {
        let order = match route.table {
            TABLE_LOCAL => 0,
            TABLE_MAIN => 1,
            TABLE_DEFAULT => 2,
            _ => return None,
        };
        (route.tos == 0).then_some(Self {
            order,
            destination: route.destination,
            metric: route.metric,
        })
    }
}

fn same(one: &Address, other: &Address) -> bool {
    (one.ifindex, one.addr, one.prefix) == (other.ifindex, other.addr, other.prefix)
}

fn forwarding(device: &str) -> bool {
    fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{device}/forwarding"))
        .is_ok_and(|text| text.trim() == "1")
}

fn forwarding_v6() -> bool {
    fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding")
        .is_ok_and(|text| text.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Hop as Way;
    use crate::route::{Hop, Neighbour, NeighbourState, NextHop, Route};

    fn route(destination: &str, length: u8, gateway: &str, ifindex: u32) -> KernelRoute {
        let destination = Prefix::new(destination.parse().unwrap(), length);
        KernelRoute::new(
            destination,
            NextHop::Gateway(gateway.parse().unwrap()),
            ifindex,
        )
    }

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mac: Some([2, 0, 0, 0, 0, index as u8]),
            mtu: 1500,
            up: true,
            running: true,
            loopback: false,
            kind: None,
            controller: None,
        }
    }

    fn neighbour(addr: &str, state: NeighbourState) -> NeighbourEntry {
        NeighbourEntry {
            hop: Hop {
                ifindex: 2,
                addr: addr.parse().unwrap(),
            },
            neighbour: Neighbour { mac: [2; 6], state },
        }
    }

    fn lookup(tables: &mut Tables, addr: &str) -> Option<Route> {
        tables.publish();
        tables
            .snapshot()
            .routes
            .lookup(&addr.parse().unwrap())
            .copied()
    }

    #[test]
    fn neighbour_changes_leave_the_routes_alone() {
        let mut tables = Tables::new(&["eth0"]);
        tables.apply(Event::Route(
            route("0.0.0.0", 0, "10.0.0.1", 2),
            RouteChange::Prepended,
        ));
        assert!(tables.publish());
        let before = tables.snapshot();
        tables.apply(Event::Neighbour(neighbour(
            "10.0.0.1",
            NeighbourState::Reachable,
        )));
        assert!(tables.publish());
        let after = tables.snapshot();
        assert!(Arc::ptr_eq(&before.routes, &after.routes));
        assert_eq!((before.neighbours.len(), after.neighbours.len()), (0, 1));
        tables.apply(Event::Neighbour(neighbour(
            "10.0.0.1",
            NeighbourState::Reachable,
        )));
        assert!(!tables.publish());
        tables.apply(Event::NeighbourGone(neighbour(
            "10.0.0.1",
            NeighbourState::Failed,
        )));
        assert!(tables.publish());
        assert!(tables.snapshot().neighbours.is_empty());
    }

    #[test]
    fn a_replaced_route_leaves_nothing_of_the_old() {
        let mut tables = Tables::new::<&str>(&[]);
        for (gateway, change) in [
            ("10.0.0.1", RouteChange::Prepended),
            ("10.0.0.2", RouteChange::Replaced),
        ] {
            tables.apply(Event::Route(route("0.0.0.0", 0, gateway, 2), change));
            tables.apply(Event::Route(route("2001:db8::", 32, "fe80::1", 2), change));
        }
        tables.publish();
        assert_eq!(tables.snapshot().routes.len(), 2);
        let found = lookup(&mut tables, "192.0.2.1").unwrap();
        assert_eq!(
            found.next_hop,
            NextHop::Gateway("10.0.0.2".parse().unwrap())
        );
        tables.apply(Event::RouteGone(route("0.0.0.0", 0, "10.0.0.2", 2)));
        assert_eq!(lookup(&mut tables, "192.0.2.1"), None);
    }

    #[test]
    fn ways_out_go_one_by_one() {
        let mut tables = Tables::new::<&str>(&[]);
        let mut spread = route("2001:db8::", 32, "fe80::1", 2);
        spread.hops.push(Way {
            next_hop: NextHop::Gateway("fe80::2".parse().unwrap()),
            ifindex: 3,
        });
        tables.apply(Event::Route(spread, RouteChange::Appended));
        assert_eq!(lookup(&mut tables, "2001:db8::1").unwrap().ifindex, 2);
        tables.apply(Event::RouteGone(route("2001:db8::", 32, "fe80::1", 2)));
        assert_eq!(lookup(&mut tables, "2001:db8::1").unwrap().ifindex, 3);
        tables.apply(Event::RouteGone(route("2001:db8::", 32, "fe80::2", 3)));
        assert_eq!(lookup(&mut tables, "2001:db8::1"), None);
    }

    #[test]
    fn prepended_equals_come_first_and_other_tables_do_not_count() {
        let mut tables = Tables::new::<&str>(&[]);
        tables.apply(Event::Route(
            route("10.9.0.0", 16, "10.0.0.1", 2),
            RouteChange::Appended,
        ));
        tables.apply(Event::Route(
            route("10.9.0.0", 16, "10.0.0.2", 3),
            RouteChange::Prepended,
        ));
        assert_eq!(lookup(&mut tables, "10.9.9.9").unwrap().ifindex, 3);
        let mut elsewhere = route("10.9.9.0", 24, "10.0.0.3", 4);
        elsewhere.table = 1000;
        tables.apply(Event::Route(elsewhere, RouteChange::Prepended));
        assert_eq!(lookup(&mut tables, "10.9.9.9").unwrap().ifindex, 3);
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_read_again() {
        let mut tables = Tables::new(&["eth0"]);
        tables.apply(Event::Link(link(2, "eth0")));
        assert_eq!(tables.stale(), Stale::default());
        let down = Link {
            up: false,
            ..link(2, "eth0")
        };
        tables.apply(Event::Link(down));
        assert!(tables.stale().routes && !tables.stale().neighbours);
        tables.set_routes([]);
        assert_eq!(tables.stale(), Stale::default());
        tables.apply(Event::Overrun);
        assert_eq!(tables.stale(), Stale::all());
    }

    #[test]
    fn ports_keep_their_numbers_and_carry_their_addresses() {
        let mut tables = Tables::new(&["eth0", "eth1"]);
        tables.apply(Event::Link(link(7, "eth1")));
        for (addr, scope) in [("169.254.0.1", Scope::Link), ("10.0.0.1", Scope::Global)] {
            let mut address = Address::new(7, addr.parse().unwrap(), 24);
            address.scope = scope;
            tables.apply(Event::Address(address));
        }
        tables.apply(Event::Forwarding {
            ifindex: 7,
            enabled: true,
        });
        tables.publish();
        let snapshot = tables.snapshot();
        assert_eq!(snapshot.ports.len(), 1);
        let port = &snapshot.ports[0];
        assert_eq!(
            (port.index, port.ifindex, port.forwarding),
            (PortId(1), 7, true)
        );
        assert_eq!(port.addr(false), Some("10.0.0.1".parse().unwrap()));
        assert!(snapshot.local.contains(&"169.254.0.1".parse().unwrap()));
        tables.apply(Event::LinkGone { ifindex: 7 });
        assert!(tables.publish());
        assert!(tables.snapshot().ports.is_empty());
    }
}
