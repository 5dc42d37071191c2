//! ICMP (RFC 792) and ICMPv6 (RFC 4443): a view, and the errors that a forwarder sends.

use std::net::{IpAddr, Ipv6Addr};

use super::{Headers, Malformed, be16, ipv4, protocol, put16};
use crate::checksum;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 8;

/// A view of a message.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Looks at a message.
    ///
    /// # Errors
    ///
    /// If the bytes are fewer than the header.
    #[inline]
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        if bytes.as_ref().len() < HEADER_LEN {
            return Err(Malformed("ICMP"));
        }
        Ok(Self(bytes))
    }

    /// Type.
    #[inline]
    pub fn kind(&self) -> u8 {
        self.0.as_ref()[0]
    }

    /// Code within the type.
    #[inline]
    pub fn code(&self) -> u8 {
        self.0.as_ref()[1]
    }

    /// Next-hop MTU of "fragmentation needed" (RFC 1191); other messages use these bytes otherwise.
    #[inline]
    pub fn mtu(&self) -> u16 {
        be16(self.0.as_ref(), 6)
    }

    /// MTU of ICMPv6 "packet too big"; other messages use these bytes otherwise.
    #[inline]
    pub fn mtu_v6(&self) -> u32 {
        u32::from(be16(self.0.as_ref(), 4)) << 16 | u32::from(self.mtu())
    }

    /// What follows the header: in an error the packet that it is about.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_LEN..]
    }

    /// Whether the checksum is right.
    #[inline]
    pub fn verify_checksum(&self) -> bool {
        checksum::finish(checksum::sum(self.0.as_ref())) == 0
    }

    /// Whether the checksum of an ICMPv6 message is right, which covers the addresses too.
    #[inline]
    pub fn verify_checksum_v6(&self, source: Ipv6Addr, destination: Ipv6Addr) -> bool {
        let message = self.0.as_ref();
        checksum::finish(pseudo_v6(source, destination, message.len()) + checksum::sum(message))
            == 0
    }
}

/// Why a packet could not be forwarded, as its sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// No route, or the next hop does not answer (3/1; ICMPv6 1/3).
    HostUnreachable,
    /// No real server is available (3/3; ICMPv6 1/4).
    PortUnreachable,
    /// Too big for the next link and not to be fragmented (3/4; ICMPv6 2/0); with the MTU in bytes.
    #[doc(alias = "fragmentation needed")]
    TooBig(u32),
    /// A route forbids it (3/13; ICMPv6 1/1).
    Prohibited,
    /// Its hops are used up (11/0; ICMPv6 3/0).
    TimeExceeded,
    /// What somebody further on has said, in the packet's own family.
    Relayed {
        /// Type.
        kind: u8,
        /// Code within the type.
        code: u8,
    },
}

/// An error message to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr<'a> {
    /// What happened.
    pub error: Error,
    /// The start of the packet that it happened to.
    pub quoted: &'a [u8],
}

impl Repr<'_> {
    /// Bytes that [`emit`](Self::emit) writes.
    #[inline]
    pub fn buffer_len(&self) -> usize {
        HEADER_LEN + self.quoted.len()
    }

    /// Writes the message, with its checksum, to the start of the buffer.
    pub fn emit(&self, buffer: &mut [u8]) {
        let (kind, code) = match self.error {
            Error::HostUnreachable => (3, 1),
            Error::PortUnreachable => (3, 3),
            Error::TooBig(_) => (3, 4),
            Error::Prohibited => (3, 13),
            Error::TimeExceeded => (11, 0),
            Error::Relayed { kind, code } => (kind, code),
        };
        let mtu = self.mtu().min(u16::MAX.into());
        self.write(buffer, [kind, code], mtu, 0);
    }

    /// As [`emit`](Self::emit), as an ICMPv6 message between these addresses.
    pub fn emit_v6(&self, buffer: &mut [u8], source: Ipv6Addr, destination: Ipv6Addr) {
        let kind = match self.error {
            Error::HostUnreachable => [1, 3],
            Error::PortUnreachable => [1, 4],
            Error::TooBig(_) => [2, 0],
            Error::Prohibited => [1, 1],
            Error::TimeExceeded => [3, 0],
            Error::Relayed { kind, code } => [kind, code],
        };
        let pseudo = pseudo_v6(source, destination, self.buffer_len());
        self.write(buffer, kind, self.mtu(), pseudo);
    }

    fn mtu(&self) -> u32 {
        match self.error {
            Error::TooBig(mtu) => mtu,
            _ => 0,
        }
    }

    fn write(&self, buffer: &mut [u8], kind: [u8; 2], mtu: u32, pseudo: u64) {
        let message = &mut buffer[..HEADER_LEN + self.quoted.len()];
        message[..2].copy_from_slice(&kind);
        message[2..4].fill(0);
        message[4..8].copy_from_slice(&mtu.to_be_bytes());
        message[HEADER_LEN..].copy_from_slice(self.quoted);
        let sum = checksum::finish(pseudo + checksum::sum(message));
        put16(message, 2, sum);
    }
}

/// Whether the checksums of an ICMP packet are right: those of an IPv4 header and of the message.
pub(crate) fn is_sound(headers: &Headers, frame: &[u8]) -> bool {
    let message = Packet::new_checked(&frame[headers.transport..headers.end]);
    if let (IpAddr::V6(source), IpAddr::V6(destination)) =
        (headers.source.ip(), headers.destination.ip())
    {
        return message.is_ok_and(|message| message.verify_checksum_v6(source, destination));
    }
    ipv4::Packet::new_checked(&frame[headers.network..])
        .is_ok_and(|packet| packet.verify_checksum())
        && message.is_ok_and(|message| message.verify_checksum())
}

pub(crate) fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, length: usize) -> u64 {
    checksum::pseudo_header(
        source.into(),
        destination.into(),
        protocol::ICMPV6,
        length as u32,
    )
}
