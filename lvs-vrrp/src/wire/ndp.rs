//! Unsolicited neighbour advertisement: what gratuitous ARP is for IPv4 (RFC 4861, 4.4; RFC 9568, 8.2.2).

use super::{MacAddress, u16_at};
use std::net::Ipv6Addr;

/// An unsolicited neighbour advertisement to all nodes as an Ethernet frame. Its IPv6 source is the address itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsolicitedNa {
    /// Where the address is.
    pub mac: MacAddress,
    /// The address.
    pub address: Ipv6Addr,
    /// The sender is a router. Hosts drop a router from their lists that says no, so say yes while forwarding is on.
    pub router: bool,
}

impl UnsolicitedNa {
    /// Length of the frame.
    pub const LEN: usize = 86;

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> [u8; Self::LEN] {
        let mut frame = [0; Self::LEN];
        frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
        frame[6..12].copy_from_slice(&self.mac.0);
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        let (ip, icmp) = frame[14..].split_at_mut(40);
        ip[0] = 0x60;
        ip[4..6].copy_from_slice(&ICMP_LEN.to_be_bytes());
        ip[6] = PROTOCOL_ICMP;
        ip[7] = 255;
        ip[8..24].copy_from_slice(&self.address.octets());
        ip[24..40].copy_from_slice(&ALL_NODES.octets());
        icmp[0] = 136;
        icmp[4] = OVERRIDE | if self.router { ROUTER } else { 0 };
        icmp[8..24].copy_from_slice(&self.address.octets());
        icmp[24] = 2;
        icmp[25] = 1;
        icmp[26..32].copy_from_slice(&self.mac.0);
        let checksum = super::checksum::Sum::default()
            .bytes(&ip[8..40])
            .bytes(&ICMP_LEN.to_be_bytes())
            .bytes(&[0, PROTOCOL_ICMP])
            .bytes(icmp)
            .finish();
        icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    /// Reads a frame back; `None` for anything but an advertisement of this very form.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        if frame.len() < Self::LEN || u16_at(frame, 12) != 0x86dd {
            return None;
        }
        let mut mac = [0; 6];
        mac.copy_from_slice(&frame[80..86]);
        let mut address = [0; 16];
        address.copy_from_slice(&frame[62..78]);
        let repr = Self {
            mac: MacAddress(mac),
            address: address.into(),
            router: frame[58] & ROUTER != 0,
        };
        (repr.frame() == frame[..Self::LEN]).then_some(repr)
    }
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const PROTOCOL_ICMP: u8 = 58;
const ICMP_LEN: u16 = 32;
const ROUTER: u8 = 0x80;
const OVERRIDE: u8 = 0x20;
