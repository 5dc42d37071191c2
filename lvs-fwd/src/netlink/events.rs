//! What others change.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NLM_F_APPEND, NLM_F_REPLACE};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::socket::{decode, messages, nlas};
use super::{Address, KernelRoute, Link, NeighbourEntry, NetlinkError, Socket};

/// A change in the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An interface appeared or changed.
    Link(Link),
    /// An interface is gone.
    LinkGone {
        /// Its index.
        ifindex: u32,
    },
    /// An address appeared or changed.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// A route appeared.
    Route(KernelRoute, RouteChange),
    /// A route is gone. Not told of routes that fall with their interface or source address (IPv4).
    RouteGone(KernelRoute),
    /// A neighbour appeared or changed.
    Neighbour(NeighbourEntry),
    /// A neighbour entry is gone.
    NeighbourGone(NeighbourEntry),
    /// Whether the kernel forwards IPv6 packets changed.
    ForwardingV6 {
        /// Whether it forwards.
        enabled: bool,
    },
    /// Whether the kernel forwards IPv4 packets that come in at an interface changed.
    Forwarding {
        /// The interface.
        ifindex: u32,
        /// Whether it forwards.
        enabled: bool,
    },
    /// Events were lost: what was learned from them is out of date, dump again.
    Overrun,
}

/// How a new route relates to its equals: those with the same destination, table, metric and type of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteChange {
    /// It comes before them.
    Prepended,
    /// It comes after them.
    Appended,
    /// It takes the place of the first (IPv4) or of all (IPv6).
    Replaced,
}

/// A socket that tells of changes to links, addresses, routes and neighbours. It never blocks.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
    queue: VecDeque<Event>,
}

impl Events {
    /// Subscribes in the calling thread's network namespace. Subscribe first, then dump, then follow: so
    /// nothing is missed, and what is told twice does no harm.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn open() -> Result<Self, NetlinkError> {
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_NEIGH
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV6_ROUTE;
        let socket = Socket::subscribe(
            libc::NETLINK_ROUTE,
            groups as u32 | GROUP_IPV4_NETCONF | GROUP_IPV6_NETCONF,
        )
        .map_err(NetlinkError::on("open", "netlink event socket"))?;
        Ok(Self {
            socket,
            queue: VecDeque::new(),
        })
    }

    /// The next event; `None` if there is none now. Wait with `poll(2)` on the descriptor.
    ///
    /// # Errors
    ///
    /// What the system reports. Lost events are no error but [`Event::Overrun`].
    pub fn poll_event(&mut self) -> Result<Option<Event>, NetlinkError> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(Some(event));
            }
            match self.socket.receive(false) {
                Ok(datagram) => {
                    self.queue.extend(messages(datagram).filter_map(
                        |message| {
                            match message.kind {
                                NEW_NETCONF => forwarding(message.payload()),
                                _ => decode(message.bytes)
                                    .and_then(|(message, flags)| event(message, flags)),
                            }
                        },
                    ));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Ok(Some(Event::Overrun));
                }
                Err(error) => return Err(NetlinkError::on("receive", "netlink events")(error)),
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn event(message: RouteNetlinkMessage, flags: u16) -> Option<Event> {
    Some(match message {
        RouteNetlinkMessage::NewLink(message) => Event::Link(Link::decode(&message)?),
        // A bridge tells with its own family that a port left it; the link itself stays.
        RouteNetlinkMessage::DelLink(message)
            if message.header.interface_family == AddressFamily::Unspec =>
        {
            Event::LinkGone {
                ifindex: message.header.index,
            }
        }
        RouteNetlinkMessage::NewAddress(message) => Event::Address(Address::decode(&message)?),
        RouteNetlinkMessage::DelAddress(message) => Event::AddressGone(Address::decode(&message)?),
        RouteNetlinkMessage::NewRoute(message) => {
            let change = if flags & NLM_F_REPLACE != 0 {
                RouteChange::Replaced
            } else if flags & NLM_F_APPEND != 0 {
                RouteChange::Appended
            } else {
                RouteChange::Prepended
            };
            Event::Route(KernelRoute::decode(&message)?, change)
        }
        RouteNetlinkMessage::DelRoute(message) => Event::RouteGone(KernelRoute::decode(&message)?),
        RouteNetlinkMessage::NewNeighbour(message) => {
            Event::Neighbour(NeighbourEntry::decode(&message)?)
        }
        RouteNetlinkMessage::DelNeighbour(message) => {
            Event::NeighbourGone(NeighbourEntry::decode(&message)?)
        }
        _ => return None,
    })
}

/// `RTM_NEWNETCONF`, which the message crate does not know: a family byte, padding, attributes. Negative
/// indexes stand for "all" and "default".
fn forwarding(payload: &[u8]) -> Option<Event> {
    let number = |wanted| {
        let (_, value) = nlas(payload.get(4..)?).find(|(kind, _)| *kind == wanted)?;
        Some(i32::from_ne_bytes(*value.first_chunk()?))
    };
    let (ifindex, enabled) = (number(NETCONF_IFINDEX)?, number(NETCONF_FORWARDING)? != 0);
    match i32::from(*payload.first()?) {
        libc::AF_INET => Some(Event::Forwarding {
            ifindex: u32::try_from(ifindex).ok()?,
            enabled,
        }),
        // The interfaces' own values say how they are configured, not whether packets are routed.
        libc::AF_INET6 if ifindex == NETCONF_ALL => Some(Event::ForwardingV6 { enabled }),
        _ => None,
    }
}

const NEW_NETCONF: u16 = 80;
const NETCONF_IFINDEX: u16 = 1;
const NETCONF_FORWARDING: u16 = 2;
const NETCONF_ALL: i32 = -1;
/// Group number 24, as a bit.
const GROUP_IPV4_NETCONF: u32 = 1 << 23;
/// Group number 25, as a bit.
const GROUP_IPV6_NETCONF: u32 = 1 << 24;
