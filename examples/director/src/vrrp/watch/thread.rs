//! A thread of ordinary priority that reads files and counts processes, so that VRRP's own does not wait for disks.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use lvs_conf::model::{TrackFile, TrackProcess};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::super::thread::{Handle, Order};
use super::files::{self, FileWatch};
use super::{Watched, processes};

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(in super::super) struct Watcher {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Tells what there is, and then what changes. `None` if there is nothing to watch.
    pub(in super::super) fn start(watched: &Watched, vrrp: Handle) -> io::Result<Option<Self>> {
        if watched.files.is_empty() && watched.processes.is_empty() {
            return Ok(None);
        }
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let work = Work {
            watch: FileWatch::new(&watched.files)?,
            files: watched.files.clone(),
            processes: watched.processes.clone(),
            numbers: BTreeMap::new(),
            counts: BTreeMap::new(),
            vrrp,
        };
        let end = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("vrrp-watch".to_owned())
            .spawn(move || work.run(&end))?;
        Ok(Some(Self {
            stop,
            thread: Some(thread),
        }))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // One that has panicked watches nothing any more either.
            let _ = thread.join();
        }
    }
}

struct Work {
    watch: FileWatch,
    files: Vec<TrackFile>,
    processes: Vec<TrackProcess>,
    numbers: BTreeMap<String, i32>,
    counts: BTreeMap<String, u32>,
    vrrp: Handle,
}

impl Work {
    fn run(mut self, end: &OwnedFd) {
        loop {
            self.look();
            let wait = match (self.processes.is_empty(), self.watch.is_partial) {
                (false, _) => Some(PROCESSES_EVERY),
                (true, true) => Some(DIRECTORIES_EVERY),
                (true, false) => None,
            };
            let wait = wait.map(|wait| Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(wait.subsec_nanos()),
            });
            let mut watched = [
                PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.watch.as_fd(), PollFlags::IN),
            ];
            // An interruption is as good as an event.
            let _ = poll(&mut watched, wait.as_ref());
            if !watched[0].revents().is_empty() {
                return;
            }
            if (self.watch.take() || self.watch.is_partial)
                && let Ok(again) = FileWatch::new(&self.files)
            {
                self.watch = again;
            }
        }
    }

    /// Tells what is otherwise than before.
    fn look(&mut self) {
        for file in &self.files {
            // What does not fit leaves the number as it was.
            let Some(number) = files::read(&file.path) else {
                continue;
            };
            if self.numbers.insert(file.name.clone(), number) != Some(number) {
                self.vrrp.send(Order::File(file.name.clone(), number));
            }
        }
        if self.processes.is_empty() {
            return;
        }
        for (name, count) in processes::count(&self.processes) {
            if self.counts.insert(name.clone(), count) != Some(count) {
                self.vrrp.send(Order::Processes(name, count));
            }
        }
    }
}

/// How late the end of a process may be noticed.
const PROCESSES_EVERY: Duration = Duration::from_millis(500);

/// How late a file is noticed whose directory was made later.
const DIRECTORIES_EVERY: Duration = Duration::from_secs(1);
