//! What is watched, and what it does to priority and state.

use crate::config::InterfaceName;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Something that is watched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TrackedObject {
    /// A network interface: up and running.
    Interface(InterfaceName),
    /// A script that exits with 0 now and again.
    Script(Arc<str>),
    /// A file with a number in it.
    File(Arc<str>),
    /// Processes.
    Process(Arc<str>),
    /// A BFD session.
    Bfd(Arc<str>),
    /// The other members of the sync group, while they wait for something.
    Group,
}

impl fmt::Display for TrackedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::Script(name) => write!(f, "script {name}"),
            Self::File(name) => write!(f, "file {name}"),
            Self::Process(name) => write!(f, "process {name}"),
            Self::Bfd(name) => write!(f, "BFD session {name}"),
            Self::Group => f.write_str("the sync group"),
        }
    }
}

/// Is it as it should be?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// It has not reported yet.
    Unknown,
    /// No.
    Failed,
    /// Yes.
    Good,
}

/// A virtual router or sync group watches an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    /// The object.
    pub object: TrackedObject,
    /// Zero: its failure is a fault. Positive: added while it is good. Negative: subtracted while it fails. For files: the
    /// factor of the number.
    pub weight: i16,
    /// The other way round.
    pub reverse: bool,
}

impl Tracked {
    /// Its failure is a fault.
    #[must_use]
    pub const fn fault(object: TrackedObject) -> Self {
        Self {
            object,
            weight: 0,
            reverse: false,
        }
    }

    /// It weighs.
    #[must_use]
    pub const fn weighted(object: TrackedObject, weight: i16) -> Self {
        Self {
            object,
            weight,
            reverse: false,
        }
    }

    /// What the object's present condition means to who watches it.
    pub(crate) fn effect(&self, condition: Condition) -> Effect {
        let sign = if self.reverse { -1 } else { 1 };
        let weight = i32::from(self.weight);
        match condition {
            Condition::Unknown if self.weight == 0 => Effect::health(Health::Unknown),
            Condition::Unknown => Effect::weight(0),
            Condition::Is(good) if self.weight == 0 => Effect::health(if good == self.reverse {
                Health::Failed
            } else {
                Health::Good
            }),
            Condition::Is(true) => Effect::weight(weight.max(0) * sign),
            Condition::Is(false) => Effect::weight(weight.min(0) * sign),
            Condition::Number(number) if self.weight == 0 => {
                Effect::health(if (number == 0) == self.reverse {
                    Health::Failed
                } else {
                    Health::Good
                })
            }
            Condition::Number(number) => {
                let product = i64::from(number) * i64::from(weight * sign);
                let product = i32::try_from(product.clamp(-254, 253)).expect("clamped");
                Effect {
                    weight: product,
                    health: if product <= -254 {
                        Health::Failed
                    } else {
                        Health::Good
                    },
                }
            }
        }
    }
}

/// What an object does to a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) weight: i32,
    pub(crate) health: Health,
}

impl Effect {
    const fn health(health: Health) -> Self {
        Self { weight: 0, health }
    }

    const fn weight(weight: i32) -> Self {
        Self {
            weight,
            health: Health::Good,
        }
    }
}

/// The present condition of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Unknown,
    Is(bool),
    /// Of a file.
    Number(i32),
}

/// A yes or no that counts only when it has lasted: links and processes that flap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Debounce {
    delays: Delays,
    value: Option<bool>,
    pending: Option<(bool, Instant)>,
}

/// How long a change must last before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delays {
    /// Of a change to good: an interface that comes up, enough processes.
    pub up: Duration,
    /// Of a change to bad.
    pub down: Duration,
}

impl Debounce {
    pub(crate) const fn new(delays: Delays) -> Self {
        Self {
            delays,
            value: None,
            pending: None,
        }
    }

    pub(crate) const fn set_delays(&mut self, delays: Delays) {
        self.delays = delays;
    }

    /// What counts now.
    pub(crate) const fn value(&self) -> Option<bool> {
        self.value
    }

    /// A fact. The first one counts at once; one that undoes a change that has not lasted yet ends the waiting.
    pub(crate) fn report(&mut self, now: Instant, value: bool) {
        let delay = if value {
            self.delays.up
        } else {
            self.delays.down
        };
        if self.value.is_none() || delay.is_zero() {
            self.value = Some(value);
            self.pending = None;
        } else if self.value == Some(value) {
            self.pending = None;
        } else if self.pending.is_none() {
            self.pending = Some((value, now + delay));
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.pending.map(|(_, due)| due)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let Some((value, due)) = self.pending
            && due <= now
        {
            self.value = Some(value);
            self.pending = None;
        }
    }
}

/// Chooses the address that advertisements are sent from among those of the interface, in the order in which they were set.
///
/// Virtual addresses are none's own, but for an owner's: it may have no other. Multicast over IPv6 needs a link-local one.
#[must_use]
pub fn select_source(
    config: &crate::Config,
    addresses: impl IntoIterator<Item = std::net::IpAddr> + Clone,
) -> Option<std::net::IpAddr> {
    use std::net::IpAddr;
    let fits = |address: &IpAddr| match address {
        IpAddr::V4(_) => config.family == crate::Family::V4,
        IpAddr::V6(address) => {
            config.family == crate::Family::V6
                && address.is_unicast_link_local() == config.reach.is_multicast()
        }
    };
    let moved = |address: &IpAddr| {
        let mut all = config.addresses.iter().chain(&config.excluded);
        all.any(|each| each.address == *address)
    };
    let own = addresses
        .clone()
        .into_iter()
        .find(|address| fits(address) && !moved(address));
    own.or_else(|| {
        let owner = config.priority.is_owner();
        addresses.into_iter().find(|address| owner && fits(address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracked(weight: i16, reverse: bool) -> Tracked {
        Tracked {
            object: TrackedObject::Script("chk".into()),
            weight,
            reverse,
        }
    }

    #[test]
    fn weights_count_as_keepalived_counts_them() {
        let (good, bad) = (Condition::Is(true), Condition::Is(false));
        for (weight, reverse, when_good, when_bad) in [
            (60, false, 60, 0),
            (-60, false, 0, -60),
            (60, true, -60, 0),
            (-60, true, 0, 60),
        ] {
            let tracked = tracked(weight, reverse);
            assert_eq!(tracked.effect(good), Effect::weight(when_good));
            assert_eq!(tracked.effect(bad), Effect::weight(when_bad));
            assert_eq!(tracked.effect(Condition::Unknown), Effect::weight(0));
        }
        for (reverse, when_good, when_bad) in [
            (false, Health::Good, Health::Failed),
            (true, Health::Failed, Health::Good),
        ] {
            let tracked = tracked(0, reverse);
            assert_eq!(tracked.effect(good), Effect::health(when_good));
            assert_eq!(tracked.effect(bad), Effect::health(when_bad));
        }
    }

    #[test]
    fn the_number_of_a_file_is_a_weight_and_a_very_low_one_a_fault() {
        for (weight, number, sum, health) in [
            (1, -100, -100, Health::Good),
            (1, 500, 253, Health::Good),
            (1, -1000, -254, Health::Failed),
            (-2, 30, -60, Health::Good),
            (i16::MAX, i32::MAX, 253, Health::Good),
            (0, 0, 0, Health::Good),
            (0, 7, 0, Health::Failed),
        ] {
            let effect = tracked(weight, false).effect(Condition::Number(number));
            assert_eq!(
                (effect.weight, effect.health),
                (sum, health),
                "{weight} {number}"
            );
        }
    }

    #[test]
    fn a_change_counts_when_it_has_lasted() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut link = Debounce::new(Delays {
            up: second,
            down: 2 * second,
        });
        link.report(now, true);
        assert_eq!(link.value(), Some(true), "the first one at once");
        link.report(now, false);
        link.report(now + second, true);
        link.handle_timeout(now + 3 * second);
        assert_eq!(link.value(), Some(true), "it did not last");
        link.report(now + 4 * second, false);
        link.report(now + 5 * second, false);
        assert_eq!(link.poll_timeout(), Some(now + 6 * second));
        link.handle_timeout(now + 6 * second);
        assert_eq!((link.value(), link.poll_timeout()), (Some(false), None));
    }

    #[test]
    fn the_source_is_an_address_of_one_s_own() {
        let vrid = crate::Vrid::new(1).unwrap();
        let mut config = crate::Config::new(vrid, crate::Family::V4, "e0");
        let address = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
        let set = ["fe80::1", "192.0.2.100", "192.0.2.11"].map(address);
        config.addresses = vec![crate::VirtualAddress {
            address: set[1],
            interface: "e0".into(),
        }];
        assert_eq!(select_source(&config, set), Some(set[2]));
        assert_eq!(select_source(&config, [set[0], set[1]]), None);
        config.priority = crate::Priority::OWNER;
        assert_eq!(select_source(&config, [set[0], set[1]]), Some(set[1]));
        let config = crate::Config::new(vrid, crate::Family::V6, "e0");
        let set = ["2001:db8::1", "fe80::1"].map(address);
        assert_eq!(select_source(&config, set), Some(set[1]));
    }
}
