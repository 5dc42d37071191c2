//! Links, addresses, routes, neighbours and rules of one network namespace, over netlink.
//!
//! [`Netlink`] is synchronous: each call is one request and its answer, so calls take effect in the order in
//! which they are made. [`Events`] is a second socket that tells what others changed. Both stay with the
//! network namespace of the thread that opened them, wherever they are used later.
//!
//! Everything that this crate or its user puts into the kernel carries the mark [`MARK`], where the kernel
//! has room for one: a process that starts after a crash finds the leftovers of its predecessor by it.
//!
//! No netlink library shows through: the types here are plain data.
//!
//! ```no_run
//! use lvs_fwd::netlink::{Address, MARK, Netlink};
//!
//! # fn main() -> Result<(), lvs_fwd::netlink::NetlinkError> {
//! let mut netlink = Netlink::open()?;
//! let link = netlink.link_by_name("eth0")?;
//! let mut vip = Address::new(link.index, "192.0.2.10".parse().expect("an address"), 32);
//! vip.protocol = MARK;
//! netlink.add_address(&vip)?;
//! # Ok(())
//! # }
//! ```

mod address;
mod events;
mod link;
mod neighbour;
mod route;
mod rule;
mod socket;

use std::io;

pub use address::{Address, Scope};
pub use events::{Event, Events, RouteChange};
pub use link::Link;
pub use neighbour::NeighbourEntry;
pub use route::{Hop, KernelRoute, TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN};
pub use rule::Rule;
pub(crate) use socket::{Nla, Socket, messages, nlas};

/// The origin written into addresses (`IFA_PROTO`), routes (`rtm_protocol`) and rules (`FRA_PROTOCOL`) that
/// belong to a director. A number that no routing daemon has registered.
pub const MARK: u8 = 76;

/// A request socket.
#[derive(Debug)]
pub struct Netlink(Socket);

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn open() -> Result<Self, NetlinkError> {
        Socket::open(libc::NETLINK_ROUTE)
            .map(Self)
            .map_err(NetlinkError::on("open", "netlink socket"))
    }
}

/// A request that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {object}")]
pub struct NetlinkError {
    /// What was asked for, as a verb: `add address`.
    pub operation: &'static str,
    /// What it was about.
    pub object: String,
    /// The kernel's answer.
    pub source: io::Error,
}

impl NetlinkError {
    /// For `map_err`: names operation and object.
    pub(crate) fn on(
        operation: &'static str,
        object: impl ToString,
    ) -> impl FnOnce(io::Error) -> Self {
        move |source| Self {
            operation,
            object: object.to_string(),
            source,
        }
    }

    /// Whether the object was there already.
    pub fn is_exists(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EEXIST)
    }

    /// Whether the object, or something that it needs, was not there.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.source.raw_os_error(),
            Some(libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::EADDRNOTAVAIL)
        )
    }
}
