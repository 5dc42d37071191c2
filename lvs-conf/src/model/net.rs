//! Addresses, routes and rules.

use super::{Duration, Family, Id, IpAddr, Ipv4Addr, fmt};

/// An address that the master or the daemon holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualAddress {
    /// The address.
    pub address: IpAddr,
    /// Prefix length, the peer's if there is one.
    pub prefix_len: u8,
    /// Interface; `None`: the instance's.
    pub interface: Option<String>,
    /// Label.
    pub label: Option<String>,
    /// Scope as written, a name or a number.
    pub scope: Option<String>,
    /// Broadcast address, computed for `+` and `-`.
    pub broadcast: Option<Ipv4Addr>,
    /// Address of the other end.
    pub peer: Option<IpAddr>,
    /// Loss of the address does not affect the instance.
    pub no_track: bool,
    /// Flags of the kernel.
    pub flags: AddressFlags,
    /// Preferred lifetime; `None`: the default, which is none for a single IPv6 address.
    pub preferred_lifetime: Option<Lifetime>,
    /// Put on a VMAC interface (virtual addresses).
    pub use_vmac: bool,
    /// Instances that it follows (static addresses).
    pub track_group: Option<String>,
}

/// Flags of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddressFlags {
    /// `home`.
    pub home: bool,
    /// `-nodad`: duplicate address detection takes place.
    pub detect_duplicates: bool,
    /// `mngtmpaddr`.
    pub manage_temporary: bool,
    /// `noprefixroute`.
    pub no_prefix_route: bool,
    /// `autojoin`.
    pub auto_join: bool,
}

/// How long an address is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Always.
    Forever,
    /// So long, in whole seconds.
    Limited(Duration),
}

/// Addresses that share their first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// An address of the net.
    pub address: IpAddr,
    /// Bits that count.
    pub len: u8,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Type.
    pub kind: RouteKind,
    /// Where to; `None`: everywhere.
    pub destination: Option<Prefix>,
    /// Preferred source.
    pub source: Option<IpAddr>,
    /// Source that it is for (IPv6).
    pub from: Option<Prefix>,
    /// Gateway, of either family.
    pub gateway: Option<IpAddr>,
    /// Second gateway, an old way to write two next hops.
    pub second_gateway: Option<IpAddr>,
    /// Type of service.
    pub tos: Option<Id>,
    /// Routing table; `None`: main.
    pub table: Option<Id>,
    /// Who made it; `None`: keepalived (18).
    pub protocol: Option<Id>,
    /// Scope.
    pub scope: Option<Id>,
    /// Metric.
    pub metric: Option<u32>,
    /// Interface.
    pub interface: Option<String>,
    /// The gateway is on the link whatever its address.
    pub onlink: bool,
    /// What packets are wrapped in.
    pub encap: Option<Encap>,
    /// Seconds until it goes (IPv6).
    pub expires: Option<u32>,
    /// Metrics.
    pub metrics: RouteMetrics,
    /// Realms as written (IPv4).
    pub realms: Option<String>,
    /// Router preference (IPv6).
    pub preference: Option<Id>,
    /// Pass the time to live on to an MPLS label.
    pub ttl_propagate: Option<bool>,
    /// Where it goes among routes that are alike.
    pub insertion: Insertion,
    /// Next hops, instead of one gateway.
    pub next_hops: Vec<NextHop>,
    /// Loss of the route does not affect the instance.
    pub no_track: bool,
    /// Instances that it follows (static routes).
    pub track_group: Option<String>,
    /// Routing domain.
    pub vrf: Option<String>,
}

/// Type of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// One with a name.
    Named(RouteType),
    /// One without, 0..=255.
    Number(u8),
}

impl fmt::Display for RouteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(kind) => kind.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

words! {
    /// Types of routes.
    RouteType {
        /// Forwarded.
        Unicast = "unicast",
        /// Delivered here.
        Local = "local",
        /// Translated.
        Nat = "nat",
        /// Broadcast.
        Broadcast = "broadcast",
        /// Anycast.
        Anycast = "anycast",
        /// Multicast.
        Multicast = "multicast",
        /// Refused as prohibited.
        Prohibit = "prohibit",
        /// Refused as unreachable.
        Unreachable = "unreachable",
        /// Dropped.
        Blackhole = "blackhole",
        /// Asked of a daemon.
        Xresolve = "xresolve",
        /// Looked up in the next table.
        Throw = "throw",
    }
}

words! {
    /// Where a route goes among routes that are alike.
    Insertion {
        /// Before them.
        Prepend = "prepend",
        /// After them.
        Append = "append",
        /// Nowhere, it is an error.
        Add = "add",
    }
}

/// Metrics of a route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteMetrics {
    /// Largest packet.
    pub mtu: Option<Locked<u32>>,
    /// Largest TCP segment that is announced.
    pub advmss: Option<Locked<u32>>,
    /// Reordering.
    pub reordering: Option<Locked<u32>>,
    /// Clamp of the congestion window.
    pub cwnd: Option<Locked<u32>>,
    /// Slow start threshold.
    pub ssthresh: Option<Locked<u32>>,
    /// Hop limit.
    pub hoplimit: Option<u8>,
    /// Round trip time.
    pub rtt: Option<Locked<Duration>>,
    /// Its variance.
    pub rttvar: Option<Locked<Duration>>,
    /// Shortest retransmission timeout.
    pub rto_min: Option<Locked<Duration>>,
    /// Largest window.
    pub window: Option<u32>,
    /// Initial congestion window.
    pub initcwnd: Option<u32>,
    /// Initial receive window.
    pub initrwnd: Option<u32>,
    /// Explicit congestion notification.
    pub ecn: bool,
    /// Acknowledge at once.
    pub quickack: Option<bool>,
    /// Fast open without cookie.
    pub fastopen_no_cookie: Option<bool>,
    /// Congestion control algorithm.
    pub congctl: Option<Locked<String>>,
}

/// A metric that the kernel may or may not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locked<T> {
    /// The value.
    pub value: T,
    /// The kernel leaves it alone.
    pub lock: bool,
}

/// One of several gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHop {
    /// Gateway.
    pub gateway: Option<IpAddr>,
    /// Interface.
    pub interface: Option<String>,
    /// Share of the packets, 1..=256.
    pub weight: u16,
    /// The gateway is on the link whatever its address.
    pub onlink: bool,
    /// What packets are wrapped in.
    pub encap: Option<Encap>,
    /// Realms as written.
    pub realms: Option<String>,
}

/// What the packets of a route are wrapped in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encap {
    /// An IPv4 tunnel.
    Ip(EncapIp),
    /// An IPv6 tunnel.
    Ip6(EncapIp),
    /// MPLS labels.
    Mpls(Vec<u32>),
    /// An identifier locator address, as written.
    Ila(String),
}

/// Header fields of a tunnel; a destination or an id is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EncapIp {
    /// Tunnel id.
    pub id: Option<u64>,
    /// Destination.
    pub destination: Option<IpAddr>,
    /// Source.
    pub source: Option<IpAddr>,
    /// Type of service or traffic class.
    pub tos: Option<Id>,
    /// Time to live or hop limit.
    pub ttl: Option<u8>,
    /// Flags.
    pub flags: Option<u16>,
}

/// A routing rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// IPv4 or IPv6.
    pub family: Family,
    /// What happens with packets that match.
    pub action: RuleAction,
    /// Packets that do not match are meant.
    pub not: bool,
    /// Source; `None`: every source.
    pub from: Option<Prefix>,
    /// Destination; `None`: every destination.
    pub to: Option<Prefix>,
    /// Order; `None`: a number is given automatically, counting down from 16384.
    pub preference: Option<u32>,
    /// Type of service.
    pub tos: Option<Id>,
    /// Mark.
    pub fwmark: Option<FwMark>,
    /// Realms as written (IPv4).
    pub realms: Option<String>,
    /// Ignore routes with prefixes no longer than this.
    pub suppress_prefix_length: Option<u32>,
    /// Ignore routes through interfaces of this group.
    pub suppress_group: Option<Id>,
    /// Interface that packets come from.
    pub iif: Option<String>,
    /// Interface that a socket is bound to.
    pub oif: Option<String>,
    /// Tunnel id.
    pub tunnel_id: Option<u64>,
    /// First and last user id.
    pub uid_range: Option<(u32, u32)>,
    /// Who made it; `None`: keepalived (18).
    pub protocol: Option<Id>,
    /// IP protocol.
    pub ip_protocol: Option<Id>,
    /// First and last source port.
    pub source_ports: Option<(u16, u16)>,
    /// First and last destination port.
    pub destination_ports: Option<(u16, u16)>,
    /// Loss of the rule does not affect the instance.
    pub no_track: bool,
    /// Instances that it follows (static rules).
    pub track_group: Option<String>,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RuleAction {
    /// Look up in a table.
    Table(Id),
    /// Look up in the table of the routing domain.
    L3mdev,
    /// Go on with the rule of this preference.
    Goto(u32),
    /// Nothing.
    Nop,
    /// Drop.
    Blackhole,
    /// Refuse as unreachable.
    Unreachable,
    /// Refuse as prohibited.
    Prohibit,
}

/// A mark to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FwMark {
    /// The mark.
    pub mark: u32,
    /// Bits that count; `None`: all.
    pub mask: Option<u32>,
}
