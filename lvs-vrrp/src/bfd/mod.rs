//! Bidirectional forwarding detection (RFC 5880, asynchronous mode; RFC 5881, one hop): is the neighbour alive, in
//! milliseconds?
//!
//! A [`BfdSession`] is a sans-IO machine like the others: packets and the present time go in, packets, changes of state and one
//! deadline come out. Sockets are UDP port 3784 (RFC 5881, 4) with a TTL of 255. The session's state is what
//! [`VrrpRouter::handle_bfd`](crate::VrrpRouter::handle_bfd) wants to know.
//!
//! Left out: authentication, demand mode of our own, echo, several hops (a TTL bound can be set).

mod wire;

pub use wire::{BfdError, BfdRepr, BfdState, Diagnostic};

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What an operator says about a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BfdConfig {
    /// Number of the session on this machine, not zero.
    pub discriminator: u32,
    /// Shortest gap between own packets while up.
    pub min_tx: Duration,
    /// Shortest gap between received packets that can be borne.
    pub min_rx: Duration,
    /// Gap between own packets while not up. RFC 5880, 6.8.3 wants a second at least.
    pub idle_tx: Duration,
    /// The neighbour is down after so many missed packets, at least 1.
    pub detect_mult: u8,
    /// Say nothing until the neighbour has spoken.
    pub passive: bool,
    /// Smallest TTL or hop limit that is accepted: 255 for one hop.
    pub min_ttl: u8,
}

impl BfdConfig {
    /// keepalived's defaults: 10 ms, five missed packets.
    #[must_use]
    pub const fn new(discriminator: u32) -> Self {
        Self {
            discriminator,
            min_tx: Duration::from_millis(10),
            min_rx: Duration::from_millis(10),
            idle_tx: Duration::from_secs(1),
            detect_mult: 5,
            passive: false,
            min_ttl: 255,
        }
    }
}

/// A session changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BfdEvent {
    /// Before.
    pub from: BfdState,
    /// Now.
    pub to: BfdState,
    /// Why it is down, if it is.
    pub diagnostic: Diagnostic,
}

/// A session with one neighbour.
#[derive(Debug)]
pub struct BfdSession {
    config: BfdConfig,
    state: BfdState,
    diagnostic: Diagnostic,
    remote: Remote,
    /// A gap that the neighbour has not confirmed yet: packets carry Poll until it does.
    poll: Option<Negotiation>,
    /// The gap that is used.
    tx: Duration,
    /// The gap that the neighbour may use.
    rx: Duration,
    next_tx: Option<Instant>,
    last_tx: Option<Instant>,
    detection: Option<Instant>,
    random: u64,
    outgoing: VecDeque<BfdRepr>,
    events: VecDeque<BfdEvent>,
    discarded: u64,
}

#[derive(Debug, Clone, Copy)]
struct Remote {
    state: BfdState,
    discriminator: u32,
    min_tx: Duration,
    min_rx: Duration,
    detect_mult: u8,
    demand: bool,
}

/// Values that take effect when the neighbour has said Final (RFC 5880, 6.8.3).
#[derive(Debug, Clone, Copy)]
struct Negotiation {
    tx: Duration,
    rx: Duration,
}

impl BfdSession {
    /// A session in Down that sends its first packet now, unless it is passive. `seed` spreads the packets of many sessions.
    #[must_use]
    pub fn new(now: Instant, config: BfdConfig, seed: u64) -> Self {
        Self {
            config,
            state: BfdState::Down,
            diagnostic: Diagnostic::None,
            remote: Remote::UNKNOWN,
            poll: None,
            tx: config.idle_tx,
            rx: config.min_rx,
            next_tx: (!config.passive).then_some(now),
            last_tx: None,
            detection: None,
            random: seed,
            outgoing: VecDeque::new(),
            events: VecDeque::new(),
            discarded: 0,
        }
    }

    /// A packet of the neighbour, with the TTL or hop limit that it arrived with.
    ///
    /// # Errors
    /// When it is discarded, which is counted.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        ttl: Option<u8>,
        packet: &[u8],
    ) -> Result<(), BfdError> {
        let result = self.judge(ttl, packet);
        match result {
            Ok(repr) => {
                self.hear(now, repr);
                Ok(())
            }
            Err(error) => {
                self.discarded += 1;
                Err(error)
            }
        }
    }

    /// The deadline has passed. Calling early or twice is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.detection.is_some_and(|due| due <= now) {
            self.detection = None;
            self.remote.discriminator = 0;
            if matches!(self.state, BfdState::Init | BfdState::Up) {
                self.change(now, BfdState::Down, Diagnostic::DetectionTimeExpired);
            }
        }
        if self.next_tx.is_some_and(|due| due <= now) {
            self.send(now, false);
        }
    }

    /// Holds the session down, or lets it go again (RFC 5880, 6.8.16).
    pub fn set_admin_down(&mut self, now: Instant, down: bool) {
        match (down, self.state) {
            (true, BfdState::AdminDown) => {}
            (true, _) => {
                self.change(now, BfdState::AdminDown, Diagnostic::AdministrativelyDown);
                self.detection = None;
            }
            (false, BfdState::AdminDown) => self.change(now, BfdState::Down, Diagnostic::None),
            (false, _) => {}
        }
    }

    /// Other gaps and another multiplier, negotiated with the neighbour without losing the session.
    pub fn reconfigure(&mut self, now: Instant, config: BfdConfig) {
        let discriminator = self.config.discriminator;
        self.config = BfdConfig {
            discriminator,
            ..config
        };
        self.negotiate(now);
    }

    /// The next packet to send.
    pub fn poll_transmit(&mut self) -> Option<[u8; BfdRepr::LEN]> {
        self.outgoing.pop_front().map(|repr| repr.packet())
    }

    /// The next change of state.
    pub fn poll_event(&mut self) -> Option<BfdEvent> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.next_tx, self.detection].into_iter().flatten().min()
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> BfdState {
        self.state
    }

    /// Silence after which the neighbour is down (RFC 5880, 6.8.4); `None` while it was never heard.
    #[must_use]
    pub fn detection_time(&self) -> Option<Duration> {
        let heard = self.remote.discriminator != 0;
        heard.then(|| self.rx.max(self.remote.min_tx) * u32::from(self.remote.detect_mult))
    }

    /// Packets that were discarded.
    #[must_use]
    pub const fn discarded(&self) -> u64 {
        self.discarded
    }

    /// RFC 5880, 6.8.6 up to the state machine.
    fn judge(&self, ttl: Option<u8>, packet: &[u8]) -> Result<BfdRepr, BfdError> {
        if let Some(ttl) = ttl
            && ttl < self.config.min_ttl
        {
            return Err(BfdError::Ttl(ttl));
        }
        let repr = BfdRepr::parse(packet)?;
        let ours = self.config.discriminator;
        if repr.your_discriminator != 0 && repr.your_discriminator != ours {
            return Err(BfdError::UnknownSession);
        }
        if self.state == BfdState::AdminDown {
            return Err(BfdError::AdminDown);
        }
        Ok(repr)
    }

    fn hear(&mut self, now: Instant, repr: BfdRepr) {
        self.remote = Remote {
            state: repr.state,
            discriminator: repr.my_discriminator,
            min_tx: repr.desired_min_tx,
            min_rx: repr.required_min_rx,
            detect_mult: repr.detect_mult,
            demand: repr.demand,
        };
        if repr.is_final
            && let Some(agreed) = self.poll.take()
        {
            self.tx = agreed.tx;
            self.rx = agreed.rx;
        }
        let next = match (self.state, repr.state) {
            (BfdState::Init | BfdState::Up, BfdState::AdminDown | BfdState::Down)
                if self.state == BfdState::Up || repr.state == BfdState::AdminDown =>
            {
                Some((BfdState::Down, Diagnostic::NeighborDown))
            }
            (BfdState::Down, BfdState::Down) => Some((BfdState::Init, Diagnostic::None)),
            (BfdState::Down, BfdState::Init) | (BfdState::Init, BfdState::Init | BfdState::Up) => {
                Some((BfdState::Up, Diagnostic::None))
            }
            _ => None,
        };
        self.detection = self.detection_time().map(|time| now + time);
        if let Some((state, diagnostic)) = next {
            self.change(now, state, diagnostic);
        }
        if repr.poll {
            self.send(now, true);
        }
        // A neighbour that bears more, or less, than before.
        self.schedule(now);
    }

    fn change(&mut self, now: Instant, to: BfdState, diagnostic: Diagnostic) {
        let from = std::mem::replace(&mut self.state, to);
        self.diagnostic = diagnostic;
        if from == to {
            return;
        }
        self.events.push_back(BfdEvent {
            from,
            to,
            diagnostic,
        });
        self.negotiate(now);
        self.send(now, false);
    }

    /// What is wanted in this state takes effect at once where that is safe, else with the neighbour's Final: a faster pace of
    /// ours may be used at once, a slower one would look like loss to it; the same with what we bear (RFC 5880, 6.8.3).
    fn negotiate(&mut self, now: Instant) {
        let tx = match self.state {
            BfdState::Up => self.config.min_tx,
            _ => self.config.idle_tx.max(self.config.min_tx),
        };
        let rx = self.config.min_rx;
        if self.state == BfdState::Up {
            let changed = (tx, rx) != (self.tx, self.rx);
            self.poll = changed.then_some(Negotiation { tx, rx });
            self.tx = self.tx.min(tx);
            self.rx = self.rx.max(rx);
        } else {
            self.poll = None;
            self.tx = tx;
            self.rx = rx;
        }
        self.schedule(now);
    }

    fn send(&mut self, now: Instant, is_final: bool) {
        self.outgoing.push_back(BfdRepr {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.poll.is_some() && !is_final,
            is_final,
            demand: false,
            detect_mult: self.config.detect_mult.max(1),
            my_discriminator: self.config.discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx: self.poll.map_or(self.tx, |wanted| wanted.tx),
            required_min_rx: self.poll.map_or(self.rx, |wanted| wanted.rx),
        });
        if is_final {
            return;
        }
        self.last_tx = Some(now);
        self.next_tx = None;
        self.schedule(now);
    }

    /// When the next packet is due: the slower of the two paces, less up to a quarter (RFC 5880, 6.8.7). An earlier plan stays
    /// unless the pace got faster.
    fn schedule(&mut self, now: Instant) {
        let heard = self.remote.discriminator != 0;
        let silent = (self.config.passive && !heard)
            || (heard && self.remote.min_rx.is_zero())
            || (self.remote.demand
                && self.state == BfdState::Up
                && self.remote.state == BfdState::Up
                && self.poll.is_none());
        if silent {
            self.next_tx = None;
            return;
        }
        let pace = self.tx.max(self.remote.min_rx).max(MIN_GAP);
        let most = if self.config.detect_mult <= 1 {
            90
        } else {
            100
        };
        let percent =
            u32::try_from(75 + self.next_random() % (most - 75 + 1)).expect("at most a hundred");
        let gap = (pace * percent / 100).max(MIN_GAP);
        let due = self.last_tx.map_or(now, |last| last + gap);
        let due = if due <= now && self.last_tx == Some(now) {
            now + MIN_GAP
        } else {
            due
        };
        self.next_tx = Some(match self.next_tx {
            Some(planned) if planned <= due => planned,
            _ => due.max(now),
        });
    }

    /// SplitMix64.
    const fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Remote {
    /// RFC 5880, 6.8.1: what is assumed before anything is heard.
    const UNKNOWN: Self = Self {
        state: BfdState::Down,
        discriminator: 0,
        min_tx: Duration::ZERO,
        min_rx: Duration::from_micros(1),
        detect_mult: 0,
        demand: false,
    };
}

/// Whatever is configured or heard, nobody sends faster.
const MIN_GAP: Duration = Duration::from_micros(100);

#[cfg(test)]
mod tests;
