//! The task that does what a configuration wants to be done about events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::actions::{Actions, Alert, Object, Pipe};
use super::event::{Cause, Event, VrrpChange, VrrpEvent};
use super::fifo::{Fifo, path_of};
use super::mail::{Settings, send};
use super::queue::Queues;
use super::scripts::{Command, Purpose, Runner, Ticket};
use crate::logging::chain;

/// Takes events and does what the configuration wants to be done about them: scripts, lines in pipes, mail. Usable from any thread; nobody is
/// ever kept waiting.
///
/// What happens to one object happens in the order of its events: lines at once, scripts one event after the other, mails as the
/// server takes them.
#[derive(Debug, Clone)]
pub struct Notifier {
    inputs: UnboundedSender<Input>,
}

#[derive(Debug)]
enum Input {
    Event(Event),
    Configure(Box<Actions>),
    /// A script of this object.
    Ended(Object),
    Stop(oneshot::Sender<()>),
}

impl Notifier {
    /// Starts the task on the present runtime, and the readers of pipes. Everything told is told to the subscribers of `events`, too.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(runner: Runner, actions: Actions, events: broadcast::Sender<Arc<Event>>) -> Self {
        let (inputs, inbox) = unbounded_channel();
        let task = Task {
            runner,
            inputs: inputs.downgrade(),
            events,
            actions: Actions::default(),
            former: Actions::default(),
            pipes: [None, None, None],
            queues: Queues::new(),
            states: BTreeMap::new(),
            mailed: BTreeMap::new(),
            mails: JoinSet::new(),
            unsent: VecDeque::new(),
        };
        tokio::spawn(task.run(inbox, actions));
        Self { inputs }
    }

    /// Something happened.
    pub fn tell(&self, event: Event) {
        // After the end there is nobody to tell.
        let _ = self.inputs.send(Input::Event(event));
    }

    /// The configuration was read again. Events told before are still handled as they would have been; so are those about what was
    /// removed.
    pub fn configure(&self, actions: Actions) {
        let _ = self.inputs.send(Input::Configure(Box::new(actions)));
    }

    /// Does what is still to be done, gives scripts and mails a little time, ends the scripts' runner and removes the pipes.
    pub async fn stop(&self) {
        let (done, is_done) = oneshot::channel();
        if self.inputs.send(Input::Stop(done)).is_ok() {
            // A task that is gone has stopped.
            let _ = is_done.await;
        }
    }
}

#[derive(Debug)]
struct Task {
    runner: Runner,
    /// For the ends of scripts. Weak: the task ends when the last handle is gone.
    inputs: tokio::sync::mpsc::WeakUnboundedSender<Input>,
    events: broadcast::Sender<Arc<Event>>,
    actions: Actions,
    /// Those before the last reload, for what it removed.
    former: Actions,
    pipes: [Option<OpenPipe>; 3],
    queues: Queues<Object>,
    /// The last line of each virtual router and group.
    states: BTreeMap<Object, VrrpEvent>,
    mailed: BTreeMap<Object, VrrpChange>,
    mails: JoinSet<()>,
    unsent: VecDeque<(Settings, Alert)>,
}

#[derive(Debug)]
struct OpenPipe {
    fifo: Fifo,
    reader: Option<Reader>,
}

#[derive(Debug)]
struct Reader {
    command: Command,
    ticket: Ticket,
    has_ended: Arc<AtomicBool>,
}

impl Task {
    async fn run(mut self, mut inbox: UnboundedReceiver<Input>, actions: Actions) {
        self.configure(actions);
        loop {
            let deadline = self.queues.poll_timeout();
            let timer = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // What was told comes first, in its order.
                biased;
                input = inbox.recv() => match input {
                    Some(Input::Event(event)) => self.handle_event(event),
                    Some(Input::Configure(actions)) => self.configure(*actions),
                    Some(Input::Ended(object)) => self.queues.handle_ended(Instant::now(), &object),
                    Some(Input::Stop(done)) => {
                        self.stop().await;
                        let _ = done.send(());
                        return;
                    }
                    None => return self.stop().await,
                },
                () = timer => self.queues.handle_timeout(Instant::now()),
                Some(_) = self.mails.join_next() => {}
            }
            self.start_scripts();
            self.start_mails();
        }
    }

    fn handle_event(&mut self, event: Event) {
        let Some(event) = self.translate(event) else {
            return;
        };
        self.write_lines(&event);
        let actions = self.actions_for(&event);
        let alert = actions.alert(&event);
        let settings = actions.mail.clone();
        if let Some((object, scripts)) = actions.scripts(&event) {
            self.queues.push(Instant::now(), &object, scripts);
        }
        if let (Some(alert), Some(settings)) = (alert, settings)
            && self.is_news(&event)
        {
            if self.unsent.len() >= MOST_UNSENT {
                warn!(
                    "mail \"{}\" is left out: too many wait already",
                    alert.subject
                );
            } else {
                self.unsent.push_back((settings, alert));
            }
        }
        // Nobody listens most of the time.
        let _ = self.events.send(Arc::new(event));
    }

    /// The removal of a virtual router is told as a fault unless its configuration asks for more, and not at all if it was in
    /// fault already.
    fn translate(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Vrrp(mut removed) if removed.change == VrrpChange::Deleted => {
                let (actions, former) = (&self.actions, &self.former);
                if !actions.reports_deletion(&removed) && !former.reports_deletion(&removed) {
                    let object = Object::Router(removed.kind, removed.name.clone());
                    let before = self.states.remove(&object);
                    if before.is_some_and(|event| event.change == VrrpChange::Fault) {
                        return None;
                    }
                    removed.change = VrrpChange::Fault;
                }
                Some(Event::Vrrp(removed))
            }
            event => Some(event),
        }
    }

    /// What a reload removed is told as its last configuration wants.
    fn actions_for(&self, event: &Event) -> &Actions {
        let is_removal = match event {
            Event::Vrrp(event) => event.change == VrrpChange::Deleted,
            Event::Server(event) => event.cause == Cause::Removal,
            Event::Quorum(event) => event.cause == Cause::Removal,
            Event::Check(_) | Event::Reload(_) | Event::Drain(_) => false,
        };
        let is_former = is_removal || !self.actions.knows(event);
        if is_former && self.former.knows(event) {
            &self.former
        } else {
            &self.actions
        }
    }

    fn write_lines(&mut self, event: &Event) {
        let takers = self.actions_for(event).takers(event);
        if let Event::Vrrp(vrrp) = event {
            let object = Object::Router(vrrp.kind, vrrp.name.clone());
            if vrrp.change == VrrpChange::Deleted {
                self.states.remove(&object);
            } else if vrrp.change.is_state() {
                self.states.insert(object, vrrp.clone());
            }
        }
        if let Some(line) = event.line() {
            self.write_line(takers, &line);
        }
    }

    fn write_line(&mut self, takers: &[usize], line: &str) {
        for &taker in takers {
            if let Some(pipe) = &mut self.pipes[taker] {
                pipe.fifo.write(line);
            }
        }
    }

    /// A virtual router that is where it was when the last mail was sent is no news.
    fn is_news(&mut self, event: &Event) -> bool {
        let Event::Vrrp(event) = event else {
            return true;
        };
        let object = Object::Router(event.kind, event.name.clone());
        self.mailed.insert(object, event.change) != Some(event.change)
    }

    fn configure(&mut self, actions: Actions) {
        for remark in &actions.remarks {
            if !self.actions.remarks.contains(remark) {
                warn!("{remark}");
            }
        }
        self.former = std::mem::replace(&mut self.actions, actions);
        for at in 0..self.pipes.len() {
            let wanted = self.actions.pipes[at].clone();
            let present = self.pipes[at].take();
            self.pipes[at] = wanted.and_then(|wanted| self.open(wanted, present));
        }
        if self.actions.repeats_states {
            for event in self.states.clone().into_values().map(Event::Vrrp) {
                if self.actions.knows(&event)
                    && let Some(line) = event.line()
                {
                    self.write_line(self.actions.takers(&event), &line);
                }
            }
        }
    }

    /// A pipe that is open already stays so, and its reader too.
    fn open(&self, wanted: Pipe, present: Option<OpenPipe>) -> Option<OpenPipe> {
        let path = path_of(&wanted.path);
        let (fifo, reader) = match present {
            Some(present)
                if present.fifo.path() == path && present.fifo.owner() == wanted.owner.as_ref() =>
            {
                (Ok(present.fifo), present.reader)
            }
            Some(present) => {
                drop(present.fifo);
                present
                    .reader
                    .iter()
                    .for_each(|reader| reader.ticket.terminate());
                (Fifo::open(path, wanted.owner), None)
            }
            None => (Fifo::open(path, wanted.owner), None),
        };
        let fifo = match fifo {
            Ok(fifo) => fifo,
            Err(error) => {
                warn!("events are not written: {}", chain(&error));
                return None;
            }
        };
        let reader = match (reader, wanted.reader) {
            (Some(reader), Some(command))
                if reader.command == command && !reader.has_ended.load(Ordering::Relaxed) =>
            {
                Some(reader)
            }
            (reader, command) => {
                reader.iter().for_each(|reader| reader.ticket.terminate());
                command.map(|command| self.start_reader(command))
            }
        };
        Some(OpenPipe { fifo, reader })
    }

    fn start_reader(&self, command: Command) -> Reader {
        let has_ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&has_ended);
        let name = command.to_string();
        let ticket = self
            .runner
            .run(Purpose::Reader, command.clone(), None, move |ended| {
                flag.store(true, Ordering::Relaxed);
                if !ended.was_stopped {
                    warn!("{name} {}; the next reload starts it again", ended.exit);
                }
            });
        Reader {
            command,
            ticket,
            has_ended,
        }
    }

    fn start_scripts(&mut self) {
        while let Some((object, command)) = self.queues.poll_command() {
            let inputs = self.inputs.clone();
            let name = command.to_string();
            debug!("notify: {name}");
            let _ = self
                .runner
                .run(Purpose::Notification, command, None, move |ended| {
                    if let super::scripts::Exit::NotStarted(_) = ended.exit {
                        warn!("{name} {}", ended.exit);
                    } else {
                        debug!("{name} {}", ended.exit);
                    }
                    if let Some(inputs) = inputs.upgrade() {
                        let _ = inputs.send(Input::Ended(object));
                    }
                });
        }
    }

    fn start_mails(&mut self) {
        while self.mails.len() < MOST_MAILS
            && let Some((settings, alert)) = self.unsent.pop_front()
        {
            self.mails.spawn(async move {
                let message = settings.message(&alert.subject, &alert.body);
                match send(&settings, &message).await {
                    Ok(()) => info!("mail \"{}\" sent", alert.subject),
                    Err(error) => warn!("mail \"{}\" is lost: {}", alert.subject, chain(&error)),
                }
            });
        }
    }

    async fn stop(mut self) {
        self.queues.end(Instant::now());
        self.start_scripts();
        self.start_mails();
        // Readers see the end of their pipe when they have read the rest.
        self.pipes = [None, None, None];
        let runner = self.runner.clone();
        let scripts = tokio::task::spawn_blocking(move || runner.stop());
        let mails = async {
            while self.mails.join_next().await.is_some() {
                self.start_mails();
            }
        };
        let lost = tokio::time::timeout(LAST_MAILS, mails).await.is_err();
        if lost {
            let count = self.mails.len() + self.unsent.len();
            warn!("{count} mails are lost: the server did not take them in time");
        }
        // A runner that panicked has ended as well.
        let _ = scripts.await;
    }
}

/// Connections to the mail server at the same time.
const MOST_MAILS: usize = 8;

/// Mails that wait for one.
const MOST_UNSENT: usize = 256;

/// For mails at the end; keepalived does not wait for them at all.
const LAST_MAILS: Duration = Duration::from_secs(1);
