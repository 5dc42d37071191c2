//! SCTP (RFC 9260).

use super::{Malformed, be16, put16};
use crate::checksum::crc32c;

/// Length of the common header in bytes; chunks follow.
pub const HEADER_LEN: usize = 12;
/// Place of the checksum in the header. It covers the packet alone, no address.
pub const CHECKSUM_OFFSET: usize = 8;

/// A view of a packet.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Looks at a packet.
    ///
    /// # Errors
    ///
    /// If the bytes are fewer than the common header.
    #[inline]
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        if bytes.as_ref().len() < HEADER_LEN {
            return Err(Malformed("SCTP"));
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

    /// The chunks.
    #[inline]
    pub fn chunks(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_LEN..]
    }

    /// Whether the checksum is right.
    pub fn verify_checksum(&self) -> bool {
        let bytes = self.0.as_ref();
        bytes[CHECKSUM_OFFSET..HEADER_LEN] == computed(bytes).to_le_bytes()
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the sender's port, and updates the checksum: a wrong one stays wrong.
    pub fn set_source_port(&mut self, port: u16) {
        self.set_port(0, port);
    }

    /// Sets the receiver's port, as [`set_source_port`](Self::set_source_port) does.
    pub fn set_destination_port(&mut self, port: u16) {
        self.set_port(2, port);
    }

    /// Computes the checksum.
    pub fn fill_checksum(&mut self) {
        let sum = computed(self.0.as_ref());
        self.0.as_mut()[CHECKSUM_OFFSET..HEADER_LEN].copy_from_slice(&sum.to_le_bytes());
    }

    fn set_port(&mut self, at: usize, port: u16) {
        let bytes = self.0.as_mut();
        let change = (be16(bytes, at) ^ port).to_be_bytes();
        let behind = bytes.len() - at - change.len();
        let mut sum = [0; 4];
        sum.copy_from_slice(&bytes[CHECKSUM_OFFSET..HEADER_LEN]);
        let sum = u32::from_le_bytes(sum) ^ crc32c::change(&change, behind);
        bytes[CHECKSUM_OFFSET..HEADER_LEN].copy_from_slice(&sum.to_le_bytes());
        put16(bytes, at, port);
    }
}

/// The checksum over a packet, whatever stands in its field.
fn computed(bytes: &[u8]) -> u32 {
    let (header, chunks) = bytes.split_at(HEADER_LEN);
    crc32c::sum(&[&header[..CHECKSUM_OFFSET], &[0; 4], chunks])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_change_of_ports_keeps_right_checksums_right_and_wrong_ones_wrong(
            mut bytes in prop::collection::vec(any::<u8>(), HEADER_LEN..1600),
            ports in any::<(u16, u16)>(),
            error in any::<u32>(),
        ) {
            let mut packet = Packet::new_checked(&mut bytes).unwrap();
            packet.fill_checksum();
            prop_assert!(packet.verify_checksum());
            for byte in 0..4 {
                packet.0[CHECKSUM_OFFSET + byte] ^= error.to_le_bytes()[byte];
            }
            packet.set_source_port(ports.0);
            packet.set_destination_port(ports.1);
            prop_assert_eq!((packet.source_port(), packet.destination_port()), ports);
            prop_assert_eq!(packet.verify_checksum(), error == 0);
        }
    }

    #[test]
    fn fewer_bytes_than_the_header_are_no_packet() {
        assert!(Packet::new_checked([0; 11]).is_err());
        assert_eq!(Packet::new_checked([0; 13]).unwrap().chunks(), [0]);
    }
}
