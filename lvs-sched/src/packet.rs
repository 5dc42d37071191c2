//! The vocabulary of one packet: what the data path tells and what it is told.

use std::fmt;
use std::net::SocketAddr;

/// Transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, protocol number 6.
    Tcp,
    /// UDP, protocol number 17.
    Udp,
    /// SCTP, protocol number 132. Services may be configured; packets are answered with
    /// [`Verdict::NotOurs`].
    Sctp,
}

impl Protocol {
    /// IANA protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol with this IANA number, if a service can have it.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

/// Which way a packet travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From a client to a virtual service.
    Inbound,
    /// From a real server to a client.
    Outbound,
}

/// Flags octet of a TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: Self = Self(0x01);
    /// SYN.
    pub const SYN: Self = Self(0x02);
    /// RST.
    pub const RST: Self = Self(0x04);
    /// PSH.
    pub const PSH: Self = Self(0x08);
    /// ACK.
    pub const ACK: Self = Self(0x10);

    /// The flags as they stand in octet 13 of the header.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The octet.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

/// What the balancer needs to know of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// Which way it travels.
    pub direction: Direction,
    /// TCP flags; ignored for other protocols.
    pub tcp_flags: TcpFlags,
    /// Length of the IP packet in bytes, IP header included.
    pub length: u32,
    /// Firewall mark, 0 for none.
    pub mark: u32,
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Send it to a real server.
    Forward {
        /// How it gets there.
        method: ForwardMethod,
        /// The real server's address and port.
        server: SocketAddr,
    },
    /// A real server's answer on its way to the client.
    Reply {
        /// The method of the connection; only [`ForwardMethod::Nat`] and [`ForwardMethod::FullNat`]
        /// need a rewrite.
        method: ForwardMethod,
        /// The source that the client must see.
        vip: SocketAddr,
    },
    /// No service and no connection: the host or the router has it.
    NotOurs,
    /// Discard it silently. Counted, see [`Director::dropped`](crate::Director::dropped).
    Drop(DropReason),
    /// Discard it and answer the client with ICMP port unreachable.
    Reject,
}

/// Why a packet is discarded without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The connection or template table is at its configured limit.
    TableFull,
    /// The connection's real server was removed from its service.
    ServerRemoved,
}

impl DropReason {
    /// All reasons, for listings.
    pub const ALL: [Self; 2] = [Self::TableFull, Self::ServerRemoved];

    /// Short name for counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TableFull => "table-full",
            Self::ServerRemoved => "server-removed",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How packets reach a real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ForwardMethod {
    /// Destination address and port are rewritten, replies are rewritten back.
    #[doc(alias = "masquerading")]
    Nat = 0,
    /// The real server is on the director itself.
    Local = 1,
    /// Encapsulated (IPIP, GUE, GRE).
    Tunnel = 2,
    /// Sent unchanged to the real server's link address.
    #[default]
    #[doc(alias = "gatewaying")]
    DirectRoute = 3,
    /// Source and destination are rewritten.
    FullNat = 5,
}

impl ForwardMethod {
    /// Whether replies carry the real server's address, so that they are found by it.
    pub(crate) const fn rewrites(self) -> bool {
        matches!(self, Self::Nat | Self::FullNat)
    }

    pub(crate) const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Nat,
            1 => Self::Local,
            2 => Self::Tunnel,
            5 => Self::FullNat,
            _ => Self::DirectRoute,
        }
    }
}
