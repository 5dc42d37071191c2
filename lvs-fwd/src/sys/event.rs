//! Waking a thread that waits, and waiting.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// A counter that makes a descriptor readable while it is not zero.
#[derive(Debug)]
pub(crate) struct Event(OwnedFd);

impl Event {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(
            0,
            EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC,
        )?))
    }

    /// Makes the descriptor readable. A counter that is full is readable already.
    pub(crate) fn signal(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable again.
    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of the descriptors is readable (or writable, where asked for) or the time is over;
/// `None` waits for ever. Interruption by a signal counts as time over. Returns which of the first 64 have something
/// to say, a bit for each.
pub(crate) fn wait<'a>(
    descriptors: impl Iterator<Item = (BorrowedFd<'a>, bool)>,
    timeout: Option<Duration>,
) -> io::Result<u64> {
    let mut set: Vec<PollFd<'_>> = descriptors
        .map(|(descriptor, writable)| {
            let mut events = PollFlags::IN;
            events.set(PollFlags::OUT, writable);
            PollFd::from_borrowed_fd(descriptor, events)
        })
        .collect();
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    match poll(&mut set, timeout.as_ref()) {
        Ok(0) | Err(Errno::INTR) => Ok(0),
        Ok(_) => Ok(set
            .iter()
            .take(64)
            .enumerate()
            .filter(|(_, descriptor)| !descriptor.revents().is_empty())
            .fold(0, |ready, (at, _)| ready | 1 << at)),
        Err(error) => Err(error.into()),
    }
}
