//! What connection synchronisation needs: what changes here, and connections made elsewhere.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::{ConnectionInfo, ForwardMethod, State};

/// A change of the connection table, see [`Worker::watch`](crate::Worker::watch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// It began, and took its first packet.
    Created(ConnectionInfo),
    /// Its state changed, or its client's port became known.
    Changed(ConnectionInfo),
    /// It ended.
    Ended(ConnectionInfo),
}

/// A bounded queue of events; what does not fit is counted.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    capacity: usize,
    events: VecDeque<ConnectionEvent>,
    lost: u64,
}

impl Feed {
    pub(crate) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.events.truncate(capacity);
        self.events.shrink_to(capacity);
    }

    pub(crate) fn is_on(&self) -> bool {
        self.capacity > 0
    }

    pub(crate) fn push(&mut self, event: ConnectionEvent) {
        if self.events.len() < self.capacity {
            self.events.push_back(event);
        } else {
            self.lost += 1;
        }
    }

    pub(crate) fn pop(&mut self) -> Option<ConnectionEvent> {
        self.events.pop_front()
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }
}

/// A connection that another director told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportedConnection {
    /// The client.
    pub client: SocketAddr,
    /// What the client talks to.
    pub virtual_addr: SocketAddr,
    /// The real server's address and port.
    pub destination: SocketAddr,
    /// Forwarding method; that of the same server here comes first.
    pub method: ForwardMethod,
    /// Protocol and state.
    pub state: State,
    /// Packets from the client so far.
    pub packets: u32,
    /// When it ends if nothing more is heard.
    pub remaining: Duration,
    /// Firewall mark by which its service is found, 0 for none.
    pub mark: u32,
    /// FULLNAT: the director's side of the connection to the server. Without it a free port is taken, and the server
    /// sees a new peer.
    pub local: Option<SocketAddr>,
}

/// Why a connection was not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImportError {
    /// Its addresses are of different families.
    Family,
    /// The table is at its configured limit.
    TableFull,
    /// There is one with other addresses, and the new one is over already.
    Inactive,
    /// FULLNAT: the service does not have the local address, its port is in use or another worker's, or none is free.
    LocalPort,
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Family => "addresses of different families",
            Self::TableFull => "connection table is full",
            Self::LocalPort => "local address or port is not to be had",
            Self::Inactive => "an inactive connection does not replace another one",
        })
    }
}

impl std::error::Error for ImportError {}
