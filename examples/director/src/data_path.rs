//! The data path while the director runs: workers with their rings, the claim, the way back to the host, and the picture
//! of the surroundings that the workers see.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lvs_fwd::claim::{Claim, ClaimError};
use lvs_fwd::device::Device;
use lvs_fwd::device::ring::{Fanout, Ring, RingConfig};
use lvs_fwd::mirror::Mirror;
use lvs_fwd::netlink::{Link, Netlink, NetlinkError};
use lvs_fwd::runner::{self, Control, RunnerConfig, Worker};
use lvs_fwd::tun::{LocalReplies, Tun, TunError};
use lvs_fwd::view::{ClaimSet, Endpoint, PortId, View};
use lvs_sched::{ConnectionInfo, Director};
use tracing::{debug, info, warn};

use crate::balance::SchedBalancer;
use crate::cli::RunOptions;
use crate::logging::chain;

/// Workers, claim and view of a running director.
#[derive(Debug)]
pub struct DataPath {
    control: Control,
    threads: Vec<WorkerThread>,
    mirror: Mirror,
    claims: Arc<ClaimSet>,
    claim: Claim,
    /// `None` without a TUN device.
    local_replies: Option<LocalReplies>,
}

/// A worker's thread, and where questions to it go.
#[derive(Debug)]
struct WorkerThread {
    thread: JoinHandle<()>,
    questions: Sender<Question>,
}

type Question = Box<dyn FnOnce(&mut Worker<SchedBalancer>) + Send>;

impl DataPath {
    /// Opens rings at all Ethernet interfaces that are there, and starts the workers. Nothing is claimed yet.
    ///
    /// # Errors
    ///
    /// What the system refused, named. Nothing is left behind.
    pub fn start(options: &RunOptions, scheduler: &Arc<Director>) -> Result<Self, StartError> {
        let ports: Vec<Link> = Netlink::open()?
            .links()?
            .into_iter()
            .filter(is_port)
            .collect();
        let names: Vec<&str> = ports.iter().map(|link| link.name.as_str()).collect();
        if ports.is_empty() {
            return Err(StartError::NoInterface);
        }
        let tun = open_tun()?;
        let local_replies = tun.as_ref().map(LocalReplies::open).transpose()?;
        let mirror = Mirror::open(&names)?;
        let claim = Claim::install(&names, &ClaimSet::new())?;
        let workers = options.workers.get();
        let config = RunnerConfig {
            workers,
            ..RunnerConfig::default()
        };
        let (control, seats) = runner::new(config, View::default()).map_err(StartError::Runner)?;
        let mut path = Self {
            control,
            threads: Vec::new(),
            mirror,
            claims: Arc::default(),
            claim,
            local_replies,
        };
        let mut memory = 0;
        // The kernel numbers the rings of an interface in the order of their opening: worker by worker.
        let mut places: Vec<Vec<(PortId, Box<dyn Device>)>> = Vec::new();
        for _ in 0..workers {
            let mut devices: Vec<(PortId, Box<dyn Device>)> = Vec::new();
            for (port, link) in (0..).map(PortId).zip(&ports) {
                let ring = open_ring(link, port, options)?;
                memory += ring.memory();
                devices.push((port, Box::new(ring)));
            }
            places.push(devices);
        }
        // The first worker has the way to the host; the others' packets go through it.
        let mut host = tun.map(|tun| Box::new(tun) as Box<dyn Device>);
        for (seat, devices) in seats.into_iter().zip(places) {
            let worker = seat.start(SchedBalancer::new(scheduler.worker()), devices, host.take());
            path.threads
                .push(start_thread(path.threads.len(), worker).map_err(StartError::Thread)?);
        }
        path.publish();
        info!(
            "{} workers at {}, rings take {} MiB",
            workers,
            names.join(", "),
            memory >> 20
        );
        Ok(path)
    }

    /// Claims exactly this from the host, from now on: first the claim grows, then the workers learn of it, and when
    /// none works under the old picture any more the claim shrinks.
    ///
    /// # Errors
    ///
    /// What the kernel refused. The old claim is still in force if it refused to grow.
    pub async fn set_claims(&mut self, wanted: ClaimSet) -> Result<(), StartError> {
        if *self.claims == wanted {
            return Ok(());
        }
        let mut both = wanted.clone();
        for service in self.claims.services() {
            both.insert_service(service);
        }
        for server in self.claims.servers() {
            both.insert_server(server);
        }
        self.claim.replace(&both)?;
        self.claims = Arc::new(wanted);
        self.lead_local_replies();
        let generation = self.publish();
        let patience = Instant::now() + QUIET_PATIENCE;
        while !self.control.is_quiet(generation) && Instant::now() < patience {
            tokio::time::sleep(QUIET_POLL).await;
        }
        self.claim.replace(&self.claims)?;
        Ok(())
    }

    /// The kernel's tables have changed: takes in what is new and tells the workers.
    pub fn handle_system_change(&mut self) {
        match self.mirror.poll() {
            Ok(false) => {}
            Ok(true) => {
                self.lead_local_replies();
                self.publish();
            }
            Err(error) => warn!("{}", chain(&error)),
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

    /// Whether all workers still run.
    pub fn is_running(&self) -> bool {
        self.threads
            .iter()
            .all(|worker| !worker.thread.is_finished())
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

    /// Asks every worker how many connections it has.
    pub fn ask_connection_count(&self, answer: &tokio::sync::mpsc::UnboundedSender<usize>) {
        self.ask(answer, |worker| worker.balancer().worker().len());
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
        })
    }

    /// Replies of NAT servers on this host come to the workers through the TUN device.
    fn lead_local_replies(&mut self) {
        let Some(replies) = &mut self.local_replies else {
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
    /// There is nothing to forward at.
    #[error("no Ethernet interface is up in this network namespace")]
    NoInterface,
    /// A packet ring could not be opened.
    #[error("can't open a packet ring at {interface} (CAP_NET_RAW is needed)")]
    Ring {
        /// The interface.
        interface: String,
        /// What the system says.
        source: io::Error,
    },
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
            warn!(
                "{}: what a service's address gets beyond its connections is dropped instead of given to the host, and a \
                 real server on this host can't be used",
                chain(&error)
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn open_ring(link: &Link, port: PortId, options: &RunOptions) -> Result<Ring, StartError> {
    let mut config = RingConfig::new(link.index);
    config.slots = options.ring_slots.get();
    if options.workers.get() > 1 {
        config.fanout = Some(Fanout {
            group: fanout_group(port),
            workers: options.workers.get(),
            vips: Vec::new(),
        });
    }
    Ring::open(&config).map_err(|source| StartError::Ring {
        interface: link.name.clone(),
        source,
    })
}

/// Unique in the network namespace as far as a process can tell: its id, and the interface's place.
fn fanout_group(port: PortId) -> u16 {
    (std::process::id() as u16)
        .wrapping_mul(FANOUT_STRIDE)
        .wrapping_add(port.0)
}

fn start_thread(number: usize, mut worker: Worker<SchedBalancer>) -> io::Result<WorkerThread> {
    let (questions, inbox) = mpsc::channel::<Question>();
    let thread = std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            let mut complained = None;
            loop {
                match worker.run_once(PATIENCE) {
                    Ok(true) => complained = None,
                    Ok(false) => return,
                    // An interface may be down for a while: say so once, go on.
                    Err(error) => {
                        let kind = error.kind();
                        if complained.replace(kind) != Some(kind) {
                            warn!("worker {number}: {error}");
                        }
                    }
                }
                for question in inbox.try_iter() {
                    question(&mut worker);
                }
            }
        })?;
    Ok(WorkerThread { thread, questions })
}

/// How long a worker waits when nothing happens at all.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a change waits for workers to pass it. A worker that hangs must not stop the director.
const QUIET_PATIENCE: Duration = Duration::from_millis(500);

const QUIET_POLL: Duration = Duration::from_millis(1);

const FANOUT_STRIDE: u16 = 64;
