//! What a child does between fork and exec, and the local time.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{c_int, c_ulong};
use rustix::process::Resource;

use super::scripts::Account;

/// Who a child becomes and what it leaves behind.
#[derive(Debug, Clone)]
pub(super) struct Child {
    /// `None` stays who the director is.
    pub(super) account: Option<Account>,
    /// How many descriptors the child may have; `None`: the director's limit.
    pub(super) descriptors: Option<u64>,
}

/// The child gets this account, default signal dispositions, a SIGTERM when the calling thread ends, and no descriptor beyond the
/// standard streams.
pub(super) fn prepare(command: &mut Command, child: Child) {
    let parent = std::process::id();
    let change = move || become_child(&child, parent);
    // SAFETY: the closure only makes system calls that are safe after a fork in a process of several threads; it neither allocates nor
    // takes a lock.
    unsafe { command.pre_exec(change) };
}

fn become_child(child: &Child, parent: u32) -> io::Result<()> {
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: SIG_DFL is a disposition for every signal; those that have no other refuse, which is as good.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    if let Some(account) = &child.account {
        // SAFETY: the list is as long as said and lives until after the call.
        check(unsafe { libc::setgroups(account.groups.len(), account.groups.as_ptr()) })?;
        // SAFETY: plain numbers.
        check(unsafe { libc::setresgid(account.gid, account.gid, account.gid) })?;
        // SAFETY: plain numbers.
        check(unsafe { libc::setresuid(account.uid, account.uid, account.uid) })?;
    }
    // After the change of user, which clears it.
    // SAFETY: this option takes one number.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as c_ulong) })?;
    // SAFETY: no arguments.
    if u32::try_from(unsafe { libc::getppid() }) != Ok(parent) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    if let Some(descriptors) = child.descriptors {
        let mut limit = rustix::process::getrlimit(Resource::Nofile);
        limit.current = Some(descriptors);
        // A program that copes with more than it used to get is no worse off.
        let _ = rustix::process::setrlimit(Resource::Nofile, limit);
    }
    // Closed by exec and not now: an error still has to be told through one of them.
    // SAFETY: plain numbers. Where the call is not known, only descriptors that the director was started with stay.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
    }
    Ok(())
}

/// A time in the host's zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LocalTime {
    pub(super) year: i64,
    /// From 0.
    pub(super) month: usize,
    pub(super) day: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
    /// From Sunday, 0.
    pub(super) weekday: usize,
    /// Seconds ahead of UTC.
    pub(super) offset: i64,
}

/// Of seconds since 1970; those of 1970 where the C library can't tell.
pub(super) fn local_time(seconds: u64) -> LocalTime {
    let time = libc::time_t::try_from(seconds).unwrap_or_default();
    // SAFETY: all members are numbers or a pointer that may be null.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both live until after the call, which writes the second. The zone's name in it is not used.
    unsafe { libc::localtime_r(&raw const time, &raw mut parts) };
    let small = |number: c_int| u8::try_from(number).unwrap_or_default();
    LocalTime {
        year: i64::from(parts.tm_year) + 1900,
        month: usize::from(small(parts.tm_mon)),
        day: small(parts.tm_mday),
        hour: small(parts.tm_hour),
        minute: small(parts.tm_min),
        second: small(parts.tm_sec),
        weekday: usize::from(small(parts.tm_wday)),
        offset: parts.tm_gmtoff,
    }
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The last real-time signal of Linux.
const LAST_SIGNAL: c_int = 64;
