//! The plug point: what a checker says and hears during one attempt.

use crate::Failure;
use bytes::Bytes;
use std::fmt;
use std::net::SocketAddr;

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

    /// The connection stands. What is said first, or the verdict.
    fn handle_connected(&mut self) -> Next;

    /// How successes and failures become a state. The answer must not change during the checker's life.
    fn schedule(&self) -> Schedule {
        Schedule::Single
    }

    /// A new attempt begins. What the checker needs to be opened.
    fn begin(&mut self, attempt: &Attempt) -> Start {
        let _ = attempt;
        Start::Connect
    }

    /// The server said something; `data` is not empty. The timeout of the step begins anew with the answer.
    fn handle_data(&mut self, data: &[u8]) -> Next {
        let _ = data;
        Next::Wait
    }

    /// The server ended its stream in good order.
    fn handle_closed(&mut self) -> Outcome {
        Outcome::Down(Failure::ConnectionClosed)
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

/// What a checker wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// Wait for (more) data.
    Wait,
    /// Send this, then wait for data.
    Send(Bytes),
    /// The attempt is over.
    Done(Outcome),
}

/// What an attempt begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// A TCP connection to the destination.
    Connect,
}

/// What a checker may want to know when an attempt begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// Where the connection goes.
    pub destination: SocketAddr,
    /// Which part of a [`Schedule::Walk`] is asked for, from 0; always 0 for [`Schedule::Single`].
    pub part: usize,
}

impl Attempt {
    /// For tests of checkers: what the monitor passes for this destination and part.
    pub fn new(destination: SocketAddr, part: usize) -> Self {
        Self { destination, part }
    }
}

/// How the outcomes of attempts become the checker's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Schedule {
    /// Every attempt asks the same: one success is up, `retry + 1` failures in a row are down.
    Single,
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
