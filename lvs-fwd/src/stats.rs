//! What happened to frames. No packet is lost without a counted reason.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a claimed packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// Transport header missing or cut short, or IP header checksum wrong.
    Malformed,
    /// The sender's address can't be one: loopback, multicast, broadcast, unspecified, or of an IPv6 link alone.
    MartianSource,
    /// The balancer said so; its own reasons are counted beside.
    Balancer,
    /// The balancer refused it; the client is told.
    Rejected,
    /// The balancer gave no verdict.
    NoVerdict,
    /// The verdict names an address of another family than the packet's without a tunnel, or a real server that is a
    /// loopback address or another host's on an IPv6 link.
    BadVerdict,
    /// No route to the next hop; the sender is told.
    NoRoute,
    /// A route says to discard it.
    Blackhole,
    /// A route forbids it; the sender is told.
    Prohibited,
    /// The route leaves by an interface that is no port.
    NoPort,
    /// A reply of no connection, and the kernel would not route it either.
    ForwardingOff,
    /// Hops used up; the sender is told.
    TimeExceeded,
    /// Does not fit the link and must not be fragmented; the sender is told. Also a super-packet whose
    /// datagrams don't fit, and what is too long for a tunnel.
    TooBig,
    /// Held for a neighbour, and pushed out by later frames.
    HoldOverflow,
    /// Held for a neighbour that did not answer; the sender is told.
    NeighbourFailed,
    /// The hand-off queue of its worker was full.
    HandoffOverflow,
    /// For the host, but there is no way into it.
    NoHost,
    /// To be sent through a tunnel, and no interface has an address to send it from.
    NoSource,
    /// A fragment that lies over another one of its datagram, or is there twice.
    FragmentOverlap,
    /// A fragment that came before others of its datagram, with no room to wait.
    FragmentLost,
    /// A fragment of a datagram of which others did not come in time.
    FragmentsIncomplete,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 21] = [
        Self::Malformed,
        Self::MartianSource,
        Self::Balancer,
        Self::Rejected,
        Self::NoVerdict,
        Self::BadVerdict,
        Self::NoRoute,
        Self::Blackhole,
        Self::Prohibited,
        Self::NoPort,
        Self::ForwardingOff,
        Self::TimeExceeded,
        Self::TooBig,
        Self::HoldOverflow,
        Self::NeighbourFailed,
        Self::HandoffOverflow,
        Self::NoHost,
        Self::NoSource,
        Self::FragmentOverlap,
        Self::FragmentLost,
        Self::FragmentsIncomplete,
    ];

    /// A name for logs and listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::MartianSource => "martian-source",
            Self::Balancer => "balancer",
            Self::Rejected => "rejected",
            Self::NoVerdict => "no-verdict",
            Self::BadVerdict => "bad-verdict",
            Self::NoRoute => "no-route",
            Self::Blackhole => "blackhole",
            Self::Prohibited => "prohibited",
            Self::NoPort => "no-port",
            Self::ForwardingOff => "forwarding-off",
            Self::TimeExceeded => "time-exceeded",
            Self::TooBig => "too-big",
            Self::HoldOverflow => "hold-overflow",
            Self::NeighbourFailed => "neighbour-failed",
            Self::HandoffOverflow => "handoff-overflow",
            Self::NoHost => "no-host",
            Self::NoSource => "no-source",
            Self::FragmentOverlap => "fragment-overlap",
            Self::FragmentLost => "fragment-lost",
            Self::FragmentsIncomplete => "fragments-incomplete",
        }
    }
}

/// Why a frame was left alone: it is not claimed, and the host has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeftReason {
    /// Broadcast, multicast, or addressed to another host.
    NotToUs,
    /// Sent by one of our own ports.
    OwnFrame,
    /// Belongs to a VLAN.
    Vlan,
    /// Neither IPv4 nor IPv6, or not parseable.
    NotIp,
    /// IPv6 extension headers that are not followed: a routing header with segments left, or too many.
    Extensions,
    /// Part of a datagram that is not of a service's protocol and address.
    Fragment,
    /// A protocol that is not balanced, nor an ICMP error about a packet of a service.
    OtherProtocol,
    /// To no virtual service and from no NAT real server.
    NotClaimed,
}

impl LeftReason {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::NotToUs,
        Self::OwnFrame,
        Self::Vlan,
        Self::NotIp,
        Self::Extensions,
        Self::Fragment,
        Self::OtherProtocol,
        Self::NotClaimed,
    ];
}

/// What else is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// Frames given to the engine by ports and host.
    Received,
    /// Claimed packets towards real servers.
    Inbound,
    /// Claimed packets from real servers.
    Outbound,
    /// Packets handed to the worker that owns them.
    HandedOver,
    /// Packets taken over from other workers.
    TakenOver,
    /// Frames given out to be sent.
    Transmitted,
    /// Packets given to the host.
    ToHost,
    /// Frames held for a neighbour.
    Held,
    /// Held frames sent after the neighbour answered.
    Released,
    /// Packets routed without a connection.
    Routed,
    /// Packets cut into fragments.
    Fragmented,
    /// Super-packets cut into segments.
    Segmented,
    /// Packets wrapped for a tunnel.
    Encapsulated,
    /// TCP segments whose numbers or text were changed for the balancer.
    Edited,
    /// Clients that were named to their server in a TCP option (TOA).
    ClientsNamed,
    /// Clients that could not be named, for want of room.
    ClientsNotNamed,
    /// Claimed fragments.
    Fragments,
    /// Claimed fragments that waited for others of their datagram.
    FragmentsHeld,
    /// Datagrams put together from their fragments.
    Reassembled,
    /// Claimed ICMP errors from others.
    IcmpReceived,
    /// ICMP errors about packets of tunnels.
    TunnelErrors,
    /// ICMP errors sent.
    IcmpSent,
    /// TCP resets sent in the host's place.
    ResetSent,
    /// ICMP errors not sent because of the rate limits or because none may be sent about the packet.
    IcmpSuppressed,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 24] = [
        Self::Received,
        Self::Inbound,
        Self::Outbound,
        Self::HandedOver,
        Self::TakenOver,
        Self::Transmitted,
        Self::ToHost,
        Self::Held,
        Self::Released,
        Self::Routed,
        Self::Fragmented,
        Self::Segmented,
        Self::Encapsulated,
        Self::Edited,
        Self::ClientsNamed,
        Self::ClientsNotNamed,
        Self::Fragments,
        Self::FragmentsHeld,
        Self::Reassembled,
        Self::IcmpReceived,
        Self::TunnelErrors,
        Self::IcmpSent,
        Self::ResetSent,
        Self::IcmpSuppressed,
    ];
}

/// Counters of one worker, written by it alone and readable from any thread.
///
/// Each counter is exact; counters read together need not belong to one moment.
#[derive(Debug)]
#[repr(align(128))]
pub struct Counters {
    events: [AtomicU64; Event::ALL.len()],
    drops: [AtomicU64; DropReason::ALL.len()],
    left: [AtomicU64; LeftReason::ALL.len()],
    balancer: [AtomicU64; BALANCER_REASONS],
}

impl Counters {
    /// All zero.
    pub fn new() -> Self {
        Self {
            events: zeros(),
            drops: zeros(),
            left: zeros(),
            balancer: zeros(),
        }
    }

    /// How often something happened.
    pub fn events(&self, event: Event) -> u64 {
        self.events[event as usize].load(Ordering::Relaxed)
    }

    /// How many packets were dropped for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].load(Ordering::Relaxed)
    }

    /// How many frames were left alone for this reason.
    pub fn left(&self, reason: LeftReason) -> u64 {
        self.left[reason as usize].load(Ordering::Relaxed)
    }

    /// How many packets the balancer dropped for this reason of its own; 31 also stands for all above it.
    pub fn balancer_drops(&self, reason: u8) -> u64 {
        self.balancer[usize::from(reason).min(BALANCER_REASONS - 1)].load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn count(&self, event: Event, by: usize) {
        add(&self.events[event as usize], by);
    }

    #[inline]
    pub(crate) fn count_drop(&self, reason: DropReason, by: usize) {
        add(&self.drops[reason as usize], by);
    }

    #[inline]
    pub(crate) fn count_left(&self, reason: LeftReason) {
        add(&self.left[reason as usize], 1);
    }

    #[inline]
    pub(crate) fn count_balancer_drop(&self, reason: u8) {
        self.count_drop(DropReason::Balancer, 1);
        add(
            &self.balancer[usize::from(reason).min(BALANCER_REASONS - 1)],
            1,
        );
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

/// There is one writer, so no locked instruction is needed.
#[inline]
fn add(counter: &AtomicU64, by: usize) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(by as u64),
        Ordering::Relaxed,
    );
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

const BALANCER_REASONS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_and_a_name_of_its_own() {
        let counters = Counters::new();
        for (at, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
            counters.count_drop(reason, at + 1);
        }
        for (at, reason) in LeftReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
        for (at, event) in Event::ALL.into_iter().enumerate() {
            assert_eq!(event as usize, at);
        }
        let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
        assert_eq!(counters.drops(DropReason::NoHost), 17);
        counters.count_balancer_drop(200);
        assert_eq!(counters.balancer_drops(31), 1);
        assert_eq!(counters.balancer_drops(255), 1);
    }
}
