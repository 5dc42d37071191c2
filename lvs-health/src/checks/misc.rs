//! `MISC_CHECK`: a program says how the server is.

use crate::{Adjustment, Attempt, Checker, Exit, Failure, Next, Outcome, Script, Start, Timing};
use std::sync::Arc;

/// Runs a program for every attempt; status 0 is up.
///
/// If `dynamic`, status 1 is down and 2 to 255 are up with that weight less 2. A program that cannot be started is down
/// and says why; one that takes longer than [`Timing::attempt_timeout`] (or else `delay_loop`) is stopped.
#[doc(alias = "MISC_CHECK")]
#[doc(alias = "misc_dynamic")]
#[derive(Debug, Clone)]
pub struct MiscCheck {
    script: Arc<Script>,
    dynamic: bool,
    adjustment: Adjustment,
}

impl MiscCheck {
    /// Runs this; `dynamic` lets its status set the weight.
    pub fn new(script: Script, dynamic: bool) -> Self {
        Self {
            script: Arc::new(script),
            dynamic,
            adjustment: Adjustment::None,
        }
    }

    /// The timing that keepalived gives this kind by default: no retry.
    pub fn default_timing() -> Timing {
        Timing {
            retry: 0,
            ..Timing::default()
        }
    }
}

impl Checker for MiscCheck {
    fn name(&self) -> &'static str {
        "MISC_CHECK"
    }

    fn identity(&self) -> Option<String> {
        Some(format!("{:?} {}", self.script, self.dynamic))
    }

    fn begin(&mut self, _: &Attempt) -> Start {
        Start::Run(Arc::clone(&self.script))
    }

    fn handle_connected(&mut self) -> Next {
        Next::Wait
    }

    fn handle_exit(&mut self, exit: Exit) -> Outcome {
        let outcome = match exit {
            Exit::Code(0) => Outcome::Up,
            Exit::Code(code) if self.dynamic && code > 1 => {
                self.adjustment = Adjustment::To(u32::from(code) - 2);
                return Outcome::Up;
            }
            Exit::Code(code) => Outcome::Down(Failure::ScriptExit(code)),
            Exit::Signal(signal) => Outcome::Down(Failure::ScriptSignal(signal)),
            Exit::NotStarted(error) => Outcome::Down(Failure::ScriptSpawn(error)),
        };
        if outcome == Outcome::Up {
            self.adjustment = Adjustment::None;
        }
        outcome
    }

    fn adjustment(&self) -> Adjustment {
        self.adjustment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dynamic: bool) -> MiscCheck {
        let script = Script {
            program: "/usr/local/bin/look".into(),
            arguments: Vec::new(),
            user: None,
        };
        MiscCheck::new(script, dynamic)
    }

    /// The weight that follows from these checkers' last statuses; `None` is down.
    fn weight(codes: &[u8], weight: u32) -> Option<i64> {
        let mut sum = i64::from(weight);
        for code in codes {
            let mut check = check(true);
            if check.handle_exit(Exit::Code(*code)) != Outcome::Up {
                return None;
            }
            sum += check.adjustment().delta(weight);
        }
        Some(sum.clamp(0, i64::from(i32::MAX)))
    }

    #[test]
    fn status_becomes_weight() {
        let weights = [0, 1, 5, 10, 100, 253, 300];
        let same = |weight: i64| [Some(weight); 7];
        let table = [
            (0, weights.map(|weight| Some(i64::from(weight)))),
            (1, [None; 7]),
            (2, same(0)),
            (3, same(1)),
            (12, same(10)),
            (52, same(50)),
            (102, same(100)),
            (254, same(252)),
            (255, same(253)),
        ];
        for (code, wanted) in table {
            assert_eq!(weights.map(|w| weight(&[code], w)), wanted, "status {code}");
        }
    }

    #[test]
    fn several_checkers_add_up() {
        let table = [
            ([0, 0], Some(10)),
            ([20, 0], Some(18)),
            ([20, 30], Some(36)),
            ([255, 30], Some(271)),
            ([1, 30], None),
            ([12, 30], Some(28)),
            ([12, 0], Some(10)),
            ([2, 0], Some(0)),
            ([2, 2], Some(0)),
            ([5, 5], Some(0)),
            ([255, 255], Some(496)),
        ];
        for (codes, wanted) in table {
            assert_eq!(weight(&codes, 10), wanted, "{codes:?}");
        }
    }

    #[test]
    fn without_dynamic_only_0_is_up() {
        let mut check = check(false);
        assert_eq!(check.handle_exit(Exit::Code(0)), Outcome::Up);
        let down = |failure| Outcome::Down(failure);
        assert_eq!(
            check.handle_exit(Exit::Code(2)),
            down(Failure::ScriptExit(2))
        );
        assert_eq!(
            check.handle_exit(Exit::Signal(9)),
            down(Failure::ScriptSignal(9))
        );
        let error = crate::SystemError::from(&std::io::Error::from_raw_os_error(2));
        assert_eq!(
            check.handle_exit(Exit::NotStarted(error)),
            down(Failure::ScriptSpawn(error))
        );
        assert_eq!(check.adjustment(), Adjustment::None);
    }
}
