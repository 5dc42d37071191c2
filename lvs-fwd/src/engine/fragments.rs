//! Datagrams in fragments, without putting them together: the first fragment says where it goes, the others follow.
//!
//! A later fragment that comes before the first one waits a moment. Everything is bounded: datagrams that are
//! remembered, frames that wait, and the time of both.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use ahash::RandomState;

use super::Item;
use crate::balancer::Verdict;
use crate::wire::Datagram;

/// What one worker knows of datagrams whose fragments it sees.
#[derive(Debug)]
pub(super) struct Fragments {
    /// Senders choose the keys, so the seeds are random.
    datagrams: HashMap<Datagram, Entry, RandomState>,
    /// When entries were made or changed, oldest first; the number tells whether that still holds.
    known: VecDeque<(Instant, Datagram, u64)>,
    waiting: VecDeque<(Instant, Datagram, u64)>,
    frames: usize,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Known { fate: Fate, until: Instant },
    Waiting(Vec<Item>),
}

/// Where the fragments of a datagram go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fate {
    /// The first fragment's verdict; `None` if that one was not claimed, so that the host has it.
    pub(super) verdict: Option<Verdict>,
    /// The worker whose they are, if it is another one.
    pub(super) owner: Option<u32>,
    /// An identification for all of them.
    pub(super) ident: Option<u32>,
    /// Where the first fragment ends in the datagram: no other one may begin before.
    pub(super) first_end: usize,
}

/// What happens to a later fragment.
#[derive(Debug)]
pub(super) enum Later {
    /// It goes on.
    Go(Box<Item>, Fate),
    /// It waits for the first one.
    Waits,
    /// It lies over the first one (RFC 3128).
    Overlaps,
    /// There is no room to wait.
    Overflow,
}

impl Fragments {
    pub(super) fn new() -> Self {
        Self {
            datagrams: HashMap::with_hasher(RandomState::new()),
            known: VecDeque::new(),
            waiting: VecDeque::new(),
            frames: 0,
            next: 0,
        }
    }

    /// The first fragment's fate is known; gives back those that waited for it, in the order of their coming.
    pub(super) fn learn(&mut self, now: Instant, datagram: Datagram, fate: Fate) -> Vec<Item> {
        self.forget(now);
        let until = now + MEMORY;
        let number = self.number();
        let state = State::Known { fate, until };
        let before = self.datagrams.insert(datagram, Entry { number, state });
        self.known.push_back((until, datagram, number));
        match before.map(|entry| entry.state) {
            Some(State::Waiting(items)) => {
                self.frames -= items.len();
                items
            }
            Some(State::Known { .. }) | None => Vec::new(),
        }
    }

    /// Whether the fate of a datagram is known, without its being put together.
    pub(super) fn is_known(&self, now: Instant, datagram: &Datagram) -> bool {
        let entry = self.datagrams.get(datagram);
        entry.is_some_and(|entry| match entry.state {
            State::Known { until, .. } => now < until,
            State::Waiting(_) => false,
        })
    }

    /// A later fragment came, whose payload has this place in the datagram.
    pub(super) fn follow(
        &mut self,
        now: Instant,
        datagram: Datagram,
        offset: usize,
        mut item: Item,
    ) -> Later {
        if let Some(Entry {
            state: State::Known { fate, until },
            ..
        }) = self.datagrams.get(&datagram)
            && now < *until
        {
            return match offset < fate.first_end {
                true => Later::Overlaps,
                false => Later::Go(Box::new(item), *fate),
            };
        }
        if self.frames >= MAX_FRAMES {
            return Later::Overflow;
        }
        item.frame.make_owned();
        let number = self.next;
        let entry = self.datagrams.entry(datagram).or_insert(Entry {
            number,
            state: State::Waiting(Vec::new()),
        });
        if let State::Known { .. } = entry.state {
            // Out of date.
            *entry = Entry {
                number,
                state: State::Waiting(Vec::new()),
            };
        }
        let State::Waiting(items) = &mut entry.state else {
            return Later::Overflow;
        };
        if items.len() >= MAX_FRAMES_EACH {
            return Later::Overflow;
        }
        if entry.number == number {
            self.next += 1;
            self.waiting.push_back((now + PATIENCE, datagram, number));
        }
        items.push(item);
        self.frames += 1;
        Later::Waits
    }

    /// Those whose first fragment did not come.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<Item> {
        self.forget(now);
        let mut lost = Vec::new();
        while let Some((at, datagram, number)) = self.waiting.front().copied() {
            if at > now {
                break;
            }
            self.waiting.pop_front();
            if self.is_current(&datagram, number)
                && let Some(Entry {
                    state: State::Waiting(items),
                    ..
                }) = self.datagrams.remove(&datagram)
            {
                self.frames -= items.len();
                lost.extend(items);
            }
        }
        lost
    }

    /// When to call [`handle_timeout`](Self::handle_timeout). What is only remembered needs no wake-up.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.front().map(|(at, ..)| *at)
    }

    /// Forgets datagrams that are out of date, and the oldest if there are too many.
    fn forget(&mut self, now: Instant) {
        while let Some((until, datagram, number)) = self.known.front().copied() {
            if until > now && self.known.len() < MAX_DATAGRAMS {
                break;
            }
            self.known.pop_front();
            if self.is_current(&datagram, number) {
                self.datagrams.remove(&datagram);
            }
        }
    }

    fn is_current(&self, datagram: &Datagram, number: u64) -> bool {
        self.datagrams
            .get(datagram)
            .is_some_and(|entry| entry.number == number)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

/// As long as the kernel waits for the fragments of a datagram.
const MEMORY: Duration = Duration::from_secs(30);
/// How long a later fragment waits for the first one.
const PATIENCE: Duration = Duration::from_secs(1);
/// Datagrams that are remembered; of more the oldest is forgotten.
const MAX_DATAGRAMS: usize = 4096;
/// Frames that wait, of all datagrams and of one: the longest datagram has 45 fragments on Ethernet.
const MAX_FRAMES: usize = 256;
const MAX_FRAMES_EACH: usize = 64;
