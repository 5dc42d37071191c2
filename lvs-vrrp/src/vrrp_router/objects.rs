//! Tracked objects: facts in, effects on the virtual routers out.

use super::{Notice, RouterId, Task, VrrpRouter};
use crate::config::InterfaceName;
use crate::script::{Script, ScriptCommand};
use crate::track::{Condition, Debounce, Delays, Health, TrackedObject};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An object with what is known of it.
#[derive(Debug)]
pub(super) enum Object {
    Interface(Debounce),
    Script(Script),
    File(i32),
    Process(Process),
    Bfd(bool),
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) quorum: u32,
    pub(super) quorum_max: Option<u32>,
    pub(super) enough: Debounce,
}

impl Object {
    pub(super) fn condition(&self) -> Condition {
        match self {
            // What was never seen is not there.
            Self::Interface(link) => Condition::Is(link.value().unwrap_or(false)),
            Self::Script(script) => script.condition(),
            Self::File(number) => Condition::Number(*number),
            Self::Process(process) => process
                .enough
                .value()
                .map_or(Condition::Unknown, Condition::Is),
            Self::Bfd(up) => Condition::Is(*up),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Interface(link) => link.poll_timeout(),
            Self::Script(script) => Some(script.poll_timeout()),
            Self::Process(process) => process.enough.poll_timeout(),
            Self::File(_) | Self::Bfd(_) => None,
        }
    }
}

impl VrrpRouter {
    /// A link came up or went down: up and running, of the interface and of the one below it. Interfaces that were never reported do not
    /// exist.
    pub fn handle_link(&mut self, now: Instant, interface: &InterfaceName, up: bool) {
        let object = TrackedObject::Interface(interface.clone());
        let delays = self.link_delays(interface);
        let link = self
            .objects
            .entry(object.clone())
            .or_insert_with(|| Object::Interface(Debounce::new(delays)));
        if let Object::Interface(link) = link {
            link.set_delays(delays);
            link.report(now, up);
        }
        self.object_changed(now, &object);
    }

    /// A run of a script ended: with status 0 or otherwise.
    pub fn handle_script_exit(&mut self, now: Instant, name: &str, success: bool) {
        let object = TrackedObject::Script(name.into());
        if let Some(Object::Script(script)) = self.objects.get_mut(&object) {
            script.handle_exit(success);
        }
        self.object_changed(now, &object);
    }

    /// A tracked file has this number now; a file that is missing or has none has 0.
    pub fn handle_file(&mut self, now: Instant, name: &str, number: i32) {
        let object = TrackedObject::File(name.into());
        self.objects.insert(object.clone(), Object::File(number));
        self.object_changed(now, &object);
    }

    /// So many processes of a kind run now.
    pub fn handle_process_count(&mut self, now: Instant, name: &str, count: u32) {
        let object = TrackedObject::Process(name.into());
        if let Some(Object::Process(process)) = self.objects.get_mut(&object) {
            let most = process.quorum_max.unwrap_or(u32::MAX);
            let enough = (process.quorum..=most).contains(&count);
            process.enough.report(now, enough);
        }
        self.object_changed(now, &object);
    }

    /// A BFD session came up or went down. One that was never reported is down.
    pub fn handle_bfd(&mut self, now: Instant, name: &str, up: bool) {
        let object = TrackedObject::Bfd(name.into());
        self.objects.insert(object.clone(), Object::Bfd(up));
        self.object_changed(now, &object);
    }

    /// The condition of a tracked object.
    #[must_use]
    pub fn health(&self, object: &TrackedObject) -> Health {
        match self.condition(object) {
            Condition::Unknown => Health::Unknown,
            Condition::Is(false) => Health::Failed,
            Condition::Is(true) | Condition::Number(_) => Health::Good,
        }
    }

    pub(super) fn condition(&self, object: &TrackedObject) -> Condition {
        match (self.objects.get(object), object) {
            (Some(known), _) => known.condition(),
            (None, TrackedObject::File(_)) => Condition::Number(0),
            (None, TrackedObject::Interface(_) | TrackedObject::Bfd(_)) => Condition::Is(false),
            (None, _) => Condition::Unknown,
        }
    }

    /// Tells the routers that watch an object, if it counts otherwise than before.
    fn object_changed(&mut self, now: Instant, object: &TrackedObject) {
        self.schedule_objects(object);
        let condition = self.condition(object);
        let before = self.conditions.insert(object.clone(), condition);
        if before == Some(condition) {
            return;
        }
        if self.watched.contains_key(object) {
            self.notices.push_back(Notice::Object {
                object: object.clone(),
                health: self.health(object),
            });
        }
        for router in self.watched.get(object).cloned().unwrap_or_default() {
            self.apply_tracking(now, router);
        }
    }

    /// Makes priority and faults of a router what its objects call for.
    pub(super) fn apply_tracking(&mut self, now: Instant, id: RouterId) {
        let Some(slot) = self.slots.get(&id) else {
            return;
        };
        let mut weight = 0_i32;
        let mut health = Vec::new();
        for tracked in &slot.tracked {
            let effect = tracked.effect(self.condition(&tracked.object));
            weight = weight.saturating_add(effect.weight);
            health.push((tracked.object.clone(), effect.health));
        }
        self.with_router(now, id, |router| {
            router.set_weight(now, weight);
            // Faults first, so that nothing looks healthy in between.
            for (object, _) in health
                .iter()
                .filter(|(_, health)| *health == Health::Failed)
            {
                router.handle_health(now, object.clone(), Health::Failed);
            }
            for (object, health) in health {
                if health != Health::Failed {
                    router.handle_health(now, object, health);
                }
            }
        });
    }

    /// What is due at the tracked objects.
    pub(super) fn handle_object_timeouts(&mut self, now: Instant) {
        if !self.started {
            return;
        }
        while let Some((due, object)) = self.object_deadlines.first().cloned() {
            if due > now {
                break;
            }
            match self.objects.get_mut(&object) {
                Some(Object::Interface(link)) => link.handle_timeout(now),
                Some(Object::Process(process)) => process.enough.handle_timeout(now),
                Some(Object::Script(script)) => {
                    let command = script.handle_timeout(now);
                    if let (Some(command), TrackedObject::Script(name)) = (command, &object) {
                        self.tasks.push_back(script_task(name, command));
                    }
                }
                _ => {}
            }
            self.object_changed(now, &object);
        }
    }

    /// Keeps the order of deadlines.
    pub(super) fn schedule_objects(&mut self, object: &TrackedObject) {
        if let Some(due) = self.object_due.remove(object) {
            self.object_deadlines.remove(&(due, object.clone()));
        }
        if let Some(due) = self.objects.get(object).and_then(Object::poll_timeout) {
            self.object_due.insert(object.clone(), due);
            self.object_deadlines.insert((due, object.clone()));
        }
    }

    /// Debouncing must not take longer than the others' patience: the delays end before a Backup would take over.
    pub(super) fn link_delays(&self, interface: &InterfaceName) -> Delays {
        let Some(delays) = self.setup.interface_delays.get(interface) else {
            return Delays::default();
        };
        let object = TrackedObject::Interface(interface.clone());
        let watching = self.watched.get(&object).into_iter().flatten();
        let most = watching
            .filter_map(|id| self.slots.get(id))
            .map(|slot| {
                let config = slot.router.config();
                let interval = config.interval.duration();
                let whole = interval * (u32::from(config.down_timer_adverts) - 1);
                whole.saturating_sub(interval / 256)
            })
            .min()
            .unwrap_or(Duration::MAX);
        Delays {
            up: delays.up.min(most),
            down: delays.down.min(most),
        }
    }
}

fn script_task(name: &Arc<str>, command: ScriptCommand) -> Task {
    Task::Script {
        name: name.clone(),
        command,
    }
}
