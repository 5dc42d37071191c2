//! The shared half: services, templates, trash, totals and settings.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ahash::RandomState;
use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};

use crate::conn::state::Timings;
use crate::defence::{self, Random, Sampling};
use crate::local::LocalPorts;
use crate::path::family_of;
use crate::persist::Templates;
use crate::stats::{Meter, Shards, WorkerCounters};
use crate::time::{Epoch, NEVER, Nanos, seconds};
use crate::trash::Trash;
use crate::{
    DirectorConfig, DropReason, ForwardMethod, LocalError, PersistenceEngine, Protocol, Rates,
    RealServer, Seeds, ServerConfig, ServerError, ServiceConfig, ServiceError, ServiceKey, Stats,
    TemplateInfo, Timeouts, Tunables, VirtualService, Worker,
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
    local_ports: RangeInclusive<u16>,
    pub(crate) defence: defence::Shared,
    /// Rises when connections of servers that are gone shall be looked for.
    pub(crate) sweeps: AtomicU64,
    /// Of samples; each worker has another one.
    seed: AtomicU64,
    control: Mutex<Control>,
    /// The next time of the trash and the defences, readable without the lock.
    control_next: AtomicU64,
    /// Servers of services by address, the one added last at the end; for packets that come from
    /// servers without a connection.
    servers: RwLock<HashMap<SocketAddr, Vec<Listed>, RandomState>>,
    totals: Mutex<Totals>,
    meter: Meter,
    estimation: Mutex<Estimation>,
    /// Free memory in pages, as last told.
    available: AtomicU64,
}

#[derive(Debug)]
struct Listed {
    service: Arc<VirtualService>,
    server: Arc<RealServer>,
}

#[derive(Debug, Default)]
struct Estimation {
    /// Periods end at multiples of their length.
    next: Nanos,
    /// Whether averages are on their way to zero.
    moving: bool,
    /// The totals that were seen.
    seen: Stats,
}

/// What workers read without a lock. A change makes a new one.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    services: Arc<ServiceMap>,
    timeouts: Timeouts,
    pub(crate) timings: Timings,
    pub(crate) tunables: Tunables,
    engines: Arc<HashMap<ServiceKey, Arc<dyn PersistenceEngine>, RandomState>>,
    /// Whether an engine wants packets that come from servers.
    pub(crate) accepts_servers: bool,
    local: Arc<HashSet<IpAddr, RandomState>>,
    /// See [`Director::set_backup`].
    is_backup: bool,
    /// One in so many packets that would open a connection is dropped; 0 = none.
    pub(crate) drop_rate: i64,
}

type ServiceMap = HashMap<ServiceKey, Arc<VirtualService>, RandomState>;

/// Owned by whoever changes the configuration.
#[derive(Debug)]
struct Control {
    trash: Trash,
    /// When the defences are judged again.
    defence_next: Nanos,
    sampling: Sampling,
    random: Random,
}

#[derive(Debug, Default)]
struct Totals {
    workers: Vec<Arc<WorkerCounters>>,
    shards: Shards,
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
            engines: Arc::new(HashMap::with_hasher(hasher.clone())),
            accepts_servers: false,
            local: Arc::new(HashSet::with_hasher(hasher.clone())),
            is_backup: false,
            drop_rate: 0,
        };
        let defence_next = if defence::is_on(&config.tunables) {
            0
        } else {
            NEVER
        };
        Self {
            epoch: Epoch::default(),
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            templates: Templates::new(hasher.clone(), config.max_templates),
            servers: RwLock::new(HashMap::with_hasher(hasher.clone())),
            hasher,
            local_ports: config.local_ports,
            max_connections: config.max_connections.min(u32::MAX as usize / 4),
            defence: defence::Shared::default(),
            sweeps: AtomicU64::new(0),
            seed: AtomicU64::new(a ^ b.rotate_left(32)),
            control: Mutex::new(Control {
                trash: Trash::new(),
                defence_next,
                sampling: Sampling::default(),
                random: Random::new(c ^ d.rotate_left(32)),
            }),
            control_next: AtomicU64::new(defence_next),
            totals: Mutex::default(),
            meter: Meter::default(),
            estimation: Mutex::new(Estimation {
                next: ESTIMATION,
                ..Estimation::default()
            }),
            available: AtomicU64::new(u64::MAX),
        }
    }

    /// A data-path thread's half. All packets of one client must go to the same worker.
    ///
    /// Where there are several workers and FULLNAT, each needs a number: see [`worker_of`](Self::worker_of).
    pub fn worker(self: &Arc<Self>) -> Worker {
        self.worker_of(0, 1)
    }

    /// The half of the thread with this number, from 0, of so many. No other worker may have the number: the low bits of
    /// FULLNAT's local ports name it, so that a server's answers find their worker. With `s` the smallest number for which
    /// 2^s is not less than `workers`, `port mod 2^s` is the worker's number.
    pub fn worker_of(self: &Arc<Self>, number: u32, workers: u32) -> Worker {
        let counters = {
            let mut totals = self.totals.lock();
            let counters = Arc::new(WorkerCounters::new(totals.shards.take()));
            totals.workers.push(Arc::clone(&counters));
            counters
        };
        let seed = self
            .seed
            .fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let ports = LocalPorts::new(self.hasher.clone(), &self.local_ports, number, workers);
        Worker::new(Arc::clone(self), counters, seed, ports)
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
        let service = Arc::new(VirtualService::with_key(
            key,
            config,
            self.scheduler_seeds(&key),
        )?);
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
    /// are dropped (see [`Tunables::expire_nodest_conn`]).
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
        self.change_engine(key, None);
        for server in service.unlink_all() {
            self.unlist(&server);
            control.trash.put(now, &service, *key, server);
        }
        self.sweep();
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
        let added = match revived {
            Some(server) => service.insert(server, &config),
            None => service.add_server(addr, config),
        };
        if let Ok(server) = &added {
            self.servers.write().entry(addr).or_default().push(Listed {
                service,
                server: Arc::clone(server),
            });
        }
        added
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
        self.unlist(&server);
        control.trash.put(now, &service, *key, server);
        self.sweep();
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

    /// Replaces the tunables; they act on the next packet. A changed mode of a defence is judged at
    /// once, and [`tunables`](Self::tunables) shows what came out.
    pub fn set_tunables(&self, tunables: Tunables) {
        let mut control = self.control.lock();
        let modes = |tunables: &Tunables| {
            [
                tunables.drop_entry,
                tunables.drop_packet,
                tunables.secure_tcp,
            ]
        };
        let old = self.tunables();
        self.change(|snapshot| snapshot.tunables = tunables);
        if modes(&old) != modes(&tunables) {
            self.evaluate();
            if !defence::is_on(&tunables) {
                control.defence_next = NEVER;
                control.sampling.stop();
            } else if control.defence_next == NEVER {
                control.defence_next = 0;
            }
        }
        self.publish(&control);
    }

    /// The tunables.
    pub fn tunables(&self) -> Tunables {
        self.snapshot.load().tunables
    }

    /// Sets or takes away the persistence engine of a service. Editing the service leaves it.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]
    pub fn set_engine(
        &self,
        key: &ServiceKey,
        engine: Option<Arc<dyn PersistenceEngine>>,
    ) -> Result<(), ServiceError> {
        let _control = self.control.lock();
        self.service(key).ok_or(ServiceError::NotFound)?;
        self.change_engine(key, engine);
        Ok(())
    }

    /// The persistence engine of a service.
    pub fn engine(&self, key: &ServiceKey) -> Option<Arc<dyn PersistenceEngine>> {
        self.snapshot.load().engines.get(key).cloned()
    }

    /// Gives a service one more local address for its FULLNAT servers. New connections take it in turn with the others.
    ///
    /// # Errors
    /// [`LocalError`]
    pub fn add_local_address(&self, key: &ServiceKey, addr: IpAddr) -> Result<(), LocalError> {
        let _control = self.control.lock();
        if family_of(addr) != key.family() {
            return Err(LocalError::Family);
        }
        self.service(key)
            .ok_or(LocalError::NoService)?
            .locals
            .add(addr)
    }

    /// Takes a local address from a service. Connections that use it keep it until they end.
    ///
    /// # Errors
    /// [`LocalError::NoService`], [`LocalError::NotFound`]
    pub fn remove_local_address(&self, key: &ServiceKey, addr: IpAddr) -> Result<(), LocalError> {
        let _control = self.control.lock();
        self.service(key)
            .ok_or(LocalError::NoService)?
            .locals
            .remove(addr)
    }

    /// Tells which addresses are the director's own, for [`Tunables::cache_bypass`].
    pub fn set_local_addresses(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut local = HashSet::with_hasher(self.hasher.clone());
        local.extend(addresses);
        let _control = self.control.lock();
        if *self.snapshot.load().local != local {
            self.change(|snapshot| snapshot.local = Arc::new(local));
        }
    }

    /// Tells whether this director follows the connections of another one, for [`Tunables::backup_only`]. A new one
    /// does not.
    pub fn set_backup(&self, backup: bool) {
        let _control = self.control.lock();
        self.change(|snapshot| snapshot.is_backup = backup);
    }

    /// Tells how much memory is free, in pages of 4 KiB, for the automatic defences. They judge it
    /// once a second; until it is told, memory is never low.
    pub fn handle_memory(&self, now: Instant, available: u64) {
        self.epoch.nanos(now);
        self.available.store(available, Ordering::Relaxed);
    }

    /// Traffic of all services since creation or the last [`zero`](Self::zero).
    pub fn stats(&self) -> Stats {
        self.meter.read(self.raw_stats())
    }

    /// Smoothed rates of the traffic of all services.
    pub fn rates(&self) -> Rates {
        self.meter.rates()
    }

    /// Starts all statistics from zero: totals, services and servers. As in the kernel, what was
    /// counted since the last estimation (at most two seconds) shows up afterwards. Drop counts go
    /// on.
    pub fn zero(&self) {
        self.services().iter().for_each(|service| service.zero());
        self.meter.zero(self.raw_stats());
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

    /// Ends templates and forgets removed servers whose time has come, estimates rates and judges
    /// the defences.
    pub fn handle_timeout(&self, now: Instant) {
        let now = self.epoch.nanos(now);
        self.templates.handle_timeout(now);
        self.estimate(now);
        if self.control_next.load(Ordering::Relaxed) <= now {
            let mut control = self.control.lock();
            // What schedulers' caches forget until now no longer holds a removed server.
            if let Some(now) = self.epoch.instant(now) {
                self.services()
                    .iter()
                    .for_each(|service| service.handle_timeout(now));
            }
            control.trash.handle_timeout(now);
            self.defend(&mut control, now);
            self.publish(&control);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None` means never, until a packet
    /// passes or something is changed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = self
            .templates
            .next()
            .min(self.control_next.load(Ordering::Relaxed))
            .min(self.next_estimation());
        self.epoch.instant(next)
    }

    /// The server that masquerades behind this address for a service of the protocol, and the
    /// service; the one added last.
    pub(crate) fn nat_server(
        &self,
        protocol: Protocol,
        addr: SocketAddr,
    ) -> Option<(Arc<VirtualService>, Arc<RealServer>)> {
        let servers = self.servers.read();
        let serves = |listed: &&Listed| {
            listed.server.method() == ForwardMethod::Nat
                && match listed.service.key() {
                    Some(ServiceKey::Address { protocol: of, .. }) => of == protocol,
                    Some(ServiceKey::Mark { .. }) => true,
                    None => false,
                }
        };
        let found = servers.get(&addr)?.iter().rev().find(serves)?;
        Some((Arc::clone(&found.service), Arc::clone(&found.server)))
    }

    pub(crate) fn retire_worker(&self, counters: &Arc<WorkerCounters>) {
        let mut totals = self.totals.lock();
        totals
            .workers
            .retain(|worker| !Arc::ptr_eq(worker, counters));
        if let Some(shard) = counters.shard() {
            totals.shards.give(shard);
        }
        totals.past = totals.past.plus(counters.raw());
        for reason in DropReason::ALL {
            totals.past_dropped[reason as usize] += counters.dropped(reason);
        }
    }

    /// Services draw differently. The key of `maglev` is the same everywhere, so that directors can
    /// agree.
    fn scheduler_seeds(&self, key: &ServiceKey) -> Seeds {
        Seeds {
            draws: self.hasher.hash_one(key),
            ..Seeds::default()
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

    fn change_engine(&self, key: &ServiceKey, engine: Option<Arc<dyn PersistenceEngine>>) {
        self.change(|snapshot| {
            let engines = Arc::make_mut(&mut snapshot.engines);
            match engine {
                Some(engine) => engines.insert(*key, engine),
                None => engines.remove(key),
            };
            snapshot.accepts_servers = engines.values().any(|engine| engine.accepts_servers());
        });
    }

    fn publish(&self, control: &Control) {
        self.control_next.store(
            control.trash.next().min(control.defence_next),
            Ordering::Relaxed,
        );
    }

    fn unlist(&self, server: &Arc<RealServer>) {
        let mut servers = self.servers.write();
        if let Some(listed) = servers.get_mut(&server.addr()) {
            listed.retain(|listed| !Arc::ptr_eq(&listed.server, server));
            if listed.is_empty() {
                servers.remove(&server.addr());
            }
        }
    }

    /// Lets workers look for connections of servers that are gone.
    fn sweep(&self) {
        if self.tunables().expire_nodest_conn {
            self.sweeps.fetch_add(1, Ordering::Release);
        }
    }

    fn evaluate(&self) {
        let available = self.available.load(Ordering::Relaxed);
        let found = defence::evaluate(&self.tunables(), available);
        if found.restarts {
            self.defence.restart(found.rate);
        }
        let present = self.snapshot.load();
        let mut tunables = present.tunables;
        tunables.drop_entry = found.drop_entry;
        tunables.drop_packet = found.drop_packet;
        tunables.secure_tcp = found.secure_tcp;
        if tunables != present.tunables || present.drop_rate != found.rate {
            self.change(|snapshot| {
                snapshot.tunables = tunables;
                snapshot.drop_rate = found.rate;
            });
        }
    }

    fn defend(&self, control: &mut Control, now: Nanos) {
        if control.defence_next > now {
            return;
        }
        let Control {
            sampling,
            random,
            defence_next,
            ..
        } = control;
        if !sampling.is_pending() {
            self.evaluate();
        }
        *defence_next = now + defence::PERIOD;
        if self.tunables().drop_entry.is_active() {
            let count = u32::try_from(self.templates.len()).unwrap_or(u32::MAX);
            let draws = sampling.step(now, count);
            self.templates.thin(now, draws, random, &self.defence);
            *defence_next = sampling.next(now);
        } else {
            sampling.stop();
        }
    }

    fn estimate(&self, now: Nanos) {
        let mut estimation = self.estimation.lock();
        if now < estimation.next {
            return;
        }
        let missed = now - estimation.next >= ESTIMATION;
        let last = now / ESTIMATION * ESTIMATION;
        estimation.next = last + ESTIMATION;
        // After a rest: what woke it belongs to the period that ends next.
        let rested = !estimation.moving && missed && last != now;
        if rested || !self.tunables().run_estimation {
            return;
        }
        let raw = self.raw_stats();
        estimation.seen = raw;
        estimation.moving = self.meter.estimate(raw);
        for service in self.services() {
            estimation.moving |= service.estimate();
        }
    }

    fn next_estimation(&self) -> Nanos {
        let estimation = self.estimation.lock();
        let rests = !estimation.moving && estimation.seen == self.raw_stats();
        if rests || !self.tunables().run_estimation {
            NEVER
        } else {
            estimation.next
        }
    }
}

impl Snapshot {
    /// The service of a packet to `target`: mark, exact address and port, FTP's data ports, every
    /// port.
    pub(crate) fn find(
        &self,
        protocol: Protocol,
        target: SocketAddr,
        mark: u32,
    ) -> Option<&Arc<VirtualService>> {
        let (vip, port) = (target.ip(), target.port());
        if let Some(mark) = NonZeroU32::new(mark) {
            let family = family_of(vip);
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

    /// Whether the secure TCP tables apply.
    pub(crate) fn secure(&self) -> bool {
        self.tunables.secure_tcp.is_active()
    }

    pub(crate) fn engine(&self, service: &VirtualService) -> Option<&Arc<dyn PersistenceEngine>> {
        if self.engines.is_empty() {
            return None;
        }
        self.engines.get(&service.key()?)
    }

    /// Whether a packet without a server may go on to this address.
    /// Whether clients' packets are left to another director.
    pub(crate) fn only_follows(&self) -> bool {
        self.is_backup && self.tunables.backup_only
    }

    pub(crate) fn may_bypass_to(&self, ip: IpAddr) -> bool {
        let is_unicast = match ip {
            IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast()),
            IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast()),
        };
        is_unicast && !ip.is_loopback() && !self.local.contains(&ip)
    }
}

pub(crate) const FTP: u16 = 21;
pub(crate) const FTP_DATA: u16 = 20;
/// Length of an estimation period.
const ESTIMATION: Nanos = seconds(2);
