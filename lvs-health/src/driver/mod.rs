//! Carries out what the monitor asks for: sockets, TLS, programs, and the clock.
//!
//! One poll of the kernel watches all sockets and programs, so that a probe costs neither a task nor a thread; tokio is
//! asked only whether the poll has news and what time it is.
#![allow(
    clippy::disallowed_methods,
    reason = "this is the shell: it reads the clock"
)]

mod connection;
mod runner;
mod scripts;
mod sockets;
mod sys;
#[cfg(feature = "tls")]
mod tls;

pub use runner::{RunningScript, ScriptEnd, ScriptRunner};
#[cfg(feature = "tls")]
pub use tls::{TlsSettings, TlsSettingsError};

use crate::{
    Adjustment, Command, Event, Monitor, Outcome, ProbeId, ServerConfig, ServerId, UnknownServer,
};
use connection::Target;
use runner::Hired;
use rustix::event::epoll::{self, CreateFlags, EventFlags};
use scripts::Scripts;
use sockets::{Fact, Sockets};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;
use tokio::io::unix::AsyncFd;

/// A [`Monitor`] with sockets, programs and a clock, on a tokio runtime of any kind.
///
/// Nothing happens by itself: checks go on while [`next_event`](Self::next_event) is awaited.
///
/// ```
/// use lvs_health::{CheckerConfig, ConnectOptions, Driver, DriverOptions, Event, Failure, ServerConfig, TcpCheck, Timing};
/// use std::time::Duration;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let mut driver = Driver::new(DriverOptions::new(42))?;
/// let often = Timing { delay_loop: Duration::from_secs(2), warmup: Duration::ZERO, ..Timing::default() };
/// # let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
/// let web = driver.add_server(ServerConfig::new(vec![CheckerConfig::new(TcpCheck, ConnectOptions::to(closed), often)]));
/// let down = loop {
///     match driver.next_event().await {
///         Event::ServerDown { server, failure, .. } => break (server, failure),
///         _ => {}
///     }
/// };
/// assert_eq!(down, (web, Failure::ConnectRefused));
/// # std::io::Result::Ok(()) })?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Driver {
    engine: Engine,
    poll: AsyncFd<OwnedFd>,
}

/// All but the poll.
#[derive(Debug)]
struct Engine {
    monitor: Monitor,
    sockets: Sockets,
    scripts: Scripts,
    /// Runs scripts instead.
    hired: Option<Hired>,
}

/// How a [`Driver`] works.
#[derive(Debug)]
pub struct DriverOptions {
    /// Spreads first attempts over their warm-up, and decides jitter and ids.
    pub seed: u64,
    /// How many attempts begin in a second at most, so that many which are due at once do not come as one burst; 20 000
    /// by default, 0 counts as 1.
    pub starts_per_second: u32,
    /// How many programs run at once; others wait, and their time limits run meanwhile. 32 by default.
    pub scripts: usize,
    /// Who runs programs; `None`, the default, leaves them to the driver. One that is named here decides itself how many
    /// run at once.
    pub script_runner: Option<Box<dyn ScriptRunner>>,
    /// Certificates.
    #[cfg(feature = "tls")]
    pub tls: TlsSettings,
}

impl DriverOptions {
    /// All by default but for the seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            starts_per_second: 20_000,
            scripts: 32,
            script_runner: None,
            #[cfg(feature = "tls")]
            tls: TlsSettings::default(),
        }
    }
}

impl Driver {
    /// A driver without servers. To be called within a runtime that has I/O and time enabled.
    ///
    /// # Errors
    ///
    /// The kernel gives no descriptor for the poll, or the certificates cannot be used.
    pub fn new(options: DriverOptions) -> io::Result<Self> {
        let poll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut monitor = Monitor::new(options.seed);
        monitor.set_start_rate(options.starts_per_second);
        #[cfg(feature = "tls")]
        let sockets = Sockets::new(tls::Tls::new(options.tls).map_err(io::Error::other)?);
        #[cfg(not(feature = "tls"))]
        let sockets = Sockets::new();
        let hired = options.script_runner;
        let hired = hired.map(|runner| Hired::new(poll.as_fd(), runner));
        Ok(Self {
            engine: Engine {
                monitor,
                sockets,
                scripts: Scripts::new(options.scripts),
                hired: hired.transpose()?,
            },
            poll: sys::watch(poll)?,
        })
    }

    /// Other certificates, for connections made from now on.
    ///
    /// # Errors
    ///
    /// They cannot be used; the former stay.
    #[cfg(feature = "tls")]
    pub fn set_tls(&mut self, settings: TlsSettings) -> Result<(), TlsSettingsError> {
        self.engine.sockets.tls = tls::Tls::new(settings)?;
        Ok(())
    }

    /// The state of all servers and checkers.
    pub fn monitor(&self) -> &Monitor {
        &self.engine.monitor
    }

    /// See [`Monitor::take_lateness`].
    pub fn take_lateness(&mut self) -> std::time::Duration {
        self.engine.monitor.take_lateness()
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.engine.sockets.len()
    }

    /// See [`Monitor::add_server`].
    pub fn add_server(&mut self, config: ServerConfig) -> ServerId {
        self.engine.monitor.add_server(Instant::now(), config)
    }

    /// See [`Monitor::update_server`].
    ///
    /// # Errors
    ///
    /// There is no such server (any more).
    pub fn update_server(
        &mut self,
        server: ServerId,
        config: ServerConfig,
    ) -> Result<(), UnknownServer> {
        self.engine
            .monitor
            .update_server(Instant::now(), server, config)
    }

    /// See [`Monitor::remove_server`].
    ///
    /// # Errors
    ///
    /// There is no such server (any more).
    pub fn remove_server(&mut self, server: ServerId) -> Result<(), UnknownServer> {
        self.engine.monitor.remove_server(server)
    }

    /// See [`Monitor::set_suspended`].
    ///
    /// # Errors
    ///
    /// There is no such server (any more).
    pub fn set_suspended(&mut self, server: ServerId, on: bool) -> Result<(), UnknownServer> {
        self.engine
            .monitor
            .set_suspended(Instant::now(), server, on)
    }

    /// See [`Monitor::handle_outcome`].
    ///
    /// # Errors
    ///
    /// There is no such server (any more), or it has no such checker.
    pub fn handle_outcome(
        &mut self,
        server: ServerId,
        checker: usize,
        outcome: Outcome,
        adjustment: Adjustment,
    ) -> Result<(), UnknownServer> {
        let now = Instant::now();
        self.engine
            .monitor
            .handle_outcome(now, server, checker, outcome, adjustment)
    }

    /// See [`Monitor::report`].
    ///
    /// # Errors
    ///
    /// There is no such server (any more).
    pub fn report(&mut self, server: ServerId, outcome: Outcome) -> Result<(), UnknownServer> {
        self.engine.monitor.report(Instant::now(), server, outcome)
    }

    /// Goes on with the checks until there is something to know.
    ///
    /// It may be dropped at any time, as by `select!`: nothing gets lost, the next call goes on. But while nobody awaits
    /// it checks rest, and those that are late by then are caught up with at the rate of the options.
    pub async fn next_event(&mut self) -> Event {
        let Self { engine, poll } = self;
        loop {
            engine.carry_out(poll.get_ref().as_fd());
            if let Some(event) = engine.monitor.poll_event() {
                return event;
            }
            let due = engine.poll_timeout();
            let sleep = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ready = poll.readable() => match ready {
                    // Only a poll that was empty after it was said to be ready has nothing more to say.
                    Ok(mut ready) => {
                        if engine.turn(ready.get_inner().as_fd()) == 0 {
                            ready.clear_ready();
                        }
                    }
                    // The runtime is ending.
                    Err(_) => std::future::pending().await,
                },
                () = sleep => {
                    engine.turn(poll.get_ref().as_fd());
                }
            }
        }
    }

    /// What is there to know now, without waiting, for programs with a loop of their own: to be called until `None`, when
    /// the descriptor of [`AsFd`] is readable and at [`poll_timeout`](Self::poll_timeout).
    pub fn poll_event(&mut self) -> Option<Event> {
        let Self { engine, poll } = self;
        if let Some(event) = engine.monitor.poll_event() {
            return Some(event);
        }
        let poll = poll.get_ref().as_fd();
        engine.carry_out(poll);
        while engine.turn(poll) > 0 && !engine.monitor.has_events() {}
        engine.monitor.poll_event()
    }

    /// When [`poll_event`](Self::poll_event) is to be called again at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.engine.poll_timeout()
    }
}

impl Engine {
    fn poll_timeout(&self) -> Option<Instant> {
        let both = [self.monitor.poll_timeout(), self.scripts.poll_timeout()];
        both.into_iter().flatten().min()
    }

    /// First what sockets and programs have to say: it came in time, even if this program is late. Then the clock.
    /// Returns how many of them had something to say.
    fn turn(&mut self, poll: BorrowedFd<'_>) -> usize {
        let mut space = [MaybeUninit::<epoll::Event>::uninit(); BATCH];
        let zero = rustix::event::Timespec::default();
        let found = epoll::wait(poll, &mut space, Some(&zero)).map_or(&[][..], |(found, _)| found);
        let found: &[epoll::Event] = found;
        for event in found {
            self.handle_ready(poll, ProbeId::from_u64(event.data.u64()), event.flags);
        }
        let count = found.len();
        let now = Instant::now();
        self.scripts.handle_timeout(now);
        self.monitor.handle_timeout(now);
        self.carry_out(poll);
        count
    }

    fn handle_ready(&mut self, poll: BorrowedFd<'_>, probe: ProbeId, flags: EventFlags) {
        let now = Instant::now();
        if probe == runner::WAKE {
            let ended = self.hired.as_mut().map(Hired::ended).unwrap_or_default();
            for (probe, exit) in ended {
                self.monitor.handle_exit(now, probe, exit);
            }
            return self.carry_out(poll);
        }
        if let Some(exit) = self.scripts.reap(probe) {
            self.monitor.handle_exit(now, probe, exit);
        }
        while let Some(fact) = self.sockets.handle_ready(poll, probe, flags) {
            match fact {
                Fact::Connected(result) => self.monitor.handle_connected(now, probe, result),
                Fact::Data(data) => self.monitor.handle_data(now, probe, data),
                Fact::Closed(result) => self.monitor.handle_closed(now, probe, result),
            }
            self.carry_out(poll);
            if !self.sockets.has_more(probe) {
                break;
            }
        }
        self.sockets.rearm(poll, probe);
        self.carry_out(poll);
    }

    /// The monitor's commands, to the last, and those that follow from their outcomes.
    fn carry_out(&mut self, poll: BorrowedFd<'_>) {
        loop {
            while let Some(command) = self.monitor.poll_command() {
                self.carry_out_one(poll, command);
            }
            let Some((probe, script)) = self.scripts.next_waiting() else {
                return;
            };
            if let Some(exit) = self.scripts.run(poll, probe, script) {
                self.monitor.handle_exit(Instant::now(), probe, exit);
            }
        }
    }

    fn carry_out_one(&mut self, poll: BorrowedFd<'_>, command: Command) {
        match command {
            Command::Connect {
                probe,
                transport,
                destination,
                bind,
                bind_interface,
                mark,
            } => {
                let target = Target {
                    transport,
                    destination,
                    bind,
                    bind_interface,
                    mark,
                };
                if let Some(result) = self.sockets.connect(poll, probe, &target) {
                    self.monitor.handle_connected(Instant::now(), probe, result);
                    // What was only to connect is over by now and never needs to be watched.
                    if self.monitor.is_running(probe)
                        && let Some(error) = self.sockets.listen(poll, probe)
                    {
                        self.monitor
                            .handle_closed(Instant::now(), probe, Err(error));
                    }
                }
            }
            Command::Send { probe, data } => {
                if let Some(error) = self.sockets.send(poll, probe, data) {
                    self.monitor
                        .handle_closed(Instant::now(), probe, Err(error));
                }
            }
            Command::Run { probe, script } => {
                if let Some(hired) = &mut self.hired {
                    hired.run(probe, &script);
                } else if let Some(exit) = self.scripts.run(poll, probe, script) {
                    self.monitor.handle_exit(Instant::now(), probe, exit);
                }
            }
            Command::Terminate { probe } => {
                if let Some(hired) = &mut self.hired {
                    hired.terminate(probe);
                } else if let Some(exit) = self.scripts.terminate(Instant::now(), probe) {
                    self.monitor.handle_exit(Instant::now(), probe, exit);
                }
            }
            Command::Close { probe } => {
                self.sockets.close(probe);
                if let Some(hired) = &mut self.hired {
                    hired.close(probe);
                }
                self.scripts.close(Instant::now(), probe);
            }
        }
    }
}

impl AsFd for Driver {
    /// Readable when [`poll_event`](Driver::poll_event) has something to do, for programs with a loop of their own.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.get_ref().as_fd()
    }
}

/// How much is looked at before the clock is.
const BATCH: usize = 256;
