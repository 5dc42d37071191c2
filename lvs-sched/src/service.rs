//! Virtual services: a list of real servers and a scheduler.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::atomic::{Mutex, MutexGuard};
use crate::local::Locals;
use crate::pick::{Ask, Bound, Published, Shared, try_bind};
use crate::real_server::Class;
use crate::scheduler::{Peek, Servers};
use crate::stats::{Meter, Rates, Stats};
use crate::{
    ConnectError, Drain, Family, Flow, Lease, LocalInfo, Picker, RealServer, Request, Scheduler,
    SchedulerFlags, SchedulerKind, Seeds, ServerConfig, ServiceConfig, ServiceKey, Weight,
};

/// Tells a change, if somebody listens.
macro_rules! event {
    ($($field:tt)*) => {
        #[cfg(feature = "tracing")]
        tracing::info!($($field)*);
    };
}

/// A virtual service with its real servers.
///
/// Useful alone, by programs that balance connections of their own: add servers, then
/// [`connect`](Self::connect) for each connection. All methods take `&self`; share it in an [`Arc`]
/// and change it while others pick. Inside a [`Director`](crate::Director) the same service also has
/// persistence and a connection table.
#[derive(Debug)]
pub struct VirtualService {
    key: Option<ServiceKey>,
    config: ArcSwap<ServiceConfig>,
    seeds: Seeds,
    state: Apart<Mutex<State>>,
    published: Published,
    meter: Meter,
    pub(crate) locals: Locals,
}

/// On cache lines of its own (in pairs, as they are fetched): who picks without the lock is not disturbed by those who
/// take it.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

#[derive(Debug)]
struct State {
    servers: Arc<Servers>,
    scheduler: Box<dyn Scheduler>,
    flags: SchedulerFlags,
    /// What is published.
    shared: Option<Arc<Shared>>,
    /// Whether the scheduler was asked for it since the last change.
    was_asked: bool,
    /// What servers that are no longer here counted, minus what servers that came back had counted
    /// elsewhere: with it the service's statistics are a sum, and a packet is counted at its server
    /// only.
    carried: Stats,
}

impl VirtualService {
    /// A service without servers.
    pub fn new(config: ServiceConfig) -> Self {
        Self::with_seeds(config, Seeds::default())
    }

    /// A service without servers, whose schedulers take these seeds.
    pub fn with_seeds(config: ServiceConfig, seeds: Seeds) -> Self {
        Self::build(None, config, seeds, config.scheduler.build(seeds))
    }

    /// A service with a scheduler of the program's own.
    ///
    /// `config.scheduler` only names it; an edit that changes the name replaces the scheduler by
    /// that built-in.
    pub fn with_scheduler(config: ServiceConfig, scheduler: Box<dyn Scheduler>) -> Self {
        Self::build(None, config, Seeds::default(), scheduler)
    }

    pub(crate) fn with_key(
        key: ServiceKey,
        config: ServiceConfig,
        seeds: Seeds,
    ) -> Result<Self, ServiceError> {
        check(key.family(), &config)?;
        let scheduler = config.scheduler.build(seeds);
        Ok(Self::build(Some(key), config, seeds, scheduler))
    }

    fn build(
        key: Option<ServiceKey>,
        config: ServiceConfig,
        seeds: Seeds,
        mut scheduler: Box<dyn Scheduler>,
    ) -> Self {
        let servers = Servers::default();
        scheduler.attached(&servers);
        let state = Apart(Mutex::new(State {
            servers: Arc::new(servers),
            scheduler,
            flags: config.flags,
            shared: None,
            was_asked: false,
            carried: Stats::default(),
        }));
        Self {
            key,
            config: ArcSwap::from_pointee(config),
            seeds,
            state,
            published: Published::default(),
            meter: Meter::default(),
            locals: Locals::default(),
        }
    }

    /// The identity, if the service belongs to a director.
    pub fn key(&self) -> Option<ServiceKey> {
        self.key
    }

    /// The local addresses of its FULLNAT servers, in the order in which they were added.
    pub fn local_addresses(&self) -> Vec<LocalInfo> {
        self.locals.infos()
    }

    /// The addresses of [`local_addresses`](Self::local_addresses), and those that were removed while connections used
    /// them and still do.
    pub fn local_addresses_in_use(&self) -> Vec<IpAddr> {
        self.locals.in_use()
    }

    /// The present attributes.
    pub fn config(&self) -> ServiceConfig {
        **self.config.load()
    }

    /// Replaces the attributes. Another scheduler starts afresh with the present list.
    ///
    /// # Errors
    /// [`ServiceError::Granularity`] if the granularity is of the other family or out of range;
    /// nothing changes. [`ServiceError::TooManyServers`] if the new scheduler cannot have as many:
    /// the service is left with the scheduler `none` and its other attributes.
    pub fn edit(&self, config: ServiceConfig) -> Result<(), ServiceError> {
        if let Some(key) = self.key {
            check(key.family(), &config)?;
        }
        self.change(|state| {
            let present = self.config();
            let mut config = config;
            let mut answer = Ok(());
            if config.scheduler != present.scheduler {
                if state.servers.len() > config.scheduler.max_servers() {
                    answer = Err(ServiceError::TooManyServers);
                    config = ServiceConfig {
                        scheduler: SchedulerKind::None,
                        ..present
                    };
                }
                state.scheduler = config.scheduler.build(self.seeds);
                state
                    .servers
                    .iter()
                    .for_each(|server| server.report_to_nobody());
                state.scheduler.attached(&state.servers);
            }
            state.flags = config.flags;
            event!(scheduler = %config.scheduler, "service edited");
            self.config.store(Arc::new(config));
            answer
        })
    }

    /// Adds a server at the front of the list.
    ///
    /// # Errors
    /// [`ServerError`] if the address is taken or unusable or the thresholds make no sense.
    pub fn add_server(
        &self,
        addr: SocketAddr,
        config: ServerConfig,
    ) -> Result<Arc<RealServer>, ServerError> {
        self.check_server(addr, &config)?;
        self.insert(Arc::new(RealServer::new(addr, &config)), &config)
    }

    /// Replaces a server's parameters. It keeps its place, and its connections keep their method.
    ///
    /// # Errors
    /// [`ServerError`] if there is no such server or the thresholds make no sense.
    pub fn edit_server(&self, addr: SocketAddr, config: ServerConfig) -> Result<(), ServerError> {
        self.check_server(addr, &config)?;
        self.change_server(addr, |server| server.apply(&config))
    }

    /// Changes only the weight.
    ///
    /// # Errors
    /// [`ServerError::NotFound`]
    pub fn set_weight(&self, addr: SocketAddr, weight: Weight) -> Result<(), ServerError> {
        self.change_server(addr, |server| {
            server.apply(&ServerConfig {
                weight,
                ..server.config()
            });
        })
    }

    /// Says whether a server answers, as observed from outside: while it does not, schedulers see
    /// weight 0. The operator's weight stays, and may be edited meanwhile. A new server is healthy.
    ///
    /// # Errors
    /// [`ServerError::NotFound`]
    #[doc(alias = "set_available")]
    pub fn set_healthy(&self, addr: SocketAddr, healthy: bool) -> Result<(), ServerError> {
        let server = self.server(addr).ok_or(ServerError::NotFound)?;
        if server.is_healthy() == healthy {
            return Ok(());
        }
        self.change_server(addr, |server| server.set_healthy(healthy))?;
        event!(%addr, healthy, "health changed");
        Ok(())
    }

    /// Quiesces a server and watches it become empty: who is left, when nobody is, and at
    /// `deadline` the forced end.
    ///
    /// # Errors
    /// [`ServerError::NotFound`]
    pub fn drain(
        &self,
        addr: SocketAddr,
        deadline: impl Into<Option<Instant>>,
    ) -> Result<Drain, ServerError> {
        let server = self.server(addr).ok_or(ServerError::NotFound)?;
        self.set_weight(addr, Weight::QUIESCED)?;
        event!(%addr, active = server.active(), inactive = server.inactive(), "draining");
        Ok(Drain::new(server, deadline.into()))
    }

    /// Takes a server out. Connections and leases keep the object alive and end as they would have.
    ///
    /// # Errors
    /// [`ServerError::NotFound`]
    pub fn remove_server(&self, addr: SocketAddr) -> Result<Arc<RealServer>, ServerError> {
        self.change(|state| {
            let index = state.servers.position(addr).ok_or(ServerError::NotFound)?;
            let server = Arc::make_mut(&mut state.servers).remove(index);
            state.carried = state.carried.plus(server.unlink());
            server.report_to_nobody();
            state.scheduler.server_removed(&state.servers, index);
            event!(%addr, "server removed");
            Ok(server)
        })
    }

    /// The servers in list order, the newest first.
    pub fn servers(&self) -> Vec<Arc<RealServer>> {
        self.state.0.lock().servers.to_vec()
    }

    /// The server with this address.
    pub fn server(&self, addr: SocketAddr) -> Option<Arc<RealServer>> {
        let state = self.state.0.lock();
        state
            .servers
            .position(addr)
            .map(|index| Arc::clone(&state.servers[index]))
    }

    /// Which server the scheduler chooses, without counting anything.
    ///
    /// No lock with `rr`, `wrr`, `sh`, `dh`, `mh` and `maglev`, nor with `lc`, `wlc`, `sed`, `nq`, `fo` and `ovf` while
    /// no count has changed since the last pick; a [`Picker`] also saves the reference count.
    pub fn pick(&self, flow: impl Into<Flow>) -> Option<Arc<RealServer>> {
        let flow = &mut flow.into();
        let version = self.published.version();
        if let Some(shared) = version.load().as_deref().and_then(Option::as_ref)
            && let Ok(answer) = shared.pick(version, flow.request(shared.flags))
        {
            return answer.and_then(|index| shared.servers.get(index).cloned());
        }
        self.pick_locked(flow)
    }

    /// One thread's way to the service.
    pub fn picker(&self) -> Picker<'_> {
        Picker::new(self)
    }

    /// Asks the scheduler with a request of the caller's making, flags included.
    pub fn schedule(&self, request: &Request) -> Option<Arc<RealServer>> {
        self.lock_to_pick().pick_only(request).cloned()
    }

    /// Which server [`schedule`](Self::schedule) would choose now, without taking the turn: no later pick
    /// differs because of it.
    ///
    /// # Errors
    /// [`Unforeseen`] with a scheduler of the program's own that does not [`peek`](Scheduler::peek).
    pub fn peek(&self, request: &Request) -> Result<Option<Arc<RealServer>>, Unforeseen> {
        let mut state = self.state.0.lock();
        match state.peek(request) {
            Peek::Known(index) => Ok(index.and_then(|index| state.servers.get(index).cloned())),
            Peek::Unknown => Err(Unforeseen),
        }
    }

    /// Chooses a server for a connection and counts it as active until the lease is dropped.
    ///
    /// Persistence needs a clock and belongs to the director: here it has no effect.
    ///
    /// # Errors
    /// [`ConnectError::NoServer`] when no server is usable.
    pub fn connect(&self, flow: impl Into<Flow>) -> Result<Lease, ConnectError> {
        let bound = self.bind(&mut flow.into(), Class::Active);
        bound.map(Lease::new).ok_or(ConnectError::NoServer)
    }

    /// What proves that two services send the same clients to the same servers; `None` if the
    /// scheduler cannot. [`Maglev`](crate::Maglev) can.
    pub fn fingerprint(&self) -> Option<u64> {
        let mut state = self.state.0.lock();
        let State {
            servers, scheduler, ..
        } = &mut *state;
        scheduler.fingerprint(servers)
    }

    /// Lets the scheduler forget what is too old.
    pub(crate) fn handle_timeout(&self, now: Instant) {
        self.state.0.lock().scheduler.handle_timeout(now);
    }

    /// Traffic of the service since its creation or the last zeroing.
    pub fn stats(&self) -> Stats {
        self.meter.read(self.raw_stats())
    }

    /// Smoothed traffic rates; a [`Director`](crate::Director) estimates them every two seconds.
    pub fn rates(&self) -> Rates {
        self.meter.rates()
    }

    /// One period of the rates of the service and its servers ends. Returns whether they may change
    /// without traffic.
    pub(crate) fn estimate(&self) -> bool {
        let moving = self.meter.estimate(self.raw_stats());
        self.servers()
            .iter()
            .fold(moving, |moving, server| server.estimate() | moving)
    }

    /// Starts the statistics of the service and its servers from zero.
    pub fn zero(&self) {
        self.servers().iter().for_each(|server| server.zero());
        self.meter.zero(self.raw_stats());
    }

    /// Picks, binds and counts in one step, so that thresholds hold among concurrent callers.
    pub(crate) fn schedule_and_bind(
        &self,
        request: &Request,
        class: Class,
    ) -> Option<Arc<RealServer>> {
        self.bind(&mut &*request, class).map(|(server, _)| server)
    }

    fn bind(&self, flow: &mut impl Ask, class: Class) -> Option<Bound> {
        let version = self.published.version();
        if let Some(shared) = version.load_to_bind().as_deref().and_then(Option::as_ref)
            && let Ok(bound) = shared.bind(version, flow, class)
        {
            return bound;
        }
        self.bind_locked(flow, class)
    }

    pub(crate) fn bind_locked(&self, flow: &mut impl Ask, class: Class) -> Option<Bound> {
        let mut state = self.lock_to_pick();
        let request = flow.request(state.flags);
        if !state.is_shared() {
            let server = state.pick(request)?;
            server.bind_picked(class);
            return Some((Arc::clone(server), server.watch().generation()));
        }
        // Others may be binding without the lock.
        loop {
            if let Some(bound) = try_bind(state.pick(request)?, class) {
                return Some(bound);
            }
        }
    }

    /// Puts a fresh or revived server at the front.
    pub(crate) fn insert(
        &self,
        server: Arc<RealServer>,
        config: &ServerConfig,
    ) -> Result<Arc<RealServer>, ServerError> {
        self.change(|state| {
            if state.servers.position(server.addr()).is_some() {
                return Err(ServerError::Exists);
            }
            server.admit(config);
            state.carried = state.carried.minus(server.departure());
            Arc::make_mut(&mut state.servers).push_front(Arc::clone(&server));
            state.scheduler.server_added(&state.servers, 0);
            event!(addr = %server.addr(), weight = %config.weight, "server added");
            Ok(server)
        })
    }

    /// Takes all servers out without telling the scheduler, which ends with the service.
    pub(crate) fn unlink_all(&self) -> Vec<Arc<RealServer>> {
        self.change(|state| {
            let all = std::mem::take(&mut state.servers);
            for server in all.iter() {
                state.carried = state.carried.plus(server.unlink());
                server.report_to_nobody();
            }
            state.scheduler.attached(&state.servers);
            all.to_vec()
        })
    }

    pub(crate) fn check_server(
        &self,
        addr: SocketAddr,
        config: &ServerConfig,
    ) -> Result<(), ServerError> {
        let unusable = match addr.ip() {
            IpAddr::V4(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast(),
            IpAddr::V6(ip) => {
                ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local()
            }
        };
        if unusable {
            return Err(ServerError::Address);
        }
        if self
            .key
            .is_some_and(|key| (key.family() == Family::Inet) != addr.is_ipv4())
        {
            return Err(ServerError::Family);
        }
        if config.lower_threshold > config.upper_threshold
            || config.upper_threshold > Weight::MAX.get()
        {
            return Err(ServerError::Thresholds);
        }
        Ok(())
    }

    /// Changes something that picks depend on.
    fn change<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.0.lock();
        state.was_asked = false;
        if state.shared.take().is_some() {
            self.published.take();
        }
        f(&mut state)
    }

    fn change_server(
        &self,
        addr: SocketAddr,
        f: impl FnOnce(&RealServer),
    ) -> Result<(), ServerError> {
        self.change(|state| {
            let index = state.servers.position(addr).ok_or(ServerError::NotFound)?;
            f(&state.servers[index]);
            state.scheduler.server_changed(&state.servers, index);
            Ok(())
        })
    }

    pub(crate) fn published(&self) -> &Published {
        &self.published
    }

    pub(crate) fn pick_locked(&self, flow: &mut Flow) -> Option<Arc<RealServer>> {
        let mut state = self.lock_to_pick();
        let request = flow.request(state.flags);
        state.pick_only(request).cloned()
    }

    /// The lock, with the lock-free half published if the scheduler has one.
    fn lock_to_pick(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.0.lock();
        if !state.was_asked {
            self.publish(&mut state);
        }
        state
    }

    #[cold]
    fn publish(&self, state: &mut State) {
        state.was_asked = true;
        if let Some(picker) = state.scheduler.share(&state.servers) {
            let shared = Arc::new(Shared::new(Arc::clone(&state.servers), state.flags, picker));
            state.shared = Some(Arc::clone(&shared));
            self.published.put(shared);
        }
    }

    fn raw_stats(&self) -> Stats {
        let state = self.state.0.lock();
        state
            .servers
            .iter()
            .fold(state.carried, |sum, server| sum.plus(server.counted()))
    }
}

impl State {
    /// Whether others bind connections without the lock, by the scheduler's other half.
    fn is_shared(&self) -> bool {
        (self.shared.as_ref()).is_some_and(|shared| !shared.depends_on_counts)
    }

    /// For a connection that is bound next.
    fn pick(&mut self, request: &Request) -> Option<&Arc<RealServer>> {
        let index = match &self.shared {
            Some(shared) if !shared.depends_on_counts => shared.pick_locked(request)?,
            _ => self.scheduler.pick(&self.servers, request)?,
        };
        self.at(index)
    }

    /// Without counting.
    fn pick_only(&mut self, request: &Request) -> Option<&Arc<RealServer>> {
        match &self.shared {
            Some(shared) if shared.depends_on_counts => match self.peek(request) {
                Peek::Known(index) => self.at(index?),
                Peek::Unknown => self.pick(request),
            },
            _ => self.pick(request),
        }
    }

    fn peek(&mut self, request: &Request) -> Peek {
        match &self.shared {
            Some(shared) if !shared.depends_on_counts => shared.peek(request),
            _ => self.scheduler.peek(&self.servers, request),
        }
    }

    fn at(&self, index: usize) -> Option<&Arc<RealServer>> {
        let server = self.servers.get(index);
        debug_assert!(
            server.is_some(),
            "a scheduler picked a position outside the list"
        );
        server
    }
}

/// The scheduler can't tell its next pick before it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unforeseen;

impl fmt::Display for Unforeseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the scheduler can't tell its next pick")
    }
}

impl std::error::Error for Unforeseen {}

/// Why an operation on a service failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceError {
    /// A service with this identity exists.
    Exists,
    /// There is no service with this identity.
    NotFound,
    /// The persistence granularity does not fit the family, or a prefix is not in `1..=128`.
    Granularity,
    /// The scheduler cannot have as many servers as the service has.
    TooManyServers,
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exists => "service already exists",
            Self::NotFound => "no such service",
            Self::Granularity => "persistence granularity does not fit the address family",
            Self::TooManyServers => "more real servers than the scheduler can have",
        })
    }
}

impl std::error::Error for ServiceError {}

/// Why an operation on a real server failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerError {
    /// There is no service with this identity.
    NoService,
    /// The service has a server with this address.
    Exists,
    /// The service has no server with this address.
    NotFound,
    /// Not a unicast address, or an IPv6 link-local one.
    Address,
    /// The server's family is not the service's.
    Family,
    /// The lower threshold is above the upper one, or a threshold is above 2^31 − 1.
    Thresholds,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoService => "no such service",
            Self::Exists => "real server already exists",
            Self::NotFound => "no such real server",
            Self::Address => "real server address is not unicast",
            Self::Family => "real server and service are of different address families",
            Self::Thresholds => "connection thresholds out of range",
        })
    }
}

impl std::error::Error for ServerError {}

fn check(family: Family, config: &ServiceConfig) -> Result<(), ServiceError> {
    match config.persistence {
        Some(persistence) if !persistence.granularity.fits(family) => {
            Err(ServiceError::Granularity)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 80))
    }

    fn client() -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 1], 4000))
    }

    #[test]
    fn thresholds_and_addresses_are_checked() {
        let service = VirtualService::new(ServiceConfig::default());
        let limits = |upper_threshold, lower_threshold| ServerConfig {
            upper_threshold,
            lower_threshold,
            ..ServerConfig::default()
        };
        assert_eq!(
            service.add_server(addr(1), limits(0, 1)).unwrap_err(),
            ServerError::Thresholds
        );
        assert_eq!(
            service.add_server(addr(1), limits(1 << 31, 1)).unwrap_err(),
            ServerError::Thresholds
        );
        let multicast = "224.0.0.1:80".parse().unwrap();
        assert_eq!(
            service.add_server(multicast, limits(0, 0)).unwrap_err(),
            ServerError::Address
        );
        service.add_server(addr(1), limits(4, 2)).unwrap();
        assert_eq!(
            service.add_server(addr(1), limits(4, 2)).unwrap_err(),
            ServerError::Exists
        );
        assert_eq!(
            service.edit_server(addr(2), limits(4, 2)),
            Err(ServerError::NotFound)
        );
    }

    #[test]
    fn a_lease_counts_until_it_is_dropped() {
        let service = VirtualService::new(ServiceConfig::default());
        let limits = ServerConfig {
            upper_threshold: 1,
            ..ServerConfig::default()
        };
        let server = service.add_server(addr(1), limits).unwrap();
        let lease = service.connect(client()).unwrap();
        assert_eq!((lease.addr(), server.active()), (addr(1), 1));
        assert!(
            service.connect(client()).is_err(),
            "the upper threshold admits one"
        );
        service.remove_server(addr(1)).unwrap();
        drop(lease);
        assert_eq!(server.active(), 0);
    }

    #[test]
    fn concurrent_leases_never_exceed_the_threshold() {
        let service = VirtualService::new(ServiceConfig::default());
        let limits = ServerConfig {
            upper_threshold: 3,
            lower_threshold: 3,
            ..ServerConfig::default()
        };
        let server = service.add_server(addr(1), limits).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let lease = service.connect(client());
                        assert!(server.active() <= 3);
                        drop(lease);
                    }
                });
            }
        });
        assert_eq!((server.active(), server.is_overloaded()), (0, false));
    }

    #[test]
    fn an_own_scheduler_plugs_in() {
        #[derive(Debug)]
        struct Last;
        impl Scheduler for Last {
            fn pick(&mut self, servers: &Servers, _: &Request) -> Option<usize> {
                servers.len().checked_sub(1)
            }
        }
        let service = VirtualService::with_scheduler(ServiceConfig::default(), Box::new(Last));
        for last in 1..=3 {
            service
                .add_server(addr(last), ServerConfig::default())
                .unwrap();
        }
        assert_eq!(service.connect(client()).unwrap().addr(), addr(1));
    }
}
