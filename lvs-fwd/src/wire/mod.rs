//! Headers as views of bytes, and as values that can be written.
//!
//! A `Packet<T>` looks at bytes in place. Its `new_checked` judges what safe access needs and nothing more;
//! after it succeeds no accessor panics, whatever the bytes hold, and setters change single fields without
//! touching checksums. A `Repr` holds meaning: it is written by `emit` into a buffer of `buffer_len` bytes,
//! which can't fail (a shorter buffer is a caller's bug and panics). Unknown numbers survive, as plain
//! integers. [`Headers`] is what the data path needs to know of a frame, found in one pass.

pub mod ethernet;
mod fragment;
mod headers;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
mod quoted;
pub mod sctp;
pub mod tcp;
mod tunnelled;
pub mod udp;

pub use fragment::{Datagram, Fragment};
pub use headers::{Headers, Unparsed};
pub use quoted::Quoted;
pub(crate) use quoted::{ERRORS, INFORMATIONAL};
pub use tunnelled::{Inner, Tunnelled, Wrapping};

/// IP protocol numbers that this crate acts on.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP.
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// Generic Routing Encapsulation.
    pub const GRE: u8 = 47;
    /// Encapsulating Security Payload.
    pub const ESP: u8 = 50;
    /// Authentication Header.
    pub const AH: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Stream Control Transmission Protocol.
    pub const SCTP: u8 = 132;
}

/// The bytes are too few for the header, or lengths inside it contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0} header")]
pub struct Malformed(pub &'static str);

/// Whether packets of this protocol that are balanced begin with ports.
#[inline]
pub(crate) fn has_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP)
}

/// Whether packets of this protocol follow those of a key exchange between the same addresses (AH and ESP). They have no
/// ports.
#[inline]
pub(crate) fn is_ipsec(number: u8) -> bool {
    matches!(number, protocol::ESP | protocol::AH)
}

#[inline]
fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
