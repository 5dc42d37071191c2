//! Schedulers: which real server gets a new connection.
//!
//! Each built-in is one file and one [`Scheduler`]. A program's own scheduler implements the same
//! trait and goes into [`VirtualService::with_scheduler`](crate::VirtualService::with_scheduler).

mod cursor;
mod dh;
mod fo;
mod follower;
mod hash;
mod kind;
mod lblc;
mod lblcr;
mod lc;
mod locality;
mod maglev;
mod marks;
mod mh;
mod nq;
mod ovf;
mod ranked;
mod rr;
mod running_sum;
mod sed;
mod sh;
mod turns;
mod twos;
mod wlc;
mod wrr;

#[cfg(test)]
mod plain_tests;
#[cfg(test)]
mod ranked_tests;
#[cfg(test)]
mod turns_tests;

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use dh::DestinationHash;
pub use fo::Failover;
pub use kind::{ParseSchedulerError, SchedulerKind, Seeds};
pub use lblc::LocalityLeastConnection;
pub use lblcr::ReplicatedLocality;
pub use lc::LeastConnection;
pub use maglev::{InvalidSlots, Maglev};
pub use mh::MaglevHash;
pub use nq::NeverQueue;
pub use ovf::Overflow;
pub use rr::RoundRobin;
pub use sed::ShortestExpectedDelay;
pub use sh::SourceHash;
pub use twos::TwoChoices;
pub use wlc::WeightedLeastConnection;
pub use wrr::WeightedRoundRobin;

pub(crate) use marks::Marks;

use crate::{RealServer, SchedulerFlags};

/// Chooses a real server for a new connection.
///
/// Called under the service's lock. Schedulers do not change a server's counts: binding the
/// connection does, before the next pick. "None" is a normal answer, the client is then rejected.
pub trait Scheduler: Send + fmt::Debug {
    /// The position in `servers` of the one to use, or `None`. A position outside the list counts
    /// as `None`.
    fn pick(&mut self, servers: &Servers, request: &Request) -> Option<usize>;

    /// What the next [`pick`](Self::pick) with this request answers, without taking the turn: no later
    /// pick may differ because of it. For explanations; rarely called.
    fn peek(&mut self, servers: &Servers, request: &Request) -> Peek {
        let _ = (servers, request);
        Peek::Unknown
    }

    /// The list, or what an operator or a check says of one of its servers, is not what it was. The
    /// four notifications below come here unless the scheduler tells them apart.
    fn list_changed(&mut self) {}

    /// The scheduler was attached to a service that has these servers.
    fn attached(&mut self, servers: &Servers) {
        let _ = servers;
        self.list_changed();
    }

    /// `servers[index]` is new; those behind it moved back by one.
    fn server_added(&mut self, servers: &Servers, index: usize) {
        let _ = (servers, index);
        self.list_changed();
    }

    /// The server at `index` is gone; those behind it moved forward by one.
    fn server_removed(&mut self, servers: &Servers, index: usize) {
        let _ = (servers, index);
        self.list_changed();
    }

    /// `servers[index]` was edited or its health changed, perhaps without a difference.
    fn server_changed(&mut self, servers: &Servers, index: usize) {
        let _ = (servers, index);
        self.list_changed();
    }

    /// The half that picks from this list without the service's lock, if the scheduler has one.
    ///
    /// Asked again after each change. From here to the next call of any other method picks go
    /// there, so a scheduler with a memory must take it back then (see [`SharedPick::pick`]).
    fn share(&mut self, servers: &Servers) -> Option<Arc<dyn SharedPick>> {
        let _ = servers;
        None
    }

    /// Time has come to forget what is too old; the director calls it now and then.
    fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// A number that is equal where the same clients go to the same servers, if the scheduler is a
    /// pure function of its servers and can prove it.
    fn fingerprint(&mut self, servers: &Servers) -> Option<u64> {
        let _ = servers;
        None
    }
}

/// Picks without a lock, from several threads at once.
pub trait SharedPick: Send + Sync + fmt::Debug {
    /// Like [`Scheduler::pick`]; `servers` is always the list that it was made for.
    ///
    /// # Errors
    /// [`Superseded`] if a change took its memory away. The caller asks the successor.
    fn pick(&self, servers: &Servers, request: &Request) -> Result<Option<usize>, Superseded>;

    /// Like [`Scheduler::peek`].
    fn peek(&self, servers: &Servers, request: &Request) -> Peek {
        let _ = (servers, request);
        Peek::Unknown
    }

    /// Whether a pick leaves no trace, so that it may be asked again. Then answers that a change of
    /// the service ran into are thrown away: part of what they saw may have been from before it.
    fn is_traceless(&self) -> bool {
        false
    }

    /// Whether answers depend on how many connections servers have. Then choice and count of a connection are one
    /// step, for [`Scheduler::pick`] under the lock; only picks that count nothing come here, and go to
    /// [`Scheduler::peek`] where this is superseded.
    fn depends_on_counts(&self) -> bool {
        false
    }
}

/// What a scheduler says of its next pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// The position that it will answer, or that it will answer none.
    Known(Option<usize>),
    /// It can't tell before it is asked.
    Unknown,
}

/// The list has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superseded;

/// A service's servers in list order: the newest first. All scans and ties follow this order.
#[derive(Clone, Debug, Default)]
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

    /// Whether some server has a threshold. Without one no overload flag is ever set.
    pub(crate) fn is_limited(&self) -> bool {
        self.list.iter().any(|server| server.is_limited())
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
    /// The client. For a header inside an ICMP error too, which travels the other way.
    pub client: SocketAddr,
    /// Where the packet, or the header inside an ICMP error, goes.
    pub destination: SocketAddr,
    /// The service's scheduler flags.
    pub flags: SchedulerFlags,
    /// The time, if the caller has one. Without it caches do not age.
    pub now: Option<Instant>,
    /// Age at which a cache's entries are too old (`lblc_expiration`, `lblcr_expiration`).
    pub cache_life: Duration,
}

impl Request {
    /// A request without flags and time.
    pub fn new(client: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            client,
            destination,
            flags: SchedulerFlags::default(),
            now: None,
            cache_life: CACHE_LIFE,
        }
    }

    /// With scheduler flags.
    #[must_use]
    pub fn with_flags(mut self, flags: SchedulerFlags) -> Self {
        self.flags = flags;
        self
    }

    /// At this time.
    #[must_use]
    pub fn at(mut self, now: impl Into<Option<Instant>>) -> Self {
        self.now = now.into();
        self
    }

    /// With another life of cache entries than a day.
    #[must_use]
    pub fn with_cache_life(mut self, life: Duration) -> Self {
        self.cache_life = life;
        self
    }

    /// What source hashing adds to the client's address.
    fn port(&self) -> u16 {
        if self.flags.contains(SchedulerFlags::PORT) {
            self.client.port()
        } else {
            0
        }
    }
}

const CACHE_LIFE: Duration = Duration::from_secs(86_400);

#[cfg(test)]
pub(crate) mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::real_server::Class;
    use crate::{Flow, ServerConfig, ServiceConfig, VirtualService, Weight};

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
            let addr = self.server(name).addr();
            self.service.edit_server(addr, weighing(weight)).unwrap();
        }

        pub(crate) fn server(&self, name: char) -> Arc<RealServer> {
            let mut servers = self.service.servers().into_iter();
            servers.find(|server| name_of(server) == name).unwrap()
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
            // Picks without a lock learn that there is a threshold; the scheduler learns nothing.
            self.service.edit(self.service.config()).unwrap();
        }

        pub(crate) fn load(&self, name: char, active: u32, inactive: u32) {
            let server = self.server(name);
            (0..active).for_each(|_| server.bind(Class::Active));
            (0..inactive).for_each(|_| server.bind(Class::Inactive));
        }

        pub(crate) fn pick(&self) -> char {
            self.name(self.service.schedule(&request()))
        }

        pub(crate) fn servers(&self) -> Servers {
            Servers {
                list: self.service.servers(),
            }
        }

        pub(crate) fn remove(&self, name: char) {
            let addr = self.server(name).addr();
            self.service.remove_server(addr).unwrap();
        }

        pub(crate) fn set_flags(&self, flags: SchedulerFlags) {
            let config = ServiceConfig {
                flags,
                ..self.service.config()
            };
            self.service.edit(config).unwrap();
        }

        /// Sets the upper threshold.
        pub(crate) fn limit(&self, name: char, upper_threshold: u32) {
            let config = ServerConfig {
                upper_threshold,
                ..self.server(name).config()
            };
            let addr = self.server(name).addr();
            self.service.edit_server(addr, config).unwrap();
        }

        /// The pick with these active and inactive connections at A, B and C.
        pub(crate) fn loaded(&self, loads: [(u32, u32); 3]) -> char {
            for (name, (active, inactive)) in ['A', 'B', 'C'].into_iter().zip(loads) {
                self.load(name, active, inactive);
            }
            self.pick()
        }

        /// Makes A, B and C have this many active connections.
        pub(crate) fn set_active(&self, active: [u32; 3]) {
            for (name, active) in ['A', 'B', 'C'].into_iter().zip(active) {
                let server = self.server(name);
                while server.active() > active {
                    server.unbind(Class::Active);
                }
                while server.active() < active {
                    server.bind(Class::Active);
                }
            }
        }

        pub(crate) fn pick_to(&self, destination: &str) -> char {
            let to = SocketAddr::new(destination.parse().unwrap(), 80);
            let flow = Flow::new(request().client).to(to);
            self.name(self.service.pick(flow))
        }

        pub(crate) fn pick_timed(
            &self,
            destination: &str,
            now: std::time::Instant,
            life: Duration,
        ) -> char {
            let to = SocketAddr::new(destination.parse().unwrap(), 80);
            let request = Request::new(request().client, to)
                .at(now)
                .with_cache_life(life);
            self.name(self.service.schedule(&request))
        }

        pub(crate) fn addr_for(&self, client: &str) -> Option<SocketAddr> {
            let flow = Flow::new(SocketAddr::new(client.parse().unwrap(), 4000));
            self.service.pick(flow).map(|server| server.addr())
        }

        pub(crate) fn picks_from(&self, clients: &[&str], port: u16) -> String {
            let flow = |client: &&str| Flow::new(SocketAddr::new(client.parse().unwrap(), port));
            let picks = clients.iter().map(|client| self.service.pick(flow(client)));
            picks.map(|server| self.name(server)).collect()
        }

        fn name(&self, server: Option<Arc<RealServer>>) -> char {
            server.map_or('-', |server| name_of(&server))
        }

        /// Picks without binding.
        pub(crate) fn picks(&self, count: usize) -> String {
            (0..count).map(|_| self.pick()).collect()
        }

        /// Each pick adds an active connection.
        pub(crate) fn binds(&self, count: usize) -> String {
            let pick = |_| match self.service.connect(request().client) {
                Ok(lease) => {
                    let name = name_of(lease.server());
                    std::mem::forget(lease);
                    name
                }
                Err(_) => '-',
            };
            (0..count).map(pick).collect()
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

    /// Servers in list order by address; those on 10.0.0.1 and so on, or fd00::1 and so on, are A
    /// and so on.
    pub(crate) fn named_pool(kind: SchedulerKind, servers: &[(&str, u32)]) -> Pool {
        let pool = Pool::adding(kind, &[]);
        for (addr, weight) in servers.iter().rev() {
            pool.service
                .add_server(addr.parse().unwrap(), weighing(*weight))
                .unwrap();
        }
        pool
    }

    fn name_of(server: &RealServer) -> char {
        let last = match server.addr().ip() {
            IpAddr::V4(addr) => addr.octets()[3],
            IpAddr::V6(addr) => addr.octets()[15],
        };
        char::from(if last < b'A' { last + b'A' - 1 } else { last })
    }

    fn all_kinds() -> impl Iterator<Item = SchedulerKind> {
        SchedulerKind::ALL.into_iter()
    }

    #[test]
    fn no_usable_server_is_an_answer() {
        type Trouble = fn(&Pool);
        let troubles: [(&str, Trouble); 5] = [
            ("empty", |pool| {
                "ABC".chars().for_each(|name| pool.remove(name));
            }),
            ("quiesced", |pool| {
                "ABC".chars().for_each(|name| pool.edit(name, 0));
            }),
            ("overloaded", |pool| {
                "ABC".chars().for_each(|name| pool.overload(name, true));
            }),
            ("unhealthy", |pool| {
                for name in "ABC".chars() {
                    pool.service.set_healthy(addr(name), false).unwrap();
                }
            }),
            ("a mixture", |pool| {
                pool.edit('A', 0);
                pool.overload('B', true);
                pool.service.set_healthy(addr('C'), false).unwrap();
            }),
        ];
        let flags = [
            SchedulerFlags::default(),
            SchedulerFlags::FALLBACK.union(SchedulerFlags::PORT),
        ];
        for kind in all_kinds() {
            assert_eq!(Pool::adding(kind, &[]).picks(3), "---", "{kind}");
            assert_eq!(Pool::filled(kind, &[]).picks(3), "---", "{kind}");
            let zeros = [('A', 0), ('B', 0)];
            assert_eq!(Pool::adding(kind, &zeros).picks(3), "---", "{kind}");
            assert_eq!(Pool::filled(kind, &zeros).picks(3), "---", "{kind}");
            for (name, trouble) in troubles {
                for flags in flags {
                    let pool = Pool::filled(kind, &[('A', 1), ('B', 2), ('C', 3)]);
                    pool.set_flags(flags);
                    // What lblc remembers it uses though it is overloaded.
                    if kind != SchedulerKind::None && kind != SchedulerKind::LocalityLeastConnection
                    {
                        assert_ne!(pool.picks(9), "---------", "{kind}");
                    }
                    trouble(&pool);
                    assert_eq!(pool.picks(3), "---", "{kind}, {name}, {flags:?}");
                    assert!(pool.service.connect(request().client).is_err());
                    let addrs = "ABC".chars().map(addr);
                    addrs.for_each(|addr| drop(pool.service.remove_server(addr)));
                    assert_eq!(pool.pick(), '-', "{kind}, {name}, then empty");
                }
            }
        }
    }

    #[test]
    fn health_is_seen_by_each_scheduler_and_leaves_the_weight() {
        for kind in all_kinds().filter(|kind| *kind != SchedulerKind::None) {
            let pool = Pool::filled(kind, &[('A', 1), ('B', 0)]);
            pool.set_flags(SchedulerFlags::FALLBACK);
            let usual = (0..200)
                .map(|i| pool.addr_for(&format!("10.0.0.{i}")))
                .filter(|addr| addr.is_some())
                .count();
            assert!(usual > 50, "{kind}");
            pool.service.set_healthy(addr('A'), false).unwrap();
            let server = pool.server('A');
            assert_eq!((server.weight().get(), server.is_usable()), (1, false));
            assert!((0..50).all(|i| pool.addr_for(&format!("10.0.0.{i}")).is_none()));
            pool.edit('A', 5);
            assert!((0..50).all(|i| pool.addr_for(&format!("10.0.0.{i}")).is_none()));
            pool.service.set_healthy(addr('A'), true).unwrap();
            assert!((0..50).any(|i| pool.addr_for(&format!("10.0.0.{i}")).is_some()));
        }
    }

    #[test]
    fn a_kind_with_a_limit_is_refused_and_leaves_none() {
        let pool = Pool::adding(SchedulerKind::RoundRobin, &[]);
        for i in 0..=MaglevHash::CELLS {
            let addr = SocketAddr::from(([10, 1, (i / 250) as u8, (i % 250) as u8], 80));
            pool.service.add_server(addr, weighing(1)).unwrap();
        }
        let wanted = ServiceConfig {
            scheduler: SchedulerKind::MaglevHash,
            flags: SchedulerFlags::PORT,
            ..ServiceConfig::default()
        };
        assert_eq!(
            pool.service.edit(wanted),
            Err(crate::ServiceError::TooManyServers)
        );
        let config = pool.service.config();
        assert_eq!(
            (config.scheduler, config.flags),
            (SchedulerKind::None, SchedulerFlags::default())
        );
        assert_eq!(pool.pick(), '-');
    }
}
