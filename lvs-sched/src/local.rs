//! FULLNAT's own side of connections: local addresses, and ports towards real servers.
//!
//! A service has a list of [`Locals`], shared by all workers. Each worker has ports of its own, so taking one needs
//! no lock: the low bits of a port name its worker, and a reply finds it by them.
//!
//! One pool of ports belongs to a local address and a real server's address and port, whatever the protocol. So among
//! live connections `(protocol, local, server)` is unique, and towards another server the same port is used again. A
//! port comes back with its entry and is the last to be used again, which gives the server the most time to forget it
//! (TIME_WAIT). Where a pool begins is arbitrary: a director that was started again does not begin with the ports
//! that it has just used.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use ahash::RandomState;
use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::ConnectionInfo;
use crate::time::{Nanos, seconds};

/// A service's local addresses and whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Locals {
    addresses: ArcSwap<Vec<Arc<LocalAddress>>>,
    /// Removed while connections used them.
    retired: Mutex<Vec<Arc<LocalAddress>>>,
    turn: AtomicU32,
}

/// A local address of one service.
#[derive(Debug)]
pub(crate) struct LocalAddress {
    pub(crate) addr: IpAddr,
    connections: AtomicU32,
    misses: AtomicU64,
}

/// A local address of a service, for listings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalInfo {
    /// The address.
    pub addr: IpAddr,
    /// Connections of the service that use it now.
    pub connections: u32,
    /// How often its turn came but it had no free port towards the server.
    #[doc(alias = "conflicts")]
    pub misses: u64,
}

impl Locals {
    pub(crate) fn add(&self, addr: IpAddr) -> Result<(), LocalError> {
        let unusable = addr.is_unspecified()
            || addr.is_multicast()
            || addr.is_loopback()
            || matches!(addr, IpAddr::V4(addr) if addr.is_broadcast());
        if unusable {
            return Err(LocalError::Address);
        }
        if self.find(addr).is_some() {
            return Err(LocalError::Exists);
        }
        let mut addresses = Vec::clone(&self.addresses.load());
        addresses.push(Arc::new(LocalAddress {
            addr,
            connections: AtomicU32::new(0),
            misses: AtomicU64::new(0),
        }));
        self.addresses.store(Arc::new(addresses));
        Ok(())
    }

    pub(crate) fn remove(&self, addr: IpAddr) -> Result<(), LocalError> {
        let mut addresses = Vec::clone(&self.addresses.load());
        let place = addresses.iter().position(|local| local.addr == addr);
        let removed = addresses.remove(place.ok_or(LocalError::NotFound)?);
        self.addresses.store(Arc::new(addresses));
        // A worker may still be about to use it, so its connections say nothing yet.
        self.retired.lock().push(removed);
        Ok(())
    }

    /// Those that connections use or may use.
    pub(crate) fn in_use(&self) -> Vec<IpAddr> {
        let mut retired = self.retired.lock();
        // The one that holds it here is the last.
        retired.retain(|local| Arc::strong_count(local) > 1);
        let addresses = self.addresses.load();
        addresses
            .iter()
            .chain(retired.iter())
            .map(|local| local.addr)
            .collect()
    }

    pub(crate) fn infos(&self) -> Vec<LocalInfo> {
        let addresses = self.addresses.load();
        addresses
            .iter()
            .map(|local| LocalInfo {
                addr: local.addr,
                connections: local.connections.load(Relaxed),
                misses: local.misses.load(Relaxed),
            })
            .collect()
    }

    pub(crate) fn find(&self, addr: IpAddr) -> Option<Arc<LocalAddress>> {
        let addresses = self.addresses.load();
        addresses.iter().find(|local| local.addr == addr).cloned()
    }

    /// The addresses to try for a new connection, in their order. With `skips`, which services have whose scheduler
    /// takes servers in turn too, one turn in twenty goes one address further, so that servers and addresses do not
    /// walk in step.
    fn candidates(&self, skips: bool) -> impl Iterator<Item = Arc<LocalAddress>> + use<> {
        self.at_turn(self.turn.fetch_add(1, Relaxed), skips)
    }

    fn at_turn(&self, turn: u32, skips: bool) -> impl Iterator<Item = Arc<LocalAddress>> + use<> {
        let addresses = self.addresses.load_full();
        let extra = if skips { turn / SKIP_EVERY } else { 0 };
        let start = turn.wrapping_add(extra) as usize;
        let len = addresses.len();
        (0..len.min(MAX_ATTEMPTS)).map(move |at| Arc::clone(&addresses[(start % len + at) % len]))
    }
}

/// A port at a local address, held by one connection.
#[derive(Debug)]
pub(crate) struct LocalPort {
    address: Arc<LocalAddress>,
    pub(crate) port: u16,
}

impl LocalPort {
    pub(crate) fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.address.addr, self.port)
    }
}

impl Drop for LocalPort {
    fn drop(&mut self) {
        self.address.connections.fetch_sub(1, Relaxed);
    }
}

/// The end of a connection that had a local address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalEnd {
    /// What it was.
    pub connection: ConnectionInfo,
    /// Nothing was heard for as long as its state allows. It was not replaced, nor ended because its server is gone.
    pub timed_out: bool,
}

/// One worker's ports.
#[derive(Debug)]
pub(crate) struct LocalPorts {
    /// Connections that ended, oldest first.
    ended: VecDeque<LocalEnd>,
    pools: HashMap<(IpAddr, SocketAddr), Pool, RandomState>,
    share: Share,
    /// Number of pools at which idle ones are looked for.
    crowded: usize,
}

/// The ports that belong to one worker.
#[derive(Clone, Copy, Debug)]
struct Share {
    first: u32,
    /// Between neighbours: a power of two.
    step: u32,
    count: u32,
}

impl LocalPorts {
    /// Of the worker with this number, from 0, of so many.
    pub(crate) fn new(
        hasher: RandomState,
        range: &RangeInclusive<u16>,
        number: u32,
        workers: u32,
    ) -> Self {
        let step = workers.clamp(1, 1 << 15).next_power_of_two();
        let (from, to) = (u32::from(*range.start()).max(1), u32::from(*range.end()));
        let first = from + (number % step).wrapping_sub(from) % step;
        let count = if first > to {
            0
        } else {
            (to - first) / step + 1
        };
        Self {
            ended: VecDeque::new(),
            pools: HashMap::with_hasher(hasher),
            share: Share { first, step, count },
            crowded: MIN_CROWD,
        }
    }

    /// A port for a new connection to a server. `None` if no address has one.
    pub(crate) fn take(
        &mut self,
        now: Nanos,
        locals: &Locals,
        skips: bool,
        server: SocketAddr,
    ) -> Option<LocalPort> {
        for address in locals.candidates(skips) {
            if address.addr.is_ipv4() != server.is_ipv4() {
                continue;
            }
            let share = self.share;
            match self.pool(now, address.addr, server).take(share) {
                Some(port) => return Some(hold(address, port)),
                None => {
                    address.misses.fetch_add(1, Relaxed);
                }
            }
        }
        None
    }

    /// What [`take`](Self::take) would find, without taking it.
    pub(crate) fn peek(
        &self,
        locals: &Locals,
        skips: bool,
        server: SocketAddr,
    ) -> Option<SocketAddr> {
        let mut candidates = locals
            .at_turn(locals.turn.load(Relaxed), skips)
            .filter(|address| address.addr.is_ipv4() == server.is_ipv4());
        candidates.find_map(|address| {
            let key = (address.addr, server);
            let port = match self.pools.get(&key) {
                Some(pool) => pool.peek(self.share),
                None => Pool::new(self.start(key)).peek(self.share),
            };
            port.map(|port| SocketAddr::new(address.addr, port))
        })
    }

    /// This very port, for a connection that came with it. `None` if it is in use or another worker's.
    pub(crate) fn take_this(
        &mut self,
        now: Nanos,
        address: Arc<LocalAddress>,
        port: u16,
        server: SocketAddr,
    ) -> Option<LocalPort> {
        let share = self.share;
        let place = share.place(port)?;
        let pool = self.pool(now, address.addr, server);
        if pool.is_used(place) {
            return None;
        }
        pool.mark(share, place);
        Some(hold(address, port))
    }

    /// A connection ended.
    pub(crate) fn give(&mut self, now: Nanos, local: LocalPort, server: SocketAddr) {
        let pool = self.pools.get_mut(&(local.address.addr, server));
        if let (Some(pool), Some(place)) = (pool, self.share.place(local.port)) {
            pool.give(now, place, local.port);
        } else {
            debug_assert!(false, "a port without its pool");
        }
    }

    /// Tells of an end. Whoever does not ask for them loses the oldest.
    pub(crate) fn tell(&mut self, end: LocalEnd) {
        if self.ended.len() >= MAX_ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(end);
    }

    pub(crate) fn poll_ended(&mut self) -> Option<LocalEnd> {
        self.ended.pop_front()
    }

    fn pool(&mut self, now: Nanos, local: IpAddr, server: SocketAddr) -> &mut Pool {
        if self.pools.len() >= self.crowded && !self.pools.contains_key(&(local, server)) {
            // Servers come and go: what was not used for long need not be remembered.
            self.pools.retain(|_, pool| !pool.is_idle(now));
            self.crowded = (self.pools.len() * 2).max(MIN_CROWD);
        }
        let start = self.start((local, server));
        self.pools
            .entry((local, server))
            .or_insert_with(|| Pool::new(start))
    }

    /// Where a pool begins.
    fn start(&self, key: (IpAddr, SocketAddr)) -> u32 {
        let count = u64::from(self.share.count.max(1));
        (self.pools.hasher().hash_one(key) % count) as u32
    }
}

impl Share {
    /// Where a port stands among the worker's.
    fn place(self, port: u16) -> Option<u32> {
        let distance = u32::from(port).checked_sub(self.first)?;
        let place = distance / self.step;
        (distance % self.step == 0 && place < self.count).then_some(place)
    }

    fn port(self, place: u32) -> u16 {
        // Places are below the count, so ports within the range.
        (self.first + place * self.step) as u16
    }
}

/// Ports of one address towards one server.
#[derive(Debug)]
struct Pool {
    /// The place that is used first.
    start: u32,
    /// Places, from the first on, that were free from the beginning and are not any more.
    begun: u32,
    /// Ports that were used and are free again, oldest first. May name one that is in use, which came with its
    /// connection.
    returned: VecDeque<u16>,
    used: Vec<u64>,
    in_use: u32,
    idle_since: Nanos,
}

impl Pool {
    fn new(start: u32) -> Self {
        Self {
            start,
            begun: 0,
            returned: VecDeque::new(),
            used: Vec::new(),
            in_use: 0,
            idle_since: 0,
        }
    }

    fn take(&mut self, share: Share) -> Option<u16> {
        while self.begun < share.count {
            let place = (self.start + self.begun) % share.count;
            self.begun += 1;
            if !self.is_used(place) {
                self.mark(share, place);
                return Some(share.port(place));
            }
        }
        while let Some(port) = self.returned.pop_front() {
            let place = share.place(port)?;
            if !self.is_used(place) {
                self.mark(share, place);
                return Some(port);
            }
        }
        None
    }

    /// What [`take`](Self::take) would answer.
    fn peek(&self, share: Share) -> Option<u16> {
        let places = (self.begun..share.count).map(|begun| (self.start + begun) % share.count);
        let fresh = places.map(|place| (place, share.port(place)));
        let returned = self
            .returned
            .iter()
            .map_while(|port| Some((share.place(*port)?, *port)));
        let mut all = fresh.chain(returned);
        all.find(|(place, _)| !self.is_used(*place))
            .map(|(_, port)| port)
    }

    fn give(&mut self, now: Nanos, place: u32, port: u16) {
        debug_assert!(self.is_used(place), "a port that came back twice");
        if !self.is_used(place) {
            return;
        }
        self.used[place as usize / 64] &= !(1 << (place % 64));
        self.in_use -= 1;
        self.idle_since = now;
        self.returned.push_back(port);
    }

    fn is_used(&self, place: u32) -> bool {
        let word = self.used.get(place as usize / 64).copied().unwrap_or(0);
        word & 1 << (place % 64) != 0
    }

    fn mark(&mut self, share: Share, place: u32) {
        if self.used.is_empty() {
            self.used.resize((share.count as usize).div_ceil(64), 0);
        }
        self.used[place as usize / 64] |= 1 << (place % 64);
        self.in_use += 1;
    }

    fn is_idle(&self, now: Nanos) -> bool {
        self.in_use == 0 && now.saturating_sub(self.idle_since) > FORGOTTEN
    }
}

fn hold(address: Arc<LocalAddress>, port: u16) -> LocalPort {
    address.connections.fetch_add(1, Relaxed);
    LocalPort { address, port }
}

/// Why the list of local addresses was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalError {
    /// There is no such service.
    NoService,
    /// The service has it already.
    Exists,
    /// The service does not have it.
    NotFound,
    /// It is not a unicast address of a host.
    Address,
    /// It is not of the service's family.
    Family,
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoService => "no such service",
            Self::Exists => "service already has this local address",
            Self::NotFound => "service has no such local address",
            Self::Address => "local address is not a usable unicast address",
            Self::Family => "local address is not of the service's family",
        })
    }
}

impl std::error::Error for LocalError {}

/// One turn in so many goes an address further.
const SKIP_EVERY: u32 = 20;
/// Addresses that are tried for one connection.
const MAX_ATTEMPTS: usize = 16;
/// As long as anybody keeps TIME_WAIT.
const FORGOTTEN: Nanos = seconds(240);
const MIN_CROWD: usize = 64;
/// Ends that wait to be asked for.
const MAX_ENDED: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    fn ports(range: RangeInclusive<u16>, number: u32, workers: u32) -> LocalPorts {
        LocalPorts::new(RandomState::with_seeds(1, 2, 3, 4), &range, number, workers)
    }

    fn locals(count: u8) -> Locals {
        let locals = Locals::default();
        for last in 1..=count {
            locals.add(IpAddr::from([10, 0, 0, last])).unwrap();
        }
        locals
    }

    fn server(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 80))
    }

    #[test]
    fn the_low_bits_of_a_port_name_its_worker_and_workers_share_the_whole_range() {
        for workers in 1..=5u32 {
            let mask = workers.next_power_of_two() - 1;
            let mut all = HashSet::new();
            for number in 0..workers {
                let (mut ports, locals) = (ports(1025..=1100, number, workers), locals(1));
                while let Some(local) = ports.take(0, &locals, false, server(1)) {
                    assert_eq!(u32::from(local.port) & mask, number);
                    assert!((1025..=1100).contains(&local.port));
                    assert!(all.insert(local.port));
                }
            }
            let owned = (1025..=1100u32)
                .filter(|port| port & mask < workers)
                .count();
            assert_eq!(all.len(), owned);
        }
        assert!(
            ports(2000..=2000, 1, 2)
                .take(0, &locals(1), false, server(1))
                .is_none()
        );
    }

    #[test]
    fn addresses_take_turns_and_one_without_a_port_is_passed_over() {
        let (mut ports, locals) = (ports(2000..=2001, 0, 1), locals(3));
        let mut held = Vec::new();
        let mut take = |to| {
            held.push(ports.take(0, &locals, false, server(to))?);
            held.last().map(LocalPort::addr)
        };
        let turns: Vec<_> = (0..6).map(|_| take(1).unwrap().ip()).collect();
        assert_eq!(turns[..3], turns[3..]);
        assert_eq!(HashSet::<_>::from_iter(&turns).len(), 3);
        assert_eq!(take(1), None, "two ports at each of three addresses");
        assert!(take(2).is_some(), "but another server has its own");
        let infos = locals.infos();
        assert_eq!(infos.iter().map(|info| info.misses).sum::<u64>(), 3);
        assert_eq!(infos.iter().map(|info| info.connections).sum::<u32>(), 7);
    }

    #[test]
    fn one_turn_in_twenty_skips_an_address() {
        let (mut ports, locals) = (ports(1025..=65535, 0, 1), locals(4));
        let mut steps = BTreeMap::new();
        let mut before = None;
        for _ in 0..2001 {
            let local = ports.take(0, &locals, true, server(1)).unwrap();
            let IpAddr::V4(addr) = local.addr().ip() else {
                unreachable!()
            };
            let last = i32::from(addr.octets()[3]);
            if let Some(before) = before {
                *steps.entry((last - before + 4) % 4).or_insert(0) += 1;
            }
            before = Some(last);
        }
        assert_eq!(steps, BTreeMap::from([(1, 1900), (2, 100)]));
    }

    #[test]
    fn a_removed_address_begins_no_connection_and_keeps_its_old_ones() {
        let (mut ports, locals) = (ports(1025..=65535, 0, 1), locals(1));
        let held = ports.take(0, &locals, false, server(1)).unwrap();
        locals.remove(held.addr().ip()).unwrap();
        assert!(ports.take(0, &locals, false, server(1)).is_none());
        assert_eq!(locals.in_use(), [IpAddr::from([10, 0, 0, 1])]);
        ports.give(1, held, server(1));
        assert_eq!(locals.in_use(), [] as [IpAddr; 0]);
        let error = |addr: [u8; 4]| locals.add(addr.into()).unwrap_err();
        assert_eq!(error([0, 0, 0, 0]), LocalError::Address);
        assert_eq!(error([224, 0, 0, 1]), LocalError::Address);
        assert_eq!(error([127, 0, 0, 1]), LocalError::Address);
        assert_eq!(
            locals.remove([10, 0, 0, 9].into()),
            Err(LocalError::NotFound)
        );
    }

    #[test]
    fn pools_of_servers_that_are_gone_are_forgotten() {
        let (mut ports, locals) = (ports(1025..=65535, 0, 1), locals(1));
        for n in 0..1000u16 {
            let server = SocketAddr::from(([192, 0, 2, 1], n + 1));
            let now = seconds(u64::from(n) * 10);
            let local = ports.take(now, &locals, false, server).unwrap();
            ports.give(now, local, server);
        }
        assert!(ports.pools.len() <= 2 * MIN_CROWD, "{}", ports.pools.len());
    }

    proptest! {
        #[test]
        fn no_port_is_held_twice_and_the_oldest_comes_first(
            steps in prop::collection::vec((0u8..3, 0usize..64, 0u16..12), 1..300),
            (number, workers) in (0u32..3, 1u32..4),
        ) {
            let number = number % workers;
            let (mut ports, locals) = (ports(3000..=3023, number, workers), locals(1));
            let address = locals.find(IpAddr::from([10, 0, 0, 1])).unwrap();
            let mut held: Vec<LocalPort> = Vec::new();
            let mut returned: Vec<u16> = Vec::new();
            let mut fresh = ports.share.count as usize;
            let mut came_along = false;
            for (what, at, port) in steps {
                match what {
                    0 => match ports.take(0, &locals, false, server(1)) {
                        Some(local) => {
                            prop_assert!(held.iter().all(|other| other.port != local.port));
                            let place = returned.iter().position(|port| *port == local.port);
                            // Those that came with their connection may come again earlier.
                            if !came_along {
                                prop_assert_eq!(place, (fresh == 0).then_some(0));
                            }
                            match place {
                                Some(place) => {
                                    returned.remove(place);
                                }
                                None => fresh -= 1,
                            }
                            held.push(local);
                        }
                        None => prop_assert_eq!(held.len(), ports.share.count as usize),
                    },
                    1 if !held.is_empty() => {
                        let local = held.swap_remove(at % held.len());
                        returned.push(local.port);
                        ports.give(0, local, server(1));
                    }
                    2 => {
                        let port = 3000 + port * 2;
                        let is_free = held.iter().all(|local| local.port != port);
                        let taken = ports.take_this(0, Arc::clone(&address), port, server(1));
                        let is_own = ports.share.place(port).is_some();
                        prop_assert_eq!(taken.is_some(), is_free && is_own);
                        if let Some(local) = taken {
                            came_along = true;
                            match returned.iter().position(|other| *other == port) {
                                Some(place) => {
                                    returned.remove(place);
                                }
                                None => fresh -= 1,
                            }
                            held.push(local);
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(held.len() as u32, locals.infos()[0].connections);
            }
        }
    }
}
