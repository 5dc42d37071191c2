//! `director health`: which servers are up, what their checks found, when they look again.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use super::STATUS_TROUBLE;
use crate::control::ask;
use crate::control::health::{CheckHealth, HealthInfo, OPERATION, ServerHealth};
use crate::control::protocol::SocketAddress;
use crate::logging::chain;

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// One JSON object.
    pub json: bool,
    /// Again whenever a server or a check goes up or down, until it is interrupted.
    pub watch: bool,
}

/// Shows the health of the servers of the director that runs in this network namespace. Returns the exit status: 0 if all
/// servers are up, 1 if not, 2 if no director can be asked.
///
/// # Errors
///
/// Nothing can be written to `out` or `errors`.
pub fn run(look: Look, out: &mut impl Write, errors: &mut impl Write) -> io::Result<u8> {
    let mut shown = None;
    loop {
        let health: HealthInfo = match ask(&SocketAddress::from_env(), OPERATION, &()) {
            Ok(health) => health,
            Err(error) => {
                writeln!(errors, "{}", chain(&error))?;
                return Ok(STATUS_TROUBLE);
            }
        };
        let states = states(&health);
        if shown.as_ref() != Some(&states) {
            show(&health, look.json, out)?;
            shown = Some(states);
        }
        if !look.watch {
            return Ok(u8::from(health.servers.iter().any(|server| !server.up)));
        }
        std::thread::sleep(AGAIN);
    }
}

fn show(health: &HealthInfo, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        let text = serde_json::to_string(health).map_err(io::Error::other)?;
        writeln!(out, "{text}")?;
    } else {
        out.write_all(table(health).as_bytes())?;
    }
    out.flush()
}

/// What makes it worth to be shown again: neither ages nor latencies.
fn states(health: &HealthInfo) -> Vec<(String, bool, bool, Option<String>)> {
    let states = health.servers.iter().flat_map(|server| {
        let name = format!("{} {}", server.service, server.server);
        let itself = (name.clone(), server.up, server.suspended, None);
        let checks = server.checks.iter().map(move |check| {
            let failure = check.failure.clone();
            (
                format!("{name} {}", check.kind),
                check.up,
                check.has_run,
                failure,
            )
        });
        std::iter::once(itself).chain(checks)
    });
    states.collect()
}

fn table(health: &HealthInfo) -> String {
    let mut text = String::new();
    let mut service = None;
    for server in &health.servers {
        if service != Some(&server.service) {
            let of_it = || {
                let servers = health.servers.iter();
                servers.filter(|other| other.service == server.service)
            };
            let up = of_it().filter(|other| other.up).count();
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}  {up} of {} up", server.service, of_it().count());
            service = Some(&server.service);
        }
        let _ = writeln!(text, "  {:<26} {}", server.server, state(server));
        for check in &server.checks {
            let _ = writeln!(text, "    {}", line(check, server));
        }
    }
    if text.is_empty() {
        text.push_str("no servers\n");
    }
    text
}

fn state(server: &ServerHealth) -> &'static str {
    match (server.up, server.suspended) {
        (true, false) if server.checks.is_empty() => "up, not checked",
        (true, false) => "up",
        (false, false) => "DOWN",
        (true, true) => "up, checks rest: the service's address is not here",
        (false, true) => "DOWN, checks rest: the service's address is not here",
    }
}

fn line(check: &CheckHealth, server: &ServerHealth) -> String {
    let up = match (check.up, check.has_run) {
        (true, true) => "up",
        (true, false) => "taken for up",
        (false, true) => "down",
        (false, false) => "taken for down",
    };
    let mut text = format!("{:<11} {up} for {}", check.kind, span(check.since));
    if check.destination != server.server {
        let _ = write!(text, ", at {}", check.destination);
    }
    if let Some(failure) = &check.failure {
        let _ = write!(text, ": {failure}");
        if check.failed_attempts > 1 {
            let _ = write!(text, " ({} times)", check.failed_attempts);
        }
    }
    if let Some(latency) = check.latency_us {
        let milliseconds = Duration::from_micros(latency).as_secs_f64() * 1000.0;
        let _ = write!(text, "; took {milliseconds:.1} ms");
    }
    if let Some(finished) = check.finished {
        let _ = write!(text, " {} ago", span(finished));
    }
    match check.due {
        _ if check.running => text.push_str("; under way"),
        Some(due) => {
            let _ = write!(text, "; again in {}", span(due));
        }
        None => {}
    }
    if check.shared_with > 0 {
        let _ = write!(text, "; shared with {} others", check.shared_with);
    }
    text
}

fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60) {
        (0, 0, 0) if seconds < 10 => {
            format!("{seconds}.{} s", milliseconds / 100 % 10)
        }
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

const AGAIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> CheckHealth {
        CheckHealth {
            kind: "HTTP_GET".to_owned(),
            destination: "10.0.0.1:80".to_owned(),
            up: false,
            has_run: true,
            running: false,
            failed_attempts: 3,
            failure: Some("unexpected status 500".to_owned()),
            since: 75_000,
            finished: Some(2300),
            latency_us: Some(1234),
            due: Some(3700),
            shared_with: 1,
        }
    }

    #[test]
    fn table_says_why_since_when_and_when_again() {
        let server = ServerHealth {
            service: "TCP 192.0.2.10:80".to_owned(),
            server: "10.0.0.1:80".to_owned(),
            up: false,
            suspended: false,
            checks: vec![check()],
        };
        let other = ServerHealth {
            server: "10.0.0.2:80".to_owned(),
            up: true,
            checks: Vec::new(),
            ..server.clone()
        };
        let health = HealthInfo {
            servers: vec![server, other],
        };
        assert_eq!(
            table(&health),
            "TCP 192.0.2.10:80  1 of 2 up\n\
             \x20 10.0.0.1:80                DOWN\n\
             \x20   HTTP_GET    down for 1 min 15 s: unexpected status 500 (3 times); took 1.2 ms 2.3 s ago; again in 3.7 s; \
             shared with 1 others\n\
             \x20 10.0.0.2:80                up, not checked\n"
        );
        assert_eq!(table(&HealthInfo::default()), "no servers\n");
    }

    #[test]
    fn ages_are_no_news() {
        let server = |since| ServerHealth {
            service: "s".to_owned(),
            server: "10.0.0.1:80".to_owned(),
            up: false,
            suspended: false,
            checks: vec![CheckHealth { since, ..check() }],
        };
        let info = |since| HealthInfo {
            servers: vec![server(since)],
        };
        assert_eq!(states(&info(1)), states(&info(2)));
    }
}
