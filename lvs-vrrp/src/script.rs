//! Check scripts: when they run, when they run too long, and how many results make a change.

use crate::track::Condition;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A script whose exit status is watched (keepalived's `vrrp_script`). What to run is the shell's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptConfig {
    /// Name.
    pub name: Arc<str>,
    /// From start to start. At least 1 ms.
    pub interval: Duration,
    /// How long a run may take.
    pub timeout: Duration,
    /// Successes in a row that make it good, at least 1.
    pub rise: u32,
    /// Failures in a row that make it bad, at least 1.
    pub fall: u32,
    /// It is bad until it has proven itself.
    pub init_fail: bool,
    /// So many time-outs in a row say nothing: a busy machine is no broken one. Default: none.
    pub tolerated_timeouts: u32,
}

impl ScriptConfig {
    /// Once a second, one result decides.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 1,
            fall: 1,
            init_fail: false,
            tolerated_timeouts: 0,
        }
    }
}

/// What a shell must do about a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptCommand {
    /// Run it in a process group of its own, and report its end.
    Run,
    /// SIGTERM to the group: it takes too long.
    Terminate,
    /// SIGKILL to the group.
    Kill,
}

#[derive(Debug)]
pub(crate) struct Script {
    config: ScriptConfig,
    /// Up while at least `rise`; at most `rise + fall - 1`.
    score: u32,
    known: Option<bool>,
    timeouts: u32,
    next_run: Instant,
    run: Option<Run>,
}

#[derive(Debug)]
struct Run {
    /// When the next step against it is due.
    due: Instant,
    /// Signals so far.
    signals: u32,
}

impl Script {
    pub(crate) fn new(now: Instant, config: ScriptConfig) -> Self {
        let (score, known) = if config.init_fail {
            (0, Some(false))
        } else {
            (config.rise.max(1) - 1, None)
        };
        Self {
            config,
            score,
            known,
            timeouts: 0,
            next_run: now,
            run: None,
        }
    }

    /// Another definition under the same name: it proves itself anew, but counts as it did meanwhile.
    pub(crate) fn reconfigure(&mut self, now: Instant, config: ScriptConfig) {
        if self.config == config {
            return;
        }
        let known = self.known;
        let run = self.run.take();
        *self = Self::new(now, config);
        self.known = known.or(self.known);
        if self.known == Some(true) {
            self.score = self.config.rise.max(1);
        }
        self.run = run;
    }

    pub(crate) fn condition(&self) -> Condition {
        self.known.map_or(Condition::Unknown, Condition::Is)
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        match &self.run {
            Some(run) => run.due.min(self.next_run),
            None => self.next_run,
        }
    }

    /// What is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<ScriptCommand> {
        if let Some(run) = &mut self.run
            && run.due <= now
        {
            run.signals += 1;
            let (wait, command) = match run.signals {
                1 => (AFTER_TERMINATE, ScriptCommand::Terminate),
                2 => (AFTER_TERMINATE, ScriptCommand::Kill),
                _ => (AFTER_KILL, ScriptCommand::Kill),
            };
            run.due = now + wait;
            return Some(command);
        }
        if self.next_run > now {
            return None;
        }
        let interval = self.config.interval.max(Duration::from_millis(1));
        let next = self.next_run + interval;
        self.next_run = if next > now { next } else { now + interval };
        if self.run.is_some() {
            return None;
        }
        self.run = Some(Run {
            due: now + self.config.timeout,
            signals: 0,
        });
        Some(ScriptCommand::Run)
    }

    /// It ended. A run that had to be stopped has failed, whatever it says.
    pub(crate) fn handle_exit(&mut self, success: bool) {
        let stopped = self.run.take().is_some_and(|run| run.signals > 0);
        if stopped && self.timeouts < self.config.tolerated_timeouts {
            self.timeouts += 1;
            return;
        }
        if !stopped {
            self.timeouts = 0;
        }
        let (rise, fall) = (self.config.rise.max(1), self.config.fall.max(1));
        if success && !stopped {
            if self.score + 1 < rise {
                self.score += 1;
            } else {
                self.score = rise.saturating_add(fall) - 1;
                self.known = Some(true);
            }
        } else if self.score > rise {
            self.score -= 1;
        } else {
            self.score = 0;
            self.known = Some(false);
        }
    }
}

/// From SIGTERM to SIGKILL, and to the next.
const AFTER_TERMINATE: Duration = Duration::from_secs(2);
/// Between further SIGKILLs.
const AFTER_KILL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn script(rise: u32, fall: u32) -> (Script, Instant) {
        let now = Instant::now();
        let config = ScriptConfig {
            rise,
            fall,
            ..ScriptConfig::new("chk")
        };
        (Script::new(now, config), now)
    }

    fn results(script: &mut Script, results: &[bool]) -> Vec<Option<bool>> {
        results
            .iter()
            .map(|result| {
                script.handle_exit(*result);
                script.known
            })
            .collect()
    }

    #[test]
    fn rise_and_fall_count_results_in_a_row() {
        let (mut chk, _) = script(2, 2);
        assert_eq!(
            results(&mut chk, &[true]),
            [Some(true)],
            "one success is enough at first"
        );
        assert_eq!(
            results(&mut chk, &[false, true, false, false]),
            [Some(true), Some(true), Some(true), Some(false)]
        );
        assert_eq!(
            results(&mut chk, &[true, false, true, true]),
            [Some(false), Some(false), Some(false), Some(true)]
        );
        let (mut chk, _) = script(3, 3);
        assert_eq!(
            results(&mut chk, &[false]),
            [Some(false)],
            "and one failure"
        );
    }

    #[test]
    fn it_runs_every_interval_unless_it_still_runs_and_is_stopped_when_it_takes_too_long() {
        let (mut chk, start) = script(1, 1);
        let mut steps = Vec::new();
        for _ in 0..8 {
            let now = chk.poll_timeout();
            if let Some(command) = chk.handle_timeout(now) {
                steps.push(((now - start).as_secs(), command));
            }
        }
        assert_eq!(
            steps,
            [
                (0, ScriptCommand::Run),
                (1, ScriptCommand::Terminate),
                (3, ScriptCommand::Kill),
                (5, ScriptCommand::Kill),
            ]
        );
        chk.handle_exit(true);
        assert_eq!(chk.known, Some(false), "too late is too late");
    }

    #[test]
    fn tolerated_timeouts_say_nothing() {
        let now = Instant::now();
        let config = ScriptConfig {
            tolerated_timeouts: 1,
            ..ScriptConfig::new("chk")
        };
        let mut chk = Script::new(now, config);
        chk.handle_exit(true);
        for known in [Some(true), Some(false)] {
            chk.run = Some(Run {
                due: now,
                signals: 1,
            });
            chk.handle_exit(false);
            assert_eq!(chk.known, known);
        }
    }

    #[test]
    fn another_definition_keeps_the_result_until_it_has_one_of_its_own() {
        let (mut chk, now) = script(1, 3);
        chk.handle_exit(true);
        chk.reconfigure(now, ScriptConfig::new("chk"));
        assert_eq!(chk.known, Some(true));
        chk.handle_exit(false);
        assert_eq!(chk.known, Some(false));
    }
}
