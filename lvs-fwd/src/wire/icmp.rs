//! ICMP (RFC 792): a view, and the errors that a forwarder sends.

use super::{Malformed, be16, put16};
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
}

/// Why a packet could not be forwarded, as its sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// No route, or the next hop does not answer (3/1).
    HostUnreachable,
    /// No real server is available (3/3).
    PortUnreachable,
    /// Too big for the next link and not to be fragmented (3/4); with the link's MTU in bytes.
    FragmentationNeeded(u16),
    /// A route forbids it (3/13).
    Prohibited,
    /// Its hops are used up (11/0).
    TimeExceeded,
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
        let message = &mut buffer[..HEADER_LEN + self.quoted.len()];
        message[..HEADER_LEN].fill(0);
        let (kind, code) = match self.error {
            Error::HostUnreachable => (3, 1),
            Error::PortUnreachable => (3, 3),
            Error::FragmentationNeeded(mtu) => {
                put16(message, 6, mtu);
                (3, 4)
            }
            Error::Prohibited => (3, 13),
            Error::TimeExceeded => (11, 0),
        };
        message[0] = kind;
        message[1] = code;
        message[HEADER_LEN..].copy_from_slice(self.quoted);
        let sum = checksum::finish(checksum::sum(message));
        put16(message, 2, sum);
    }
}
