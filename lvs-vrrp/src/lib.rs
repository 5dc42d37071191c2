//! Who owns the address? VRRP (RFC 9568, RFC 5798, RFC 3768) as a sans-IO machine that keepalived takes for its own.
//!
//! A [`VirtualRouter`] is one state machine: advertisements, facts about the host and the present time go in; datagrams,
//! commands, events and one deadline come out. A [`VrrpRouter`] holds all virtual routers of a machine with their sync groups and
//! everything that they watch (links, scripts, files, processes, BFD sessions). [`wire`] reads and writes the bytes, those of
//! gratuitous ARP and neighbour advertisements too. Nothing here opens a socket, reads a clock, draws a random number or knows an
//! interface by more than its name, so a fail-over is tested in microseconds and always replays the same way.
//!
//! # Driving the machine
//!
//! Three rules:
//!
//! 1. **Read before you judge.** When the deadline has passed, first hand over every datagram that the socket still holds, each with the
//!    instant at which the kernel received it (`SO_TIMESTAMPNS`, moved to the monotonic clock; the present if unknown), and only then
//!    call `handle_timeout`. A process that was not run for a while then finds the advertisements that arrived in time, and does not
//!    take over from a router that is alive.
//! 2. **Drain after every call** that takes `&mut self`: `poll_transmit`, then `poll_command`, then `poll_event`, each to
//!    `None`. The order matters: the first advertisement of a new Active router leaves before its addresses are set, so that the old one
//!    takes them away first.
//! 3. **Then sleep** until `poll_timeout`, a datagram, or a fact.
//!
//! Commands of one router are done in their order. A command whose aim is reached already has succeeded. None reports back: what fails, or is undone by
//! somebody else, is a fact of its own ([`handle_address_removed`](VirtualRouter::handle_address_removed)).
//!
//! ```
//! use lvs_vrrp::{Command, Config, Datagram, Family, Priority, Received, State, VirtualAddress, VirtualRouter, Vrid};
//! use std::collections::VecDeque;
//! use std::time::Instant;
//!
//! let mut config = Config::new(Vrid::new(51).unwrap(), Family::V4, "eth0");
//! config.priority = Priority::new(150).unwrap();
//! config.addresses = vec![VirtualAddress { address: "192.0.2.100".parse().unwrap(), interface: "eth0".into() }];
//! let mut router = VirtualRouter::new(config).unwrap();
//!
//! // Stand-ins for a raw socket, for the clock, and for the kernel's addresses.
//! let mut socket: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
//! let mut now = Instant::now();
//! let mut set = Vec::new();
//!
//! router.handle_source(now, Some("192.0.2.11".parse().unwrap()));
//! router.start(now);
//! let mut sent = 0;
//! let mut buffer = Vec::new();
//! while sent < 3 {
//!     while router.poll_transmit(&mut buffer).is_some() {
//!         sent += 1; // A real program sends `buffer` as the `Transmit` says.
//!     }
//!     while let Some(command) = router.poll_command() {
//!         match command {
//!             Command::AddAddresses(addresses) => set.extend(addresses),
//!             Command::RemoveAddresses(addresses) => set.retain(|each| !addresses.contains(each)),
//!             Command::Announce(announcement) => { /* wire::GratuitousArp or wire::UnsolicitedNa */ }
//!             _ => {}
//!         }
//!     }
//!     while let Some(event) = router.poll_event() {
//!         println!("{event}"); // "Active from Backup: no advertisement of anybody for 3.414s"
//!     }
//!     now = router.poll_timeout().unwrap(); // Sleep until then, or until the socket can be read ...
//!     while let Some((arrived, packet)) = socket.pop_front() {
//!         // ... and read all of it before the deadline is judged.
//!         let received = Received { arrived, datagram: Datagram::V4(&packet) };
//!         let _ = router.handle_packet(now, &received);
//!     }
//!     router.handle_timeout(now);
//! }
//! assert_eq!((router.state(), set.len()), (State::Active, 1));
//! ```
//!
//! A [`VrrpRouter`] is driven in the same way; its outputs say which virtual router they belong to, and
//! [`Task::Script`](Task) asks for check scripts to be run.
//!
//! # What the shell owes
//!
//! * Sockets: raw, protocol 112 (51 with an authentication header), joined to the group and bound to it per interface; for
//!   unicast bound to the source address. IPv4 packets are handed over and sent whole; for IPv6 the hop limit and destination
//!   come as ancillary data.
//! * Facts: links after start and on change, the source address ([`select_source`] chooses it), addresses and routes that
//!   somebody took away, results of scripts, numbers of files, counts of processes, states of BFD sessions.
//! * Notifications: [`Notice`] has all that keepalived's scripts, FIFO and mails say; [`State::keepalived_word`] has its words.
//!
//! # Coverage
//!
//! RFC 9568 and 5798 (version 3), RFC 3768 (version 2), the authentication types of RFC 2338 as keepalived speaks them; Accept_Mode,
//! Preempt_Mode, owners, Skew_Time and Active_Down_Interval to the microsecond. Beyond them, as in keepalived: Fault, unicast,
//! preemption delay, tracking with weights, sync groups, announcement schedules, strict mode, checksum variants. RFC 5880 and 5881 for
//! [`bfd`].
//!
//! Left out: keepalived's HMAC trailer of release 2.4, authentication of version 2 over IPv6, announcements on InfiniBand, `garp_extra_if`,
//! VMAC interfaces and packet filters (the shell makes them; the machine only says when).
//!
//! # Where it differs from keepalived on purpose
//!
//! * Advertisements are judged by when they arrived; a Backup that was not run in time listens for one more interval, an Active router
//!   that was not run announces its addresses again ([`LateActive`]).
//! * A refused advertisement never puts off the own one, so nobody silences a router with broken packets. Own ones keep their beat.
//! * An Active router that yields sends one more advertisement ([`Config::answer_higher`]), and one that hears priority 0 announces its
//!   addresses ([`Announcements::after_rival`]): after a split, hosts learn at once where the address is.
//! * Addresses and routes that somebody took away are set again in place ([`Config::restore_removed`]).
//! * Version 3 over IPv4 accepts every right form of checksum, and refuses an interval of zero and an empty address list.
//! * Faults count by object; an own interval is always used again after being Active; a reload keeps running deadlines; a password of more
//!   than eight bytes is refused rather than cut.
//! * Link padding of any length is ignored; a sender that cannot be understood is an event and a [`Complaint`] that can be looked up.

mod announce;
pub mod bfd;
mod command;
mod config;
mod datagram;
mod discard;
mod event;
mod router;
mod script;
mod state;
mod statistics;
mod timing;
mod track;
mod vrrp_router;
pub mod wire;

pub use announce::{Announcement, Pacer, Pacing};
pub use command::Command;
pub use config::{
    Announcements, Authentication, ChecksumSend, Config, ConfigError, Family, InterfaceName,
    Interval, LateActive, Preemption, Priority, Reach, UnicastPeer, Version, VirtualAddress, Vrid,
};
pub use datagram::{Datagram, Received};
pub use discard::{Complaint, Discard};
pub use event::{
    Event, Fault, NewActiveReason, Peer, Reason, RemovedObject, RivalOutcome, StateChange,
};
pub use router::{Heard, Transmit, VirtualRouter};
pub use script::{ScriptCommand, ScriptConfig};
pub use state::State;
pub use statistics::Statistics;
pub use track::{Delays, Health, Tracked, TrackedObject, select_source};
pub use vrrp_router::{
    GroupConfig, GroupId, GroupStatus, Member, Notice, ProcessConfig, RouterId, Setup, SetupError,
    Task, VrrpRouter,
};
