//! Outlier detection: what proxies see of a server in traffic.

use crate::{Checker, Failure, Next, Outcome, Schedule, Verdict};
use std::time::Duration;

/// Takes a server out for a while when so many things in a row went wrong that were
/// [reported](crate::Monitor::report) of it.
///
/// It runs beside active checks and does not know them: the server is up when all of them are. It comes back by itself
/// when its time is over; the next failures take it out again, each time for longer, until a success was reported.
#[doc(alias = "outlier_detection")]
#[derive(Debug, Clone)]
pub struct PassiveCheck {
    failures: u32,
    time_out: Duration,
    in_a_row: u32,
    /// How often it went out since the last success.
    times: u32,
}

impl PassiveCheck {
    /// After so many failures in a row (0 counts as 1) out for this time, twice it the second time in a row, at most ten
    /// times it.
    pub fn new(failures: u32, time_out: Duration) -> Self {
        Self {
            failures: failures.max(1),
            time_out,
            in_a_row: 0,
            times: 0,
        }
    }
}

impl Checker for PassiveCheck {
    fn name(&self) -> &'static str {
        "PASSIVE_CHECK"
    }

    fn identity(&self) -> Option<String> {
        Some(format!("{} {:?}", self.failures, self.time_out))
    }

    fn schedule(&self) -> Schedule {
        Schedule::External
    }

    fn handle_connected(&mut self) -> Next {
        Next::Wait
    }

    fn handle_report(&mut self, seen: &Outcome) -> Option<Verdict> {
        match seen {
            Outcome::Up => {
                // A late answer of the time before does not bring it back: its time does.
                (self.in_a_row, self.times) = (0, 0);
                None
            }
            Outcome::NotRun(_) => None,
            Outcome::Down(_) => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                if self.in_a_row < self.failures {
                    return None;
                }
                let count = std::mem::take(&mut self.in_a_row);
                self.times = (self.times + 1).min(10);
                Some(Verdict {
                    outcome: Outcome::Down(Failure::Passive(count)),
                    expires: Some(self.time_out.saturating_mul(self.times)),
                })
            }
        }
    }
}
