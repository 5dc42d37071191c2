//! What has no safe wrapper: ICMP errors of datagram sockets, and what a child does between `fork` and `exec`.
#![allow(unsafe_code)]

use crate::ScriptUser;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the runtime watch a poll.
pub(super) fn watch(poll: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names the same open descriptor as long as it lives, and AsyncFd deregisters before dropping it.
    let watched = unsafe { AsyncFd::register_with_interest(poll, Interest::READABLE) };
    watched.map_err(Into::into)
}

/// An ICMP error that came for a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IcmpError {
    Unreachable,
    Other,
    /// Not ICMP: this host could not send.
    Local(i32),
}

/// Lets ICMP errors of every code reach the socket, by its error queue.
pub(super) fn receive_icmp_errors(socket: impl AsFd, is_ipv6: bool) -> io::Result<()> {
    let (level, option) = if is_ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
    } else {
        (libc::IPPROTO_IP, libc::IP_RECVERR)
    };
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open for the call, and the value is an int of the length that is given.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The next entry of a socket's error queue.
pub(super) fn next_icmp_error(socket: impl AsFd) -> Option<IcmpError> {
    let mut control = MaybeUninit::<[u64; 64]>::uninit();
    // SAFETY: all zeros is a valid `msghdr`: null pointers and lengths of 0.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the descriptor is open for the call; the header's only buffer is `control`, with its own length.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, flags) };
    if length < 0 {
        return None;
    }
    // SAFETY: `recvmsg` has filled the header, whose control buffer is still there and aligned for `cmsghdr`.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        // SAFETY: not null, so it points into the control buffer, at a header that the kernel wrote.
        let current = unsafe { message.read_unaligned() };
        let is_error = matches!(
            (current.cmsg_level, current.cmsg_type),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        );
        if is_error {
            // SAFETY: a message of this type carries a `sock_extended_err`.
            let error = unsafe {
                libc::CMSG_DATA(message)
                    .cast::<libc::sock_extended_err>()
                    .read_unaligned()
            };
            return Some(match (error.ee_origin, error.ee_type) {
                (libc::SO_EE_ORIGIN_ICMP, ICMP_UNREACHABLE)
                | (libc::SO_EE_ORIGIN_ICMP6, ICMP6_UNREACHABLE) => IcmpError::Unreachable,
                (libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6, _) => IcmpError::Other,
                _ => IcmpError::Local(i32::try_from(error.ee_errno).unwrap_or(0)),
            });
        }
        // SAFETY: `message` came from this header.
        message = unsafe { libc::CMSG_NXTHDR(&raw const header, message) };
    }
    None
}

/// Has the child become this user, be ended when this thread ends, and keep no descriptor beyond the standard streams.
pub(super) fn prepare_child(command: &mut Command, user: Option<ScriptUser>) {
    let become_ready = move || {
        if let Some(user) = &user {
            become_user(user)?;
        }
        // SAFETY: these calls take numbers only. A change of user clears the death signal, so it comes after.
        unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The pipe by which a failed `exec` is told must live until then. A kernel without the call is not worth a
            // failure: what this program opens closes itself anyway.
            libc::syscall(
                libc::SYS_close_range,
                3,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            );
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(become_ready) };
}

fn become_user(user: &ScriptUser) -> io::Result<()> {
    let check = |outcome| match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: the list outlives the call and has the length that is given; the others take numbers only.
    unsafe {
        check(libc::setgroups(user.groups.len(), user.groups.as_ptr()))?;
        check(libc::setgid(user.gid))?;
        check(libc::setuid(user.uid))
    }
}

const ICMP_UNREACHABLE: u8 = 3;
const ICMP6_UNREACHABLE: u8 = 1;
