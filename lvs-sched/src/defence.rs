//! Defence against floods: who is thinned out, and by chance of whom.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering::Relaxed};

use crate::time::{Nanos, seconds};
use crate::{Defence, Tunables};

/// What the defences of a director share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Counts down to the next packet that is dropped.
    packets: AtomicI64,
    /// Count down to the next connection that is ended, by its number of packets less one.
    entries: [AtomicU32; THINNED as usize],
}

impl Shared {
    /// Whether a packet that would open a connection is dropped, at a rate of one in `rate`.
    pub(crate) fn drops_packet(&self, rate: i64) -> bool {
        if rate == 0 {
            return false;
        }
        let step = |left: i64| {
            let left = left.saturating_sub(1);
            Some(if left <= 0 { rate } else { left })
        };
        let before = self.packets.fetch_update(Relaxed, Relaxed, step);
        before.is_ok_and(|before| before <= 1)
    }

    /// Whether [`drops_packet`](Self::drops_packet) would say yes to the next packet.
    pub(crate) fn would_drop_packet(&self, rate: i64) -> bool {
        rate != 0 && self.packets.load(Relaxed) <= 1
    }

    pub(crate) fn restart(&self, rate: i64) {
        self.packets.store(rate, Relaxed);
    }

    /// Whether an idle connection with so many packets is ended: each of those with one packet,
    /// every eighth of those with eight, none with more.
    pub(crate) fn thins(&self, packets: u32, idle: Nanos) -> bool {
        if idle < SPARED || packets == 0 || packets > THINNED {
            return false;
        }
        let step = |left: u32| Some(if left <= 1 { packets } else { left - 1 });
        let before = self.entries[packets as usize - 1].fetch_update(Relaxed, Relaxed, step);
        before.is_ok_and(|before| before <= 1)
    }
}

/// What an evaluation finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evaluation {
    pub(crate) drop_entry: Defence,
    pub(crate) drop_packet: Defence,
    pub(crate) secure_tcp: Defence,
    /// One packet in so many is dropped; 0 = none.
    pub(crate) rate: i64,
    /// Whether the countdown starts again.
    pub(crate) restarts: bool,
}

/// Judges the modes by the free pages.
pub(crate) fn evaluate(tunables: &Tunables, available: u64) -> Evaluation {
    let threshold = u64::try_from(tunables.amemthresh).unwrap_or(0);
    let low = available < threshold;
    let drop_packet = tunables.drop_packet.judged(low);
    let rate = match drop_packet {
        Defence::Off | Defence::Automatic => 0,
        Defence::AutomaticActive => (threshold / (threshold - available)) as i64,
        Defence::Always => i64::from(tunables.am_droprate),
    };
    Evaluation {
        drop_entry: tunables.drop_entry.judged(low),
        drop_packet,
        secure_tcp: tunables.secure_tcp.judged(low),
        rate,
        restarts: drop_packet == Defence::AutomaticActive,
    }
}

/// Whether any defence may act, now or later.
pub(crate) fn is_on(tunables: &Tunables) -> bool {
    [
        tunables.drop_entry,
        tunables.drop_packet,
        tunables.secure_tcp,
    ]
    .iter()
    .any(|mode| *mode != Defence::Off)
}

/// A sequence of pseudo-random numbers from a seed (SplitMix64).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (((z >> 32) * u64::from(bound)) >> 32) as u32
    }
}

/// A sample of 1/32 of what there is, once a second while `drop_entry` is active, in steps.
#[derive(Debug, Default)]
pub(crate) struct Sampling {
    /// When the next sample begins; 0 if the defence just came up.
    next: Nanos,
    /// Draws of the present one that are left.
    left: u32,
}

impl Sampling {
    /// How many draws to make now, of a population of `places`.
    pub(crate) fn step(&mut self, now: Nanos, places: u32) -> u32 {
        if now >= self.next {
            self.left = places.div_ceil(SAMPLE);
            self.next = now + PERIOD;
        }
        let draws = self.left.min(STEP);
        self.left -= draws;
        draws
    }

    /// When to ask again.
    pub(crate) fn next(&self, now: Nanos) -> Nanos {
        if self.left > 0 {
            now + PAUSE
        } else {
            self.next
        }
    }

    /// Whether a sample is under way.
    pub(crate) fn is_pending(&self) -> bool {
        self.left > 0
    }

    pub(crate) fn stop(&mut self) {
        *self = Self::default();
    }
}

/// Between two evaluations and two samples.
pub(crate) const PERIOD: Nanos = seconds(1);
/// Between two steps of one task.
pub(crate) const PAUSE: Nanos = 1_000_000;
/// Entries that one step looks at.
pub(crate) const STEP: u32 = 1024;
const SAMPLE: u32 = 32;
const SPARED: Nanos = seconds(60);
/// Connections with more packets than this are never thinned out.
const THINNED: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_rates_follow_the_table() {
        let tunables = Tunables {
            drop_packet: Defence::Automatic,
            ..Tunables::default()
        };
        for (available, rate) in [
            (0, 1),
            (100, 1),
            (512, 2),
            (768, 4),
            (1000, 42),
            (1023, 1024),
        ] {
            let evaluation = evaluate(&tunables, available);
            assert_eq!(evaluation.rate, rate, "{available}");
            assert_eq!(evaluation.drop_packet, Defence::AutomaticActive);
        }
        let evaluation = evaluate(&tunables, 1024);
        assert_eq!(
            (evaluation.rate, evaluation.drop_packet),
            (0, Defence::Automatic)
        );
        let negative = Tunables {
            amemthresh: -1,
            ..tunables
        };
        assert_eq!(evaluate(&negative, 0).drop_packet, Defence::Automatic);
    }

    #[test]
    fn the_first_and_every_nth_packet_is_dropped() {
        let dropped = |rate| {
            let shared = Shared::default();
            (1..=25).filter(|_| shared.drops_packet(rate)).count()
        };
        assert_eq!(
            [dropped(0), dropped(10), dropped(1), dropped(-3)],
            [0, 3, 25, 25]
        );
        let shared = Shared::default();
        let first: Vec<_> = (1..=25).filter(|_| shared.drops_packet(10)).collect();
        assert_eq!(first, [1, 11, 21]);
        shared.restart(10);
        assert_eq!((1..=9).filter(|_| shared.drops_packet(10)).count(), 0);
        assert!(shared.drops_packet(10));
    }

    #[test]
    fn idle_connections_are_thinned_by_their_packets() {
        let shared = Shared::default();
        let ended = |packets| {
            (1..=17)
                .filter(|_| shared.thins(packets, SPARED))
                .collect::<Vec<_>>()
        };
        assert_eq!(ended(1).len(), 17);
        assert_eq!(ended(8), [1, 9, 17]);
        assert_eq!(ended(3), [1, 4, 7, 10, 13, 16]);
        assert_eq!((ended(0).len(), ended(9).len()), (0, 0));
        assert!(!shared.thins(1, SPARED - 1));
    }

    #[test]
    fn samples_come_in_bounded_steps() {
        let mut sampling = Sampling::default();
        let mut draws = Vec::new();
        let mut now = 0;
        while now < PERIOD {
            draws.push(sampling.step(now, 100_000));
            now = sampling.next(now);
        }
        assert_eq!(draws, [1024, 1024, 1024, 53]);
        assert_eq!(sampling.step(now, 31), 1);
    }
}
