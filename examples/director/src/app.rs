//! The control loop: one thread that owns configuration, checks, addresses, the control socket and the data path's
//! surroundings, and reacts to whatever happens first.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lvs_fwd::view::ClaimSet;
use lvs_health::{Driver, DriverOptions};
use lvs_sched::{Defence, Director, DirectorConfig, DropReason, ServiceKey};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{error, info, warn};

use crate::acted_on::NoEffect;
use crate::addresses::Addresses;
use crate::beside::Beside;
use crate::checks::CheckScripts;
use crate::cli::RunOptions;
use crate::config::ConfigFile;
use crate::control::protocol::SocketAddress;
use crate::control::server::{ControlSocket, Question};
use crate::data_path::DataPath;
use crate::edits::Edits;
use crate::logging::chain;
use crate::marks::Marks;
use crate::namespace;
use crate::notify::scripts::{Limits, Policy, Runner};
use crate::notify::{Actions, Notifier};
use crate::pid_file::PidFile;
use crate::plan::Plan;
use crate::pools::{HealthNews, Pools};
use crate::service_manager::{self, State};
use crate::statics::Statics;
use crate::sys::{readable, watch};
use crate::tunables;
use crate::tunnels::Tunnels;
use crate::unreachable::Unreachable;
use crate::vrrp::dump::Dump;
use crate::vrrp::{News, Vrrp, VrrpError};

mod answer;
mod error;
pub(crate) mod lifecycle;
mod reload;
mod vrrp;

pub use error::RunError;

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
        let outcome = app.serve().await;
        app.stop().await;
        outcome
    })
}

/// A running director.
#[derive(Debug)]
struct App {
    options: RunOptions,
    started: Instant,
    file: ConfigFile,
    no_effect: NoEffect,
    plan: Plan,
    beside: Beside,
    marks: Marks,
    /// Mark services without a rule; each is said once.
    unmarked: Vec<ServiceKey>,
    /// Whether the plan was carried out only in part.
    is_incomplete: bool,
    scheduler: Arc<Director>,
    pools: Pools,
    edits: Edits,
    tunnels: Arc<Tunnels>,
    notifier: Notifier,
    /// Runs programs for whoever needs one.
    scripts: Runner,
    addresses: Addresses,
    statics: Statics,
    static_changes: AsyncFd<OwnedFd>,
    /// From when the first configuration had an instance.
    vrrp: Option<Vrrp>,
    vrrp_teller: UnboundedSender<News>,
    vrrp_news: UnboundedReceiver<News>,
    /// Virtual addresses that are here, or will be in a moment.
    held: BTreeSet<IpAddr>,
    data_path: DataPath,
    unreachable: Unreachable,
    failures: UnboundedReceiver<usize>,
    system_changes: AsyncFd<OwnedFd>,
    resolve_requests: AsyncFd<OwnedFd>,
    /// Held for its end: the socket goes with it.
    _socket: ControlSocket,
    _only: UnixListener,
    _pid_file: Option<PidFile>,
    questions: Receiver<Question>,
    signals: Signals,
}

#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    dump: Signal,
    /// keepalived's signal for statistics.
    statistics: Signal,
}

impl App {
    /// Everything that can fail comes first; addresses come last, when whoever answers to them is ready.
    async fn start(options: RunOptions) -> Result<Self, RunError> {
        let started = Instant::now();
        // Before anything has a thread or a socket.
        let file = namespace::read_within(options.namespace.as_deref(), || {
            ConfigFile::read(&options.file, options.config_id.as_deref())
        })?;
        file.log_diagnostics();
        if !file.is_usable() {
            return Err(RunError::Unusable);
        }
        let no_effect = NoEffect::of(file.tree());
        reload::warn_of(&no_effect);
        for remark in &options.remarks {
            warn!("{remark}");
        }
        if options.dump_config {
            for line in lvs_conf::print(file.config()).lines() {
                info!("configuration: {line}");
            }
        }
        let plan = reload::plan(&options, file.config());
        let beside = Beside::read(&options.file).map_err(|faults| {
            faults.iter().for_each(|fault| error!("{fault}"));
            RunError::Beside
        })?;
        // Before the limit is raised, which is not for scripts.
        let scripts = Runner::start(Limits::default()).map_err(RunError::Scripts)?;
        raise_descriptor_limit();
        let signals = Signals::new().map_err(RunError::Signals)?;
        let address = SocketAddress::from_env();
        let (events, _) = tokio::sync::broadcast::channel(EVENTS_KEPT);
        let (socket, questions) =
            ControlSocket::listen(&address, events.clone()).map_err(|source| RunError::Socket {
                address: address.clone(),
                source,
            })?;
        let only = only_one()?;
        let policy = Policy::new(&file.config().global);
        lifecycle::begin(&scripts, &policy, file.config()).await;
        let random = RandomState::new();
        let seed = |n: u64| random.hash_one(n);
        let seeds = [seed(0), seed(1), seed(2), seed(3)];
        let mut config = DirectorConfig::new(seeds);
        config.local_ports = options.local_ports.clone();
        let scheduler = Arc::new(Director::new(config));
        let tunnels = Arc::new(Tunnels::default());
        let (data_path, failures) = DataPath::start(&options, &scheduler, &tunnels)?;
        plan.vrrp.check().map_err(VrrpError::Setup)?;
        let (vrrp_teller, vrrp_news) = unbounded_channel();
        let mut options_of_checks = DriverOptions::new(seed(4));
        options_of_checks.script_runner = Some(Box::new(CheckScripts::new(scripts.clone())));
        let driver = Driver::new(options_of_checks).map_err(RunError::Checks)?;
        let actions = Actions::new(file.config(), &policy);
        let notifier = Notifier::start(scripts.clone(), Actions::default(), events);
        let statics = Statics::open().map_err(RunError::Addresses)?;
        let mut app = Self {
            options,
            started,
            file,
            no_effect,
            plan: Plan::default(),
            beside: Beside::default(),
            marks: Marks::default(),
            unmarked: Vec::new(),
            is_incomplete: false,
            pools: Pools::new(Arc::clone(&scheduler), driver, notifier.clone()),
            tunnels: Arc::clone(&tunnels),
            scripts,
            edits: Edits::new(Arc::clone(&scheduler), Arc::clone(&tunnels)),
            scheduler,
            notifier,
            addresses: Addresses::new().map_err(RunError::Addresses)?,
            vrrp: None,
            vrrp_teller,
            vrrp_news,
            held: BTreeSet::new(),
            static_changes: watch(statics.as_fd()).map_err(RunError::Watch)?,
            statics,
            system_changes: watch(data_path.system_changes()).map_err(RunError::Watch)?,
            resolve_requests: watch(data_path.resolve_requests()).map_err(RunError::Watch)?,
            data_path,
            unreachable: Unreachable::default(),
            failures,
            _socket: socket,
            _only: only,
            _pid_file: None,
            questions,
            signals,
        };
        let statics = plan.vrrp.statics.addresses.iter();
        app.addresses
            .remove_leftovers(plan.addresses.iter().chain(statics));
        app.apply(plan, beside, actions).await?;
        app._pid_file = app.options.pid_file.as_deref().and_then(PidFile::write);
        service_manager::tell(State::Ready);
        info!(
            "running {}, control socket {address}",
            app.options.file.display()
        );
        Ok(app)
    }

    async fn serve(&mut self) -> Result<(), RunError> {
        loop {
            // Packets give the scheduler something to do, templates and rates, and do not come by here: it is asked
            // again even though it had nothing to do.
            let look_again = Instant::now() + LOOK_AGAIN;
            let deadlines = [
                self.scheduler.poll_timeout(),
                self.pools.drains().poll_timeout(),
            ];
            let deadline = deadlines
                .into_iter()
                .flatten()
                .fold(look_again, Instant::min);
            let event = self.next_event(deadline).await;
            // Addresses of a thread that has failed are gone; who starts the director anew starts VRRP anew.
            if self.vrrp.as_ref().is_some_and(Vrrp::has_ended) {
                return Err(RunError::VrrpEnded);
            }
            match event {
                Happening::Terminate(name) => {
                    info!("{name}: ending");
                    return Ok(());
                }
                Happening::Reload => drop(self.reload().await),
                Happening::Health(news) => self.pools.handle_news(Instant::now(), news),
                Happening::Question(question) => self.answer(question).await,
                Happening::Vrrp(news) => self.hear_vrrp(news).await,
                Happening::SystemChange => self.handle_system_change(),
                Happening::StaticChange => self.statics.follow(),
                Happening::ResolveRequest => self.data_path.handle_resolve_requests(),
                Happening::Dump(dump) => {
                    self.dump_vrrp(dump);
                    self.data_path.log_counters();
                    let refused = self.scheduler.dropped(DropReason::NoLocalPort);
                    if refused > 0 {
                        info!(
                            "connections refused because no local address had a free port: {refused}"
                        );
                    }
                }
                Happening::WorkerEnded(number) => return Err(RunError::Worker(number)),
                Happening::Deadline => {
                    let now = Instant::now();
                    let drains = self.pools.drains();
                    if drains.poll_timeout().is_some_and(|due| due <= now) {
                        drains.handle_timeout(now);
                        self.tell_drains();
                    }
                    if self.scheduler.poll_timeout().is_some_and(|due| due <= now) {
                        self.tell_memory(now);
                        self.scheduler.handle_timeout(now);
                    }
                }
            }
        }
    }

    /// Automatic defences judge by the memory that is free.
    fn tell_memory(&self, now: Instant) {
        let tunables = self.scheduler.tunables();
        let defences = [
            tunables.drop_entry,
            tunables.drop_packet,
            tunables.secure_tcp,
        ];
        let is_automatic =
            |defence| matches!(defence, Defence::Automatic | Defence::AutomaticActive);
        if defences.into_iter().any(is_automatic)
            && let Some(pages) = tunables::free_pages()
        {
            self.scheduler.handle_memory(now, pages);
        }
    }

    fn handle_system_change(&mut self) {
        if self.data_path.handle_system_change() {
            self.addresses.restore(&self.plan.addresses);
        }
        let local = self.data_path.host_addresses();
        self.scheduler.set_local_addresses(local.iter().copied());
        self.pools.handle_addresses(local);
        let services = self.scheduler.services();
        let servers = services.iter().flat_map(|service| service.servers());
        let view = self.data_path.view();
        let addrs = servers.map(|server| server.addr().ip());
        self.unreachable.follow(&view, addrs);
    }

    async fn next_event(&mut self, deadline: Instant) -> Happening {
        let timer = tokio::time::sleep_until(deadline.into());
        // In random order: nothing that happens all the time keeps the rest waiting.
        tokio::select! {
            _ = self.signals.terminate.recv() => Happening::Terminate("SIGTERM"),
            _ = self.signals.interrupt.recv() => Happening::Terminate("SIGINT"),
            _ = self.signals.hangup.recv() => Happening::Reload,
            _ = self.signals.dump.recv() => Happening::Dump(Dump::Data),
            _ = self.signals.statistics.recv() => Happening::Dump(Dump::Statistics),
            Some(number) = self.failures.recv() => Happening::WorkerEnded(number),
            () = readable(&self.resolve_requests) => Happening::ResolveRequest,
            () = readable(&self.system_changes) => Happening::SystemChange,
            () = readable(&self.static_changes) => Happening::StaticChange,
            () = timer => Happening::Deadline,
            news = self.pools.next_news() => Happening::Health(news),
            Some(question) = self.questions.recv() => Happening::Question(question),
            Some(news) = self.vrrp_news.recv() => Happening::Vrrp(news),
        }
    }

    /// Gives everything back: addresses first, so that no client comes to a host that does not forward any more.
    async fn stop(&mut self) {
        service_manager::tell(State::Stopping);
        self.stop_vrrp();
        self.statics.clear();
        self.addresses.clear();
        self.pools.stop(Instant::now());
        if let Err(error) = self.data_path.set_claims(ClaimSet::new()).await {
            warn!("{}", chain(&error));
        }
        lifecycle::end(&self.notifier, self.file.config()).await;
    }
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            dump: signal(SignalKind::user_defined1())?,
            statistics: signal(SignalKind::user_defined2())?,
        })
    }
}

enum Happening {
    Terminate(&'static str),
    Reload,
    Health(HealthNews),
    Question(Question),
    SystemChange,
    StaticChange,
    ResolveRequest,
    Deadline,
    Dump(Dump),
    WorkerEnded(usize),
    Vrrp(News),
}

/// Takes a name that only one director per network namespace can have, wherever its control socket is: two would take
/// each other's addresses and rules for leftovers.
fn only_one() -> Result<UnixListener, RunError> {
    SocketAddr::from_abstract_name(LOCK)
        .and_then(|name| UnixListener::bind_addr(&name))
        .map_err(RunError::Second)
}

/// Each check takes a descriptor, and there may be thousands.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where it is refused the present limit has to do.
    let _ = setrlimit(Resource::Nofile, raised);
}

const LOCK: &str = "lvs-director-only-one";

/// Events that one who listens may be behind.
const EVENTS_KEPT: usize = 1024;

/// The scheduler's own period of estimation.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
