//! The control loop: one thread that owns configuration, checks, addresses, the control socket and the data path's
//! surroundings, and reacts to whatever happens first.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lvs_conf::diff::{Change, diff};
use lvs_fwd::marks::MarkRule;
use lvs_fwd::view::{ClaimSet, TunnelOptions};
use lvs_sched::{Defence, Director, DirectorConfig, DropReason, Family, ServiceKey, Timeouts};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, unbounded_channel};
use tracing::{error, info, warn};

use crate::acted_on::NoEffect;
use crate::addresses::Addresses;
use crate::beside::Beside;
use crate::claims;
use crate::cli::RunOptions;
use crate::config::{ConfigFile, ReadError};
use crate::control::answers;
use crate::control::by_hand::{
    self, MarkInfo, MarksInfo, MarksQuestion, TunableInfo, TunablesInfo, TunablesQuestion,
};
use crate::control::configuration::{self, RunningConfig};
use crate::control::protocol::{
    Edit, ErrorKind, Operation, Reply, ReplyError, RestoreInfo, SocketAddress, StatusInfo,
};
use crate::control::server::{ControlSocket, Question};
use crate::control::why::{self, WhyQuestion};
use crate::data_path::{DataPath, StartError};
use crate::edits::Edits;
use crate::explain::Inquiry;
use crate::logging::chain;
use crate::marks::{self, Marks};
use crate::plan::Plan;
use crate::pools::Pools;
use crate::probes::{Probes, Report};
use crate::sys::watch;
use crate::tunables::{self, Setting};
use crate::tunnels::Tunnels;
use crate::unreachable::Unreachable;
use crate::vrrp::VrrpError;

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
    reports: Receiver<Report>,
    addresses: Addresses,
    data_path: DataPath,
    unreachable: Unreachable,
    failures: UnboundedReceiver<usize>,
    system_changes: AsyncFd<OwnedFd>,
    resolve_requests: AsyncFd<OwnedFd>,
    /// Held for its end: the socket goes with it.
    _socket: ControlSocket,
    _only: UnixListener,
    questions: Receiver<Question>,
    signals: Signals,
}

#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    dump: Signal,
    /// keepalived's signal for statistics; what is not listened to would end the process.
    statistics: Signal,
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
        let no_effect = NoEffect::of(file.tree());
        warn_of(&no_effect);
        let plan = Plan::new(file.config());
        let beside = Beside::read(&options.file).map_err(|faults| {
            faults.iter().for_each(|fault| error!("{fault}"));
            RunError::Beside
        })?;
        raise_descriptor_limit();
        let signals = Signals::new().map_err(RunError::Signals)?;
        let address = SocketAddress::from_env();
        let (socket, questions) =
            ControlSocket::listen(&address).map_err(|source| RunError::Socket {
                address: address.clone(),
                source,
            })?;
        let only = only_one()?;
        let random = RandomState::new();
        let seed = |n: u64| random.hash_one(n);
        let seeds = [seed(0), seed(1), seed(2), seed(3)];
        let mut config = DirectorConfig::new(seeds);
        config.local_ports = options.local_ports.clone();
        let scheduler = Arc::new(Director::new(config));
        let tunnels = Arc::new(Tunnels::default());
        let (data_path, failures) = DataPath::start(&options, &scheduler, &tunnels)?;
        let (probes, reports) = Probes::new();
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
            pools: Pools::new(Arc::clone(&scheduler), probes, seed(4)),
            tunnels: Arc::clone(&tunnels),
            edits: Edits::new(Arc::clone(&scheduler), Arc::clone(&tunnels)),
            scheduler,
            reports,
            addresses: Addresses::new().map_err(RunError::Addresses)?,
            system_changes: watch(data_path.system_changes()).map_err(RunError::Watch)?,
            resolve_requests: watch(data_path.resolve_requests()).map_err(RunError::Watch)?,
            data_path,
            unreachable: Unreachable::default(),
            failures,
            _socket: socket,
            _only: only,
            questions,
            signals,
        };
        app.addresses.remove_leftovers(&plan.addresses);
        app.apply(plan, beside).await?;
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
            let deadlines = [self.pools.poll_timeout(), self.scheduler.poll_timeout()];
            let deadline = deadlines
                .into_iter()
                .flatten()
                .fold(look_again, Instant::min);
            let event = self.next_event(deadline).await;
            match event {
                Happening::Terminate(name) => {
                    info!("{name}: ending");
                    return Ok(());
                }
                Happening::Reload => self.reload().await,
                Happening::Report(report) => self.pools.handle_report(Instant::now(), report),
                Happening::Question(question) => self.answer(question).await,
                Happening::SystemChange => self.handle_system_change(),
                Happening::ResolveRequest => self.data_path.handle_resolve_requests(),
                Happening::Dump => {
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
                    // What a probe has to say came in time if it came before this: let the probes and their reports go
                    // first, or a delay here would count as one there.
                    tokio::task::yield_now().await;
                    while let Ok(report) = self.reports.try_recv() {
                        self.pools.handle_report(Instant::now(), report);
                    }
                    let now = Instant::now();
                    self.pools.handle_timeout(now);
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
            self.addresses.follow_interfaces(&self.plan.addresses);
        }
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
            _ = self.signals.dump.recv() => Happening::Dump,
            _ = self.signals.statistics.recv() => Happening::Dump,
            Some(number) = self.failures.recv() => Happening::WorkerEnded(number),
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
        let beside = match Beside::read(&self.options.file) {
            Ok(beside) => beside,
            Err(faults) => {
                for fault in &faults {
                    error!("{fault}");
                }
                error!("reload refused, the running configuration stays");
                return;
            }
        };
        let plan = Plan::new(file.config());
        let no_effect = NoEffect::of(file.tree());
        if no_effect != self.no_effect {
            warn_of(&no_effect);
            self.no_effect = no_effect;
        }
        let changes = diff(self.file.config(), file.config());
        self.file = file;
        if plan == self.plan && beside == self.beside && !self.is_incomplete {
            if changes.is_empty() {
                info!("reload: nothing has changed");
            } else {
                log_changes(&changes);
                info!("reload done, none of the changes has an effect yet");
            }
            return;
        }
        log_changes(&changes);
        match self.apply(plan, beside).await {
            Ok(()) => info!("reload done"),
            Err(error) => error!("reload incomplete: {}", chain(&error)),
        }
    }

    /// Makes everything what the plan says. Replies of new servers are claimed before the first packet goes to one of
    /// them; new services are there before packets are taken to them, and addresses come when both are. What is no
    /// longer wanted goes the other way round.
    async fn apply(&mut self, plan: Plan, beside: Beside) -> Result<(), StartError> {
        for remark in plan
            .remarks
            .iter()
            .filter(|remark| !self.plan.remarks.contains(remark))
        {
            warn!("{remark}");
        }
        // What was set by hand stays until the configuration says something else.
        if plan.timeouts != self.plan.timeouts {
            self.scheduler.set_timeouts(Timeouts {
                tcp: plan.timeouts.tcp.unwrap_or_default(),
                tcp_fin: plan.timeouts.tcp_fin.unwrap_or_default(),
                udp: plan.timeouts.udp.unwrap_or_default(),
            });
        }
        let mut servers = claims::present(&self.scheduler, &self.plan, &self.marks.rules());
        if self.marks.set_file(&beside.marks) {
            info!("{} rules of marks", beside.marks.len());
        }
        self.take_tunables(&beside);
        self.beside = beside;
        let marks = self.marks.rules();
        let mut planned = ClaimSet::new();
        claims::add_plan(&mut planned, &plan, &marks);
        for server in planned.servers() {
            servers.insert_server(server);
        }
        let outcome = self.data_path.set_claims(servers).await;
        self.tunnels.follow(&self.plan.tunnels, &plan.tunnels);
        self.pools.apply(Instant::now(), &plan);
        let wanted = claims::present(&self.scheduler, &plan, &marks);
        self.remark_unmarked();
        let outcome = outcome.and(self.data_path.set_claims(wanted).await);
        // An address of which nothing is claimed would be answered by the host.
        if outcome.is_ok() {
            self.addresses.set(&plan.addresses);
        }
        self.plan = plan;
        self.follow_tunables();
        self.handle_system_change();
        self.is_incomplete = outcome.is_err();
        outcome
    }

    async fn answer(&mut self, question: Question) {
        let Question { operation, answer } = question;
        let reply = match operation {
            Operation::Services => {
                Reply::success(&answers::services(&self.scheduler, |key, addr| {
                    self.tunnels.tunnel(key, addr)
                }))
            }
            Operation::Timeouts => Reply::success(&answers::timeouts(&self.scheduler)),
            Operation::Connections => return self.answer_connections(answer),
            Operation::Status => return self.answer_status(answer),
            Operation::Edit(edit) => match self.carry_out(&[edit]).await.pop() {
                Some(Some(refusal)) => Reply::refused(refusal),
                _ => Reply::success(&()),
            },
            Operation::Restore(batch) => Reply::success(&RestoreInfo {
                outcomes: self.carry_out(&batch.edits).await,
            }),
            Operation::Other { op, .. } if op == configuration::OPERATION => {
                Reply::success(&RunningConfig::new(self.file.config(), self.file.faults()))
            }
            Operation::Other { op, arguments } if op == why::OPERATION => {
                match serde_json::from_value(arguments.into()) {
                    Ok(question) => return self.answer_why(question, answer),
                    Err(error) => Reply::failure(ErrorKind::BadRequest, error.to_string()),
                }
            }
            Operation::Other { op, arguments } if op == by_hand::MARKS => {
                match serde_json::from_value(arguments.into()) {
                    Ok(question) => self.change_marks(&question).await,
                    Err(error) => Reply::failure(ErrorKind::BadRequest, error.to_string()),
                }
            }
            Operation::Other { op, arguments } if op == by_hand::TUNABLES => {
                match serde_json::from_value(arguments.into()) {
                    Ok(question) => self.change_tunables(&question),
                    Err(error) => Reply::failure(ErrorKind::BadRequest, error.to_string()),
                }
            }
            Operation::Other { op, .. } => Reply::unknown(&op),
            _ => Reply::unknown("of another version"),
        };
        // An asker that went away needs no answer.
        let _ = answer.send(vec![reply]);
    }

    /// Carries out changes by hand, in order: the claim grows before the first and shrinks after the last. What came of
    /// each: nothing, or why it was refused.
    async fn carry_out(&mut self, edits: &[Edit]) -> Vec<Option<ReplyError>> {
        let marks = self.marks.rules();
        let mut grown = claims::present(&self.scheduler, &self.plan, &marks);
        self.edits.add_claims(edits, &marks, &mut grown);
        if let Err(error) = self.data_path.set_claims(grown).await {
            let message = chain(&error);
            error!("{message}");
            let refusal = ReplyError {
                kind: ErrorKind::Internal,
                message,
            };
            return vec![Some(refusal); edits.len()];
        }
        let now = Instant::now();
        let outcomes = edits
            .iter()
            .map(|edit| self.edits.apply(now, edit).err())
            .collect();
        let wanted = claims::present(&self.scheduler, &self.plan, &marks);
        if let Err(error) = self.data_path.set_claims(wanted).await {
            error!("{}", chain(&error));
        }
        self.remark_unmarked();
        outcomes
    }

    /// A service for packets that nobody marks is a mistake, and easily made.
    fn remark_unmarked(&mut self) {
        let services = self.scheduler.services();
        let keys: Vec<ServiceKey> = services
            .iter()
            .filter_map(|service| service.key())
            .collect();
        let unmarked = claims::without_rule(&keys, &self.marks.rules());
        for key in unmarked.iter().filter(|key| !self.unmarked.contains(key)) {
            warn!("{}", claims::remark_without_rule(key));
        }
        self.unmarked = unmarked;
    }

    /// Tunables that the file sets otherwise than before; those by hand stay.
    fn take_tunables(&self, beside: &Beside) {
        let mut tunables = self.scheduler.tunables();
        let mut change = |setting: &Setting| {
            info!("{} = {}", setting.name, setting.value);
            tunables::set(&mut tunables, setting);
        };
        for before in &self.beside.tunables {
            if !beside
                .tunables
                .iter()
                .any(|after| after.name == before.name)
            {
                tunables::default_of(before.name)
                    .iter()
                    .for_each(&mut change);
            }
        }
        for after in &beside.tunables {
            if !self.beside.tunables.contains(after) {
                change(after);
            }
        }
        self.scheduler.set_tunables(tunables);
    }

    async fn change_marks(&mut self, question: &MarksQuestion) -> Reply {
        let mut marks = self.marks.clone();
        let rule = |text: &Option<String>| {
            let rule = text.as_ref().map(|text| marks::parse_rule(text));
            rule.transpose()
                .map_err(|fault| Reply::failure(ErrorKind::Invalid, fault.to_string()))
        };
        let (delete, add) = match (rule(&question.delete), rule(&question.add)) {
            (Ok(delete), Ok(add)) => (delete, add),
            (Err(refusal), _) | (_, Err(refusal)) => return refusal,
        };
        if question.flush {
            marks.flush();
        }
        if delete.is_some_and(|rule| !marks.delete(&rule)) {
            return Reply::failure(ErrorKind::Invalid, "there is no such rule");
        }
        if let Some(rule) = add {
            marks.add(rule, question.first);
        }
        if marks != self.marks {
            let wanted = claims::present(&self.scheduler, &self.plan, &marks.rules());
            if let Err(error) = self.data_path.set_claims(wanted).await {
                return Reply::failure(ErrorKind::Internal, chain(&error));
            }
            self.marks = marks;
            info!(
                "by hand: rules of marks changed, now {}",
                self.marks.rules().len()
            );
            self.remark_unmarked();
        }
        let services = self.scheduler.services();
        let served = |rule: &MarkRule| {
            services.iter().any(|service| match service.key() {
                Some(ServiceKey::Mark { family, mark }) => {
                    mark.get() == rule.mark && rule.is_of(family == Family::Inet6)
                }
                _ => false,
            })
        };
        let info = |(rule, from_file): (&MarkRule, bool)| MarkInfo {
            rule: marks::format_rule(rule),
            from_file,
            served: served(rule),
        };
        Reply::success(&MarksInfo {
            rules: self.marks.listed().map(info).collect(),
        })
    }

    fn change_tunables(&mut self, question: &TunablesQuestion) -> Reply {
        let settings: Result<Vec<Setting>, _> = question
            .set
            .iter()
            .map(|text| tunables::parse_setting(text))
            .collect();
        let settings = match settings {
            Ok(settings) => settings,
            Err(fault) => return Reply::failure(ErrorKind::Invalid, fault.to_string()),
        };
        let mut tunables = self.scheduler.tunables();
        for setting in &settings {
            info!("by hand: {} = {}", setting.name, setting.value);
            tunables::set(&mut tunables, setting);
        }
        if !settings.is_empty() {
            self.scheduler.set_tunables(tunables);
            self.follow_tunables();
        }
        let info = |setting: Setting| TunableInfo {
            default: tunables::default_of(setting.name).map_or_else(String::new, |one| one.value),
            meaning: tunables::describe(setting.name)
                .map_or("", |(meaning, _)| meaning)
                .into(),
            name: setting.name.into(),
            value: setting.value,
        };
        let now = tunables::all(&self.scheduler.tunables());
        Reply::success(&TunablesInfo {
            tunables: now.into_iter().map(info).collect(),
        })
    }

    /// What the data path makes of tunables.
    fn follow_tunables(&mut self) {
        self.data_path.set_tunnels(TunnelOptions {
            path_mtu_discovery: self.scheduler.tunables().pmtu_disc,
        });
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

    fn answer_why(&self, question: WhyQuestion, answer: tokio::sync::oneshot::Sender<Vec<Reply>>) {
        let inquiry = Inquiry::begin(question, self.data_path.view(), self.data_path.workers());
        let Some(owner) = inquiry.owner() else {
            let _ = answer.send(vec![Reply::success(&inquiry.left())]);
            return;
        };
        let (packet, payload) = (inquiry.packet(), inquiry.payload().map(<[u8]>::to_vec));
        let receiver = self.data_path.ask_worker(owner, move |worker| {
            let now = Instant::now();
            (
                now,
                worker.balancer().explain(now, &packet, payload.as_deref()),
            )
        });
        let (scheduler, mut plan) = (Arc::clone(&self.scheduler), self.plan.clone());
        plan.tunnels.clone_from(&self.tunnels.present());
        tokio::spawn(async move {
            let reply = match receiver.await {
                Ok((now, explanation)) => {
                    Reply::success(&inquiry.finish(now, &explanation, &scheduler, &plan))
                }
                Err(_) => Reply::failure(ErrorKind::Internal, "the worker has ended"),
            };
            let _ = answer.send(vec![reply]);
        });
    }

    fn answer_status(&mut self, answer: tokio::sync::oneshot::Sender<Vec<Reply>>) {
        let mut status = StatusInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime: self.started.elapsed().as_secs(),
            configuration: self.options.file.display().to_string(),
            workers: self.data_path.workers(),
            services: self.scheduler.services().len() as u64,
            connections: 0,
            counters: self.data_path.counters(),
            claimed: self.data_path.claimed(),
            unreachable: self.unreachable.list(),
        };
        let lengths: Vec<_> = (0..status.workers)
            .map(|number| {
                self.data_path
                    .ask_worker(number, |worker| worker.balancer().worker().len())
            })
            .collect();
        tokio::spawn(async move {
            for (worker, length) in status.counters.iter_mut().zip(lengths) {
                worker.connections = length.await.unwrap_or(0) as u64;
                status.connections += worker.connections;
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
            dump: signal(SignalKind::user_defined1())?,
            statistics: signal(SignalKind::user_defined2())?,
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
    Dump,
    WorkerEnded(usize),
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
    /// What the file has no words for is wrong; the log says what.
    #[error("a file beside the configuration can't be used")]
    Beside,
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
    /// Another director runs in this network namespace, with another control socket.
    #[error("a director runs in this network namespace already")]
    Second(#[source] io::Error),
    /// The data path could not be started.
    #[error("can't start forwarding")]
    DataPath(#[from] StartError),
    /// VRRP could not be started.
    #[error(transparent)]
    Vrrp(#[from] VrrpError),
    /// A worker's thread has ended; its message stands on standard error.
    #[error("worker {0} has failed: ended, so that nothing is claimed that nobody forwards")]
    Worker(usize),
    /// Signals can't be received.
    #[error("can't receive signals")]
    Signals(#[source] io::Error),
    /// The kernel's news can't be waited for.
    #[error("can't watch the kernel's tables")]
    Watch(#[source] io::Error),
    /// The sockets for setting and announcing addresses were refused.
    #[error("can't set addresses")]
    Addresses(#[source] io::Error),
    /// The control loop's runtime could not be made.
    #[error("can't make the control loop")]
    Runtime(#[source] io::Error),
}

fn warn_of(no_effect: &NoEffect) {
    if !no_effect.is_empty() {
        warn!("no effect yet: {no_effect}");
    }
}

/// A line for each change, as long as they say something to a reader.
fn log_changes(changes: &[Change]) {
    for change in changes.iter().take(MAX_LOGGED_CHANGES) {
        info!("reload: {change}");
    }
    let more = changes.len().saturating_sub(MAX_LOGGED_CHANGES);
    if more > 0 {
        info!("reload: and {more} more changes");
    }
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

/// Waits until there is something to read. What is read afterwards must be read to the end.
async fn readable(descriptor: &AsyncFd<OwnedFd>) {
    match descriptor.readable().await {
        Ok(mut guard) => guard.clear_ready(),
        // The loop's own poller is gone: so is the loop.
        Err(_) => std::future::pending().await,
    }
}

const LOCK: &str = "lvs-director-only-one";

/// The scheduler's own period of estimation.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

const MAX_LOGGED_CHANGES: usize = 50;
