//! From one setup to the next: what is the same goes on untouched.

use super::objects::{Object, Process};
use super::{Group, GroupId, RouterId, Setup, SetupError, Slot, VrrpRouter};
use crate::config::Family;
use crate::event::Fault;
use crate::router::VirtualRouter;
use crate::script::Script;
use crate::state::State;
use crate::track::{Debounce, Health, TrackedObject};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

impl VrrpRouter {
    /// Takes another setup. Virtual routers that both have go on with their state, timers and counters, whatever their names;
    /// new ones start; the others leave with priority 0 if they are Active. Objects keep what is known of them. A new router has no
    /// source address until [`handle_source`](Self::handle_source) tells it one.
    ///
    /// # Errors
    /// When the setup is not consistent; then nothing changes.
    pub fn reload(&mut self, now: Instant, setup: Setup) -> Result<(), SetupError> {
        self.install(now, setup)
    }

    pub(super) fn install(&mut self, now: Instant, setup: Setup) -> Result<(), SetupError> {
        setup.check()?;
        let mut left: Vec<RouterId> = std::mem::take(&mut self.order);
        let mut order = Vec::new();
        let mut fresh = Vec::new();
        for member in &setup.virtual_routers {
            let same = |id: &&RouterId| {
                let config = self.slots[*id].router.config();
                config.is_same_router(&member.config)
            };
            let named = |id: &&RouterId| self.slots[*id].name == member.name && same(id);
            let found = left.iter().find(named).or_else(|| left.iter().find(same));
            if let Some(id) = found.copied() {
                left.retain(|other| *other != id);
                order.push(id);
                continue;
            }
            let router = VirtualRouter::new(member.config.clone());
            let router = router.map_err(|error| SetupError::Member {
                name: member.name.clone(),
                error,
            })?;
            let id = RouterId(self.next_id);
            self.next_id += 1;
            self.slots.insert(
                id,
                Slot {
                    name: member.name.clone(),
                    router,
                    tracked: Vec::new(),
                    group: None,
                    due: None,
                    leaving: false,
                },
            );
            order.push(id);
            fresh.push(id);
        }
        for id in left {
            self.dismiss(now, id);
        }
        self.order = order;
        self.install_objects(now, &setup);
        self.install_groups(&setup);
        self.pacer
            .set_pacing(setup.pacing, setup.interface_pacing.clone());
        let tracked: Vec<_> = setup
            .virtual_routers
            .iter()
            .map(|member| setup.tracked_by(member))
            .collect();
        self.watched.clear();
        for (id, tracked) in self.order.iter().zip(&tracked) {
            for each in tracked {
                let watching = self.watched.entry(each.object.clone()).or_default();
                watching.push(*id);
            }
        }
        self.setup = setup;
        self.install_members(now, tracked);
        if self.started {
            for id in fresh {
                let open = self.gate_open;
                self.with_router(now, id, |router| {
                    router.set_preempt_gate(now, open);
                    router.start(now);
                });
            }
        }
        for group in (0..self.groups.len()).map(GroupId) {
            self.share_faults(now, group);
            self.unite(now, group);
            self.settle_group(group);
        }
        Ok(())
    }

    fn install_members(&mut self, now: Instant, tracked: Vec<Vec<crate::track::Tracked>>) {
        self.by_vrid.clear();
        let mut used = BTreeSet::new();
        let members = self.setup.virtual_routers.clone();
        for ((id, member), tracked) in self.order.clone().into_iter().zip(members).zip(tracked) {
            let config = member.config;
            let family = config.family;
            let key = (config.interface.clone(), family, config.vrid.get());
            self.by_vrid.entry(key.clone()).or_default().push(id);
            let twice = config.reach.is_multicast() && !used.insert(key);
            let group = self.setup.group_of(&member.name).map(|group| &group.name);
            let group = group.and_then(|name| {
                let at = self.groups.iter().position(|group| group.name == *name);
                at.map(GroupId)
            });
            let owners = group.is_none_or(|group| self.all_are_owners(group));
            let Some(slot) = self.slots.get_mut(&id) else {
                continue;
            };
            slot.name = member.name;
            slot.group = group;
            let gone: Vec<TrackedObject> = slot
                .tracked
                .iter()
                .map(|old| &old.object)
                .filter(|object| !tracked.iter().any(|new| new.object == **object))
                .cloned()
                .collect();
            slot.tracked = tracked;
            let fault = member
                .fault
                .or_else(|| twice.then(|| Arc::from(twice_text(family))));
            let grouped = group.is_some();
            self.with_router(now, id, |router| {
                router.set_owner_waits(!owners);
                // It was checked with the whole setup, and matched by what it is.
                let taken = router.reconfigure(now, config);
                debug_assert!(taken.is_ok());
                let old: Vec<_> = router
                    .faults()
                    .filter(|each| matches!(each, Fault::Configuration(_)))
                    .cloned()
                    .collect();
                if let Some(text) = &fault {
                    router.raise_fault(now, Fault::Configuration(text.clone()));
                }
                for each in old {
                    if !matches!((&each, &fault), (Fault::Configuration(old), Some(new)) if old == new)
                    {
                        router.clear_fault(now, &each);
                    }
                }
                for object in gone {
                    router.handle_health(now, object, Health::Good);
                }
                if !grouped {
                    router.clear_fault(now, &Fault::Group);
                    if router.awaited().any(|each| *each == TrackedObject::Group) {
                        router.handle_health(now, TrackedObject::Group, Health::Good);
                    }
                }
            });
            if self.started {
                self.apply_tracking(now, id);
            }
        }
    }

    fn all_are_owners(&self, group: GroupId) -> bool {
        let name = &self.groups[group.0].name;
        let config = self.setup.groups.iter().find(|group| group.name == *name);
        config.is_some_and(|group| {
            let mut members = self.setup.virtual_routers.iter();
            members.all(|member| {
                !group.members.contains(&member.name) || member.config.priority.is_owner()
            })
        })
    }

    fn install_groups(&mut self, setup: &Setup) {
        let old: BTreeMap<Arc<str>, (State, bool)> = self
            .groups
            .drain(..)
            .map(|group| (group.name, (group.state, group.told)))
            .collect();
        let id_of = |name: &Arc<str>| {
            let mut members = setup.virtual_routers.iter().zip(&self.order);
            members.find(|(member, _)| member.name == *name)
        };
        self.groups = setup
            .groups
            .iter()
            .map(|group| {
                let known = old.get(&group.name);
                let (state, told) = known.copied().unwrap_or((State::Initialize, false));
                let members = group.members.iter().filter_map(id_of);
                Group {
                    name: group.name.clone(),
                    members: members.map(|(_, id)| *id).collect(),
                    state,
                    told,
                }
            })
            .collect();
    }

    /// Scripts and processes that are no longer described go; the others keep what is known of them.
    fn install_objects(&mut self, now: Instant, setup: &Setup) {
        self.objects.retain(|object, _| match object {
            TrackedObject::Script(name) => setup.scripts.iter().any(|each| each.name == *name),
            TrackedObject::Process(name) => setup.processes.iter().any(|each| each.name == *name),
            _ => true,
        });
        for config in &setup.scripts {
            let object = TrackedObject::Script(config.name.clone());
            match self.objects.get_mut(&object) {
                Some(Object::Script(script)) => script.reconfigure(now, config.clone()),
                _ => {
                    let script = Script::new(now, config.clone());
                    self.objects.insert(object, Object::Script(script));
                }
            }
        }
        for config in &setup.processes {
            let object = TrackedObject::Process(config.name.clone());
            let known = match self.objects.remove(&object) {
                Some(Object::Process(process)) => Some(process.enough),
                _ => None,
            };
            let mut enough = known.unwrap_or_else(|| Debounce::new(config.delays));
            enough.set_delays(config.delays);
            let process = Process {
                quorum: config.quorum,
                quorum_max: config.quorum_max,
                enough,
            };
            self.objects.insert(object, Object::Process(process));
        }
        let all: BTreeSet<_> = self
            .object_due
            .keys()
            .chain(self.objects.keys())
            .cloned()
            .collect();
        for object in all {
            self.schedule_objects(&object);
        }
        let objects = &self.objects;
        self.conditions
            .retain(|object, _| objects.contains_key(object));
    }
}

const fn twice_text(family: Family) -> &'static str {
    match family {
        Family::V4 => "another IPv4 virtual router on its interface has its identifier",
        Family::V6 => "another IPv6 virtual router on its interface has its identifier",
    }
}
