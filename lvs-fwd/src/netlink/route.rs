//! Routes, as the kernel keeps them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
    RouteProtocol, RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::address::family;
use super::{Netlink, NetlinkError, Scope};
use crate::route::{NextHop, Prefix, Route, RouteKind};

/// A route with what only the kernel cares about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRoute {
    /// The destinations that it is for.
    pub destination: Prefix,
    /// Where packets go; several if they are spread, none if they go nowhere.
    pub hops: Vec<Hop>,
    /// What it says.
    pub kind: RouteKind,
    /// Of routes to the same prefix in a table the lowest metric is used.
    pub metric: u32,
    /// Number of its table.
    pub table: u32,
    /// Type of service that it is limited to; 0 is none.
    pub tos: u8,
    /// Who put it there: 2 the kernel, 3 boot, 4 the administrator, …
    pub protocol: u8,
    /// How far its destinations are away.
    pub scope: Scope,
    /// Source address that the host itself uses.
    pub source: Option<IpAddr>,
    /// Largest IP packet in bytes; `None` leaves it to the interface.
    pub mtu: Option<u32>,
}

/// One way out of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// Who gets the frame.
    pub next_hop: NextHop,
    /// Output interface.
    pub ifindex: u32,
}

/// The table that routes are put in unless something else is said.
pub const TABLE_MAIN: u32 = 254;
/// The table asked last, normally empty.
pub const TABLE_DEFAULT: u32 = 253;
/// The kernel's table of the host's own and broadcast addresses.
pub const TABLE_LOCAL: u32 = 255;

impl KernelRoute {
    /// A unicast route in the main table, as an administrator would add it.
    pub fn new(destination: Prefix, next_hop: NextHop, ifindex: u32) -> Self {
        Self {
            destination,
            hops: vec![Hop { next_hop, ifindex }],
            kind: RouteKind::Unicast,
            metric: 0,
            table: TABLE_MAIN,
            tos: 0,
            protocol: PROTOCOL_STATIC,
            scope: match next_hop {
                NextHop::OnLink => Scope::Link,
                NextHop::Gateway(_) => Scope::Global,
            },
            source: None,
            mtu: None,
        }
    }

    /// The same route as the forwarder's table takes it: one for each way out.
    pub fn routes(&self) -> impl Iterator<Item = Route> + '_ {
        let nowhere = Hop {
            next_hop: NextHop::OnLink,
            ifindex: 0,
        };
        let single = self.hops.is_empty().then_some(nowhere);
        self.hops.iter().copied().chain(single).map(|hop| Route {
            destination: self.destination,
            next_hop: hop.next_hop,
            ifindex: hop.ifindex,
            kind: self.kind,
            metric: self.metric,
            source: self.source,
            mtu: self.mtu,
        })
    }
}

impl Netlink {
    /// All routes of both families in all tables.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn routes(&mut self) -> Result<Vec<KernelRoute>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            match self.0.dump(RouteNetlinkMessage::GetRoute(request)) {
                Ok(found) => routes.extend(found.into_iter().filter_map(|message| match message {
                    RouteNetlinkMessage::NewRoute(message) => KernelRoute::decode(&message),
                    _ => None,
                })),
                // A kernel without IPv6 has no IPv6 routes.
                Err(error)
                    if family == AddressFamily::Inet6
                        && matches!(
                            error.raw_os_error(),
                            Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)
                        ) => {}
                Err(error) => return Err(NetlinkError::on("list", "routes")(error)),
            }
        }
        Ok(routes)
    }

    /// Adds a route.
    ///
    /// # Errors
    ///
    /// [Exists](NetlinkError::is_exists), or what the kernel reports.
    pub fn add_route(&mut self, route: &KernelRoute) -> Result<(), NetlinkError> {
        self.0
            .request(
                RouteNetlinkMessage::NewRoute(route.encode()),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .map_err(NetlinkError::on("add route", route))
    }

    /// Deletes a route.
    ///
    /// # Errors
    ///
    /// [Not found](NetlinkError::is_not_found), or what the kernel reports.
    pub fn delete_route(&mut self, route: &KernelRoute) -> Result<(), NetlinkError> {
        self.0
            .request(RouteNetlinkMessage::DelRoute(route.encode()), 0)
            .map_err(NetlinkError::on("delete route", route))
    }
}

impl std::fmt::Display for KernelRoute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in table {}", self.destination, self.table)
    }
}

impl KernelRoute {
    fn encode(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family(&self.destination.addr());
        message.header.destination_prefix_length = self.destination.length();
        message.header.tos = self.tos;
        // Numbers that do not fit the header are told in the attribute alone.
        message.header.table = u8::try_from(self.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
        message.header.protocol = RouteProtocol::from(self.protocol);
        message.header.scope = match self.scope {
            Scope::Global => RouteScope::Universe,
            Scope::Site => RouteScope::Site,
            Scope::Link => RouteScope::Link,
            Scope::Host => RouteScope::Host,
            Scope::Other(number) => RouteScope::Other(number),
        };
        message.header.kind = match self.kind {
            RouteKind::Unicast => RouteType::Unicast,
            RouteKind::Local => RouteType::Local,
            RouteKind::Blackhole => RouteType::BlackHole,
            RouteKind::Unreachable => RouteType::Unreachable,
            RouteKind::Prohibit => RouteType::Prohibit,
            RouteKind::Broadcast => RouteType::Broadcast,
        };
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Table(self.table));
        if self.destination.length() > 0 {
            attributes.push(RouteAttribute::Destination(self.destination.addr().into()));
        }
        match &self.hops[..] {
            [] => {}
            [hop] => {
                attributes.extend(self.gateway(hop));
                if hop.ifindex != 0 {
                    attributes.push(RouteAttribute::Oif(hop.ifindex));
                }
            }
            hops => {
                let hops = hops.iter().map(|hop| {
                    let mut next = RouteNextHop::default();
                    next.interface_index = hop.ifindex;
                    next.attributes.extend(self.gateway(hop));
                    next
                });
                attributes.push(RouteAttribute::MultiPath(hops.collect()));
            }
        }
        attributes.extend(
            self.source
                .map(|source| RouteAttribute::PrefSource(source.into())),
        );
        if self.metric != 0 {
            attributes.push(RouteAttribute::Priority(self.metric));
        }
        attributes.extend(
            self.mtu
                .map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])),
        );
        message
    }

    fn gateway(&self, hop: &Hop) -> Option<RouteAttribute> {
        let NextHop::Gateway(gateway) = hop.next_hop else {
            return None;
        };
        Some(match (gateway, self.destination.addr()) {
            (IpAddr::V6(gateway), IpAddr::V4(_)) => RouteAttribute::Via(RouteVia::Inet6(gateway)),
            _ => RouteAttribute::Gateway(gateway.into()),
        })
    }

    /// `None` for other families, cached routes, and kinds that say nothing about forwarding.
    pub(super) fn decode(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let mut destination = match header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        // Routes that depend on the source have no place in a table by destination.
        if header.source_prefix_length != 0 || header.flags.bits() & CLONED != 0 {
            return None;
        }
        let kind = match header.kind {
            RouteType::Unicast => RouteKind::Unicast,
            RouteType::Local => RouteKind::Local,
            RouteType::BlackHole => RouteKind::Blackhole,
            RouteType::Unreachable => RouteKind::Unreachable,
            RouteType::Prohibit => RouteKind::Prohibit,
            RouteType::Broadcast | RouteType::Multicast | RouteType::Anycast => {
                RouteKind::Broadcast
            }
            _ => return None,
        };
        let (mut table, mut metric) = (u32::from(header.table), 0);
        let (mut source, mut mtu) = (None, None);
        let mut hops = Vec::new();
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(addr) => destination = ip(addr)?,
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Priority(number) => metric = *number,
                RouteAttribute::PrefSource(addr) => source = ip(addr),
                RouteAttribute::Metrics(metrics) => {
                    mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
                        _ => None,
                    });
                }
                RouteAttribute::MultiPath(many) => {
                    hops.extend(many.iter().filter_map(|hop| {
                        let index = Some(hop.interface_index).filter(|index| *index != 0);
                        decode_hop(index, &hop.attributes)
                    }));
                }
                _ => {}
            }
        }
        if hops.is_empty() {
            hops.extend(decode_hop(None, &message.attributes));
        }
        Some(Self {
            destination: Prefix::new(destination, header.destination_prefix_length),
            hops,
            kind,
            metric,
            table,
            tos: header.tos,
            protocol: header.protocol.into(),
            scope: match header.scope {
                RouteScope::Universe => Scope::Global,
                RouteScope::Site => Scope::Site,
                RouteScope::Link => Scope::Link,
                RouteScope::Host => Scope::Host,
                other => Scope::Other(other.into()),
            },
            source,
            mtu,
        })
    }
}

fn decode_hop(index: Option<u32>, attributes: &[RouteAttribute]) -> Option<Hop> {
    let mut ifindex = index;
    let mut next_hop = NextHop::OnLink;
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(addr) => next_hop = NextHop::Gateway(ip(addr)?),
            RouteAttribute::Via(RouteVia::Inet(addr)) => {
                next_hop = NextHop::Gateway((*addr).into());
            }
            RouteAttribute::Via(RouteVia::Inet6(addr)) => {
                next_hop = NextHop::Gateway((*addr).into());
            }
            _ => {}
        }
    }
    Some(Hop {
        next_hop,
        ifindex: ifindex?,
    })
}

fn ip(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}

/// RTPROT_STATIC.
const PROTOCOL_STATIC: u8 = 4;
/// RTM_F_CLONED: an entry of the route cache.
const CLONED: u32 = 0x200;
