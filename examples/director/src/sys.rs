//! The one place with `unsafe` in the director.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A duplicate of the descriptor, watched by the calling thread's event loop for something to read.
pub(crate) fn watch(descriptor: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    let duplicate = descriptor.try_clone_to_owned()?;
    // SAFETY: an OwnedFd names the same open descriptor as long as it lives, and AsyncFd deregisters before dropping it.
    let watched = unsafe { AsyncFd::register_with_interest(duplicate, Interest::READABLE) };
    watched.map_err(Into::into)
}

/// Lets an IPv6 UDP socket receive datagrams without a checksum.
pub(crate) fn accept_unsummed(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is one int, valid for the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_UDP,
            UDP_NO_CHECK6_RX,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// From `linux/udp.h`.
const UDP_NO_CHECK6_RX: libc::c_int = 102;
