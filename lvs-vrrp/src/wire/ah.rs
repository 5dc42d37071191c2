//! The authentication header of VRRPv2 over IPv4 (RFC 2402 as keepalived speaks it).

use super::{PROTOCOL_VRRP, Truncated, u32_at};
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;

/// A view of an authentication header and what follows it.
#[derive(Debug, Clone, Copy)]
pub struct AhPacket<'a>(&'a [u8]);

impl<'a> AhPacket<'a> {
    /// Length of the header with its 96-bit integrity value.
    pub const LEN: usize = 24;

    /// A view of `bytes`.
    ///
    /// # Errors
    /// When the header is not wholly there.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Truncated> {
        Truncated::check(bytes, Self::LEN)?;
        Ok(Self(bytes))
    }

    /// Protocol of the payload.
    #[must_use]
    pub const fn next_header(&self) -> u8 {
        self.0[0]
    }

    /// Length in words, minus 2: 4 for HMAC-MD5-96.
    #[must_use]
    pub const fn payload_len(&self) -> u8 {
        self.0[1]
    }

    /// Security parameters index: the sender's IPv4 address.
    #[must_use]
    pub fn spi(&self) -> u32 {
        u32_at(self.0, 4)
    }

    /// Sequence number.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        u32_at(self.0, 8)
    }

    /// Integrity check value.
    #[must_use]
    pub fn icv(&self) -> [u8; 12] {
        let mut icv = [0; 12];
        icv.copy_from_slice(&self.0[12..24]);
        icv
    }

    /// Everything behind the header.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.0[Self::LEN..]
    }
}

/// The header as it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AhRepr {
    /// The source address as a number.
    pub spi: u32,
    /// Sequence number.
    pub sequence: u32,
    /// Integrity check value; zero while it is computed.
    pub icv: [u8; 12],
}

impl AhRepr {
    /// Length of the header.
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        AhPacket::LEN
    }

    /// Takes the fields of a view whose next header is VRRP and whose length is that of HMAC-MD5-96.
    #[must_use]
    pub fn parse(packet: &AhPacket<'_>) -> Option<Self> {
        (packet.next_header() == PROTOCOL_VRRP && packet.payload_len() == PAYLOAD_LEN).then(|| {
            Self {
                spi: packet.spi(),
                sequence: packet.sequence(),
                icv: packet.icv(),
            }
        })
    }

    /// Writes the header.
    ///
    /// # Panics
    /// When `buffer` has less than 24 bytes.
    pub fn emit(&self, buffer: &mut [u8]) {
        buffer[0] = PROTOCOL_VRRP;
        buffer[1] = PAYLOAD_LEN;
        buffer[2..4].fill(0);
        buffer[4..8].copy_from_slice(&self.spi.to_be_bytes());
        buffer[8..12].copy_from_slice(&self.sequence.to_be_bytes());
        buffer[12..24].copy_from_slice(&self.icv);
    }
}

/// Which TTL goes into the integrity value. keepalived keeps it for multicast, where RFC 4302 has it zeroed always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcvScope {
    /// As in the packet.
    Multicast,
    /// As zero.
    Unicast,
}

/// The integrity value over an IPv4 header with its options, the authentication header and the message: HMAC-MD5, first 96
/// bits. Fields that may change on the way count as zero.
///
/// # Panics
/// When `ip_header` has less than 20 bytes or `ah` less than 24.
#[must_use]
pub fn icv(
    key: &[u8; 8],
    scope: IcvScope,
    ip_header: &[u8],
    ah: &[u8],
    message: &[u8],
) -> [u8; 12] {
    let mut fixed = [0; 20];
    fixed.copy_from_slice(&ip_header[..20]);
    fixed[1] = 0;
    fixed[6..8].fill(0);
    if scope == IcvScope::Unicast {
        fixed[8] = 0;
    }
    fixed[10..12].fill(0);
    let mut mac = Hmac::<Md5>::new_from_slice(key).expect("a key of any length will do");
    mac.update(&fixed);
    mac.update(&ip_header[20..]);
    mac.update(&ah[..12]);
    mac.update(&[0; 12]);
    mac.update(message);
    let mut icv = [0; 12];
    icv.copy_from_slice(&mac.finalize().into_bytes()[..12]);
    icv
}

const PAYLOAD_LEN: u8 = 4;
