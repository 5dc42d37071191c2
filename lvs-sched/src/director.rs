//! The shared half: services, templates, trash, totals and settings.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ahash::RandomState;
use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::conn::state::Timings;
use crate::persist::Templates;
use crate::stats::{WorkerCounters, ZeroBase};
use crate::time::Epoch;
use crate::trash::Trash;
use crate::{
    DirectorConfig, DropReason, Family, Packet, Protocol, RealServer, ServerConfig, ServerError,
    ServiceConfig, ServiceError, ServiceKey, Stats, TemplateInfo, Timeouts, Tunables,
    VirtualService, Worker,
};

/// Services and everything that workers share. Use it in an [`Arc`]; all methods take `&self`.
///
/// Drive it by one thread: call [`handle_timeout`](Self::handle_timeout) when
/// [`poll_timeout`](Self::poll_timeout) is due, the workers' own `handle_timeout` first.
#[derive(Debug)]
pub struct Director {
    pub(crate) epoch: Epoch,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) templates: Templates,
    pub(crate) hasher: RandomState,
    pub(crate) max_connections: usize,
    control: Mutex<Control>,
    /// The trash's next time, readable without the lock.
    trash_next: AtomicU64,
    totals: Mutex<Totals>,
    zero: ZeroBase,
}

/// What workers read without a lock. A change makes a new one.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    services: Arc<ServiceMap>,
    timeouts: Timeouts,
    pub(crate) timings: Timings,
    pub(crate) tunables: Tunables,
}

type ServiceMap = HashMap<ServiceKey, Arc<VirtualService>, RandomState>;

/// Owned by whoever changes the configuration.
#[derive(Debug)]
struct Control {
    trash: Trash,
}

#[derive(Debug, Default)]
struct Totals {
    workers: Vec<Arc<WorkerCounters>>,
    /// Of workers that are gone.
    past: Stats,
    past_dropped: [u64; DropReason::ALL.len()],
}

impl Director {
    /// A director without services.
    pub fn new(config: DirectorConfig) -> Self {
        let [a, b, c, d] = config.seeds;
        let hasher = RandomState::with_seeds(a, b, c, d);
        let snapshot = Snapshot {
            services: Arc::new(HashMap::with_hasher(hasher.clone())),
            timings: Timings::new(&config.timeouts),
            timeouts: config.timeouts,
            tunables: config.tunables,
        };
        Self {
            epoch: Epoch::default(),
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            templates: Templates::new(hasher.clone(), config.max_templates),
            hasher,
            max_connections: config.max_connections.min(u32::MAX as usize / 4),
            control: Mutex::new(Control {
                trash: Trash::new(),
            }),
            trash_next: AtomicU64::new(crate::time::NEVER),
            totals: Mutex::default(),
            zero: ZeroBase::default(),
        }
    }

    /// A data-path thread's half. All packets of one client must go to the same worker.
    pub fn worker(self: &Arc<Self>) -> Worker {
        let counters = Arc::new(WorkerCounters::default());
        self.totals.lock().workers.push(Arc::clone(&counters));
        Worker::new(Arc::clone(self), counters)
    }

    /// Adds a service without servers.
    ///
    /// # Errors
    /// [`ServiceError::Exists`], [`ServiceError::Granularity`]
    pub fn add_service(
        &self,
        key: ServiceKey,
        config: ServiceConfig,
    ) -> Result<Arc<VirtualService>, ServiceError> {
        let _control = self.control.lock();
        if self.service(&key).is_some() {
            return Err(ServiceError::Exists);
        }
        let service = Arc::new(VirtualService::with_key(key, config)?);
        self.change_services(|services| {
            services.insert(key, Arc::clone(&service));
        });
        Ok(service)
    }

    /// Replaces a service's attributes. Connections and templates stay as they are.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::Granularity`]
    pub fn edit_service(
        &self,
        key: &ServiceKey,
        config: ServiceConfig,
    ) -> Result<(), ServiceError> {
        let _control = self.control.lock();
        self.service(key)
            .ok_or(ServiceError::NotFound)?
            .edit(config)
    }

    /// Removes a service and its servers. Their connections end in their own time; their packets
    /// are dropped.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]
    pub fn remove_service(&self, now: Instant, key: &ServiceKey) -> Result<(), ServiceError> {
        let now = self.epoch.nanos(now);
        let mut control = self.control.lock();
        let service = self.service(key).ok_or(ServiceError::NotFound)?;
        self.change_services(|services| {
            services.remove(key);
        });
        for server in service.unlink_all() {
            control.trash.put(now, &service, *key, server);
        }
        self.publish(&control);
        Ok(())
    }

    /// The service with this identity.
    pub fn service(&self, key: &ServiceKey) -> Option<Arc<VirtualService>> {
        self.snapshot.load().services.get(key).cloned()
    }

    /// All services in the order of their keys.
    pub fn services(&self) -> Vec<Arc<VirtualService>> {
        let mut services: Vec<_> = self.snapshot.load().services.values().cloned().collect();
        services.sort_unstable_by_key(|service| service.key());
        services
    }

    /// Adds a server at the front of a service's list. One that was removed lately comes back with
    /// its connections.
    ///
    /// # Errors
    /// [`ServerError`]
    pub fn add_server(
        &self,
        now: Instant,
        key: &ServiceKey,
        addr: SocketAddr,
        config: ServerConfig,
    ) -> Result<Arc<RealServer>, ServerError> {
        self.epoch.nanos(now);
        let mut control = self.control.lock();
        let service = self.service(key).ok_or(ServerError::NoService)?;
        service.check_server(addr, &config)?;
        if service.server(addr).is_some() {
            return Err(ServerError::Exists);
        }
        let revived = control.trash.revive(&service, *key, addr);
        self.publish(&control);
        match revived {
            Some(server) => service.insert(server, &config),
            None => service.add_server(addr, config),
        }
    }

    /// Replaces a server's parameters.
    ///
    /// # Errors
    /// [`ServerError`]
    pub fn edit_server(
        &self,
        now: Instant,
        key: &ServiceKey,
        addr: SocketAddr,
        config: ServerConfig,
    ) -> Result<(), ServerError> {
        self.epoch.nanos(now);
        let _control = self.control.lock();
        self.service(key)
            .ok_or(ServerError::NoService)?
            .edit_server(addr, config)
    }

    /// Removes a server. Its connections stay until they end or the server comes back; their
    /// packets are dropped (see [`Tunables::expire_nodest_conn`]).
    ///
    /// # Errors
    /// [`ServerError`]
    pub fn remove_server(
        &self,
        now: Instant,
        key: &ServiceKey,
        addr: SocketAddr,
    ) -> Result<(), ServerError> {
        let now = self.epoch.nanos(now);
        let mut control = self.control.lock();
        let service = self.service(key).ok_or(ServerError::NoService)?;
        let server = service.remove_server(addr)?;
        control.trash.put(now, &service, *key, server);
        self.publish(&control);
        Ok(())
    }

    /// Replaces the adjustable timeouts; a zero leaves that one as it is.
    pub fn set_timeouts(&self, timeouts: Timeouts) {
        let _control = self.control.lock();
        self.change(|snapshot| {
            let keep = |new: Duration, old: Duration| if new.is_zero() { old } else { new };
            let old = snapshot.timeouts;
            snapshot.timeouts = Timeouts {
                tcp: keep(timeouts.tcp, old.tcp),
                tcp_fin: keep(timeouts.tcp_fin, old.tcp_fin),
                udp: keep(timeouts.udp, old.udp),
            };
            snapshot.timings = Timings::new(&snapshot.timeouts);
        });
    }

    /// The adjustable timeouts.
    pub fn timeouts(&self) -> Timeouts {
        self.snapshot.load().timeouts
    }

    /// Replaces the tunables; they act on the next packet.
    pub fn set_tunables(&self, tunables: Tunables) {
        let _control = self.control.lock();
        self.change(|snapshot| snapshot.tunables = tunables);
    }

    /// The tunables.
    pub fn tunables(&self) -> Tunables {
        self.snapshot.load().tunables
    }

    /// Traffic of all services since creation or the last [`zero`](Self::zero).
    pub fn stats(&self) -> Stats {
        self.zero.read(self.raw_stats())
    }

    /// Starts all statistics from zero: totals, services and servers. Drop counts go on.
    pub fn zero(&self) {
        self.services().iter().for_each(|service| service.zero());
        self.zero.zero(self.raw_stats());
    }

    /// Packets that workers dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        let totals = self.totals.lock();
        totals
            .workers
            .iter()
            .fold(totals.past_dropped[reason as usize], |sum, worker| {
                sum + worker.dropped(reason)
            })
    }

    /// All persistence templates, in no particular order.
    pub fn templates(&self) -> Vec<TemplateInfo> {
        self.templates.infos(&self.epoch)
    }

    /// Ends templates and forgets removed servers whose time has come.
    pub fn handle_timeout(&self, now: Instant) {
        let now = self.epoch.nanos(now);
        self.templates.handle_timeout(now);
        if self.trash_next.load(Ordering::Relaxed) <= now {
            let mut control = self.control.lock();
            control.trash.handle_timeout(now);
            self.publish(&control);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None` means never.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.epoch.instant(
            self.templates
                .next()
                .min(self.trash_next.load(Ordering::Relaxed)),
        )
    }

    pub(crate) fn retire_worker(&self, counters: &Arc<WorkerCounters>) {
        let mut totals = self.totals.lock();
        totals
            .workers
            .retain(|worker| !Arc::ptr_eq(worker, counters));
        totals.past = totals.past.plus(counters.raw());
        for reason in DropReason::ALL {
            totals.past_dropped[reason as usize] += counters.dropped(reason);
        }
    }

    fn raw_stats(&self) -> Stats {
        let totals = self.totals.lock();
        totals
            .workers
            .iter()
            .fold(totals.past, |sum, worker| sum.plus(worker.raw()))
    }

    /// Called under the control lock, so no change is lost.
    fn change(&self, f: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = Snapshot::clone(&self.snapshot.load());
        f(&mut snapshot);
        self.snapshot.store(Arc::new(snapshot));
    }

    fn change_services(&self, f: impl FnOnce(&mut ServiceMap)) {
        self.change(|snapshot| f(Arc::make_mut(&mut snapshot.services)));
    }

    fn publish(&self, control: &Control) {
        self.trash_next
            .store(control.trash.next(), Ordering::Relaxed);
    }
}

impl Snapshot {
    /// The service of a client's packet: mark, exact address and port, FTP's data ports, every
    /// port.
    pub(crate) fn find(&self, packet: &Packet) -> Option<&Arc<VirtualService>> {
        let (vip, port, protocol) = (
            packet.destination.ip(),
            packet.destination.port(),
            packet.protocol,
        );
        if let Some(mark) = NonZeroU32::new(packet.mark) {
            let family = if vip.is_ipv4() {
                Family::Inet
            } else {
                Family::Inet6
            };
            if let Some(service) = self.services.get(&ServiceKey::Mark { family, mark }) {
                return Some(service);
            }
        }
        let at = |vport| {
            self.services.get(&ServiceKey::Address {
                protocol,
                vip,
                vport,
            })
        };
        let may_be_ftp_data = protocol == Protocol::Tcp
            && (port == FTP_DATA || port >= self.tunables.unprivileged_port_start);
        at(port)
            .or_else(|| if may_be_ftp_data { at(FTP) } else { None })
            .or_else(|| at(0))
    }
}

pub(crate) const FTP: u16 = 21;
pub(crate) const FTP_DATA: u16 = 20;
