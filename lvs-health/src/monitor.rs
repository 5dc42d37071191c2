//! Many checkers of many servers, one deadline.
//!
//! Deadlines stand in one ordered set with one entry per checker, so a call costs O(log n) and never looks at checkers
//! that have nothing to do.

mod config;
mod state;
#[cfg(test)]
mod tests;

pub use config::{CheckerConfig, ConnectOptions, LocalErrorPolicy, ServerConfig, Timing};

use crate::random::Random;
use crate::{Attempt, ConnectError, Failure, Next, Note, Outcome, ReadError, Schedule, Start};
use bytes::Bytes;
use state::{Decision, State};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Runs the checkers of any number of real servers. The crate documentation shows how it is driven.
#[derive(Debug)]
pub struct Monitor {
    servers: BTreeMap<ServerId, Server>,
    probes: BTreeMap<ProbeId, Key>,
    deadlines: BTreeSet<(Instant, Key)>,
    commands: VecDeque<Command>,
    events: VecDeque<Event>,
    random: Random,
    next_server: u64,
    next_probe: u64,
}

/// A server of one [`Monitor`]. Never used again after its removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(u64);

/// One attempt of one checker. Never used again after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId(u64);

impl ProbeId {
    /// A number that fits the user data of an event loop.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

/// What the program around the monitor must do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Open a TCP connection and report [`Monitor::handle_connected`].
    ///
    /// Make a new non-blocking socket of the destination's family; if `mark` is not 0 set SO_MARK; if `bind_interface`
    /// is given set SO_BINDTODEVICE; if `bind` is given bind to it (port 0: any); connect. An error before `connect()`
    /// is a [`ConnectError::setup`].
    Connect {
        /// What later calls and commands name.
        probe: ProbeId,
        /// Where to.
        destination: SocketAddr,
        /// Where from.
        bind: Option<SocketAddr>,
        /// Through which interface.
        bind_interface: Option<Arc<str>>,
        /// The firewall mark of the socket; 0 is none.
        mark: u32,
    },
    /// Write all of this.
    Send {
        /// On this connection.
        probe: ProbeId,
        /// The bytes.
        data: Bytes,
    },
    /// Drop the socket; nothing more will be said about this probe.
    Close {
        /// Which connection.
        probe: ProbeId,
    },
}

/// What the program around the monitor may want to know. `checker` is the position in [`ServerConfig::checkers`].
///
/// Of one server, `ServerUp` and `ServerDown` alternate; a checker's event comes before the one of its server that it
/// causes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A checker passed for the first time, or again after it was down.
    CheckerUp {
        /// Which server.
        server: ServerId,
        /// Which of its checkers.
        checker: usize,
    },
    /// A checker failed for good.
    CheckerDown {
        /// Which server.
        server: ServerId,
        /// Which of its checkers.
        checker: usize,
        /// Why the last attempt failed.
        failure: Failure,
        /// How many attempts failed in a row; 1 means that there was no retry.
        attempts: u32,
    },
    /// The last failed checker of a server recovered.
    ServerUp {
        /// Which server.
        server: ServerId,
    },
    /// The first checker of a server failed, or the server began pessimistic and a checker confirmed it.
    ServerDown {
        /// Which server.
        server: ServerId,
        /// Which of its checkers.
        checker: usize,
        /// Why.
        failure: Failure,
    },
    /// An attempt of a checker that is still up failed. Only with [`Timing::log_all_failures`].
    AttemptFailed {
        /// Which server.
        server: ServerId,
        /// Which of its checkers.
        checker: usize,
        /// Why.
        failure: Failure,
    },
    /// An attempt could not be made; nothing is known about the server.
    NotRun {
        /// Which server.
        server: ServerId,
        /// Which of its checkers.
        checker: usize,
        /// Why not.
        reason: Failure,
    },
    /// A checker noticed something that did not decide the verdict.
    Noted {
        /// Which server.
        server: ServerId,
        /// Which of its checkers.
        checker: usize,
        /// What.
        note: Note,
    },
}

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
}

impl Monitor {
    /// A monitor without servers. The seed decides where within their warm-up checkers begin.
    pub fn new(seed: u64) -> Self {
        Self {
            servers: BTreeMap::new(),
            probes: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            commands: VecDeque::new(),
            events: VecDeque::new(),
            random: Random::new(seed),
            next_server: 0,
            next_probe: 0,
        }
    }

    /// Begins to check a server. Each checker's first attempt is after 1 s and a random part of its warm-up.
    ///
    /// The server begins as up unless one of its checkers is `alpha`; no event says so, ask [`is_up`](Self::is_up). A
    /// server without checkers is always up.
    pub fn add_server(&mut self, now: Instant, config: ServerConfig) -> ServerId {
        let server = ServerId(self.next_server);
        self.next_server += 1;
        let mut entries = Vec::with_capacity(config.checkers.len());
        for (index, config) in config.checkers.into_iter().enumerate() {
            let key = Key {
                server,
                checker: index,
            };
            let due = after(now, START_DELAY + self.random.below(config.timing.warmup));
            self.deadlines.insert((due, key));
            entries.push(Entry {
                schedule: config.checker.schedule(),
                state: State::new(&config.timing),
                phase: Phase::Idle,
                due,
                failed_attempts: 0,
                local_errors: 0,
                last_failure: None,
                config,
            });
        }
        let mut added = Server {
            entries,
            announced: Announced::Nothing,
        };
        if added.is_up() {
            added.announced = Announced::Up;
        }
        self.servers.insert(server, added);
        server
    }

    /// Stops checking a server. Its running probes get a `Close`, and nothing more is reported about it.
    ///
    /// # Errors
    ///
    /// There is no such server (any more).
    pub fn remove_server(&mut self, server: ServerId) -> Result<(), UnknownServer> {
        let removed = self.servers.remove(&server).ok_or(UnknownServer)?;
        for (checker, entry) in removed.entries.iter().enumerate() {
            self.deadlines.remove(&(entry.due, Key { server, checker }));
            if let Phase::Active { probe, .. } = entry.phase {
                self.probes.remove(&probe);
                self.commands.push_back(Command::Close { probe });
            }
        }
        Ok(())
    }

    /// Whether none of the server's checkers is down; `None` for an unknown server.
    pub fn is_up(&self, server: ServerId) -> Option<bool> {
        self.servers.get(&server).map(Server::is_up)
    }

    /// The server's checkers, in the order of their configuration; none for an unknown server.
    pub fn checkers(&self, server: ServerId) -> impl Iterator<Item = CheckerStatus> + '_ {
        let entries = self
            .servers
            .get(&server)
            .map_or(&[][..], |server| &server.entries);
        entries.iter().map(|entry| CheckerStatus {
            name: entry.config.checker.name(),
            destination: entry.config.connect.destination,
            is_up: entry.state.up,
            has_run: entry.state.has_run,
            is_running: matches!(entry.phase, Phase::Active { .. }),
            failed_attempts: entry.failed_attempts,
            last_failure: entry.last_failure.clone(),
        })
    }

    /// A connection stands, or could not be made. Ignored if the probe is over.
    pub fn handle_connected(
        &mut self,
        now: Instant,
        probe: ProbeId,
        result: Result<(), ConnectError>,
    ) {
        let Some((key, entry)) = self.active(probe) else {
            return;
        };
        let Phase::Active { connected, .. } = &mut entry.phase else {
            return;
        };
        if std::mem::replace(connected, true) {
            return;
        }
        match result {
            Ok(()) => {
                let next = entry.config.checker.handle_connected();
                self.follow(now, key, next);
            }
            Err(error @ ConnectError::Local(_)) => {
                self.conclude(now, key, Outcome::NotRun(error.into()));
            }
            Err(error) => self.conclude(now, key, Outcome::Down(error.into())),
        }
    }

    /// The server said something. Ignored if the probe is over or `data` is empty.
    pub fn handle_data(&mut self, now: Instant, probe: ProbeId, data: &[u8]) {
        let Some((key, entry)) = self.active(probe) else {
            return;
        };
        if data.is_empty() || !entry.is_connected() {
            return;
        }
        let next = entry.config.checker.handle_data(data);
        self.follow(now, key, next);
    }

    /// The server ended its stream, or the connection broke. Ignored if the probe is over.
    pub fn handle_closed(&mut self, now: Instant, probe: ProbeId, result: Result<(), ReadError>) {
        let Some((key, entry)) = self.active(probe) else {
            return;
        };
        if !entry.is_connected() {
            return;
        }
        let outcome = match result {
            Ok(()) => entry.config.checker.handle_closed(),
            Err(error) => Outcome::Down(error.into()),
        };
        self.conclude(now, key, outcome);
    }

    /// Starts the attempts that are due and ends those that took too long. Calling it early or twice is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(due, key)) = self.deadlines.first() {
            if due > now {
                break;
            }
            let Some(entry) = self.entry(key) else {
                self.deadlines.remove(&(due, key));
                continue;
            };
            match entry.phase {
                Phase::Idle => self.begin(now, key),
                Phase::Active {
                    connected, limit, ..
                } => {
                    let outcome = if limit.is_some_and(|limit| limit <= now) {
                        Outcome::Down(Failure::AttemptTimeout)
                    } else if connected {
                        entry.config.checker.handle_timeout()
                    } else {
                        Outcome::Down(Failure::ConnectTimeout)
                    };
                    self.conclude(now, key, outcome);
                }
            }
        }
        debug_assert!(
            self.poll_timeout().is_none_or(|due| due > now),
            "deadlines move forward"
        );
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None` means that there is nothing to check.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Every checker has exactly one deadline, and every probe belongs to exactly one running attempt.
    #[cfg(test)]
    fn check_invariants(&self) {
        let mut running = 0;
        let mut checkers = 0;
        for (server, owner) in &self.servers {
            for (checker, entry) in owner.entries.iter().enumerate() {
                let key = Key {
                    server: *server,
                    checker,
                };
                assert!(self.deadlines.contains(&(entry.due, key)), "{key:?}");
                checkers += 1;
                if let Phase::Active { probe, .. } = entry.phase {
                    assert_eq!(self.probes.get(&probe), Some(&key));
                    running += 1;
                }
            }
        }
        assert_eq!(
            (self.deadlines.len(), self.probes.len()),
            (checkers, running)
        );
    }

    fn entry(&mut self, key: Key) -> Option<&mut Entry> {
        self.servers
            .get_mut(&key.server)?
            .entries
            .get_mut(key.checker)
    }

    fn active(&mut self, probe: ProbeId) -> Option<(Key, &mut Entry)> {
        let key = *self.probes.get(&probe)?;
        Some((key, self.entry(key)?))
    }

    fn begin(&mut self, now: Instant, key: Key) {
        let probe = ProbeId(self.next_probe);
        self.next_probe += 1;
        let Some(entry) = self.entry(key) else { return };
        let connect = entry.config.connect.clone();
        let attempt = Attempt::new(connect.destination, entry.state.part);
        match entry.config.checker.begin(&attempt) {
            Start::Connect => {}
        }
        let limit = entry
            .config
            .timing
            .attempt_timeout
            .map(|limit| after(now, limit));
        entry.phase = Phase::Active {
            probe,
            connected: false,
            limit,
        };
        self.probes.insert(probe, key);
        self.commands.push_back(Command::Connect {
            probe,
            destination: connect.destination,
            bind: connect.bind,
            bind_interface: connect.bind_interface,
            mark: connect.mark,
        });
        self.arm_step(now, key);
    }

    fn follow(&mut self, now: Instant, key: Key, next: Next) {
        match next {
            Next::Wait => {}
            Next::Send(data) => {
                let Some(Entry {
                    phase: Phase::Active { probe, .. },
                    ..
                }) = self.entry(key)
                else {
                    return;
                };
                let probe = *probe;
                self.commands.push_back(Command::Send { probe, data });
            }
            Next::Done(outcome) => return self.conclude(now, key, outcome),
        }
        self.arm_step(now, key);
    }

    /// The timeout of one step, cut short by the limit of the whole attempt.
    fn arm_step(&mut self, now: Instant, key: Key) {
        let Some(entry) = self.entry(key) else { return };
        let mut due = after(now, entry.config.timing.connect_timeout);
        if let Phase::Active {
            limit: Some(limit), ..
        } = entry.phase
        {
            due = due.min(limit);
        }
        self.arm(key, due);
    }

    fn arm(&mut self, key: Key, due: Instant) {
        let Some(entry) = self.entry(key) else { return };
        let old = std::mem::replace(&mut entry.due, due);
        self.deadlines.remove(&(old, key));
        self.deadlines.insert((due, key));
    }

    fn conclude(&mut self, now: Instant, key: Key, outcome: Outcome) {
        let Key { server, checker } = key;
        let Some(owner) = self.servers.get_mut(&server) else {
            return;
        };
        let Some(entry) = owner.entries.get_mut(checker) else {
            return;
        };
        if let Phase::Active { probe, .. } = std::mem::replace(&mut entry.phase, Phase::Idle) {
            self.probes.remove(&probe);
            self.commands.push_back(Command::Close { probe });
        }
        while let Some(note) = entry.config.checker.poll_note() {
            self.events.push_back(Event::Noted {
                server,
                checker,
                note,
            });
        }

        let timing = &entry.config.timing;
        let decision = match outcome {
            Outcome::Up => {
                entry.local_errors = 0;
                entry.failed_attempts = 0;
                entry.last_failure = None;
                let decision = entry.state.succeed(timing, entry.schedule);
                if decision.report.is_some() {
                    self.events.push_back(Event::CheckerUp { server, checker });
                }
                decision
            }
            Outcome::NotRun(reason) => {
                entry.local_errors = entry.local_errors.saturating_add(1);
                let held = match timing.local_error {
                    LocalErrorPolicy::Hold => true,
                    LocalErrorPolicy::FailAfter(limit) => entry.local_errors <= limit,
                };
                self.events.push_back(Event::NotRun {
                    server,
                    checker,
                    reason: reason.clone(),
                });
                if held {
                    Decision {
                        report: None,
                        delay: Some(timing.delay_loop),
                    }
                } else {
                    entry.fail(key, reason, &mut self.events)
                }
            }
            Outcome::Down(failure) => {
                entry.local_errors = 0;
                entry.fail(key, failure, &mut self.events)
            }
        };
        let went_down = if decision.report == Some(false) {
            entry.last_failure.clone()
        } else {
            None
        };

        match (owner.is_up(), owner.announced, went_down) {
            (true, Announced::Nothing | Announced::Down, _) => {
                owner.announced = Announced::Up;
                self.events.push_back(Event::ServerUp { server });
            }
            (false, Announced::Nothing | Announced::Up, Some(failure)) => {
                owner.announced = Announced::Down;
                self.events.push_back(Event::ServerDown {
                    server,
                    checker,
                    failure,
                });
            }
            _ => {}
        }
        match decision.delay {
            Some(delay) => self.arm(key, after(now, delay)),
            None => self.begin(now, key),
        }
    }
}

/// There is no such server (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownServer;

impl fmt::Display for UnknownServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such server")
    }
}

impl Error for UnknownServer {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    server: ServerId,
    checker: usize,
}

#[derive(Debug)]
struct Server {
    entries: Vec<Entry>,
    announced: Announced,
}

impl Server {
    /// Derived from the checkers every time, so that it cannot drift from them.
    fn is_up(&self) -> bool {
        self.entries.iter().all(|entry| entry.state.up)
    }
}

/// The last thing that was said about a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Announced {
    /// It began pessimistic and no checker has confirmed or refuted it.
    Nothing,
    Up,
    Down,
}

#[derive(Debug)]
struct Entry {
    config: CheckerConfig,
    schedule: Schedule,
    state: State,
    phase: Phase,
    /// When `handle_timeout` has something to do here; always present in the deadlines.
    due: Instant,
    failed_attempts: u32,
    /// Attempts in a row that could not be made.
    local_errors: u32,
    last_failure: Option<Failure>,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Active {
        probe: ProbeId,
        connected: bool,
        limit: Option<Instant>,
    },
}

impl Entry {
    fn is_connected(&self) -> bool {
        matches!(
            self.phase,
            Phase::Active {
                connected: true,
                ..
            }
        )
    }

    fn fail(&mut self, key: Key, failure: Failure, events: &mut VecDeque<Event>) -> Decision {
        let Key { server, checker } = key;
        self.failed_attempts = self.failed_attempts.saturating_add(1);
        if self.state.up && self.config.timing.log_all_failures {
            events.push_back(Event::AttemptFailed {
                server,
                checker,
                failure: failure.clone(),
            });
        }
        let decision = self.state.fail(&self.config.timing, self.schedule);
        if decision.report.is_some() {
            events.push_back(Event::CheckerDown {
                server,
                checker,
                failure: failure.clone(),
                attempts: self.failed_attempts,
            });
        }
        self.last_failure = Some(failure);
        decision
    }
}

/// Never less than [`MIN_DELAY`] from now, and far away instead of out of range.
fn after(now: Instant, delay: Duration) -> Instant {
    now + delay.clamp(MIN_DELAY, MAX_DELAY)
}

/// Between the start and the earliest first attempt.
const START_DELAY: Duration = Duration::from_secs(1);

/// Whatever is configured, a deadline lies this far ahead, so that nothing spins.
const MIN_DELAY: Duration = Duration::from_millis(1);

/// Ten years.
const MAX_DELAY: Duration = Duration::from_secs(10 * 365 * 86400);
