//! A VRRP router (RFC 9568, 1.6): all virtual routers of a machine, their sync groups, and what they watch, with one deadline.

mod group;
mod objects;
mod reload;
mod setup;

#[cfg(test)]
mod tests;

use group::Group;
pub use group::GroupStatus;
use objects::Object;
pub use setup::{GroupConfig, Member, ProcessConfig, Setup, SetupError};

use crate::announce::Pacer;
use crate::command::Command;
use crate::config::{Family, InterfaceName, Reach, VirtualAddress};
use crate::datagram::Received;
use crate::discard::Discard;
use crate::event::{Event, Reason};
use crate::router::{Heard, Transmit, VirtualRouter};
use crate::script::ScriptCommand;
use crate::state::State;
use crate::track::{Condition, Health, Tracked, TrackedObject};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// All of VRRP on a machine, as one sans-IO machine. The verbs and the drain rule are those of [`VirtualRouter`].
#[derive(Debug)]
pub struct VrrpRouter {
    setup: Setup,
    slots: BTreeMap<RouterId, Slot>,
    /// In the order of the configuration.
    order: Vec<RouterId>,
    groups: Vec<Group>,
    objects: BTreeMap<TrackedObject, Object>,
    conditions: BTreeMap<TrackedObject, Condition>,
    watched: BTreeMap<TrackedObject, Vec<RouterId>>,
    by_vrid: BTreeMap<(InterfaceName, Family, u8), Vec<RouterId>>,
    deadlines: BTreeSet<(Instant, RouterId)>,
    object_due: BTreeMap<TrackedObject, Instant>,
    object_deadlines: BTreeSet<(Instant, TrackedObject)>,
    /// Routers that may have something to send, in the order in which it came about.
    sending: VecDeque<RouterId>,
    pacer: Pacer<RouterId>,
    tasks: VecDeque<Task>,
    notices: VecDeque<Notice>,
    next_id: u32,
    started: bool,
    gate_open: bool,
    unknown_vrids: u64,
}

/// One virtual router of a [`VrrpRouter`]. It keeps its number over reloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(u32);

/// One sync group of a [`VrrpRouter`], until the next reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(usize);

#[derive(Debug)]
struct Slot {
    name: Arc<str>,
    router: VirtualRouter,
    tracked: Vec<Tracked>,
    group: Option<GroupId>,
    due: Option<Instant>,
    /// Out of the configuration; it goes when it has said its last word.
    leaving: bool,
}

/// Something that the shell must do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Task {
    /// For a virtual router.
    Router {
        /// Which.
        router: RouterId,
        /// What.
        command: Command,
    },
    /// With a check script.
    Script {
        /// Its name.
        name: Arc<str>,
        /// What.
        command: ScriptCommand,
    },
}

/// Something that the application may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Of a virtual router.
    Router {
        /// Which.
        router: RouterId,
        /// Its name.
        name: Arc<str>,
        /// What.
        event: Event,
        /// No notification is due for it: the router only joins the state that its group has and has told of.
        silent: bool,
    },
    /// A sync group changed its state.
    Group {
        /// Which.
        group: GroupId,
        /// Before.
        from: State,
        /// Now.
        to: State,
    },
    /// A tracked object changed.
    Object {
        /// Which.
        object: TrackedObject,
        /// Now.
        health: Health,
    },
}

impl VrrpRouter {
    /// A router in Initialize. Tell it of the links, files and source addresses that there are, then [`start`](Self::start) it.
    ///
    /// # Errors
    /// When the setup is not consistent.
    pub fn new(now: Instant, setup: Setup) -> Result<Self, SetupError> {
        setup.check()?;
        let mut all = Self {
            pacer: Pacer::new(setup.pacing, setup.interface_pacing.clone()),
            setup: Setup::default(),
            slots: BTreeMap::new(),
            order: Vec::new(),
            groups: Vec::new(),
            objects: BTreeMap::new(),
            conditions: BTreeMap::new(),
            watched: BTreeMap::new(),
            by_vrid: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            object_due: BTreeMap::new(),
            object_deadlines: BTreeSet::new(),
            sending: VecDeque::new(),
            tasks: VecDeque::new(),
            notices: VecDeque::new(),
            next_id: 0,
            started: false,
            gate_open: true,
            unknown_vrids: 0,
        };
        all.install(now, setup)?;
        Ok(all)
    }

    /// Begins.
    pub fn start(&mut self, now: Instant) {
        if self.started {
            return;
        }
        self.started = true;
        let before = self.notices.len();
        for id in self.order.clone() {
            self.apply_tracking(now, id);
        }
        for group in 0..self.groups.len() {
            self.share_faults(now, GroupId(group));
        }
        for id in self.order.clone() {
            self.with_router(now, id, |router| router.start(now));
        }
        // At the start groups are told of first.
        let (groups, others): (Vec<_>, Vec<_>) = self
            .notices
            .drain(before..)
            .partition(|notice| matches!(notice, Notice::Group { .. }));
        self.notices.extend(groups.into_iter().chain(others));
    }

    /// Ends: each virtual router in the order of the configuration, then the groups.
    pub fn shutdown(&mut self, now: Instant) {
        let order = self.order.clone();
        for id in order {
            self.with_follower(now, id, |router| router.shutdown(now));
        }
        for group in 0..self.groups.len() {
            self.settle_group(GroupId(group));
        }
        self.started = false;
    }

    /// A datagram of the socket on `interface`. Returns which router heard what, or why nothing happened.
    ///
    /// # Errors
    /// A refused advertisement is no failure of the caller's; the reason has been counted.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        interface: &InterfaceName,
        received: &Received<'_>,
    ) -> Result<(RouterId, Heard), Discard> {
        let id = self.find(interface, received)?;
        let heard = self.with_router(now, id, |router| router.handle_packet(now, received));
        heard
            .unwrap_or(Err(Discard::NotListening))
            .map(|heard| (id, heard))
    }

    /// The deadline has passed. Calling early or twice is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.handle_object_timeouts(now);
        while let Some((due, id)) = self.deadlines.first().copied() {
            if due > now {
                break;
            }
            let waits = self.slots[&id].router.would_take_over(now) && !self.group_agrees(id);
            self.with_router(now, id, |router| {
                if waits {
                    router.wait_for_group(now);
                } else {
                    router.handle_timeout(now);
                }
            });
        }
        self.pacer.handle_timeout(now);
        debug_assert!(
            self.poll_timeout().is_none_or(|next| next > now),
            "deadlines move forward"
        );
    }

    /// The address that a virtual router sends from appeared, changed, or vanished.
    pub fn handle_source(&mut self, now: Instant, id: RouterId, source: Option<IpAddr>) {
        self.with_router(now, id, |router| router.handle_source(now, source));
    }

    /// Somebody took away an address of an interface. Every Active router that has it there is told.
    pub fn handle_address_removed(&mut self, now: Instant, address: &VirtualAddress) {
        for id in self.order.clone() {
            self.with_router(now, id, |router| {
                router.handle_address_removed(now, address);
            });
        }
    }

    /// Somebody took away a virtual route or rule of a router.
    pub fn handle_route_removed(&mut self, now: Instant, id: RouterId) {
        self.with_router(now, id, |router| router.handle_route_removed(now));
    }

    /// Opens or closes the way to preemption for all; see [`VirtualRouter::set_preempt_gate`].
    pub fn set_preempt_gate(&mut self, now: Instant, open: bool) {
        self.gate_open = open;
        for id in self.order.clone() {
            self.with_router(now, id, |router| router.set_preempt_gate(now, open));
        }
    }

    /// The virtual routes or rules of a router changed by a reload.
    pub fn routes_changed(&mut self, now: Instant, id: RouterId) {
        self.with_router(now, id, VirtualRouter::routes_changed);
    }

    /// The next datagram to send, written into `buffer`, and whose it is: its interface is where it goes out.
    pub fn poll_transmit(&mut self, buffer: &mut Vec<u8>) -> Option<(RouterId, Transmit)> {
        while let Some(id) = self.sending.front().copied() {
            let slot = self.slots.get_mut(&id);
            if let Some(transmit) = slot.and_then(|slot| slot.router.poll_transmit(buffer)) {
                return Some((id, transmit));
            }
            self.sending.pop_front();
            if self.slots.get(&id).is_some_and(|slot| slot.leaving) {
                self.slots.remove(&id);
            }
        }
        None
    }

    /// The next thing that the shell must do.
    pub fn poll_command(&mut self) -> Option<Task> {
        self.tasks.pop_front().or_else(|| {
            self.pacer
                .poll()
                .map(|(router, announcement)| Task::Router {
                    router,
                    command: Command::Announce(announcement),
                })
        })
    }

    /// The next thing that an application may want to know.
    pub fn poll_event(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let router = self.deadlines.first().map(|(due, _)| *due);
        let object = self.object_deadlines.first().map(|(due, _)| *due);
        let object = object.filter(|_| self.started);
        let times = [router, object, self.pacer.poll_timeout()];
        times.into_iter().flatten().min()
    }

    /// A virtual router.
    #[must_use]
    pub fn virtual_router(&self, id: RouterId) -> Option<&VirtualRouter> {
        self.slots.get(&id).map(|slot| &slot.router)
    }

    /// The name of a virtual router.
    #[must_use]
    pub fn name(&self, id: RouterId) -> Option<&Arc<str>> {
        self.slots.get(&id).map(|slot| &slot.name)
    }

    /// The virtual routers, in the order of the configuration.
    pub fn virtual_routers(&self) -> impl Iterator<Item = (RouterId, &VirtualRouter)> {
        self.order.iter().map(|id| (*id, &self.slots[id].router))
    }

    /// The virtual router of a name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<RouterId> {
        let mut order = self.order.iter().copied();
        order.find(|id| &*self.slots[id].name == name)
    }

    /// Datagrams for virtual routers that are not here.
    #[must_use]
    pub const fn unknown_vrids(&self) -> u64 {
        self.unknown_vrids
    }

    /// Whose is a datagram?
    fn find(
        &mut self,
        interface: &InterfaceName,
        received: &Received<'_>,
    ) -> Result<RouterId, Discard> {
        let datagram = &received.datagram;
        let vrid = datagram.vrid().ok_or(Discard::TooShort)?;
        let key = (interface.clone(), datagram.family(), vrid);
        let Some(candidates) = self.by_vrid.get(&key) else {
            self.unknown_vrids += 1;
            return Err(Discard::UnknownVrid(vrid));
        };
        let source = datagram.source();
        let destination = datagram.destination();
        let multicast = destination.is_some_and(|address| address.is_multicast());
        let rank = |id: &&RouterId| {
            let router = &self.slots[*id].router;
            let reach = &router.config().reach;
            let peers = match reach {
                Reach::Multicast { .. } => &[][..],
                Reach::Unicast { peers, .. } => peers,
            };
            (
                reach.is_multicast() == multicast,
                multicast || router.source() == destination,
                router.last_heard() == source,
                peers.iter().any(|peer| Some(peer.address) == source),
            )
        };
        // The first of the best.
        let best = candidates.iter().rev().max_by_key(rank);
        best.copied().ok_or(Discard::UnknownVrid(vrid))
    }

    /// Does something to a router and lets everything else follow from it.
    fn with_router<T>(
        &mut self,
        now: Instant,
        id: RouterId,
        change: impl FnOnce(&mut VirtualRouter) -> T,
    ) -> Option<T> {
        let result = change(&mut self.slots.get_mut(&id)?.router);
        let events = self.collect(now, id);
        self.lead_group(now, id, &events);
        Some(result)
    }

    /// Does something to a router that the others of its group do not follow.
    fn with_follower(
        &mut self,
        now: Instant,
        id: RouterId,
        change: impl FnOnce(&mut VirtualRouter),
    ) {
        if let Some(slot) = self.slots.get_mut(&id) {
            change(&mut slot.router);
            self.collect(now, id);
        }
    }

    /// Takes a router's news, and notes its deadline.
    fn collect(&mut self, now: Instant, id: RouterId) -> Vec<Event> {
        let Some(slot) = self.slots.get_mut(&id) else {
            return Vec::new();
        };
        let due = slot.router.poll_timeout();
        if due != slot.due {
            if let Some(old) = slot.due {
                self.deadlines.remove(&(old, id));
            }
            if let Some(new) = due {
                self.deadlines.insert((new, id));
            }
            slot.due = due;
        }
        if slot.router.has_transmit() && !self.sending.contains(&id) {
            self.sending.push_back(id);
        }
        while let Some(command) = slot.router.poll_command() {
            match command {
                Command::Announce(announcement) => self.pacer.push(now, id, announcement),
                command => {
                    // What is taken away is not spoken of any more.
                    match &command {
                        Command::RemoveRoutes => self.pacer.take_back(id),
                        Command::RemoveAddresses(addresses) => {
                            self.pacer.take_back_addresses(id, addresses);
                        }
                        _ => {}
                    }
                    self.tasks.push_back(Task::Router {
                        router: id,
                        command,
                    });
                }
            }
        }
        let group = slot.group.and_then(|group| self.groups.get(group.0));
        let mut events = Vec::new();
        while let Some(event) = slot.router.poll_event() {
            let silent = match (&event, group) {
                (Event::StateChanged(change), Some(group)) => {
                    group.told && group.state == change.to
                }
                _ => false,
            };
            self.notices.push_back(Notice::Router {
                router: id,
                name: slot.name.clone(),
                event: event.clone(),
                silent,
            });
            events.push(event);
        }
        events
    }

    /// Ends a router that is no longer configured.
    fn dismiss(&mut self, now: Instant, id: RouterId) {
        self.with_follower(now, id, |router| router.finish(Reason::Removed));
        if self.sending.contains(&id) {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.leaving = true;
                slot.group = None;
            }
        } else {
            self.slots.remove(&id);
        }
    }
}
