//! When the kinds of checks are made, and with which results: keepalived's observed seconds, in virtual time.

use super::*;
use crate::{DnsCheck, DnsType, MiscCheck, PingCheck, Script, SmtpCheck, Transport, UdpCheck};

/// How the other side behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Refuses,
    /// Connects, hears everything, says nothing.
    Mute,
    /// A program that ends at once with this status.
    Exits(u8),
    /// A program that ends when it is asked to, with this status or by the signal.
    RunsOn(Option<u8>),
    /// A program that does not even end then.
    Hangs,
}

/// The seconds at which attempts begin, and those at which events come.
fn seconds(
    checker: impl crate::Checker + 'static,
    timing: Timing,
    until: f64,
    mut peer: impl FnMut(f64) -> Peer,
) -> (Vec<f64>, Vec<String>) {
    let start = Instant::now();
    let mut now = start;
    let mut monitor = Monitor::new(7);
    let there = ConnectOptions::to(([192, 0, 2, 1], 53).into());
    let config = CheckerConfig::new(checker, there, timing);
    monitor.add_server(now, ServerConfig::new(vec![config]));
    let (mut attempts, mut events) = (Vec::new(), Vec::new());
    loop {
        let at = (now - start).as_secs_f64();
        loop {
            monitor.check_invariants();
            while let Some(event) = monitor.poll_event() {
                match event {
                    Event::CheckerUp { .. } => events.push(format!("up@{at}")),
                    Event::CheckerDown {
                        failure, attempts, ..
                    } => {
                        events.push(format!("{failure}@{at}x{attempts}"));
                    }
                    _ => {}
                }
            }
            let Some(command) = monitor.poll_command() else {
                break;
            };
            match command {
                Command::Connect {
                    probe, transport, ..
                } => {
                    attempts.push(at);
                    let result = match (peer(at), transport) {
                        (Peer::Refuses, Transport::Tcp) => Err(ConnectError::Refused),
                        _ => Ok(()),
                    };
                    monitor.handle_connected(now, probe, result);
                }
                // The ICMP error follows what was sent.
                Command::Send { probe, .. } if peer(at) == Peer::Refuses => {
                    monitor.handle_closed(now, probe, Err(ReadError::Unreachable));
                }
                Command::Run { probe, .. } => {
                    attempts.push(at);
                    if let Peer::Exits(code) = peer(at) {
                        monitor.handle_exit(now, probe, Exit::Code(code));
                    }
                }
                Command::Terminate { probe } => match peer(at) {
                    Peer::RunsOn(Some(code)) => monitor.handle_exit(now, probe, Exit::Code(code)),
                    Peer::RunsOn(None) => monitor.handle_exit(now, probe, Exit::Signal(15)),
                    _ => {}
                },
                _ => {}
            }
        }
        match monitor.poll_timeout() {
            Some(due) if due <= start + Duration::from_secs_f64(until) => now = due,
            _ => return (attempts, events),
        }
        monitor.handle_timeout(now);
    }
}

fn dns() -> DnsCheck {
    DnsCheck::new("", DnsType::default()).unwrap()
}

fn script() -> Script {
    Script {
        program: "/bin/look".into(),
        arguments: Vec::new(),
        user: None,
    }
}

#[test]
fn who_refuses_from_the_start_is_asked_when_keepalived_asks() {
    let four = || timing(4, 2, 1);
    let refuses = |_: f64| Peer::Refuses;
    let (attempts, _) = seconds(SmtpCheck::default(), four(), 18.0, refuses);
    assert_eq!(attempts, [1.0, 2.0, 3.0, 7.0, 8.0, 9.0, 13.0, 14.0, 15.0]);
    let even = [1.0, 5.0, 9.0, 13.0, 17.0];
    let (attempts, _) = seconds(TcpCheck, four(), 18.0, refuses);
    assert_eq!(attempts, even);
    let (attempts, events) = seconds(dns(), four(), 18.0, refuses);
    assert_eq!(attempts, even);
    assert_eq!(events, ["destination unreachable (ICMP)@1x1"]);
    let (attempts, _) = seconds(
        UdpCheck::new(crate::UdpConfig::default()),
        four(),
        18.0,
        refuses,
    );
    assert_eq!(attempts, even);
    let misc = MiscCheck::new(script(), false);
    let (attempts, events) = seconds(misc, four(), 18.0, |_| Peer::Exits(1));
    assert_eq!(attempts, even);
    assert_eq!(events, ["script ended with status 1@1x1"]);
}

#[test]
fn mail_server_is_down_after_a_whole_cycle() {
    let (_, events) = seconds(SmtpCheck::default(), timing(4, 2, 1), 9.5, |_| {
        Peer::Refuses
    });
    assert_eq!(events, ["connection refused@3x3"]);
}

#[test]
fn silence_is_a_verdict_after_the_timeout() {
    let udp = UdpCheck::new(crate::UdpConfig::default());
    let (attempts, events) = seconds(udp, timing(4, 2, 1), 14.0, |_| Peer::Mute);
    assert_eq!(attempts, [1.0, 7.0, 13.0]);
    assert_eq!(events, ["up@3"]);

    let (attempts, events) = seconds(PingCheck::new(), timing(4, 2, 1), 3.5, |_| Peer::Mute);
    assert_eq!(attempts, [1.0]);
    assert_eq!(
        events,
        ["timed out waiting for an answer@3x1"],
        "the very first is final"
    );
}

#[test]
fn script_that_takes_too_long_is_asked_to_end() {
    let slow = |peer| move |_: f64| peer;
    let misc = || MiscCheck::new(script(), false);
    let timed = Timing {
        attempt_timeout: Some(Duration::from_secs(2)),
        ..timing(4, 0, 1)
    };
    let took = "script took too long and was stopped";
    let (attempts, events) = seconds(misc(), timed.clone(), 6.0, slow(Peer::RunsOn(None)));
    assert_eq!(attempts, [1.0, 5.0], "from the start of the run before");
    assert_eq!(events, [format!("{took}@3x1")]);
    // One that ends by itself when it is asked is judged by its status.
    let (_, events) = seconds(misc(), timed.clone(), 6.0, slow(Peer::RunsOn(Some(0))));
    assert_eq!(events, ["up@3"]);
    let (_, events) = seconds(misc(), timed.clone(), 6.0, slow(Peer::RunsOn(Some(3))));
    assert_eq!(events, ["script ended with status 3@3x1"]);
    // One that never ends is given up, and the next run begins at once.
    let (attempts, events) = seconds(misc(), timed, 18.1, slow(Peer::Hangs));
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert_eq!(events, [format!("{took}@18x1")]);
}

#[test]
fn without_a_limit_a_script_has_its_interval() {
    let misc = MiscCheck::new(script(), false);
    let (_, events) = seconds(misc, timing(4, 0, 1), 5.5, |_| Peer::RunsOn(None));
    assert_eq!(events, ["script took too long and was stopped@5x1"]);
}
