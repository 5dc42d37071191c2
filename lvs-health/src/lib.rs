//! Is the real server alive? keepalived's health checks as sans-IO machines.
//!
//! [`Monitor`] runs any number of checkers with one deadline. It decides when to probe, what to send, how to judge what
//! comes back, and when enough attempts have failed. [`Pool`] turns "this server is up" and "this server is down" into
//! an ordered list of changes to a virtual service's table: quorum, hysteresis, sorry server, inhibit on failure.
//! [`SlowStart`] lets weights of servers that come back grow. None of them opens a socket, reads a clock or draws a random number: facts and the current time go in, commands and
//! events come out, so a day of flapping is tested in microseconds and always replays the same way.
//!
//! Built in are all of keepalived's checkers, with its bytes, retries and verdicts:
//!
//! | keyword | type | asks over |
//! |---|---|---|
//! | `TCP_CHECK` | [`TcpCheck`] | TCP |
//! | `HTTP_GET`, `SSL_GET` | [`HttpCheck`] | TCP, TLS |
//! | `SMTP_CHECK` | [`SmtpCheck`] | TCP |
//! | `DNS_CHECK`, `UDP_CHECK` | [`DnsCheck`], [`UdpCheck`] | UDP |
//! | `PING_CHECK` | [`PingCheck`] | ICMP |
//! | `MISC_CHECK` | [`MiscCheck`] | a program |
//! | `FILE_CHECK`, `BFD_CHECK` | [`FileCheck`], [`BfdCheck`] | told from outside |
//! | | [`PassiveCheck`] | what traffic tells |
//!
//! Left out, for the program around it: logs, mail, notify scripts, the table itself, the BFD session, the watch of a
//! file. By default sockets and programs are left out too; the feature `tokio` brings a [driver](#features) for them.
//!
//! # A checker of your own
//!
//! is a type that implements [`Checker`]. The monitor decides when an attempt begins, how long each step may take and what
//! its outcome means; the checker holds one conversation, in these words:
//!
//! 1. [`begin`](Checker::begin) makes the conversation new and says what it is held over: a [`Transport`], or a
//!    [`Script`] to run. (TCP unless it says otherwise.)
//! 2. [`handle_connected`](Checker::handle_connected): the connection stands, for TLS with its handshake. The answer is a
//!    [`Next`]: `Send` bytes and wait, `Wait` for what the server says first, or `Done` with an [`Outcome`].
//! 3. [`handle_data`](Checker::handle_data), as often as something comes: a piece of a stream, or one datagram. `Wait` asks
//!    for more and gives the server the time of another step; `Ignore` waits on under the clock that runs.
//! 4. Whatever else ends the attempt has a default that is a failure with its reason, and can be judged otherwise:
//!    [`handle_closed`](Checker::handle_closed) (an HTTP/1.0 body ends so),
//!    [`handle_timeout`](Checker::handle_timeout) (silence is a success for some UDP services),
//!    [`handle_error`](Checker::handle_error), [`handle_exit`](Checker::handle_exit).
//!
//! Two methods are required, `name` and `handle_connected`; a useful checker has three. With an
//! [`identity`](Checker::identity) it keeps its state over a change of configuration and may be shared between servers;
//! with an [`adjustment`](Checker::adjustment) it moves the weight. The repository's `examples/embed` has one on a screen, at
//! work in `own_checker`.
//!
//! # Features
//!
//! None is on by default: the machines need no runtime, no TLS, no C.
//!
//! * `tokio`: `Driver`, a monitor with sockets, programs and the clock, on a tokio runtime (Linux). One poll watches all
//!   sockets; a probe costs neither task nor thread.
//! * `tls`: TLS for the driver, by rustls with ring: TLS 1.2 and 1.3.
//! * `regex`: bodies of HTTP responses matched by `BodyPattern`, in linear time.
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
//! * a script that cannot be executed is down, and says why;
//! * an SMTP reply may have several lines, and a UDP reply's length limits hold without a pattern too;
//! * a TLS server name is asked for where a virtual host is known ([`Sni::Virtualhost`]);
//! * adjustments of the weight are added up anew each time, so they cannot leak;
//! * [`Timing::default`] has some jitter and counts intervals from the start of attempts; [`Timing::keepalived`] does not;
//! * a quorum that all-zero weights have lowered to 0 counts as held, not as lost for ever.

mod checker;
mod checks;
#[cfg(all(feature = "tokio", target_os = "linux"))]
mod driver;
mod failure;
mod monitor;
mod quorum;
mod random;
mod slow_start;
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
pub use driver::{Driver, DriverOptions, RunningScript, ScriptEnd, ScriptRunner};
#[cfg(all(feature = "tls", target_os = "linux"))]
pub use driver::{TlsSettings, TlsSettingsError};
pub use failure::{ConnectError, Failure, ReadError, SystemError};
pub use monitor::{
    CheckerConfig, CheckerStatus, Command, ConnectOptions, Event, IntervalBase, LocalErrorPolicy,
    Monitor, ProbeId, ServerConfig, ServerId, Timing, UnknownServer,
};
pub use quorum::{Change, MemberConfig, Pool, PoolConfig, PoolError, SorryServer};
pub use slow_start::SlowStart;
pub use transport::{Exit, Script, ScriptUser, TlsOptions, Transport};
