//! `BFD_CHECK`: a BFD session says whether the server is there.

use crate::{Checker, Failure, Next, Outcome, Schedule};

/// Follows a BFD session (RFC 5880) which runs elsewhere.
///
/// Whoever runs the session hands every change to [`Monitor::handle_outcome`](crate::Monitor::handle_outcome).
#[doc(alias = "BFD_CHECK")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BfdCheck {
    session: String,
}

impl BfdCheck {
    /// Follows the session of this name.
    pub fn new(session: impl Into<String>) -> Self {
        Self {
            session: session.into(),
        }
    }

    /// The name of the session.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// What a session's being up or down means.
    pub fn judge(is_up: bool) -> Outcome {
        match is_up {
            true => Outcome::Up,
            false => Outcome::Down(Failure::BfdDown),
        }
    }
}

impl Checker for BfdCheck {
    fn name(&self) -> &'static str {
        "BFD_CHECK"
    }

    fn identity(&self) -> Option<String> {
        Some(self.session.clone())
    }

    fn schedule(&self) -> Schedule {
        Schedule::External
    }

    fn handle_connected(&mut self) -> Next {
        Next::Wait
    }
}
