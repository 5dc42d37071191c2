//! Is the real server alive? keepalived's health checks as sans-IO machines.
//!
//! [`Monitor`] runs any number of checkers with one deadline. It decides when to probe, what to send, how to judge what
//! comes back, and when enough attempts have failed. [`Pool`] turns "this server is up" and "this server is down" into
//! an ordered list of changes to a virtual service's table: quorum, hysteresis, sorry server, inhibit on failure.
//! Neither opens a socket, reads a clock or draws a random number: facts and the current time go in, commands and
//! events come out, so a day of flapping is tested in microseconds and always replays the same way.
//!
//! Built in are [`TcpCheck`] and [`HttpCheck`] with keepalived's bytes, retries and verdicts. A checker of your own is
//! a type that implements [`Checker`]; `examples/own_checker.rs` has one on a screen.
//!
//! Left out, for the program around it: sockets, logs, mail, notify scripts, and the table itself. Not there yet: TLS,
//! regular expressions, and keepalived's SMTP, DNS, MISC, PING, UDP, FILE and BFD checkers.
//!
//! # Driving the monitor
//!
//! After any call that takes `&mut self`, drain [`poll_command`](Monitor::poll_command) and
//! [`poll_event`](Monitor::poll_event) until they give `None`, and only then read
//! [`poll_timeout`](Monitor::poll_timeout). What a program owes for each [`Command`]:
//!
//! * `Connect`: open a new socket in the order written at [`Command::Connect`], and report
//!   [`handle_connected`](Monitor::handle_connected) once. Timeouts are the monitor's: wait without one.
//! * `Send`: write all of the bytes; report a failed write as [`ReadError::Write`].
//! * `Close`: drop the socket. It comes exactly once for every `Connect`, also when the connection failed or ended by
//!   itself. A late report about a closed probe is ignored, so there is no race to take care of.
//!
//! ```
//! use lvs_health::{CheckerConfig, Command, ConnectOptions, Event, Monitor, ServerConfig, TcpCheck, Timing};
//! use std::time::{Duration, Instant};
//!
//! let mut now = Instant::now();
//! let mut monitor = Monitor::new(42); // the seed spreads first probes over the warm-up
//! let every_6s = Timing { delay_loop: Duration::from_secs(6), warmup: Duration::ZERO, ..Timing::default() };
//! let there = ConnectOptions::to("192.0.2.10:80".parse().unwrap());
//! let web = monitor.add_server(now, ServerConfig::new(vec![CheckerConfig::new(TcpCheck, there, every_6s)]));
//! assert_eq!(monitor.is_up(web), Some(true)); // innocent until its first probe, unless `alpha`
//!
//! let mut seen = Vec::new();
//! while seen.is_empty() {
//!     while let Some(command) = monitor.poll_command() {
//!         match command {
//!             // A real program opens a socket here; this one knows that nothing listens there.
//!             Command::Connect { probe, .. } => {
//!                 let refused = std::io::ErrorKind::ConnectionRefused.into();
//!                 monitor.handle_connected(now, probe, Err(lvs_health::ConnectError::immediate(&refused)));
//!             }
//!             _ => {}
//!         }
//!     }
//!     while let Some(event) = monitor.poll_event() {
//!         if let Event::ServerDown { server, failure, .. } = event {
//!             seen.push((server, failure.to_string()));
//!         }
//!     }
//!     // Sleep until `poll_timeout` or until a socket has news; here time is a variable.
//!     now = monitor.poll_timeout().unwrap();
//!     monitor.handle_timeout(now);
//! }
//! assert_eq!(seen, [(web, "connection refused".to_owned())]);
//! ```
//!
//! # Where it differs from keepalived on purpose
//!
//! The release 2.4 behaviour is the default, without what its users report as defects:
//!
//! * a local error (no such source address) is held for one attempt and then counts as a failure, see
//!   [`LocalErrorPolicy`];
//! * a server that starts pessimistic (`alpha`) reports its first `ServerDown` once, not once per checker;
//! * a retry during an HTTP recovery walk waits at least 100 ms, and nothing is ever repeated within 1 ms;
//! * HTTP responses are read with [`HttpRules::default`]; [`HttpRules::keepalived`] restores the historical reading;
//! * a quorum that all-zero weights have lowered to 0 counts as held, not as lost for ever.

mod checker;
mod checks;
#[cfg(all(feature = "tokio", target_os = "linux"))]
mod driver;
mod failure;
mod monitor;
mod quorum;
mod random;
mod transport;

pub use checker::{Adjustment, Attempt, Checker, Next, Note, Outcome, Schedule, Start, Verdict};
pub use checks::bfd::BfdCheck;
pub use checks::dns::{DnsCheck, DnsType, InvalidName, UnknownType};
pub use checks::file::FileCheck;
#[cfg(feature = "regex")]
pub use checks::http::pattern::{BodyPattern, InvalidRegex, RegexOptions, UnknownOption};
pub use checks::http::{
    BodyDigest, HttpCheck, HttpConfig, HttpConfigError, HttpProtocol, HttpRules, HttpTls,
    InvalidDigest, InvalidStatus, Sni, StatusSet, Url,
};
pub use checks::misc::MiscCheck;
pub use checks::passive::PassiveCheck;
pub use checks::ping::PingCheck;
pub use checks::smtp::{InvalidHelo, SmtpCheck};
pub use checks::tcp::TcpCheck;
pub use checks::udp::{InvalidPattern, UdpCheck, UdpConfig, UdpPattern, UdpReply};
#[cfg(all(feature = "tokio", target_os = "linux"))]
pub use driver::{Driver, DriverOptions};
#[cfg(all(feature = "tls", target_os = "linux"))]
pub use driver::{TlsSettings, TlsSettingsError};
pub use failure::{ConnectError, Failure, ReadError, SystemError};
pub use monitor::{
    CheckerConfig, CheckerStatus, Command, ConnectOptions, Event, IntervalBase, LocalErrorPolicy,
    Monitor, ProbeId, ServerConfig, ServerId, Timing, UnknownServer,
};
pub use quorum::{Change, MemberConfig, Pool, PoolConfig, PoolError, SorryServer};
pub use transport::{Exit, Script, ScriptUser, TlsOptions, Transport};
