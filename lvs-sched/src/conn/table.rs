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
//!
//! An IPv4 entry is 48 bytes, its timer 10 and its two index slots 16 at full load (the load is
//! between 7/16 and 7/8). What few entries need lies beside the table, see [`Side`]. Nothing is ever
//! moved when the table grows.

use std::net::SocketAddr;
use std::sync::Arc;

use ahash::RandomState;

use super::chunks::{NONE, Slab};
use super::index::Index;
use super::key::{Address, FlowKey, Kind};
#[cfg(test)]
use super::key::{V4, V6};
use super::state::State;
use super::wheel::Wheel;
use crate::local::LocalPort;
use crate::persist::Template;
use crate::real_server::Class;
use crate::time::{NEVER, Nanos, seconds};
use crate::{ForwardMethod, Protocol, RealServer};

/// One connection.
#[derive(Debug)]
pub(crate) struct Entry<A> {
    pub(crate) flow: Flow<A>,
    pub(crate) state: State,
    pub(crate) method: ForwardMethod,
    flags: u8,
    /// Packets from the client.
    pub(crate) packets: u32,
    /// What few connections have, or `NONE`.
    side: u32,
    /// `None`: a bypass, or a synchronised one whose server is not known here.
    pub(crate) server: Option<Arc<RealServer>>,
    /// Changed through [`Table::set_deadline`], or where it is only [prolonged](Entry::prolong).
    deadline: Nanos,
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
}

/// What is told of an entry once, when it is made.
#[derive(Debug)]
pub(crate) struct NewEntry<A> {
    pub(crate) flow: Flow<A>,
    pub(crate) state: State,
    pub(crate) method: ForwardMethod,
    pub(crate) server: Option<Arc<RealServer>>,
    pub(crate) template: Option<Arc<Template>>,
    /// The entry that controls it, or `NONE`.
    pub(crate) control: u32,
    /// FULLNAT's own address and port.
    pub(crate) local: Option<LocalPort>,
    pub(crate) no_client_port: bool,
    pub(crate) synchronised: bool,
    pub(crate) packets: u32,
    pub(crate) deadline: Nanos,
}

/// What few connections have: a template, another connection that controls it or that it controls,
/// neighbours with equal keys, an address and port towards the server. Sixteen bytes for the first, more for the others.
#[derive(Debug)]
enum Side {
    Template(Arc<Template>),
    Kin(Box<Kin>),
}

#[derive(Debug)]
struct Kin {
    template: Option<Arc<Template>>,
    local: Option<LocalPort>,
    control: u32,
    controls: u32,
    /// When the last one that it controlled ended, so that a timer that is looked at late still
    /// knows whether it controlled one when it fired.
    released: Nanos,
    /// Neighbours among equal keys, forward and reverse.
    chains: [Chain; 2],
}

impl Default for Kin {
    fn default() -> Self {
        let alone = Chain {
            newer: NONE,
            older: NONE,
        };
        Self {
            template: None,
            local: None,
            control: NONE,
            controls: 0,
            released: 0,
            chains: [alone; 2],
        }
    }
}

/// A connection that was taken out of the table. What it was bound to is still bound.
#[derive(Debug)]
pub(crate) struct Gone<A> {
    pub(crate) entry: Entry<A>,
    pub(crate) template: Option<Arc<Template>>,
    pub(crate) local: Option<LocalPort>,
    /// The entry that controlled it, or `NONE`.
    pub(crate) control: u32,
}

impl<A: Address> Entry<A> {
    pub(crate) fn protocol(&self) -> Protocol {
        self.state.protocol()
    }

    pub(crate) fn deadline(&self) -> Nanos {
        self.deadline
    }

    /// Counted as active, else as inactive.
    pub(crate) fn is_active(&self) -> bool {
        self.flags & ACTIVE != 0
    }

    /// No reply was ever seen: the one-way table applies.
    pub(crate) fn no_output(&self) -> bool {
        self.flags & NO_OUTPUT != 0
    }

    pub(crate) fn see_output(&mut self) {
        self.flags &= !NO_OUTPUT;
    }

    /// It waits for its client's first packet to learn the port.
    pub(crate) fn no_client_port(&self) -> bool {
        self.flags & NO_CLIENT_PORT != 0
    }

    /// It came by synchronisation.
    pub(crate) fn is_synchronised(&self) -> bool {
        self.flags & SYNCHRONISED != 0
    }

    /// Whether it has a server that left its service.
    pub(crate) fn lost_its_server(&self) -> bool {
        self.server
            .as_ref()
            .is_some_and(|server| !server.is_available())
    }

    /// The time that a restart of its timer gives, if `of_state` is its state's.
    pub(crate) fn timeout(&self, of_state: Nanos) -> Nanos {
        if self.flags & PROLONGED != 0 {
            PROLONGATION
        } else if self.flags & FRESH != 0 {
            NEW_CONNECTION
        } else {
            of_state
        }
    }

    #[inline]
    pub(crate) fn forward_key(&self) -> FlowKey<A> {
        let Flow {
            client,
            vip,
            client_port,
            vport,
            ..
        } = self.flow;
        self.key(client, client_port, vip, vport)
    }

    /// Without a local address.
    #[inline]
    fn reverse_key(&self) -> FlowKey<A> {
        if !self.method.rewrites() {
            return self.forward_key();
        }
        let Flow {
            client,
            server,
            client_port,
            server_port,
            ..
        } = self.flow;
        self.key(client, client_port, server, server_port)
    }

    #[inline]
    fn key(&self, client: A, client_port: u16, other: A, other_port: u16) -> FlowKey<A> {
        FlowKey {
            client,
            other,
            client_port,
            other_port,
            kind: Kind::new(self.protocol(), self.no_client_port()),
        }
    }

    /// Sets the deadline. If it is an earlier one, the wheel has to be [told](Table::set_deadline).
    #[inline]
    pub(crate) fn prolong(&mut self, deadline: Nanos) -> bool {
        let before = std::mem::replace(&mut self.deadline, deadline);
        deadline >= before
    }

    /// What it counts as at its server.
    pub(crate) fn class(&self) -> Class {
        if self.is_active() {
            Class::Active
        } else {
            Class::Inactive
        }
    }

    /// Takes the state that a packet brought, and the state's timeout; moves between the server's
    /// counts. Returns whether the state changed.
    #[inline]
    pub(crate) fn enter(&mut self, state: State) -> bool {
        self.flags &= !(FRESH | PROLONGED);
        if state == self.state {
            return false;
        }
        self.state = state;
        if state.is_active() != self.is_active()
            && let Some(server) = &self.server
        {
            self.flags ^= ACTIVE;
            if self.is_active() {
                server.activate();
            } else {
                server.deactivate();
            }
        }
        true
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table<A> {
    entries: Slab<Entry<A>>,
    sides: Slab<Side>,
    indexes: [Index; 2],
    wheel: Wheel,
    due: Vec<u32>,
    hasher: RandomState,
    without_client_port: usize,
    /// Of the indexes; wraps around.
    changes: u32,
}

/// What a lookup begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sought {
    hash: u32,
    /// Where the entry most probably is, or `NONE`.
    guess: u32,
    /// The table's number of changes when that was found.
    changes: u32,
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

impl Way {
    /// By which packets of this direction are looked up.
    fn of(direction: crate::Direction) -> Self {
        match direction {
            crate::Direction::Inbound => Self::Forward,
            crate::Direction::Outbound => Self::Reverse,
        }
    }
}

impl<A: Address> Table<A> {
    pub(crate) fn new(hasher: RandomState) -> Self {
        Self {
            entries: Slab::default(),
            sides: Slab::default(),
            indexes: [Index::default(), Index::default()],
            wheel: Wheel::default(),
            due: Vec::new(),
            hasher,
            without_client_port: 0,
            changes: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Ids are below; not all of them are in use.
    pub(crate) fn places(&self) -> u32 {
        self.entries.places()
    }

    /// A time not later than the first deadline.
    pub(crate) fn next(&self) -> Nanos {
        self.wheel.next()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<A>> {
        self.entries.iter()
    }

    /// The entry in a place, if there is one.
    pub(crate) fn get(&self, id: u32) -> Option<&Entry<A>> {
        self.entries.get(id)
    }

    #[inline]
    pub(crate) fn entry(&self, id: u32) -> &Entry<A> {
        self.entries
            .get(id)
            .expect("ids come from a lookup in the same call")
    }

    #[inline]
    pub(crate) fn entry_mut(&mut self, id: u32) -> &mut Entry<A> {
        self.entries
            .get_mut(id)
            .expect("ids come from a lookup in the same call")
    }

    #[inline]
    pub(crate) fn sought(&self, key: &FlowKey<A>) -> Sought {
        Sought {
            hash: self.hash(key),
            guess: NONE,
            changes: self.changes,
        }
    }

    #[inline]
    fn hash(&self, key: &FlowKey<A>) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    /// Fetches where the lookup of a packet begins.
    #[inline]
    pub(crate) fn fetch(&self, direction: crate::Direction, sought: &Sought) {
        self.indexes[Way::of(direction) as usize].fetch(sought.hash);
    }

    /// Fetches the entry that the lookup will most probably find; the index is near by then.
    #[inline]
    pub(crate) fn fetch_entry(&self, direction: crate::Direction, sought: &mut Sought) {
        let id = self.indexes[Way::of(direction) as usize].guess(sought.hash);
        sought.guess = id.unwrap_or(NONE);
        self.entries.fetch(sought.guess);
    }

    /// The newest connection of a client's packet. A client that uses port 0 never finds its own.
    #[inline]
    pub(crate) fn find(&self, key: &FlowKey<A>, sought: &Sought) -> Option<u32> {
        let own = if key.client_port == 0 {
            None
        } else {
            self.lookup(Way::Forward, key, sought)
        };
        if own.is_none() && self.without_client_port > 0 {
            let key = key.without_client_port();
            return self.lookup(Way::Forward, &key, &self.sought(&key));
        }
        own
    }

    /// The newest connection of a server's packet.
    #[inline]
    pub(crate) fn find_reverse(&self, key: &FlowKey<A>, sought: &Sought) -> Option<u32> {
        self.lookup(Way::Reverse, key, sought)
    }

    /// The template that controls a connection.
    pub(crate) fn template(&self, id: u32) -> Option<&Arc<Template>> {
        match self.side(id)? {
            Side::Template(template) => Some(template),
            Side::Kin(kin) => kin.template.as_ref(),
        }
    }

    /// The connection that controls another one.
    pub(crate) fn control(&self, id: u32) -> Option<u32> {
        self.kin(id).map(|kin| kin.control).filter(|id| *id != NONE)
    }

    /// The director's side of its connection to the server.
    pub(crate) fn local(&self, entry: &Entry<A>) -> Option<SocketAddr> {
        if entry.method != ForwardMethod::FullNat {
            return None;
        }
        match self.sides.get(entry.side)? {
            Side::Kin(kin) => kin.local.as_ref().map(LocalPort::addr),
            Side::Template(_) => None,
        }
    }

    /// How many others it controls.
    pub(crate) fn controls(&self, id: u32) -> u32 {
        self.kin(id).map_or(0, |kin| kin.controls)
    }

    pub(crate) fn insert(&mut self, new: NewEntry<A>) -> u32 {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = FRESH
            | flag(!new.method.rewrites(), NO_OUTPUT)
            | flag(new.no_client_port, NO_CLIENT_PORT)
            | flag(new.synchronised, SYNCHRONISED);
        let id = self.entries.insert(Entry {
            flow: new.flow,
            state: new.state,
            method: new.method,
            flags,
            packets: new.packets,
            side: NONE,
            server: new.server,
            deadline: new.deadline,
        });
        self.without_client_port += usize::from(new.no_client_port);
        if let Some(template) = new.template {
            let side = self.sides.insert(Side::Template(template));
            self.entry_mut(id).side = side;
        }
        if new.local.is_some() {
            self.kin_mut(id).local = new.local;
        }
        if new.control != NONE {
            self.kin_mut(id).control = new.control;
            self.kin_mut(new.control).controls += 1;
        }
        WAYS.into_iter().for_each(|way| self.link(way, id));
        self.wheel.arm(id, new.deadline);
        self.check();
        id
    }

    /// Takes it out. The caller ends what it was bound to, and releases what controlled it.
    pub(crate) fn remove(&mut self, id: u32) -> Gone<A> {
        debug_assert_eq!(self.controls(id), 0, "it still controls another one");
        self.wheel.cancel(id);
        WAYS.into_iter().for_each(|way| self.unlink(way, id));
        let entry = self
            .entries
            .remove(id)
            .expect("ids come from a lookup in the same call");
        self.without_client_port -= usize::from(entry.no_client_port());
        let (template, local, control) = match self.sides.remove(entry.side) {
            None => (None, None, NONE),
            Some(Side::Template(template)) => (Some(template), None, NONE),
            Some(Side::Kin(kin)) => (kin.template, kin.local, kin.control),
        };
        self.check();
        Gone {
            entry,
            template,
            local,
            control,
        }
    }

    /// One that `control` controlled ended. Returns whether it controls nothing now.
    pub(crate) fn release(&mut self, control: u32, at: Nanos) -> bool {
        let kin = self.kin_mut(control);
        debug_assert!(kin.controls > 0, "a connection left its control twice");
        kin.controls = kin.controls.saturating_sub(1);
        kin.released = kin.released.max(at);
        kin.controls == 0
    }

    /// It learns its client's port, and is found by it from now on.
    pub(crate) fn set_client_port(&mut self, id: u32, port: u16) {
        WAYS.into_iter().for_each(|way| self.unlink(way, id));
        let entry = self.entry_mut(id);
        entry.flow.client_port = port;
        let was_without = entry.no_client_port();
        entry.flags &= !NO_CLIENT_PORT;
        self.without_client_port -= usize::from(was_without);
        WAYS.into_iter().for_each(|way| self.link(way, id));
        self.check();
    }

    /// Moves a deadline. Later ones are only noted, the wheel asks again when the old one comes up.
    pub(crate) fn set_deadline(&mut self, id: u32, deadline: Nanos) {
        if !self.entry_mut(id).prolong(deadline) {
            self.lower(id, deadline);
        }
    }

    /// Tells the wheel of a deadline that became an earlier one.
    pub(crate) fn lower(&mut self, id: u32, deadline: Nanos) {
        self.wheel.lower(id, deadline);
    }

    /// Calls `end` with each connection whose deadline is not later than `now`.
    pub(crate) fn expire(&mut self, now: Nanos, mut end: impl FnMut(&mut Self, u32)) {
        if self.wheel.pass(now) {
            return;
        }
        let mut due = std::mem::take(&mut self.due);
        let entries = &self.entries;
        let deadline = |id: u32| entries.get(id).map_or(0, Entry::deadline);
        self.wheel.advance(now, deadline, &mut due);
        // Those that controlled others come last: what they controlled may be due as well, and
        // ended before or after their own deadline.
        for kin in [false, true] {
            for &id in &due {
                let Some(entry) = self.entries.get(id) else {
                    continue;
                };
                let has_kin = self.has_controlled(id);
                if has_kin != kin || entry.deadline > now {
                    continue;
                }
                if kin && self.settle(id, now) > now {
                    continue;
                }
                end(self, id);
            }
        }
        due.clear();
        self.due = due;
    }

    /// Removes everything.
    pub(crate) fn drain(&mut self, mut end: impl FnMut(Gone<A>)) {
        for id in 0..self.places() {
            if self.entries.get(id).is_some() {
                if let Some(Side::Kin(kin)) = self.side_mut(id) {
                    kin.controls = 0;
                }
                end(self.remove(id));
            }
        }
    }

    /// Lets the timer of one that controls others fire as often as it did until `now`.
    fn settle(&mut self, id: u32, now: Nanos) -> Nanos {
        let held_at = |at: Nanos| {
            self.kin(id)
                .is_some_and(|kin| kin.controls > 0 || kin.released > at)
        };
        let mut deadline = self.entry(id).deadline;
        while deadline <= now && held_at(deadline) {
            deadline += PROLONGATION;
        }
        let entry = self.entry_mut(id);
        if entry.deadline != deadline {
            entry.deadline = deadline;
            entry.flags |= PROLONGED;
        }
        if deadline > now {
            self.wheel.arm(id, deadline);
        }
        deadline
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
        debug_assert!(self.sides.len() <= self.len(), "a side without its entry");
    }

    fn has_controlled(&self, id: u32) -> bool {
        self.kin(id)
            .is_some_and(|kin| kin.controls > 0 || kin.released > 0)
    }

    fn side(&self, id: u32) -> Option<&Side> {
        self.sides.get(self.entry(id).side)
    }

    fn side_mut(&mut self, id: u32) -> Option<&mut Side> {
        let side = self.entry(id).side;
        self.sides.get_mut(side)
    }

    fn kin(&self, id: u32) -> Option<&Kin> {
        match self.side(id)? {
            Side::Template(_) => None,
            Side::Kin(kin) => Some(kin),
        }
    }

    fn kin_mut(&mut self, id: u32) -> &mut Kin {
        if self.kin(id).is_none() {
            let side = self.entry(id).side;
            let template = match self.sides.remove(side) {
                Some(Side::Template(template)) => Some(template),
                Some(Side::Kin(_)) | None => None,
            };
            let kin = Kin {
                template,
                ..Kin::default()
            };
            let side = self.sides.insert(Side::Kin(Box::new(kin)));
            self.entry_mut(id).side = side;
        }
        match self.side_mut(id) {
            Some(Side::Kin(kin)) => kin,
            Some(Side::Template(_)) | None => unreachable!("made above"),
        }
    }

    fn key(&self, way: Way, id: u32) -> FlowKey<A> {
        match way {
            Way::Forward => self.entry(id).forward_key(),
            Way::Reverse => self.reverse_key(self.entry(id)),
        }
    }

    /// Server's packets go to the client, or to the local address that stands for it.
    fn reverse_key(&self, entry: &Entry<A>) -> FlowKey<A> {
        let key = entry.reverse_key();
        let local = self
            .local(entry)
            .and_then(|local| Some((A::from_ip(local.ip())?, local.port())));
        match local {
            Some((client, client_port)) => FlowKey {
                client,
                client_port,
                ..key
            },
            None => key,
        }
    }

    fn link(&mut self, way: Way, id: u32) {
        let key = self.key(way, id);
        let sought = self.sought(&key);
        let hash = sought.hash;
        self.changes = self.changes.wrapping_add(1);
        match self.lookup(way, &key, &sought) {
            Some(older) => {
                self.kin_mut(id).chains[way as usize] = Chain { newer: NONE, older };
                self.kin_mut(older).chains[way as usize].newer = id;
                self.indexes[way as usize].replace(hash, older, id);
            }
            None => self.indexes[way as usize].insert(hash, id),
        }
    }

    fn unlink(&mut self, way: Way, id: u32) {
        self.changes = self.changes.wrapping_add(1);
        let alone = Chain {
            newer: NONE,
            older: NONE,
        };
        let chain = match self.side_mut(id) {
            Some(Side::Kin(kin)) => std::mem::replace(&mut kin.chains[way as usize], alone),
            Some(Side::Template(_)) | None => alone,
        };
        let Chain { newer, older } = chain;
        if older != NONE {
            self.kin_mut(older).chains[way as usize].newer = newer;
        }
        if newer != NONE {
            self.kin_mut(newer).chains[way as usize].older = older;
            return;
        }
        let key = self.key(way, id);
        let hash = self.hash(&key);
        if older != NONE {
            self.indexes[way as usize].replace(hash, id, older);
        } else {
            self.indexes[way as usize].remove(hash, id);
        }
    }

    #[inline]
    fn lookup(&self, way: Way, key: &FlowKey<A>, sought: &Sought) -> Option<u32> {
        let is_it = |id: u32| {
            self.entries.get(id).is_some_and(|entry| {
                *key == match way {
                    Way::Forward => entry.forward_key(),
                    Way::Reverse => self.reverse_key(entry),
                }
            })
        };
        // Found where a search would have ended, if nothing was added or removed since.
        if sought.changes == self.changes && is_it(sought.guess) {
            return Some(sought.guess);
        }
        self.indexes[way as usize].find(sought.hash, is_it)
    }
}

const WAYS: [Way; 2] = [Way::Forward, Way::Reverse];

const ACTIVE: u8 = 1;
const NO_OUTPUT: u8 = 2;
const NO_CLIENT_PORT: u8 = 4;
/// No packet set its timeout yet.
const FRESH: u8 = 8;
/// Its timer fired while it controlled others.
const PROLONGED: u8 = 16;
const SYNCHRONISED: u8 = 32;

/// Timeout of a connection before its first packet.
pub(crate) const NEW_CONNECTION: Nanos = seconds(3);
/// Timeout of one that controls others, once its own ran out.
pub(crate) const PROLONGATION: Nanos = seconds(60);

#[cfg(test)]
const _: () = assert!(super::chunks::slot_size::<Entry<V4>>() == 48);
#[cfg(test)]
const _: () = assert!(super::chunks::slot_size::<Entry<V6>>() <= 88);
#[cfg(test)]
const _: () = assert!(super::chunks::slot_size::<Side>() == 16);
