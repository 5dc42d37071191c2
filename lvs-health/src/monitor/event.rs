//! What the monitor asks for and what it tells.

use super::{ProbeId, ServerId};
use crate::{Failure, Note, Script, Transport};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;

/// What the program around the monitor must do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Open a connection and report [`Monitor::handle_connected`](super::Monitor::handle_connected).
    ///
    /// Make a new non-blocking socket of the destination's family; if `mark` is not 0 set SO_MARK; if `bind_interface`
    /// is given set SO_BINDTODEVICE; if `bind` is given bind to it (port 0: any); connect. An error before `connect()`
    /// is a [`ConnectError::setup`](crate::ConnectError::setup).
    Connect {
        /// What later calls and commands name.
        probe: ProbeId,
        /// What kind of connection.
        transport: Transport,
        /// Where to.
        destination: SocketAddr,
        /// Where from.
        bind: Option<SocketAddr>,
        /// Through which interface.
        bind_interface: Option<Arc<str>>,
        /// The firewall mark of the socket; 0 is none.
        mark: u32,
    },
    /// Start a program and report [`Monitor::handle_exit`](super::Monitor::handle_exit) when it has ended.
    Run {
        /// What later calls and commands name.
        probe: ProbeId,
        /// Which.
        script: Arc<Script>,
    },
    /// The program takes too long: send SIGTERM to its process group, and if it still lives after 2 s SIGKILL. Its end is
    /// reported as always.
    Terminate {
        /// Which program.
        probe: ProbeId,
    },
    /// Write all of this.
    Send {
        /// On this connection.
        probe: ProbeId,
        /// The bytes.
        data: Bytes,
    },
    /// Drop the socket, or end the program as for [`Terminate`](Self::Terminate); nothing more will be said about this
    /// probe.
    Close {
        /// Which connection or program.
        probe: ProbeId,
    },
}

/// What the program around the monitor may want to know. `checker` is the position in
/// [`ServerConfig::checkers`](super::ServerConfig::checkers).
///
/// Of one server, `ServerUp` and `ServerDown` alternate; a checker's event comes before the one of its server that it
/// causes. A shared checker's event comes once for every server.
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
    /// The sum of the checkers' adjustments changed: by how much the weight should differ from the configured one.
    Adjusted {
        /// Which server.
        server: ServerId,
        /// The difference; the weight that follows is cut off at 0 and 2^31-1.
        adjustment: i64,
    },
    /// An attempt of a checker that is still up failed. Only with
    /// [`Timing::log_all_failures`](super::Timing::log_all_failures).
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
