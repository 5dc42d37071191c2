//! Which real server gets this connection: Linux Virtual Server's schedulers, persistence and
//! connection table.
//!
//! Two ways to use it.
//!
//! **A proxy** takes a [`Lease`] for each connection from a [`VirtualService`] and drops it at the
//! end:
//!
//! ```
//! use lvs_sched::{ServerConfig, ServiceConfig, VirtualService, Weight};
//!
//! let config = ServiceConfig { scheduler: "wlc".parse()?, ..ServiceConfig::default() };
//! let service = VirtualService::new(config);
//! let twice = ServerConfig { weight: Weight::new(2)?, ..ServerConfig::default() };
//! service.add_server("192.0.2.11:80".parse()?, twice)?;
//! service.add_server("192.0.2.12:80".parse()?, ServerConfig::default())?;
//!
//! let client: std::net::SocketAddr = "198.51.100.7:40000".parse()?;
//! let lease = service.connect(client)?;
//! assert_eq!(lease.addr(), "192.0.2.12:80".parse()?); // a tie: the newest server comes first
//! assert_eq!(lease.server().active(), 1);
//! service.set_weight(lease.addr(), Weight::QUIESCED)?; // no new connections, this one stays
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **A director** asks for each packet. [`Director`] is the shared half, and each data-path thread
//! has a [`Worker`] with the connections of its clients:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Instant;
//! use lvs_sched::*;
//!
//! let director = Arc::new(Director::new(DirectorConfig::new([1, 2, 3, 4]))); // draw at random
//! let mut worker = director.worker();
//! let now = Instant::now();
//! let vip = "203.0.113.10".parse()?;
//! let key = ServiceKey::Address { protocol: Protocol::Tcp, vip, vport: 80 };
//! let server = "192.0.2.11:80".parse()?;
//! director.add_service(key, ServiceConfig::default())?;
//! director.add_server(now, &key, server, ServerConfig::default())?;
//!
//! let syn = Packet {
//!     protocol: Protocol::Tcp,
//!     source: "198.51.100.7:40000".parse()?,
//!     destination: "203.0.113.10:80".parse()?,
//!     direction: Direction::Inbound,
//!     tcp_flags: TcpFlags::SYN,
//!     sctp: None,
//!     length: 60,
//!     mark: 0,
//! };
//! let verdict = worker.handle_packet(now, &syn);
//! assert_eq!(verdict, Verdict::Forward { method: ForwardMethod::DirectRoute, server });
//!
//! // The drive loop: sleep until the earlier deadline, workers first.
//! let next = |worker: &Worker| {
//!     [worker.poll_timeout(), director.poll_timeout()].into_iter().flatten().min()
//! };
//! while let Some(deadline) = next(&worker) {
//!     worker.handle_timeout(deadline);
//!     director.handle_timeout(deadline);
//! }
//! assert!(worker.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Which scheduler
//!
//! | when | scheduler | what decides | cost of a pick |
//! |---|---|---|---|
//! | connections differ in length (the default) | `wlc`; `lc` ignores weights | open connections per weight | O(log n), lock for leases |
//! | … and few, long ones: look at active ones only | `sed`; `nq` fills idle servers first | active + 1 per weight | O(log n), lock for leases |
//! | connections are short and alike | `rr`, `wrr` | turn | O(1), no lock; with thresholds also what it passes over |
//! | a client shall keep its server, and directors shall agree | `maglev` | client's address | O(1), no lock |
//! | … as the kernel does it | `mh`; `sh` moves nearly all clients when servers change | client's address | O(1), no lock |
//! | caches: a destination shall keep its server | `lblc`; `lblcr` spreads hot ones; `dh` without memory | destination | O(log n), lock |
//! | one server works, others wait | `fo` | largest weight | O(log n), lock for leases |
//! | fill one server, then the next | `ovf` | active against weight | O(log n), lock for leases |
//! | random, with an eye on load | `twos` | better of two draws | O(log n), lock |
//!
//! No scheduler chooses a server of weight 0, an unhealthy or an overloaded one; with nobody left
//! the answer is "no server". The hashes `sh`, `mh` and `dh` do not look for another server unless
//! [`SchedulerFlags::FALLBACK`] is set (`dh` never does), `maglev` always does; [`lblc`] keeps
//! using an overloaded server that it remembers. A program's own rule is a [`Scheduler`].
//!
//! [`lblc`]: LocalityLeastConnection
//!
//! How the hashes fare, with servers of equal weight: the fullest server's clients over the mean, the share of
//! all clients that move when one server leaves, and when it comes back. The least that must move is a share of
//! one server: 10 %, 1 % and 0.1 %.
//!
//! | scheduler | 10 servers | 100 servers | 1000 servers |
//! |---|---|---|---|
//! | `maglev` | 1.01, 10 %, 10 % | 1.06, 1.6 %, 1.6 % | 1.24, 0.7 %, 0.7 % |
//! | `mh` | 1.01, 11 %, 11 % | 1.05, 4 %, 4 % | 1.41, 0.6 %, 0.8 % |
//! | `sh`, `dh` | 1.02, 91 %, 93 % | 1.19, 81 %, all | 3.99 (256 buckets: most idle), none or all |
//!
//! # Decisions
//!
//! They are those of the kernel's IPVS, ties and oddities included: servers are scanned newest
//! first, a cost is `active × 256 + inactive`, the overload flag is latched, templates ignore
//! weight and overload. What differs is documented where it does.
//!
//! Calls of several threads are answered as some order of them would be, and a call that has returned comes before
//! those that begin later. A lease whose server is quiesced between choice and count is chosen again: the order of
//! turns then has one more pick.
//!
//! [`Worker::explain`] tells what a packet would meet and why, without doing it; no scheduler's turn
//! passes by asking.
//!
//! # FULLNAT
//!
//! A service has local addresses ([`Director::add_local_address`]), which new connections to
//! [`ForwardMethod::FullNat`] servers take in turn, and with them a port that no other connection
//! with that server has. Verdicts name both ([`Verdict::ForwardFrom`], [`Verdict::ReplyTo`]); answers
//! are found by the local port, whose low bits name the worker ([`Director::worker_of`]). Ports
//! come back with their connections and are used again oldest first. One-packet scheduling does not
//! apply.
//!
//! # Time and randomness
//!
//! Nothing here reads a clock, sleeps, draws random numbers or does I/O. Callers pass `now`, and
//! seeds for the hash tables. Deadlines are exact: at `now` ≥ deadline a connection is gone. After
//! `handle_timeout(t)`, `poll_timeout` is later than `t` or `None`.
//!
//! # What is not here
//!
//! Bytes: an FTP helper's way through segments ([`ftp`] has the words), what becomes of ICMP errors, and the protocol of
//! connection synchronisation, for which [`Worker`] has the table's side. The kernel's check for
//! packets that come from the director itself is left out: it has no clients of its own.
//!
//! # Cost
//!
//! A pick that counts nothing takes nanoseconds and no lock: of `lc`, `wlc`, `sed`, `nq`, `fo` and `ovf` while no count
//! has changed since the last one. A lease adds its server's count and reference, and theirs the service's lock, since
//! choice and count are one step.
//!
//! A packet of a known connection: one hash, one lookup, one cache line of entry, and its worker's own
//! share of the server's counters; no lock, no locked instruction, no allocation. A batch's lookups
//! overlap ([`Worker::handle_batch`]). A new connection takes its service's lock for the pick unless
//! the scheduler needs none and no server has a threshold; with persistence, one template shard's.
//!
//! At a million connections the entries fill what caches and the processor's address translation remember. A batch's misses
//! overlap, so that a packet at random takes 20 to 40 ns more than in a small table, a third of it for translation: huge
//! pages (with glibc `GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824`) save that third.
//!
//! No call does much at once, however large the table is: it grows in pieces of which none is moved
//! again, and a call ends the connections that are due and looks at a few dozen other timers at most.
//! Who lets [`Worker::poll_timeout`] pass without a call pays for what piled up at the next one.

mod atomic;
mod attributes;
mod conn;
mod defence;
mod director;
mod drain;
mod engine;
mod expect;
pub mod ftp;
mod lease;
mod local;
mod packet;
mod path;
mod persist;
mod pick;
mod real_server;
mod scheduler;
mod service;
mod stats;
mod sync;
mod sys;
mod time;
mod trash;
mod tunables;
mod worker;

pub use attributes::{Granularity, Persistence, SchedulerFlags, ServiceConfig, ServiceKey};
pub use conn::state::{SctpState, State, TcpState, Timeouts};
pub use director::Director;
pub use drain::{Drain, DrainEvent, Ended, Remaining};
pub use engine::{EngineKind, Payloads, PersistenceEngine, Sip, UnknownEngine};
pub use expect::ExpectError;
pub use lease::Lease;
pub use local::{LocalEnd, LocalError, LocalInfo};
pub use packet::{
    Direction, DropReason, Family, ForwardMethod, Packet, Protocol, SctpEvent, TcpFlags, Verdict,
};
pub use path::{Explanation, PassedOver, Reason};
pub use persist::{TemplateInfo, TemplateTarget};
pub use pick::{ConnectError, Flow, Picker};
pub use real_server::{InvalidWeight, RealServer, ServerConfig, Weight};
pub use scheduler::{
    DestinationHash, Failover, InvalidSlots, LeastConnection, LocalityLeastConnection, Maglev,
    MaglevHash, NeverQueue, Overflow, ParseSchedulerError, Peek, ReplicatedLocality, Request,
    RoundRobin, Scheduler, SchedulerKind, Seeds, Servers, SharedPick, ShortestExpectedDelay,
    SourceHash, Superseded, TwoChoices, WeightedLeastConnection, WeightedRoundRobin,
};
pub use service::{ServerError, ServiceError, Unforeseen, VirtualService};
pub use stats::{Rates, Stats};
pub use sync::{ConnectionEvent, ImportError, ImportedConnection};
pub use tunables::{Defence, DirectorConfig, SyncTunables, Tunables};
pub use worker::{ConnectionInfo, Worker};
