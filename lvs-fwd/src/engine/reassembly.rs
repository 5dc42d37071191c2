//! Datagrams put together from their fragments, where the whole is needed: TCP, because options may be put in and text
//! changed, and SCTP, whose checksum covers all of it.
//!
//! Everything is bounded: bytes of one sender and of all, parts of a datagram, and the time that they wait. Fragments that
//! lie over each other cost their datagram (RFC 5722; RFC 1858 for IPv4).

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ahash::RandomState;

use crate::checksum;
use crate::frame::Frame;
use crate::wire::{Datagram, Fragment, ethernet, ipv6};

/// What one worker puts together.
#[derive(Debug)]
pub(super) struct Reassembly {
    /// Senders choose the keys, so the seeds are random.
    datagrams: HashMap<Datagram, Pile, RandomState>,
    senders: HashMap<IpAddr, usize, RandomState>,
    bytes: usize,
    /// When piles are given up, in the order of their beginning; the number tells whether it is still that pile.
    ends: [VecDeque<(Instant, Datagram, u64)>; 2],
    next: u64,
}

/// The parts of a datagram that have come.
#[derive(Debug)]
struct Pile {
    number: u64,
    /// Place in the datagram and the part, in this order.
    parts: Vec<(usize, Part)>,
    bytes: usize,
    /// Payload bytes of the datagram, once the last part has come.
    length: Option<usize>,
    /// Nothing more is taken: parts contradict each other.
    spoilt: bool,
}

#[derive(Debug)]
struct Part {
    frame: Frame,
    /// Where the payload lies in the frame.
    start: usize,
    end: usize,
}

impl Part {
    fn len(&self) -> usize {
        self.end - self.start
    }
}

/// What became of a fragment.
#[derive(Debug)]
pub(super) enum Added {
    /// More are missing.
    Waits,
    /// It was the last one: here is the packet.
    Whole(Frame),
    /// It contradicts others; so many frames are dropped for it.
    Overlaps(usize),
    /// There is no room.
    Overflow,
}

/// What was given up.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    /// Frames whose first part came, and others did not.
    pub(super) dropped: usize,
    /// Frames whose first part did not come, so that nobody knows whose they are.
    pub(super) unknown: Vec<Frame>,
}

impl Reassembly {
    pub(super) fn new() -> Self {
        Self {
            datagrams: HashMap::with_hasher(RandomState::new()),
            senders: HashMap::with_hasher(RandomState::new()),
            bytes: 0,
            ends: [VecDeque::new(), VecDeque::new()],
            next: 0,
        }
    }

    /// Takes a fragment, which has been cut to the length that its header states.
    pub(super) fn add(&mut self, now: Instant, fragment: &Fragment, mut frame: Frame) -> Added {
        let datagram = fragment.datagram;
        let sender = self.senders.get(&datagram.source).copied().unwrap_or(0);
        let cost = frame.len() + OVERHEAD;
        let known = self.datagrams.get(&datagram);
        if known.is_some_and(|pile| pile.spoilt) {
            return Added::Overlaps(1);
        }
        let is_full = sender + cost > MAX_OF_SENDER
            || self.bytes + cost > MAX_BYTES
            || known.is_some_and(|pile| pile.parts.len() >= MAX_PARTS);
        if is_full {
            return Added::Overflow;
        }
        if known.is_none() {
            let patience = PATIENCE[usize::from(fragment.headers.is_ipv6())];
            let ends = &mut self.ends[usize::from(fragment.headers.is_ipv6())];
            ends.push_back((now + patience, datagram, self.next));
            // What has become whole is not looked for in the middle each time.
            if ends.len() > 2 * self.datagrams.len() + 1024 {
                let datagrams = &self.datagrams;
                let next = self.next;
                ends.retain(|(_, datagram, number)| {
                    let is_current = |pile: &Pile| pile.number == *number;
                    *number == next || datagrams.get(datagram).is_some_and(is_current)
                });
            }
        }
        let number = self.next;
        let pile = self.datagrams.entry(datagram).or_insert_with(|| Pile {
            number,
            parts: Vec::new(),
            bytes: 0,
            length: None,
            spoilt: false,
        });
        if pile.number == number {
            self.next += 1;
        }
        let end = fragment.headers.end;
        let length = fragment.length;
        let part = Part {
            start: end - length,
            end,
            frame: {
                frame.make_owned();
                frame
            },
        };
        match pile.insert(fragment, part) {
            Inserted::Twice => return Added::Overlaps(1),
            Inserted::Contradicts => {
                let dropped = pile.parts.len() + 1;
                let bytes = pile.bytes;
                pile.parts.clear();
                pile.spoilt = true;
                // That it is spoilt has to be remembered, and is not free either.
                pile.bytes = OVERHEAD;
                self.forget(datagram.source, bytes - OVERHEAD);
                return Added::Overlaps(dropped);
            }
            Inserted::Yes => {}
        }
        pile.bytes += cost;
        let is_whole = pile.is_whole();
        self.bytes += cost;
        *self.senders.entry(datagram.source).or_insert(0) += cost;
        if !is_whole {
            return Added::Waits;
        }
        let Some(pile) = self.datagrams.remove(&datagram) else {
            return Added::Waits;
        };
        self.forget(datagram.source, pile.bytes);
        let count = pile.parts.len();
        match pile.into_whole(fragment.headers.is_ipv6()) {
            Some(whole) => Added::Whole(whole),
            None => Added::Overlaps(count),
        }
    }

    /// The first part is the host's: gives back those that have come.
    pub(super) fn take(&mut self, datagram: &Datagram) -> Vec<Frame> {
        let Some(pile) = self.datagrams.remove(datagram) else {
            return Vec::new();
        };
        self.forget(datagram.source, pile.bytes);
        pile.parts.into_iter().map(|(_, part)| part.frame).collect()
    }

    /// Gives up what has waited for too long.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> GivenUp {
        let mut given_up = GivenUp::default();
        for family in 0..self.ends.len() {
            while let Some((at, datagram, number)) = self.ends[family].front().copied() {
                let is_current = |pile: &Pile| pile.number == number;
                let stands = self.datagrams.get(&datagram).is_some_and(is_current);
                if at > now && stands {
                    break;
                }
                self.ends[family].pop_front();
                if !stands {
                    continue;
                }
                if let Some(pile) = self.datagrams.remove(&datagram) {
                    self.forget(datagram.source, pile.bytes);
                    let frames = pile.parts.into_iter();
                    match frames.as_slice().first() {
                        Some((0, _)) => given_up.dropped += frames.len(),
                        _ => given_up.unknown.extend(frames.map(|(_, part)| part.frame)),
                    }
                }
            }
        }
        given_up
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.datagrams.is_empty() {
            return None;
        }
        let fronts = self.ends.iter().filter_map(|ends| ends.front());
        fronts.map(|(at, ..)| *at).min()
    }

    fn forget(&mut self, sender: IpAddr, bytes: usize) {
        self.bytes -= bytes;
        if let Some(of_sender) = self.senders.get_mut(&sender) {
            *of_sender -= bytes;
            if *of_sender == 0 {
                self.senders.remove(&sender);
            }
        }
    }
}

enum Inserted {
    Yes,
    /// The same place was there already.
    Twice,
    Contradicts,
}

impl Pile {
    fn insert(&mut self, fragment: &Fragment, part: Part) -> Inserted {
        let (start, end) = (fragment.offset, fragment.offset + part.len());
        let place = self.parts.partition_point(|(at, _)| *at < start);
        if let Some((at, other)) = self.parts.get(place)
            && *at == start
            && other.len() == part.len()
        {
            return Inserted::Twice;
        }
        let before = place.checked_sub(1).map(|place| &self.parts[place]);
        let over_before = before.is_some_and(|(at, other)| at + other.len() > start);
        let over_next = self.parts.get(place).is_some_and(|(at, _)| *at < end);
        let beyond = match self.length {
            Some(length) => end > length || !fragment.more && end != length,
            None => {
                let last = self.parts.last();
                !fragment.more && last.is_some_and(|(at, other)| at + other.len() > end)
            }
        };
        if over_before || over_next || beyond {
            return Inserted::Contradicts;
        }
        if !fragment.more {
            self.length = Some(end);
        }
        self.parts.insert(place, (start, part));
        Inserted::Yes
    }

    /// Parts do not overlap, so that there is no gap if their lengths add up.
    fn is_whole(&self) -> bool {
        let have: usize = self.parts.iter().map(|(_, part)| part.len()).sum();
        self.length == Some(have)
    }

    /// The packet: headers of the first part, and the payload of all. `None` if it is too long for IP.
    fn into_whole(self, is_ipv6: bool) -> Option<Frame> {
        let network = ethernet::HEADER_LEN;
        let length = self.length?;
        let longest = self
            .parts
            .iter()
            .map(|(_, part)| part.end - network)
            .max()?;
        let (_, first) = self.parts.first()?;
        let head = match is_ipv6 {
            true => first.start.checked_sub(ipv6::FRAGMENT_HEADER_LEN)?,
            false => first.start,
        };
        let mut bytes = Vec::with_capacity(crate::frame::HEADROOM + head + length);
        bytes.resize(crate::frame::HEADROOM, 0);
        bytes.extend_from_slice(first.frame.bytes().get(..head)?);
        for (_, part) in &self.parts {
            bytes.extend_from_slice(part.frame.bytes().get(part.start..part.end)?);
        }
        let packet = bytes.get_mut(crate::frame::HEADROOM + network..)?;
        if is_ipv6 {
            let fragment_header = first.frame.bytes().get(head..first.start)?;
            let payload = u16::try_from(packet.len().checked_sub(ipv6::HEADER_LEN)?).ok()?;
            packet[4..6].copy_from_slice(&payload.to_be_bytes());
            let at = ipv6::last_next_header(packet, head - network)?;
            packet[at] = fragment_header[0];
        } else {
            let total = u16::try_from(packet.len()).ok()?;
            packet[2..4].copy_from_slice(&total.to_be_bytes());
            packet[6] &= DONT_FRAGMENT;
            packet[7] = 0;
            packet[10..12].fill(0);
            let header = packet.get(..head - network)?;
            let sum = checksum::finish(checksum::sum(header));
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let meta = first.frame.meta;
        let mut whole = Frame::from_buffer(bytes, crate::frame::HEADROOM);
        whole.meta.kind = meta.kind;
        whole.meta.exclusive = meta.exclusive;
        whole.meta.longest_part = u16::try_from(longest).ok();
        Some(whole)
    }
}

/// As long as the kernel waits, for IPv4 and for IPv6 (RFC 8200, section 4.5).
const PATIENCE: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(60)];
/// Bytes that wait, of one sender and of all.
const MAX_OF_SENDER: usize = 256 << 10;
const MAX_BYTES: usize = 4 << 20;
/// Parts of a datagram: the longest one has 45 on Ethernet, and 120 where links carry the least that IPv4 must.
const MAX_PARTS: usize = 128;
/// What a part costs besides its bytes.
const OVERHEAD: usize = 256;
const DONT_FRAGMENT: u8 = 0x40;
