//! A connection held by a caller.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::pick::Bound;
use crate::real_server::Class;
use crate::{Ended, RealServer};

/// One active connection to a real server, counted until the lease is dropped.
///
/// It borrows nothing: it may be kept, sent and dropped anywhere, also after its server or service
/// is gone.
#[derive(Debug)]
#[must_use = "the connection is counted only while the lease lives"]
pub struct Lease {
    server: Arc<RealServer>,
    generation: u32,
}

impl Lease {
    /// Takes over a connection that is already bound.
    pub(crate) fn new((server, generation): Bound) -> Self {
        Self { server, generation }
    }

    /// Where to connect to.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The server.
    pub fn server(&self) -> &Arc<RealServer> {
        &self.server
    }

    /// Whether a [`Drain`](crate::Drain) of the server forced the end of this connection: close it.
    pub fn is_ended(&self) -> bool {
        self.server.watch().generation() != self.generation
    }

    /// Resolves when [`is_ended`](Self::is_ended) becomes true. Works with any runtime.
    pub fn ended(&self) -> Ended<'_> {
        Ended::new(&self.server, self.generation)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.unbind(Class::Active);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_travel() {
        fn travels<T: Send + Sync + 'static>() {}
        travels::<Lease>();
        travels::<crate::VirtualService>();
        travels::<crate::Drain>();
    }
}
