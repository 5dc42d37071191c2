//! VRRP on this host: `lvs-vrrp`'s machine with sockets, a clock and the kernel's addresses.
//!
//! One thread of its own, with real-time priority where the process may have it, reads raw sockets and netlink, drives the machine and
//! does what it asks for; so neither checks nor configuration ever keep an advertisement waiting. It writes no log: what happens is told as
//! [`News`] to whoever started it. [`Vrrp`] is the thread from outside, [`run()`] the program `director --vrrp`.
//!
//! | module | knows |
//! |---|---|
//! | [`convert()`] | the machine's setup out of a configuration, and what the machine need not know |
//! | `shell` | the loop: read, judge, drain, sleep |
//! | `actions` | what the machine has asked for and waits: addresses, until their packets are claimed |
//! | `sockets`, `sys` | raw sockets, time stamps |
//! | `host` | the kernel's links, addresses, routes, rules, packet filter |
//! | `routes`, `vmac` | virtual routes and rules; interfaces with the virtual MAC address |
//! | `watch` | check scripts, tracked files and processes, BFD sessions |
//! | [`dump`] | the files that signals ask for |
//!
//! Not there: ipvlan and VMAC interfaces for single addresses, HMAC authentication, `garp_extra_if`, `vrrp_delay_after_boot`, and of routes
//! and rules what `routes` lists. [`convert()`] says so for each instance that asks for it.

mod actions;
mod announce;
pub mod convert;
pub mod dump;
mod host;
mod log;
pub(crate) mod routes;
mod run;
mod shell;
mod sockets;
mod sys;
mod thread;
mod vmac;
mod watch;

pub(crate) use announce::Announcer;
pub use convert::{Converted, convert, convert_checks};
pub use log::log;
pub use routes::Routes;
pub use run::{VrrpOptions, run};
pub use thread::{AddressChange, Claims, News, Status, Vrrp, VrrpError};
pub use vmac::Vmac;
pub use watch::Watched;
