//! Asking a service: the flow, the answers, and picks without its lock.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::atomic::{ArcSwapOption, AtomicU32, Guard};
use crate::real_server::Class;
use crate::scheduler::{Peek, Servers, SharedPick, Superseded};
use crate::{Lease, RealServer, Request, SchedulerFlags, VirtualService};

/// What a caller knows of a new connection. Made of the client's address alone, if nothing more is
/// known.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// As the scheduler gets it, but for the service's flags, which the service fills in.
    request: Request,
}

impl Flow {
    /// A connection of this client.
    #[inline]
    pub fn new(client: SocketAddr) -> Self {
        let nowhere: IpAddr = match client {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self {
            request: Request::new(client, SocketAddr::new(nowhere, 0)),
        }
    }

    /// To this destination. Only the schedulers of caches look at it: `dh`, `lblc`, `lblcr`. Without
    /// it all go to the unspecified address.
    #[must_use]
    pub fn to(mut self, destination: SocketAddr) -> Self {
        self.request.destination = destination;
        self
    }

    /// At this time. Without it `lblc` and `lblcr` do not forget.
    #[must_use]
    pub fn at(mut self, now: Instant) -> Self {
        self.request.now = Some(now);
        self
    }

    /// When `lblc` and `lblcr` forget; without it after a day.
    #[must_use]
    pub fn with_cache_life(mut self, life: Duration) -> Self {
        self.request.cache_life = life;
        self
    }
}

/// What becomes a request to a service. In place: a copy costs more than some picks.
pub(crate) trait Ask {
    /// The request to a service that has these flags.
    fn request(&mut self, flags: SchedulerFlags) -> &Request;
}

impl Ask for Flow {
    #[inline]
    fn request(&mut self, flags: SchedulerFlags) -> &Request {
        self.request.flags = flags;
        &self.request
    }
}

/// It has flags of its own.
impl Ask for &Request {
    #[inline]
    fn request(&mut self, _: SchedulerFlags) -> &Request {
        self
    }
}

impl From<SocketAddr> for Flow {
    #[inline]
    fn from(client: SocketAddr) -> Self {
        Self::new(client)
    }
}

/// Why a connection got no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// No server is usable for this flow: there is none, or those that the scheduler may choose are
    /// quiesced, unhealthy or overloaded.
    NoServer,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServer => f.write_str("no usable real server"),
        }
    }
}

impl std::error::Error for ConnectError {}

/// One thread's way to a service: remembers the service's table, so that a pick of `rr`, `wrr`,
/// `sh`, `dh`, `mh` and `maglev` touches nothing that other threads write but the position of `rr`
/// and `wrr`. One of `lc`, `wlc`, `sed`, `nq`, `fo` and `ovf` only looks whether counts have changed; where they
/// have, for leases, and with other schedulers it takes the service's lock, as without it.
///
/// Made by [`VirtualService::picker`]; changes of the service are seen at the next pick.
pub struct Picker<'a> {
    service: &'a VirtualService,
    /// The version of `shared`.
    number: u32,
    shared: Option<Arc<Shared>>,
    /// The last answer that came by way of the lock.
    held: Option<Arc<RealServer>>,
}

impl<'a> Picker<'a> {
    pub(crate) fn new(service: &'a VirtualService) -> Self {
        Self {
            service,
            number: 0,
            shared: None,
            held: None,
        }
    }

    /// [`VirtualService::pick`], with a reference for an answer.
    #[inline]
    pub fn pick(&mut self, flow: impl Into<Flow>) -> Option<&Arc<RealServer>> {
        self.pick_flow(&mut flow.into())
    }

    fn pick_flow(&mut self, flow: &mut Flow) -> Option<&Arc<RealServer>> {
        let version = self.follow();
        let answer = match &self.shared {
            Some(shared) => shared.pick(version, flow.request(shared.flags)),
            None => Err(Superseded),
        };
        match answer {
            Ok(index) => self.shared.as_ref()?.servers.get(index?),
            Err(Superseded) => self.pick_locked(flow),
        }
    }

    /// Sees to it that what is remembered is of this moment.
    #[inline]
    fn follow(&mut self) -> Version<'a> {
        let version = self.service.published().version();
        if version.number != self.number {
            self.load(version);
        }
        version
    }

    #[cold]
    fn load(&mut self, version: Version<'_>) {
        self.shared = version.load().as_deref().and_then(Option::clone);
        self.number = version.number;
    }

    #[inline(never)]
    fn pick_locked(&mut self, flow: &mut Flow) -> Option<&Arc<RealServer>> {
        self.held = self.service.pick_locked(flow);
        self.held.as_ref()
    }

    /// [`VirtualService::connect`].
    ///
    /// # Errors
    /// [`ConnectError`]
    pub fn connect(&mut self, flow: impl Into<Flow>) -> Result<Lease, ConnectError> {
        let flow = &mut flow.into();
        let version = self.follow();
        let bound = match &self.shared {
            Some(shared) => shared.bind(version, flow, Class::Active),
            None => Err(Superseded),
        };
        bound
            .unwrap_or_else(|Superseded| self.service.bind_locked(flow, Class::Active))
            .map(Lease::new)
            .ok_or(ConnectError::NoServer)
    }
}

impl fmt::Debug for Picker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picker")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

/// A server to which a connection is bound, and its [generation](crate::drain::Watch::generation)
/// while it still had a weight, so that no forced end is missed.
pub(crate) type Bound = (Arc<RealServer>, u32);

/// Binds a connection to the server that was picked, unless that has become unusable meanwhile.
pub(crate) fn try_bind(server: &Arc<RealServer>, class: Class) -> Option<Bound> {
    let generation = server.watch().generation();
    server.try_bind(class).then(|| {
        server.count_connection();
        (Arc::clone(server), generation)
    })
}

/// What picks need that take no lock, where they find it: something between the first pick after a
/// change and the next change, if the scheduler can pick without the lock.
#[derive(Debug, Default)]
pub(crate) struct Published {
    shared: ArcSwapOption<Shared>,
    /// Raised after something was put there, and before it is taken away for a change. The lowest bits are [`PICKS`]
    /// and [`BINDS`] of what is there.
    number: AtomicU32,
}

impl Published {
    /// What is there at this moment.
    #[inline]
    pub(crate) fn version(&self) -> Version<'_> {
        Version {
            published: self,
            number: self.number.load(Ordering::SeqCst),
        }
    }

    /// Puts something there. The caller holds the service's lock and has found nothing.
    pub(crate) fn put(&self, shared: Arc<Shared>) {
        let binds = if shared.is_limited { 0 } else { BINDS };
        self.shared.store(Some(shared));
        self.raise(PICKS | binds);
    }

    /// Takes away what is there. The caller holds the service's lock and has put something.
    pub(crate) fn take(&self) {
        self.raise(0);
        self.shared.store(None);
    }

    /// Only holders of the service's lock do.
    fn raise(&self, bits: u32) {
        let number = self.number.load(Ordering::SeqCst) & !(PICKS | BINDS);
        let next = number.wrapping_add(STEP) | bits;
        self.number.store(next, Ordering::SeqCst);
    }
}

/// A moment of [`Published`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version<'a> {
    published: &'a Published,
    number: u32,
}

impl Version<'_> {
    /// What was there, unless it was taken away meanwhile.
    pub(crate) fn load(self) -> Option<Guard<Option<Arc<Shared>>>> {
        (self.number & PICKS != 0).then(|| self.published.shared.load())
    }

    /// As [`load`](Self::load), if it binds connections too.
    pub(crate) fn load_to_bind(self) -> Option<Guard<Option<Arc<Shared>>>> {
        (self.number & BINDS != 0).then(|| self.published.shared.load())
    }

    fn is_current(self) -> bool {
        self.published.number.load(Ordering::SeqCst) == self.number
    }
}

/// A list, and the half of its scheduler that takes no lock. A change of the service makes a new one.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) servers: Arc<Servers>,
    pub(crate) flags: SchedulerFlags,
    /// Pick and count must be one step: some server has a threshold, or the scheduler looks at counts.
    pub(crate) is_limited: bool,
    /// See [`SharedPick::depends_on_counts`].
    pub(crate) depends_on_counts: bool,
    /// See [`SharedPick::is_traceless`].
    pub(crate) is_traceless: bool,
    picker: Arc<dyn SharedPick>,
}

impl Shared {
    pub(crate) fn new(
        servers: Arc<Servers>,
        flags: SchedulerFlags,
        picker: Arc<dyn SharedPick>,
    ) -> Self {
        Self {
            is_limited: servers.is_limited() || picker.depends_on_counts(),
            depends_on_counts: picker.depends_on_counts(),
            is_traceless: picker.is_traceless(),
            servers,
            flags,
            picker,
        }
    }

    /// The answer of the moment of `version`, or of a later one.
    #[inline]
    pub(crate) fn pick(
        &self,
        version: Version<'_>,
        request: &Request,
    ) -> Result<Option<usize>, Superseded> {
        let answer = self.picker.pick(&self.servers, request)?;
        if self.is_traceless && !version.is_current() {
            return Err(Superseded);
        }
        Ok(answer)
    }

    /// Picks and counts. Only the holder of the service's lock does both in one step.
    pub(crate) fn bind(
        &self,
        version: Version<'_>,
        flow: &mut impl Ask,
        class: Class,
    ) -> Result<Option<Bound>, Superseded> {
        if self.is_limited {
            return Err(Superseded);
        }
        let answer = self.pick(version, flow.request(self.flags))?;
        let Some(server) = answer.and_then(|index| self.servers.get(index)) else {
            return Ok(None);
        };
        // It fails when a change has just quiesced the server. The next pick is for after that change.
        try_bind(server, class).map(Some).ok_or(Superseded)
    }

    /// For the holder of the service's lock.
    pub(crate) fn pick_locked(&self, request: &Request) -> Option<usize> {
        // Only a change takes the memory away, and changes hold the lock.
        self.picker.pick(&self.servers, request).ok().flatten()
    }

    pub(crate) fn peek(&self, request: &Request) -> Peek {
        self.picker.peek(&self.servers, request)
    }
}

/// Picks without the lock.
const PICKS: u32 = 1;
/// Leases without the lock.
const BINDS: u32 = 2;
const STEP: u32 = 4;
