//! The control loop: one thread that owns configuration, checks, addresses, the control socket and the data path's
//! surroundings, and reacts to whatever happens first.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use lvs_fwd::view::{ClaimSet, Endpoint};
use lvs_sched::{Director, DirectorConfig, ForwardMethod, ServiceKey, Timeouts};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, unbounded_channel};
use tracing::{error, info, warn};

use crate::addresses::Addresses;
use crate::cli::RunOptions;
use crate::config::{ConfigFile, ReadError};
use crate::control::answers;
use crate::control::protocol::{Operation, Reply, SocketAddress, StatusInfo};
use crate::control::server::{ControlSocket, Question};
use crate::data_path::{DataPath, StartError};
use crate::logging::chain;
use crate::plan::Plan;
use crate::pools::Pools;
use crate::probes::{Probes, Report};
use crate::sys::watch;

/// Runs a director until it is told to end. Returns after everything has been given back.
///
/// # Errors
///
/// What kept it from starting; nothing is left behind then.
pub fn run(options: RunOptions) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    runtime.block_on(async {
        let mut app = App::start(options).await?;
        app.serve().await;
        app.stop().await;
        Ok(())
    })
}

/// A running director.
#[derive(Debug)]
struct App {
    options: RunOptions,
    started: Instant,
    file: ConfigFile,
    plan: Plan,
    scheduler: Arc<Director>,
    pools: Pools,
    reports: UnboundedReceiver<Report>,
    addresses: Addresses,
    data_path: DataPath,
    system_changes: AsyncFd<OwnedFd>,
    resolve_requests: AsyncFd<OwnedFd>,
    /// Held for its end: the socket goes with it.
    _socket: ControlSocket,
    questions: Receiver<Question>,
    signals: Signals,
}

#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl App {
    /// Everything that can fail comes first; addresses come last, when whoever answers to them is ready.
    async fn start(options: RunOptions) -> Result<Self, RunError> {
        let started = Instant::now();
        let file = ConfigFile::read(&options.file, options.config_id.as_deref())?;
        file.log_diagnostics();
        if !file.is_usable() {
            return Err(RunError::Unusable);
        }
        let plan = Plan::new(file.config());
        let signals = Signals::new().map_err(RunError::Signals)?;
        let address = SocketAddress::from_env();
        let (socket, questions) =
            ControlSocket::listen(&address).map_err(|source| RunError::Socket {
                address: address.clone(),
                source,
            })?;
        let random = RandomState::new();
        let seed = |n: u64| random.hash_one(n);
        let seeds = [seed(0), seed(1), seed(2), seed(3)];
        let scheduler = Arc::new(Director::new(DirectorConfig::new(seeds)));
        let data_path = DataPath::start(&options, &scheduler)?;
        let (probes, reports) = Probes::new();
        let mut app = Self {
            options,
            started,
            file,
            plan: Plan::default(),
            pools: Pools::new(Arc::clone(&scheduler), probes, seed(4)),
            scheduler,
            reports,
            addresses: Addresses::new().map_err(StartError::Netlink)?,
            system_changes: watch(data_path.system_changes()).map_err(RunError::Watch)?,
            resolve_requests: watch(data_path.resolve_requests()).map_err(RunError::Watch)?,
            data_path,
            _socket: socket,
            questions,
            signals,
        };
        app.apply(plan).await;
        info!(
            "running {}, control socket {address}",
            app.options.file.display()
        );
        Ok(app)
    }

    async fn serve(&mut self) {
        loop {
            let deadline = [self.pools.poll_timeout(), self.scheduler.poll_timeout()]
                .into_iter()
                .flatten()
                .min();
            let event = self.next_event(deadline).await;
            match event {
                Happening::Terminate(name) => {
                    info!("{name}: ending");
                    return;
                }
                Happening::Reload => self.reload().await,
                Happening::Report(report) => self.pools.handle_report(Instant::now(), report),
                Happening::Question(question) => self.answer(question),
                Happening::SystemChange => self.data_path.handle_system_change(),
                Happening::ResolveRequest => self.data_path.handle_resolve_requests(),
                Happening::Deadline => {
                    let now = Instant::now();
                    self.pools.handle_timeout(now);
                    self.scheduler.handle_timeout(now);
                }
            }
            if !self.data_path.is_running() {
                error!(
                    "a worker has failed: ending, so that nothing is claimed that nobody forwards"
                );
                return;
            }
        }
    }

    async fn next_event(&mut self, deadline: Option<Instant>) -> Happening {
        let timer = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.signals.terminate.recv() => Happening::Terminate("SIGTERM"),
            _ = self.signals.interrupt.recv() => Happening::Terminate("SIGINT"),
            _ = self.signals.hangup.recv() => Happening::Reload,
            () = readable(&self.resolve_requests) => Happening::ResolveRequest,
            () = readable(&self.system_changes) => Happening::SystemChange,
            () = timer => Happening::Deadline,
            Some(report) = self.reports.recv() => Happening::Report(report),
            Some(question) = self.questions.recv() => Happening::Question(question),
        }
    }

    /// Reads the file again. A file that is worse than the one in force changes nothing.
    async fn reload(&mut self) {
        let file = match ConfigFile::read(&self.options.file, self.options.config_id.as_deref()) {
            Ok(file) => file,
            Err(error) => {
                error!(
                    "reload refused, the running configuration stays: {}",
                    chain(&error)
                );
                return;
            }
        };
        let new_errors = file.new_errors(&self.file);
        if !new_errors.is_empty() || !file.is_usable() {
            for error in &new_errors {
                error!("{error}");
            }
            error!(
                "reload refused, the running configuration stays: {} has {} new errors",
                self.options.file.display(),
                new_errors.len()
            );
            return;
        }
        let plan = Plan::new(file.config());
        self.file = file;
        if plan == self.plan {
            info!("reload: nothing has changed");
            return;
        }
        self.apply(plan).await;
        info!("reload done");
    }

    /// Makes everything what the plan says: claim and addresses grow before services change, and shrink after.
    async fn apply(&mut self, plan: Plan) {
        for remark in plan
            .remarks
            .iter()
            .filter(|remark| !self.plan.remarks.contains(remark))
        {
            warn!("{remark}");
        }
        let present = self.scheduler.timeouts();
        self.scheduler.set_timeouts(Timeouts {
            tcp: plan.timeouts.tcp.unwrap_or(present.tcp),
            tcp_fin: plan.timeouts.tcp_fin.unwrap_or(present.tcp_fin),
            udp: plan.timeouts.udp.unwrap_or(present.udp),
        });
        self.pools.apply(Instant::now(), &plan);
        if let Err(error) = self.data_path.set_claims(claims(&plan)).await {
            error!("{}", chain(&error));
        }
        self.addresses.set(&plan.addresses);
        self.data_path.handle_system_change();
        self.plan = plan;
    }

    fn answer(&self, question: Question) {
        let Question { operation, answer } = question;
        let reply = match operation {
            Operation::Services => Reply::success(&answers::services(&self.scheduler)),
            Operation::Timeouts => Reply::success(&answers::timeouts(&self.scheduler)),
            Operation::Connections => return self.answer_connections(answer),
            Operation::Status => return self.answer_status(answer),
            Operation::Unknown(name) => Reply::unknown(&name),
            _ => Reply::unknown("of another version"),
        };
        // An asker that went away needs no answer.
        let _ = answer.send(vec![reply]);
    }

    fn answer_connections(&self, answer: tokio::sync::oneshot::Sender<Vec<Reply>>) {
        let (sender, mut receiver) = unbounded_channel();
        self.data_path.ask_connections(&sender);
        drop(sender);
        let now = Instant::now();
        let templates = self.scheduler.templates();
        let mut infos: Vec<_> = templates
            .iter()
            .map(|entry| answers::template(now, entry))
            .collect();
        tokio::spawn(async move {
            while let Some(part) = receiver.recv().await {
                infos.extend(part.iter().map(|entry| answers::connection(now, entry)));
            }
            let _ = answer.send(Reply::connections(&infos));
        });
    }

    fn answer_status(&self, answer: tokio::sync::oneshot::Sender<Vec<Reply>>) {
        let (sender, mut receiver) = unbounded_channel();
        self.data_path.ask_connection_count(&sender);
        drop(sender);
        let mut status = StatusInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime: self.started.elapsed().as_secs(),
            configuration: self.options.file.display().to_string(),
            workers: self.data_path.workers(),
            services: self.plan.services.len() as u64,
            connections: 0,
        };
        tokio::spawn(async move {
            while let Some(count) = receiver.recv().await {
                status.connections += count as u64;
            }
            let _ = answer.send(vec![Reply::success(&status)]);
        });
    }

    /// Gives everything back: addresses first, so that no client comes to a host that does not forward any more.
    async fn stop(&mut self) {
        self.addresses.clear();
        self.pools.stop(Instant::now());
        if let Err(error) = self.data_path.set_claims(ClaimSet::new()).await {
            warn!("{}", chain(&error));
        }
    }
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

enum Happening {
    Terminate(&'static str),
    Reload,
    Report(Report),
    Question(Question),
    SystemChange,
    ResolveRequest,
    Deadline,
}

/// Why a director did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The file can't be read.
    #[error(transparent)]
    Config(#[from] ReadError),
    /// keepalived would end with this file; the log says why.
    #[error("the configuration can't be used")]
    Unusable,
    /// The control socket is taken, most likely.
    #[error(
        "can't listen at the control socket {address}; does a director run in this network namespace already?"
    )]
    Socket {
        /// Where.
        address: SocketAddress,
        /// What the system says.
        source: io::Error,
    },
    /// The data path could not be started.
    #[error("can't start forwarding")]
    DataPath(#[from] StartError),
    /// Signals can't be received.
    #[error("can't receive signals")]
    Signals(#[source] io::Error),
    /// The kernel's news can't be waited for.
    #[error("can't watch the kernel's tables")]
    Watch(#[source] io::Error),
    /// The control loop's runtime could not be made.
    #[error("can't make the control loop")]
    Runtime(#[source] io::Error),
}

/// Packets to services, and replies of NAT servers. A server that is down keeps its claim: its old connections go on.
fn claims(plan: &Plan) -> ClaimSet {
    let mut claims = ClaimSet::new();
    for service in &plan.services {
        if let ServiceKey::Address {
            protocol,
            vip,
            vport,
        } = service.key
        {
            claims.insert_service(Endpoint {
                protocol: protocol.number(),
                addr: vip,
                port: vport,
            });
        }
    }
    for pool in &plan.pools {
        let ServiceKey::Address {
            protocol, vport, ..
        } = pool.service
        else {
            continue;
        };
        let servers = pool
            .servers
            .iter()
            .map(|server| (server.addr, server.config));
        for (addr, config) in servers.chain(pool.sorry) {
            if config.method == ForwardMethod::Nat {
                claims.insert_server(Endpoint {
                    protocol: protocol.number(),
                    addr: addr.ip(),
                    port: if addr.port() == 0 { vport } else { addr.port() },
                });
            }
        }
    }
    claims
}

/// Waits until there is something to read. What is read afterwards must be read to the end.
async fn readable(descriptor: &AsyncFd<OwnedFd>) {
    match descriptor.readable().await {
        Ok(mut guard) => guard.clear_ready(),
        // The loop's own poller is gone: so is the loop.
        Err(_) => std::future::pending().await,
    }
}
