//! Gratuitous ARP: "this address is at this MAC address now".

use super::{MacAddress, u16_at};
use std::net::Ipv4Addr;

/// A gratuitous ARP request as an Ethernet frame, with keepalived's bytes: a request whose target is broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GratuitousArp {
    /// Where the address is: the interface's, or the virtual router's MAC address.
    pub mac: MacAddress,
    /// The address.
    pub address: Ipv4Addr,
}

impl GratuitousArp {
    /// Length of the frame; it is not padded.
    pub const LEN: usize = 42;

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> [u8; Self::LEN] {
        let mut frame = [0; Self::LEN];
        frame[..6].fill(0xff);
        frame[6..12].copy_from_slice(&self.mac.0);
        frame[12..22].copy_from_slice(&FIXED);
        frame[22..28].copy_from_slice(&self.mac.0);
        frame[28..32].copy_from_slice(&self.address.octets());
        frame[32..38].fill(0xff);
        frame[38..42].copy_from_slice(&self.address.octets());
        frame
    }

    /// Reads a frame back; `None` for anything but a gratuitous request of this very form.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        if frame.len() < Self::LEN || u16_at(frame, 12) != 0x0806 {
            return None;
        }
        let mut mac = [0; 6];
        mac.copy_from_slice(&frame[22..28]);
        let address = Ipv4Addr::new(frame[28], frame[29], frame[30], frame[31]);
        let repr = Self {
            mac: MacAddress(mac),
            address,
        };
        (repr.frame() == frame[..Self::LEN]).then_some(repr)
    }
}

/// EtherType; hardware type Ethernet, protocol IPv4, their sizes, operation "request".
const FIXED: [u8; 10] = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1];
