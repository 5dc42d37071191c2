//! Commands about files, which need no privilege and change nothing that runs.

pub mod compare;
pub mod format;
pub mod lint;

/// The exit status of a command that could not do its work, as of `diff` and `grep`.
pub const STATUS_TROUBLE: u8 = 2;
