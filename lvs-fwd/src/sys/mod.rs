//! Every system call and every unsafe block of this crate.

pub(crate) mod event;
pub(crate) mod ring;
#[allow(dead_code)]
pub(crate) mod tun;
