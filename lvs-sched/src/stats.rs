//! Traffic counters of servers, services and the whole director.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::DropReason;

/// A reading of traffic counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections scheduled; in one-packet mode each packet is one.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets from real servers.
    pub out_packets: u64,
    /// Bytes from clients, IP header included.
    pub in_bytes: u64,
    /// Bytes from real servers, IP header included.
    pub out_bytes: u64,
}

impl Stats {
    pub(crate) fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            connections: f(self.connections, other.connections),
            in_packets: f(self.in_packets, other.in_packets),
            out_packets: f(self.out_packets, other.out_packets),
            in_bytes: f(self.in_bytes, other.in_bytes),
            out_bytes: f(self.out_bytes, other.out_bytes),
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        self.zip(other, u64::wrapping_add)
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        self.zip(other, u64::wrapping_sub)
    }
}

/// Running counters of packets. They stand on a cache line of their own: each packet writes here, while what lies beside
/// them is only read.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counters {
    in_packets: AtomicU64,
    out_packets: AtomicU64,
    in_bytes: AtomicU64,
    out_bytes: AtomicU64,
}

impl Counters {
    /// The sums since creation, without connections.
    fn raw(&self) -> Stats {
        Stats {
            connections: 0,
            in_packets: self.in_packets.load(Relaxed),
            out_packets: self.out_packets.load(Relaxed),
            in_bytes: self.in_bytes.load(Relaxed),
            out_bytes: self.out_bytes.load(Relaxed),
        }
    }
}

/// A server's counters, which several workers write. Two locked additions take as long as all else that is done for a
/// packet of a known connection, so each worker that has a [`Shard`] counts in a part of its own, by a load and a store.
/// The others share one part.
#[derive(Debug, Default)]
pub(crate) struct ServerCounters {
    own: [OnceLock<Box<Counters>>; SHARDS],
    shared: Counters,
}

impl ServerCounters {
    #[inline]
    pub(crate) fn count_in(&self, worker: &WorkerCounters, length: u32) {
        match self.own_of(worker) {
            Some(own) => {
                bump(&own.in_packets, 1);
                bump(&own.in_bytes, u64::from(length));
            }
            None => {
                self.shared.in_packets.fetch_add(1, Relaxed);
                self.shared.in_bytes.fetch_add(u64::from(length), Relaxed);
            }
        }
    }

    #[inline]
    pub(crate) fn count_out(&self, worker: &WorkerCounters, length: u32) {
        match self.own_of(worker) {
            Some(own) => {
                bump(&own.out_packets, 1);
                bump(&own.out_bytes, u64::from(length));
            }
            None => {
                self.shared.out_packets.fetch_add(1, Relaxed);
                self.shared.out_bytes.fetch_add(u64::from(length), Relaxed);
            }
        }
    }

    /// The sums since creation, without connections.
    pub(crate) fn raw(&self) -> Stats {
        let own = self.own.iter().filter_map(OnceLock::get);
        own.fold(self.shared.raw(), |sum, own| sum.plus(own.raw()))
    }

    #[inline]
    fn own_of(&self, worker: &WorkerCounters) -> Option<&Counters> {
        let own = self.own.get(worker.shard.as_ref()?.0)?;
        Some(own.get_or_init(Box::default))
    }
}

/// A worker's part of all servers' counters; no other worker has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shard(usize);

/// Which parts have an owner.
#[derive(Debug, Default)]
pub(crate) struct Shards {
    taken: [bool; SHARDS],
}

impl Shards {
    /// One that nobody has.
    pub(crate) fn take(&mut self) -> Option<Shard> {
        let free = self.taken.iter().position(|taken| !taken)?;
        self.taken[free] = true;
        Some(Shard(free))
    }

    /// Its worker counts no more. What it has counted stays.
    pub(crate) fn give(&mut self, shard: &Shard) {
        self.taken[shard.0] = false;
    }
}

/// Workers that count for themselves; each part costs a server 16 bytes, and a cache line if its worker has packets for it.
const SHARDS: usize = 16;

/// Smoothed rates per second: an exponential average with weight 1/4 per period of two seconds, so
/// about the last eight seconds, in the kernel's own rounding. One connection in two seconds, for
/// ever, shows as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Connections.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets from real servers.
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes from real servers.
    pub out_bytes: u64,
}

/// The readings of one set of counters: counting itself stays a plain addition.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<Readings>);

#[derive(Debug, Default)]
struct Readings {
    /// What zeroing subtracts.
    base: Stats,
    /// The counters at the last estimation.
    last: Stats,
    /// Averages, scaled by 2^10 for counts and 2^5 for bytes.
    scaled: Stats,
    /// Whether anybody estimates; without, zeroing takes the present counters.
    estimated: bool,
}

impl Meter {
    pub(crate) fn read(&self, raw: Stats) -> Stats {
        raw.minus(self.0.lock().base)
    }

    pub(crate) fn rates(&self) -> Rates {
        let Stats {
            connections,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
        } = self.0.lock().scaled;
        let count = |scaled: u64| (scaled + 511) >> 10;
        let bytes = |scaled: u64| (scaled + 15) >> 5;
        Rates {
            connections: count(connections),
            in_packets: count(in_packets),
            out_packets: count(out_packets),
            in_bytes: bytes(in_bytes),
            out_bytes: bytes(out_bytes),
        }
    }

    /// The base becomes what the last estimation saw: traffic since then shows up afterwards.
    pub(crate) fn zero(&self, raw: Stats) {
        let mut readings = self.0.lock();
        if !readings.estimated {
            readings.last = raw;
        }
        readings.base = readings.last;
        readings.scaled = Stats::default();
    }

    /// Everything until now belongs to somebody else.
    pub(crate) fn start_over(&self, raw: Stats) {
        let mut readings = self.0.lock();
        (readings.base, readings.last) = (raw, raw);
        readings.scaled = Stats::default();
    }

    /// A period ends. Returns whether the averages are not at rest yet.
    pub(crate) fn estimate(&self, raw: Stats) -> bool {
        let mut readings = self.0.lock();
        let delta = raw.minus(readings.last);
        let smooth = |shift: u32| {
            move |average: u64, delta: u64| {
                // Both stay far from the sign bit, so the shift rounds towards minus infinity.
                let (average, sample) = (average as i64, (delta.min(1 << 50) << shift) as i64);
                (average + ((sample - average) >> 2)) as u64
            }
        };
        let (count, bytes) = (
            readings.scaled.zip(delta, smooth(9)),
            readings.scaled.zip(delta, smooth(4)),
        );
        readings.scaled = Stats {
            in_bytes: bytes.in_bytes,
            out_bytes: bytes.out_bytes,
            ..count
        };
        readings.last = raw;
        readings.estimated = true;
        readings.scaled != Stats::default()
    }
}

/// One worker's totals. Only that worker writes, so each count is a load and a store.
#[derive(Debug, Default)]
pub(crate) struct WorkerCounters {
    shard: Option<Shard>,
    connections: AtomicU64,
    traffic: Counters,
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl WorkerCounters {
    pub(crate) fn new(shard: Option<Shard>) -> Self {
        Self {
            shard,
            ..Self::default()
        }
    }

    pub(crate) fn shard(&self) -> Option<&Shard> {
        self.shard.as_ref()
    }

    pub(crate) fn count_connection(&self) {
        bump(&self.connections, 1);
    }

    pub(crate) fn count_in(&self, length: u32) {
        bump(&self.traffic.in_packets, 1);
        bump(&self.traffic.in_bytes, u64::from(length));
    }

    pub(crate) fn count_out(&self, length: u32) {
        bump(&self.traffic.out_packets, 1);
        bump(&self.traffic.out_bytes, u64::from(length));
    }

    pub(crate) fn count_drop(&self, reason: DropReason) {
        bump(&self.dropped[reason as usize], 1);
    }

    pub(crate) fn raw(&self) -> Stats {
        Stats {
            connections: self.connections.load(Relaxed),
            ..self.traffic.raw()
        }
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize].load(Relaxed)
    }
}

#[inline]
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_count_apart_or_together_and_nothing_is_lost() {
        let mut shards = Shards::default();
        let mut workers: Vec<WorkerCounters> = (0..SHARDS + 3)
            .map(|_| WorkerCounters::new(shards.take()))
            .collect();
        assert_eq!(shards.take(), None);
        let server = ServerCounters::default();
        for worker in &workers {
            server.count_in(worker, 100);
            server.count_out(worker, 40);
            server.count_out(worker, 2);
        }
        let all = (SHARDS + 3) as u64;
        let sum = Stats {
            connections: 0,
            in_packets: all,
            in_bytes: 100 * all,
            out_packets: 2 * all,
            out_bytes: 42 * all,
        };
        assert_eq!(server.raw(), sum);
        // One goes, another comes and counts on in its place.
        let gone = workers.remove(5);
        shards.give(gone.shard().unwrap());
        let next = WorkerCounters::new(shards.take());
        assert_eq!(next.shard(), gone.shard());
        server.count_in(&next, 1);
        assert_eq!(server.raw().in_packets, all + 1);
        assert_eq!(server.raw().in_bytes, 100 * all + 1);
    }

    fn connections(connections: u64) -> Stats {
        Stats {
            connections,
            ..Stats::default()
        }
    }

    #[test]
    fn rates_follow_the_worked_example() {
        let meter = Meter::default();
        let mut raw = Stats::default();
        let mut shown = Vec::new();
        for period in 0..14 {
            if period < 8 {
                raw.connections += 100;
            }
            meter.estimate(raw);
            shown.push(meter.rates().connections);
        }
        assert_eq!(
            shown,
            [12, 22, 29, 34, 38, 41, 43, 45, 34, 25, 19, 14, 11, 8]
        );

        let meter = Meter::default();
        let mut raw = Stats::default();
        let mut shown = Vec::new();
        for period in 0..7 {
            if period < 4 {
                raw.in_bytes += 20_000;
            }
            meter.estimate(raw);
            shown.push(meter.rates().in_bytes);
        }
        assert_eq!(shown, [2500, 4375, 5781, 6836, 5127, 3845, 2884]);
    }

    #[test]
    fn a_steady_half_shows_as_nothing_and_rates_come_to_rest() {
        let meter = Meter::default();
        for total in 1..100 {
            meter.estimate(connections(total));
        }
        assert_eq!(meter.rates().connections, 0);
        let left = (0..100)
            .take_while(|_| meter.estimate(connections(99)))
            .count();
        assert!(left < 40, "{left}");
    }

    #[test]
    fn zeroing_takes_the_last_estimation() {
        let meter = Meter::default();
        meter.estimate(connections(10));
        meter.zero(connections(13));
        assert_eq!(meter.read(connections(13)), connections(3));
        assert_eq!(meter.rates(), Rates::default());
        meter.estimate(connections(13));
        assert_eq!(meter.rates().connections, (3 * 128 + 511) >> 10);

        let alone = Meter::default();
        alone.zero(connections(13));
        assert_eq!(
            alone.read(connections(14)),
            connections(1),
            "nobody estimates"
        );
    }
}
