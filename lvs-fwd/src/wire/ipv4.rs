//! IPv4 (RFC 791).

use std::net::Ipv4Addr;

use super::{Malformed, be16, put16};
use crate::checksum;

/// Length of a header without options in bytes.
pub const MIN_HEADER_LEN: usize = 20;

/// A view of a packet.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Looks at a packet; bytes beyond its total length are allowed and not part of it.
    ///
    /// # Errors
    ///
    /// If the version is not 4, the header shorter than 20 bytes or longer than the packet, or the packet
    /// longer than the bytes.
    #[inline]
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        let packet = Self(bytes);
        let bytes = packet.0.as_ref();
        if bytes.len() < MIN_HEADER_LEN
            || bytes[0] >> 4 != 4
            || packet.header_len() < MIN_HEADER_LEN
            || packet.total_len() < packet.header_len()
            || packet.total_len() > bytes.len()
        {
            return Err(Malformed("IPv4"));
        }
        Ok(packet)
    }

    /// Length of the header with options in bytes.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.0.as_ref()[0] & 0x0f) * 4
    }

    /// Type of service: DSCP and ECN.
    #[inline]
    pub fn tos(&self) -> u8 {
        self.0.as_ref()[1]
    }

    /// Length of header and payload in bytes.
    #[inline]
    pub fn total_len(&self) -> usize {
        be16(self.0.as_ref(), 2).into()
    }

    /// Identification, shared by the fragments of a datagram.
    #[inline]
    pub fn ident(&self) -> u16 {
        be16(self.0.as_ref(), 4)
    }

    /// Whether routers must not fragment it.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        be16(self.0.as_ref(), 6) & DONT_FRAGMENT != 0
    }

    /// Whether more fragments follow.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        be16(self.0.as_ref(), 6) & MORE_FRAGMENTS != 0
    }

    /// Place of the payload in the datagram in bytes.
    #[inline]
    pub fn fragment_offset(&self) -> usize {
        usize::from(be16(self.0.as_ref(), 6) & OFFSET_MASK) * 8
    }

    /// Whether it is a part of a datagram.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        be16(self.0.as_ref(), 6) & (MORE_FRAGMENTS | OFFSET_MASK) != 0
    }

    /// Hops left.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.0.as_ref()[8]
    }

    /// What the payload is.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.0.as_ref()[9]
    }

    /// The stored header checksum.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.0.as_ref(), 10)
    }

    /// Sender.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        self.addr(12)
    }

    /// Receiver.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        self.addr(16)
    }

    /// The options, between fixed header and payload.
    #[inline]
    pub fn options(&self) -> &[u8] {
        &self.0.as_ref()[MIN_HEADER_LEN..self.header_len()]
    }

    /// What follows the header, up to the total length.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[self.header_len()..self.total_len()]
    }

    /// Whether the header checksum is right.
    #[inline]
    pub fn verify_checksum(&self) -> bool {
        is_sum_right(&self.0.as_ref()[..self.header_len()])
    }

    #[inline]
    fn addr(&self, at: usize) -> Ipv4Addr {
        let bytes = self.0.as_ref();
        Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
    }
}

impl<'a> Packet<&'a mut [u8; MIN_HEADER_LEN]> {
    /// The fixed part of the header of a packet that was looked at before; `None` if there is no room for it.
    #[inline]
    pub(crate) fn fixed(packet: &'a mut [u8]) -> Option<Self> {
        packet.first_chunk_mut().map(Packet)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the sender.
    #[inline]
    pub fn set_source(&mut self, addr: Ipv4Addr) {
        self.0.as_mut()[12..16].copy_from_slice(&addr.octets());
    }

    /// Sets the receiver.
    #[inline]
    pub fn set_destination(&mut self, addr: Ipv4Addr) {
        self.0.as_mut()[16..20].copy_from_slice(&addr.octets());
    }

    /// Sets the hops left.
    #[inline]
    pub fn set_ttl(&mut self, ttl: u8) {
        self.0.as_mut()[8] = ttl;
    }

    /// Sets the stored header checksum.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        put16(self.0.as_mut(), 10, checksum);
    }
}

/// Length of the header of a packet of which what follows may be cut off; `None` if the header itself is.
pub(crate) fn quoted_header_len(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let length = usize::from(first & 0x0f) * 4;
    (first >> 4 == 4 && length >= MIN_HEADER_LEN && length <= packet.len()).then_some(length)
}

/// Whether the checksum of a header with its options is right.
#[inline]
pub(crate) fn is_sum_right(header: &[u8]) -> bool {
    checksum::finish(checksum::sum(header)) == 0
}

/// A header without options, to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Sender.
    pub source: Ipv4Addr,
    /// Receiver.
    pub destination: Ipv4Addr,
    /// What the payload is.
    pub protocol: u8,
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    /// Hops left.
    pub ttl: u8,
    /// Identification.
    pub ident: u16,
    /// Whether routers must not fragment it.
    pub dont_fragment: bool,
    /// Payload bytes.
    pub payload_len: u16,
}

impl Repr {
    /// Bytes that [`emit`](Self::emit) writes.
    #[inline]
    pub fn buffer_len(&self) -> usize {
        MIN_HEADER_LEN
    }

    /// Writes the header, with its checksum, to the start of the buffer.
    pub fn emit(&self, buffer: &mut [u8]) {
        let header = &mut buffer[..MIN_HEADER_LEN];
        header[0] = 0x45;
        header[1] = self.tos;
        put16(
            header,
            2,
            self.payload_len.saturating_add(MIN_HEADER_LEN as u16),
        );
        put16(header, 4, self.ident);
        put16(
            header,
            6,
            if self.dont_fragment { DONT_FRAGMENT } else { 0 },
        );
        header[8] = self.ttl;
        header[9] = self.protocol;
        put16(header, 10, 0);
        header[12..16].copy_from_slice(&self.source.octets());
        header[16..20].copy_from_slice(&self.destination.octets());
        let sum = checksum::finish(checksum::sum(header));
        put16(header, 10, sum);
    }
}

pub(crate) const DONT_FRAGMENT: u16 = 0x4000;
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;
pub(crate) const OFFSET_MASK: u16 = 0x1fff;
