//! `TCP_CHECK`: the handshake is the check.

use crate::{Checker, Next, Outcome};

/// Up when the TCP handshake completes within the connect timeout. Nothing is sent; the connection is closed at once.
#[doc(alias = "TCP_CHECK")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpCheck;

impl Checker for TcpCheck {
    fn name(&self) -> &'static str {
        "TCP_CHECK"
    }

    fn identity(&self) -> Option<String> {
        Some(String::new())
    }

    fn handle_connected(&mut self) -> Next {
        Next::Done(Outcome::Up)
    }
}
