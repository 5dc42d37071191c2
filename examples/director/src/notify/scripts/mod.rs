//! Running programs: check scripts, notify scripts, readers of pipes.
//!
//! One thread starts, watches, stops and reaps all of them, so that a fork keeps neither the control loop nor VRRP waiting and no script
//! costs a thread. [`Runner`] is its handle, usable from any thread; what comes of a program is told to a closure. [`Policy`]
//! makes a [`Command`] out of what a configuration says, or tells why it must not be run.
//!
//! A program gets a process group of its own, null devices as standard streams, no further descriptors, default signal dispositions, the
//! director's working directory and its environment less `IFS`, `LD_PRELOAD` and `LD_LIBRARY_PATH`, and SIGTERM when the director
//! ends, however it ends. A text file without interpreter line goes to `/bin/sh`.

mod accounts;
mod policy;
mod supervisor;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

pub use accounts::{Account, AccountError};
pub use policy::{Checked, Insecure, Policy, Refusal, Remark};

use supervisor::{Job, Request, Supervisor};

/// What is run, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Command {
    /// The file to execute; `PATH` is not searched.
    pub program: PathBuf,
    /// What follows its name.
    pub arguments: Vec<OsString>,
    /// `None`: as whom the director runs.
    pub account: Option<Account>,
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.program.display())?;
        for argument in &self.arguments {
            write!(f, " {}", argument.display())?;
        }
        Ok(())
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(u8),
    /// By this signal.
    Signal(i32),
    /// It never ran: not executable, no such user, no process to be had, or the runner had been stopped.
    NotStarted(Errno),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with status {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::NotStarted(error) => write!(f, "could not be run: {error}"),
        }
    }
}

/// What came of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How it ended. One that was asked to end and did so by itself is judged by its status.
    pub exit: Exit,
    /// Whether it had been asked to, by its limit or [`Ticket::terminate`].
    pub was_stopped: bool,
}

/// What a program is run for: how many may run at the same time, and what becomes of them when the runner stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Its status is wanted, soon. Ended at once when the runner stops.
    Check,
    /// As a check, but it never waits for others: addresses hang on its status, and there are few of this kind.
    Tracking,
    /// It does something about what has happened. May finish when the runner stops, for a while.
    Notification,
    /// It runs as long as the director. Asked to end when the runner stops, every notification has finished and it does not end by itself.
    Reader,
}

/// How the runner works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Checks that run at the same time; others wait for their turn. At least 1.
    pub checks: usize,
    /// Notifications, likewise.
    pub notifications: usize,
    /// From SIGTERM to SIGKILL.
    pub patience: Duration,
    /// How long notifications may go on when the runner stops, and readers after them.
    pub farewell: Duration,
}

impl Default for Limits {
    /// 64 checks, 64 notifications, 2 s as keepalived waits for a script that ran too long, 1 s as it waits at its end.
    fn default() -> Self {
        Self {
            checks: 64,
            notifications: 64,
            patience: Duration::from_secs(2),
            farewell: Duration::from_secs(1),
        }
    }
}

/// Runs programs. Clones are handles of the same runner; when the last one goes the runner [stops](Self::stop).
#[derive(Debug, Clone)]
pub struct Runner {
    handle: Arc<Handle>,
}

impl Runner {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// There is no thread or descriptor to be had.
    pub fn start(limits: Limits) -> io::Result<Self> {
        let (requests, inbox) = channel();
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let supervisor = Supervisor::new(limits, inbox, Arc::clone(&wake));
        let thread = std::thread::Builder::new()
            .name("scripts".to_owned())
            .spawn(move || supervisor.run())?;
        Ok(Self {
            handle: Arc::new(Handle {
                requests,
                wake,
                next: AtomicU64::new(0),
                thread: parking_lot::Mutex::new(Some(thread)),
            }),
        })
    }

    /// Runs a program as soon as there is room. After `limit`, counted from its start, its process group gets SIGTERM, then SIGKILL
    /// until it is gone. `done` is called once, on the runner's thread, which it must not hold up.
    pub fn run(
        &self,
        purpose: Purpose,
        command: Command,
        limit: Option<Duration>,
        done: impl FnOnce(Ended) + Send + 'static,
    ) -> Ticket {
        let id = self.handle.next.fetch_add(1, Ordering::Relaxed);
        self.handle.send(Request::Run(Job {
            id,
            purpose,
            command,
            limit,
            done: Box::new(done),
        }));
        Ticket {
            id,
            handle: Arc::clone(&self.handle),
        }
    }

    /// Ends every program: checks at once, notifications and readers after their [farewell](Limits::farewell). Returns when all
    /// are gone, at most [`farewell`](Limits::farewell) twice and a little later. What is asked for afterwards is not run.
    pub fn stop(&self) {
        self.handle.stop();
    }
}

/// One program that was asked for. Dropping it lets the program run on.
#[derive(Debug)]
pub struct Ticket {
    id: u64,
    handle: Arc<Handle>,
}

impl Ticket {
    /// SIGTERM to the process group, then SIGKILL until it is gone. One that still waits for its turn is not run at all. No effect on
    /// one that has ended.
    pub fn terminate(&self) {
        self.handle.send(Request::Terminate(self.id));
    }

    /// SIGKILL to the process group. No effect on one that has ended.
    pub fn kill(&self) {
        self.handle.send(Request::Kill(self.id));
    }
}

#[derive(Debug)]
struct Handle {
    requests: Sender<Request>,
    wake: Arc<std::os::fd::OwnedFd>,
    next: AtomicU64,
    thread: parking_lot::Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Handle {
    fn send(&self, request: Request) {
        match self.requests.send(request) {
            // A counter that is full wakes the thread just as well.
            Ok(()) => drop(rustix::io::write(&self.wake, &1_u64.to_ne_bytes())),
            Err(unsent) => unsent.0.refuse(Errno::CANCELED),
        }
    }

    fn stop(&self) {
        self.send(Request::Stop);
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A thread that panicked has ended too.
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests;
