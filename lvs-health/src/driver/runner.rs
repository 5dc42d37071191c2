//! Programs of checks that somebody else runs.

use crate::{Exit, ProbeId, Script, SystemError};
use rustix::event::{EventfdFlags, epoll, eventfd};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Runs the scripts of checks in place of the [`Driver`](crate::Driver), for programs that run others anyway: then one place
/// starts, bounds and reaps all of them, and no fork holds up the checks.
///
/// A script gets what [`Script`] promises.
pub trait ScriptRunner: fmt::Debug + Send {
    /// Starts a script, or has it wait for its turn. Its end is told to `end`, from any thread; so is that it could not be
    /// started.
    fn run(&mut self, script: &Script, end: ScriptEnd) -> Box<dyn RunningScript>;
}

/// A script that a [`ScriptRunner`] was given. When it is dropped the script may run on.
pub trait RunningScript: fmt::Debug + Send {
    /// Asks the script and what it has started to end, and makes them if they do not within two seconds or so. One that waits
    /// for its turn is not run: [`Exit::NotStarted`]. No effect on one that has ended.
    fn terminate(&mut self);
}

/// Where the end of a script is told. Dropped without a word, it says that the script was not started.
#[derive(Debug)]
pub struct ScriptEnd {
    probe: ProbeId,
    ends: Sender<(ProbeId, Exit)>,
    wake: Arc<OwnedFd>,
    is_told: bool,
}

impl ScriptEnd {
    /// It has ended so, and has been reaped.
    pub fn tell(mut self, exit: Exit) {
        self.send(exit);
    }

    fn send(&mut self, exit: Exit) {
        self.is_told = true;
        // A driver that is gone does not want to know.
        if self.ends.send((self.probe, exit)).is_ok() {
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }
}

impl Drop for ScriptEnd {
    fn drop(&mut self) {
        if !self.is_told {
            let error = io::Error::from(io::ErrorKind::Interrupted);
            self.send(Exit::NotStarted(SystemError::from(&error)));
        }
    }
}

/// A [`ScriptRunner`] and what it was given.
#[derive(Debug)]
pub(super) struct Hired {
    runner: Box<dyn ScriptRunner>,
    running: HashMap<ProbeId, Box<dyn RunningScript>>,
    teller: Sender<(ProbeId, Exit)>,
    ends: Receiver<(ProbeId, Exit)>,
    wake: Arc<OwnedFd>,
}

impl Hired {
    /// Its news wake the poll as [`WAKE`].
    pub(super) fn new(epoll: BorrowedFd<'_>, runner: Box<dyn ScriptRunner>) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let data = epoll::EventData::new_u64(WAKE.as_u64());
        epoll::add(epoll, &wake, data, epoll::EventFlags::IN)?;
        let (teller, ends) = channel();
        Ok(Self {
            runner,
            running: HashMap::new(),
            teller,
            ends,
            wake: Arc::new(wake),
        })
    }

    pub(super) fn run(&mut self, probe: ProbeId, script: &Script) {
        let end = ScriptEnd {
            probe,
            ends: self.teller.clone(),
            wake: Arc::clone(&self.wake),
            is_told: false,
        };
        let running = self.runner.run(script, end);
        self.running.insert(probe, running);
    }

    pub(super) fn terminate(&mut self, probe: ProbeId) {
        if let Some(running) = self.running.get_mut(&probe) {
            running.terminate();
        }
    }

    /// Nobody wants to hear of this script any more.
    pub(super) fn close(&mut self, probe: ProbeId) {
        if let Some(mut running) = self.running.remove(&probe) {
            running.terminate();
        }
    }

    /// The scripts that have ended, when the poll was woken.
    pub(super) fn ended(&mut self) -> Vec<(ProbeId, Exit)> {
        let mut count = [0; 8];
        // First the number, then what it counts: what comes meanwhile wakes again.
        let _ = rustix::io::read(&self.wake, &mut count);
        let ended = self.ends.try_iter();
        ended
            .filter(|(probe, _)| self.running.remove(probe).is_some())
            .collect()
    }
}

/// No probe has this number: they are counted from the beginning.
pub(super) const WAKE: ProbeId = ProbeId::LAST;
