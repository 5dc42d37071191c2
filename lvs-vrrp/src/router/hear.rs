//! What an advertisement that passed the checks means (RFC 9568, 6.4.2 and 6.4.3).

use super::receive::Advert;
use super::{Heard, VirtualRouter};
use crate::config::Preemption;
use crate::discard::Discard;
use crate::event::{Event, Peer, Reason, RivalOutcome};
use crate::state::{Cause, Machine, PreemptDelay, Rival};
use std::cmp::Ordering;
use std::net::IpAddr;
use std::time::Instant;

impl VirtualRouter {
    pub(super) fn hear(
        &mut self,
        now: Instant,
        arrived: Instant,
        advert: Advert,
    ) -> Result<Heard, Discard> {
        match self.machine {
            Machine::Backup(_) => self.hear_as_backup(now, arrived, advert),
            Machine::Active(_) => Ok(self.hear_as_active(now, arrived, advert)),
            Machine::Initialize | Machine::Waiting | Machine::Fault => Err(Discard::NotListening),
        }
    }

    fn hear_as_backup(
        &mut self,
        now: Instant,
        arrived: Instant,
        advert: Advert,
    ) -> Result<Heard, Discard> {
        self.sequence.exhausted = false;
        if advert.priority == 0 {
            let deadline = arrived + self.skew_time();
            if let Machine::Backup(backup) = &mut self.machine {
                backup.deadline = deadline;
                backup.cause = Cause::Resignation(advert.source);
                backup.listened = true;
            }
            self.active
                .take_if(|(followed, _)| followed.address == advert.source);
            return Ok(Heard::Resignation);
        }
        let peer = Peer {
            address: advert.source,
            priority: advert.priority,
        };
        self.raise_lowered_owner(now, peer);
        let secondary = self.follows_better_than(peer, arrived);
        let lower = advert.priority < self.effective_priority();
        let follow = !lower || !self.preempts() || self.delays_preemption(arrived);
        let Machine::Backup(backup) = &mut self.machine else {
            return Err(Discard::NotListening);
        };
        if !follow {
            self.ignored = Some((peer, arrived));
            return Err(Discard::LowerPriority(advert.priority));
        }
        if !lower {
            backup.delay = PreemptDelay::NotStarted;
        }
        backup.wants_active = false;
        backup.listened = false;
        backup.cause = Cause::Silence(arrived);
        let before = backup.deadline;
        self.ignored = None;
        if secondary {
            let deadline = before.max(arrived + self.active_down_time());
            if let Machine::Backup(backup) = &mut self.machine {
                backup.deadline = deadline;
            }
            return Ok(Heard::Followed);
        }
        self.learn(advert.source, advert.interval);
        let deadline = arrived + self.active_down_time();
        if let Machine::Backup(backup) = &mut self.machine {
            backup.deadline = deadline;
        }
        self.follow(peer, arrived);
        Ok(Heard::Followed)
    }

    /// Does it follow a better router than this one, and not too long ago? Then this one will yield soon, and its interval is not
    /// the one to wait by: Backups that learned the short interval of each loser in turn would take over one after the other, for
    /// ever.
    fn follows_better_than(&self, peer: Peer, arrived: Instant) -> bool {
        self.active.is_some_and(|(followed, heard)| {
            followed.address != peer.address
                && (followed.priority, followed.address) > (peer.priority, peer.address)
                && heard + self.active_down_time() > arrived
        })
    }

    /// Is a preemption delay configured and not over yet? The first lower advertisement starts it.
    fn delays_preemption(&mut self, arrived: Instant) -> bool {
        let Preemption::After(delay) = self.config.preemption else {
            return false;
        };
        let Machine::Backup(backup) = &mut self.machine else {
            return false;
        };
        match backup.delay {
            PreemptDelay::NotStarted => {
                backup.delay = PreemptDelay::Until(arrived + delay);
                !delay.is_zero()
            }
            PreemptDelay::Until(end) => arrived < end,
        }
    }

    /// Remembers whom this router follows.
    fn follow(&mut self, peer: Peer, arrived: Instant) {
        let known = self.active.map(|(known, _)| known.address);
        self.active = Some((peer, arrived));
        if known != Some(peer.address) {
            self.said.clear();
            self.events.push_back(Event::NewActive { peer });
        }
    }

    /// An owner that gave in to a rival is an owner again as soon as it hears anything else.
    fn raise_lowered_owner(&mut self, now: Instant, peer: Peer) {
        let Some(rival) = self.lowered_for else {
            return;
        };
        if peer.priority != 255 || peer.address != rival {
            let before = self.effective_priority();
            let down = self.active_down_time();
            self.lowered_for = None;
            self.priority_changed(now, before, down);
        }
    }

    fn hear_as_active(&mut self, now: Instant, arrived: Instant, advert: Advert) -> Heard {
        let peer = Peer {
            address: advert.source,
            priority: advert.priority,
        };
        if advert.priority == 0 {
            self.send_advert(now);
            if self.config.announcements.after_rival {
                self.announce(self.config.announcements.repeat);
            }
            return Heard::Lost;
        }
        if self.config.priority.is_owner() && advert.priority == 255 {
            self.meet_rival_owner(advert);
        }
        let own = self.effective_priority();
        match self.rank(peer) {
            Ordering::Equal => Heard::Twin,
            Ordering::Less => {
                self.sequence.exhausted = false;
                if let Some(sequence) = advert.sequence {
                    self.sequence.last = sequence.saturating_add(1);
                }
                if self.config.answer_lower {
                    self.send_advert(now);
                }
                self.announce_after_lower(now);
                self.events
                    .push_back(Event::LowerPriorityHeard { peer, own });
                Heard::Lost
            }
            Ordering::Greater => {
                self.sequence.exhausted = false;
                if self.config.answer_higher {
                    self.send_farewell(advert.interval);
                }
                self.forget_interval();
                self.learn(advert.source, advert.interval);
                self.active = Some((peer, arrived));
                self.enter_backup(now, arrived, Reason::Yielded { peer, own });
                Heard::Won
            }
        }
    }

    /// Is the other better than we are? Addresses count as numbers; where they cannot be compared nobody is better.
    pub(super) fn rank(&self, peer: Peer) -> Ordering {
        peer.priority.cmp(&self.effective_priority()).then_with(|| {
            match (peer.address, self.source) {
                (IpAddr::V4(theirs), Some(IpAddr::V4(ours))) => theirs.cmp(&ours),
                (IpAddr::V6(theirs), Some(IpAddr::V6(ours))) => theirs.cmp(&ours),
                _ => Ordering::Equal,
            }
        })
    }

    /// Two routers say that they own the addresses. The one of the higher address insists for two advertisements and an interval; if
    /// the other goes on then, it gives in with priority 254.
    fn meet_rival_owner(&mut self, advert: Advert) {
        let source = advert.source;
        let peer = Peer {
            address: source,
            priority: 255,
        };
        let rank = self.rank(peer);
        let interval = advert.interval.unwrap_or(self.config.interval);
        let Machine::Active(active) = &mut self.machine else {
            return;
        };
        let outcome = match (rank, active.rival) {
            (Ordering::Equal, _) => return,
            (Ordering::Greater, _) => RivalOutcome::WeYield,
            (Ordering::Less, Rival::None) => {
                active.rival = Rival::Warned {
                    adverts: 2,
                    interval,
                };
                RivalOutcome::TheyShouldYield
            }
            (Ordering::Less, Rival::Warned { .. }) => return,
            (Ordering::Less, Rival::Watched { .. }) => {
                active.rival = Rival::None;
                self.lowered_for = Some(source);
                RivalOutcome::WeLower
            }
        };
        self.events.push_back(Event::RivalOwner { source, outcome });
    }
}
