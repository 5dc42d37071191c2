//! What a child does between fork and exec.
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

fn check(result: c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The last real-time signal of Linux.
const LAST_SIGNAL: c_int = 64;
