//! The built-in checkers, one conversation each.

pub(crate) mod bfd;
pub(crate) mod dns;
pub(crate) mod file;
pub(crate) mod http;
pub(crate) mod misc;
pub(crate) mod passive;
pub(crate) mod ping;
pub(crate) mod smtp;
pub(crate) mod tcp;
pub(crate) mod udp;
