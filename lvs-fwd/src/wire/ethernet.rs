//! Ethernet II.

use super::{Malformed, be16, put16};

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 14;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// A view of a frame.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Looks at a frame.
    ///
    /// # Errors
    ///
    /// If it is shorter than the header.
    #[inline]
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        if bytes.as_ref().len() < HEADER_LEN {
            return Err(Malformed("Ethernet"));
        }
        Ok(Self(bytes))
    }

    /// Hardware address of the receiver.
    #[inline]
    pub fn destination(&self) -> [u8; 6] {
        self.mac(0)
    }

    /// Hardware address of the sender.
    #[inline]
    pub fn source(&self) -> [u8; 6] {
        self.mac(6)
    }

    /// What the payload is.
    #[inline]
    pub fn ethertype(&self) -> u16 {
        be16(self.0.as_ref(), 12)
    }

    /// What follows the header, padding included.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_LEN..]
    }

    #[inline]
    fn mac(&self, at: usize) -> [u8; 6] {
        let mut mac = [0; 6];
        mac.copy_from_slice(&self.0.as_ref()[at..at + 6]);
        mac
    }
}

/// A header to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Hardware address of the receiver.
    pub destination: [u8; 6],
    /// Hardware address of the sender.
    pub source: [u8; 6],
    /// What the payload is.
    pub ethertype: u16,
}

impl Repr {
    /// Reads the header of a frame.
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Self {
        Self {
            destination: packet.destination(),
            source: packet.source(),
            ethertype: packet.ethertype(),
        }
    }

    /// Bytes that [`emit`](Self::emit) writes.
    #[inline]
    pub fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the header to the start of the buffer.
    #[inline]
    pub fn emit(&self, buffer: &mut [u8]) {
        let buffer = &mut buffer[..HEADER_LEN];
        buffer[..6].copy_from_slice(&self.destination);
        buffer[6..12].copy_from_slice(&self.source);
        put16(buffer, 12, self.ethertype);
    }
}
