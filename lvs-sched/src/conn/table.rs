//! A worker's connections of one address family.
//!
//! Entries lie in a slab, found by two indexes: *forward* by client and virtual address, *reverse*
//! by client and the address that replies come from. The original has one table hashed by the
//! client's address and port only, which serves both directions, but lets one client port that
//! talks to many virtual ports build a chain of any length. Two full keys cost eight bytes more an
//! entry and a second insertion, and no sender can make a lookup slow.
//!
//! Among entries with equal keys the index leads to the newest, the others hang behind it. So the
//! newest wins, the next one shows up again when it ends, and a flood of equal keys (client port 0)
//! costs no more than any other.

use std::fmt::Debug;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ahash::RandomState;

use super::index::Index;
use super::state::State;
use super::wheel::Wheel;
use crate::persist::Template;
use crate::real_server::Class;
use crate::time::{NEVER, Nanos};
use crate::{ForwardMethod, Protocol, RealServer};

/// An address as entries store it.
pub(crate) trait Address: Copy + Eq + Hash + Debug {
    fn ip(self) -> IpAddr;
    /// `None` if it is of the other family.
    fn from_ip(ip: IpAddr) -> Option<Self>;
}

/// An IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct V4(u32);

/// An IPv6 address, aligned like two words so that entries stay small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct V6([u64; 2]);

impl Address for V4 {
    fn ip(self) -> IpAddr {
        Ipv4Addr::from_bits(self.0).into()
    }

    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(ip) => Some(Self(ip.to_bits())),
            IpAddr::V6(_) => None,
        }
    }
}

impl Address for V6 {
    fn ip(self) -> IpAddr {
        Ipv6Addr::from_bits(u128::from(self.0[0]) << 64 | u128::from(self.0[1])).into()
    }

    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(Self([(ip.to_bits() >> 64) as u64, ip.to_bits() as u64])),
        }
    }
}

/// Client and the other side of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlowKey<A> {
    pub(crate) client: A,
    pub(crate) other: A,
    pub(crate) client_port: u16,
    pub(crate) other_port: u16,
    pub(crate) protocol: Protocol,
}

/// One connection. An IPv4 one fills a cache line exactly.
#[derive(Debug)]
pub(crate) struct Entry<A> {
    pub(crate) flow: Flow<A>,
    pub(crate) method: ForwardMethod,
    pub(crate) state: State,
    /// Counted as active, else as inactive.
    pub(crate) active: bool,
    /// No reply was ever seen: the one-way table applies.
    pub(crate) no_output: bool,
    /// Packets from the client.
    pub(crate) packets: u32,
    pub(crate) server: Arc<RealServer>,
    /// The template that controls it.
    pub(crate) template: Option<Arc<Template>>,
    pub(crate) deadline: Nanos,
    /// When the wheel will ask for the deadline; never later than it.
    pub(crate) armed: Nanos,
}

/// The addresses of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow<A> {
    pub(crate) client: A,
    pub(crate) vip: A,
    pub(crate) server: A,
    pub(crate) client_port: u16,
    pub(crate) vport: u16,
    pub(crate) server_port: u16,
    pub(crate) protocol: Protocol,
}

impl<A: Address> Entry<A> {
    fn forward_key(&self) -> FlowKey<A> {
        let Flow {
            client,
            vip: other,
            client_port,
            vport: other_port,
            protocol,
            ..
        } = self.flow;
        FlowKey {
            client,
            other,
            client_port,
            other_port,
            protocol,
        }
    }

    fn reverse_key(&self) -> FlowKey<A> {
        if !self.method.rewrites() {
            return self.forward_key();
        }
        let Flow {
            client,
            server: other,
            client_port,
            server_port: other_port,
            protocol,
            ..
        } = self.flow;
        FlowKey {
            client,
            other,
            client_port,
            other_port,
            protocol,
        }
    }

    /// What it counts as at its server.
    pub(crate) fn class(&self) -> Class {
        if self.active {
            Class::Active
        } else {
            Class::Inactive
        }
    }

    /// Moves to a state and between the server's counts.
    pub(crate) fn enter(&mut self, state: State) {
        if state == self.state {
            return;
        }
        self.state = state;
        if state.is_active() != self.active {
            self.active = state.is_active();
            if self.active {
                self.server.activate();
            } else {
                self.server.deactivate();
            }
        }
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table<A> {
    slots: Vec<Option<Entry<A>>>,
    /// Neighbours among equal keys, forward and reverse; apart from the entries because packets do
    /// not need them.
    links: Vec<[Chain; 2]>,
    free: Vec<u32>,
    indexes: [Index; 2],
    wheel: Wheel,
    due: Vec<u32>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug)]
struct Chain {
    newer: u32,
    older: u32,
}

#[derive(Clone, Copy)]
enum Way {
    Forward = 0,
    Reverse = 1,
}

impl<A: Address> Table<A> {
    pub(crate) fn new(hasher: RandomState) -> Self {
        Self {
            slots: Vec::new(),
            links: Vec::new(),
            free: Vec::new(),
            indexes: [Index::default(), Index::default()],
            wheel: Wheel::default(),
            due: Vec::new(),
            hasher,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// A time not later than the first deadline.
    pub(crate) fn next(&self) -> Nanos {
        self.wheel.next()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<A>> {
        self.slots.iter().flatten()
    }

    pub(crate) fn entry(&self, id: u32) -> &Entry<A> {
        self.slots[id as usize]
            .as_ref()
            .expect("ids come from a lookup in the same call")
    }

    pub(crate) fn entry_mut(&mut self, id: u32) -> &mut Entry<A> {
        self.slots[id as usize]
            .as_mut()
            .expect("ids come from a lookup in the same call")
    }

    /// The newest connection of a client's packet. A client that uses port 0 never finds its own.
    pub(crate) fn find(&self, key: &FlowKey<A>) -> Option<u32> {
        if key.client_port == 0 {
            None
        } else {
            self.lookup(Way::Forward, key, self.hash(key))
        }
    }

    /// The newest connection of a server's packet.
    pub(crate) fn find_reverse(&self, key: &FlowKey<A>) -> Option<u32> {
        self.lookup(Way::Reverse, key, self.hash(key))
    }

    pub(crate) fn insert(&mut self, mut entry: Entry<A>) -> u32 {
        entry.armed = entry.deadline;
        let (deadline, keys) = (entry.deadline, [entry.forward_key(), entry.reverse_key()]);
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = Some(entry);
                id
            }
            None => {
                self.slots.push(Some(entry));
                self.links.push(
                    [Chain {
                        newer: NONE,
                        older: NONE,
                    }; 2],
                );
                (self.slots.len() - 1) as u32
            }
        };
        for (way, key) in WAYS.into_iter().zip(&keys) {
            let hash = self.hash(key);
            let older = self.lookup_except(way, key, hash, id);
            self.links[id as usize][way as usize] = Chain {
                newer: NONE,
                older: older.unwrap_or(NONE),
            };
            match older {
                Some(older) => {
                    self.links[older as usize][way as usize].newer = id;
                    self.indexes[way as usize].replace(hash, older, id);
                }
                None => self.indexes[way as usize].insert(hash, id),
            }
        }
        self.wheel.arm(id, deadline);
        self.check();
        id
    }

    pub(crate) fn remove(&mut self, id: u32) -> Entry<A> {
        self.wheel.cancel(id);
        let entry = self.slots[id as usize]
            .take()
            .expect("ids come from a lookup in the same call");
        for (way, key) in WAYS
            .into_iter()
            .zip([entry.forward_key(), entry.reverse_key()])
        {
            let Chain { newer, older } = self.links[id as usize][way as usize];
            if older != NONE {
                self.links[older as usize][way as usize].newer = newer;
            }
            if newer != NONE {
                self.links[newer as usize][way as usize].older = older;
                continue;
            }
            let hash = self.hash(&key);
            if older != NONE {
                self.indexes[way as usize].replace(hash, id, older);
            } else {
                self.indexes[way as usize].remove(hash, id);
            }
        }
        self.free.push(id);
        self.check();
        entry
    }

    /// Moves a deadline. Later ones are only noted, the wheel asks again when the old one comes up.
    pub(crate) fn set_deadline(&mut self, id: u32, deadline: Nanos) {
        let entry = self.entry_mut(id);
        entry.deadline = deadline;
        if deadline < entry.armed {
            entry.armed = deadline;
            self.wheel.cancel(id);
            self.wheel.arm(id, deadline);
        }
    }

    /// Calls `end` with each connection whose deadline is not later than `now`, after it was
    /// removed.
    pub(crate) fn expire(&mut self, now: Nanos, mut end: impl FnMut(Entry<A>)) {
        if now < self.wheel.next() {
            return;
        }
        let mut due = std::mem::take(&mut self.due);
        let slots = &mut self.slots;
        let deadline = |id: u32| {
            slots[id as usize].as_mut().map_or(0, |entry| {
                entry.armed = entry.deadline;
                entry.deadline
            })
        };
        self.wheel.advance(now, deadline, &mut due);
        due.drain(..).for_each(|id| end(self.remove(id)));
        self.due = due;
    }

    /// Removes everything.
    pub(crate) fn drain(&mut self, mut end: impl FnMut(Entry<A>)) {
        for id in 0..self.slots.len() as u32 {
            if self.slots[id as usize].is_some() {
                end(self.remove(id));
            }
        }
    }

    /// What must hold after each change.
    fn check(&self) {
        let [forward, reverse] = [self.indexes[0].len(), self.indexes[1].len()];
        debug_assert!(
            forward <= self.len() && reverse <= self.len(),
            "an index leads to what is not there"
        );
        debug_assert_eq!(
            self.len() == 0,
            forward == 0 && reverse == 0,
            "an entry that no index leads to"
        );
        debug_assert!(
            self.len() > 0 || self.wheel.next() == NEVER,
            "a deadline without an entry"
        );
    }

    fn hash(&self, key: &FlowKey<A>) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    fn lookup(&self, way: Way, key: &FlowKey<A>, hash: u32) -> Option<u32> {
        self.lookup_except(way, key, hash, NONE)
    }

    fn lookup_except(&self, way: Way, key: &FlowKey<A>, hash: u32, except: u32) -> Option<u32> {
        self.indexes[way as usize].find(hash, |id| {
            let entry = self.entry(id);
            id != except
                && *key
                    == match way {
                        Way::Forward => entry.forward_key(),
                        Way::Reverse => entry.reverse_key(),
                    }
        })
    }
}

const NONE: u32 = u32::MAX;
const WAYS: [Way; 2] = [Way::Forward, Way::Reverse];
const _: () = assert!(size_of::<Option<Entry<V4>>>() == 64);
const _: () = assert!(size_of::<Option<Entry<V6>>>() <= 104);
