//! What is checked, where and how often.

use crate::Checker;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A real server and its checkers; it is up while all of them are.
#[derive(Debug)]
pub struct ServerConfig {
    /// What is checked. A server without checkers is always up.
    pub checkers: Vec<CheckerConfig>,
    /// The configured weight, which the checkers' [`Adjustment`](crate::Adjustment)s refer to.
    pub weight: u32,
}

impl ServerConfig {
    /// These checkers, weight 1.
    pub fn new(checkers: Vec<CheckerConfig>) -> Self {
        Self {
            checkers,
            weight: 1,
        }
    }
}

/// One checker of a server.
#[derive(Debug)]
pub struct CheckerConfig {
    /// What is said and how it is judged.
    pub checker: Box<dyn Checker>,
    /// Where its probes go.
    pub connect: ConnectOptions,
    /// When, and how often it may fail.
    pub timing: Timing,
    /// Ask once for all servers of the monitor whose checkers have the same identity, connection and timing.
    pub share: bool,
}

impl CheckerConfig {
    /// A checker of its own, not shared.
    pub fn new(checker: impl Checker + 'static, connect: ConnectOptions, timing: Timing) -> Self {
        Self {
            checker: Box::new(checker),
            connect,
            timing,
            share: false,
        }
    }
}

/// Where probes go to and come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The server's address and port, or the checker's `connect_ip` and `connect_port`. Probe the port that the server
    /// has after defaulting, never 0.
    pub destination: SocketAddr,
    /// keepalived's `bindto` and `bind_port`; port 0 is any.
    pub bind: Option<SocketAddr>,
    /// keepalived's `bind_if`.
    pub bind_interface: Option<Arc<str>>,
    /// keepalived's `fwmark`; 0 is none.
    pub mark: u32,
}

impl ConnectOptions {
    /// To this destination from anywhere.
    pub fn to(destination: SocketAddr) -> Self {
        Self {
            destination,
            bind: None,
            bind_interface: None,
            mark: 0,
        }
    }
}

/// When a checker runs and how its failures count. Any duration is accepted; waits are at least 1 ms and at most ten
/// years.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// From an attempt to the next one, counted as `base` says. 60 s by default.
    pub delay_loop: Duration,
    /// What `delay_loop` is counted from.
    pub base: IntervalBase,
    /// Every `delay_loop` is made longer or shorter by a random part of up to so many percent, 0 to 50; 5 by default,
    /// so that checks which began together drift apart. (keepalived: 0.)
    pub jitter: u8,
    /// How many successes in a row bring a checker back that is down; 1 by default, 0 counts as 1.
    pub rise: u32,
    /// How many more attempts follow a failed one before the checker is down; 1 by default. The very first failure of
    /// a checker is final in any case.
    pub retry: u32,
    /// From a failed attempt to its retry. 1 s by default, see also
    /// [`HttpCheck::default_timing`](crate::HttpCheck::default_timing).
    pub delay_before_retry: Duration,
    /// The longest wait for one step: the connection, and then each piece of an answer. 5 s by default.
    pub connect_timeout: Duration,
    /// The longest time for an attempt as a whole, so that an answer that drips cannot last for ever. `None`, the
    /// default, sets no limit beside those of the steps, as keepalived does. For a script it is the time after which it
    /// is stopped (`misc_timeout`).
    pub attempt_timeout: Option<Duration>,
    /// The first attempt is 1 s and a random part of this after the start. 60 s by default (keepalived: as
    /// `delay_loop`).
    pub warmup: Duration,
    /// Begin as down until the first success. Off by default.
    pub alpha: bool,
    /// Report every failed attempt of a checker that is still up. Off by default.
    pub log_all_failures: bool,
    /// What attempts count as that could not be made.
    pub local_error: LocalErrorPolicy,
}

impl Timing {
    /// keepalived's way to repeat: no jitter, and every interval counts from the end of the attempt before.
    pub fn keepalived(self) -> Self {
        Self {
            base: IntervalBase::End,
            jitter: 0,
            ..self
        }
    }
}

/// What the interval between attempts is counted from. Attempts of one checker never overlap in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IntervalBase {
    /// The start of the attempt before, so that slow answers do not make checks rarer.
    #[default]
    Start,
    /// Its end.
    End,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            delay_loop: Duration::from_secs(60),
            base: IntervalBase::default(),
            jitter: 5,
            rise: 1,
            retry: 1,
            delay_before_retry: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(5),
            attempt_timeout: None,
            warmup: Duration::from_secs(60),
            alpha: false,
            log_all_failures: false,
            local_error: LocalErrorPolicy::default(),
        }
    }
}

/// What an attempt counts as that this host could not make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalErrorPolicy {
    /// Nothing: the state stays as it is, for ever if need be (keepalived).
    Hold,
    /// Nothing for so many attempts in a row, then a failure; 1 by default.
    FailAfter(u32),
}

impl Default for LocalErrorPolicy {
    fn default() -> Self {
        Self::FailAfter(1)
    }
}
