//! What a status page shows.

use crate::Failure;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What a status page shows about a checker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckerStatus {
    /// The name of its kind.
    pub name: &'static str,
    /// Where its probes go.
    pub destination: SocketAddr,
    /// Whether it counts as up.
    pub is_up: bool,
    /// Whether an attempt has decided something yet.
    pub has_run: bool,
    /// Whether an attempt is under way.
    pub is_running: bool,
    /// How many attempts have failed since the last success.
    pub failed_attempts: u32,
    /// Why the last of them failed.
    pub last_failure: Option<Failure>,
    /// Since when it is up or down; at first, when it was added.
    pub since: Instant,
    /// When the last attempt ended.
    pub finished: Option<Instant>,
    /// How long the last attempt took; `None` before the first one ended and while another one is under way.
    pub latency: Option<Duration>,
    /// When the next attempt begins; `None` while one is under way and for external checkers.
    pub due: Option<Instant>,
    /// How many servers share it, this one included.
    pub servers: usize,
}
