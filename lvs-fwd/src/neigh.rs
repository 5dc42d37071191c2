//! Frames whose next hop has no known hardware address wait here, and the kernel is asked to find it.
//!
//! A sans-IO machine: frames and neighbour tables go in; resolve commands, released frames and one deadline
//! come out. After any `&mut` call drain [`poll_command`](Holding::poll_command),
//! [`poll_released`](Holding::poll_released) and [`poll_failed`](Holding::poll_failed), then read [`poll_timeout`](Holding::poll_timeout).
//!
//! Everything is bounded: frames of one hop, frames in all, the number of hops remembered. Who comes too late
//! for the bound pushes out the oldest frame of its hop, as the kernel does.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::frame::Frame;
use crate::route::{Hop, NeighbourState, NeighbourTable};
use crate::view::PortId;

/// Bounds and times of a [`Holding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldingConfig {
    /// Frames that wait for one hop at most. 64 by default.
    pub per_hop: usize,
    /// Frames that wait in all. 1024 by default.
    pub total: usize,
    /// Bytes of all frames that wait at most. 4 MiB by default: a super-packet has up to 64 KiB.
    pub bytes: usize,
    /// How long frames wait for an answer: three seconds by default, in which the kernel asks three times.
    pub patience: Duration,
    /// Least time between two commands for one hop that does not answer. One second by default.
    pub retry: Duration,
    /// Least time between two commands for one hop that is only stale. Five seconds by default.
    pub reprobe: Duration,
}

impl Default for HoldingConfig {
    fn default() -> Self {
        Self {
            per_hop: 64,
            total: 1024,
            bytes: 4 << 20,
            patience: Duration::from_secs(3),
            retry: Duration::from_secs(1),
            reprobe: Duration::from_secs(5),
        }
    }
}

/// The machine.
#[derive(Debug)]
pub struct Holding {
    config: HoldingConfig,
    waiting: BTreeMap<Hop, Waiting>,
    held: usize,
    bytes: usize,
    /// When hops were last asked for while stale.
    probed: BTreeMap<Hop, Instant>,
    commands: VecDeque<Hop>,
    released: VecDeque<Released>,
    failed: VecDeque<Original>,
}

/// A frame that may go.
#[derive(Debug)]
pub struct Released {
    /// Where to.
    pub port: PortId,
    /// To which hardware address.
    pub mac: [u8; 6],
    /// The frame; its Ethernet header is not written yet.
    pub frame: Frame,
}

/// What its sender is told about if a frame's next hop does not answer: the packet as it came, and not as it would have
/// been sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// Who tells it.
    pub teller: IpAddr,
    /// The packet's first bytes, from its IP header on.
    pub packet: Vec<u8>,
}

#[derive(Debug)]
struct Held {
    port: PortId,
    frame: Frame,
    original: Option<Original>,
}

#[derive(Debug)]
struct Waiting {
    frames: VecDeque<Held>,
    since: Instant,
    asked: Instant,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.frames.iter().map(|held| held.frame.len()).sum()
    }
}

impl Holding {
    /// An empty one.
    pub fn new(config: HoldingConfig) -> Self {
        Self {
            config,
            waiting: BTreeMap::new(),
            held: 0,
            bytes: 0,
            probed: BTreeMap::new(),
            commands: VecDeque::new(),
            released: VecDeque::new(),
            failed: VecDeque::new(),
        }
    }

    /// Takes a frame that goes to an unresolved hop; `original` is what its sender is told about in the end. Returns how
    /// many frames were dropped for it, possibly the frame itself.
    pub fn hold(
        &mut self,
        now: Instant,
        hop: Hop,
        port: PortId,
        frame: Frame,
        original: Option<Original>,
    ) -> usize {
        let config = &self.config;
        let waiting = match self.waiting.get_mut(&hop) {
            Some(waiting) => waiting,
            None if self.held >= config.total || config.per_hop == 0 => return 1,
            None => {
                self.commands.push_back(hop);
                self.waiting.entry(hop).or_insert(Waiting {
                    frames: VecDeque::new(),
                    since: now,
                    asked: now,
                })
            }
        };
        let mut dropped = 0;
        while waiting.frames.len() >= config.per_hop
            || self.held >= config.total
            || self.bytes + frame.len() > config.bytes
        {
            dropped += 1;
            let Some(Held { frame: oldest, .. }) = waiting.frames.pop_front() else {
                // Others have all the room.
                return dropped;
            };
            self.held -= 1;
            self.bytes -= oldest.len();
        }
        self.held += 1;
        self.bytes += frame.len();
        waiting.frames.push_back(Held {
            port,
            frame: frame.into_owned(),
            original,
        });
        self.check_invariants();
        dropped
    }

    /// A stale neighbour was used: asks for it, unless that was done lately. Returns when asking makes sense
    /// again, so that the caller need not come earlier.
    pub fn handle_stale(&mut self, now: Instant, hop: Hop) -> Instant {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < self.config.reprobe;
        if let Some(at) = self.probed.get(&hop).filter(|at| recent(at)) {
            return *at + self.config.reprobe;
        }
        if self.probed.len() >= MAX_PROBED {
            self.probed.retain(|_, at| recent(at));
        }
        // Too many hops at once: this one has its turn after others' times are over.
        if self.probed.len() < MAX_PROBED {
            self.probed.insert(hop, now);
            self.commands.push_back(hop);
        }
        now + self.config.reprobe
    }

    /// The neighbours may have changed: releases frames whose hop is known now, and drops those whose hop
    /// was asked for and did not answer. Returns how many were dropped.
    pub fn handle_neighbours(&mut self, now: Instant, neighbours: &NeighbourTable) -> usize {
        let (released, held, bytes) = (&mut self.released, &mut self.held, &mut self.bytes);
        let originals = &mut self.failed;
        let mut dropped = 0;
        self.waiting.retain(|hop, waiting| {
            let Some(neighbour) = neighbours.lookup(hop) else {
                return true;
            };
            if neighbour.state.is_usable() {
                *held -= waiting.frames.len();
                *bytes -= waiting.bytes();
                released.extend(waiting.frames.drain(..).map(|held| Released {
                    port: held.port,
                    mac: neighbour.mac,
                    frame: held.frame,
                }));
                return false;
            }
            // An older failure stays in the table while our own request is under way; one that is still
            // there after the first answer was due is our own.
            let failed = neighbour.state == NeighbourState::Failed
                && now.saturating_duration_since(waiting.since) >= self.config.retry;
            if failed {
                *held -= waiting.frames.len();
                *bytes -= waiting.bytes();
                dropped += waiting.frames.len();
                originals.extend(waiting.frames.drain(..).filter_map(|held| held.original));
            }
            !failed
        });
        self.check_invariants();
        dropped
    }

    /// Asks again for hops that have not answered, and drops frames that have waited too long. Returns how
    /// many.
    pub fn handle_timeout(&mut self, now: Instant) -> usize {
        let (commands, held, bytes) = (&mut self.commands, &mut self.held, &mut self.bytes);
        let (config, originals) = (&self.config, &mut self.failed);
        let mut dropped = 0;
        self.waiting.retain(|hop, waiting| {
            if now.saturating_duration_since(waiting.since) >= config.patience {
                *held -= waiting.frames.len();
                *bytes -= waiting.bytes();
                dropped += waiting.frames.len();
                originals.extend(waiting.frames.drain(..).filter_map(|held| held.original));
                return false;
            }
            if now.saturating_duration_since(waiting.asked) >= config.retry {
                waiting.asked = now;
                commands.push_back(*hop);
            }
            true
        });
        self.check_invariants();
        debug_assert!(
            self.poll_timeout().is_none_or(|at| at > now),
            "deadlines move forward"
        );
        dropped
    }

    /// When to call [`handle_timeout`](Self::handle_timeout). Costs a look at each waiting hop.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |waiting: &Waiting| {
            (waiting.since + self.config.patience).min(waiting.asked + self.config.retry)
        };
        self.waiting.values().map(due).min()
    }

    /// The next neighbour that the kernel must be asked to resolve.
    pub fn poll_command(&mut self) -> Option<Hop> {
        self.commands.pop_front()
    }

    /// The next frame that may go.
    pub fn poll_released(&mut self) -> Option<Released> {
        self.released.pop_front()
    }

    /// What the next sender is to be told about, whose frame was dropped because its hop did not answer.
    pub fn poll_failed(&mut self) -> Option<Original> {
        self.failed.pop_front()
    }

    /// Frames that wait.
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    fn check_invariants(&self) {
        debug_assert_eq!(
            self.held,
            self.waiting
                .values()
                .map(|waiting| waiting.frames.len())
                .sum::<usize>()
        );
        debug_assert_eq!(
            self.bytes,
            self.waiting.values().map(Waiting::bytes).sum::<usize>()
        );
        debug_assert!(self.held <= self.config.total && self.bytes <= self.config.bytes);
    }
}

const MAX_PROBED: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Neighbour;

    const PORT: PortId = PortId(0);

    fn hop(last: u8) -> Hop {
        Hop {
            ifindex: 2,
            addr: [10, 0, 0, last].into(),
        }
    }

    fn table(last: u8, state: NeighbourState) -> NeighbourTable {
        let mut table = NeighbourTable::new();
        table.insert(
            hop(last),
            Neighbour {
                mac: [2, 0, 0, 0, 0, last],
                state,
            },
        );
        table
    }

    fn commands(holding: &mut Holding) -> usize {
        std::iter::from_fn(|| holding.poll_command()).count()
    }

    fn released(holding: &mut Holding) -> Vec<u8> {
        std::iter::from_fn(|| holding.poll_released())
            .map(|out| out.frame.bytes()[0])
            .collect()
    }

    #[test]
    fn one_request_for_many_frames_and_release_in_order() {
        let now = Instant::now();
        let mut holding = Holding::new(HoldingConfig::default());
        for n in 0..3 {
            assert_eq!(
                holding.hold(now, hop(1), PORT, Frame::from_bytes(&[n]), None),
                0
            );
        }
        assert_eq!(commands(&mut holding), 1);
        assert_eq!(
            holding.handle_neighbours(now, &table(2, NeighbourState::Reachable)),
            0
        );
        assert_eq!(holding.len(), 3);
        holding.handle_neighbours(now, &table(1, NeighbourState::Stale));
        assert_eq!(released(&mut holding), [0, 1, 2]);
        assert!(holding.is_empty());
        assert_eq!(holding.poll_timeout(), None);
    }

    #[test]
    fn a_full_hop_loses_its_oldest_and_a_full_house_takes_no_new_hop() {
        let now = Instant::now();
        let config = HoldingConfig {
            per_hop: 2,
            total: 3,
            ..HoldingConfig::default()
        };
        let mut holding = Holding::new(config);
        assert_eq!(
            (0..3)
                .map(|n| holding.hold(now, hop(1), PORT, Frame::from_bytes(&[n]), None))
                .sum::<usize>(),
            1
        );
        assert_eq!(
            holding.hold(now, hop(2), PORT, Frame::from_bytes(&[9]), None),
            0
        );
        assert_eq!(
            holding.hold(now, hop(3), PORT, Frame::from_bytes(&[9]), None),
            1
        );
        assert_eq!(
            holding.hold(now, hop(2), PORT, Frame::from_bytes(&[8]), None),
            1
        );
        holding.handle_neighbours(now, &table(1, NeighbourState::Reachable));
        assert_eq!(released(&mut holding), [1, 2]);
        holding.handle_neighbours(now, &table(2, NeighbourState::Reachable));
        assert_eq!(released(&mut holding), [8]);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let now = Instant::now();
        let config = HoldingConfig {
            bytes: 10,
            ..HoldingConfig::default()
        };
        let mut holding = Holding::new(config);
        assert_eq!(
            holding.hold(now, hop(1), PORT, Frame::from_bytes(&[1; 4]), None),
            0
        );
        assert_eq!(
            holding.hold(now, hop(1), PORT, Frame::from_bytes(&[2; 4]), None),
            0
        );
        assert_eq!(
            holding.hold(now, hop(2), PORT, Frame::from_bytes(&[3; 4]), None),
            1,
            "not at others' cost"
        );
        assert_eq!(
            holding.hold(now, hop(1), PORT, Frame::from_bytes(&[4; 9]), None),
            2
        );
        assert_eq!(
            holding.hold(now, hop(1), PORT, Frame::from_bytes(&[5; 11]), None),
            2,
            "fits nowhere"
        );
        assert!(holding.is_empty());
    }

    #[test]
    fn silence_is_asked_thrice_and_then_dropped() {
        let start = Instant::now();
        let mut holding = Holding::new(HoldingConfig::default());
        holding.hold(start, hop(1), PORT, Frame::from_bytes(&[1]), None);
        let (mut asked, mut dropped) = (commands(&mut holding), 0);
        while let Some(at) = holding.poll_timeout() {
            dropped += holding.handle_timeout(at);
            asked += commands(&mut holding);
            assert!(at <= start + Duration::from_secs(3));
        }
        assert_eq!((asked, dropped), (3, 1));
    }

    #[test]
    fn an_old_failure_does_not_drop_what_has_just_come() {
        let start = Instant::now();
        let mut holding = Holding::new(HoldingConfig::default());
        holding.hold(start, hop(1), PORT, Frame::from_bytes(&[1]), None);
        let failed = table(1, NeighbourState::Failed);
        assert_eq!(holding.handle_neighbours(start, &failed), 0);
        assert_eq!(
            holding.handle_neighbours(start + Duration::from_secs(2), &failed),
            1
        );
        assert!(holding.is_empty());
    }

    #[test]
    fn a_stale_neighbour_is_asked_for_every_few_seconds_at_most() {
        let start = Instant::now();
        let mut holding = Holding::new(HoldingConfig::default());
        let next = holding.handle_stale(start, hop(1));
        assert_eq!(next, start + Duration::from_secs(5));
        assert_eq!(
            holding.handle_stale(start + Duration::from_secs(1), hop(1)),
            next
        );
        assert_eq!(commands(&mut holding), 1);
        holding.handle_stale(next, hop(1));
        assert_eq!(commands(&mut holding), 1);
    }
}
