//! The one place with `unsafe` in the director.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A duplicate of the descriptor, watched by the calling thread's event loop for something to read.
pub(crate) fn watch(descriptor: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    let duplicate = descriptor.try_clone_to_owned()?;
    // SAFETY: an OwnedFd names the same open descriptor as long as it lives, and AsyncFd deregisters before dropping it.
    let watched = unsafe { AsyncFd::register_with_interest(duplicate, Interest::READABLE) };
    watched.map_err(Into::into)
}
