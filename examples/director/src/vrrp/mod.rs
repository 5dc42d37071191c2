//! VRRP on this host: `lvs-vrrp`'s machine with sockets, a clock and the kernel's addresses.
//!
//! One thread of its own, with real-time priority where the process may have it, reads raw sockets and netlink, drives the machine and
//! does what it asks for; so neither checks nor configuration ever keep an advertisement waiting. [`convert()`] turns the
//! model of a keepalived.conf into the machine's setup; `sockets` has the raw sockets; `host` the kernel's links and addresses;
//! `shell` is the loop, `actions` what waits until packets are claimed, [`dump`] the files that signals ask for, [`Vrrp`] the thread as the rest of the program sees it; it tells
//! [`News`]. [`run`] is the program `director --vrrp`.
//!
//! Not there yet: check scripts, tracked files and processes, BFD sockets, virtual routes and rules, VMAC interfaces, packet filters for
//! `no_accept`, notify scripts and mail. [`convert()`] says so for each instance that asks for them.

mod actions;
mod announce;
pub mod convert;
pub mod dump;
mod host;
mod log;
mod run;
mod shell;
mod sockets;
mod sys;
mod thread;

pub(crate) use announce::Announcer;
pub use convert::{Converted, convert};
pub use log::log;
pub use run::{VrrpOptions, run};
pub use thread::{AddressChange, Claims, News, Status, Vrrp, VrrpError};
