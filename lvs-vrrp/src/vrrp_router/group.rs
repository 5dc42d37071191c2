//! Sync groups: virtual routers that are Active together or not at all.

use super::{GroupId, Notice, RouterId, VrrpRouter};
use crate::event::{Event, Fault, Reason};
use crate::state::State;
use crate::track::{Health, TrackedObject};
use std::sync::Arc;
use std::time::Instant;

/// A sync group with its state.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Arc<str>,
    pub(super) members: Vec<RouterId>,
    pub(super) state: State,
    /// Something was said of it already.
    pub(super) told: bool,
}

/// How a sync group stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Its members.
    pub members: Vec<RouterId>,
    /// Fault if a member has one, Initialize while one waits for something, Active if all are, else Backup.
    pub state: State,
    /// A member would be Active but for these, which still hear their Active router.
    pub waits_for: Vec<RouterId>,
}

impl VrrpRouter {
    /// How a sync group stands.
    #[must_use]
    pub fn group(&self, id: GroupId) -> Option<GroupStatus> {
        let group = self.groups.get(id.0)?;
        let waits = |id: &&RouterId| {
            let router = &self.slots[*id].router;
            router.state() == State::Backup && !router.waits_for_group()
        };
        let waiting = group
            .members
            .iter()
            .any(|id| self.slots[id].router.waits_for_group());
        let waits_for = group.members.iter().filter(|id| waiting && waits(id));
        Some(GroupStatus {
            name: group.name.clone(),
            members: group.members.clone(),
            state: group.state,
            waits_for: waits_for.copied().collect(),
        })
    }

    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> {
        (0..self.groups.len()).map(GroupId)
    }

    /// May a member whose timer has ended become Active? All others must be, or want to be.
    pub(super) fn group_agrees(&self, id: RouterId) -> bool {
        self.others(id).into_iter().all(|other| {
            let router = &self.slots[&other].router;
            router.state() == State::Active || router.waits_for_group()
        })
    }

    pub(super) fn others(&self, id: RouterId) -> Vec<RouterId> {
        let Some(group) = self.slots.get(&id).and_then(|slot| slot.group) else {
            return Vec::new();
        };
        let members = self.groups[group.0].members.iter();
        members.copied().filter(|other| *other != id).collect()
    }

    /// Lets the other members follow what happened to one.
    pub(super) fn lead_group(&mut self, now: Instant, id: RouterId, events: &[Event]) {
        let Some(group) = self.slots.get(&id).and_then(|slot| slot.group) else {
            return;
        };
        for event in events {
            match event {
                Event::StateChanged(change) => match (change.from, change.to, &change.reason) {
                    (_, _, Reason::Group) => {}
                    (_, State::Active, _) => {
                        for other in self.others(id) {
                            self.with_follower(now, other, |router| router.follow_group_up(now));
                        }
                    }
                    (State::Active, State::Backup, Reason::ObjectRemoved { .. }) => {
                        self.groups[group.0].state = State::Backup;
                        for other in self.others(id) {
                            self.with_follower(now, other, |router| {
                                router.step_down(now, Reason::Group);
                            });
                        }
                    }
                    (State::Active, State::Backup, _) => {
                        for other in self.others(id) {
                            self.with_follower(now, other, |router| {
                                router.follow_group_down(now);
                            });
                        }
                    }
                    _ => {}
                },
                Event::LowerPriorityHeard { .. } => {
                    for other in self.others(id) {
                        self.with_follower(now, other, |router| router.announce_after_lower(now));
                    }
                }
                _ => {}
            }
        }
        self.share_faults(now, group);
        self.settle_group(group);
    }

    /// A member has the group's fault while another has one of its own; likewise for what is waited for.
    pub(super) fn share_faults(&mut self, now: Instant, group: GroupId) {
        let members = self.groups[group.0].members.clone();
        let own_fault =
            |router: &crate::VirtualRouter| router.faults().any(|fault| *fault != Fault::Group);
        let own_wait = |router: &crate::VirtualRouter| {
            router.state() == State::Initialize
                && router
                    .awaited()
                    .any(|object| *object != TrackedObject::Group)
        };
        let faulty: Vec<_> = members
            .iter()
            .filter(|id| own_fault(&self.slots[*id].router))
            .copied()
            .collect();
        let waiting: Vec<_> = members
            .iter()
            .filter(|id| own_wait(&self.slots[*id].router))
            .copied()
            .collect();
        for id in members {
            let fault = faulty.iter().any(|other| *other != id);
            let wait = waiting.iter().any(|other| *other != id);
            self.with_follower(now, id, |router| {
                if fault {
                    router.raise_fault(now, Fault::Group);
                }
                if wait {
                    router.handle_health(now, TrackedObject::Group, Health::Unknown);
                } else if router.awaited().any(|each| *each == TrackedObject::Group) {
                    router.handle_health(now, TrackedObject::Group, Health::Good);
                }
                if !fault && router.faults().any(|each| *each == Fault::Group) {
                    router.clear_fault(now, &Fault::Group);
                }
            });
        }
    }

    /// A reload may bring together members that are Active and such that are not. The Active ones step down, and whoever is
    /// Active for the others may have all.
    pub(super) fn unite(&mut self, now: Instant, group: GroupId) {
        let members = self.groups[group.0].members.clone();
        let active: Vec<_> = members
            .iter()
            .filter(|id| self.slots[*id].router.state() == State::Active)
            .copied()
            .collect();
        if active.len() < members.len() {
            for id in active {
                self.with_follower(now, id, |router| router.step_down(now, Reason::Group));
            }
        }
    }

    /// Computes the group's state anew, and tells of a change.
    pub(super) fn settle_group(&mut self, id: GroupId) {
        let members = &self.groups[id.0].members;
        let states: Vec<_> = members
            .iter()
            .map(|id| self.slots[id].router.state())
            .collect();
        let state = if states.contains(&State::Fault) {
            State::Fault
        } else if states.is_empty() || states.contains(&State::Initialize) {
            State::Initialize
        } else if states.iter().all(|state| *state == State::Active) {
            State::Active
        } else {
            State::Backup
        };
        let group = &mut self.groups[id.0];
        if group.state != state {
            let from = std::mem::replace(&mut group.state, state);
            group.told = true;
            self.notices.push_back(Notice::Group {
                group: id,
                from,
                to: state,
            });
        }
    }
}
