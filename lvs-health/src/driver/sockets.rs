//! The sockets of probes under way, and what they have to say.

use super::connection::{Connection, Target};
#[cfg(feature = "tls")]
use super::tls::Tls;
use crate::{ConnectError, ProbeId, ReadError};
use bytes::Bytes;
use rustix::event::epoll::{self, EventData, EventFlags};
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

/// Every probe under way has one connection, known by the probe's number in the events of the poll.
#[derive(Debug)]
pub(super) struct Sockets {
    open: BTreeMap<ProbeId, Entry>,
    buffer: Box<[u8]>,
    #[cfg(feature = "tls")]
    pub(super) tls: Tls,
}

#[derive(Debug)]
struct Entry {
    connection: Connection,
    stage: Stage,
    /// What the poll watches for; `None` while it does not watch.
    interest: Option<EventFlags>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Standing,
    /// Nothing more comes; it waits to be closed.
    Ended,
}

/// What a connection has to say.
#[derive(Debug)]
pub(super) enum Fact<'a> {
    Connected(Result<(), ConnectError>),
    Data(&'a [u8]),
    Closed(Result<(), ReadError>),
}

impl Sockets {
    #[cfg(not(feature = "tls"))]
    pub(super) fn new() -> Self {
        Self {
            open: BTreeMap::new(),
            buffer: vec![0; BUFFER].into(),
        }
    }

    #[cfg(feature = "tls")]
    pub(super) fn new(tls: Tls) -> Self {
        Self {
            open: BTreeMap::new(),
            buffer: vec![0; BUFFER].into(),
            tls,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Opens a connection. What it returns, if anything, is the end of that.
    pub(super) fn connect(
        &mut self,
        poll: BorrowedFd<'_>,
        probe: ProbeId,
        target: &Target,
    ) -> Option<Result<(), ConnectError>> {
        #[cfg(feature = "tls")]
        let opened = Connection::open(target, &self.tls);
        #[cfg(not(feature = "tls"))]
        let opened = Connection::open(target);
        let (connection, stands) = match opened {
            Ok(opened) => opened,
            Err(error) => return Some(Err(error)),
        };
        let mut entry = Entry {
            connection,
            stage: Stage::Connecting,
            interest: None,
        };
        let outcome = if stands {
            // Nothing to wait for: whether it is watched at all depends on what it is told next.
            entry.stage = Stage::Standing;
            Some(Ok(()))
        } else {
            match entry.watch(poll, probe) {
                Ok(()) => None,
                Err(error) => return Some(Err(ConnectError::setup(&error))),
            }
        };
        self.open.insert(probe, entry);
        outcome
    }

    /// Sends as much as is possible now, the rest later. What it returns, if anything, is how that failed.
    pub(super) fn send(
        &mut self,
        poll: BorrowedFd<'_>,
        probe: ProbeId,
        data: Bytes,
    ) -> Option<ReadError> {
        let entry = self.open.get_mut(&probe)?;
        if entry.stage != Stage::Standing {
            return None;
        }
        let outcome = entry
            .connection
            .send(data)
            .and_then(|()| entry.watch(poll, probe));
        outcome.err().map(|error| {
            entry.stage = Stage::Ended;
            ReadError::Write((&error).into())
        })
    }

    /// A connection that stands is to be listened to even if nothing is said on it.
    pub(super) fn listen(&mut self, poll: BorrowedFd<'_>, probe: ProbeId) -> Option<ReadError> {
        let entry = self.open.get_mut(&probe)?;
        let outcome = entry.watch(poll, probe);
        outcome.err().map(|error| ReadError::Read((&error).into()))
    }

    pub(super) fn close(&mut self, probe: ProbeId) {
        if let Some(mut entry) = self.open.remove(&probe) {
            entry.connection.finish();
        }
    }

    /// Something happened at a connection: one fact of it, if there is one. More follow at the next poll.
    pub(super) fn handle_ready(
        &mut self,
        poll: BorrowedFd<'_>,
        probe: ProbeId,
        flags: EventFlags,
    ) -> Option<Fact<'_>> {
        let entry = self.open.get_mut(&probe)?;
        match entry.stage {
            Stage::Ended => None,
            Stage::Connecting => {
                let result = entry.connection.finish_connect(flags)?;
                entry.stage = match result {
                    Ok(()) => Stage::Standing,
                    Err(_) => Stage::Ended,
                };
                Some(Fact::Connected(result))
            }
            Stage::Standing => {
                if let Err(error) = entry.connection.flush() {
                    return Some(entry.end(Err(ReadError::Write((&error).into()))));
                }
                match entry.connection.receive(&mut self.buffer) {
                    Ok(Some(0)) if !entry.connection.is_datagram() => Some(entry.end(Ok(()))),
                    Ok(Some(length)) => Some(Fact::Data(&self.buffer[..length])),
                    Err(error) => Some(entry.end(Err(error))),
                    Ok(None) => {
                        let outcome = entry.watch(poll, probe);
                        outcome
                            .err()
                            .map(|error| entry.end(Err(ReadError::Read((&error).into()))))
                    }
                }
            }
        }
    }

    /// Whether there is another fact that the poll does not know of.
    pub(super) fn has_more(&self, probe: ProbeId) -> bool {
        let entry = self.open.get(&probe);
        entry.is_some_and(|entry| entry.stage == Stage::Standing && entry.connection.has_more())
    }

    /// After a fact: watches for what is wanted next. Nothing if the connection is closed by now.
    pub(super) fn rearm(&mut self, poll: BorrowedFd<'_>, probe: ProbeId) {
        if let Some(entry) = self.open.get_mut(&probe) {
            // It was watched before, so a failure here leaves it watched as it was, and its timeout ends it.
            let _ = entry.watch(poll, probe);
        }
    }
}

impl Entry {
    fn end(&mut self, result: Result<(), ReadError>) -> Fact<'static> {
        self.stage = Stage::Ended;
        Fact::Closed(result)
    }

    fn watch(&mut self, poll: BorrowedFd<'_>, probe: ProbeId) -> std::io::Result<()> {
        let wanted = match self.stage {
            Stage::Ended => EventFlags::empty(),
            Stage::Connecting => self.connection.wants_to_connect(),
            Stage::Standing if self.connection.wants_to_send() => EventFlags::IN | EventFlags::OUT,
            Stage::Standing => EventFlags::IN,
        };
        if self.interest == Some(wanted) {
            return Ok(());
        }
        let data = EventData::new_u64(probe.as_u64());
        match (self.interest, wanted.is_empty()) {
            (None, true) => {}
            (None, false) => epoll::add(poll, &self.connection, data, wanted)?,
            // What nobody listens to would still wake the poll with its end.
            (Some(_), true) => epoll::delete(poll, &self.connection)?,
            (Some(_), false) => epoll::modify(poll, &self.connection, data, wanted)?,
        }
        self.interest = (!wanted.is_empty()).then_some(wanted);
        Ok(())
    }
}

const BUFFER: usize = 64 * 1024;
