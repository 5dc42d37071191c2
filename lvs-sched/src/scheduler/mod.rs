//! Schedulers: which real server gets a new connection.
//!
//! Each built-in is one file and one [`Scheduler`]. A program's own scheduler implements the same
//! trait and goes into [`VirtualService::with_scheduler`](crate::VirtualService::with_scheduler).

mod rr;
mod wlc;
mod wrr;

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

pub use rr::RoundRobin;
pub use wlc::WeightedLeastConnection;
pub use wrr::WeightedRoundRobin;

use crate::{RealServer, SchedulerFlags};

/// Chooses a real server for a new connection.
///
/// Called under the service's lock. Schedulers do not change a server's counts: binding the
/// connection does, before the next pick. "None" is a normal answer, the client is then rejected.
pub trait Scheduler: Send + fmt::Debug {
    /// The position in `servers` of the one to use, or `None`. A position outside the list counts
    /// as `None`.
    fn pick(&mut self, servers: &Servers, request: &Request) -> Option<usize>;

    /// The scheduler was attached to a service that has these servers.
    fn attached(&mut self, servers: &Servers) {
        let _ = servers;
    }

    /// `servers[index]` is new; those behind it moved back by one.
    fn server_added(&mut self, servers: &Servers, index: usize) {
        let _ = (servers, index);
    }

    /// The server at `index` is gone; those behind it moved forward by one.
    fn server_removed(&mut self, servers: &Servers, index: usize) {
        let _ = (servers, index);
    }

    /// `servers[index]` was edited, perhaps without a difference.
    fn server_changed(&mut self, servers: &Servers, index: usize) {
        let _ = (servers, index);
    }
}

/// A service's servers in list order: the newest first. All scans and ties follow this order.
#[derive(Debug, Default)]
pub struct Servers {
    list: Vec<Arc<RealServer>>,
}

impl Servers {
    pub(crate) fn push_front(&mut self, server: Arc<RealServer>) {
        self.list.insert(0, server);
    }

    pub(crate) fn remove(&mut self, index: usize) -> Arc<RealServer> {
        self.list.remove(index)
    }

    pub(crate) fn position(&self, addr: SocketAddr) -> Option<usize> {
        self.list.iter().position(|server| server.addr() == addr)
    }
}

impl Deref for Servers {
    type Target = [Arc<RealServer>];

    fn deref(&self) -> &Self::Target {
        &self.list
    }
}

/// What a scheduler may know of the packet that begins a connection: its real addresses, never
/// masked ones.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Request {
    /// The client.
    pub client: SocketAddr,
    /// Where the client sent the packet.
    pub destination: SocketAddr,
    /// The service's scheduler flags.
    pub flags: SchedulerFlags,
}

impl Request {
    /// A request without flags.
    pub fn new(client: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            client,
            destination,
            flags: SchedulerFlags::default(),
        }
    }

    /// With scheduler flags.
    #[must_use]
    pub fn with_flags(mut self, flags: SchedulerFlags) -> Self {
        self.flags = flags;
        self
    }
}

/// The built-in schedulers, written by their short names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SchedulerKind {
    /// `rr`
    RoundRobin,
    /// `wrr`
    WeightedRoundRobin,
    /// `wlc`, the default.
    #[default]
    WeightedLeastConnection,
}

impl SchedulerKind {
    /// All kinds that are built in.
    pub const ALL: [Self; 3] = [
        Self::RoundRobin,
        Self::WeightedRoundRobin,
        Self::WeightedLeastConnection,
    ];

    /// The short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "rr",
            Self::WeightedRoundRobin => "wrr",
            Self::WeightedLeastConnection => "wlc",
        }
    }

    /// A fresh scheduler of this kind.
    pub fn build(self) -> Box<dyn Scheduler> {
        match self {
            Self::RoundRobin => Box::new(RoundRobin::default()),
            Self::WeightedRoundRobin => Box::new(WeightedRoundRobin::default()),
            Self::WeightedLeastConnection => Box::new(WeightedLeastConnection),
        }
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SchedulerKind {
    type Err = ParseSchedulerError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if let Some(kind) = Self::ALL.into_iter().find(|kind| kind.name() == name) {
            return Ok(kind);
        }
        match NOT_BUILT.into_iter().find(|known| *known == name) {
            Some(known) => Err(ParseSchedulerError::NotBuilt(known)),
            None => Err(ParseSchedulerError::Unknown(name.to_owned())),
        }
    }
}

/// Why a scheduler name was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseSchedulerError {
    /// No LVS scheduler has this name.
    Unknown(String),
    /// An LVS scheduler that this version does not have.
    NotBuilt(&'static str),
}

impl fmt::Display for ParseSchedulerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "unknown scheduler {name:?}"),
            Self::NotBuilt(name) => write!(f, "scheduler {name} is not built in"),
        }
    }
}

impl std::error::Error for ParseSchedulerError {}

const NOT_BUILT: [&str; 11] = [
    "lc", "sed", "nq", "fo", "ovf", "twos", "dh", "sh", "mh", "lblc", "lblcr",
];

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::real_server::Class;
    use crate::{ServerConfig, ServiceConfig, VirtualService, Weight};

    /// A service whose servers are named A, B, C … and found by name.
    pub(crate) struct Pool {
        pub(crate) service: VirtualService,
    }

    impl Pool {
        /// Servers added in the order given, the last one ends up first in the list.
        pub(crate) fn adding(kind: SchedulerKind, servers: &[(char, u32)]) -> Self {
            let service = VirtualService::new(ServiceConfig {
                scheduler: kind,
                ..ServiceConfig::default()
            });
            for &(name, weight) in servers {
                service.add_server(addr(name), weighing(weight)).unwrap();
            }
            Self { service }
        }

        /// A scheduler attached to a list that is already filled, given in list order.
        pub(crate) fn filled(kind: SchedulerKind, servers: &[(char, u32)]) -> Self {
            let other = match kind {
                SchedulerKind::RoundRobin => SchedulerKind::WeightedRoundRobin,
                _ => SchedulerKind::RoundRobin,
            };
            let reversed: Vec<_> = servers.iter().rev().copied().collect();
            let pool = Self::adding(other, &reversed);
            pool.service
                .edit(ServiceConfig {
                    scheduler: kind,
                    ..ServiceConfig::default()
                })
                .unwrap();
            pool
        }

        pub(crate) fn edit(&self, name: char, weight: u32) {
            self.service
                .edit_server(addr(name), weighing(weight))
                .unwrap();
        }

        pub(crate) fn server(&self, name: char) -> Arc<RealServer> {
            self.service.server(addr(name)).unwrap()
        }

        /// Sets the overload flag by an upper threshold of 1 and one connection; `false` clears it
        /// again.
        pub(crate) fn overload(&self, name: char, on: bool) {
            let server = self.server(name);
            if on {
                server.bind(Class::Inactive);
            } else {
                server.unbind(Class::Inactive);
            }
            server.apply(&ServerConfig {
                upper_threshold: u32::from(on),
                ..server.config()
            });
            assert_eq!(server.is_overloaded(), on);
        }

        pub(crate) fn load(&self, name: char, active: u32, inactive: u32) {
            let server = self.server(name);
            (0..active).for_each(|_| server.bind(Class::Active));
            (0..inactive).for_each(|_| server.bind(Class::Inactive));
        }

        pub(crate) fn pick(&self) -> char {
            self.service
                .schedule(&request())
                .map_or('-', |server| name_of(&server))
        }

        /// Picks without binding.
        pub(crate) fn picks(&self, count: usize) -> String {
            (0..count).map(|_| self.pick()).collect()
        }

        /// Each pick adds an active connection.
        pub(crate) fn binds(&self, count: usize) -> String {
            let picks = (0..count).map(|_| self.service.lease(request().client).unwrap());
            picks
                .map(|lease| {
                    let name = name_of(lease.server());
                    std::mem::forget(lease);
                    name
                })
                .collect()
        }
    }

    pub(crate) fn addr(name: char) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, name as u8], 80))
    }

    pub(crate) fn weighing(weight: u32) -> ServerConfig {
        ServerConfig {
            weight: Weight::new(weight).unwrap(),
            ..ServerConfig::default()
        }
    }

    fn request() -> Request {
        Request::new(
            SocketAddr::from(([198, 51, 100, 1], 4000)),
            SocketAddr::from(([203, 0, 113, 10], 80)),
        )
    }

    fn name_of(server: &RealServer) -> char {
        match server.addr() {
            SocketAddr::V4(addr) => char::from(addr.ip().octets()[3]),
            SocketAddr::V6(_) => '?',
        }
    }

    #[test]
    fn names_parse_and_print() {
        for kind in SchedulerKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!(
            "sh".parse::<SchedulerKind>(),
            Err(ParseSchedulerError::NotBuilt("sh"))
        );
        assert_eq!(
            "foo".parse::<SchedulerKind>(),
            Err(ParseSchedulerError::Unknown("foo".into()))
        );
    }

    #[test]
    fn an_empty_pool_has_no_server() {
        for kind in SchedulerKind::ALL {
            assert_eq!(Pool::adding(kind, &[]).pick(), '-');
            assert_eq!(Pool::filled(kind, &[('A', 0), ('B', 0)]).picks(2), "--");
        }
    }
}
