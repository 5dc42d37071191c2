//! VRRP's thread, from outside.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use lvs_fwd::netlink::NetlinkError;
use lvs_vrrp::{
    Complaint, Config, Event, Fault, Health, Peer, SetupError, State, Statistics, TrackedObject,
    VirtualAddress,
};
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tracing::warn;

use super::convert::Converted;
use super::shell::Shell;
use crate::notify::scripts::{Exit, Runner};

/// VRRP, running on a thread of its own. It ends when this is dropped.
#[derive(Debug)]
pub struct Vrrp {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Where orders and facts are sent to, from any thread.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    orders: Sender<Order>,
    wake: Arc<OwnedFd>,
}

impl Handle {
    pub(super) fn send(&self, order: Order) {
        // A thread that has ended needs no orders.
        let _ = self.orders.send(order);
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// What VRRP tells the rest of the program, in the order in which it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum News {
    /// Packets to exactly these addresses are this host's. Addresses that are new are set when
    /// [`confirm`](Vrrp::confirm) was called with this number: then nobody but the balancer answers to them.
    Held {
        /// Counts these.
        number: u64,
        /// The addresses.
        addresses: BTreeSet<IpAddr>,
    },
    /// Something happened to an instance.
    Instance {
        /// Its name.
        name: Arc<str>,
        /// What.
        event: Event,
        /// Its effective priority.
        priority: u8,
        /// No script, FIFO or mail is due for it: the instance only joins the state that its group has told of.
        silent: bool,
    },
    /// A sync group changed its state.
    Group {
        /// Its name.
        name: Arc<str>,
        /// Before.
        from: State,
        /// Now.
        to: State,
    },
    /// An address of an instance was set or taken away.
    Address {
        /// Which, and where.
        address: VirtualAddress,
        /// Its prefix length, where it is known.
        prefix_len: Option<u8>,
        /// What.
        change: AddressChange,
    },
    /// The host does not do what is asked of it.
    Trouble(String),
    /// A BFD session is up, or is so no longer.
    Session {
        /// The name of the `bfd_instance`.
        name: Arc<str>,
        /// Whether it is up.
        is_up: bool,
    },
    /// Something that is watched changed.
    Object {
        /// What.
        object: TrackedObject,
        /// Now.
        health: Health,
    },
}

/// What happened to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressChange {
    /// It was set.
    Added,
    /// It was there already, and is taken away with the others.
    WasThere,
    /// It was taken away.
    Removed,
    /// It was left by a director that ended early, and is taken away.
    RemovedLeftover,
    /// Somebody else had set it. It moves by VRRP now, so it is taken away.
    RemovedForeign,
    /// What was asked for was refused; why.
    Failed(String),
}

/// How a virtual router stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its name.
    pub name: Arc<str>,
    /// Its configuration.
    pub config: Config,
    /// Its state.
    pub state: State,
    /// For how long.
    pub since: Duration,
    /// Why, in one sentence; empty before the first change.
    pub reason: String,
    /// Its effective priority.
    pub priority: u8,
    /// The address that it sends from.
    pub source: Option<IpAddr>,
    /// The router that it follows or last followed, and how long ago that was last heard.
    pub active_router: Option<(Peer, Duration)>,
    /// What is broken.
    pub faults: Vec<Fault>,
    /// What has not reported yet and is waited for.
    pub awaited: Vec<TrackedObject>,
    /// Its sync group.
    pub group: Option<Arc<str>>,
    /// Its timer has ended, but its sync group holds it back.
    pub waits_for_group: bool,
    /// How long until a preemption delay that has begun is over.
    pub preempts_in: Option<Duration>,
    /// Senders that cannot be understood.
    pub complaints: Vec<Complaint>,
    /// Its counters.
    pub statistics: Statistics,
}

#[derive(Debug)]
pub(super) enum Order {
    Reload(Box<Converted>),
    Status(oneshot::Sender<Vec<Status>>),
    SetPreemptGate(bool),
    Confirm(u64),
    /// A run of a check script ended so.
    Script(Arc<str>, Exit),
    /// A tracked file has this number.
    File(String, i32),
    /// There are so many processes of this kind.
    Processes(String, u32),
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

/// Whether packets to virtual addresses are claimed before the addresses are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claims {
    /// They are: addresses wait for [`Vrrp::confirm`], for a second at most.
    Awaited,
    /// Nothing is balanced here: addresses are set at once.
    None,
}

impl Vrrp {
    /// Starts what a configuration says, in the calling thread's network namespace. Check scripts are run by `scripts`.
    ///
    /// # Errors
    ///
    /// What kept it from starting; nothing has been changed then.
    pub fn start(
        converted: Converted,
        claims: Claims,
        scripts: Runner,
        news: UnboundedSender<News>,
    ) -> Result<Self, VrrpError> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| VrrpError::Thread(error.into()))?;
        let wake = Arc::new(wake);
        let (orders, inbox) = channel();
        let handle = Handle { orders, wake };
        let wake = Arc::clone(&handle.wake);
        let shell = Shell::new(
            converted,
            claims,
            scripts,
            news,
            handle.clone(),
            (inbox, wake),
        )?;
        let thread = std::thread::Builder::new()
            .name("vrrp".to_owned())
            .spawn(move || shell.run())
            .map_err(VrrpError::Thread)?;
        Ok(Self {
            handle,
            thread: Some(thread),
        })
    }

    /// Takes another configuration; what is the same goes on untouched. One that does not hang together is refused in the log: let
    /// [`Converted::check`] say so first.
    pub fn reload(&self, converted: Converted) {
        self.handle.send(Order::Reload(Box::new(converted)));
    }

    /// Opens or closes the way to preemption: closed while the connection table is not complete.
    pub fn set_preempt_gate(&self, open: bool) {
        self.handle.send(Order::SetPreemptGate(open));
    }

    /// Packets to the addresses of this [`News::Held`] are taken from the host now.
    pub fn confirm(&self, number: u64) {
        self.handle.send(Order::Confirm(number));
    }

    /// How the virtual routers stand, in the order of the configuration. No answer comes if the thread has ended.
    #[must_use]
    pub fn status(&self) -> oneshot::Receiver<Vec<Status>> {
        let (sender, receiver) = oneshot::channel();
        self.handle.send(Order::Status(sender));
        receiver
    }

    /// Whether its thread has failed, and taken its addresses along.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Vrrp {
    /// Leaves with priority 0 where it is Active, and takes its addresses away.
    fn drop(&mut self) {
        self.handle.send(Order::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the VRRP thread has failed");
        }
    }
}
