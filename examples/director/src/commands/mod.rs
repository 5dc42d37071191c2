//! Commands that answer and end: about files, about the running director, about this host.

pub mod by_hand;
pub mod compare;
pub mod completions;
pub mod drain;
pub mod events;
pub mod format;
pub mod genhash;
pub mod health;
pub mod host;
pub mod lint;
pub mod realserver;
pub mod status;
pub mod vrrp;
pub mod why;

/// The exit status of a command that could not do its work, as of `diff` and `grep`.
pub const STATUS_TROUBLE: u8 = 2;
