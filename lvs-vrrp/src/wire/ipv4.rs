//! The IPv4 header, as far as VRRP writes and reads it.

use super::checksum::Sum;
use super::{TRAFFIC_CLASS, Truncated, u16_at};
use std::net::Ipv4Addr;

/// A view of an IPv4 packet: header with its options, and what follows within the buffer.
#[derive(Debug, Clone, Copy)]
pub struct Ipv4Packet<'a>(&'a [u8]);

/// Why bytes are no IPv4 packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ipv4Error {
    /// Shorter than the header that it announces.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// Another IP version.
    #[error("IP version {0}")]
    Version(u8),
    /// A header length of less than 20 bytes.
    #[error("a header of {0} bytes")]
    HeaderLength(usize),
}

impl<'a> Ipv4Packet<'a> {
    /// Checks version and header length. The total length is not compared with the buffer: see
    /// [`total_len`](Self::total_len).
    ///
    /// # Errors
    /// When the header is not wholly there.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Ipv4Error> {
        Truncated::check(bytes, HEADER_LEN)?;
        if bytes[0] >> 4 != 4 {
            return Err(Ipv4Error::Version(bytes[0] >> 4));
        }
        let header = usize::from(bytes[0] & 0x0f) * 4;
        if header < HEADER_LEN {
            return Err(Ipv4Error::HeaderLength(header));
        }
        Truncated::check(bytes, header)?;
        Ok(Self(bytes))
    }

    /// All bytes of the buffer.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Length of the header with its options, in bytes.
    #[must_use]
    pub fn header_len(&self) -> usize {
        usize::from(self.0[0] & 0x0f) * 4
    }

    /// The header with its options.
    #[must_use]
    pub fn header(&self) -> &'a [u8] {
        &self.0[..self.header_len()]
    }

    /// What the total length field says; it may be more or less than the buffer has.
    #[must_use]
    pub fn total_len(&self) -> usize {
        usize::from(u16_at(self.0, 2))
    }

    /// Identification.
    #[must_use]
    pub fn identification(&self) -> u16 {
        u16_at(self.0, 4)
    }

    /// Time to live.
    #[must_use]
    pub const fn ttl(&self) -> u8 {
        self.0[8]
    }

    /// Protocol of the payload.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.0[9]
    }

    /// Source address.
    #[must_use]
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[12], self.0[13], self.0[14], self.0[15])
    }

    /// Destination address.
    #[must_use]
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[16], self.0[17], self.0[18], self.0[19])
    }

    /// Everything behind the header, link padding included.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.0[self.header_len()..]
    }
}

/// The header that keepalived writes: no options, no fragments, DSCP CS6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Repr {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Identification.
    pub identification: u16,
    /// Bytes behind the header.
    pub payload_len: usize,
}

impl Ipv4Repr {
    /// Length of the header.
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the header, its checksum included (the kernel writes its own over it).
    ///
    /// # Panics
    /// When `buffer` has less than 20 bytes, or the payload does not fit into an IPv4 packet.
    pub fn emit(&self, buffer: &mut [u8]) {
        let header = &mut buffer[..HEADER_LEN];
        let total = u16::try_from(HEADER_LEN + self.payload_len).expect("fits an IPv4 packet");
        header[0] = 0x45;
        header[1] = TRAFFIC_CLASS;
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header[4..6].copy_from_slice(&self.identification.to_be_bytes());
        header[6..8].fill(0);
        header[8] = self.ttl;
        header[9] = self.protocol;
        header[10..12].fill(0);
        header[12..16].copy_from_slice(&self.source.octets());
        header[16..20].copy_from_slice(&self.destination.octets());
        let checksum = Sum::default().bytes(header).finish();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

const HEADER_LEN: usize = 20;
