//! Traffic counters of servers, services and the whole director.

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

/// Running counters. They stand on a cache line of their own: each packet writes here, while the
/// server's weight and flags beside them are only read.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Counters {
    connections: AtomicU64,
    in_packets: AtomicU64,
    out_packets: AtomicU64,
    in_bytes: AtomicU64,
    out_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn count_connection(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_in(&self, length: u32) {
        self.in_packets.fetch_add(1, Relaxed);
        self.in_bytes.fetch_add(u64::from(length), Relaxed);
    }

    pub(crate) fn count_out(&self, length: u32) {
        self.out_packets.fetch_add(1, Relaxed);
        self.out_bytes.fetch_add(u64::from(length), Relaxed);
    }

    /// The sums since creation; zeroing does not change them.
    pub(crate) fn raw(&self) -> Stats {
        Stats {
            connections: self.connections.load(Relaxed),
            in_packets: self.in_packets.load(Relaxed),
            out_packets: self.out_packets.load(Relaxed),
            in_bytes: self.in_bytes.load(Relaxed),
            out_bytes: self.out_bytes.load(Relaxed),
        }
    }
}

/// The base that zeroing subtracts: counting stays a plain addition.
#[derive(Debug, Default)]
pub(crate) struct ZeroBase(Mutex<Stats>);

impl ZeroBase {
    pub(crate) fn read(&self, raw: Stats) -> Stats {
        raw.minus(*self.0.lock())
    }

    pub(crate) fn zero(&self, raw: Stats) {
        *self.0.lock() = raw;
    }
}

/// One worker's totals. Only that worker writes, so each count is a load and a store.
#[derive(Debug, Default)]
pub(crate) struct WorkerCounters {
    traffic: Counters,
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl WorkerCounters {
    pub(crate) fn count_connection(&self) {
        bump(&self.traffic.connections, 1);
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
        self.traffic.raw()
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize].load(Relaxed)
    }
}

fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}
