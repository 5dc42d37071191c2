//! The loop: what the drive rules of `lvs-vrrp` ask for.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lvs_conf::model::Config as Model;
use lvs_fwd::netlink::NetlinkError;
use lvs_vrrp::{
    Command, Event, Notice, RouterId, SetupError, State, Statistics, Task, VrrpRouter,
    select_source,
};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tracing::{debug, info, warn};

use super::convert::{Converted, convert};
use super::host::{Host, News};
use super::sockets::{Key, Sockets};
use super::sys;
use crate::logging::chain;

/// VRRP, running on a thread of its own. It ends when this is dropped.
#[derive(Debug)]
pub struct Vrrp {
    orders: Sender<Order>,
    wake: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

/// How a virtual router stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: State,
    /// Its effective priority.
    pub priority: u8,
    /// Its counters.
    pub statistics: Statistics,
}

#[derive(Debug)]
enum Order {
    Reload(Box<Converted>),
    Status(Sender<Vec<Status>>),
    SetPreemptGate(bool),
    Stop,
}

/// Why VRRP does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VrrpError {
    /// The configuration does not hang together.
    #[error("VRRP cannot be set up")]
    Setup(#[from] SetupError),
    /// Raw sockets are not to be had.
    #[error("VRRP needs raw sockets: CAP_NET_RAW in this network namespace")]
    Sockets(#[source] io::Error),
    /// The kernel's links and addresses cannot be read.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// There is no thread to be had.
    #[error("cannot start the VRRP thread")]
    Thread(#[source] io::Error),
}

impl Vrrp {
    /// Starts what a configuration says, in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// What kept it from starting; nothing has been changed then.
    pub fn start(model: &Model) -> Result<Self, VrrpError> {
        let converted = convert(model);
        let now = Instant::now();
        let router = VrrpRouter::new(now, converted.setup.clone())?;
        let sockets = Sockets::new().map_err(VrrpError::Sockets)?;
        let host = Host::open()?;
        let (orders, receiver) = channel();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| VrrpError::Thread(error.into()))?;
        let waker = wake.try_clone().map_err(VrrpError::Thread)?;
        for remark in &converted.remarks {
            warn!("{remark}");
        }
        let shell = Shell {
            router,
            converted,
            sockets,
            host,
            orders: receiver,
            wake: waker,
            stopping: false,
        };
        let thread = std::thread::Builder::new()
            .name("vrrp".to_owned())
            .spawn(move || shell.run())
            .map_err(VrrpError::Thread)?;
        Ok(Self {
            orders,
            wake,
            thread: Some(thread),
        })
    }

    /// Takes another configuration; what is the same goes on untouched.
    pub fn reload(&self, model: &Model) {
        self.order(Order::Reload(Box::new(convert(model))));
    }

    /// Opens or closes the way to preemption: closed while the connection table is not complete.
    pub fn set_preempt_gate(&self, open: bool) {
        self.order(Order::SetPreemptGate(open));
    }

    /// How the virtual routers stand; empty if the thread has ended.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        let (sender, receiver) = channel();
        self.order(Order::Status(sender));
        receiver.recv().unwrap_or_default()
    }

    fn order(&self, order: Order) {
        // A thread that has ended needs no orders.
        let _ = self.orders.send(order);
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Vrrp {
    /// Leaves with priority 0 where it is Active, and takes its addresses away.
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the VRRP thread has failed");
        }
    }
}

struct Shell {
    router: VrrpRouter,
    converted: Converted,
    sockets: Sockets,
    host: Host,
    orders: Receiver<Order>,
    wake: OwnedFd,
    stopping: bool,
}

impl Shell {
    fn run(mut self) {
        if let Err(error) = sys::set_real_time() {
            debug!("VRRP runs without real-time priority: {error}");
        }
        let now = Instant::now();
        for (name, up) in self.host.links() {
            self.router.handle_link(now, &name, up);
        }
        self.tell_sources(now);
        self.follow_sockets();
        self.router.start(now);
        self.drain();
        while !self.stopping {
            self.wait();
            // Read before you judge.
            let router = &mut self.router;
            self.sockets.receive_all(|interface, received| {
                if let Err(discard) = router.handle_packet(Instant::now(), interface, received) {
                    debug!("on {interface}: {discard}");
                }
            });
            self.drain();
            self.hear_kernel();
            self.take_orders();
            let now = Instant::now();
            if self.router.poll_timeout().is_some_and(|due| due <= now) {
                self.router.handle_timeout(now);
                self.drain();
            }
        }
    }

    /// Until a datagram, the kernel's news, an order, or the deadline.
    fn wait(&self) {
        let due = self.router.poll_timeout();
        let wait = due.map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = wait.map(timespec);
        let mut watched: Vec<PollFd<'_>> = self
            .sockets
            .descriptors()
            .chain([self.host.events().as_fd(), self.wake.as_fd()])
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
            .collect();
        // An interruption is as good as an event.
        let _ = poll(&mut watched, timeout.as_ref());
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
    }

    fn hear_kernel(&mut self) {
        let mut interfaces = false;
        let mut sources = false;
        for news in self.host.poll_news() {
            let now = Instant::now();
            match news {
                News::Link(name, up) => self.router.handle_link(now, &name, up),
                News::Interfaces => interfaces = true,
                News::Sources => sources = true,
                News::Removed(address) => self.router.handle_address_removed(now, &address),
            }
        }
        if interfaces || sources {
            self.tell_sources(Instant::now());
            self.follow_sockets();
        }
        self.drain();
    }

    /// Each virtual router's source address: the configured one, or the interface's.
    fn tell_sources(&mut self, now: Instant) {
        let sources: Vec<_> = self
            .router
            .virtual_routers()
            .map(|(id, router)| {
                let config = router.config();
                let name = self.router.name(id).map(|name| &**name).unwrap_or_default();
                let configured = self.converted.sources.get(name).copied();
                let source = configured.or_else(|| {
                    let present = self.host.addresses(&config.interface);
                    select_source(config, present)
                });
                (id, source)
            })
            .collect();
        for (id, source) in sources {
            self.router.handle_source(now, id, source);
        }
    }

    fn key(&self, id: RouterId) -> Option<Key> {
        let router = self.router.virtual_router(id)?;
        Key::of(router.config(), router.source())
    }

    fn follow_sockets(&mut self) {
        let wanted: BTreeMap<_, _> = self
            .router
            .virtual_routers()
            .filter_map(|(id, _)| {
                let key = self.key(id)?;
                let index = match key.interface.as_str() {
                    "" => 0,
                    _ => self.host.index(&key.interface)?,
                };
                Some((key, index))
            })
            .collect();
        for (key, error) in self.sockets.keep(&wanted) {
            warn!("VRRP socket on {}: {error}", key.interface);
        }
    }

    fn take_orders(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            let now = Instant::now();
            match order {
                Order::Reload(converted) => self.reload(now, *converted),
                Order::SetPreemptGate(open) => self.router.set_preempt_gate(now, open),
                Order::Status(answer) => {
                    // Who asked may be gone.
                    let _ = answer.send(self.status());
                }
                Order::Stop => {
                    self.router.shutdown(now);
                    self.stopping = true;
                }
            }
            self.drain();
        }
    }

    fn reload(&mut self, now: Instant, converted: Converted) {
        if let Err(error) = self.router.reload(now, converted.setup.clone()) {
            return warn!("reload of VRRP refused: {}", chain(&error));
        }
        for remark in converted
            .remarks
            .iter()
            .filter(|remark| !self.converted.remarks.contains(remark))
        {
            warn!("{remark}");
        }
        // What is taken away is described by the old configuration.
        self.drain();
        self.converted = converted;
        self.tell_sources(now);
        self.follow_sockets();
    }

    fn status(&self) -> Vec<Status> {
        self.router
            .virtual_routers()
            .map(|(id, router)| Status {
                name: self
                    .router
                    .name(id)
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                state: router.state(),
                priority: router.effective_priority(),
                statistics: *router.statistics(),
            })
            .collect()
    }

    /// Everything that the machine asks for, in its order.
    fn drain(&mut self) {
        let mut bytes = Vec::new();
        while let Some((id, transmit)) = self.router.poll_transmit(&mut bytes) {
            let Some(key) = self.key(id) else { continue };
            if let Err(error) = self.sockets.send(&key, &transmit, &bytes) {
                debug!("advertisement on {}: {error}", key.interface);
            }
        }
        while let Some(task) = self.router.poll_command() {
            if let Task::Router { command, .. } = task {
                self.carry_out(&command);
            }
        }
        while let Some(notice) = self.router.poll_event() {
            tell(&notice);
        }
    }

    fn carry_out(&mut self, command: &Command) {
        match command {
            Command::AddAddresses(addresses) => {
                for address in addresses {
                    let how = self.converted.addresses.get(address);
                    self.host.add(address, how);
                }
            }
            Command::RemoveAddresses(addresses) => {
                for address in addresses {
                    let how = self.converted.addresses.get(address);
                    self.host.remove(address, how);
                }
            }
            Command::Announce(announcement) => {
                let Some((index, mac)) = self.host.place(&announcement.interface) else {
                    return;
                };
                let sent = self
                    .sockets
                    .announce(announcement.address, index, mac, true);
                if let Err(error) = sent {
                    debug!("announcement on {}: {error}", announcement.interface);
                }
            }
            // Named as missing when the configuration was read.
            _ => {}
        }
    }
}

fn tell(notice: &Notice) {
    match notice {
        Notice::Router { name, event, .. } => match event {
            Event::Complaint(_)
            | Event::Late { .. }
            | Event::RivalOwner { .. }
            | Event::Restored { .. } => warn!("vrrp_instance {name}: {event}"),
            Event::StateChanged(_) | Event::PriorityChanged { .. } | Event::WaitsForGroup => {
                info!("vrrp_instance {name}: {event}");
            }
            _ => debug!("vrrp_instance {name}: {event}"),
        },
        Notice::Group { from, to, .. } => info!("sync group: {to} from {from}"),
        Notice::Object { object, health } => info!("{object}: {health:?}"),
        _ => {}
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
