//! UDP (RFC 768).

use super::{Malformed, be16, put16};

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 8;
/// Where the checksum lies, from the header's first byte.
pub const CHECKSUM_OFFSET: usize = 6;

/// A view of a datagram.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Looks at a datagram.
    ///
    /// # Errors
    ///
    /// If the bytes are fewer than the header.
    #[inline]
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        if bytes.as_ref().len() < HEADER_LEN {
            return Err(Malformed("UDP"));
        }
        Ok(Self(bytes))
    }

    /// Port of the sender.
    #[inline]
    pub fn source_port(&self) -> u16 {
        be16(self.0.as_ref(), 0)
    }

    /// Port of the receiver.
    #[inline]
    pub fn destination_port(&self) -> u16 {
        be16(self.0.as_ref(), 2)
    }

    /// Length of header and payload as stated.
    #[inline]
    pub fn length(&self) -> usize {
        be16(self.0.as_ref(), 4).into()
    }

    /// The stored checksum; 0 means that there is none.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.0.as_ref(), CHECKSUM_OFFSET)
    }

    /// What follows the header.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the port of the sender.
    #[inline]
    pub fn set_source_port(&mut self, port: u16) {
        put16(self.0.as_mut(), 0, port);
    }

    /// Sets the port of the receiver.
    #[inline]
    pub fn set_destination_port(&mut self, port: u16) {
        put16(self.0.as_mut(), 2, port);
    }

    /// Sets the stored checksum.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        put16(self.0.as_mut(), CHECKSUM_OFFSET, checksum);
    }
}
