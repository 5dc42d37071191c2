//! What a virtual service is told: its identity and attributes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use crate::{Family, Protocol, SchedulerKind};

/// Identity of a virtual service. It cannot be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum ServiceKey {
    /// Packets to an address and port.
    Address {
        /// Transport protocol.
        protocol: Protocol,
        /// Virtual address.
        vip: IpAddr,
        /// Virtual port; 0 is every port and works only with persistence.
        vport: u16,
    },
    /// Packets that carry a firewall mark, whatever their protocol, address and port.
    Mark {
        /// Family of the packets.
        family: Family,
        /// The mark.
        mark: NonZeroU32,
    },
}

impl ServiceKey {
    /// Family of the service's packets.
    pub fn family(&self) -> Family {
        match self {
            Self::Address {
                vip: IpAddr::V4(_), ..
            } => Family::Inet,
            Self::Address {
                vip: IpAddr::V6(_), ..
            } => Family::Inet6,
            Self::Mark { family, .. } => *family,
        }
    }

    /// The virtual port; 0 for a mark service.
    pub fn port(&self) -> u16 {
        match self {
            Self::Address { vport, .. } => *vport,
            Self::Mark { .. } => 0,
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address {
                protocol,
                vip,
                vport,
            } => write!(f, "{protocol} {}", SocketAddr::new(*vip, *vport)),
            Self::Mark {
                family: Family::Inet,
                mark,
            } => write!(f, "FWM {mark}"),
            Self::Mark {
                family: Family::Inet6,
                mark,
            } => write!(f, "FWM {mark} IPv6"),
        }
    }
}

/// Flags that some schedulers look at (`ipvsadm -b`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(from = "u8", into = "u8"))]
pub struct SchedulerFlags(u8);

impl SchedulerFlags {
    /// flag-1: `sh-fallback`, `mh-fallback`.
    pub const FALLBACK: Self = Self(0x08);
    /// flag-2: `sh-port`, `mh-port`.
    pub const PORT: Self = Self(0x10);
    /// flag-3, without a meaning.
    pub const FLAG_3: Self = Self(0x20);

    /// The kernel's bits, others are cut off.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 0x38)
    }

    /// The kernel's bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl From<u8> for SchedulerFlags {
    /// [`from_bits`](Self::from_bits).
    fn from(bits: u8) -> Self {
        Self::from_bits(bits)
    }
}

impl From<SchedulerFlags> for u8 {
    fn from(flags: SchedulerFlags) -> Self {
        flags.bits()
    }
}

/// Which clients share a persistence template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Granularity {
    /// IPv4: addresses that are equal under this mask. Any bit pattern is accepted.
    Mask(Ipv4Addr),
    /// IPv6: addresses that share a prefix of this length, `1..=128`.
    Prefix(u8),
}

impl Granularity {
    /// Each address by itself.
    pub const fn host(family: Family) -> Self {
        match family {
            Family::Inet => Self::Mask(Ipv4Addr::BROADCAST),
            Family::Inet6 => Self::Prefix(128),
        }
    }

    /// The address that stands for all that share a template with `client`.
    pub fn apply(self, client: IpAddr) -> IpAddr {
        match (self, client) {
            (Self::Mask(mask), IpAddr::V4(client)) => IpAddr::V4(client & mask),
            (Self::Prefix(length), IpAddr::V6(client)) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(length.min(128)))
                    .unwrap_or(0);
                IpAddr::V6((client.to_bits() & mask).into())
            }
            (_, client) => client,
        }
    }

    pub(crate) fn fits(self, family: Family) -> bool {
        match self {
            Self::Mask(_) => family == Family::Inet,
            Self::Prefix(length) => family == Family::Inet6 && (1..=128).contains(&length),
        }
    }
}

/// Persistence: connections of a client group go to one server while its template lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Persistence {
    /// Life of a template after the last connection began.
    pub timeout: Duration,
    /// Size of a client group.
    pub granularity: Granularity,
}

/// Attributes of a service. An edit replaces all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
pub struct ServiceConfig {
    /// The scheduler; editing to the same kind keeps its state.
    pub scheduler: SchedulerKind,
    /// Scheduler flags; a change acts on the next pick.
    pub flags: SchedulerFlags,
    /// Persistence, if wanted.
    pub persistence: Option<Persistence>,
    /// Each UDP packet is scheduled by itself.
    pub one_packet: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_mask_ipv6_clients() {
        let client: IpAddr = "2001:db8:1:2:3::5".parse().unwrap();
        assert_eq!(
            Granularity::Prefix(64).apply(client),
            "2001:db8:1:2::".parse::<IpAddr>().unwrap()
        );
        assert_eq!(Granularity::Prefix(128).apply(client), client);
        assert!(!Granularity::Prefix(0).fits(Family::Inet6));
    }
}
