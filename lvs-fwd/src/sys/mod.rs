//! Every system call and every unsafe block of this crate.

#[cfg(feature = "af-xdp")]
pub(crate) mod bpf;
pub(crate) mod event;
pub(crate) mod ring;

pub(crate) mod tun;
#[cfg(feature = "af-xdp")]
pub(crate) mod xdp;
