//! TCP (RFC 9293).

use super::{Malformed, be16, put16};

/// Length of a header without options in bytes.
pub const MIN_HEADER_LEN: usize = 20;
/// Where the checksum lies, from the header's first byte.
pub const CHECKSUM_OFFSET: usize = 16;

/// A view of a segment.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Looks at a segment.
    ///
    /// # Errors
    ///
    /// If its header is shorter than 20 bytes or longer than the bytes.
    #[inline]
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        let packet = Self(bytes);
        let len = packet.0.as_ref().len();
        if len < MIN_HEADER_LEN || packet.header_len() < MIN_HEADER_LEN || packet.header_len() > len
        {
            return Err(Malformed("TCP"));
        }
        Ok(packet)
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

    /// The sequence number.
    #[inline]
    pub fn sequence(&self) -> u32 {
        let bytes = self.0.as_ref();
        u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]])
    }

    /// Length of the header with options in bytes.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.0.as_ref()[12] >> 4) * 4
    }

    /// The flags, as they stand in byte 13: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128.
    #[inline]
    pub fn flags(&self) -> u8 {
        self.0.as_ref()[13]
    }

    /// The stored checksum.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.0.as_ref(), CHECKSUM_OFFSET)
    }

    /// What follows the header.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[self.header_len()..]
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
