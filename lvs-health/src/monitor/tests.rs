mod kinds;
mod lives;

use super::*;
use crate::{HttpCheck, HttpConfig, HttpRules, SystemError, TcpCheck, Url};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

/// What a server does with a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    /// Accepts; a request is answered with this status.
    Status(u16),
    Refuse,
    /// The SYN is lost.
    Silent,
    /// Accepts and never answers.
    Mute,
    /// Accepts and resets.
    Reset,
    /// This host has no such source address.
    NoAddress,
}

const OK: Reply = Reply::Status(200);

/// A virtual world: servers answer at once or never, and all that happens is written down.
struct World {
    monitor: Monitor,
    start: Instant,
    now: Instant,
    /// `path@seconds` of each request, or `@seconds` of each connection of a checker that sends none.
    attempts: Vec<String>,
    events: Vec<(f64, Event)>,
    open: BTreeMap<ProbeId, SocketAddr>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            monitor: Monitor::new(7),
            start: now,
            now,
            attempts: Vec::new(),
            events: Vec::new(),
            open: BTreeMap::new(),
        }
    }

    fn add(&mut self, checkers: Vec<CheckerConfig>) -> ServerId {
        self.monitor
            .add_server(self.now, ServerConfig::new(checkers))
    }

    fn seconds(&self) -> f64 {
        (self.now - self.start).as_secs_f64()
    }

    /// Lets time pass; `reply` gets the seconds since the start and the path asked for, "" when connecting.
    fn run(&mut self, until: f64, mut reply: impl FnMut(f64, &str) -> Reply) {
        loop {
            self.drain(&mut reply);
            let Some(due) = self.monitor.poll_timeout() else {
                return;
            };
            if due > self.start + Duration::from_secs_f64(until) {
                return;
            }
            assert!(
                due > self.now || self.seconds() == 0.0,
                "deadlines move forward"
            );
            self.now = due;
            self.monitor.handle_timeout(due);
        }
    }

    fn drain(&mut self, reply: &mut impl FnMut(f64, &str) -> Reply) {
        let seconds = self.seconds();
        let now = self.now;
        loop {
            self.monitor.check_invariants();
            while let Some(event) = self.monitor.poll_event() {
                self.events.push((seconds, event));
            }
            let Some(command) = self.monitor.poll_command() else {
                return;
            };
            match command {
                Command::Connect {
                    probe, destination, ..
                } => {
                    assert!(
                        self.open.values().all(|other| *other != destination),
                        "two attempts of one checker at once"
                    );
                    self.open.insert(probe, destination);
                    let refused = ConnectError::immediate(&io::ErrorKind::ConnectionRefused.into());
                    let no_address = ConnectError::setup(&io::Error::from_raw_os_error(99));
                    let result = match reply(seconds, "") {
                        Reply::Silent => continue,
                        Reply::Refuse => Err(refused),
                        Reply::NoAddress => Err(no_address),
                        Reply::Status(_) | Reply::Mute | Reply::Reset => Ok(()),
                    };
                    let sent = self.attempts.len();
                    self.monitor.handle_connected(now, probe, result.clone());
                    if destination.port() != HTTP_PORT || result.is_err() {
                        self.attempts.insert(sent, format!("@{seconds}"));
                    }
                }
                Command::Send { probe, data } => {
                    let text = String::from_utf8(data.to_vec()).unwrap();
                    let path = text
                        .split(' ')
                        .nth(1)
                        .unwrap()
                        .trim_start_matches('/')
                        .to_owned();
                    self.attempts.push(format!("{path}@{seconds}"));
                    match reply(seconds, &path) {
                        Reply::Status(status) => {
                            let response = format!("HTTP/1.0 {status} x\r\n\r\n");
                            self.monitor.handle_data(now, probe, response.as_bytes());
                            self.monitor.handle_closed(now, probe, Ok(()));
                        }
                        Reply::Reset => {
                            let error = SystemError::from(&io::Error::from_raw_os_error(104));
                            self.monitor
                                .handle_closed(now, probe, Err(ReadError::Read(error)));
                        }
                        _ => {}
                    }
                }
                Command::Run { .. } | Command::Terminate { .. } => panic!("no scripts here"),
                Command::Close { probe } => {
                    assert!(
                        self.open.remove(&probe).is_some(),
                        "one close for each connect"
                    );
                }
            }
        }
    }

    /// `S` server, `C` checker, `^` up, `v` down, `n` not run, `f` attempt failed, with seconds.
    fn story(&self) -> Vec<String> {
        let tell = |(at, event): &(f64, Event)| match event {
            Event::ServerUp { .. } => format!("S^{at}"),
            Event::ServerDown { .. } => format!("Sv{at}"),
            Event::CheckerUp { checker, .. } => format!("C{checker}^{at}"),
            Event::CheckerDown {
                checker, attempts, ..
            } => format!("C{checker}v{at}x{attempts}"),
            Event::AttemptFailed { checker, .. } => format!("C{checker}f{at}"),
            Event::NotRun { checker, .. } => format!("C{checker}n{at}"),
            Event::Noted { checker, .. } => format!("C{checker}!{at}"),
            Event::Adjusted { adjustment, .. } => format!("W{adjustment}@{at}"),
        };
        self.events.iter().map(tell).collect()
    }

    fn failures(&self) -> Vec<Failure> {
        let pick = |(_, event): &(f64, Event)| match event {
            Event::CheckerDown { failure, .. } => Some(failure.clone()),
            _ => None,
        };
        self.events.iter().filter_map(pick).collect()
    }
}

const HTTP_PORT: u16 = 80;

fn timing(delay_loop: u64, retry: u32, delay_before_retry: u64) -> Timing {
    Timing {
        delay_loop: Duration::from_secs(delay_loop),
        retry,
        delay_before_retry: Duration::from_secs(delay_before_retry),
        connect_timeout: Duration::from_secs(2),
        warmup: Duration::ZERO,
        ..Timing::default().keepalived()
    }
}

fn tcp(port: u16, timing: Timing) -> CheckerConfig {
    CheckerConfig {
        checker: Box::new(TcpCheck),
        connect: ConnectOptions::to(SocketAddr::from(([192, 0, 2, 1], port))),
        timing,
        share: false,
    }
}

fn http(paths: &[&str], fast_recovery: bool, timing: Timing) -> CheckerConfig {
    let urls = paths
        .iter()
        .map(|path| Url::new(format!("/{path}")))
        .collect();
    let config = HttpConfig {
        fast_recovery,
        rules: HttpRules::keepalived(),
        ..HttpConfig::new(urls)
    };
    CheckerConfig {
        checker: Box::new(HttpCheck::new(config).unwrap()),
        connect: ConnectOptions::to(SocketAddr::from(([192, 0, 2, 1], HTTP_PORT))),
        timing,
        share: false,
    }
}

#[test]
fn first_failure_is_final_and_there_is_no_retry_while_down() {
    for checker in [
        tcp(22, timing(4, 2, 1)),
        http(&["A"], false, timing(4, 2, 1)),
    ] {
        let mut world = World::new();
        world.add(vec![checker]);
        world.run(18.0, |_, _| Reply::Refuse);
        assert_eq!(world.attempts, ["@1", "@5", "@9", "@13", "@17"]);
        assert_eq!(world.story(), ["C0v1x1", "Sv1"]);
        assert_eq!(world.failures(), [Failure::ConnectRefused]);
    }
}

#[test]
fn good_server_fails_after_its_retries() {
    let mut world = World::new();
    let server = world.add(vec![tcp(22, timing(4, 2, 1))]);
    world.run(17.0, |at, _| {
        if (8.0..12.0).contains(&at) {
            Reply::Refuse
        } else {
            OK
        }
    });
    // Fails at 9, 10, 11; the next attempt is 4 s later and brings it back.
    assert_eq!(world.attempts, ["@1", "@5", "@9", "@10", "@11", "@15"]);
    assert_eq!(world.story(), ["C0^1", "C0v11x3", "Sv11", "C0^15", "S^15"]);
    assert_eq!(world.monitor.is_up(server), Some(true));
}

#[test]
fn timeouts_stretch_the_retries() {
    let mut world = World::new();
    world.add(vec![tcp(22, timing(4, 2, 1))]);
    let mut starts = Vec::new();
    world.run(14.0, |at, _| {
        starts.push(at);
        if at > 4.0 { Reply::Silent } else { OK }
    });
    // Attempts at t, t+3, t+6, down at t+8.
    assert_eq!(starts, [1.0, 5.0, 8.0, 11.0]);
    assert_eq!(world.story(), ["C0^1", "C0v13x3", "Sv13"]);
    assert_eq!(world.failures(), [Failure::ConnectTimeout]);
}

#[test]
fn success_during_retries_resets_the_count() {
    let mut world = World::new();
    world.add(vec![tcp(22, timing(4, 2, 1))]);
    world.run(30.0, |at, _| {
        if [5.0, 6.0, 11.0, 12.0].contains(&at) {
            Reply::Refuse
        } else {
            OK
        }
    });
    assert_eq!(world.story(), ["C0^1"]);
}

#[test]
fn urls_are_walked_as_observed() {
    let mut world = World::new();
    world.add(vec![http(&["A", "B", "C"], false, timing(2, 1, 1))]);
    world.run(24.0, |at, path| {
        if path == "B" && (8.0..17.0).contains(&at) {
            Reply::Status(500)
        } else {
            OK
        }
    });
    assert_eq!(
        world.attempts,
        [
            "A@1", "B@3", "C@5", "A@7", "B@9", "B@10", "B@12", "B@14", "B@16", "B@18", "A@20",
            "B@22", "C@24"
        ]
    );
    assert_eq!(world.story(), ["C0^5", "C0v10x2", "Sv10", "C0^24", "S^24"]);
    assert_eq!(world.failures(), [Failure::BadStatus(500)]);
}

#[test]
fn fast_recovery_walks_at_once() {
    let mut world = World::new();
    world.add(vec![http(&["A", "B", "C"], true, timing(2, 1, 1))]);
    world.run(16.5, |at, path| {
        if path == "B" && (2.0..13.0).contains(&at) {
            Reply::Status(500)
        } else {
            OK
        }
    });
    assert_eq!(
        world.attempts,
        [
            "A@1", "B@1", "C@1", "A@3", "B@5", "B@6", "B@8", "B@10", "B@12", "B@14", "A@14",
            "B@14", "C@14", "A@16"
        ]
    );
    assert_eq!(world.story(), ["C0^1", "C0v6x2", "Sv6", "C0^14", "S^14"]);
}

#[test]
fn failing_url_in_a_fast_recovery_does_not_spin() {
    let mut world = World::new();
    world.add(vec![http(&["A", "B"], true, timing(1, 0, 0))]);
    // A fails first; when it is back, B fails without end.
    world.run(11.0, |at, path| match path {
        "A" if at < 2.0 => Reply::Status(500),
        "B" => Reply::Status(500),
        _ => OK,
    });
    let b = world
        .attempts
        .iter()
        .filter(|attempt| attempt.starts_with('B'))
        .count();
    assert!((80..=91).contains(&b), "{b} attempts in 9 s");
    assert_eq!(world.story(), ["C0v1x1", "Sv1"]);
}

#[test]
fn one_url_needs_two_successes_to_recover() {
    let mut world = World::new();
    world.add(vec![http(&["A"], false, timing(2, 0, 1))]);
    world.run(12.0, |at, _| if at < 4.0 { Reply::Reset } else { OK });
    assert_eq!(world.story(), ["C0v1x1", "Sv1", "C0^7", "S^7"]);
    assert!(matches!(world.failures()[0], Failure::ReadError(_)));
}

#[test]
fn alpha_server_is_down_until_all_checkers_passed_and_says_so_once() {
    let mut world = World::new();
    let alpha = || Timing {
        alpha: true,
        ..timing(4, 2, 1)
    };
    let server = world.add(vec![
        tcp(22, alpha()),
        tcp(23, alpha()),
        http(&["A"], false, alpha()),
    ]);
    assert_eq!(world.monitor.is_up(server), Some(false));
    world.run(10.0, |at, _| if at < 4.0 { Reply::Refuse } else { OK });
    assert_eq!(
        world.story(),
        [
            "C0v1x1", "Sv1", "C1v1x1", "C2v1x1", "C0^5", "C1^5", "C2^9", "S^9"
        ]
    );

    let mut world = World::new();
    let server = world.add(vec![tcp(22, alpha())]);
    world.run(2.0, |_, _| OK);
    assert_eq!(world.story(), ["C0^1", "S^1"]);
    assert_eq!(world.monitor.is_up(server), Some(true));
}

#[test]
fn every_failure_is_logged_only_while_up() {
    let mut world = World::new();
    let timing = Timing {
        log_all_failures: true,
        ..timing(4, 1, 1)
    };
    world.add(vec![tcp(22, timing)]);
    world.run(20.0, |at, _| if at > 4.0 { Reply::Refuse } else { OK });
    assert_eq!(world.story(), ["C0^1", "C0f5", "C0f6", "C0v6x2", "Sv6"]);
}

#[test]
fn local_error_is_held_and_then_fails() {
    let run = |policy| {
        let mut world = World::new();
        let timing = Timing {
            local_error: policy,
            ..timing(4, 0, 1)
        };
        world.add(vec![tcp(22, timing)]);
        world.run(10.0, |at, _| if at > 4.0 { Reply::NoAddress } else { OK });
        world.story()
    };
    assert_eq!(run(LocalErrorPolicy::Hold), ["C0^1", "C0n5", "C0n9"]);
    assert_eq!(
        run(LocalErrorPolicy::FailAfter(1)),
        ["C0^1", "C0n5", "C0n9", "C0v9x1", "Sv9"]
    );
    assert_eq!(
        run(LocalErrorPolicy::FailAfter(0)),
        ["C0^1", "C0n5", "C0v5x1", "Sv5", "C0n9"]
    );
}

#[test]
fn silent_server_fails_at_the_step_that_it_left_open() {
    for (reply, failure) in [
        (Reply::Silent, Failure::ConnectTimeout),
        (Reply::Mute, Failure::ReadTimeout),
    ] {
        let mut world = World::new();
        world.add(vec![http(&["A"], false, timing(4, 0, 1))]);
        world.run(3.5, |_, _| reply);
        assert_eq!(world.story(), ["C0v3x1", "Sv3"]);
        assert_eq!(world.failures(), [failure]);
    }
}

/// The response comes in pieces every 1.5 s and ends after 4.5 s.
fn drip(attempt_timeout: Option<u64>) -> Option<Event> {
    let start = Instant::now();
    let mut monitor = Monitor::new(0);
    let timing = Timing {
        attempt_timeout: attempt_timeout.map(Duration::from_secs),
        ..timing(60, 0, 1)
    };
    let checkers = vec![http(&["A"], false, timing)];
    monitor.add_server(start, ServerConfig::new(checkers));
    let mut now = monitor.poll_timeout().unwrap();
    monitor.handle_timeout(now);
    let Some(Command::Connect { probe, .. }) = monitor.poll_command() else {
        panic!()
    };
    monitor.handle_connected(now, probe, Ok(()));
    for piece in ["HTTP/1.0 200", " OK\r\n\r", "\nhello"] {
        now += Duration::from_millis(1500);
        monitor.handle_timeout(now);
        monitor.handle_data(now, probe, piece.as_bytes());
    }
    monitor.handle_closed(now, probe, Ok(()));
    monitor.poll_event()
}

#[test]
fn dripping_response_is_bounded_only_by_the_attempt_timeout() {
    assert!(matches!(drip(None), Some(Event::CheckerUp { .. })));
    let Some(Event::CheckerDown { failure, .. }) = drip(Some(4)) else {
        panic!()
    };
    assert_eq!(failure, Failure::AttemptTimeout);
}

#[test]
fn first_attempts_spread_over_the_warmup() {
    let mut world = World::new();
    let config = |port| {
        tcp(
            port,
            Timing {
                warmup: Duration::from_secs(10),
                ..timing(10, 0, 1)
            },
        )
    };
    world.add((1..=40).map(config).collect());
    let mut first = Vec::new();
    world.run(11.0, |at, _| {
        first.push(at);
        OK
    });
    assert!(first.iter().all(|at| (1.0..=11.0).contains(at)));
    assert!(first[0] < 3.0 && first.iter().any(|at| *at > 9.0));
}

#[test]
fn news_of_an_earlier_probe_is_ignored() {
    let start = Instant::now();
    let mut monitor = Monitor::new(0);
    let server = monitor.add_server(start, ServerConfig::new(vec![tcp(22, timing(4, 0, 1))]));
    let first = monitor.poll_timeout().unwrap();
    monitor.handle_timeout(first);
    let Some(Command::Connect { probe, .. }) = monitor.poll_command() else {
        panic!()
    };
    let late = first + Duration::from_secs(2);
    monitor.handle_timeout(late);
    assert_eq!(monitor.poll_command(), Some(Command::Close { probe }));
    let due = monitor.poll_timeout();
    monitor.handle_connected(late, probe, Ok(()));
    monitor.handle_data(late, probe, b"late");
    monitor.handle_closed(late, probe, Ok(()));
    assert_eq!(monitor.poll_timeout(), due);
    assert_eq!(monitor.poll_command(), None);
    assert_eq!(monitor.is_up(server), Some(false));
}

#[test]
fn removed_server_closes_its_probe_and_is_silent() {
    let start = Instant::now();
    let mut monitor = Monitor::new(0);
    let checkers = vec![tcp(22, timing(4, 0, 1)), tcp(23, timing(4, 0, 1))];
    let server = monitor.add_server(start, ServerConfig::new(checkers));
    let now = monitor.poll_timeout().unwrap();
    monitor.handle_timeout(now);
    assert!(monitor.checkers(server).all(|checker| checker.is_running));
    assert_eq!(monitor.remove_server(server), Ok(()));
    let commands: Vec<_> = std::iter::from_fn(|| monitor.poll_command()).collect();
    assert_eq!(commands.len(), 4);
    assert!(matches!(
        commands[2..],
        [Command::Close { .. }, Command::Close { .. }]
    ));
    assert_eq!((monitor.poll_timeout(), monitor.poll_event()), (None, None));
    assert_eq!(monitor.remove_server(server), Err(UnknownServer));
    assert_eq!(monitor.is_up(server), None);
}

#[test]
fn monitor_may_move_to_another_thread() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&Monitor::new(0));
}

#[test]
fn server_without_checkers_is_up_and_costs_nothing() {
    let mut world = World::new();
    let server = world.add(vec![]);
    assert_eq!(world.monitor.is_up(server), Some(true));
    assert_eq!(world.monitor.poll_timeout(), None);
}

#[test]
fn extreme_durations_neither_spin_nor_overflow() {
    let zero = Timing {
        delay_loop: Duration::ZERO,
        delay_before_retry: Duration::ZERO,
        connect_timeout: Duration::ZERO,
        attempt_timeout: Some(Duration::ZERO),
        ..timing(0, u32::MAX, 0)
    };
    let endless = Timing {
        delay_loop: Duration::MAX,
        connect_timeout: Duration::MAX,
        attempt_timeout: Some(Duration::MAX),
        ..timing(0, u32::MAX, 0)
    };
    let mut world = World::new();
    world.add(vec![tcp(22, zero), tcp(23, endless)]);
    world.run(2.0, |_, _| Reply::Silent);
    assert_eq!(world.failures(), [Failure::AttemptTimeout]);
}

fn any_reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        4 => Just(OK),
        2 => Just(Reply::Refuse),
        1 => Just(Reply::Status(500)),
        1 => Just(Reply::Silent),
        1 => Just(Reply::Mute),
        1 => Just(Reply::Reset),
        1 => Just(Reply::NoAddress),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// `World` asserts that attempts of a checker never overlap, that each connection is closed once, and that
    /// deadlines move forward.
    #[test]
    fn any_outcomes_keep_the_promises(
        replies in prop::collection::vec(any_reply(), 1..60),
        retry in 0u32..4,
        delays in (0u64..4, 0u64..4),
        urls in 1usize..4,
        fast_recovery: bool,
        alpha: bool,
    ) {
        let mut world = World::new();
        let timing = || Timing { alpha, log_all_failures: true, ..timing(1 + delays.0, retry, delays.1) };
        let paths = &["A", "B", "C"][..urls];
        let server = world.add(vec![tcp(22, timing()), http(paths, fast_recovery, timing())]);
        let mut next = replies.iter().cycle().copied();
        world.run(120.0, |_, _| next.next().unwrap());

        let mut server_up = None;
        let mut checkers = [None, None];
        for (_, event) in &world.events {
            let (known, up) = match event {
                Event::ServerUp { .. } => (&mut server_up, true),
                Event::ServerDown { .. } => (&mut server_up, false),
                Event::CheckerUp { checker, .. } => (&mut checkers[*checker], true),
                Event::CheckerDown { checker, .. } => (&mut checkers[*checker], false),
                _ => continue,
            };
            prop_assert_ne!(*known, Some(up), "reported twice: {:?}", event);
            *known = Some(up);
        }
        let expected = world.monitor.checkers(server).all(|checker| checker.is_up);
        prop_assert_eq!(world.monitor.is_up(server), Some(expected));
        prop_assert_eq!(server_up.unwrap_or(!alpha), expected);
        for (status, known) in world.monitor.checkers(server).zip(checkers) {
            prop_assert_eq!(known.unwrap_or(!alpha), status.is_up);
        }
    }
}
