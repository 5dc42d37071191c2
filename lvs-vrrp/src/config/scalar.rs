//! Numbers and names that cannot be wrong once they exist.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

/// Virtual router identifier, 1 to 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vrid(NonZeroU8);

impl Vrid {
    /// `None` for zero.
    #[must_use]
    pub const fn new(vrid: u8) -> Option<Self> {
        match NonZeroU8::new(vrid) {
            Some(vrid) => Some(Self(vrid)),
            None => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0.get()
    }
}

impl fmt::Display for Vrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A configured priority, 1 to 255. 255 is the address owner's (RFC 9568, 5.2.4); zero is said by packets only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(NonZeroU8);

impl Priority {
    /// The owner of the addresses: always ready to be Active.
    pub const OWNER: Self = Self(NonZeroU8::MAX);
    /// What a router has when nothing is said.
    pub const DEFAULT: Self = Self(NonZeroU8::new(100).expect("not zero"));

    /// `None` for zero.
    #[must_use]
    pub const fn new(priority: u8) -> Option<Self> {
        match NonZeroU8::new(priority) {
            Some(priority) => Some(Self(priority)),
            None => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0.get()
    }

    /// Is this the owner's?
    #[must_use]
    pub const fn is_owner(self) -> bool {
        self.0.get() == 255
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// RFC 3768.
    V2,
    /// RFC 5798 and RFC 9568.
    V3,
}

impl Version {
    /// `None` for anything but 2 and 3.
    #[must_use]
    pub const fn new(version: u8) -> Option<Self> {
        match version {
            2 => Some(Self::V2),
            3 => Some(Self::V3),
            _ => None,
        }
    }

    /// 2 or 3.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.number(), f)
    }
}

/// Address family of advertisements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bytes of an address.
    #[must_use]
    pub const fn address_len(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }
}

/// Time between advertisements: 10 ms to 255 s in steps of 10 ms. What of it a version can carry is checked by
/// [`Config::check`](super::Config::check).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(u16);

impl Interval {
    /// One second.
    pub const DEFAULT: Self = Self(100);
    /// The longest that version 3 can carry, 40.95 s.
    pub const MAX_V3: Self = Self(4095);

    /// `None` for zero and for more than 255 s.
    #[must_use]
    pub const fn from_centis(centis: u16) -> Option<Self> {
        if centis >= 1 && centis <= 25_500 {
            Some(Self(centis))
        } else {
            None
        }
    }

    /// `None` unless a multiple of 10 ms in range.
    #[must_use]
    pub fn new(interval: Duration) -> Option<Self> {
        let exact = interval.subsec_nanos().is_multiple_of(10_000_000);
        let centis = u16::try_from(interval.as_millis() / 10).ok()?;
        if exact {
            Self::from_centis(centis)
        } else {
            None
        }
    }

    /// Centiseconds.
    #[must_use]
    pub const fn centis(self) -> u16 {
        self.0
    }

    /// Whole seconds, if it is that.
    #[must_use]
    pub fn whole_secs(self) -> Option<u8> {
        let secs = u8::try_from(self.0 / 100).expect("at most 255 s");
        self.0.is_multiple_of(100).then_some(secs)
    }

    /// As a duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64 * 10)
    }
}

/// Name of a network interface. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(Arc<str>);

impl InterfaceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for InterfaceName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
