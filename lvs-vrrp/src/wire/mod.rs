//! The bytes: advertisements of both versions, the authentication header, gratuitous ARP, unsolicited neighbour
//! advertisements.
//!
//! Each format has two layers. A *view* ([`AdvertPacket`], [`Ipv4Packet`], [`AhPacket`]) lies over bytes; making one checks
//! only what its accessors need, so that a strange packet can still be looked at and reported. A *repr* ([`AdvertRepr`] and
//! so on) is a meaning: parsing one may fail, emitting one into [`buffer_len`](AdvertRepr::buffer_len) bytes may not.
//!
//! # Panics
//!
//! Accessors of a view that was made over enough bytes do not panic, whatever the bytes say. `emit` panics when the
//! buffer is shorter than `buffer_len()`: that is the caller's mistake, never a packet's.

mod advert;
mod ah;
mod arp;
mod checksum;
mod ipv4;
mod ndp;
mod truncated;

pub use advert::{Addresses, AdvertError, AdvertPacket, AdvertRepr, Format, auth_type};
pub use ah::{AhPacket, AhRepr, IcvScope, icv};
pub use arp::GratuitousArp;
pub use checksum::{ChecksumForm, Endpoints};
pub use ipv4::{Ipv4Error, Ipv4Packet, Ipv4Repr};
pub use ndp::UnsolicitedNa;
pub use truncated::Truncated;

use crate::config::{Family, Vrid};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol number of VRRP.
pub const PROTOCOL_VRRP: u8 = 112;
/// IP protocol number of the authentication header.
pub const PROTOCOL_AH: u8 = 51;
/// The group of IPv4 advertisements.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// The group of IPv6 advertisements.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// TTL or hop limit of multicast advertisements; anything else was forwarded by a router and is refused.
pub const MULTICAST_TTL: u8 = 255;
/// Type of service and traffic class of advertisements: DSCP CS6.
pub const TRAFFIC_CLASS: u8 = 0xc0;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// All ones.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The virtual router's own address (RFC 9568, 7.3).
    #[must_use]
    pub const fn of_virtual_router(family: Family, vrid: Vrid) -> Self {
        let block = match family {
            Family::V4 => 1,
            Family::V6 => 2,
        };
        Self([0, 0, 0x5e, 0, block, vrid.get()])
    }

    /// Where a multicast group is sent on Ethernet; `None` for an address that is no group.
    #[must_use]
    pub fn of_group(group: IpAddr) -> Option<Self> {
        match group {
            IpAddr::V4(address) if address.is_multicast() => {
                let [_, b, c, d] = address.octets();
                Some(Self([1, 0, 0x5e, b & 0x7f, c, d]))
            }
            IpAddr::V6(address) if address.is_multicast() => {
                let [.., a, b, c, d] = address.octets();
                Some(Self([0x33, 0x33, a, b, c, d]))
            }
            _ => None,
        }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Big-endian 16 bits at `at`.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Big-endian 32 bits at `at`.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests;
