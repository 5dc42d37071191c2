//! The Internet checksum (RFC 1071) and the pseudo-headers in front of it.

use crate::config::Family;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where a datagram goes from and to, both of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoints {
    /// IPv4.
    V4 {
        /// Source address.
        source: Ipv4Addr,
        /// Destination address.
        destination: Ipv4Addr,
    },
    /// IPv6.
    V6 {
        /// Source address.
        source: Ipv6Addr,
        /// Destination address.
        destination: Ipv6Addr,
    },
}

impl Endpoints {
    /// `None` when the families differ.
    #[must_use]
    pub const fn new(source: IpAddr, destination: IpAddr) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Self::V4 {
                source,
                destination,
            }),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Self::V6 {
                source,
                destination,
            }),
            _ => None,
        }
    }

    /// Source address.
    #[must_use]
    pub const fn source(&self) -> IpAddr {
        match *self {
            Self::V4 { source, .. } => IpAddr::V4(source),
            Self::V6 { source, .. } => IpAddr::V6(source),
        }
    }

    /// Destination address.
    #[must_use]
    pub const fn destination(&self) -> IpAddr {
        match *self {
            Self::V4 { destination, .. } => IpAddr::V4(destination),
            Self::V6 { destination, .. } => IpAddr::V6(destination),
        }
    }

    /// Family of both.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::V4 { .. } => Family::V4,
            Self::V6 { .. } => Family::V6,
        }
    }
}

/// What the checksum of an advertisement covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChecksumForm {
    /// The message alone: version 2 over IPv4, and version 3 over IPv4 as RFC 9568, 5.2.8 has it.
    Message,
    /// The message behind a pseudo-header with the datagram's own addresses: IPv6, and version 3 over IPv4 as most
    /// implementations read RFC 5798.
    PseudoHeader,
    /// The same with the multicast group as destination although the datagram is unicast: keepalived up to 1.3.6.
    GroupPseudoHeader,
}

/// A running sum.
#[derive(Clone, Copy, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// The pseudo-header of a datagram of `length` bytes of VRRP.
    pub(super) fn pseudo_header(ends: Endpoints, length: usize) -> Self {
        let sum = match ends {
            Endpoints::V4 {
                source,
                destination,
            } => Self::default()
                .bytes(&source.octets())
                .bytes(&destination.octets()),
            Endpoints::V6 {
                source,
                destination,
            } => Self::default()
                .bytes(&source.octets())
                .bytes(&destination.octets()),
        };
        let length = u64::try_from(length).expect("a datagram's length fits");
        Self(sum.0 + u64::from(super::PROTOCOL_VRRP) + length)
    }

    /// Adds bytes; an odd last one is the high half of a word.
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        let mut sum = self.0;
        let mut words = bytes.chunks_exact(2);
        for word in &mut words {
            sum += u64::from(u16::from_be_bytes([word[0], word[1]]));
        }
        if let [last] = words.remainder() {
            sum += u64::from(*last) << 8;
        }
        Self(sum)
    }

    /// The ones' complement of the folded sum: zero over bytes that contain their right checksum.
    pub(super) fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).expect("folded to 16 bits")
    }
}
