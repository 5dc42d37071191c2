//! The thread that has the children.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Signal, getrlimit, kill_process_group, pidfd_open,
};
use tracing::{debug, error, warn};

use super::{Command, Ended, Exit, Limits, Purpose};
use crate::notify::sys;

/// What handles ask of the thread.
#[derive(Debug)]
pub(super) enum Request {
    Run(Job),
    Terminate(u64),
    Kill(u64),
    Stop,
}

impl Request {
    /// Nobody is there any more to run it.
    pub(super) fn refuse(self, error: Errno) {
        if let Self::Run(job) = self {
            job.refuse(error);
        }
    }
}

/// A program to run.
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) purpose: Purpose,
    pub(super) command: Command,
    pub(super) limit: Option<Duration>,
    pub(super) done: Box<dyn FnOnce(Ended) + Send>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.id)
            .field("purpose", &self.purpose)
            .field("command", &self.command)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl Job {
    fn refuse(self, error: Errno) {
        (self.done)(Ended {
            exit: Exit::NotStarted(error),
            was_stopped: false,
        });
    }
}

/// The state of the thread.
#[derive(Debug)]
pub(super) struct Supervisor {
    limits: Limits,
    inbox: Receiver<Request>,
    wake: Arc<OwnedFd>,
    /// As it was when the runner started: the director may have raised its own since.
    descriptors: Option<u64>,
    waiting: VecDeque<Job>,
    running: Vec<Running>,
    end: End,
}

/// How far the end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    No,
    /// Notifications may finish until then.
    Notifications(Instant),
    /// Nothing else runs any more: readers may see the end of what they read until then.
    Readers(Instant),
    /// Everything was asked to end, and is killed then.
    Everything(Instant),
}

/// A child.
#[derive(Debug)]
struct Running {
    job: Job,
    child: Child,
    group: Pid,
    watch: OwnedFd,
    stage: Stage,
}

/// What comes next for a child that does not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing, or SIGTERM when its limit is over.
    Free(Option<Instant>),
    /// It was asked to end: SIGKILL then.
    Asked(Instant),
    /// It was killed: once more then, as it may have started others meanwhile.
    Killed(Instant),
}

impl Supervisor {
    pub(super) fn new(limits: Limits, inbox: Receiver<Request>, wake: Arc<OwnedFd>) -> Self {
        Self {
            limits,
            inbox,
            wake,
            descriptors: getrlimit(Resource::Nofile).current,
            waiting: VecDeque::new(),
            running: Vec::new(),
            end: End::No,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            self.take_requests();
            let now = Instant::now();
            self.start_waiting(now);
            self.handle_deadlines(now);
            if self.is_over(now) {
                break;
            }
            self.wait(now);
            self.reap();
        }
        self.waiting
            .drain(..)
            .for_each(|job| job.refuse(Errno::CANCELED));
        for request in self.inbox.try_iter() {
            request.refuse(Errno::CANCELED);
        }
    }

    fn take_requests(&mut self) {
        loop {
            match self.inbox.try_recv() {
                Ok(Request::Run(job)) if self.accepts(job.purpose) => self.waiting.push_back(job),
                Ok(Request::Run(job)) => job.refuse(Errno::CANCELED),
                Ok(Request::Terminate(id)) => self.terminate(id),
                Ok(Request::Kill(id)) => {
                    let now = Instant::now();
                    if let Some(running) = self.running.iter_mut().find(|one| one.job.id == id) {
                        running.kill(now, self.limits.patience);
                    } else {
                        self.terminate(id);
                    }
                }
                Ok(Request::Stop) => self.begin_end(),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.begin_end();
                    return;
                }
            }
        }
    }

    fn accepts(&self, purpose: Purpose) -> bool {
        match self.end {
            End::No => true,
            End::Notifications(_) => purpose == Purpose::Notification,
            End::Readers(_) | End::Everything(_) => false,
        }
    }

    fn terminate(&mut self, id: u64) {
        if let Some(at) = self.waiting.iter().position(|job| job.id == id) {
            if let Some(job) = self.waiting.remove(at) {
                job.refuse(Errno::CANCELED);
            }
        } else if let Some(running) = self.running.iter_mut().find(|one| one.job.id == id) {
            running.ask_to_end(Instant::now(), self.limits.patience);
        }
    }

    fn begin_end(&mut self) {
        if self.end != End::No {
            return;
        }
        let now = Instant::now();
        self.end = End::Notifications(now + self.limits.farewell);
        let (stay, go) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|job| job.purpose == Purpose::Notification);
        self.waiting = stay;
        let go: VecDeque<Job> = go;
        go.into_iter().for_each(|job| job.refuse(Errno::CANCELED));
        for running in &mut self.running {
            if matches!(running.job.purpose, Purpose::Check | Purpose::Tracking) {
                running.ask_to_end(now, self.limits.farewell);
            }
        }
    }

    fn start_waiting(&mut self, now: Instant) {
        let mut at = 0;
        while let Some(job) = self.waiting.get(at) {
            let purpose = job.purpose;
            let limit = match purpose {
                Purpose::Check => self.limits.checks.max(1),
                Purpose::Notification => self.limits.notifications.max(1),
                Purpose::Tracking | Purpose::Reader => usize::MAX,
            };
            let running = self.running.iter();
            let busy = running.filter(|one| one.job.purpose == purpose).count();
            if busy >= limit {
                at += 1;
                continue;
            }
            if let Some(job) = self.waiting.remove(at) {
                self.start(now, job);
            }
        }
    }

    fn start(&mut self, now: Instant, job: Job) {
        match spawn(&job.command, self.descriptors) {
            Ok((child, group, watch)) => {
                debug!("running {}, process {}", job.command, child.id());
                let stage = Stage::Free(job.limit.and_then(|limit| now.checked_add(limit)));
                self.running.push(Running {
                    job,
                    child,
                    group,
                    watch,
                    stage,
                });
            }
            Err(error) => job.refuse(error),
        }
    }

    fn handle_deadlines(&mut self, now: Instant) {
        if let End::Notifications(until) = self.end {
            let is_busy = !self.waiting.is_empty()
                || self
                    .running
                    .iter()
                    .any(|one| one.job.purpose != Purpose::Reader);
            if now >= until {
                self.end_everything(now);
            } else if !is_busy {
                self.end = End::Readers(now + LAST_LINES);
            }
        }
        if let End::Readers(until) = self.end
            && (now >= until || self.running.is_empty())
        {
            self.end_everything(now);
        }
        if let End::Everything(until) = self.end
            && now >= until
        {
            for running in &mut self.running {
                running.kill(now, self.limits.patience);
            }
        }
        for running in &mut self.running {
            running.handle_timeout(now, self.limits.patience);
        }
    }

    fn end_everything(&mut self, now: Instant) {
        self.end = End::Everything(now + self.limits.farewell);
        self.waiting
            .drain(..)
            .for_each(|job| job.refuse(Errno::CANCELED));
        for running in &mut self.running {
            running.ask_to_end(now, self.limits.farewell);
        }
    }

    /// What even SIGKILL does not end, in a system call that never returns, is not waited for.
    fn is_over(&self, now: Instant) -> bool {
        match self.end {
            End::Everything(until) => self.running.is_empty() || now >= until + LAST_WAIT,
            End::No | End::Notifications(_) | End::Readers(_) => false,
        }
    }

    fn wait(&self, now: Instant) {
        let end = match self.end {
            End::No => None,
            End::Notifications(until) | End::Readers(until) => Some(until),
            End::Everything(until) if now < until => Some(until),
            End::Everything(until) => Some(until + LAST_WAIT),
        };
        let deadlines = self
            .running
            .iter()
            .filter_map(|running| running.stage.deadline());
        let timeout = deadlines.chain(end).min().map(|deadline| {
            let left = deadline.saturating_duration_since(now);
            // A millisecond more than less: a deadline that is not there yet would be waited for in a busy loop.
            Timespec::try_from(left + Duration::from_millis(1)).unwrap_or_default()
        });
        let mut watched: Vec<PollFd<'_>> = self
            .running
            .iter()
            .map(|running| PollFd::new(&running.watch, PollFlags::IN))
            .collect();
        watched.push(PollFd::new(&self.wake, PollFlags::IN));
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                error!("waiting for scripts: {error}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        let mut counter = [0; 8];
        // Nothing to read is as good.
        let _ = rustix::io::read(&self.wake, &mut counter);
    }

    fn reap(&mut self) {
        let mut at = 0;
        while let Some(running) = self.running.get_mut(at) {
            match running.ended() {
                None => at += 1,
                Some(ended) => {
                    let running = self.running.swap_remove(at);
                    (running.job.done)(ended);
                }
            }
        }
    }
}

impl Running {
    fn ask_to_end(&mut self, now: Instant, patience: Duration) {
        if matches!(self.stage, Stage::Free(_)) {
            self.signal(Signal::TERM);
            self.stage = Stage::Asked(now + patience);
        }
    }

    fn kill(&mut self, now: Instant, patience: Duration) {
        if matches!(self.stage, Stage::Free(_) | Stage::Asked(_)) {
            self.signal(Signal::KILL);
            self.stage = Stage::Killed(now + patience);
        }
    }

    fn handle_timeout(&mut self, now: Instant, patience: Duration) {
        if self.stage.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        match self.stage {
            Stage::Free(_) => {
                debug!("{} takes too long, SIGTERM", self.job.command);
                self.ask_to_end(now, patience);
            }
            Stage::Asked(_) => {
                warn!("{} does not end, SIGKILL", self.job.command);
                self.kill(now, patience);
            }
            Stage::Killed(_) => {
                self.signal(Signal::KILL);
                self.stage = Stage::Killed(now + KILL_AGAIN);
            }
        }
    }

    /// The child is not reaped yet, so the group's number is nobody else's.
    fn signal(&self, signal: Signal) {
        match kill_process_group(self.group, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => warn!("signal to {}: {error}", self.job.command),
        }
    }

    fn ended(&mut self) -> Option<Ended> {
        if !is_readable(&self.watch) {
            return None;
        }
        let was_stopped = !matches!(self.stage, Stage::Free(_));
        if was_stopped {
            // What it has started and left behind.
            self.signal(Signal::KILL);
        }
        let exit = match self.child.wait() {
            Ok(status) => exit_of(status),
            Err(error) => Exit::NotStarted(Errno::from_io_error(&error).unwrap_or(Errno::CHILD)),
        };
        Some(Ended { exit, was_stopped })
    }
}

impl Stage {
    fn deadline(self) -> Option<Instant> {
        match self {
            Self::Free(deadline) => deadline,
            Self::Asked(deadline) | Self::Killed(deadline) => Some(deadline),
        }
    }
}

fn spawn(command: &Command, descriptors: Option<u64>) -> Result<(Child, Pid, OwnedFd), Errno> {
    let child = sys::Child {
        account: command.account.clone().filter(|account| !account.is_own()),
        descriptors,
    };
    let start = |mut process: Process| {
        process
            .args(&command.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        for name in HIDDEN_VARIABLES {
            process.env_remove(name);
        }
        sys::prepare(&mut process, child.clone());
        process
            .spawn()
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
    };
    let started = start(Process::new(&command.program)).or_else(|error| match error {
        Errno::NOEXEC => {
            let mut shell = Process::new(SHELL);
            shell.arg(&command.program);
            start(shell)
        }
        error => Err(error),
    });
    let mut child = started?;
    let group = Pid::from_child(&child);
    match pidfd_open(group, PidfdFlags::empty()) {
        Ok(watch) => Ok((child, group, watch)),
        Err(error) => {
            // One that nobody could watch must not go on.
            let _ = kill_process_group(group, Signal::KILL);
            let _ = child.wait();
            Err(error)
        }
    }
}

fn is_readable(watch: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(watch, PollFlags::IN)];
    matches!(poll(&mut watched, Some(&Timespec::default())), Ok(1))
}

fn exit_of(status: ExitStatus) -> Exit {
    let code = status.code().map(|code| Exit::Code(code.to_le_bytes()[0]));
    code.unwrap_or_else(|| Exit::Signal(status.signal().unwrap_or_default()))
}

const SHELL: &str = "/bin/sh";

/// What a script's shell or its loader would act on.
const HIDDEN_VARIABLES: [&str; 3] = ["IFS", "LD_PRELOAD", "LD_LIBRARY_PATH"];

/// After the second SIGKILL.
const KILL_AGAIN: Duration = Duration::from_secs(10);

/// For readers of pipes whose other end is closed.
const LAST_LINES: Duration = Duration::from_millis(300);

/// For the kernel to take away what was killed.
const LAST_WAIT: Duration = Duration::from_millis(500);
