//! Asking a service: the flow, the answers, and picks without its lock.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::scheduler::{Peek, Servers, SharedPick, Superseded};
use crate::{Lease, RealServer, Request, SchedulerFlags, VirtualService};

/// What a caller knows of a new connection. Made of the client's address alone, if nothing more is
/// known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flow {
    /// The client.
    pub client: SocketAddr,
    /// Where the client wants to go. Only the schedulers of caches look at it: `dh`, `lblc`,
    /// `lblcr`. Default: the unspecified address.
    pub destination: SocketAddr,
    /// The time. Without it `lblc` and `lblcr` do not forget.
    pub now: Option<Instant>,
    /// When `lblc` and `lblcr` forget. Default: a day.
    pub cache_life: Option<Duration>,
}

impl Flow {
    /// A connection of this client.
    pub fn new(client: SocketAddr) -> Self {
        let nowhere: IpAddr = match client {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self {
            client,
            destination: SocketAddr::new(nowhere, 0),
            now: None,
            cache_life: None,
        }
    }

    /// To this destination.
    #[must_use]
    pub fn to(mut self, destination: SocketAddr) -> Self {
        self.destination = destination;
        self
    }

    /// At this time.
    #[must_use]
    pub fn at(mut self, now: Instant) -> Self {
        self.now = Some(now);
        self
    }

    pub(crate) fn request(&self, flags: SchedulerFlags) -> Request {
        let request = Request::new(self.client, self.destination)
            .with_flags(flags)
            .at(self.now);
        match self.cache_life {
            Some(life) => request.with_cache_life(life),
            None => request,
        }
    }
}

impl From<SocketAddr> for Flow {
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
/// and `wrr`. Other schedulers take the service's lock, as without it.
///
/// Made by [`VirtualService::picker`]; changes of the service are seen at the next pick.
pub struct Picker<'a> {
    service: &'a VirtualService,
    version: u32,
    shared: Option<Arc<Shared>>,
    /// The last answer that came by way of the lock.
    held: Option<Arc<RealServer>>,
}

impl<'a> Picker<'a> {
    pub(crate) fn new(service: &'a VirtualService) -> Self {
        Self {
            service,
            version: 0,
            shared: None,
            held: None,
        }
    }

    /// [`VirtualService::pick`], with a reference for an answer.
    pub fn pick(&mut self, flow: impl Into<Flow>) -> Option<&Arc<RealServer>> {
        let flow = flow.into();
        let version = self.service.version.load(Ordering::Acquire);
        if version != self.version {
            self.shared = self.service.shared.load_full();
            self.version = version;
        }
        let answer = match &self.shared {
            Some(shared) => shared.pick(&flow.request(shared.flags)),
            None => Err(Superseded),
        };
        match (answer, &self.shared) {
            (Ok(index), Some(shared)) => shared.servers.get(index?),
            _ => {
                self.held = self.service.pick(flow);
                self.held.as_ref()
            }
        }
    }

    /// [`VirtualService::connect`].
    ///
    /// # Errors
    /// [`ConnectError`]
    pub fn connect(&mut self, flow: impl Into<Flow>) -> Result<Lease, ConnectError> {
        self.service.connect(flow)
    }
}

impl fmt::Debug for Picker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picker")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

/// What picks need that take no lock. A change of the service makes a new one.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) servers: Arc<Servers>,
    pub(crate) flags: SchedulerFlags,
    /// Some server has a threshold: pick and count must be one step.
    pub(crate) is_limited: bool,
    picker: Arc<dyn SharedPick>,
}

impl Shared {
    pub(crate) fn new(
        servers: Arc<Servers>,
        flags: SchedulerFlags,
        picker: Arc<dyn SharedPick>,
    ) -> Self {
        Self {
            is_limited: servers.iter().any(|server| server.is_limited()),
            servers,
            flags,
            picker,
        }
    }

    pub(crate) fn pick(&self, request: &Request) -> Result<Option<usize>, Superseded> {
        self.picker.pick(&self.servers, request)
    }

    pub(crate) fn peek(&self, request: &Request) -> Peek {
        self.picker.peek(&self.servers, request)
    }
}
