//! How the checks are, for people and programs.

use std::time::{Duration, Instant};

use lvs_health::CheckerStatus;
use serde::{Deserialize, Serialize};

use crate::pools::Pools;

/// The name of the operation; answered by [`HealthInfo`].
pub const OPERATION: &str = "health";

/// All servers of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthInfo {
    /// In the order of the file.
    pub servers: Vec<ServerHealth>,
}

/// A real server of a virtual service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerHealth {
    /// The service.
    pub service: String,
    /// The server's address.
    pub server: String,
    /// Whether it is up.
    pub up: bool,
    /// Whether its checks rest (`ha_suspend`).
    pub suspended: bool,
    /// Its checks, in the order of the file.
    pub checks: Vec<CheckHealth>,
}

/// A check. Times are milliseconds, counted from the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckHealth {
    /// The keyword of its block.
    pub kind: String,
    /// Where it goes.
    pub destination: String,
    /// Whether it counts as up.
    pub up: bool,
    /// Whether an attempt has decided anything yet.
    pub has_run: bool,
    /// Whether an attempt is under way.
    pub running: bool,
    /// Attempts that failed since the last success.
    pub failed_attempts: u32,
    /// Why the last of them failed.
    pub failure: Option<String>,
    /// How long it has been up or down.
    pub since: u64,
    /// How long ago the last attempt ended.
    pub finished: Option<u64>,
    /// How long it took, in microseconds.
    pub latency_us: Option<u64>,
    /// When the next one begins.
    pub due: Option<u64>,
    /// How many servers of other services have the same check, which is made once.
    pub shared_with: usize,
}

impl HealthInfo {
    /// Of these pools.
    pub fn new(now: Instant, pools: &Pools) -> Self {
        let monitor = pools.monitor();
        let servers = pools.servers().map(|(service, addr, id)| ServerHealth {
            service: service.to_string(),
            server: addr.to_string(),
            up: monitor.is_up(id).unwrap_or(true),
            suspended: monitor.is_suspended(id).unwrap_or(false),
            checks: monitor
                .checkers(id)
                .map(|check| told(now, &check))
                .collect(),
        });
        Self {
            servers: servers.collect(),
        }
    }
}

fn told(now: Instant, check: &CheckerStatus) -> CheckHealth {
    let ago = |then: Instant| millis(now.saturating_duration_since(then));
    CheckHealth {
        kind: check.name.to_owned(),
        destination: check.destination.to_string(),
        up: check.is_up,
        has_run: check.has_run,
        running: check.is_running,
        failed_attempts: check.failed_attempts,
        failure: check.last_failure.as_ref().map(ToString::to_string),
        since: ago(check.since),
        finished: check.finished.map(ago),
        latency_us: check
            .latency
            .map(|latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)),
        due: check
            .due
            .map(|due| millis(due.saturating_duration_since(now))),
        shared_with: check.servers.saturating_sub(1),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
