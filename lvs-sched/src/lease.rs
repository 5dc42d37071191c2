//! A connection held by a caller.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::RealServer;
use crate::real_server::Class;

/// One active connection to a real server, counted until the lease is dropped.
#[derive(Debug)]
#[must_use = "the connection is counted only while the lease lives"]
pub struct Lease {
    server: Arc<RealServer>,
}

impl Lease {
    /// Takes over a connection that is already bound.
    pub(crate) fn new(server: Arc<RealServer>) -> Self {
        Self { server }
    }

    /// Where to connect to.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The server.
    pub fn server(&self) -> &Arc<RealServer> {
        &self.server
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.unbind(Class::Active);
    }
}
