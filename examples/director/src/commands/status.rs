//! `director status`: what runs here, and what happened to packets.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::STATUS_TROUBLE;
use crate::control::counters::total;
use crate::control::protocol::{Client, ClientError, Counter, SocketAddress, StatusInfo};
use crate::logging::chain;

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Detail {
    /// Also what never happened.
    pub all: bool,
    /// One JSON object, always with everything.
    pub json: bool,
}

/// Writes the status of the director that runs in this network namespace. Returns the exit status: 0, or 2 if none can be
/// asked.
///
/// # Errors
///
/// Nothing can be written to `out` or `errors`.
pub fn run(detail: Detail, out: &mut impl Write, errors: &mut impl Write) -> io::Result<u8> {
    let status = match ask() {
        Ok(status) => status,
        Err(error) => {
            writeln!(errors, "{}", chain(&error))?;
            return Ok(STATUS_TROUBLE);
        }
    };
    if detail.json {
        let text = serde_json::to_string(&status).map_err(io::Error::other)?;
        writeln!(out, "{text}")?;
    } else {
        out.write_all(prose(&status, detail.all).as_bytes())?;
    }
    Ok(0)
}

fn ask() -> Result<StatusInfo, ClientError> {
    Client::connect(&SocketAddress::from_env())?.status()
}

fn prose(status: &StatusInfo, all: bool) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "director {} (process {}) has run {} for {}: {} services, {} connections, {} workers",
        status.version,
        status.pid,
        status.configuration,
        duration(status.uptime),
        status.services,
        status.connections,
        status.workers
    );
    for server in &status.unreachable {
        let _ = writeln!(
            text,
            "Real server {} can't be sent to: {}",
            server.address, server.reason
        );
    }
    let sum = total(&status.counters);
    list(&mut text, "Dropped:", &sum.dropped, all);
    list(&mut text, "Taken from the host:", &status.claimed, all);
    list(&mut text, "Left to the host:", &sum.left, all);
    list(&mut text, "Packets:", &sum.events, all);
    for worker in &status.counters {
        let dropped: u64 = worker.dropped.iter().map(|counter| counter.count).sum();
        let _ = writeln!(
            text,
            "Worker {}: {} connections, {dropped} packets dropped",
            worker.worker, worker.connections
        );
        if status.counters.len() > 1 {
            list(&mut text, "  Dropped:", &worker.dropped, false);
        }
        for device in &worker.devices {
            list(
                &mut text,
                &format!("  At {}:", device.device),
                &device.counters,
                all,
            );
        }
    }
    text
}

fn list(text: &mut String, title: &str, counters: &[Counter], all: bool) {
    let indent = title.len() - title.trim_start().len() + 2;
    let _ = writeln!(text, "{title}");
    let shown: Vec<&Counter> = counters
        .iter()
        .filter(|counter| all || counter.count > 0)
        .collect();
    for counter in &shown {
        let _ = writeln!(
            text,
            "{:indent$}{:>12} {:<20} {}",
            "", counter.count, counter.name, counter.text
        );
    }
    if shown.is_empty() {
        let _ = writeln!(text, "{:indent$}nothing", "");
    }
}

pub(super) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_is_shown_on_demand() {
        let counter = |name: &str, count| Counter {
            name: name.into(),
            text: "words".into(),
            count,
        };
        let status = StatusInfo {
            claimed: vec![counter("to-services", 7), counter("errors", 0)],
            ..StatusInfo::default()
        };
        let few = prose(&status, false);
        assert!(few.contains("7 to-services"), "{few}");
        assert!(!few.contains("errors"), "{few}");
        assert!(prose(&status, true).contains("0 errors"));
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(61), "1 min 1 s");
        assert_eq!(duration(3660), "1 h 1 min");
        assert_eq!(duration(90_000), "1 d 1 h");
    }
}
