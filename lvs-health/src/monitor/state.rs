//! From outcomes of attempts to the state of a checker: retries, first runs, the recovery walk.

use super::Timing;
use crate::Schedule;
use std::time::Duration;

/// What a checker has learned so far.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) up: bool,
    /// An attempt has decided something; before that, the first failure is final.
    pub(super) has_run: bool,
    /// Which part of a walk comes next.
    pub(super) part: usize,
    tries: u64,
    /// Successes in a row while down; a whole walk counts as one.
    rises: u32,
    failed_part: Option<usize>,
}

/// What follows from one outcome.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// The state to report, if there is something to report.
    pub(super) report: Option<bool>,
    /// When the next attempt begins; `None` means at once.
    pub(super) delay: Option<Duration>,
    /// Whether the delay is the regular interval, which has jitter and a base, and not the wait before a retry.
    pub(super) regular: bool,
}

impl State {
    pub(super) fn new(timing: &Timing, schedule: Schedule) -> Self {
        Self {
            up: !timing.alpha,
            has_run: false,
            part: 0,
            tries: match schedule {
                Schedule::Cycle => 0,
                _ => u64::from(timing.retry),
            },
            rises: 0,
            failed_part: None,
        }
    }

    /// Goes on with another timing after a change of configuration.
    pub(super) fn retime(&mut self, timing: &Timing, schedule: Schedule) {
        self.tries = if self.up || schedule == Schedule::Cycle {
            self.tries.min(u64::from(timing.retry))
        } else {
            u64::from(timing.retry)
        };
    }

    pub(super) fn succeed(&mut self, timing: &Timing, schedule: Schedule) -> Decision {
        self.tries = 0;
        let Schedule::Walk {
            parts,
            fast_recovery,
        } = schedule
        else {
            return Decision {
                report: self.report_up(timing),
                delay: Some(timing.delay_loop),
                regular: true,
            };
        };
        let mut report = None;
        self.part += 1;
        if self.failed_part.take().is_some() {
            self.part = 0;
        } else if self.part >= parts {
            report = self.report_up(timing);
            self.part = 0;
        }
        if !self.has_run {
            self.tries = u64::from(timing.retry);
        }
        // Here no part is known to fail: the rest of a start or of a recovery may follow at once.
        let at_once = fast_recovery && !(self.has_run && self.up);
        Decision {
            report,
            delay: (!at_once).then_some(timing.delay_loop),
            regular: true,
        }
    }

    pub(super) fn fail(&mut self, timing: &Timing, schedule: Schedule) -> Decision {
        let retry = u64::from(timing.retry);
        let was_up = self.up;
        let undecided = was_up || !self.has_run;
        self.rises = 0;
        if schedule == Schedule::Cycle && self.in_cycle(retry) {
            return Decision {
                report: None,
                delay: Some(timing.delay_before_retry),
                regular: false,
            };
        }
        self.has_run = true;
        let later = |report, delay| Decision {
            report,
            delay: Some(delay),
            regular: delay == timing.delay_loop,
        };
        match schedule {
            Schedule::External | Schedule::Cycle => {
                self.up = false;
                later(undecided.then_some(false), timing.delay_loop)
            }
            Schedule::Single => {
                if undecided && self.tries >= retry {
                    self.tries = 0;
                    self.up = false;
                    later(Some(false), timing.delay_loop)
                } else if was_up {
                    self.tries += 1;
                    later(None, timing.delay_before_retry)
                } else {
                    later(None, timing.delay_loop)
                }
            }
            Schedule::Walk { .. } => {
                let mut report = None;
                if undecided {
                    self.tries += 1;
                    if self.tries > retry {
                        self.up = false;
                        self.failed_part = Some(self.part);
                        report = Some(false);
                    }
                }
                let delay = if self.failed_part.is_some() {
                    timing.delay_before_retry.max(timing.delay_loop)
                } else if self.up {
                    timing.delay_before_retry
                } else {
                    timing.delay_before_retry.max(MIN_WALK_RETRY)
                };
                later(report, delay)
            }
        }
    }

    /// Counts a failed attempt; whether the cycle goes on.
    fn in_cycle(&mut self, retry: u64) -> bool {
        self.tries += 1;
        if self.tries <= retry {
            return true;
        }
        self.tries = 0;
        false
    }

    fn report_up(&mut self, timing: &Timing) -> Option<bool> {
        if !self.up {
            self.rises += 1;
            if self.rises < timing.rise {
                self.has_run = true;
                return None;
            }
        }
        let news = !self.up || !self.has_run;
        self.rises = 0;
        self.up = true;
        self.has_run = true;
        news.then_some(true)
    }
}

/// Retries of a part that fails during recovery are not limited in number, so they are limited in rate.
const MIN_WALK_RETRY: Duration = Duration::from_millis(100);
