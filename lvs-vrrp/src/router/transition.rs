//! Moves between the states, and what each of them asks of the shell.

use super::VirtualRouter;
use crate::announce::{Announcement, Schedule};
use crate::command::Command;
use crate::config::{Config, LateActive, Reach, VirtualAddress};
use crate::event::{Event, Fault, Peer, Reason, RemovedObject, RivalOutcome, StateChange};
use crate::state::{Active, Backup, Cause, Machine, PreemptDelay, Rival, State};
use crate::timing;
use crate::wire::Addresses;
use std::net::IpAddr;
use std::time::{Duration, Instant};

impl VirtualRouter {
    /// Leaves Waiting or Fault for the state that fits now.
    pub(super) fn settle(&mut self, now: Instant, reason: Reason) {
        if let Some(fault) = self.faults.first().cloned() {
            if matches!(self.machine, Machine::Waiting) {
                self.enter_fault(fault);
            }
            return;
        }
        if !self.unknown.is_empty() {
            return;
        }
        self.forget_interval();
        // An owner takes over at once when it starts, but not when something was broken.
        let owner = self.config.priority.is_owner()
            && self.gate_open
            && !self.owner_waits
            && matches!(self.machine, Machine::Waiting);
        let recovered = matches!(self.machine, Machine::Fault);
        let base = self.quiet_until.map_or(now, |end| end.max(now));
        if owner && base == now {
            self.become_active(now, Reason::Owner);
            return;
        }
        let from = self.state();
        let deadline = if owner {
            base + self.config.interval.duration()
        } else {
            base + self.active_down_time()
        };
        self.machine = Machine::Backup(Backup {
            deadline,
            cause: if owner {
                Cause::Owner
            } else {
                Cause::Silence(now)
            },
            delay: PreemptDelay::NotStarted,
            wants_active: false,
            listened: false,
        });
        self.active = None;
        self.changed(from, reason);
        if recovered {
            self.announce_source();
        }
    }

    /// A Backup's deadline has passed.
    pub(super) fn take_over(&mut self, now: Instant) {
        let grace = self.active_interval.duration() + self.skew_time();
        let interval = self.active_interval.duration();
        let Machine::Backup(backup) = &mut self.machine else {
            return;
        };
        let late = now.saturating_duration_since(backup.deadline);
        // Who slept does not know whether the others spoke. One interval tells.
        if late > interval && !backup.listened && backup.cause != Cause::Owner {
            backup.listened = true;
            backup.deadline = now + grace;
            self.statistics.late_wakeups += 1;
            self.events.push_back(Event::Late {
                state: State::Backup,
                by: late,
            });
            return;
        }
        let reason = self.take_over_reason(now);
        self.become_active(now, reason);
    }

    /// Its sync group does not let it: it notes that it would, and waits anew.
    pub(crate) fn wait_for_group(&mut self, now: Instant) {
        let deadline = now + self.active_down_time();
        if let Machine::Backup(backup) = &mut self.machine {
            backup.deadline = deadline;
            if !backup.wants_active {
                backup.wants_active = true;
                self.events.push_back(Event::WaitsForGroup);
            }
        }
    }

    /// The sync group becomes Active.
    pub(crate) fn follow_group_up(&mut self, now: Instant) {
        if let Machine::Backup(_) = self.machine {
            self.become_active(now, Reason::Group);
        }
    }

    /// The sync group becomes Backup: without a word to the peers.
    pub(crate) fn follow_group_down(&mut self, now: Instant) {
        if let Machine::Active(_) = self.machine {
            self.enter_backup(now, now, Reason::Group);
        }
    }

    fn take_over_reason(&self, now: Instant) -> Reason {
        let Machine::Backup(backup) = &self.machine else {
            return Reason::Started;
        };
        match (backup.cause, self.ignored) {
            (Cause::Owner, _) => Reason::Owner,
            (Cause::Retry, _) => Reason::Retry,
            (Cause::Resignation(address), _) => Reason::Resignation { address },
            (Cause::Silence(_), Some((peer, heard)))
                if now.saturating_duration_since(heard) < self.active_down_time() =>
            {
                Reason::Preempted {
                    peer,
                    own: self.effective_priority(),
                }
            }
            (Cause::Silence(since), _) => Reason::Silence {
                peer: self.active.map(|(peer, _)| peer),
                silent_for: now.saturating_duration_since(since),
            },
        }
    }

    /// Advertises first, so that the old Active router takes its addresses away before they are set here.
    fn become_active(&mut self, now: Instant, reason: Reason) {
        let from = self.state();
        self.said.clear();
        self.ignored = None;
        self.lowered_for = None;
        self.sequence.begin();
        let mut announcements = Schedule::default();
        let settings = self.config.announcements;
        announcements.begin(settings.repeat.max(1));
        if !settings.delay.is_zero() {
            announcements.begin_at(now + settings.delay, settings.repeat.max(1));
        }
        if !settings.refresh.is_zero() {
            let first = now + settings.delay + settings.refresh;
            announcements.refresh(first, settings.refresh, settings.refresh_repeat.max(1));
        }
        self.machine = Machine::Active(Active {
            next_advert: now,
            last_advert: now,
            announcements,
            rival: Rival::None,
            restored: None,
        });
        self.send_advert(now);
        self.statistics.became_active += 1;
        self.forget_interval();
        let moved: Vec<_> = self.moved_addresses().cloned().collect();
        if !self.config.accept {
            self.commands.push_back(Command::SetAcceptMode {
                accept: false,
                addresses: moved.clone(),
            });
        }
        self.commands.push_back(Command::AddAddresses(moved));
        self.commands.push_back(Command::AddRoutes);
        self.changed(from, reason);
    }

    /// Every timer of an Active router.
    pub(super) fn handle_active_timeout(&mut self, now: Instant) {
        let Machine::Active(active) = &mut self.machine else {
            return;
        };
        if let Rival::Watched { until } = active.rival
            && until <= now
        {
            active.rival = Rival::None;
            if let Some((peer, _)) = self.active {
                self.events.push_back(Event::RivalOwner {
                    source: peer.address,
                    outcome: RivalOutcome::TheyYielded,
                });
            }
        }
        active.announcements.handle_timeout(now);
        if active.next_advert > now {
            return;
        }
        let (due, last) = (active.next_advert, active.last_advert);
        let silent_for = now.saturating_duration_since(last);
        if silent_for >= self.replaced_after() {
            self.statistics.late_wakeups += 1;
            if let LateActive::YieldTo(_) = self.config.late {
                self.enter_backup(now, now, Reason::Late { silent_for });
                return;
            }
            self.events.push_back(Event::Late {
                state: State::Active,
                by: now.saturating_duration_since(due),
            });
            self.announce(self.config.announcements.repeat.max(1));
        }
        self.send_advert(now);
        // The pace is kept, unless a whole beat was missed.
        let interval = self.config.interval.duration();
        if let Machine::Active(active) = &mut self.machine
            && due + interval > now
        {
            active.next_advert = due + interval;
        }
    }

    /// After this long without an advertisement of ours the best of the others has taken over.
    fn replaced_after(&self) -> Duration {
        let best = match self.config.late {
            LateActive::Reannounce => 254,
            LateActive::YieldTo(priority) => priority.get(),
        };
        timing::active_down_time(self.config.version, best, self.config.interval, 3)
    }

    /// From Active to Backup, as if the advertisement that caused it arrived at `since`.
    pub(super) fn enter_backup(&mut self, now: Instant, since: Instant, reason: Reason) {
        self.leave_active();
        let deadline = since + self.active_down_time();
        self.machine = Machine::Backup(Backup {
            deadline: deadline.max(now),
            cause: Cause::Silence(since),
            delay: PreemptDelay::NotStarted,
            wants_active: false,
            listened: false,
        });
        self.changed(State::Active, reason);
    }

    /// From anywhere to Fault.
    pub(super) fn enter_fault(&mut self, fault: Fault) {
        let from = self.state();
        if let Machine::Active(_) = self.machine {
            self.send_resignation();
            // Once more, in case the first is lost; a group that follows says it once.
            if fault != Fault::Group {
                self.queue_advert(0);
            }
            self.leave_active();
        }
        self.machine = Machine::Fault;
        self.changed(from, Reason::Fault(fault));
    }

    /// An object of an Active router is gone. It is set again at once; whoever goes on taking it away wins, and then the others get
    /// their chance.
    pub(super) fn handle_object_removed(&mut self, now: Instant, object: RemovedObject) {
        let restores = self.config.restore_removed;
        let Machine::Active(active) = &mut self.machine else {
            return;
        };
        let (count, since) = match active.restored {
            Some((count, since)) if now < since + RESTORE_WINDOW => (count, since),
            _ => (0, now),
        };
        if restores && count < RESTORE_LIMIT {
            active.restored = Some((count + 1, since));
            match &object {
                RemovedObject::Address { address, interface } => {
                    let again = VirtualAddress {
                        address: *address,
                        interface: interface.clone(),
                    };
                    self.commands.push_back(Command::AddAddresses(vec![again]));
                    // The kernel takes routes away with the address that they need.
                    self.commands.push_back(Command::AddRoutes);
                    self.announce(1);
                }
                RemovedObject::Route => self.commands.push_back(Command::AddRoutes),
            }
            self.events.push_back(Event::Restored { object });
            return;
        }
        self.step_down(now, Reason::ObjectRemoved { object });
    }

    /// Leaves with priority 0 and comes back a skew time later, unless a better one does.
    pub(crate) fn step_down(&mut self, now: Instant, reason: Reason) {
        if !matches!(self.machine, Machine::Active(_)) {
            return;
        }
        self.send_resignation();
        self.leave_active();
        self.machine = Machine::Backup(Backup {
            deadline: now + self.skew_time(),
            cause: Cause::Retry,
            delay: PreemptDelay::NotStarted,
            wants_active: false,
            listened: true,
        });
        self.changed(State::Active, reason);
    }

    /// Ends, whatever it was.
    pub(crate) fn finish(&mut self, reason: Reason) {
        let from = self.state();
        if let Machine::Active(_) = self.machine {
            self.send_resignation();
            self.leave_active();
        }
        let ran = !matches!(self.machine, Machine::Initialize);
        self.machine = Machine::Initialize;
        self.active = None;
        if ran {
            self.changed(from, reason);
        }
    }

    /// Takes everything away; bursts that have not been drained end with the state.
    fn leave_active(&mut self) {
        self.statistics.released_active += 1;
        self.remove_everything();
    }

    pub(super) fn remove_everything(&mut self) {
        let moved: Vec<_> = self.moved_addresses().cloned().collect();
        self.commands.push_back(Command::RemoveRoutes);
        self.commands
            .push_back(Command::RemoveAddresses(moved.clone()));
        if !self.config.accept {
            self.commands.push_back(Command::SetAcceptMode {
                accept: true,
                addresses: moved,
            });
        }
    }

    fn changed(&mut self, from: State, reason: Reason) {
        let to = self.state();
        self.said.clear();
        self.events.push_back(Event::StateChanged(StateChange {
            from,
            to,
            reason,
            priority: self.effective_priority(),
        }));
    }

    /// The effective priority or what else the master-down time follows from may have changed: a Backup's deadline moves along.
    pub(super) fn priority_changed(&mut self, now: Instant, before: u8, down_before: Duration) {
        let after = self.effective_priority();
        let down = self.active_down_time();
        if let Machine::Backup(backup) = &mut self.machine {
            backup.deadline = if down >= down_before {
                backup.deadline + (down - down_before)
            } else {
                let earlier = backup.deadline.checked_sub(down_before - down);
                earlier.map_or(now, |earlier| earlier.max(now))
            };
        }
        if after != before && !matches!(self.machine, Machine::Initialize | Machine::Waiting) {
            self.events.push_back(Event::PriorityChanged {
                from: before,
                to: after,
                state: self.state(),
            });
        }
    }

    pub(super) fn change_config(&mut self, now: Instant, config: Config, advertised: Addresses) {
        if let Machine::Active(_) = self.machine {
            self.send_advert(now);
        }
        let before = self.effective_priority();
        let down = self.active_down_time();
        let old = std::mem::replace(&mut self.config, config);
        self.advertised = advertised;
        if matches!(self.machine, Machine::Active(_))
            || old.version != self.config.version
            || self.active.is_none()
        {
            self.forget_interval();
        }
        if let Machine::Backup(backup) = &mut self.machine
            && old.preemption != self.config.preemption
        {
            backup.delay = PreemptDelay::NotStarted;
        }
        self.priority_changed(now, before, down);
        if let Machine::Active(_) = self.machine {
            self.change_addresses(now, &old);
            self.send_advert(now);
        }
    }

    /// The Active router's addresses become those of the new configuration.
    fn change_addresses(&mut self, now: Instant, old: &Config) {
        let is = |config: &Config, address: &VirtualAddress| {
            config.addresses.contains(address) || config.excluded.contains(address)
        };
        let old_all: Vec<_> = old.addresses.iter().chain(&old.excluded).collect();
        let gone: Vec<_> = old_all
            .iter()
            .filter(|each| !is(&self.config, each))
            .map(|each| (*each).clone())
            .collect();
        let new: Vec<_> = self
            .moved_addresses()
            .filter(|each| !is(old, each))
            .cloned()
            .collect();
        let all: Vec<_> = self.moved_addresses().cloned().collect();
        if !gone.is_empty() {
            self.commands.push_back(Command::RemoveAddresses(gone));
        }
        let lists_differ = old_all.into_iter().ne(self.moved_addresses());
        if (old.accept, self.config.accept) != (true, true)
            && (old.accept != self.config.accept || lists_differ)
        {
            self.commands.push_back(Command::SetAcceptMode {
                accept: self.config.accept,
                addresses: all,
            });
        }
        let settings = self.config.announcements;
        let added = !new.is_empty();
        if added {
            self.commands.push_back(Command::AddAddresses(new));
        }
        let Machine::Active(active) = &mut self.machine else {
            return;
        };
        if added || !settings.refresh.is_zero() {
            active.announcements.begin(settings.repeat.max(1));
        }
        if added && !settings.delay.is_zero() {
            active.announcements.forget_later();
            active
                .announcements
                .begin_at(now + settings.delay, settings.repeat.max(1));
        }
    }

    /// A burst now.
    pub(crate) fn announce(&mut self, rounds: u32) {
        if let Machine::Active(active) = &mut self.machine {
            active.announcements.begin(rounds);
        }
    }

    /// The bursts that follow a losing advertisement, heard by this router or by another member of its sync group.
    pub(crate) fn announce_after_lower(&mut self, now: Instant) {
        let settings = self.config.announcements;
        let rounds = settings.lower_priority_repeat;
        if let Machine::Active(active) = &mut self.machine
            && rounds > 0
        {
            active.announcements.begin(rounds);
            if !settings.lower_priority_delay.is_zero() {
                active
                    .announcements
                    .begin_at(now + settings.lower_priority_delay, rounds);
            }
        }
    }

    /// Unicast peers may have forgotten where we are while the link was down.
    fn announce_source(&mut self) {
        if let (Reach::Unicast { .. }, Some(address)) = (&self.config.reach, self.source) {
            let interface = self.config.interface.clone();
            self.commands
                .push_back(Command::Announce(Announcement { address, interface }));
        }
    }

    /// A Backup whose deadline has passed, and the machine would let take over.
    pub(crate) fn would_take_over(&self, now: Instant) -> bool {
        matches!(&self.machine, Machine::Backup(backup) if backup.deadline <= now)
    }

    /// Whom it heard last, for those who compare.
    pub(crate) fn last_heard(&self) -> Option<IpAddr> {
        self.active
            .or(self.ignored)
            .map(|(Peer { address, .. }, _)| address)
    }
}

/// So many restorations within this time are tried before the router gives in.
const RESTORE_LIMIT: u8 = 5;
const RESTORE_WINDOW: Duration = Duration::from_secs(10);
