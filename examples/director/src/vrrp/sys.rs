//! The system calls that VRRP needs and no library has: ancillary data of a datagram, frames to an interface, scheduling.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// A datagram's surroundings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ancillary {
    pub(super) length: usize,
    pub(super) source: Option<SocketAddr>,
    /// When the kernel had it, since 1970.
    pub(super) received: Option<Duration>,
    /// Or the TTL, where it was asked for.
    pub(super) hop_limit: Option<u8>,
    pub(super) truncated: bool,
}

/// Has the kernel note when each datagram came.
pub(super) fn enable_timestamps(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is one int, valid for the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    checked(result).map(drop)
}

/// Has the kernel tell the TTL of each IPv4 datagram.
pub(super) fn enable_ttl(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is one int, valid for the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_RECVTTL,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    checked(result).map(drop)
}

/// Reads a datagram with what the kernel says about it.
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Ancillary> {
    let mut control = [0_u64; 32];
    // SAFETY: all zeroes is a valid value of these plain structures.
    let (mut name, mut message): (libc::sockaddr_storage, libc::msghdr) =
        unsafe { (zeroed(), zeroed()) };
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: the header points to buffers that live until after the call, with their right lengths.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let mut ancillary = Ancillary {
        length,
        source: source(&name),
        received: None,
        hop_limit: None,
        truncated: message.msg_flags & libc::MSG_TRUNC != 0,
    };
    // SAFETY: the header was filled in by recvmsg; the macros walk within `msg_controllen` bytes of an aligned buffer.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: as above: a header that the macros return lies wholly within the control buffer.
    while let Some(header) = unsafe { next.as_ref() } {
        // SAFETY: as above.
        let data = unsafe { libc::CMSG_DATA(header) };
        match (header.cmsg_level, header.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                // SAFETY: this kind of message carries a timespec, perhaps unaligned.
                let time = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
                let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
                ancillary.received = Some(Duration::new(seconds, nanos));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) | (libc::IPPROTO_IP, libc::IP_TTL) => {
                // SAFETY: this kind of message carries an int, perhaps unaligned.
                let limit = unsafe { data.cast::<libc::c_int>().read_unaligned() };
                ancillary.hop_limit = u8::try_from(limit).ok();
            }
            _ => {}
        }
        // SAFETY: as above.
        next = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(ancillary)
}

fn source(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure the storage holds, and it is large and aligned enough for each.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(address, 0).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let address = Ipv6Addr::from(name.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(address, 0, 0, name.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Sends an Ethernet frame out of an interface.
pub(super) fn send_frame(socket: BorrowedFd<'_>, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: all zeroes is a valid value of this plain structure.
    let mut to: libc::sockaddr_ll = unsafe { zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = i32::try_from(ifindex).map_err(io::Error::other)?;
    // SAFETY: frame and address are valid for the call, with their right lengths.
    let result = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives the calling thread real-time priority. Unprivileged processes may not have it.
pub(super) fn set_real_time() -> io::Result<()> {
    // SAFETY: all zeroes is a valid value of this plain structure.
    let mut parameters: libc::sched_param = unsafe { zeroed() };
    parameters.sched_priority = PRIORITY;
    // What the thread starts (a script) shall not inherit it.
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: zero is the calling thread; the parameters are valid for the call.
    checked(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) }).map(drop)
}

/// Time since 1970, as socket time stamps count.
pub(super) fn realtime() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Above everything ordinary, below the kernel's own threads.
const PRIORITY: libc::c_int = 50;
