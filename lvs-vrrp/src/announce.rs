//! When the addresses are announced, and at what pace.

use crate::config::{InterfaceName, VirtualAddress};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Bursts of announcements of an Active router. It ends with the state that owns it.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// Rounds that are due, and how far the present one is.
    rounds: u32,
    next: usize,
    later: VecDeque<(Instant, u32)>,
    refresh: Option<(Instant, Duration, u32)>,
}

impl Schedule {
    /// A burst now.
    pub(crate) const fn begin(&mut self, rounds: u32) {
        self.rounds = self.rounds.saturating_add(rounds);
    }

    /// A burst at `due`. When many wait already the last is put off instead, so that a flood of causes stays one burst each
    /// now and then.
    pub(crate) fn begin_at(&mut self, due: Instant, rounds: u32) {
        if rounds == 0 {
            return;
        }
        if self.later.len() >= MAX_LATER {
            self.later.pop_back();
        }
        let at = self.later.partition_point(|(other, _)| *other <= due);
        self.later.insert(at, (due, rounds));
    }

    /// Forgets bursts that were to come later, but for refreshing.
    pub(crate) fn forget_later(&mut self) {
        self.later.clear();
    }

    /// Bursts every `period` from `first` on.
    pub(crate) const fn refresh(&mut self, first: Instant, period: Duration, rounds: u32) {
        self.refresh = Some((first, period, rounds));
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let later = self.later.front().map(|(due, _)| *due);
        let refresh = self.refresh.map(|(due, ..)| due);
        [later, refresh].into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, rounds)) = self.later.pop_front_if(|(due, _)| *due <= now) {
            self.begin(rounds);
        }
        if let Some((due, period, rounds)) = self.refresh
            && due <= now
        {
            self.begin(rounds);
            self.refresh = Some((next_after(due, period, now), period, rounds));
        }
    }

    /// Which of `count` addresses to announce next, if one is due.
    pub(crate) const fn next(&mut self, count: usize) -> Option<usize> {
        if self.rounds == 0 || count == 0 {
            self.rounds = 0;
            self.next = 0;
            return None;
        }
        let at = if self.next < count { self.next } else { 0 };
        self.next = at + 1;
        if self.next >= count {
            self.next = 0;
            self.rounds -= 1;
        }
        Some(at)
    }
}

/// `due` plus as many periods as make it later than `now`.
fn next_after(due: Instant, period: Duration, now: Instant) -> Instant {
    let next = due + period;
    if next > now { next } else { now + period }
}

const MAX_LATER: usize = 16;

/// Something to tell the link: this address is at this interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Announcement {
    /// The address: gratuitous ARP for IPv4, a neighbour advertisement for IPv6.
    pub address: IpAddr,
    /// Where.
    pub interface: InterfaceName,
}

/// Gaps between announcements on one interface. Zero: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pacing {
    /// Between gratuitous ARPs.
    pub arp: Duration,
    /// Between neighbour advertisements.
    pub na: Duration,
}

/// Holds announcements back so that no interface sends them faster than its switch bears: keepalived's `vrrp_garp_interval` and
/// `vrrp_gna_interval`. An address that waits already is not put in a second place; it is sent once more in its turn.
///
/// `K` says whose an announcement is, so that it can be taken back.
#[derive(Debug)]
pub struct Pacer<K> {
    default: Pacing,
    interfaces: BTreeMap<InterfaceName, Pacing>,
    lanes: BTreeMap<(InterfaceName, bool), Lane<K>>,
    ready: VecDeque<(K, Announcement)>,
}

#[derive(Debug)]
struct Lane<K> {
    next: Instant,
    waiting: VecDeque<(K, IpAddr, u32)>,
}

impl<K: Copy + PartialEq> Pacer<K> {
    /// Gaps for interfaces that are named, and for the others.
    #[must_use]
    pub const fn new(default: Pacing, interfaces: BTreeMap<InterfaceName, Pacing>) -> Self {
        Self {
            default,
            interfaces,
            lanes: BTreeMap::new(),
            ready: VecDeque::new(),
        }
    }

    /// Changes the gaps; what waits, waits on.
    pub fn set_pacing(&mut self, default: Pacing, interfaces: BTreeMap<InterfaceName, Pacing>) {
        self.default = default;
        self.interfaces = interfaces;
    }

    /// Takes an announcement.
    pub fn push(&mut self, now: Instant, key: K, announcement: Announcement) {
        let arp = announcement.address.is_ipv4();
        let gap = self.gap(&announcement.interface, arp);
        let lane = (announcement.interface.clone(), arp);
        if gap.is_zero() && !self.lanes.contains_key(&lane) {
            self.ready.push_back((key, announcement));
            return;
        }
        let lane = self.lanes.entry(lane).or_insert_with(|| Lane {
            next: now,
            waiting: VecDeque::new(),
        });
        if lane.waiting.is_empty() && lane.next <= now {
            lane.next = now + gap;
            self.ready.push_back((key, announcement));
            return;
        }
        let same = lane
            .waiting
            .iter_mut()
            .find(|(other, address, _)| *other == key && *address == announcement.address);
        match same {
            Some((_, _, pending)) => *pending = pending.saturating_add(1),
            None => lane.waiting.push_back((key, announcement.address, 1)),
        }
    }

    /// Forgets what waits of `key`.
    pub fn take_back(&mut self, key: K) {
        self.ready.retain(|(other, _)| *other != key);
        for lane in self.lanes.values_mut() {
            lane.waiting.retain(|(other, ..)| *other != key);
        }
    }

    /// Forgets what waits of `key` about addresses that are no longer set.
    pub fn take_back_addresses(&mut self, key: K, addresses: &[VirtualAddress]) {
        let gone = |interface: &InterfaceName, address: IpAddr| {
            addresses
                .iter()
                .any(|each| each.address == address && each.interface == *interface)
        };
        self.ready
            .retain(|(other, waiting)| *other != key || !gone(&waiting.interface, waiting.address));
        for ((interface, _), lane) in &mut self.lanes {
            lane.waiting
                .retain(|(other, address, _)| *other != key || !gone(interface, *address));
        }
    }

    /// Lets through what has waited long enough.
    pub fn handle_timeout(&mut self, now: Instant) {
        let (default, interfaces) = (self.default, &self.interfaces);
        for ((interface, arp), lane) in &mut self.lanes {
            if lane.next > now {
                continue;
            }
            let Some((key, address, pending)) = lane.waiting.pop_front() else {
                continue;
            };
            let pacing = interfaces.get(interface).copied().unwrap_or(default);
            let gap = if *arp { pacing.arp } else { pacing.na };
            lane.next = now + gap.max(Duration::from_micros(1));
            self.ready.push_back((
                key,
                Announcement {
                    address,
                    interface: interface.clone(),
                },
            ));
            if pending > 1 {
                lane.waiting.push_back((key, address, pending - 1));
            }
        }
        self.lanes
            .retain(|_, lane| !lane.waiting.is_empty() || lane.next > now);
    }

    /// The next announcement to send.
    pub fn poll(&mut self) -> Option<(K, Announcement)> {
        self.ready.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.lanes.values().filter(|lane| !lane.waiting.is_empty());
        waiting.map(|lane| lane.next).min()
    }

    fn gap(&self, interface: &InterfaceName, arp: bool) -> Duration {
        let pacing = self.interfaces.get(interface).copied();
        let pacing = pacing.unwrap_or(self.default);
        if arp { pacing.arp } else { pacing.na }
    }
}
