//! The data path while the director runs: workers with their rings, the claim, the way back to the host, and the picture
//! of the surroundings that the workers see.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lvs_fwd::claim::ClaimError;
use lvs_fwd::device::Device;
use lvs_fwd::device::raw::Raw;
use lvs_fwd::device::xdp::XdpError;
use lvs_fwd::handoff::Origin;
use lvs_fwd::mirror::Mirror;
use lvs_fwd::netlink::{Link, NetlinkError};
use lvs_fwd::runner::{self, Control, DeviceReport, RunnerConfig, Worker};
use lvs_fwd::stats::{self, Counters, DropReason, LeftReason};
use lvs_fwd::tun::{LocalReplies, Tun, TunError};
use lvs_fwd::view::{ClaimSet, Endpoint, Port, PortId, TunnelOptions, View};
use lvs_sched::{ConnectionInfo, Director};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{debug, error, info, warn};

use crate::balance::SchedBalancer;
use crate::cli::RunOptions;
use crate::control::counters;
use crate::control::protocol::{self, WorkerCounters};
use crate::devices::{Devices, Kind};
use crate::logging::chain;
use crate::tunnels::Tunnels;

/// Workers, claim and view of a running director.
#[derive(Debug)]
pub struct DataPath {
    control: Control,
    threads: Vec<WorkerThread>,
    mirror: Mirror,
    devices: Devices,
    /// Every port that there ever was; [`PortId`] is the place.
    ports: Vec<KnownPort>,
    claims: Arc<ClaimSet>,
    tunnels: TunnelOptions,
    /// Index of the TUN device, and the rules that lead to it; `None` without one.
    host: Option<(u32, LocalReplies)>,
    /// Whether raw sockets are the way to the host.
    is_raw: bool,
}

/// A port, by the name of its interface.
#[derive(Debug)]
struct KnownPort {
    name: String,
    state: PortState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortState {
    /// Every worker has a device at this interface.
    Open(OpenInterface),
    /// The interface with this index can't be used; it is not tried again.
    Refused(u32),
    /// There is no such interface.
    Gone,
}

/// What an open interface was when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OpenInterface {
    index: u32,
    kind: Kind,
    mac: Option<[u8; 6]>,
    mtu: u32,
}

impl OpenInterface {
    fn new(link: &Link, kind: Kind) -> Self {
        Self {
            index: link.index,
            kind,
            mac: link.mac,
            mtu: link.mtu,
        }
    }

    /// Whether its devices can go on with the interface as it is now.
    fn serves(&self, link: &Link) -> bool {
        match self.kind {
            Kind::Ring => self.index == link.index,
            Kind::Xdp | Kind::Pnet => *self == Self::new(link, self.kind),
        }
    }
}

/// A worker's thread, and where questions to it go.
#[derive(Debug)]
struct WorkerThread {
    thread: JoinHandle<()>,
    questions: Sender<Question>,
}

type Question = Box<dyn FnOnce(&mut Worker<SchedBalancer>) + Send>;

impl DataPath {
    /// Starts the workers and opens rings at all Ethernet interfaces that are there; those that appear later are taken
    /// in then. Nothing is claimed yet. The number of a worker whose thread ends arrives at the receiver.
    ///
    /// # Errors
    ///
    /// What the system refused, named. Nothing is left behind.
    pub fn start(
        options: &RunOptions,
        scheduler: &Arc<Director>,
        tunnels: &Arc<Tunnels>,
    ) -> Result<(Self, UnboundedReceiver<usize>), StartError> {
        let tun = open_tun()?;
        let host = match &tun {
            Some(tun) => Some((tun.ifindex(), LocalReplies::open(tun)?)),
            None => None,
        };
        let none: [&str; 0] = [];
        let mirror = Mirror::open(&none)?;
        let workers = options.workers.get();
        let mut devices = Devices::new(options.device, workers, options.ring_slots.get())?;
        devices.set_hostless(host.is_none())?;
        let config = RunnerConfig {
            workers,
            ..RunnerConfig::default()
        };
        let (control, seats) = runner::new(config, View::default()).map_err(StartError::Runner)?;
        let mut path = Self {
            control,
            threads: Vec::new(),
            mirror,
            devices,
            ports: Vec::new(),
            claims: Arc::default(),
            tunnels: TunnelOptions::default(),
            host,
            is_raw: false,
        };
        // The first worker has the way to the host; the others' packets go through it.
        let mut host = match tun {
            Some(tun) => Some(Box::new(tun) as Box<dyn Device>),
            None => open_raw(),
        };
        path.is_raw = path.host.is_none() && host.is_some();
        let (ended, failures) = unbounded_channel();
        for seat in seats {
            // The data path finds the worker of an answer by the port that this one chose.
            let worker = scheduler.worker_of(seat.number(), workers);
            let balancer = SchedBalancer::new(worker, Arc::clone(tunnels));
            let worker = seat.start(balancer, Vec::new(), host.take());
            let thread = start_thread(path.threads.len(), worker, ended.clone());
            path.threads.push(thread.map_err(StartError::Thread)?);
        }
        info!("{workers} workers");
        path.follow_interfaces(true)?;
        if path.ports.is_empty() {
            warn!("there is no Ethernet interface in this network namespace yet");
        }
        path.warn_of_policy();
        path.tell_local();
        path.publish();
        Ok((path, failures))
    }

    /// Claims exactly this from the host, from now on: first the claim grows, then the workers learn of it, and when
    /// none works under the old picture any more the claim shrinks.
    ///
    /// # Errors
    ///
    /// What the kernel refused. The old claim is still in force if it refused to grow.
    pub async fn set_claims(&mut self, wanted: ClaimSet) -> Result<(), StartError> {
        // Also where the last change was refused half-way.
        if *self.claims == wanted && self.devices.has_claimed(&wanted) {
            return Ok(());
        }
        self.grow_claims(&wanted)?;
        self.show_claims(wanted).await;
        self.shrink_claims()
    }

    /// Takes more from the host, for a change that is to come. Until the workers are [shown](Self::show_claims) what it
    /// is for they give it back to the host, so that nothing has changed yet.
    ///
    /// # Errors
    ///
    /// What the kernel refused; then the claim is what it was.
    pub fn grow_claims(&mut self, more: &ClaimSet) -> Result<(), StartError> {
        let all = more.joined(&self.claims);
        let outcome = self.devices.replace(&all);
        if outcome.is_err()
            && let Err(error) = self.shrink_claims()
        {
            warn!("{}", chain(&error));
        }
        outcome
    }

    /// Tells the workers what is claimed, which has to be taken from the host by now. Returns when none of them works
    /// under the old picture any more.
    pub async fn show_claims(&mut self, claims: ClaimSet) {
        if *self.claims == claims {
            return;
        }
        self.claims = Arc::new(claims);
        self.lead_local_replies();
        let generation = self.publish();
        let patience = Instant::now() + QUIET_PATIENCE;
        while !self.control.is_quiet(generation) && Instant::now() < patience {
            tokio::time::sleep(QUIET_POLL).await;
        }
    }

    /// Leaves to the host what the workers were not shown last.
    ///
    /// # Errors
    ///
    /// What the kernel refused; then more is taken than is wanted, and the workers give it back.
    pub fn shrink_claims(&mut self) -> Result<(), StartError> {
        self.devices.replace(&self.claims)
    }

    /// The kernel's tables have changed: takes in what is new and tells the workers. Returns whether interfaces came or
    /// went.
    pub fn handle_system_change(&mut self) -> bool {
        let before = self.mirror.snapshot().ports;
        let changed = match self.mirror.poll() {
            Ok(false) => return false,
            Ok(true) => self.follow_interfaces(false),
            Err(error) => Err(error.into()),
        };
        let changed = changed.unwrap_or_else(|error| {
            warn!("{}", chain(&error));
            false
        });
        self.log_ports(&before);
        self.tell_local();
        self.watch_tun();
        self.lead_local_replies();
        self.publish();
        changed
    }

    /// Opens rings at interfaces that appeared, also in the place of one that had the same name, and closes those of
    /// interfaces that went. Returns whether there were any.
    ///
    /// # Errors
    ///
    /// What can't be opened, if it `must` be; else that is logged.
    fn follow_interfaces(&mut self, must: bool) -> Result<bool, StartError> {
        let links: Vec<Link> = self
            .mirror
            .links()
            .filter(|link| is_port(link))
            .cloned()
            .collect();
        let mut changed = false;
        for place in 0..self.ports.len() {
            let port = &mut self.ports[place];
            let now = links.iter().find(|link| link.name == port.name);
            match port.state {
                PortState::Gone => continue,
                PortState::Refused(index) if now.is_some_and(|link| link.index == index) => {
                    continue;
                }
                PortState::Refused(_) => {}
                PortState::Open(open) if now.is_some_and(|link| open.serves(link)) => continue,
                PortState::Open(open) if now.is_some_and(|link| link.index == open.index) => {
                    info!("interface {} has changed: opened anew", port.name);
                    self.close(place);
                }
                PortState::Open(_) => {
                    info!("interface {} is gone: no more forwarding at it", port.name);
                    self.close(place);
                }
            }
            self.ports[place].state = PortState::Gone;
            changed = true;
        }
        let known: Vec<String> = self.ports.iter().map(|port| port.name.clone()).collect();
        for link in &links {
            let known = known.iter().position(|name| *name == link.name);
            if known.is_some_and(|place| self.ports[place].state != PortState::Gone) {
                continue;
            }
            let place = known.unwrap_or_else(|| {
                self.ports.push(KnownPort {
                    name: link.name.clone(),
                    state: PortState::Gone,
                });
                self.ports.len() - 1
            });
            changed = true;
            match self.open(place, link) {
                Ok(port) => {
                    self.ports[place].state = PortState::Open(OpenInterface::new(link, port.0));
                    info!("forwarding at {} by {}, {}", link.name, port.0, port.1);
                }
                Err(error) if must => return Err(error),
                Err(error) => {
                    error!("no forwarding at {}: {}", link.name, chain(&error));
                    self.ports[place].state = PortState::Refused(link.index);
                    // It may be that nothing can be claimed at it.
                    if let Err(error) = self.claim_at_rings() {
                        warn!("{}", chain(&error));
                    }
                }
            }
        }
        if changed {
            let names: Vec<&str> = self.ports.iter().map(|port| port.name.as_str()).collect();
            self.mirror.set_ports(&names);
            self.mirror.poll()?;
        }
        Ok(changed)
    }

    fn claim_at_rings(&mut self) -> Result<(), StartError> {
        self.devices.claim_at(&ring_names(&self.ports))
    }

    /// Opens the interface for every worker. Returns what kind the devices are, and how they work.
    fn open(&mut self, place: usize, link: &Link) -> Result<(Kind, String), StartError> {
        let Ok(number) = u16::try_from(place) else {
            return Err(StartError::TooManyInterfaces);
        };
        let port = self.devices.open(link, &ring_names(&self.ports))?;
        for (worker, device) in self.threads.iter().zip(port.devices) {
            // A worker that has ended is noticed elsewhere.
            let _ = worker.questions.send(Box::new(move |worker| {
                worker.set_port(PortId(number), device);
            }));
        }
        self.control.wake();
        Ok((port.kind, port.description))
    }

    /// Takes an interface's devices from the workers, and waits a moment for that: there can be only one steering program.
    fn close(&self, place: usize) {
        let (done, closed) = mpsc::channel::<()>();
        for worker in &self.threads {
            let port = PortId(u16::try_from(place).unwrap_or(u16::MAX));
            let done = done.clone();
            let _ = worker.questions.send(Box::new(move |worker| {
                worker.remove_port(port);
                drop(done);
            }));
        }
        drop(done);
        self.control.wake();
        // Ends when the last one has dropped its end.
        let _ = closed.recv_timeout(QUIET_PATIENCE);
    }

    /// The host's own addresses.
    pub fn host_addresses(&self) -> Vec<std::net::IpAddr> {
        self.mirror.snapshot().local.sorted()
    }

    /// Rules that choose a route by more than the destination have no effect on what the director forwards.
    fn warn_of_policy(&mut self) {
        match self.mirror.netlink().rules() {
            Ok(rules) => rules.iter().filter(|rule| rule.is_policy()).for_each(|rule| {
                warn!("packets of services do not follow this routing rule, but the main table: {rule}");
            }),
            Err(error) => debug!("{}", chain(&error)),
        }
    }

    /// The claim must know the host's addresses.
    fn tell_local(&mut self) {
        if let Err(error) = self.devices.set_local(&self.mirror.snapshot().local) {
            warn!("{}", chain(&error));
        }
    }

    /// Somebody may remove the TUN device; then the director goes on as one that never had it.
    fn watch_tun(&mut self) {
        let Some((ifindex, _)) = &self.host else {
            return;
        };
        if self.mirror.links().any(|link| link.index == *ifindex) {
            return;
        }
        error!("the TUN device has been removed: {WITHOUT_HOST}; start the director anew");
        self.host = None;
        if let Err(error) = self.devices.set_hostless(true) {
            warn!("{}", chain(&error));
        }
        for worker in &self.threads {
            let _ = worker.questions.send(Box::new(Worker::remove_host));
        }
        self.control.wake();
    }

    /// One line for each interface that went up or down.
    fn log_ports(&self, before: &[Port]) {
        let after = self.mirror.snapshot().ports;
        let has = |ports: &[Port], one: &Port| ports.iter().any(|port| port.index == one.index);
        for port in before.iter().filter(|port| !has(&after, port)) {
            let state = self.ports.get(usize::from(port.index.0));
            if state.is_some_and(|port| port.state != PortState::Gone) {
                warn!("interface {} is down", port.name);
            }
        }
        for port in after.iter().filter(|port| !has(before, port)) {
            info!("interface {} is up", port.name);
        }
    }

    /// Workers want neighbours resolved: asks the kernel.
    pub fn handle_resolve_requests(&mut self) {
        while let Some(hop) = self.control.poll_resolve() {
            if let Err(error) = self.mirror.netlink().probe_neighbour(&hop) {
                debug!("{}", chain(&error));
            }
        }
    }

    /// Readable when [`handle_system_change`](Self::handle_system_change) is due.
    pub fn system_changes(&self) -> BorrowedFd<'_> {
        self.mirror.as_fd()
    }

    /// Readable when [`handle_resolve_requests`](Self::handle_resolve_requests) is due.
    pub fn resolve_requests(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Logs what happened to frames since the start: of all workers together, and only what happened at all.
    pub fn log_counters(&mut self) {
        let counters = self.control.counters();
        let sum = |count: &dyn Fn(&Counters) -> u64| -> u64 {
            counters.iter().map(|counters| count(counters)).sum()
        };
        for event in stats::Event::ALL {
            let count = sum(&|counters| counters.events(event));
            if count > 0 {
                info!("packets {event:?}: {count}");
            }
        }
        for reason in DropReason::ALL {
            let count = sum(&|counters| counters.drops(reason));
            if count > 0 {
                info!("packets dropped, {}: {count}", reason.name());
            }
        }
        for reason in lvs_sched::DropReason::ALL {
            let count = sum(&|counters| counters.balancer_drops(reason as u8));
            if count > 0 {
                info!("packets dropped by the balancer, {reason}: {count}");
            }
        }
        for reason in LeftReason::ALL {
            let count = sum(&|counters| counters.left(reason));
            if count > 0 {
                info!("frames left to the host, {reason:?}: {count}");
            }
        }
        for (worker, devices) in self.control.devices().into_iter().enumerate() {
            for DeviceReport { origin, counters } in devices {
                let name = self.name_of(origin);
                info!("worker {worker} at {name}: {counters:?}");
            }
        }
        match self.devices.counters() {
            Ok(claimed) => info!(
                "claimed from the host: {} packets to services, {} from real servers, {} ICMP errors",
                claimed.to_services, claimed.from_servers, claimed.errors
            ),
            Err(error) => warn!("{}", chain(&error)),
        }
    }

    /// What each worker has counted since the start; connections are not among it.
    pub fn counters(&self) -> Vec<WorkerCounters> {
        let devices = self.control.devices();
        let counters = self.control.counters().iter().zip(devices).enumerate();
        counters
            .map(|(number, (counters, devices))| {
                let devices = devices
                    .iter()
                    .map(|report| (self.name_of(report.origin), report.counters));
                counters::worker(number, counters, devices)
            })
            .collect()
    }

    /// What the claim took from the host; empty if the kernel does not tell.
    pub fn claimed(&mut self) -> Vec<protocol::Counter> {
        match self.devices.counters() {
            Ok(claimed) => counters::claimed(&claimed),
            Err(error) => {
                warn!("{}", chain(&error));
                Vec::new()
            }
        }
    }

    fn name_of(&self, origin: Origin) -> &str {
        match origin {
            Origin::Host => "the host",
            Origin::Port(port) => self
                .ports
                .get(usize::from(port.0))
                .map_or("?", |port| port.name.as_str()),
        }
    }

    /// Number of workers.
    pub fn workers(&self) -> u32 {
        u32::try_from(self.threads.len()).unwrap_or(u32::MAX)
    }

    /// Asks every worker for its connections; each answers once, between two batches.
    pub fn ask_connections(
        &self,
        answer: &tokio::sync::mpsc::UnboundedSender<Vec<ConnectionInfo>>,
    ) {
        self.ask(answer, |worker| {
            worker.balancer().worker().connections().collect()
        });
    }

    /// Asks one worker, by its number.
    pub fn ask_worker<T: Send + 'static>(
        &self,
        number: u32,
        question: impl FnOnce(&mut Worker<SchedBalancer>) -> T + Send + 'static,
    ) -> tokio::sync::oneshot::Receiver<T> {
        let (answer, receiver) = tokio::sync::oneshot::channel();
        if let Some(worker) = self.threads.get(number as usize) {
            // A worker that has ended answers nothing; the asker notices.
            let _ = worker.questions.send(Box::new(move |worker| {
                let _ = answer.send(question(worker));
            }));
        }
        self.control.wake();
        receiver
    }

    /// The surroundings as the workers see them.
    pub fn view(&self) -> Arc<View> {
        self.control.view()
    }

    fn ask<T: Send + 'static>(
        &self,
        answer: &tokio::sync::mpsc::UnboundedSender<T>,
        question: fn(&mut Worker<SchedBalancer>) -> T,
    ) {
        for worker in &self.threads {
            let answer = answer.clone();
            // A worker that has ended answers nothing; the asker notices when all senders are gone.
            let _ = worker.questions.send(Box::new(move |worker| {
                let _ = answer.send(question(worker));
            }));
        }
        self.control.wake();
    }

    /// How tunnels treat large packets, from now on.
    pub fn set_tunnels(&mut self, tunnels: TunnelOptions) {
        if self.tunnels != tunnels {
            self.tunnels = tunnels;
            self.publish();
        }
    }

    /// Makes the present picture the workers' view.
    fn publish(&self) -> u64 {
        let snapshot = self.mirror.snapshot();
        self.control.publish(View {
            generation: 0,
            claims: Arc::clone(&self.claims),
            routes: snapshot.routes,
            neighbours: snapshot.neighbours,
            ports: snapshot.ports,
            local: snapshot.local,
            hostless: self.host.is_none() && !self.is_raw,
            one_way: self.is_raw,
            tunnels: self.tunnels,
        })
    }

    /// Replies of NAT servers on this host come to the workers through the TUN device.
    fn lead_local_replies(&mut self) {
        let Some((_, replies)) = &mut self.host else {
            return;
        };
        let local = self.mirror.snapshot().local;
        let servers: Vec<Endpoint> = self
            .claims
            .servers()
            .into_iter()
            .filter(|server| local.contains(&server.addr))
            .collect();
        if let Err(error) = replies.set(&servers) {
            warn!("{}", chain(&error));
        }
    }
}

impl Drop for DataPath {
    /// Stops the workers. The fields give everything back to the host after them.
    fn drop(&mut self) {
        self.control.stop();
        for worker in self.threads.drain(..) {
            if worker.thread.join().is_err() {
                warn!("a worker had failed");
            }
        }
    }
}

/// Why the data path could not be started or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There are more interfaces than ports can be numbered.
    #[error("too many interfaces")]
    TooManyInterfaces,
    /// A packet socket could not be opened.
    #[error("can't open a packet socket at {interface} (CAP_NET_RAW is needed)")]
    Ring {
        /// The interface.
        interface: String,
        /// What the system says.
        source: io::Error,
    },
    /// AF_XDP is not to be had.
    #[error("AF_XDP is asked for, and does not work here")]
    Xdp(#[source] XdpError),
    /// An interface can't be opened with AF_XDP.
    #[error("can't open {interface} with AF_XDP; `--device auto` or `ring` take packet rings")]
    XdpAt {
        /// The interface.
        interface: String,
        /// What was refused.
        source: XdpError,
    },
    /// The table of what steering programs claim could not be changed or read.
    #[error("the claim of the steering programs was refused")]
    XdpClaim(#[source] io::Error),
    /// The claim was refused.
    #[error("the nftables claim was refused (CAP_NET_ADMIN is needed)")]
    Claim(#[from] ClaimError),
    /// The TUN device was refused.
    #[error("no way back to the host")]
    Tun(#[from] TunError),
    /// Netlink was refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The workers' queues could not be made.
    #[error("can't make the workers' queues")]
    Runner(#[source] io::Error),
    /// A thread could not be started.
    #[error("can't start a worker thread")]
    Thread(#[source] io::Error),
}

/// Interfaces that frames are taken from and sent to: Ethernet, and not part of a bridge or bond, which stands for them.
fn is_port(link: &Link) -> bool {
    !link.loopback && link.mac.is_some() && link.controller.is_none()
}

/// The way back to the host. Without one the director still balances: containers and user namespaces often have none.
fn open_tun() -> Result<Option<Tun>, TunError> {
    match Tun::open() {
        Ok(tun) => {
            if tun.is_filtered() {
                warn!(
                    "net.ipv4.conf.all.rp_filter is strict: the host drops what {} gives back to it; set it to 0 or 2",
                    tun.name()
                );
            }
            Ok(Some(tun))
        }
        Err(error @ TunError::Open(_)) => {
            info!("{}", chain(&error));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The way to the host where there is no TUN device: the host gets its packets, but its answers go their own way.
fn open_raw() -> Option<Box<dyn Device>> {
    match Raw::open(None) {
        Ok(raw) => {
            warn!(
                "without a TUN device raw sockets lead to the host; a real server on this host can be used by DR, not by NAT"
            );
            Some(Box::new(raw))
        }
        Err(error) => {
            warn!("no way back to the host (raw sockets: {error}): {WITHOUT_HOST}");
            None
        }
    }
}

fn ring_names(ports: &[KnownPort]) -> Vec<&str> {
    ports
        .iter()
        .filter(|port| matches!(port.state, PortState::Open(open) if open.kind != Kind::Xdp))
        .map(|port| port.name.as_str())
        .collect()
}

/// Tells that a worker's thread has ended, however it did.
struct Ended(UnboundedSender<usize>, usize);

impl Drop for Ended {
    fn drop(&mut self) {
        // Nobody listens any more when the director itself ends.
        let _ = self.0.send(self.1);
    }
}

fn start_thread(
    number: usize,
    mut worker: Worker<SchedBalancer>,
    ended: UnboundedSender<usize>,
) -> io::Result<WorkerThread> {
    let (questions, inbox) = mpsc::channel::<Question>();
    let thread = std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            let _ended = Ended(ended, number);
            let mut quiet_until: Option<Instant> = None;
            while !worker.is_stopped() {
                if let Err(error) = worker.run_once(PATIENCE) {
                    // An interface that is down may be so for every batch: say so now and then, go on.
                    let now = Instant::now();
                    if quiet_until.is_none_or(|until| now >= until) {
                        quiet_until = Some(now + COMPLAINT_PAUSE);
                        debug!("worker {number}: {error}");
                    }
                }
                for question in inbox.try_iter() {
                    question(&mut worker);
                }
            }
        })?;
    Ok(WorkerThread { thread, questions })
}

const WITHOUT_HOST: &str = "what a service's address gets beyond its connections is refused instead of given to the \
                           host, and a real server on this host can't be used";

/// How long a worker waits when nothing happens at all.
const PATIENCE: Duration = Duration::from_secs(1);

const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// How long a change waits for workers to pass it. A worker that hangs must not stop the director.
const QUIET_PATIENCE: Duration = Duration::from_millis(500);

const QUIET_POLL: Duration = Duration::from_millis(1);
