//! What an operator may want to know, as facts from which one sentence can be made.

use crate::config::{InterfaceName, Interval};
use crate::discard::Complaint;
use crate::state::State;
use crate::track::TrackedObject;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Something happened to a virtual router. `Display` writes one sentence for a log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// It changed its state.
    StateChanged(StateChange),
    /// Its effective priority changed (keepalived's `notify_priority_changes`).
    PriorityChanged {
        /// Before.
        from: u8,
        /// Now.
        to: u8,
        /// In this state.
        state: State,
    },
    /// While Active it heard a router that loses against it (keepalived's `notify_master_rx_lower_pri`).
    LowerPriorityHeard {
        /// The other router.
        peer: Peer,
        /// Own effective priority.
        own: u8,
    },
    /// As Backup it follows another router than before.
    NewActive {
        /// The other router.
        peer: Peer,
    },
    /// A sender cannot be understood. Said once for each sender and reason until the state changes.
    Complaint(Complaint),
    /// An address list differs from ours. The advertisement is accepted.
    AddressesDiffer {
        /// Who sends it.
        source: IpAddr,
    },
    /// Version 3: the Active router's interval is taken over.
    IntervalLearned {
        /// Its sender.
        source: IpAddr,
        /// The interval.
        interval: Interval,
    },
    /// Unicast version 3: a peer has keepalived's old checksum, and gets it too.
    OldChecksum {
        /// The peer.
        source: IpAddr,
    },
    /// The machine was run this much too late.
    Late {
        /// In this state.
        state: State,
        /// By how much.
        by: Duration,
    },
    /// Another router says that it owns our addresses.
    RivalOwner {
        /// The other router.
        source: IpAddr,
        /// Who gives in.
        outcome: RivalOutcome,
    },
    /// Somebody took an address or a route away; it is set again.
    Restored {
        /// What.
        object: RemovedObject,
    },
    /// Its timer has ended, but its sync group waits for another member.
    WaitsForGroup,
}

/// How two owners part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RivalOutcome {
    /// Our address is lower: we give in.
    WeYield,
    /// Our address is higher: the other should give in.
    TheyShouldYield,
    /// They did.
    TheyYielded,
    /// They did not, so we do, with priority 254.
    WeLower,
}

/// A change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// Before.
    pub from: State,
    /// Now.
    pub to: State,
    /// Why.
    pub reason: Reason,
    /// Effective priority.
    pub priority: u8,
}

/// Another router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its source address.
    pub address: IpAddr,
    /// Its last priority.
    pub priority: u8,
}

/// Why a state changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It was started.
    Started,
    /// It was shut down.
    ShutDown,
    /// It was taken out of the configuration.
    Removed,
    /// It owns the addresses.
    Owner,
    /// The Active router was silent for too long.
    Silence {
        /// Who it was; `None` when none was ever heard.
        peer: Option<Peer>,
        /// For how long nothing acceptable was heard.
        silent_for: Duration,
    },
    /// The Active router went on, but with a lower priority than ours.
    Preempted {
        /// The other router.
        peer: Peer,
        /// Own effective priority.
        own: u8,
    },
    /// The Active router left with priority 0.
    Resignation {
        /// Who left.
        address: IpAddr,
    },
    /// A better router was heard.
    Yielded {
        /// The better router.
        peer: Peer,
        /// Own effective priority.
        own: u8,
    },
    /// It was not run for so long that another must have taken over.
    Late {
        /// Since its last advertisement.
        silent_for: Duration,
    },
    /// Somebody took its addresses or routes away, again and again or for good.
    ObjectRemoved {
        /// What.
        object: RemovedObject,
    },
    /// It tries again after its addresses were taken away.
    Retry,
    /// Something that it needs is broken.
    Fault(Fault),
    /// Nothing is broken any more.
    Recovered,
    /// Its sync group moves.
    Group,
}

/// Something that keeps a virtual router from working.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// Something that it tracks without a weight; its own interface too.
    Object(TrackedObject),
    /// It has no address to send from.
    NoSource,
    /// Another member of its sync group is in Fault.
    Group,
    /// The configuration cannot work here.
    Configuration(Arc<str>),
}

/// Something that somebody took away from an Active router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemovedObject {
    /// An address.
    Address {
        /// The address.
        address: IpAddr,
        /// Its interface.
        interface: InterfaceName,
    },
    /// A virtual route or rule.
    Route,
}

/// Why there is a new Active router, in the words of RFC 6527.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewActiveReason {
    /// This router is not Active.
    NotActive,
    /// The last one left with priority 0.
    Priority,
    /// This one is better.
    Preempted,
    /// The last one was silent.
    NoResponse,
}

impl Reason {
    /// For `vrrpv3OperationsNewMasterReason`, when the state is Active.
    #[must_use]
    pub const fn new_active_reason(&self) -> NewActiveReason {
        match self {
            Self::Silence { .. } | Self::Group | Self::Retry => NewActiveReason::NoResponse,
            Self::Resignation { .. } => NewActiveReason::Priority,
            Self::Preempted { .. } | Self::Owner => NewActiveReason::Preempted,
            _ => NewActiveReason::NotActive,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StateChanged(change) => write!(f, "{change}"),
            Self::PriorityChanged { from, to, state } => {
                write!(f, "priority {from} became {to} in {state}")
            }
            Self::LowerPriorityHeard { peer, own } => {
                write!(f, "stays Active with priority {own}: {peer} loses")
            }
            Self::NewActive { peer } => write!(f, "follows {peer}"),
            Self::Complaint(complaint) => write!(f, "{complaint}"),
            Self::AddressesDiffer { source } => {
                write!(f, "{source} advertises other addresses than are configured")
            }
            Self::IntervalLearned { source, interval } => {
                write!(f, "{source} advertises every {:?}", interval.duration())
            }
            Self::OldChecksum { source } => {
                write!(f, "{source} has the old unicast checksum and gets it too")
            }
            Self::Late { state, by } => write!(f, "woke up {by:?} late in {state}"),
            Self::RivalOwner { source, outcome } => {
                write!(f, "{source} says that it owns the addresses too: ")?;
                f.write_str(match outcome {
                    RivalOutcome::WeYield => "we yield",
                    RivalOutcome::TheyShouldYield => "it should yield",
                    RivalOutcome::TheyYielded => "it has yielded",
                    RivalOutcome::WeLower => "it does not yield, so we do",
                })
            }
            Self::Restored { object } => write!(f, "{object} was taken away and is set again"),
            Self::WaitsForGroup => f.write_str("would be Active, but its sync group waits"),
        }
    }
}

impl fmt::Display for StateChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}: {}", self.to, self.from, self.reason)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (priority {})", self.address, self.priority)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("started"),
            Self::ShutDown => f.write_str("shut down"),
            Self::Removed => f.write_str("no longer configured"),
            Self::Owner => f.write_str("it owns the addresses"),
            Self::Silence {
                peer: Some(peer),
                silent_for,
            } => write!(f, "no advertisement of {peer} for {silent_for:.3?}"),
            Self::Silence {
                peer: None,
                silent_for,
            } => write!(f, "no advertisement of anybody for {silent_for:.3?}"),
            Self::Preempted { peer, own } => write!(f, "its priority {own} is better than {peer}"),
            Self::Resignation { address } => write!(f, "{address} left with priority 0"),
            Self::Yielded { peer, own } => {
                write!(f, "{peer} is better than its priority {own}")
            }
            Self::Late { silent_for } => write!(
                f,
                "it was not run for {silent_for:.3?}, so another must have taken over"
            ),
            Self::ObjectRemoved { object } => write!(f, "somebody took {object} away"),
            Self::Retry => f.write_str("it tries again with its addresses"),
            Self::Fault(fault) => write!(f, "{fault}"),
            Self::Recovered => f.write_str("nothing is broken any more"),
            Self::Group => f.write_str("its sync group moves"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(object) => write!(f, "{object} fails"),
            Self::NoSource => f.write_str("there is no address to send from"),
            Self::Group => f.write_str("another member of its sync group is in Fault"),
            Self::Configuration(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for RemovedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { address, interface } => write!(f, "{address} of {interface}"),
            Self::Route => f.write_str("a virtual route or rule"),
        }
    }
}
