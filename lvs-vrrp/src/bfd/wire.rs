//! The BFD control packet (RFC 5880, 4.1), without its authentication section.

use crate::wire::Truncated;
use std::time::Duration;

/// State of a session (RFC 5880, 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BfdState {
    /// Held down by an operator.
    AdminDown,
    /// No contact.
    Down,
    /// The other is heard, but does not hear us yet.
    Init,
    /// Both hear each other.
    Up,
}

impl BfdState {
    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::AdminDown => 0,
            Self::Down => 1,
            Self::Init => 2,
            Self::Up => 3,
        }
    }
}

/// Why a session went down (RFC 5880, 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Diagnostic {
    /// Nothing is wrong.
    None,
    /// Nothing was heard for the detection time.
    DetectionTimeExpired,
    /// The other says that it is down.
    NeighborDown,
    /// An operator holds it down.
    AdministrativelyDown,
    /// Another reason, by its number.
    Other(u8),
}

impl Diagnostic {
    const fn from_bits(bits: u8) -> Self {
        match bits & 0x1f {
            0 => Self::None,
            1 => Self::DetectionTimeExpired,
            3 => Self::NeighborDown,
            7 => Self::AdministrativelyDown,
            other => Self::Other(other),
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::None => 0,
            Self::DetectionTimeExpired => 1,
            Self::NeighborDown => 3,
            Self::AdministrativelyDown => 7,
            Self::Other(other) => other & 0x1f,
        }
    }
}

/// A control packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BfdRepr {
    /// Why the sender's session last went down.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: BfdState,
    /// It wants an answer with Final.
    pub poll: bool,
    /// It is such an answer.
    pub is_final: bool,
    /// It wants silence while up.
    pub demand: bool,
    /// Packets to miss, never 0.
    pub detect_mult: u8,
    /// The sender's session, never 0.
    pub my_discriminator: u32,
    /// The receiver's session; 0 while unknown.
    pub your_discriminator: u32,
    /// Shortest gap that the sender wants to send with.
    pub desired_min_tx: Duration,
    /// Shortest gap that the sender bears; zero: it wants no packets.
    pub required_min_rx: Duration,
}

/// Why a control packet is refused (RFC 5880, 6.8.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BfdError {
    /// Shorter than a control packet.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// Not version 1.
    #[error("version {0}")]
    Version(u8),
    /// Its length field is not possible.
    #[error("a length of {0}")]
    Length(u8),
    /// It is authenticated, and we are not.
    #[error("it is authenticated")]
    Authenticated,
    /// A multiplier of zero.
    #[error("a detection multiplier of zero")]
    DetectMult,
    /// Multipoint is reserved.
    #[error("the multipoint bit is set")]
    Multipoint,
    /// A discriminator of zero, or none for us although the session is up.
    #[error("a discriminator that cannot be")]
    Discriminator,
    /// Not for this session.
    #[error("a discriminator that is not ours")]
    UnknownSession,
    /// It was forwarded by a router (RFC 5881, 5).
    #[error("a TTL of {0}")]
    Ttl(u8),
    /// The session is held down here.
    #[error("the session is held down by an operator")]
    AdminDown,
}

impl BfdRepr {
    /// Length of a control packet.
    pub const LEN: usize = 24;

    /// Reads a packet as RFC 5880, 6.8.6 has it.
    ///
    /// # Errors
    /// When it must be discarded.
    pub fn parse(bytes: &[u8]) -> Result<Self, BfdError> {
        Truncated::check(bytes, Self::LEN)?;
        if bytes[0] >> 5 != 1 {
            return Err(BfdError::Version(bytes[0] >> 5));
        }
        let length = bytes[3];
        if usize::from(length) < Self::LEN || usize::from(length) > bytes.len() {
            return Err(BfdError::Length(length));
        }
        if bytes[2] == 0 {
            return Err(BfdError::DetectMult);
        }
        if bytes[1] & MULTIPOINT != 0 {
            return Err(BfdError::Multipoint);
        }
        if bytes[1] & AUTHENTICATED != 0 {
            return Err(BfdError::Authenticated);
        }
        let repr = Self {
            diagnostic: Diagnostic::from_bits(bytes[0]),
            state: BfdState::from_bits(bytes[1] >> 6),
            poll: bytes[1] & POLL != 0,
            is_final: bytes[1] & FINAL != 0,
            demand: bytes[1] & DEMAND != 0,
            detect_mult: bytes[2],
            my_discriminator: word(bytes, 4),
            your_discriminator: word(bytes, 8),
            desired_min_tx: Duration::from_micros(word(bytes, 12).into()),
            required_min_rx: Duration::from_micros(word(bytes, 16).into()),
        };
        let connected = matches!(repr.state, BfdState::Init | BfdState::Up);
        if repr.my_discriminator == 0 || (connected && repr.your_discriminator == 0) {
            return Err(BfdError::Discriminator);
        }
        Ok(repr)
    }

    /// The packet. Gaps of more than 71 minutes are cut to that.
    #[must_use]
    pub fn packet(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let flag = |is: bool, bit: u8| if is { bit } else { 0 };
        bytes[0] = 1 << 5 | self.diagnostic.bits();
        bytes[1] = self.state.bits() << 6
            | flag(self.poll, POLL)
            | flag(self.is_final, FINAL)
            | flag(self.demand, DEMAND);
        bytes[2] = self.detect_mult;
        bytes[3] = 24;
        let micros = |gap: Duration| u32::try_from(gap.as_micros()).unwrap_or(u32::MAX);
        for (at, word) in [
            (4, self.my_discriminator),
            (8, self.your_discriminator),
            (12, micros(self.desired_min_tx)),
            (16, micros(self.required_min_rx)),
        ] {
            bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const AUTHENTICATED: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;
