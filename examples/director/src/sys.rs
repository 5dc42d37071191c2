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

/// Waits until there is something to read. What is read afterwards must be read to the end.
pub(crate) async fn readable(descriptor: &AsyncFd<OwnedFd>) {
    match descriptor.readable().await {
        Ok(mut guard) => guard.clear_ready(),
        // The loop's own poller is gone: so is the loop.
        Err(_) => std::future::pending().await,
    }
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

/// Whether an interface merges received segments in hardware or driver (LRO). An error also where the driver can't say.
pub(crate) fn merges_segments(interface: &str) -> io::Result<bool> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    let bytes = interface.as_bytes();
    if bytes.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut value = EthtoolValue {
        command: ETHTOOL_GFLAGS,
        data: 0,
    };
    // SAFETY: ifreq is plain data, for which all bits zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL reads the request and writes the value that it points to; both live until after the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value.data & ETH_FLAG_LRO != 0)
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

const _: () = assert!(size_of::<EthtoolValue>() == 8);

/// From `linux/sockios.h` and `linux/ethtool.h`.
const SIOCETHTOOL: u32 = 0x8946;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETH_FLAG_LRO: u32 = 1 << 15;

/// From `linux/udp.h`.
const UDP_NO_CHECK6_RX: libc::c_int = 102;
