//! Many checkers of many servers, one deadline.
//!
//! Deadlines stand in one ordered set with at most one entry per check, so a call costs O(log n) and never looks at
//! checks that have nothing to do.

mod check;
mod config;
mod event;
mod state;
mod status;
#[cfg(test)]
mod tests;

pub use config::{
    CheckerConfig, ConnectOptions, IntervalBase, LocalErrorPolicy, ServerConfig, Timing,
};
pub use event::{Command, Event};
pub use status::CheckerStatus;

use crate::random::Random;
use crate::{
    Adjustment, Attempt, ConnectError, Exit, Failure, Next, Outcome, ReadError, Schedule, Start,
};
use check::{Check, MIN_DELAY, Phase, Stage, after, names};
use state::Decision;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

/// Runs the checkers of any number of real servers. The crate documentation shows how it is driven.
#[derive(Debug)]
pub struct Monitor {
    servers: BTreeMap<ServerId, Server>,
    checks: BTreeMap<CheckId, Check>,
    /// The checks that others may join.
    shared: BTreeMap<String, CheckId>,
    probes: BTreeMap<ProbeId, CheckId>,
    deadlines: BTreeSet<(Instant, CheckId)>,
    commands: VecDeque<Command>,
    events: VecDeque<Event>,
    random: Random,
    pace: Pace,
    lateness: Duration,
    next_server: u64,
    next_check: u64,
    next_probe: u64,
}

/// A server of one [`Monitor`]. Never used again after its removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(u64);

/// One attempt of one checker. Never used again after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId(u64);

impl ProbeId {
    /// Never given to a probe.
    #[cfg(all(feature = "tokio", target_os = "linux"))]
    pub(crate) const LAST: Self = Self(u64::MAX);

    /// A number that fits the user data of an event loop.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// The probe of a number that [`as_u64`](Self::as_u64) gave.
    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }
}

impl Monitor {
    /// A monitor without servers. The seed decides where within their warm-up checkers begin, and their jitter.
    pub fn new(seed: u64) -> Self {
        Self {
            servers: BTreeMap::new(),
            checks: BTreeMap::new(),
            shared: BTreeMap::new(),
            probes: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            commands: VecDeque::new(),
            events: VecDeque::new(),
            random: Random::new(seed),
            pace: Pace::default(),
            lateness: Duration::ZERO,
            next_server: 0,
            next_check: 0,
            next_probe: 0,
        }
    }

    /// Limits how many attempts begin in a second; 0 counts as 1. What is due beyond that is spread over the time that it
    /// takes. No limit by default.
    pub fn set_start_rate(&mut self, per_second: u32) {
        self.pace = Pace::new(per_second);
    }

    /// How many attempts have begun so far.
    pub fn attempts(&self) -> u64 {
        self.next_probe
    }

    /// By how much attempts began after their time at most, since this was last asked: whether the program around the
    /// monitor keeps up.
    pub fn take_lateness(&mut self) -> Duration {
        std::mem::take(&mut self.lateness)
    }

    /// Begins to check a server. Each checker's first attempt is after 1 s and a random part of its warm-up; one that
    /// is shared and runs already goes on as it does.
    ///
    /// The server begins as up unless one of its checkers is `alpha`, or shared and down; no event says so, ask
    /// [`is_up`](Self::is_up). A server without checkers is always up.
    pub fn add_server(&mut self, now: Instant, config: ServerConfig) -> ServerId {
        let server = ServerId(self.next_server);
        self.next_server += 1;
        let checks: Vec<CheckId> = config
            .checkers
            .into_iter()
            .enumerate()
            .map(|(index, checker)| self.add_check(now, checker, (server, index)))
            .collect();
        self.servers.insert(
            server,
            Server {
                checks,
                weight: config.weight,
                adjustment: 0,
                suspended: false,
                announced: Announced::Nothing,
            },
        );
        let announced = match self.failed_check(server) {
            None => Announced::Up,
            Some((_, check)) if check.state.has_run => Announced::Down,
            Some(_) => Announced::Nothing,
        };
        let adjustment = self.adjustment(server);
        if let Some(owner) = self.servers.get_mut(&server) {
            owner.announced = announced;
        }
        self.tell_adjustment(server, adjustment);
        server
    }

    /// Goes on with other checkers or another weight, as after a reload.
    ///
    /// A checker with the same identity and connection as one that the server had goes on in its state and at its time,
    /// under the new timing. The others are new: they count as up until their first attempt, also those with `alpha`
    /// unless the server is down. Events tell what changes at once.
    ///
    /// # Errors
    ///
    /// There is no such server (any more).
    pub fn update_server(
        &mut self,
        now: Instant,
        server: ServerId,
        config: ServerConfig,
    ) -> Result<(), UnknownServer> {
        let was_up = self.is_up(server).ok_or(UnknownServer)?;
        let owner = self.servers.get_mut(&server).ok_or(UnknownServer)?;
        owner.weight = config.weight;
        let mut old = std::mem::take(&mut owner.checks);
        let mut checks = Vec::with_capacity(config.checkers.len());
        for (index, checker) in config.checkers.into_iter().enumerate() {
            let (identity, shared_as) = names(&checker);
            let kept = identity.and_then(|identity| {
                old.iter().position(|id| {
                    self.checks
                        .get(id)
                        .is_some_and(|check| check.identity.as_ref() == Some(&identity))
                })
            });
            let id = match kept {
                Some(at) => {
                    self.keep_check(now, old.remove(at), checker, shared_as, (server, index))
                }
                None => {
                    let id = self.add_check(now, checker, (server, index));
                    if let Some(check) = self.checks.get_mut(&id)
                        && !check.state.has_run
                        && was_up
                    {
                        check.state.up = true;
                    }
                    id
                }
            };
            checks.push(id);
        }
        if let Some(owner) = self.servers.get_mut(&server) {
            owner.checks = checks;
        }
        for id in old {
            self.leave_check(id, server);
        }
        self.announce(server);
        Ok(())
    }

    /// Stops checking a server. Its running probes get a `Close` unless others share them, and nothing more is reported
    /// about it.
    ///
    /// # Errors
    ///
    /// There is no such server (any more).
    pub fn remove_server(&mut self, server: ServerId) -> Result<(), UnknownServer> {
        let removed = self.servers.remove(&server).ok_or(UnknownServer)?;
        for id in removed.checks {
            self.leave_check(id, server);
        }
        Ok(())
    }

    /// Suspends a server's checks, or resumes them (`ha_suspend`). While suspended it stays as it is and nothing is
    /// reported about it; a check that is shared goes on for the others. A check that rested begins within its
    /// `delay_loop`, at most one second, after it is resumed.
    ///
    /// # Errors
    ///
    /// There is no such server (any more).
    pub fn set_suspended(
        &mut self,
        now: Instant,
        server: ServerId,
        suspended: bool,
    ) -> Result<(), UnknownServer> {
        let owner = self.servers.get_mut(&server).ok_or(UnknownServer)?;
        if std::mem::replace(&mut owner.suspended, suspended) == suspended {
            return Ok(());
        }
        for id in owner.checks.clone() {
            let Some(check) = self.checks.get(&id) else {
                continue;
            };
            if suspended {
                if self.is_resting(check) {
                    self.abandon(id);
                    self.disarm(id);
                }
            } else if check.due.is_none() && check.schedule != Schedule::External {
                let soon = check.timing.delay_loop.min(Duration::from_secs(1));
                let due = after(now, self.random.below(soon));
                self.arm(id, due);
            }
        }
        if !suspended {
            self.announce(server);
        }
        Ok(())
    }

    /// Whether none of the server's checkers is down; `None` for an unknown server.
    pub fn is_up(&self, server: ServerId) -> Option<bool> {
        self.servers.get(&server)?;
        Some(self.failed_check(server).is_none())
    }

    /// Whether the server's checks are suspended; `None` for an unknown server.
    pub fn is_suspended(&self, server: ServerId) -> Option<bool> {
        Some(self.servers.get(&server)?.suspended)
    }

    /// The server's checkers, in the order of their configuration; none for an unknown server.
    pub fn checkers(&self, server: ServerId) -> impl Iterator<Item = CheckerStatus> + '_ {
        let checks = self
            .servers
            .get(&server)
            .map_or(&[][..], |server| &server.checks);
        checks
            .iter()
            .filter_map(|id| self.checks.get(id))
            .map(Check::status)
    }

    /// A connection stands, or could not be made. Ignored if the probe is over.
    pub fn handle_connected(
        &mut self,
        now: Instant,
        probe: ProbeId,
        result: Result<(), ConnectError>,
    ) {
        let Some((id, check)) = self.active(probe, Stage::Connecting) else {
            return;
        };
        match result {
            Ok(()) => {
                if let Phase::Active { stage, .. } = &mut check.phase {
                    *stage = Stage::Connected;
                }
                let next = check.checker.handle_connected();
                self.follow(now, id, next);
            }
            Err(error @ ConnectError::Local(_)) => {
                self.conclude(now, id, Outcome::NotRun(error.into()));
            }
            Err(error) => self.conclude(now, id, Outcome::Down(error.into())),
        }
    }

    /// The server said something; of a datagram transport, this is one datagram. Ignored if the probe is over.
    pub fn handle_data(&mut self, now: Instant, probe: ProbeId, data: &[u8]) {
        let Some((id, check)) = self.active(probe, Stage::Connected) else {
            return;
        };
        let next = check.checker.handle_data(data);
        self.follow(now, id, next);
    }

    /// The server ended its stream, or the connection broke. Ignored if the probe is over.
    pub fn handle_closed(&mut self, now: Instant, probe: ProbeId, result: Result<(), ReadError>) {
        let Some((id, check)) = self.active(probe, Stage::Connected) else {
            return;
        };
        let outcome = match result {
            Ok(()) => check.checker.handle_closed(),
            Err(error) => check.checker.handle_error(error),
        };
        self.conclude(now, id, outcome);
    }

    /// A script ended, or could not be started. Ignored if the probe is over.
    pub fn handle_exit(&mut self, now: Instant, probe: ProbeId, exit: Exit) {
        let Some(id) = self.probes.get(&probe).copied() else {
            return;
        };
        let Some(check) = self.checks.get_mut(&id) else {
            return;
        };
        let outcome = match (check.stage(), exit) {
            (Some(Stage::Running), _) | (Some(Stage::Ending), Exit::Code(_)) => {
                check.checker.handle_exit(exit)
            }
            (Some(Stage::Ending), _) => Outcome::Down(Failure::ScriptTimeout),
            _ => return,
        };
        self.conclude(now, id, outcome);
    }

    /// What somebody saw of the server in traffic: a proxy's connection that failed, an answer that came. Those checkers
    /// that listen, as [`PassiveCheck`](crate::PassiveCheck), may come to a verdict by it.
    ///
    /// # Errors
    ///
    /// There is no such server (any more).
    pub fn report(
        &mut self,
        now: Instant,
        server: ServerId,
        seen: Outcome,
    ) -> Result<(), UnknownServer> {
        let owner = self.servers.get(&server).ok_or(UnknownServer)?;
        for id in owner.checks.clone() {
            let Some(check) = self.checks.get_mut(&id) else {
                continue;
            };
            if check.schedule != Schedule::External {
                continue;
            }
            if let Some(verdict) = check.checker.handle_report(&seen) {
                check.started = now;
                self.conclude(now, id, verdict.outcome);
                match verdict.expires {
                    Some(time) => self.arm(id, after(now, time)),
                    None => self.disarm(id),
                }
            }
        }
        Ok(())
    }

    /// What an external checker found out, and how its server's weight should differ: it counts at once, without retry.
    /// One that is already so changes nothing. For another kind of checker it is ignored.
    ///
    /// # Errors
    ///
    /// There is no such server (any more), or it has no such checker.
    pub fn handle_outcome(
        &mut self,
        now: Instant,
        server: ServerId,
        checker: usize,
        outcome: Outcome,
        adjustment: Adjustment,
    ) -> Result<(), UnknownServer> {
        let owner = self.servers.get(&server).ok_or(UnknownServer)?;
        let id = *owner.checks.get(checker).ok_or(UnknownServer)?;
        if let Some(check) = self.checks.get_mut(&id)
            && check.schedule == Schedule::External
        {
            check.started = now;
            check.reported = adjustment;
            self.conclude(now, id, outcome);
        }
        Ok(())
    }

    /// Starts the attempts that are due and ends those that took too long. Calling it early or twice is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(due, id)) = self.deadlines.first() {
            if due > now {
                break;
            }
            let Some(check) = self.checks.get_mut(&id) else {
                self.deadlines.remove(&(due, id));
                continue;
            };
            let Phase::Active {
                stage,
                limit,
                probe,
            } = check.phase
            else {
                if check.schedule == Schedule::External {
                    // Its last outcome has lost its force.
                    self.disarm(id);
                    self.conclude(now, id, Outcome::Up);
                } else if let Some(slot) = self.pace.delay(now, &mut check.has_slot) {
                    self.arm(id, slot);
                } else {
                    self.lateness = self.lateness.max(now.saturating_duration_since(due));
                    self.begin(now, id);
                }
                continue;
            };
            let outcome = match stage {
                Stage::Running => {
                    if let Phase::Active { stage, .. } = &mut check.phase {
                        *stage = Stage::Ending;
                    }
                    self.commands.push_back(Command::Terminate { probe });
                    self.arm(id, after(now, END_OF_SCRIPT));
                    continue;
                }
                Stage::Ending => Outcome::Down(Failure::ScriptTimeout),
                _ if limit.is_some_and(|limit| limit <= now) => {
                    Outcome::Down(Failure::AttemptTimeout)
                }
                Stage::Connected => check.checker.handle_timeout(),
                Stage::Connecting => Outcome::Down(Failure::ConnectTimeout),
            };
            self.conclude(now, id, outcome);
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

    /// Whether an attempt is under way. One that is not has been closed, or is about to be.
    pub fn is_running(&self, probe: ProbeId) -> bool {
        self.probes.contains_key(&probe)
    }

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Whether there is something to know.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Every check that is not external or at rest has exactly one deadline, every probe belongs to exactly one running
    /// attempt, and servers and checks know each other.
    #[cfg(test)]
    fn check_invariants(&self) {
        let (mut running, mut armed, mut used) = (0, 0, 0);
        for (id, check) in &self.checks {
            match check.due {
                Some(due) => {
                    armed += 1;
                    assert!(self.deadlines.contains(&(due, *id)), "{id:?}");
                }
                None => assert!(
                    check.schedule == Schedule::External || self.is_resting(check),
                    "{id:?}"
                ),
            }
            if let Phase::Active { probe, .. } = check.phase {
                assert_eq!(self.probes.get(&probe), Some(id));
                running += 1;
            }
            assert!(!check.users.is_empty(), "{id:?}");
            for (server, at) in &check.users {
                used += 1;
                assert_eq!(self.servers[server].checks[*at], *id);
            }
        }
        assert_eq!((self.deadlines.len(), self.probes.len()), (armed, running));
        let owned: usize = self
            .servers
            .values()
            .map(|server| server.checks.len())
            .sum();
        assert_eq!(owned, used);
    }

    fn add_check(
        &mut self,
        now: Instant,
        config: CheckerConfig,
        user: (ServerId, usize),
    ) -> CheckId {
        let (_, shared_as) = names(&config);
        if let Some(name) = &shared_as
            && let Some(id) = self.shared.get(name)
            && let Some(check) = self.checks.get_mut(id)
        {
            check.users.push(user);
            let id = *id;
            // It may rest because all the others are suspended.
            let check = &self.checks[&id];
            if check.due.is_none() && check.schedule != Schedule::External {
                let warmup = check.timing.warmup;
                let due = after(now, START_DELAY + self.random.below(warmup));
                self.arm(id, due);
            }
            return id;
        }
        let id = CheckId(self.next_check);
        self.next_check += 1;
        let check = Check::new(now, config, user);
        let first = after(now, START_DELAY + self.random.below(check.timing.warmup));
        let external = check.schedule == Schedule::External;
        self.checks.insert(id, check);
        if let Some(name) = shared_as {
            self.shared.insert(name, id);
        }
        if !external {
            self.arm(id, first);
        }
        id
    }

    /// A check goes on for this server under a new configuration: the same one if nobody else uses it or nothing changes,
    /// else one that continues its state.
    fn keep_check(
        &mut self,
        now: Instant,
        id: CheckId,
        config: CheckerConfig,
        shared_as: Option<String>,
        user: (ServerId, usize),
    ) -> CheckId {
        let Some(check) = self.checks.get_mut(&id) else {
            return self.add_check(now, config, user);
        };
        if check.timing == config.timing && check.shared_as == shared_as {
            for (server, at) in &mut check.users {
                if *server == user.0 {
                    *at = user.1;
                }
            }
            return id;
        }
        let state = (
            check.state.clone(),
            check.since,
            check.failed_attempts,
            check.last_failure.clone(),
        );
        self.leave_check(id, user.0);
        let id = self.add_check(now, config, user);
        if let Some(check) = self.checks.get_mut(&id)
            && check.users.len() == 1
        {
            (
                check.state,
                check.since,
                check.failed_attempts,
                check.last_failure,
            ) = state;
            check.state.retime(&check.timing, check.schedule);
        }
        id
    }

    /// The server does not use the check any more; without users it ends.
    fn leave_check(&mut self, id: CheckId, server: ServerId) {
        let Some(check) = self.checks.get_mut(&id) else {
            return;
        };
        check.users.retain(|(user, _)| *user != server);
        if !check.users.is_empty() {
            return;
        }
        self.abandon(id);
        self.disarm(id);
        if let Some(check) = self.checks.remove(&id)
            && let Some(name) = check.shared_as
            && self.shared.get(&name) == Some(&id)
        {
            self.shared.remove(&name);
        }
    }

    /// Whether nobody wants to hear of it now.
    fn is_resting(&self, check: &Check) -> bool {
        let suspended = |server| {
            self.servers
                .get(server)
                .is_some_and(|server| server.suspended)
        };
        check.users.iter().all(|(server, _)| suspended(server))
    }

    fn active(&mut self, probe: ProbeId, wanted: Stage) -> Option<(CheckId, &mut Check)> {
        let id = *self.probes.get(&probe)?;
        let check = self.checks.get_mut(&id)?;
        (check.stage() == Some(wanted)).then_some((id, check))
    }

    /// The first checker of the server that is down.
    fn failed_check(&self, server: ServerId) -> Option<(usize, &Check)> {
        let owner = self.servers.get(&server)?;
        let mut checks = owner.checks.iter().enumerate();
        checks.find_map(|(at, id)| {
            let check = self.checks.get(id)?;
            (!check.state.up).then_some((at, check))
        })
    }

    /// Added up anew each time, so that it cannot drift from the checkers.
    fn adjustment(&self, server: ServerId) -> i64 {
        let Some(owner) = self.servers.get(&server) else {
            return 0;
        };
        let checks = owner.checks.iter().filter_map(|id| self.checks.get(id));
        checks.fold(0i64, |sum, check| {
            sum.saturating_add(check.adjustment().delta(owner.weight))
        })
    }

    fn tell_adjustment(&mut self, server: ServerId, adjustment: i64) {
        if let Some(owner) = self.servers.get_mut(&server)
            && std::mem::replace(&mut owner.adjustment, adjustment) != adjustment
        {
            self.events
                .push_back(Event::Adjusted { server, adjustment });
        }
    }

    fn begin(&mut self, now: Instant, id: CheckId) {
        if let Some(check) = self.checks.get_mut(&id) {
            check.has_slot = false;
        }
        let Some(check) = self.checks.get(&id) else {
            return;
        };
        if self.is_resting(check) {
            return self.disarm(id);
        }
        let probe = ProbeId(self.next_probe);
        self.next_probe += 1;
        let Some(check) = self.checks.get_mut(&id) else {
            return;
        };
        let attempt = Attempt::new(check.connect.destination, check.state.part)
            .with_random(self.random.number());
        check.started = now;
        let limit = check.timing.attempt_timeout;
        match check.checker.begin(&attempt) {
            Start::Connect(transport) => {
                let limit = limit.map(|limit| after(now, limit));
                check.phase = Phase::Active {
                    probe,
                    stage: Stage::Connecting,
                    limit,
                };
                let connect = check.connect.clone();
                self.commands.push_back(Command::Connect {
                    probe,
                    transport,
                    destination: connect.destination,
                    bind: connect.bind,
                    bind_interface: connect.bind_interface,
                    mark: connect.mark,
                });
                self.probes.insert(probe, id);
                self.arm_step(now, id);
            }
            Start::Run(script) => {
                check.phase = Phase::Active {
                    probe,
                    stage: Stage::Running,
                    limit: None,
                };
                let limit = limit.unwrap_or(check.timing.delay_loop);
                self.commands.push_back(Command::Run { probe, script });
                self.probes.insert(probe, id);
                self.arm(id, after(now, limit));
            }
        }
    }

    fn follow(&mut self, now: Instant, id: CheckId, next: Next) {
        match next {
            Next::Wait => {}
            Next::Ignore => return,
            Next::Send(data) => {
                let Some(Phase::Active { probe, .. }) =
                    self.checks.get(&id).map(|check| &check.phase)
                else {
                    return;
                };
                let probe = *probe;
                self.commands.push_back(Command::Send { probe, data });
            }
            Next::Done(outcome) => return self.conclude(now, id, outcome),
        }
        self.arm_step(now, id);
    }

    /// The timeout of one step, cut short by the limit of the whole attempt.
    fn arm_step(&mut self, now: Instant, id: CheckId) {
        let Some(check) = self.checks.get(&id) else {
            return;
        };
        let mut due = after(now, check.timing.connect_timeout);
        if let Phase::Active {
            limit: Some(limit), ..
        } = check.phase
        {
            due = due.min(limit);
        }
        self.arm(id, due);
    }

    fn arm(&mut self, id: CheckId, due: Instant) {
        self.disarm(id);
        if let Some(check) = self.checks.get_mut(&id) {
            check.due = Some(due);
            self.deadlines.insert((due, id));
        }
    }

    fn disarm(&mut self, id: CheckId) {
        if let Some(check) = self.checks.get_mut(&id)
            && let Some(due) = check.due.take()
        {
            self.deadlines.remove(&(due, id));
        }
    }

    /// Ends a running attempt.
    fn abandon(&mut self, id: CheckId) {
        if let Some(check) = self.checks.get_mut(&id)
            && let Phase::Active { probe, .. } = std::mem::replace(&mut check.phase, Phase::Idle)
        {
            self.probes.remove(&probe);
            self.commands.push_back(Command::Close { probe });
        }
    }

    fn conclude(&mut self, now: Instant, id: CheckId, outcome: Outcome) {
        let is_script = self
            .checks
            .get(&id)
            .is_some_and(|check| matches!(check.stage(), Some(Stage::Running | Stage::Ending)));
        self.abandon(id);
        let Some(check) = self.checks.get_mut(&id) else {
            return;
        };
        let users: Vec<(ServerId, usize)> = {
            let servers = &self.servers;
            let listens = |server| servers.get(server).is_some_and(|server| !server.suspended);
            let users = check.users.iter();
            users
                .filter(|(server, _)| listens(server))
                .copied()
                .collect()
        };
        check.finished = Some(now);
        while let Some(note) = check.checker.poll_note() {
            for &(server, checker) in &users {
                self.events.push_back(Event::Noted {
                    server,
                    checker,
                    note: note.clone(),
                });
            }
        }

        let was_up = check.state.up;
        let (decision, failure) = match outcome {
            Outcome::Up => {
                check.local_errors = 0;
                (check.succeed(), None)
            }
            Outcome::NotRun(reason) => {
                check.local_errors = check.local_errors.saturating_add(1);
                for &(server, checker) in &users {
                    self.events.push_back(Event::NotRun {
                        server,
                        checker,
                        reason: reason.clone(),
                    });
                }
                match check.timing.local_error {
                    LocalErrorPolicy::FailAfter(limit) if check.local_errors > limit => {
                        (check.fail(reason.clone()), Some(reason))
                    }
                    _ => (
                        Decision {
                            report: None,
                            delay: Some(check.timing.delay_loop),
                            regular: true,
                        },
                        None,
                    ),
                }
            }
            Outcome::Down(failure) => {
                check.local_errors = 0;
                (check.fail(failure.clone()), Some(failure))
            }
        };
        if check.state.up != was_up {
            check.since = now;
        }
        let tell_attempt = was_up && check.timing.log_all_failures;
        for &(server, checker) in &users {
            if let Some(failure) = failure.clone().filter(|_| tell_attempt) {
                self.events.push_back(Event::AttemptFailed {
                    server,
                    checker,
                    failure,
                });
            }
            match (decision.report, &failure) {
                (Some(true), _) => self.events.push_back(Event::CheckerUp { server, checker }),
                (Some(false), Some(failure)) => self.events.push_back(Event::CheckerDown {
                    server,
                    checker,
                    failure: failure.clone(),
                    attempts: check.failed_attempts,
                }),
                _ => {}
            }
        }

        if check.schedule != Schedule::External {
            let timing = &check.timing;
            let started = check.started;
            match decision.delay {
                Some(delay) => {
                    let (delay, from) = if decision.regular {
                        let delay = self.random.around(delay, timing.jitter);
                        (delay, timing.base)
                    } else {
                        (delay, IntervalBase::End)
                    };
                    let from = match from {
                        IntervalBase::End if !is_script => now,
                        _ => started,
                    };
                    self.arm(id, after(from, delay).max(now + MIN_DELAY));
                }
                None => self.begin(now, id),
            }
        }
        for (server, _) in users {
            self.announce(server);
        }
    }

    /// Says what the last outcome, or a change of checkers, means for a server.
    fn announce(&mut self, server: ServerId) {
        let adjustment = self.adjustment(server);
        let failed = self.failed_check(server).map(|(at, check)| {
            let failure = check.last_failure.clone();
            (at, failure.filter(|_| check.state.has_run))
        });
        let Some(owner) = self.servers.get_mut(&server) else {
            return;
        };
        if owner.suspended {
            return;
        }
        let news = match (failed, owner.announced) {
            (None, Announced::Nothing | Announced::Down) => {
                owner.announced = Announced::Up;
                Some(Event::ServerUp { server })
            }
            (Some((checker, Some(failure))), Announced::Nothing | Announced::Up) => {
                owner.announced = Announced::Down;
                Some(Event::ServerDown {
                    server,
                    checker,
                    failure,
                })
            }
            _ => None,
        };
        // A weight is stored before the server that it belongs to comes back.
        self.tell_adjustment(server, adjustment);
        self.events.extend(news);
    }
}

/// When the next attempt may begin (the generic cell rate algorithm, with room for a few milliseconds' worth at once).
#[derive(Debug, Default)]
struct Pace {
    /// Between two attempts; zero is no limit.
    interval: Duration,
    next: Option<Instant>,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / per_second.max(1),
            next: None,
        }
    }

    /// Whether an attempt must wait, and until when. What has waited goes.
    fn delay(&mut self, now: Instant, has_slot: &mut bool) -> Option<Instant> {
        if std::mem::take(has_slot) || self.interval.is_zero() {
            return None;
        }
        let next = self.next.map_or(now, |next| next.max(now));
        self.next = Some(next + self.interval);
        let slot = next.checked_sub(AT_ONCE).filter(|slot| *slot > now)?;
        *has_slot = true;
        Some(slot)
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
struct CheckId(u64);

#[derive(Debug)]
struct Server {
    checks: Vec<CheckId>,
    weight: u32,
    /// What was last said about the weight.
    adjustment: i64,
    suspended: bool,
    announced: Announced,
}

/// The last thing that was said about a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Announced {
    /// It began pessimistic and no checker has confirmed or refuted it.
    Nothing,
    Up,
    Down,
}

/// Between the start and the earliest first attempt.
const START_DELAY: Duration = Duration::from_secs(1);

/// Attempts that are due within so much time may begin together.
const AT_ONCE: Duration = Duration::from_millis(5);

/// A script that was asked to end and then killed is gone after this time, or nobody can tell.
const END_OF_SCRIPT: Duration = Duration::from_secs(15);
