//! One check: its conversation, its state, its place in time, and the servers that it speaks for.

use super::state::{Decision, State};
use super::{CheckerConfig, CheckerStatus, ConnectOptions, ProbeId, ServerId, Timing};
use crate::{Adjustment, Checker, Failure, Schedule};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Check {
    pub(super) checker: Box<dyn Checker>,
    pub(super) connect: ConnectOptions,
    pub(super) timing: Timing,
    pub(super) schedule: Schedule,
    pub(super) state: State,
    pub(super) phase: Phase,
    /// When `handle_timeout` has something to do here; it stands in the deadlines too.
    pub(super) due: Option<Instant>,
    /// Whether `due` is the place that it got because too many others were due with it.
    pub(super) has_slot: bool,
    /// When the last attempt began.
    pub(super) started: Instant,
    /// When it ended.
    pub(super) finished: Option<Instant>,
    /// Since when the checker is up or down.
    pub(super) since: Instant,
    pub(super) failed_attempts: u32,
    /// Attempts in a row that could not be made.
    pub(super) local_errors: u32,
    pub(super) last_failure: Option<Failure>,
    /// What came with the last outcome of an external checker.
    pub(super) reported: Adjustment,
    /// What is asked and where; `None` for a checker without an identity.
    pub(super) identity: Option<String>,
    /// Under which name others may join it.
    pub(super) shared_as: Option<String>,
    /// For whom, and as which of their checkers. Never empty.
    pub(super) users: Vec<(ServerId, usize)>,
}

#[derive(Debug)]
pub(super) enum Phase {
    Idle,
    Active {
        probe: ProbeId,
        stage: Stage,
        limit: Option<Instant>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Connecting,
    Connected,
    Running,
    /// The script was asked to end.
    Ending,
}

impl Check {
    pub(super) fn new(now: Instant, config: CheckerConfig, user: (ServerId, usize)) -> Self {
        let schedule = config.checker.schedule();
        let (identity, shared_as) = names(&config);
        Self {
            state: State::new(&config.timing, schedule),
            schedule,
            checker: config.checker,
            connect: config.connect,
            timing: config.timing,
            phase: Phase::Idle,
            due: None,
            has_slot: false,
            started: now,
            finished: None,
            since: now,
            failed_attempts: 0,
            local_errors: 0,
            last_failure: None,
            reported: Adjustment::None,
            identity,
            shared_as,
            users: vec![user],
        }
    }

    pub(super) fn stage(&self) -> Option<Stage> {
        match self.phase {
            Phase::Idle => None,
            Phase::Active { stage, .. } => Some(stage),
        }
    }

    /// What the checker adds to its servers' weights.
    pub(super) fn adjustment(&self) -> Adjustment {
        if !self.state.up {
            Adjustment::None
        } else if self.schedule == Schedule::External {
            self.reported
        } else {
            self.checker.adjustment()
        }
    }

    /// Counts a failed attempt.
    pub(super) fn fail(&mut self, failure: Failure) -> Decision {
        self.failed_attempts = self.failed_attempts.saturating_add(1);
        self.last_failure = Some(failure);
        self.state.fail(&self.timing, self.schedule)
    }

    /// Counts a successful one.
    pub(super) fn succeed(&mut self) -> Decision {
        self.failed_attempts = 0;
        self.last_failure = None;
        self.state.succeed(&self.timing, self.schedule)
    }

    pub(super) fn status(&self) -> CheckerStatus {
        CheckerStatus {
            name: self.checker.name(),
            destination: self.connect.destination,
            is_up: self.state.up,
            has_run: self.state.has_run,
            is_running: self.stage().is_some(),
            failed_attempts: self.failed_attempts,
            last_failure: self.last_failure.clone(),
            since: self.since,
            finished: self.finished,
            latency: self
                .finished
                .map(|finished| finished.saturating_duration_since(self.started))
                .filter(|_| self.stage().is_none()),
            due: self.due.filter(|_| self.stage().is_none()),
            servers: self.users.len(),
        }
    }
}

/// The names by which a check is known over a reload and to those who may share it.
pub(super) fn names(config: &CheckerConfig) -> (Option<String>, Option<String>) {
    let identity = config.checker.identity().map(|asked| {
        format!(
            "{} {asked} {:?} {:?}",
            config.checker.name(),
            config.connect,
            config.checker.schedule()
        )
    });
    let shared_as = identity
        .as_ref()
        .filter(|_| config.share)
        .map(|identity| format!("{identity} {:?}", config.timing));
    (identity, shared_as)
}

/// Never less than [`MIN_DELAY`] from now, and far away instead of out of range.
pub(super) fn after(now: Instant, delay: Duration) -> Instant {
    now + delay.clamp(MIN_DELAY, MAX_DELAY)
}

/// Whatever is configured, a deadline lies this far ahead, so that nothing spins.
pub(super) const MIN_DELAY: Duration = Duration::from_millis(1);

/// Ten years.
const MAX_DELAY: Duration = Duration::from_secs(10 * 365 * 86400);
