//! Why an advertisement is refused.

use std::fmt;
use std::net::IpAddr;

/// Why an advertisement had no effect. The order is that of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Discard {
    /// Not even a header and eight bytes of VRRP.
    #[error("too short for an advertisement")]
    TooShort,
    /// No virtual router of this identifier listens here.
    #[error("virtual router {0} is not known here")]
    UnknownVrid(u8),
    /// The virtual router is in Initialize or Fault.
    #[error("the virtual router does not listen now")]
    NotListening,
    /// The start-up delay still runs.
    #[error("the start-up delay still runs")]
    StartingUp,
    /// An authentication header where none is configured, or none where one is.
    #[error("an authentication header on one side only")]
    HeaderMismatch,
    /// The length is not what headers, version and count call for.
    #[error("{have} bytes instead of {need}")]
    Length {
        /// Bytes called for.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// Multicast that was forwarded by a router.
    #[error("a TTL of {0} instead of 255")]
    Ttl(u8),
    /// Another version than configured.
    #[error("version {0}")]
    Version(u8),
    /// No known authentication type.
    #[error("the authentication type {0} does not exist")]
    InvalidAuthType(u8),
    /// Another authentication type than configured.
    #[error("authentication type {0}")]
    AuthTypeMismatch(u8),
    /// Another password.
    #[error("another password")]
    Password,
    /// The authentication header is not one of VRRP.
    #[error("no VRRP behind the authentication header")]
    NextHeader(u8),
    /// The integrity value is not ours.
    #[error("another key, or a forged integrity value")]
    Integrity,
    /// The security parameters index is not the source address.
    #[error("a security parameters index that is not the source address")]
    Spi,
    /// A sequence number that was there before.
    #[error("a sequence number of {got} where more than {last} is due")]
    Replayed {
        /// The number.
        got: u32,
        /// The last one.
        last: u32,
    },
    /// Version 2: another interval than configured.
    #[error("an interval of {0} s")]
    Interval(u8),
    /// Not an advertisement.
    #[error("type {0}")]
    Type(u8),
    /// A wrong checksum.
    #[error("a wrong checksum")]
    Checksum,
    /// Version 3: an interval of zero (RFC 9568, 7.1).
    #[error("an interval of zero")]
    ZeroInterval,
    /// Version 3: no address (RFC 9568, 7.1).
    #[error("no address")]
    NoAddress,
    /// Multicast for a unicast router, or the other way round.
    #[error("sent to {0}, which is not how this router is reached")]
    Destination(IpAddr),
    /// Owners hear nobody.
    #[error("the owner of the addresses hears nobody")]
    OwnerIsDeaf,
    /// Not one of the unicast peers.
    #[error("not a configured peer")]
    NotAPeer,
    /// Out of the peer's bounds.
    #[error("a TTL of {0}, out of the peer's bounds")]
    PeerTtl(u8),
    /// A Backup that preempts does not listen to less.
    #[error("its priority {0} is lower than ours")]
    LowerPriority(u8),
}

impl Discard {
    /// The same reason without the values of one packet.
    pub(crate) const fn kind(self) -> Self {
        match self {
            Self::Length { .. } => Self::Length { need: 0, have: 0 },
            Self::Ttl(_) => Self::Ttl(0),
            Self::Version(_) => Self::Version(0),
            Self::InvalidAuthType(_) => Self::InvalidAuthType(0),
            Self::AuthTypeMismatch(_) => Self::AuthTypeMismatch(0),
            Self::NextHeader(_) => Self::NextHeader(0),
            Self::Replayed { .. } => Self::Replayed { got: 0, last: 0 },
            Self::Interval(_) => Self::Interval(0),
            Self::Type(_) => Self::Type(0),
            Self::PeerTtl(_) => Self::PeerTtl(0),
            other => other,
        }
    }

    /// Is it a sign of a peer that does not understand us, or of mischief? The others are a quiet part of the protocol.
    #[must_use]
    pub const fn is_complaint(&self) -> bool {
        !matches!(
            self,
            Self::UnknownVrid(_)
                | Self::NotListening
                | Self::StartingUp
                | Self::NextHeader(_)
                | Self::OwnerIsDeaf
                | Self::LowerPriority(_)
        )
    }
}

/// A sender that cannot be understood: another router uses this identifier, and both may be Active for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Complaint {
    /// Who sends.
    pub source: IpAddr,
    /// What is wrong with the last refused one.
    pub reason: Discard,
    /// Refused so far from this sender.
    pub count: u64,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "an advertisement of {} is refused: {}",
            self.source, self.reason
        )
    }
}
