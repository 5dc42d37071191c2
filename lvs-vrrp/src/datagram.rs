//! What comes from the network.

use crate::config::Family;
use crate::wire::{self, AhPacket, Ipv4Packet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

/// A datagram as a raw socket gives it.
#[derive(Debug, Clone, Copy)]
pub enum Datagram<'a> {
    /// IPv4 sockets give the whole packet, header included.
    V4(&'a [u8]),
    /// IPv6 sockets give the payload, and the rest as ancillary data.
    V6 {
        /// Source address.
        source: Ipv6Addr,
        /// Destination address.
        destination: Ipv6Addr,
        /// Hop limit; `None` when the socket did not say.
        hop_limit: Option<u8>,
        /// The VRRP message.
        payload: &'a [u8],
    },
}

impl<'a> Datagram<'a> {
    /// Family.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::V4(_) => Family::V4,
            Self::V6 { .. } => Family::V6,
        }
    }

    /// Source address; `None` when there is no whole header.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        match self {
            Self::V4(packet) => Ipv4Packet::new(packet).ok().map(|ip| ip.source().into()),
            Self::V6 { source, .. } => Some((*source).into()),
        }
    }

    /// Destination address; `None` when there is no whole header.
    #[must_use]
    pub fn destination(&self) -> Option<IpAddr> {
        match self {
            Self::V4(packet) => {
                let ip = Ipv4Packet::new(packet).ok()?;
                Some(ip.destination().into())
            }
            Self::V6 { destination, .. } => Some((*destination).into()),
        }
    }

    /// The virtual router identifier that it speaks of; `None` when it is too short for one.
    #[must_use]
    pub fn vrid(&self) -> Option<u8> {
        self.message().map(|message| message[1])
    }

    /// At least eight bytes of VRRP.
    fn message(&self) -> Option<&'a [u8]> {
        let message = match self {
            Self::V4(packet) => {
                let ip = Ipv4Packet::new(packet).ok()?;
                if ip.protocol() == wire::PROTOCOL_AH {
                    AhPacket::new(ip.payload()).ok()?.payload()
                } else {
                    ip.payload()
                }
            }
            Self::V6 { payload, .. } => payload,
        };
        (message.len() >= wire::AdvertPacket::HEADER_LEN).then_some(message)
    }
}

/// A datagram and when it came.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// When the kernel had it, if it says (a socket time stamp); else the present. It may lie before deadlines that have passed since:
    /// what arrived in time was in time.
    pub arrived: Instant,
    /// The datagram.
    pub datagram: Datagram<'a>,
}
