//! The virtual router: one state machine (RFC 9568, 6), with what keepalived adds to it.
//!
//! `hear` judges what comes in, `send` writes what goes out, `transition` moves between states; this file is the public face.

mod hear;
mod receive;
mod send;
mod transition;

#[cfg(test)]
mod tests;

use crate::announce::Announcement;
use crate::command::Command;
use crate::config::{Config, ConfigError, Family, Interval, Preemption, Version, VirtualAddress};
use crate::datagram::Received;
use crate::discard::{Complaint, Discard};
use crate::event::{Event, Fault, Peer, Reason, RemovedObject};
use crate::state::{Backup, Cause, Machine, PreemptDelay, State};
use crate::statistics::Statistics;
use crate::timing;
use crate::track::{Health, TrackedObject};
use crate::wire::Addresses;
pub use send::Transmit;
use send::{Outgoing, Sequence};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// One virtual router as a sans-IO machine.
///
/// Facts go in with the present time; [`poll_transmit`](Self::poll_transmit), [`poll_command`](Self::poll_command) and
/// [`poll_event`](Self::poll_event) are drained, in this order, after every call that takes `&mut self`; then
/// [`poll_timeout`](Self::poll_timeout) says when [`handle_timeout`](Self::handle_timeout) is due. Before that call all datagrams
/// that the socket holds must have been handed over: see the crate's page.
#[derive(Debug)]
pub struct VirtualRouter {
    config: Config,
    advertised: Addresses,
    machine: Machine,
    source: Option<IpAddr>,
    faults: BTreeSet<Fault>,
    unknown: BTreeSet<TrackedObject>,
    weight: i32,
    /// A rival before whom this owner has gone down to 254.
    lowered_for: Option<IpAddr>,
    /// The Active router's interval; in version 2 always the own one.
    active_interval: Interval,
    active: Option<(Peer, Instant)>,
    /// The last lower router that a preempting Backup did not listen to.
    ignored: Option<(Peer, Instant)>,
    sequence: Sequence,
    identification: u16,
    old_checksum: bool,
    gate_open: bool,
    /// An owner in a sync group with others that are none: it starts like them.
    owner_waits: bool,
    quiet_until: Option<Instant>,
    said: BTreeSet<(IpAddr, Discard)>,
    complaints: BTreeMap<IpAddr, Complaint>,
    statistics: Statistics,
    transmits: VecDeque<Outgoing>,
    commands: VecDeque<Command>,
    events: VecDeque<Event>,
}

/// What an advertisement that passed all checks did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heard {
    /// A Backup goes on following.
    Followed,
    /// A Backup waits its skew time only: the Active router leaves.
    Resignation,
    /// An Active router stays Active: the other loses.
    Lost,
    /// An Active router became Backup: the other is better.
    Won,
    /// Another router has our address and priority. Nothing can be decided.
    Twin,
}

impl VirtualRouter {
    /// A router in Initialize. Tell it its source address and its faults, then [`start`](Self::start) it.
    ///
    /// # Errors
    /// When the configuration is not consistent.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let advertised = config.advertised().ok_or(ConfigError::Addresses)?;
        Ok(Self {
            active_interval: config.interval,
            advertised,
            config,
            machine: Machine::Initialize,
            source: None,
            faults: BTreeSet::from([Fault::NoSource]),
            unknown: BTreeSet::new(),
            weight: 0,
            lowered_for: None,
            active: None,
            ignored: None,
            sequence: Sequence::default(),
            identification: 0,
            old_checksum: false,
            gate_open: true,
            owner_waits: false,
            quiet_until: None,
            said: BTreeSet::new(),
            complaints: BTreeMap::new(),
            statistics: Statistics::default(),
            transmits: VecDeque::new(),
            commands: VecDeque::new(),
            events: VecDeque::new(),
        })
    }

    /// Begins: what an earlier run has left is removed; then Fault, Backup, or Active at once for an owner. Does nothing unless in
    /// Initialize.
    pub fn start(&mut self, now: Instant) {
        if !matches!(self.machine, Machine::Initialize) {
            return;
        }
        let delay = self.config.startup_delay;
        self.quiet_until = (!delay.is_zero()).then(|| now + delay);
        self.remove_everything();
        self.machine = Machine::Waiting;
        self.settle(now, Reason::Started);
    }

    /// Ends: an Active router leaves with priority 0 and removes everything. To be started again it may be.
    pub fn shutdown(&mut self, _now: Instant) {
        self.finish(Reason::ShutDown);
    }

    /// A datagram of the socket. Returns what it did, or why it did nothing.
    ///
    /// # Errors
    /// A refused advertisement is no failure of the caller's; the reason has been counted.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        received: &Received<'_>,
    ) -> Result<Heard, Discard> {
        let arrived = received.arrived.min(now);
        let result = self
            .judge(arrived, &received.datagram)
            .and_then(|advert| self.hear(now, arrived, advert));
        if let Err(discard) = result {
            self.refuse(received.datagram.source(), discard);
        }
        result
    }

    /// The deadline has passed. Calling early or twice is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &self.machine {
            Machine::Backup(backup) if backup.deadline <= now => self.take_over(now),
            Machine::Active(_) => self.handle_active_timeout(now),
            _ => {}
        }
        debug_assert!(
            self.poll_timeout().is_none_or(|next| next > now),
            "deadlines move forward"
        );
    }

    /// The interface's address that advertisements are sent from appeared, changed, or vanished. For IPv6 multicast it is the
    /// link-local one; see [`select_source`](crate::select_source).
    pub fn handle_source(&mut self, now: Instant, source: Option<IpAddr>) {
        let source = source.filter(|source| Family::of(*source) == self.config.family);
        match source {
            Some(_) => {
                self.source = source;
                self.clear_fault(now, &Fault::NoSource);
            }
            None => {
                // IPv4 still leaves from the address that was; the kernel would refuse IPv6.
                if self.config.family == Family::V6 {
                    self.source = None;
                }
                self.raise_fault(now, Fault::NoSource);
                self.source = None;
            }
        }
    }

    /// An object that is tracked without a weight changed its health. The own interface is one.
    pub fn handle_health(&mut self, now: Instant, object: TrackedObject, health: Health) {
        match health {
            Health::Unknown => {
                self.unknown.insert(object.clone());
                self.clear_fault(now, &Fault::Object(object));
            }
            Health::Failed => {
                self.unknown.remove(&object);
                self.raise_fault(now, Fault::Object(object));
            }
            Health::Good => {
                self.unknown.remove(&object);
                self.clear_fault(now, &Fault::Object(object));
            }
        }
    }

    /// Something else is broken.
    pub fn raise_fault(&mut self, _now: Instant, fault: Fault) {
        if !self.faults.insert(fault.clone()) {
            return;
        }
        match self.machine {
            Machine::Initialize | Machine::Fault => {}
            Machine::Waiting | Machine::Backup(_) | Machine::Active(_) => {
                self.enter_fault(fault);
            }
        }
    }

    /// It is broken no more.
    pub fn clear_fault(&mut self, now: Instant, fault: &Fault) {
        self.faults.remove(fault);
        match self.machine {
            Machine::Fault => self.settle(now, Reason::Recovered),
            Machine::Waiting => self.settle(now, Reason::Started),
            _ => {}
        }
    }

    /// The sum of the weights of everything that is tracked changed. The effective priority is the base priority plus this, within
    /// 1 and 254; an owner's stays 255.
    pub fn set_weight(&mut self, now: Instant, weight: i32) {
        let before = self.effective_priority();
        let down = self.active_down_time();
        self.weight = weight;
        self.priority_changed(now, before, down);
    }

    /// An address of an Active router was taken away by somebody.
    pub fn handle_address_removed(&mut self, now: Instant, address: &VirtualAddress) {
        if self.moved_addresses().any(|each| each == address) {
            let object = RemovedObject::Address {
                address: address.address,
                interface: address.interface.clone(),
            };
            self.handle_object_removed(now, object);
        }
    }

    /// A virtual route or rule of an Active router was taken away by somebody.
    pub fn handle_route_removed(&mut self, now: Instant) {
        self.handle_object_removed(now, RemovedObject::Route);
    }

    /// Opens or closes the way to preemption. While it is closed the router takes over from silence and priority 0 only, whatever its
    /// priority: for a director whose connection table is not complete yet. Open when made.
    pub fn set_preempt_gate(&mut self, now: Instant, open: bool) {
        self.gate_open = open;
        let down = self.active_down_time();
        if let Machine::Backup(backup) = &mut self.machine {
            backup.delay = PreemptDelay::NotStarted;
            if !open && backup.cause == Cause::Owner {
                backup.cause = Cause::Silence(now);
                backup.deadline = now + down;
            }
        }
    }

    /// Another configuration for the same router; an equal one changes nothing at all. State, statistics and sequence numbers
    /// stay, and so does the running deadline, moved by the difference of the master-down times. An Active router advertises before
    /// and after, so that no Backup loses patience.
    ///
    /// # Errors
    /// When the configuration is not consistent or belongs to another router; then nothing changes.
    pub fn reconfigure(&mut self, now: Instant, config: Config) -> Result<(), ConfigError> {
        config.check()?;
        let advertised = config.advertised().ok_or(ConfigError::Addresses)?;
        if !self.config.is_same_router(&config) {
            return Err(ConfigError::OtherRouter);
        }
        if config == self.config {
            return Ok(());
        }
        self.change_config(now, config, advertised);
        Ok(())
    }

    /// Tells the machine that virtual routes or rules changed by a reload.
    pub fn routes_changed(&mut self) {
        if matches!(self.machine, Machine::Active(_)) {
            self.commands.push_back(Command::ReplaceRoutes);
        }
    }

    /// The next datagram to send, written into `buffer` (whose content is replaced).
    pub fn poll_transmit(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        self.transmits
            .pop_front()
            .map(|outgoing| outgoing.write(buffer))
    }

    pub(crate) fn has_transmit(&self) -> bool {
        !self.transmits.is_empty()
    }

    /// The next thing that the shell must do.
    pub fn poll_command(&mut self) -> Option<Command> {
        if let Some(command) = self.commands.pop_front() {
            return Some(command);
        }
        let (vips, excluded) = (&self.config.addresses, &self.config.excluded);
        let Machine::Active(active) = &mut self.machine else {
            return None;
        };
        let at = active.announcements.next(vips.len() + excluded.len())?;
        let address = vips.get(at).or_else(|| excluded.get(at - vips.len()))?;
        Some(Command::Announce(Announcement {
            address: address.address,
            interface: address.interface.clone(),
        }))
    }

    /// The next thing that an operator may want to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; `None` in Initialize and Fault.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.machine {
            Machine::Initialize | Machine::Waiting | Machine::Fault => None,
            Machine::Backup(backup) => Some(backup.deadline),
            Machine::Active(active) => {
                let rival = match active.rival {
                    crate::state::Rival::Watched { until } => Some(until),
                    _ => None,
                };
                let others = [active.announcements.poll_timeout(), rival];
                let next = Some(active.next_advert);
                others.into_iter().flatten().chain(next).min()
            }
        }
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.machine.state()
    }

    /// Counters.
    #[must_use]
    pub const fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// What is broken.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter()
    }

    /// What has not reported yet and is waited for.
    pub fn awaited(&self) -> impl Iterator<Item = &TrackedObject> {
        self.unknown.iter()
    }

    /// The router that this one follows or last followed, and when it was last heard.
    #[must_use]
    pub const fn active_router(&self) -> Option<(Peer, Instant)> {
        self.active
    }

    /// Senders that cannot be understood, at most 16.
    pub fn complaints(&self) -> impl Iterator<Item = &Complaint> {
        self.complaints.values()
    }

    /// The address that advertisements are sent from.
    #[must_use]
    pub const fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// Its timer has ended, but its sync group holds it back.
    #[must_use]
    pub const fn waits_for_group(&self) -> bool {
        matches!(&self.machine, Machine::Backup(backup) if backup.wants_active)
    }

    /// When a preemption delay that has begun is over.
    #[must_use]
    pub const fn preempt_delay_end(&self) -> Option<Instant> {
        match &self.machine {
            Machine::Backup(Backup {
                delay: PreemptDelay::Until(end),
                ..
            }) => Some(*end),
            _ => None,
        }
    }

    /// The priority that is advertised: base plus weights within 1 and 254; 255 for an owner, 254 for one that gave in to a rival.
    #[must_use]
    pub fn effective_priority(&self) -> u8 {
        if self.config.priority.is_owner() {
            return if self.lowered_for.is_some() { 254 } else { 255 };
        }
        let total = i32::from(self.config.priority.get()).saturating_add(self.weight);
        u8::try_from(total.clamp(1, 254)).expect("clamped")
    }

    /// How much less a higher priority waits.
    #[must_use]
    pub fn skew_time(&self) -> Duration {
        timing::skew_time(
            self.config.version,
            self.timer_priority(),
            self.active_interval,
        )
    }

    /// How long nothing is heard before this router takes over.
    #[doc(alias = "master_down_interval")]
    #[must_use]
    pub fn active_down_time(&self) -> Duration {
        timing::active_down_time(
            self.config.version,
            self.timer_priority(),
            self.active_interval,
            self.config.down_timer_adverts,
        )
    }

    pub(crate) const fn set_owner_waits(&mut self, waits: bool) {
        self.owner_waits = waits;
    }

    /// Timers of an owner are an owner's even while it has gone down to 254.
    fn timer_priority(&self) -> u8 {
        if self.config.priority.is_owner() {
            255
        } else {
            self.effective_priority()
        }
    }

    /// All addresses that move, in the order of adding and removing.
    fn moved_addresses(&self) -> impl Iterator<Item = &VirtualAddress> {
        self.config.addresses.iter().chain(&self.config.excluded)
    }

    fn preempts(&self) -> bool {
        self.gate_open && self.config.preemption != Preemption::Off
    }

    /// Back to the own interval, and to what one waits with it.
    const fn forget_interval(&mut self) {
        self.active_interval = self.config.interval;
    }

    /// Counts a refused advertisement, and complains of a sender once for each reason.
    fn refuse(&mut self, source: Option<IpAddr>, discard: Discard) {
        self.statistics.count(discard);
        let Some(source) = source.filter(|_| discard.is_complaint()) else {
            return;
        };
        let known = self.complaints.len() < MAX_COMPLAINTS || self.complaints.contains_key(&source);
        if !known {
            return;
        }
        let complaint = self.complaints.entry(source).or_insert(Complaint {
            source,
            reason: discard,
            count: 0,
        });
        complaint.reason = discard;
        complaint.count += 1;
        let complaint = *complaint;
        // What a hostile sender can vary does not make a new reason.
        let kind = discard.kind();
        if self.said.len() < MAX_SAID && self.said.insert((source, kind)) {
            self.events.push_back(Event::Complaint(complaint));
        }
    }

    /// Version 3 learns the interval of whom it follows.
    fn learn(&mut self, source: IpAddr, interval: Option<Interval>) {
        let Some(interval) = interval.filter(|_| self.config.version == Version::V3) else {
            return;
        };
        if interval != self.active_interval {
            self.active_interval = interval;
            let event = Event::IntervalLearned { source, interval };
            self.events.push_back(event);
        }
    }
}

const MAX_COMPLAINTS: usize = 16;
const MAX_SAID: usize = 64;
