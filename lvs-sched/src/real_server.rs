//! Real servers: weight, thresholds, connection counts and the overload rule.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::atomic::{self, ArcSwapOption};
use crate::drain::Watch;
use crate::scheduler::Marks;
use crate::stats::{Meter, Rates, ServerCounters, Stats};
use crate::{Family, ForwardMethod};

/// A server's share of the load, `0..=2^31-1`. 0 means *quiesced*: no new connections, old ones
/// stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "u32", into = "u32"))]
pub struct Weight(u32);

impl Weight {
    /// Weight 0.
    pub const QUIESCED: Self = Self(0);
    /// Weight 1, the default.
    pub const ONE: Self = Self(1);
    /// The largest weight.
    pub const MAX: Self = Self(i32::MAX as u32);

    /// Checks the range.
    ///
    /// # Errors
    /// [`InvalidWeight`] if `weight` is larger than 2^31 − 1.
    pub const fn new(weight: u32) -> Result<Self, InvalidWeight> {
        if weight > Self::MAX.0 {
            Err(InvalidWeight(weight))
        } else {
            Ok(Self(weight))
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Weight {
    type Error = InvalidWeight;

    fn try_from(weight: u32) -> Result<Self, InvalidWeight> {
        Self::new(weight)
    }
}

impl From<Weight> for u32 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::ONE
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A weight above 2^31 − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidWeight(u32);

impl fmt::Display for InvalidWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "weight {} is not in 0..={}", self.0, Weight::MAX)
    }
}

impl std::error::Error for InvalidWeight {}

/// What an operator says about a real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
pub struct ServerConfig {
    /// Share of load.
    pub weight: Weight,
    /// How packets get there.
    pub method: ForwardMethod,
    /// Number of connections at which the server counts as overloaded; 0 = no limit.
    pub upper_threshold: u32,
    /// Number of connections below which it is no longer overloaded; 0 = three quarters of the
    /// upper threshold.
    pub lower_threshold: u32,
}

/// A server behind a virtual service.
///
/// Shared as `Arc<RealServer>` by the service, its connections, templates and leases; everything
/// that changes is atomic. Operators change it through its service, never directly, so that the
/// scheduler learns of it.
#[derive(Debug)]
#[doc(alias = "destination")]
#[doc(alias = "dest")]
pub struct RealServer {
    addr: SocketAddr,
    /// What the operator said.
    weight: AtomicU32,
    /// What schedulers see: the weight, or 0 while the server is unhealthy.
    effective: atomic::AtomicU32,
    /// The last weight but 0, or the first one.
    remembered: AtomicU32,
    healthy: AtomicBool,
    /// Upper threshold in the high half, lower in the low half, so that both change in one step.
    thresholds: AtomicU64,
    method: AtomicU8,
    available: AtomicBool,
    /// Who wants to hear of changed counts, and as which number.
    marks: ArcSwapOption<Marks>,
    slot: AtomicU32,
    watch: Watch,
    tally: Tally,
    counters: ServerCounters,
    meter: Meter,
    /// What it had counted when it last left its service.
    departure: Mutex<Stats>,
}

/// What changes when a connection begins, moves or ends. It stands together, on a cache line of its
/// own: threads whose connections go to the same server hand one line to and fro, and who only looks at
/// weights is not disturbed.
#[derive(Debug)]
#[repr(align(64))]
struct Tally {
    /// See [`Load`].
    load: atomic::AtomicU64,
    /// Connections that were ever scheduled, but for those of the next field.
    connections: AtomicU64,
    /// Those that were bound by the holder of the service's lock, who needs no atomic addition.
    picked: AtomicU64,
    persistent: atomic::AtomicU32,
    /// Entries of schedulers' caches.
    cached: AtomicU32,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            load: atomic::AtomicU64::new(Load::UNFOLLOWED),
            connections: AtomicU64::new(0),
            picked: AtomicU64::new(0),
            persistent: atomic::AtomicU32::new(0),
            cached: AtomicU32::new(0),
        }
    }
}

impl RealServer {
    pub(crate) fn new(addr: SocketAddr, config: &ServerConfig) -> Self {
        Self {
            addr,
            weight: AtomicU32::new(config.weight.get()),
            effective: atomic::AtomicU32::new(config.weight.get()),
            remembered: AtomicU32::new(config.weight.get()),
            healthy: AtomicBool::new(true),
            thresholds: AtomicU64::new(pack(config)),
            method: AtomicU8::new(config.method as u8),
            available: AtomicBool::new(true),
            marks: ArcSwapOption::empty(),
            slot: AtomicU32::new(0),
            watch: Watch::default(),
            tally: Tally::default(),
            counters: ServerCounters::default(),
            meter: Meter::default(),
            departure: Mutex::default(),
        }
    }

    /// Address and port; port 0 means that the packet's destination port is kept.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The operator's weight.
    pub fn weight(&self) -> Weight {
        Weight(self.weight.load(Ordering::Relaxed))
    }

    /// The weight that schedulers see: the operator's, or 0 while the server is not healthy.
    pub fn effective_weight(&self) -> Weight {
        Weight(self.effective.load(Ordering::SeqCst))
    }

    /// What was observed last, see [`set_healthy`](crate::VirtualService::set_healthy). A new
    /// server is healthy.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Method that new connections take.
    pub fn method(&self) -> ForwardMethod {
        ForwardMethod::from_code(self.method.load(Ordering::Relaxed))
    }

    /// The present parameters.
    pub fn config(&self) -> ServerConfig {
        let (upper_threshold, lower_threshold) = self.thresholds();
        ServerConfig {
            weight: self.weight(),
            method: self.method(),
            upper_threshold,
            lower_threshold,
        }
    }

    /// Active connections: for TCP from the first SYN to the first FIN or effective RST, and
    /// leases.
    pub fn active(&self) -> u32 {
        self.load().active()
    }

    /// Connections that are bound to the server but not active; all UDP ones are.
    pub fn inactive(&self) -> u32 {
        self.load().inactive()
    }

    /// Persistence templates bound to the server; in neither of the other two counts.
    pub fn persistent(&self) -> u32 {
        self.tally.persistent.load(Ordering::Relaxed)
    }

    /// Whether the overload flag is set: from the upper threshold until the count falls below the
    /// lower one.
    pub fn is_overloaded(&self) -> bool {
        self.load().overloaded()
    }

    /// Whether the effective weight is 0.
    pub fn is_quiesced(&self) -> bool {
        self.effective_weight() == Weight::QUIESCED
    }

    /// Whether it belongs to a service at present. Says nothing about health.
    pub fn is_available(&self) -> bool {
        self.available.load(Ordering::Acquire)
    }

    /// Whether a scheduler may choose it: not overloaded and not quiesced.
    pub fn is_usable(&self) -> bool {
        !self.is_overloaded() && !self.is_quiesced()
    }

    /// `active × 256 + inactive`, what the least-connection schedulers compare.
    pub fn cost(&self) -> u64 {
        self.load().cost()
    }

    /// Traffic since creation or the last zeroing.
    pub fn stats(&self) -> Stats {
        self.meter.read(self.counted())
    }

    /// Smoothed traffic rates; a [`Director`](crate::Director) estimates them every two seconds.
    pub fn rates(&self) -> Rates {
        self.meter.rates()
    }

    /// One period of the rates ends. Returns whether they may change without traffic.
    pub(crate) fn estimate(&self) -> bool {
        self.meter.estimate(self.counted())
    }

    /// Family of the server's address.
    pub fn family(&self) -> Family {
        if self.addr.is_ipv4() {
            Family::Inet
        } else {
            Family::Inet6
        }
    }

    pub(crate) fn zero(&self) {
        self.meter.zero(self.counted());
    }

    /// Leaves its service. Returns what it has counted until now.
    pub(crate) fn unlink(&self) -> Stats {
        self.available.store(false, Ordering::Release);
        let counted = self.counted();
        *self.departure.lock() = counted;
        counted
    }

    /// What a service that it joins must not count again.
    pub(crate) fn departure(&self) -> Stats {
        *self.departure.lock()
    }

    /// It comes back to another service, with statistics from zero.
    pub(crate) fn start_over(&self) {
        let counted = self.counted();
        *self.departure.lock() = counted;
        self.meter.start_over(counted);
    }

    /// Counts a connection as scheduled.
    pub(crate) fn count_connection(&self) {
        self.tally.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts packets.
    #[inline]
    pub(crate) fn counters(&self) -> &ServerCounters {
        &self.counters
    }

    /// What was counted since creation; zeroing does not change it.
    pub(crate) fn counted(&self) -> Stats {
        Stats {
            connections: self.tally.connections.load(Ordering::Relaxed)
                + self.tally.picked.load(Ordering::Relaxed),
            ..self.counters.raw()
        }
    }

    /// Applies an edit: parameters, available, overload rule.
    pub(crate) fn apply(&self, config: &ServerConfig) {
        self.weight.store(config.weight.get(), Ordering::Relaxed);
        if config.weight != Weight::QUIESCED {
            self.remembered
                .store(config.weight.get(), Ordering::Relaxed);
            self.watch.reopen();
        }
        self.settle_weight();
        self.method.store(config.method as u8, Ordering::Relaxed);
        self.thresholds.store(pack(config), Ordering::Relaxed);
        self.available.store(true, Ordering::Release);
        self.update(|load| load);
    }

    /// Applies an add or a revival.
    pub(crate) fn admit(&self, config: &ServerConfig) {
        self.healthy.store(true, Ordering::Relaxed);
        self.apply(config);
        self.remembered
            .store(config.weight.get(), Ordering::Relaxed);
    }

    /// Callers hold the service's lock.
    pub(crate) fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
        self.settle_weight();
    }

    /// The weight given when the server was added, even 0, then the last one but 0.
    pub(crate) fn remembered_weight(&self) -> u32 {
        self.remembered.load(Ordering::Relaxed)
    }

    /// Whether a connection, a template or a scheduler's cache still refers to it.
    pub(crate) fn is_referenced(&self) -> bool {
        !self.is_idle() || self.tally.cached.load(Ordering::Relaxed) > 0
    }

    /// Whether neither connections nor templates are bound to it.
    pub(crate) fn is_idle(&self) -> bool {
        self.load().connections() == 0 && self.tally.persistent.load(Ordering::SeqCst) == 0
    }

    /// A scheduler's cache refers to it.
    pub(crate) fn count_cached(&self) {
        self.tally.cached.fetch_add(1, Ordering::Relaxed);
    }

    /// An entry of a scheduler's cache is gone.
    pub(crate) fn uncount_cached(&self) {
        let before = self.tally.cached.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "a cache entry was dropped twice");
    }

    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Whether an upper threshold is set.
    pub(crate) fn is_limited(&self) -> bool {
        self.thresholds().0 != 0
    }

    pub(crate) fn bind(&self, class: Class) {
        match class {
            Class::Active => self.update(|load| Load(load.0 + Load::ACTIVE)),
            Class::Inactive => self.update(|load| Load(load.0 + Load::INACTIVE)),
            Class::Persistent => {
                self.tally.persistent.fetch_add(1, Ordering::SeqCst);
                self.update(|load| load);
            }
        }
    }

    /// [`bind`](Self::bind), counted as scheduled, by the holder of the service's lock, whose scheduler has just
    /// picked this server and looks at it again before its next pick.
    pub(crate) fn bind_picked(&self, class: Class) {
        let one = class.one();
        if self.is_limited() {
            self.update(|load| Load((load.0 + one) | Load::NOTED));
        } else {
            // Only holders of the lock set and clear the mark.
            let noted = Load::NOTED & !self.tally.load.load(Ordering::Relaxed);
            self.tally.load.fetch_add(one + noted, Ordering::SeqCst);
        }
        let picked = &self.tally.picked;
        picked.store(picked.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// [`bind`](Self::bind), unless the server has become overloaded or quiesced.
    pub(crate) fn try_bind(&self, class: Class) -> bool {
        let (upper, lower) = self.thresholds();
        let (one, load) = (class.one(), &self.tally.load);
        let bound = if upper == 0 {
            Ok(load.fetch_add(one, Ordering::SeqCst))
        } else {
            load.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |present| {
                let load = Load(present);
                (!load.overloaded()).then(|| Load(load.0 + one).judged(upper, lower).0)
            })
        };
        let Ok(before) = bound else {
            return false;
        };
        self.mark_unless(before & Load::UNFOLLOWED != 0);
        // Thresholds that came meanwhile are judged against this connection too.
        if upper == 0 && self.is_limited() {
            self.update(|load| load);
        }
        // Whoever set the weight to 0 and then saw no connections must not get one afterwards.
        if self.is_quiesced() {
            self.unbind(class);
            return false;
        }
        true
    }

    pub(crate) fn unbind(&self, class: Class) {
        let after = match class {
            Class::Active | Class::Inactive => {
                let one = class.one();
                let before = self.tally.load.fetch_sub(one, Ordering::SeqCst);
                debug_assert!(
                    Load(before).count(class) > 0,
                    "a connection was unbound twice"
                );
                Load(before - one)
            }
            Class::Persistent => {
                let before = self.tally.persistent.fetch_sub(1, Ordering::SeqCst);
                debug_assert!(before > 0, "a template was unbound twice");
                self.load()
            }
        };
        if after.overloaded() {
            self.update(|load| load);
        } else {
            self.mark_unless(after.0 & (Load::UNFOLLOWED | Load::NOTED) != 0);
        }
        if after.0 & Load::DRAINING != 0 && self.is_idle() {
            self.watch.wake(self);
        }
    }

    /// A connection that became active; the overload flag is not touched.
    pub(crate) fn activate(&self) {
        self.step(|load| Load(load.0 + Load::ACTIVE - Load::INACTIVE));
    }

    /// A connection that is no longer active.
    pub(crate) fn deactivate(&self) {
        self.step(|load| Load(load.0 - (Load::ACTIVE - Load::INACTIVE)));
    }

    /// The end of the last connection wakes those who watch.
    pub(crate) fn set_draining(&self) {
        self.tally.load.fetch_or(Load::DRAINING, Ordering::SeqCst);
    }

    /// It does not any longer.
    pub(crate) fn clear_draining(&self) {
        self.tally.load.fetch_and(!Load::DRAINING, Ordering::SeqCst);
    }

    /// Changed counts are told to `marks` as number `slot`, starting from those returned.
    pub(crate) fn report_to(&self, marks: &Arc<Marks>, slot: u32) -> Load {
        self.slot.store(slot, Ordering::Relaxed);
        self.marks.store(Some(Arc::clone(marks)));
        let told = !(Load::UNFOLLOWED | Load::NOTED);
        Load(self.tally.load.fetch_and(told, Ordering::SeqCst))
    }

    /// Changed counts are told to nobody.
    pub(crate) fn report_to_nobody(&self) {
        self.tally.load.fetch_or(Load::UNFOLLOWED, Ordering::SeqCst);
        self.marks.store(None);
    }

    /// The number under which it reports.
    pub(crate) fn slot(&self) -> usize {
        self.slot.load(Ordering::Relaxed) as usize
    }

    /// The counts, and from now on ends of connections are told again.
    pub(crate) fn take_note(&self) -> Load {
        Load(self.tally.load.fetch_and(!Load::NOTED, Ordering::SeqCst))
    }

    pub(crate) fn load(&self) -> Load {
        Load(self.tally.load.load(Ordering::SeqCst))
    }

    fn settle_weight(&self) {
        let weight = if self.is_healthy() {
            self.weight().get()
        } else {
            0
        };
        self.effective.store(weight, Ordering::SeqCst);
    }

    fn thresholds(&self) -> (u32, u32) {
        let packed = self.thresholds.load(Ordering::Relaxed);
        ((packed >> 32) as u32, packed as u32)
    }

    fn update(&self, change: impl Fn(Load) -> Load) {
        let (upper, lower) = self.thresholds();
        self.step(|load| change(load).judged(upper, lower));
    }

    fn step(&self, change: impl Fn(Load) -> Load) {
        let mut present = self.tally.load.load(Ordering::Relaxed);
        loop {
            let next = change(Load(present));
            match self.tally.load.compare_exchange_weak(
                present,
                next.0,
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    self.mark_unless(next.0 & Load::UNFOLLOWED != 0);
                    return;
                }
                Err(seen) => present = seen,
            }
        }
    }

    fn mark_unless(&self, unheard: bool) {
        if !unheard {
            self.mark();
        }
    }

    #[cold]
    #[inline(never)]
    fn mark(&self) {
        if let Some(marks) = &*self.marks.load() {
            marks.set(self.slot());
        }
    }
}

/// What a bound entry counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Active,
    Inactive,
    Persistent,
}

impl Class {
    fn one(self) -> u64 {
        match self {
            Self::Active => Load::ACTIVE,
            Self::Inactive => Load::INACTIVE,
            Self::Persistent => 0,
        }
    }
}

/// Active and inactive counts and flags in one word, so that each flag is judged against the counts
/// that it belongs to, whatever other threads do: inactive in bits 0–29, active in bits 30–59.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load(u64);

impl Load {
    const INACTIVE: u64 = 1;
    const ACTIVE: u64 = 1 << 30;
    const COUNT: u64 = (1 << 30) - 1;
    /// The scheduler does not look at counts at all: changes are not marked.
    const UNFOLLOWED: u64 = 1 << 60;
    /// The scheduler looks at this server before its next pick anyway: the end of a connection need not be marked.
    /// Other changes are, so that counts which the scheduler reads twice can't have gone up and down between.
    const NOTED: u64 = 1 << 61;
    /// Somebody waits for the last connection.
    const DRAINING: u64 = 1 << 62;
    const OVERLOADED: u64 = 1 << 63;

    pub(crate) fn inactive(self) -> u32 {
        (self.0 & Self::COUNT) as u32
    }

    pub(crate) fn active(self) -> u32 {
        ((self.0 >> 30) & Self::COUNT) as u32
    }

    fn count(self, class: Class) -> u32 {
        match class {
            Class::Active => self.active(),
            Class::Inactive => self.inactive(),
            Class::Persistent => 0,
        }
    }

    pub(crate) fn connections(self) -> u64 {
        u64::from(self.active()) + u64::from(self.inactive())
    }

    pub(crate) fn cost(self) -> u64 {
        u64::from(self.active()) * 256 + u64::from(self.inactive())
    }

    pub(crate) fn overloaded(self) -> bool {
        self.0 & Self::OVERLOADED != 0
    }

    /// The rule: no threshold clears, the upper one sets, below the clear level clears, between
    /// them nothing changes.
    fn judged(self, upper: u32, lower: u32) -> Self {
        let connections = self.connections();
        let clear_below = if lower == 0 { upper - upper / 4 } else { lower };
        if upper == 0 || connections < u64::from(clear_below) {
            Self(self.0 & !Self::OVERLOADED)
        } else if connections >= u64::from(upper) {
            Self(self.0 | Self::OVERLOADED)
        } else {
            self
        }
    }
}

fn pack(config: &ServerConfig) -> u64 {
    u64::from(config.upper_threshold) << 32 | u64::from(config.lower_threshold)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(upper: u32, lower: u32) -> RealServer {
        RealServer::new("192.0.2.1:80".parse().unwrap(), &thresholds(upper, lower))
    }

    fn thresholds(upper: u32, lower: u32) -> ServerConfig {
        ServerConfig {
            upper_threshold: upper,
            lower_threshold: lower,
            ..ServerConfig::default()
        }
    }

    /// The count at which the flag clears again after it was set by `upper` connections.
    fn clears_at(upper: u32, lower: u32) -> u32 {
        let server = server(upper, lower);
        for bound in 0..upper {
            assert!(!server.is_overloaded(), "{bound} of {upper}");
            server.bind(Class::Inactive);
        }
        assert!(server.is_overloaded());
        while server.is_overloaded() {
            server.unbind(Class::Inactive);
        }
        server.inactive()
    }

    #[test]
    fn overload_flag_clears_at_the_worked_levels() {
        assert_eq!(clears_at(4, 0), 2);
        assert_eq!(clears_at(4, 2), 1);
        assert_eq!(clears_at(1, 0), 0);
    }

    #[test]
    fn editing_thresholds_judges_at_once() {
        let server = server(0, 0);
        (0..29).for_each(|_| server.bind(Class::Active));
        assert!(!server.is_overloaded());
        server.apply(&thresholds(3, 1));
        assert!(server.is_overloaded());
        server.apply(&thresholds(40, 0));
        assert!(!server.is_overloaded());
        server.apply(&thresholds(3, 0));
        server.apply(&thresholds(32, 0));
        assert!(server.is_overloaded());
        while server.is_overloaded() {
            server.unbind(Class::Active);
        }
        assert_eq!(server.active(), 23);
        server.apply(&thresholds(23, 0));
        server.apply(&thresholds(0, 0));
        assert!(!server.is_overloaded());
    }

    #[test]
    fn a_template_judges_but_does_not_count() {
        let server = server(0, 0);
        server.bind(Class::Persistent);
        assert_eq!(
            (server.active(), server.inactive(), server.persistent()),
            (0, 0, 1)
        );
        server.unbind(Class::Persistent);
        assert!(!server.is_referenced());
    }

    #[test]
    fn moving_between_classes_leaves_the_flag() {
        let server = server(2, 0);
        server.bind(Class::Inactive);
        server.activate();
        assert_eq!(
            (server.active(), server.inactive(), server.cost()),
            (1, 0, 256)
        );
        server.bind(Class::Inactive);
        assert!(server.is_overloaded());
        server.deactivate();
        assert_eq!(
            (server.active(), server.inactive(), server.cost()),
            (0, 2, 2)
        );
        assert!(server.is_overloaded());
    }

    #[test]
    fn weight_is_checked_once() {
        assert!(Weight::new(1 << 31).is_err());
        assert_eq!(Weight::new(i32::MAX as u32), Ok(Weight::MAX));
    }
}
