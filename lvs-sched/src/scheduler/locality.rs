//! What `lblc` and `lblcr` share: a cache by destination address, its ageing, and their idea of an
//! overburdened server.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hash::{fold, h32};
use super::ranked::{Ranked, Ratio, Rule};
use super::{Request, Servers};
use crate::RealServer;
use crate::real_server::Load;

/// The rule of `wlc`; a server is idle while it has fewer active connections than half its weight.
#[derive(Debug)]
pub(super) struct Rank;

impl Rule for Rank {
    fn rank(load: Load, weight: u32) -> Ratio {
        Ratio::new(load.cost(), weight)
    }

    fn is_idle(load: Load, weight: u32) -> bool {
        u64::from(load.active()) * 2 < u64::from(weight)
    }
}

/// Whether a server has more active connections than its weight while another is idle.
pub(super) fn is_overburdened(
    ranked: &mut Ranked<Rank>,
    servers: &Servers,
    server: &RealServer,
) -> bool {
    server.active() > server.effective_weight().get() && ranked.idle(servers)
}

/// A cache's reference to a server, which keeps a removed one in the director's trash.
#[derive(Debug)]
pub(super) struct Cached(Arc<RealServer>);

impl Cached {
    pub(super) fn new(server: &Arc<RealServer>) -> Self {
        server.count_cached();
        Self(Arc::clone(server))
    }

    pub(super) fn is(&self, server: &Arc<RealServer>) -> bool {
        Arc::ptr_eq(&self.0, server)
    }

    /// Whether it is in its service and has a weight.
    pub(super) fn is_open(&self) -> bool {
        self.is_available() && !self.is_quiesced()
    }
}

impl std::ops::Deref for Cached {
    type Target = RealServer;

    fn deref(&self) -> &RealServer {
        &self.0
    }
}

impl Drop for Cached {
    fn drop(&mut self) {
        self.0.uncount_cached();
    }
}

/// Values by destination address, forgotten some time after their last use.
///
/// A clean-up is due every minute, the first one a minute after the first pick that has a time.
/// Those that were missed are made up for, each as of its own time, so answers do not depend on how
/// often somebody calls.
pub(super) struct Cache<V> {
    entries: BTreeMap<IpAddr, Entry<V>>,
    /// The addresses by bucket, which is the order of partial clean-ups.
    buckets: Vec<Vec<IpAddr>>,
    next: Option<Instant>,
    /// Runs to the next full clean-up, counted up.
    runs: u32,
    cursor: usize,
    life: Duration,
}

struct Entry<V> {
    value: V,
    used: Option<Instant>,
}

impl<V> Cache<V> {
    /// Makes up for clean-ups; called before each use.
    pub(super) fn advance(&mut self, request: &Request) {
        self.life = request.cache_life;
        if let Some(now) = request.now {
            self.next.get_or_insert(now + PERIOD);
            self.handle_timeout(now);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(next) = self.next.filter(|next| *next <= now) {
            if self.entries.is_empty() {
                let missed = now.duration_since(next).as_secs() / PERIOD.as_secs() + 1;
                self.runs =
                    ((u64::from(self.runs) - 1 + missed) % u64::from(FULL_EVERY)) as u32 + 1;
                self.next = Some(next + Duration::from_secs(missed * PERIOD.as_secs()));
                return;
            }
            self.clean(next);
            self.next = Some(next + PERIOD);
        }
    }

    /// The value that a pick with this request would find. It is not used by this.
    pub(super) fn peek(&mut self, request: &Request) -> Option<&V> {
        if let (Some(now), Some(_)) = (request.now, self.next) {
            // The clean-ups that are due would be made up for with the request's life.
            let life = std::mem::replace(&mut self.life, request.cache_life);
            self.handle_timeout(now);
            self.life = life;
        }
        self.entries
            .get(&request.destination.ip())
            .map(|entry| &entry.value)
    }

    /// The value for the packet's destination; it is used now.
    pub(super) fn find(&mut self, request: &Request) -> Option<&mut V> {
        let entry = self.entries.get_mut(&request.destination.ip())?;
        if request.now.is_some() {
            entry.used = request.now;
        }
        Some(&mut entry.value)
    }

    /// Adds a value, or replaces it. At the limit a new one is not kept.
    pub(super) fn store(&mut self, request: &Request, value: V) {
        let key = request.destination.ip();
        let used = request.now;
        if let Some(entry) = self.entries.get_mut(&key) {
            *entry = Entry { value, used };
        } else if self.entries.len() < LIMIT {
            self.entries.insert(key, Entry { value, used });
            self.buckets[bucket(key)].push(key);
        }
    }

    fn clean(&mut self, now: Instant) {
        if self.runs >= FULL_EVERY {
            self.runs = 1;
            self.sweep(now, self.life, usize::MAX);
        } else if self.entries.len() <= COMFORTABLE {
            self.runs += 1;
        } else {
            let goal = (self.entries.len() - COMFORTABLE) * 4 / 3;
            self.sweep(now, PARTIAL_AGE, goal.min(COMFORTABLE / 2));
        }
    }

    /// Goes round the buckets behind the cursor until `goal` entries of this age are gone.
    fn sweep(&mut self, now: Instant, age: Duration, goal: usize) {
        let mut left = goal;
        for _ in 0..BUCKETS {
            self.cursor = (self.cursor + 1) % BUCKETS;
            let entries = &mut self.entries;
            self.buckets[self.cursor].retain(|key| {
                let used = entries.get(key).and_then(|entry| entry.used);
                let old = used
                    .and_then(|used| used.checked_add(age))
                    .is_some_and(|end| now >= end);
                if old {
                    entries.remove(key);
                    left = left.saturating_sub(1);
                }
                !old
            });
            if left == 0 {
                break;
            }
        }
    }
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            buckets: vec![Vec::new(); BUCKETS],
            next: None,
            runs: 1,
            cursor: 0,
            life: super::CACHE_LIFE,
        }
    }
}

impl<V> fmt::Debug for Cache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

fn bucket(addr: IpAddr) -> usize {
    h32(fold(addr), 10)
}

const BUCKETS: usize = 1024;
const PERIOD: Duration = Duration::from_secs(60);
/// Above this many entries partial clean-ups begin.
const COMFORTABLE: usize = 16 * BUCKETS;
/// The kernel is bounded by its memory only.
const LIMIT: usize = 16 * COMFORTABLE;
const PARTIAL_AGE: Duration = Duration::from_secs(360);
const FULL_EVERY: u32 = 30;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn request(number: u32, now: Instant) -> Request {
        let client = SocketAddr::from(([10, 0, 0, 1], 1));
        Request::new(
            client,
            SocketAddr::new(std::net::Ipv4Addr::from_bits(number).into(), 80),
        )
        .at(now)
    }

    fn put(cache: &mut Cache<()>, number: u32, now: Instant) {
        let request = request(number, now);
        cache.advance(&request);
        cache.store(&request, ());
    }

    #[test]
    fn the_full_clean_up_comes_every_half_hour() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut cache = Cache::default();
        let mut first = request(1, start);
        first.cache_life = Duration::from_secs(1000);
        cache.advance(&first);
        cache.store(&first, ());
        cache.handle_timeout(at(30 * 60 - 1));
        assert_eq!(cache.entries.len(), 1);
        cache.handle_timeout(at(30 * 60));
        assert_eq!(cache.entries.len(), 0);
        // Used late: the next full clean-up leaves it, the one after takes it.
        first.now = Some(at(45 * 60));
        cache.advance(&first);
        cache.store(&first, ());
        cache.handle_timeout(at(60 * 60));
        assert_eq!(cache.entries.len(), 1);
        cache.handle_timeout(at(90 * 60));
        assert_eq!(cache.entries.len(), 0);
        // Nothing was missed while it was empty.
        cache.handle_timeout(at(1_000_000));
        assert_eq!(cache.runs, (1_000_000 / 60 % 30) as u32 + 1);
    }

    #[test]
    fn a_crowded_cache_forgets_what_was_not_used_for_six_minutes() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut cache = Cache::default();
        let total = COMFORTABLE as u32 + 3_000;
        (0..total).for_each(|number| put(&mut cache, number, start));
        cache.handle_timeout(at(359));
        assert_eq!(cache.entries.len(), total as usize);
        cache.handle_timeout(at(360));
        let left = cache.entries.len();
        // The goal is 4000; the bucket in which it is reached is emptied.
        let bucket = total as usize / BUCKETS + 2;
        assert!(
            (total as usize - 4_000 - bucket..=total as usize - 4_000).contains(&left),
            "{left}"
        );
        cache.handle_timeout(at(420));
        assert_eq!(cache.entries.len(), left, "comfortable again");
    }
}
