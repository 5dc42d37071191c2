//! The plug point: what a checker says and hears during one attempt.

use crate::{Exit, Failure, ReadError, Script, Transport};
use bytes::Bytes;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// One kind of health check: the conversation of one attempt as a state machine.
///
/// The [`Monitor`](crate::Monitor) owns schedule, retries, timeouts and state; a checker owns only what is said on the
/// connection. An attempt is one call of [`begin`](Self::begin), then one of
/// [`handle_connected`](Self::handle_connected), and so on until an answer is [`Next::Done`]. Attempts of one checker
/// never overlap, so the conversation may live in `self`; `begin` makes it new. An attempt can be abandoned at any
/// point without a further call.
pub trait Checker: fmt::Debug + Send {
    /// A short name of the kind, for events and status: `TCP_CHECK`.
    fn name(&self) -> &'static str;

    /// The connection stands. What is said first, or the verdict. Never called for scripts and external checkers.
    fn handle_connected(&mut self) -> Next;

    /// What is asked, in a text that is equal for checkers that ask the same; where it is asked need not be part of it.
    /// A checker with an identity keeps its state over a change of configuration and can be shared between servers, see
    /// [`CheckerConfig::share`](crate::CheckerConfig::share).
    fn identity(&self) -> Option<String> {
        None
    }

    /// How successes and failures become a state. The answer must not change during the checker's life.
    fn schedule(&self) -> Schedule {
        Schedule::Single
    }

    /// A new attempt begins. What the checker needs to be opened.
    fn begin(&mut self, attempt: &Attempt) -> Start {
        let _ = attempt;
        Start::default()
    }

    /// The server said something; `data` is not empty unless it is a datagram. The timeout of the step begins anew with
    /// the answer, unless that is [`Next::Ignore`].
    fn handle_data(&mut self, data: &[u8]) -> Next {
        let _ = data;
        Next::Wait
    }

    /// The server ended its stream in good order.
    fn handle_closed(&mut self) -> Outcome {
        Outcome::Down(Failure::ConnectionClosed)
    }

    /// The connection broke, or an ICMP error came for a datagram.
    fn handle_error(&mut self, error: ReadError) -> Outcome {
        Outcome::Down(error.into())
    }

    /// The script ended. One that was stopped because it took too long counts as [`Failure::ScriptTimeout`] without this
    /// call, unless it ended by itself with a status.
    fn handle_exit(&mut self, exit: Exit) -> Outcome {
        match exit {
            Exit::Code(0) => Outcome::Up,
            Exit::Code(code) => Outcome::Down(Failure::ScriptExit(code)),
            Exit::Signal(signal) => Outcome::Down(Failure::ScriptSignal(signal)),
            Exit::NotStarted(error) => Outcome::Down(Failure::ScriptSpawn(error)),
        }
    }

    /// Of an external checker: somebody saw this of the server in traffic. A verdict that follows, if one does; see
    /// [`Monitor::report`](crate::Monitor::report).
    fn handle_report(&mut self, seen: &Outcome) -> Option<Verdict> {
        let _ = seen;
        None
    }

    /// How the weight should differ from the configured one, asked after every outcome; a checker that is down counts as
    /// [`Adjustment::None`].
    fn adjustment(&self) -> Adjustment {
        Adjustment::None
    }

    /// The server was silent for the timeout of one step after the connection stood.
    fn handle_timeout(&mut self) -> Outcome {
        Outcome::Down(Failure::ReadTimeout)
    }

    /// Something worth knowing that did not decide the verdict. Asked after every attempt until `None`.
    fn poll_note(&mut self) -> Option<Note> {
        None
    }
}

/// The verdict of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The server works.
    Up,
    /// It does not.
    Down(Failure),
    /// The check could not be run for a reason that says nothing about the server.
    NotRun(Failure),
}

/// What follows from what was seen in traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How the server is.
    pub outcome: Outcome,
    /// How long that holds; then it counts as up. `None`: until the next verdict.
    pub expires: Option<Duration>,
}

/// What a checker wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// Wait for (more) data.
    Wait,
    /// What came was not meant for this check: wait on, until the timeout that runs already.
    Ignore,
    /// Send this, then wait for data.
    Send(Bytes),
    /// The attempt is over.
    Done(Outcome),
}

/// What an attempt begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// A connection to the destination.
    Connect(Transport),
    /// A program; what ends it is [`Checker::handle_exit`].
    Run(Arc<Script>),
}

impl Default for Start {
    /// A TCP connection.
    fn default() -> Self {
        Self::Connect(Transport::Tcp)
    }
}

/// How a checker wants its server's weight to differ from the configured one. Those of all checkers are added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Adjustment {
    /// Not at all.
    #[default]
    None,
    /// This weight in place of the configured one (`misc_dynamic`).
    To(u32),
    /// So much more or less (`FILE_CHECK`).
    By(i32),
}

impl Adjustment {
    /// The difference to the configured weight.
    pub fn delta(self, weight: u32) -> i64 {
        match self {
            Self::None => 0,
            Self::To(wanted) => i64::from(wanted) - i64::from(weight),
            Self::By(delta) => i64::from(delta),
        }
    }
}

/// What a checker may want to know when an attempt begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// Where the connection goes.
    pub destination: SocketAddr,
    /// Which part of a [`Schedule::Walk`] is asked for, from 0; always 0 for [`Schedule::Single`].
    pub part: usize,
    /// A number drawn for this attempt, for ids that a stranger should not guess. Not for secrets.
    pub random: u64,
}

impl Attempt {
    /// For tests of checkers: what the monitor passes for this destination and part, with a random number of 0.
    pub fn new(destination: SocketAddr, part: usize) -> Self {
        Self {
            destination,
            part,
            random: 0,
        }
    }

    /// The same with this random number.
    pub fn with_random(self, random: u64) -> Self {
        Self { random, ..self }
    }
}

/// How the outcomes of attempts become the checker's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Schedule {
    /// Every attempt asks the same: one success is up, `retry + 1` failures in a row are down. The very first failure is
    /// final, and there are no retries while down.
    Single,
    /// As `Single`, but a failure always takes the whole cycle of `retry + 1` attempts, the first one and while down
    /// too (`SMTP_CHECK`).
    Cycle,
    /// There are no attempts: outcomes come from outside, see
    /// [`Monitor::handle_outcome`](crate::Monitor::handle_outcome), and each counts at once (`FILE_CHECK`, `BFD_CHECK`).
    External,
    /// Several parts, one per attempt, in order (the urls of `HTTP_GET`). A retry repeats the part that failed. While
    /// down only the part that failed is asked; once it passes, all parts must pass in order.
    Walk {
        /// How many parts there are; 0 counts as 1.
        parts: usize,
        /// At start and during recovery the next part follows a success at once and not after `delay_loop`.
        fast_recovery: bool,
    },
}

/// Something noticed that did not decide the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// An HTTP body is not as long as its Content-Length says. Noted once for each different pair.
    BodyLength {
        /// The index of the url.
        url: usize,
        /// Bytes according to the header.
        announced: u64,
        /// Bytes that came.
        received: u64,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BodyLength {
                url,
                announced,
                received,
            } => write!(
                f,
                "body of url {url} has {received} bytes, its content-length says {announced}"
            ),
        }
    }
}
