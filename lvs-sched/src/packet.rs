//! The vocabulary of one packet: what the data path tells and what it is told.

use std::fmt;
use std::net::SocketAddr;

/// Transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Protocol {
    /// TCP, protocol number 6.
    Tcp,
    /// UDP, protocol number 17.
    Udp,
    /// SCTP, protocol number 132.
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
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
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

/// What an SCTP packet means to the balancer, by its first chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are RFC 9260's chunk types")]
pub enum SctpEvent {
    /// DATA, SACK, HEARTBEAT and its answer, ECNE, CWR, and everything unknown.
    Data,
    Init,
    InitAck,
    CookieEcho,
    CookieAck,
    Shutdown,
    ShutdownAck,
    ShutdownComplete,
    Error,
    Abort,
}

impl SctpEvent {
    /// Reads what follows the common header of 12 bytes. `None` if there is no whole chunk header.
    ///
    /// An ABORT that is bundled behind COOKIE ECHO or COOKIE ACK counts as ABORT; other chunks
    /// behind the first are not looked at.
    pub fn parse(chunks: &[u8]) -> Option<Self> {
        let kind = *chunks.get(..4)?.first()?;
        let event = Self::of(kind);
        if matches!(event, Self::CookieEcho | Self::CookieAck) {
            let length = usize::from(u16::from_be_bytes([chunks[2], chunks[3]]));
            let next = chunks.get(length.next_multiple_of(4)..);
            let is_abort = |next: &[u8]| next.len() >= 4 && Self::of(next[0]) == Self::Abort;
            if length >= 4 && next.is_some_and(is_abort) {
                return Some(Self::Abort);
            }
        }
        Some(event)
    }

    const fn of(kind: u8) -> Self {
        match kind {
            1 => Self::Init,
            2 => Self::InitAck,
            6 => Self::Abort,
            7 => Self::Shutdown,
            8 => Self::ShutdownAck,
            9 => Self::Error,
            10 => Self::CookieEcho,
            11 => Self::CookieAck,
            14 => Self::ShutdownComplete,
            _ => Self::Data,
        }
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
    /// What an SCTP packet means; `None` for other protocols or if it has no chunk.
    pub sctp: Option<SctpEvent>,
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
        /// The method of the connection; only [`ForwardMethod::Nat`] needs a rewrite.
        method: ForwardMethod,
        /// The source that the client must see.
        vip: SocketAddr,
    },
    /// FULLNAT: send it to a real server as if a local address had sent it.
    ForwardFrom {
        /// The director's side of the connection to the server: the new source.
        local: SocketAddr,
        /// The real server's address and port: the new destination.
        server: SocketAddr,
    },
    /// FULLNAT: a real server's answer to a local address goes to the client.
    ReplyTo {
        /// The source that the client must see.
        vip: SocketAddr,
        /// The new destination.
        client: SocketAddr,
    },
    /// No service and no connection: the host or the router has it.
    NotOurs,
    /// Discard it silently. Counted, see [`Director::dropped`](crate::Director::dropped).
    Drop(DropReason),
    /// Discard it and answer its sender with ICMP port unreachable.
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
    /// An ICMP error would have begun a connection, but no server is usable.
    NoServer,
    /// Thinned out by [`Tunables::drop_packet`](crate::Tunables::drop_packet).
    Defence,
    /// The persistence engine found nothing to go by.
    Engine,
    /// An SCTP packet without a chunk that belongs to no connection.
    Malformed,
    /// FULLNAT: no local address of the service has a free port towards the server. Counted only: the answer is the one
    /// without a server.
    NoLocalPort,
}

impl DropReason {
    /// All reasons, for listings.
    pub const ALL: [Self; 7] = [
        Self::TableFull,
        Self::ServerRemoved,
        Self::NoServer,
        Self::Defence,
        Self::Engine,
        Self::Malformed,
        Self::NoLocalPort,
    ];

    /// Short name for counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TableFull => "table-full",
            Self::ServerRemoved => "server-removed",
            Self::NoServer => "no-server",
            Self::Defence => "defence",
            Self::Engine => "engine",
            Self::Malformed => "malformed",
            Self::NoLocalPort => "no-local-port",
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
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
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
    /// No server: the packet goes on to where it was sent
    /// ([`Tunables::cache_bypass`](crate::Tunables::cache_bypass)). Of connections only; a server
    /// cannot have it.
    Bypass = 4,
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
            4 => Self::Bypass,
            5 => Self::FullNat,
            _ => Self::DirectRoute,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sctp_events_follow_the_first_chunk() {
        let chunk = |kind: u8, length: u8| [kind, 0, 0, length];
        let parse = |chunks: &[[u8; 4]]| SctpEvent::parse(chunks.concat().as_slice());
        assert_eq!(parse(&[]), None);
        assert_eq!(SctpEvent::parse(&[1, 0, 0]), None);
        assert_eq!(parse(&[chunk(1, 20)]), Some(SctpEvent::Init));
        assert_eq!(parse(&[chunk(14, 4)]), Some(SctpEvent::ShutdownComplete));
        for data in [0, 3, 4, 5, 12, 13, 15, 64, 255] {
            assert_eq!(parse(&[chunk(data, 4), chunk(6, 4)]), Some(SctpEvent::Data));
        }
        for cookie in [10, 11] {
            assert_eq!(
                parse(&[chunk(cookie, 4), chunk(6, 4)]),
                Some(SctpEvent::Abort)
            );
            assert_eq!(
                parse(&[chunk(cookie, 6), [0; 4], chunk(6, 4)]),
                Some(SctpEvent::Abort)
            );
            assert_ne!(
                parse(&[chunk(cookie, 3), chunk(6, 4)]),
                Some(SctpEvent::Abort)
            );
            assert_ne!(parse(&[chunk(cookie, 255)]), Some(SctpEvent::Abort));
        }
    }
}
