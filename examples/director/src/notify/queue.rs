//! Notify scripts in order: what an event starts waits until what the same object's last event started has ended.
//!
//! A script that hangs holds up its own object only, and only for a while.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use tracing::warn;

use super::scripts::Command;

/// Scripts that wait for their turn, by object. Drain [`poll_command`](Self::poll_command) after every call that changes it.
#[derive(Debug)]
pub(super) struct Queues<K> {
    objects: BTreeMap<K, Queue>,
    ready: VecDeque<(K, Command)>,
    is_ending: bool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Vec<Command>>,
    running: usize,
    /// When the next may start though the last ones still run.
    patience: Option<Instant>,
}

impl<K: Clone + Ord + Hash + std::fmt::Debug> Queues<K> {
    /// Empty.
    pub(super) fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            ready: VecDeque::new(),
            is_ending: false,
        }
    }

    /// The scripts of one event; they start together, in this order.
    pub(super) fn push(&mut self, now: Instant, object: &K, scripts: Vec<Command>) {
        if scripts.is_empty() {
            return;
        }
        let queue = self.objects.entry(object.clone()).or_default();
        queue.waiting.push_back(scripts);
        if queue.waiting.len() > MOST_WAITING {
            queue.waiting.pop_front();
            warn!(
                "{object:?}: its notify scripts do not keep up, those of an older event are left out"
            );
        }
        self.advance(now, object);
    }

    /// A script of this object has ended.
    pub(super) fn handle_ended(&mut self, now: Instant, object: &K) {
        if let Some(queue) = self.objects.get_mut(object) {
            queue.running = queue.running.saturating_sub(1);
            self.advance(now, object);
        }
    }

    /// Somebody's patience may be over.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let due = |queue: &Queue| queue.patience.is_some_and(|patience| patience <= now);
        let objects = self.objects.iter();
        let over: Vec<K> = objects
            .filter(|(_, queue)| due(queue))
            .map(|(object, _)| object.clone())
            .collect();
        for object in over {
            if let Some(queue) = self.objects.get_mut(&object) {
                warn!("{object:?}: a notify script still runs, the next does not wait any longer");
                queue.patience = None;
                queue.running = 0;
            }
            self.advance(now, &object);
        }
    }

    /// Nothing waits any longer, now or later.
    pub(super) fn end(&mut self, now: Instant) {
        self.is_ending = true;
        let objects: Vec<K> = self.objects.keys().cloned().collect();
        for object in &objects {
            self.advance(now, object);
        }
    }

    /// A script to start; report its end.
    pub(super) fn poll_command(&mut self) -> Option<(K, Command)> {
        self.ready.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.objects
            .values()
            .filter_map(|queue| queue.patience)
            .min()
    }

    fn advance(&mut self, now: Instant, object: &K) {
        let Some(queue) = self.objects.get_mut(object) else {
            return;
        };
        while (queue.running == 0 || self.is_ending)
            && let Some(scripts) = queue.waiting.pop_front()
        {
            queue.running += scripts.len();
            let tagged = scripts.into_iter().map(|script| (object.clone(), script));
            self.ready.extend(tagged);
            queue.patience = None;
        }
        if queue.waiting.is_empty() {
            queue.patience = None;
            if queue.running == 0 {
                self.objects.remove(object);
            }
        } else if queue.patience.is_none() {
            queue.patience = Some(now + PATIENCE);
        }
    }
}

/// For one that hangs, counted from the event that waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Events of one object: an operator wants to know where it ended, not each stop on the way.
const MOST_WAITING: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn script(name: &str) -> Command {
        Command {
            program: name.into(),
            arguments: Vec::new(),
            account: None,
        }
    }

    fn ready(queues: &mut Queues<u8>) -> Vec<String> {
        std::iter::from_fn(|| queues.poll_command())
            .map(|(object, command)| format!("{object} {command}"))
            .collect()
    }

    #[test]
    fn scripts_of_one_event_start_together_and_those_of_the_next_wait_for_both() {
        let now = Instant::now();
        let mut queues = Queues::new();
        queues.push(now, &1, vec![script("a"), script("b")]);
        queues.push(now, &1, vec![script("c")]);
        queues.push(now, &2, vec![script("d")]);
        assert_eq!(ready(&mut queues), ["1 a", "1 b", "2 d"]);
        queues.handle_ended(now, &1);
        assert_eq!(ready(&mut queues), [""; 0]);
        queues.handle_ended(now, &1);
        assert_eq!(ready(&mut queues), ["1 c"]);
        queues.handle_ended(now, &1);
        queues.handle_ended(now, &2);
        assert!(queues.objects.is_empty());
        assert_eq!(queues.poll_timeout(), None);
    }

    #[test]
    fn a_script_that_hangs_is_not_waited_for_without_end() {
        let now = Instant::now();
        let mut queues = Queues::new();
        queues.push(now, &1, vec![script("hangs")]);
        assert_eq!(queues.poll_timeout(), None);
        queues.push(now, &1, vec![script("next")]);
        ready(&mut queues);
        let due = queues.poll_timeout().unwrap();
        queues.handle_timeout(due - Duration::from_millis(1));
        assert_eq!(ready(&mut queues), [""; 0]);
        queues.handle_timeout(due);
        assert_eq!(ready(&mut queues), ["1 next"]);
        // Its own end comes later and must not let the next but one start too early.
        queues.push(due, &1, vec![script("third")]);
        queues.handle_ended(due, &1);
        assert_eq!(ready(&mut queues), ["1 third"]);
    }

    #[test]
    fn of_too_many_events_the_newest_are_told() {
        let now = Instant::now();
        let mut queues = Queues::new();
        queues.push(now, &1, vec![script("0")]);
        for number in 1..=100 {
            queues.push(now, &1, vec![script(&number.to_string())]);
        }
        let mut told = ready(&mut queues);
        while !told.last().unwrap().ends_with(" 100") {
            queues.handle_ended(now, &1);
            told.extend(ready(&mut queues));
        }
        assert_eq!(told.len(), 1 + MOST_WAITING);
        assert_eq!(told[1], "1 69");
    }

    #[test]
    fn at_the_end_nothing_waits() {
        let now = Instant::now();
        let mut queues = Queues::new();
        queues.push(now, &1, vec![script("hangs")]);
        queues.push(now, &1, vec![script("next")]);
        ready(&mut queues);
        queues.end(now);
        assert_eq!(ready(&mut queues), ["1 next"]);
        queues.push(now, &1, vec![script("stop")]);
        assert_eq!(ready(&mut queues), ["1 stop"]);
    }
}
