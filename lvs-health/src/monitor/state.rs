//! From outcomes of attempts to the state of a checker: retries, first runs, the recovery walk.

use super::Timing;
use crate::Schedule;
use std::time::Duration;

/// What a checker has learned so far.
#[derive(Debug)]
pub(super) struct State {
    pub(super) up: bool,
    /// An attempt has decided something; before that, the first failure is final.
    pub(super) has_run: bool,
    /// Which part of a walk comes next.
    pub(super) part: usize,
    tries: u64,
    failed_part: Option<usize>,
}

/// What follows from one outcome.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// The state to report, if there is something to report.
    pub(super) report: Option<bool>,
    /// When the next attempt begins; `None` means at once.
    pub(super) delay: Option<Duration>,
}

impl State {
    pub(super) fn new(timing: &Timing) -> Self {
        Self {
            up: !timing.alpha,
            has_run: false,
            part: 0,
            tries: u64::from(timing.retry),
            failed_part: None,
        }
    }

    pub(super) fn succeed(&mut self, timing: &Timing, schedule: Schedule) -> Decision {
        self.tries = 0;
        let Schedule::Walk {
            parts,
            fast_recovery,
        } = schedule
        else {
            let report = self.report_up();
            return Decision {
                report,
                delay: Some(timing.delay_loop),
            };
        };
        let mut report = None;
        self.part += 1;
        if self.failed_part.take().is_some() {
            self.part = 0;
        } else if self.part >= parts {
            report = self.report_up();
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
        }
    }

    pub(super) fn fail(&mut self, timing: &Timing, schedule: Schedule) -> Decision {
        let retry = u64::from(timing.retry);
        let was_up = self.up;
        let undecided = was_up || !self.has_run;
        self.has_run = true;
        match schedule {
            Schedule::Single => {
                if undecided && self.tries >= retry {
                    self.tries = 0;
                    self.up = false;
                    return Decision {
                        report: Some(false),
                        delay: Some(timing.delay_loop),
                    };
                }
                if was_up {
                    self.tries += 1;
                }
                Decision {
                    report: None,
                    delay: Some(if was_up {
                        timing.delay_before_retry
                    } else {
                        timing.delay_loop
                    }),
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
                Decision {
                    report,
                    delay: Some(delay),
                }
            }
        }
    }

    fn report_up(&mut self) -> Option<bool> {
        let news = !self.up || !self.has_run;
        self.up = true;
        self.has_run = true;
        news.then_some(true)
    }
}

/// Retries of a part that fails during recovery are not limited in number, so they are limited in rate.
const MIN_WALK_RETRY: Duration = Duration::from_millis(100);
