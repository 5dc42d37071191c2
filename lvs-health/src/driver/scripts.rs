//! The programs of `MISC_CHECK`: a bounded number at a time, each in a process group of its own, always reaped.

use super::sys;
use crate::{Exit, ProbeId, Script, SystemError};
use rustix::event::epoll;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Scripts {
    limit: usize,
    running: BTreeMap<ProbeId, Running>,
    /// They wait for others to end.
    waiting: VecDeque<(ProbeId, Arc<Script>)>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// Held because it is watched.
    _pidfd: OwnedFd,
    /// Whether anybody wants to hear of its end.
    is_wanted: bool,
    /// When it gets SIGKILL; `None` while it may run.
    kill: Option<Instant>,
    kills: u32,
}

impl Scripts {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            running: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Starts a program, or has it wait. `Some`: it cannot be started.
    pub(super) fn run(
        &mut self,
        epoll: BorrowedFd<'_>,
        probe: ProbeId,
        script: Arc<Script>,
    ) -> Option<Exit> {
        if self.running.len() >= self.limit {
            self.waiting.push_back((probe, script));
            return None;
        }
        let started = start(epoll, probe, &script);
        match started {
            Ok(running) => {
                self.running.insert(probe, running);
                None
            }
            Err(error) => Some(Exit::NotStarted(SystemError::from(&error))),
        }
    }

    /// The next program that waits and has room now.
    pub(super) fn next_waiting(&mut self) -> Option<(ProbeId, Arc<Script>)> {
        if self.running.len() >= self.limit {
            return None;
        }
        self.waiting.pop_front()
    }

    /// Asks a program to end. `Some`: it had not even begun.
    pub(super) fn terminate(&mut self, now: Instant, probe: ProbeId) -> Option<Exit> {
        if let Some(at) = self.waiting.iter().position(|(waits, _)| *waits == probe) {
            self.waiting.remove(at);
            let error = io::Error::from(io::ErrorKind::WouldBlock);
            return Some(Exit::NotStarted(SystemError::from(&error)));
        }
        if let Some(running) = self.running.get_mut(&probe)
            && running.kill.is_none()
        {
            running.signal(Signal::TERM);
            running.kill = Some(now + GRACE);
        }
        None
    }

    /// Nobody wants to hear of this program any more.
    pub(super) fn close(&mut self, now: Instant, probe: ProbeId) {
        if let Some(running) = self.running.get_mut(&probe) {
            running.is_wanted = false;
        }
        self.terminate(now, probe);
    }

    /// A program has ended, or another thing woke its descriptor.
    pub(super) fn reap(&mut self, probe: ProbeId) -> Option<Exit> {
        let running = self.running.get_mut(&probe)?;
        let status = match running.child.try_wait() {
            Ok(status) => status?,
            // Somebody else has waited for it: that it ended is all there is to know.
            Err(_) => ExitStatus::from_raw(0xff00),
        };
        if running.kill.is_some() {
            // What it had started may still be there.
            running.signal(Signal::KILL);
        }
        let running = self.running.remove(&probe)?;
        if !running.is_wanted {
            return None;
        }
        Some(match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(u8::try_from(code).unwrap_or(u8::MAX)),
            (None, signal) => Exit::Signal(signal.unwrap_or(0)),
        })
    }

    /// Kills what did not end when it was asked to.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for running in self.running.values_mut() {
            if running.kill.is_some_and(|due| due <= now) {
                running.signal(Signal::KILL);
                running.kills += 1;
                let pause = if running.kills == 1 {
                    GRACE
                } else {
                    KILL_AGAIN
                };
                running.kill = Some(now + pause);
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.running.values().filter_map(|it| it.kill).min()
    }
}

impl Running {
    fn signal(&self, signal: Signal) {
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            // A group that is gone needs no signal.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        for running in self.running.values_mut() {
            running.signal(Signal::KILL);
            let _ = running.child.wait();
        }
    }
}

fn start(epoll: BorrowedFd<'_>, probe: ProbeId, script: &Script) -> io::Result<Running> {
    let mut child = spawn(Command::new(&script.program), script).or_else(|error| {
        if error.raw_os_error() != Some(rustix::io::Errno::NOEXEC.raw_os_error()) {
            return Err(error);
        }
        // A text without an interpreter's line.
        let mut shell = Command::new(SHELL);
        shell.arg(&script.program);
        spawn(shell, script)
    })?;
    let watched = watch(epoll, probe, &child);
    match watched {
        Ok(pidfd) => Ok(Running {
            child,
            _pidfd: pidfd,
            is_wanted: true,
            kill: None,
            kills: 0,
        }),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

fn spawn(mut command: Command, script: &Script) -> io::Result<Child> {
    command
        .args(&script.arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    for name in ["IFS", "LD_PRELOAD", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
    sys::prepare_child(&mut command, script.user.clone());
    command.spawn()
}

fn watch(epoll: BorrowedFd<'_>, probe: ProbeId, child: &Child) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(child.id().cast_signed());
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let data = epoll::EventData::new_u64(probe.as_u64());
    epoll::add(epoll, &pidfd, data, epoll::EventFlags::IN)?;
    Ok(pidfd)
}

const SHELL: &str = "/bin/sh";

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
const KILL_AGAIN: Duration = Duration::from_secs(10);
