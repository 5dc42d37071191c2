//! The configuration of one virtual router.

use super::{Family, InterfaceName, Interval, Priority, Version, Vrid};
use crate::wire;
use crate::wire::Addresses;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// A virtual router: who it is, what it moves, how it behaves. [`Config::new`] has keepalived's defaults; where one differs its field
/// says so.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Identifier on the link.
    pub vrid: Vrid,
    /// Address family of advertisements.
    pub family: Family,
    /// Version of the protocol. Default: 2 for IPv4, 3 for IPv6.
    pub version: Version,
    /// Where it lives; also where unicast routers announce their own source address.
    pub interface: InterfaceName,
    /// How peers are reached. Default: the standard multicast group.
    pub reach: Reach,
    /// Base priority. Default: 100.
    pub priority: Priority,
    /// Time between own advertisements. Default: 1 s.
    pub interval: Interval,
    /// Advertised addresses, in the order of the wire.
    pub addresses: Vec<VirtualAddress>,
    /// Addresses that move too but are not advertised; of any family.
    pub excluded: Vec<VirtualAddress>,
    /// Version 2 over IPv4 only. Default: none.
    pub authentication: Authentication,
    /// What to do about an Active router of lower priority. Default: take over.
    pub preemption: Preemption,
    /// Missed advertisements before a take-over, 1 to 100. Default: 3.
    pub down_timer_adverts: u8,
    /// The addresses behave like any local address. Default: yes (the RFC says no for routers that are no owners).
    pub accept: bool,
    /// Announcement of the addresses.
    pub announcements: Announcements,
    /// While Active: answer a losing advertisement with one's own (RFC 9568, 6.4.3). Default: yes.
    pub answer_lower: bool,
    /// While Active: send one more advertisement before yielding to a better router, so that it learns of the split and announces
    /// the addresses again. Default: yes (keepalived: no, and hosts that learned the loser's MAC address keep it).
    pub answer_higher: bool,
    /// An owner hears nobody (RFC 9568, 6.4.3). Default: no, so that two owners find out about each other.
    pub owner_ignores_adverts: bool,
    /// Compare the address list with the first advertisement of each new sender only. A difference is counted and reported,
    /// never a reason to refuse. Default: no.
    pub skip_known_addresses: bool,
    /// Checksum of version 3 over IPv4. All right forms are accepted.
    pub checksum: ChecksumSend,
    /// Keep quiet after the start: advertisements are thrown away and timers begin at its end. Default: none.
    pub startup_delay: Duration,
    /// Set addresses and routes again that somebody took away from an Active router, five times within ten seconds; then step down
    /// for a skew time. Default: yes (keepalived steps down at once).
    pub restore_removed: bool,
    /// An Active router that finds that it was not run for so long that others must have taken over. Default:
    /// [`LateActive::Reannounce`].
    pub late: LateActive,
}

impl Config {
    /// A router with the default settings and no address yet.
    #[must_use]
    pub fn new(vrid: Vrid, family: Family, interface: impl Into<InterfaceName>) -> Self {
        Self {
            vrid,
            family,
            version: match family {
                Family::V4 => Version::V2,
                Family::V6 => Version::V3,
            },
            interface: interface.into(),
            reach: Reach::multicast(family),
            priority: Priority::DEFAULT,
            interval: Interval::DEFAULT,
            addresses: Vec::new(),
            excluded: Vec::new(),
            authentication: Authentication::None,
            preemption: Preemption::default(),
            down_timer_adverts: 3,
            accept: true,
            announcements: Announcements::default(),
            answer_lower: true,
            answer_higher: true,
            owner_ignores_adverts: false,
            skip_known_addresses: false,
            checksum: ChecksumSend::default(),
            startup_delay: Duration::ZERO,
            restore_removed: true,
            late: LateActive::default(),
        }
    }

    /// To the letter of the RFC, as keepalived's strict mode: no authentication, three missed advertisements, no preempt delay,
    /// addresses accepted by the owner only, losing advertisements neither answered nor countered, owners deaf.
    #[must_use]
    pub fn strict(mut self) -> Self {
        if self.family == Family::V6 {
            self.version = Version::V3;
        }
        self.authentication = Authentication::None;
        self.down_timer_adverts = 3;
        if let Preemption::After(_) = self.preemption {
            self.preemption = Preemption::Immediate;
        }
        self.accept = self.priority.is_owner();
        self.answer_lower = false;
        self.answer_higher = false;
        self.announcements.lower_priority_repeat = 0;
        self.announcements.lower_priority_delay = Duration::ZERO;
        self.owner_ignores_adverts = true;
        self
    }

    /// Is the whole consistent? [`VirtualRouter`](crate::VirtualRouter) asks before it believes.
    ///
    /// # Errors
    /// The first thing that is not.
    pub fn check(&self) -> Result<(), ConfigError> {
        match self.version {
            Version::V2 if self.interval.whole_secs().is_none() => {
                return Err(ConfigError::FractionalInterval(self.interval.duration()));
            }
            Version::V3 if self.interval > Interval::MAX_V3 => {
                return Err(ConfigError::LongInterval(self.interval.duration()));
            }
            _ => {}
        }
        let authenticated = self.authentication != Authentication::None;
        if authenticated && (self.version == Version::V3 || self.family == Family::V6) {
            return Err(ConfigError::Authentication);
        }
        if !(1..=100).contains(&self.down_timer_adverts) {
            return Err(ConfigError::DownTimer(self.down_timer_adverts));
        }
        if self.advertised().is_none() {
            return Err(ConfigError::Addresses);
        }
        let mut seen = BTreeSet::new();
        for address in self.addresses.iter().chain(&self.excluded) {
            if !seen.insert((address.address, address.interface.clone())) {
                return Err(ConfigError::Repeated(address.address));
            }
        }
        match &self.reach {
            Reach::Multicast { group } => {
                if !group.is_multicast() || Family::of(*group) != self.family {
                    return Err(ConfigError::Group(*group));
                }
            }
            Reach::Unicast { peers, .. } => {
                for peer in peers {
                    let bounds = peer.ttl.0 <= peer.ttl.1;
                    let usable = !peer.address.is_multicast() && !peer.address.is_unspecified();
                    if Family::of(peer.address) != self.family || !usable || !bounds {
                        return Err(ConfigError::Peer(peer.address));
                    }
                }
            }
        }
        Ok(())
    }

    /// The advertised addresses for the wire; `None` for a mixed list or too long a one.
    pub(crate) fn advertised(&self) -> Option<Addresses> {
        Addresses::new(self.family, self.addresses.iter().map(|each| each.address))
    }

    /// Does a router with `other` continue this one? What makes a router another one is its identifier, family, interface,
    /// and how it reaches its peers.
    #[must_use]
    pub fn is_same_router(&self, other: &Self) -> bool {
        let reach = match (&self.reach, &other.reach) {
            (Reach::Multicast { group: a }, Reach::Multicast { group: b }) => a == b,
            (Reach::Unicast { .. }, Reach::Unicast { .. }) => true,
            _ => false,
        };
        reach
            && (self.vrid, self.family, &self.interface)
                == (other.vrid, other.family, &other.interface)
    }
}

/// Why a configuration is refused. The operator's to repair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Version 2 carries whole seconds.
    #[error("version 2 needs an interval of whole seconds, not {0:?}")]
    FractionalInterval(Duration),
    /// Version 3 carries at most 40.95 s.
    #[error("version 3 cannot carry an interval of {0:?}")]
    LongInterval(Duration),
    /// Only version 2 over IPv4 has it.
    #[error("authentication needs version 2 and IPv4")]
    Authentication,
    /// Not within 1 to 100.
    #[error("{0} missed advertisements are not within 1 and 100")]
    DownTimer(u8),
    /// More than 255, or of the other family.
    #[error("advertised addresses must be of one family, 255 at most")]
    Addresses,
    /// An address stands in the lists twice.
    #[error("{0} is listed twice")]
    Repeated(IpAddr),
    /// Not a multicast group of the family.
    #[error("{0} is no multicast group of this family")]
    Group(IpAddr),
    /// A peer of the other family, no host address, or its bounds exclude each other.
    #[error("{0} is no possible peer")]
    Peer(IpAddr),
    /// A change of what makes a router another one.
    #[error("this is another virtual router")]
    OtherRouter,
}

/// How peers are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// A group on the link.
    Multicast {
        /// The group.
        group: IpAddr,
    },
    /// Named peers.
    Unicast {
        /// The peers, in the order of sending.
        peers: Vec<UnicastPeer>,
        /// TTL or hop limit of what is sent; `None`: 255 for IPv4, the kernel's choice for IPv6.
        ttl: Option<u8>,
        /// Advertisements of others are refused.
        check_source: bool,
    },
}

impl Reach {
    /// The standard group.
    #[must_use]
    pub const fn multicast(family: Family) -> Self {
        let group = match family {
            Family::V4 => IpAddr::V4(wire::GROUP_V4),
            Family::V6 => IpAddr::V6(wire::GROUP_V6),
        };
        Self::Multicast { group }
    }

    /// Is it a group?
    #[must_use]
    pub const fn is_multicast(&self) -> bool {
        matches!(self, Self::Multicast { .. })
    }
}

/// A unicast peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnicastPeer {
    /// Its address.
    pub address: IpAddr,
    /// Smallest and largest accepted TTL or hop limit. Other than `(0, 255)` it makes the source checked.
    pub ttl: (u8, u8),
}

impl From<IpAddr> for UnicastPeer {
    fn from(address: IpAddr) -> Self {
        Self {
            address,
            ttl: (0, u8::MAX),
        }
    }
}

/// An address that moves with the virtual router. Prefix, label and scope are the shell's affair.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualAddress {
    /// The address.
    pub address: IpAddr,
    /// Where it is set and announced.
    pub interface: InterfaceName,
}

/// Authentication of version 2.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub enum Authentication {
    /// None.
    #[default]
    None,
    /// A password in clear, padded with zeroes. It guards against mistakes only.
    Password([u8; 8]),
    /// The IP authentication header with this key, padded with zeroes.
    Header([u8; 8]),
}

impl Authentication {
    /// Its number on the wire.
    #[must_use]
    pub const fn auth_type(&self) -> u8 {
        match self {
            Self::None => wire::auth_type::NONE,
            Self::Password(_) => wire::auth_type::PASSWORD,
            Self::Header(_) => wire::auth_type::HEADER,
        }
    }

    /// Eight bytes of a word, padded with zeroes. `None` for a longer word: half a password is no password.
    #[must_use]
    pub fn pad(word: &[u8]) -> Option<[u8; 8]> {
        let mut padded = [0; 8];
        padded.get_mut(..word.len())?.copy_from_slice(word);
        Some(padded)
    }
}

impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Password(_) => "Password(..)",
            Self::Header(_) => "Header(..)",
        })
    }
}

/// What a Backup does about an Active router of lower priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preemption {
    /// It takes over, one master-down time after it began to listen.
    #[default]
    Immediate,
    /// It follows it for this long first, counted from the first such advertisement.
    After(Duration),
    /// It follows it for ever.
    Off,
}

/// How often the addresses are announced by gratuitous ARP and unsolicited neighbour advertisements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcements {
    /// Rounds over all addresses in a burst. Default: 5.
    pub repeat: u32,
    /// When the second burst follows the first; zero: never. Default: 5 s.
    pub delay: Duration,
    /// Period of further announcements while Active; zero: none. Default: none.
    pub refresh: Duration,
    /// Rounds of those. Default: 1.
    pub refresh_repeat: u32,
    /// Rounds after a losing advertisement was heard; zero: none. Default: 5.
    pub lower_priority_repeat: u32,
    /// When a second such burst follows; zero: never. Default: 5 s.
    pub lower_priority_delay: Duration,
    /// Announce too when another router leaves with priority 0 while we are Active: it had the addresses. Default: yes
    /// (keepalived: no).
    pub after_rival: bool,
}

impl Default for Announcements {
    fn default() -> Self {
        Self {
            repeat: 5,
            delay: Duration::from_secs(5),
            refresh: Duration::ZERO,
            refresh_repeat: 1,
            lower_priority_repeat: 5,
            lower_priority_delay: Duration::from_secs(5),
            after_rival: true,
        }
    }
}

/// Which checksum version 3 over IPv4 is sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChecksumSend {
    /// Over the pseudo-header too; for unicast, as old keepalived does once a peer was heard that does.
    #[default]
    PseudoHeader,
    /// The same, never the old form.
    PseudoHeaderAlways,
    /// Over the message alone, as RFC 9568 has it.
    Message,
    /// As keepalived up to 1.3.6: the group stands in the pseudo-header of unicast advertisements.
    GroupPseudoHeader,
}

/// What an Active router does that finds that it was not run for three intervals and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LateActive {
    /// It goes on, and announces the addresses again: what others sent meanwhile has been read and judged before, by the drive
    /// loop's rule.
    #[default]
    Reannounce,
    /// It becomes Backup without a word when the others' best, of this priority, must have taken over by now.
    YieldTo(Priority),
}
