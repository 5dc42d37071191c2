//! What is remembered of TCP connections behind local addresses: where their numbers begin towards the server, and how
//! far both sides have come.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use ahash::RandomState;

use crate::rewrite::fullnat::Segment;

/// TCP connections of one worker that have a local address and port.
///
/// The memory of one begins with the segment that opens it and ends when the balancer says so. What is not remembered is
/// not changed, so a connection that began elsewhere goes on.
#[derive(Debug)]
pub(super) struct Streams {
    streams: HashMap<Sides, Stream, RandomState>,
    /// Makes initial numbers that nobody else can tell.
    secret: RandomState,
    epoch: Option<Instant>,
}

/// The director's side of a connection to a server, and the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sides {
    pub(super) local: SocketAddr,
    pub(super) server: SocketAddr,
}

#[derive(Debug, Clone, Copy)]
struct Stream {
    /// Initial number of the client.
    initial: u32,
    /// What the server's view of it is ahead by.
    delta: u32,
    /// What a client acknowledges as long as it has seen nothing of the server but its acceptance.
    first_data: Option<u32>,
    last: Option<Last>,
}

/// The furthest that a server has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Last {
    /// Its next sequence number.
    pub(super) next: u32,
    /// What it expects next.
    pub(super) expected: u32,
}

/// What to do with a client's segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ToServer {
    pub(super) delta: u32,
    /// It tells the server who the client is.
    pub(super) introduces: bool,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            streams: HashMap::with_hasher(RandomState::new()),
            secret: RandomState::new(),
            epoch: None,
        }
    }

    /// A client's segment.
    pub(super) fn client_sent(
        &mut self,
        now: Instant,
        sides: Sides,
        segment: Option<&Segment>,
    ) -> ToServer {
        let Some(segment) = segment else {
            return ToServer::default();
        };
        if segment.opens() {
            return ToServer {
                delta: self.open(now, sides, segment.sequence),
                introduces: false,
            };
        }
        let Some(stream) = self.streams.get(&sides) else {
            return ToServer::default();
        };
        let is_first = segment.acknowledgement.is_some()
            && segment.acknowledgement == stream.first_data
            && segment.flags & SYN == 0
            && !segment.resets();
        ToServer {
            delta: stream.delta,
            introduces: is_first,
        }
    }

    /// A server's segment. Returns what is to be taken from its acknowledgement.
    pub(super) fn server_sent(&mut self, sides: Sides, segment: Option<&Segment>) -> u32 {
        let (Some(stream), Some(segment)) = (self.streams.get_mut(&sides), segment) else {
            return 0;
        };
        if let Some(expected) = segment.acknowledgement.filter(|_| !segment.resets()) {
            let length = segment.payload as u32 + u32::from(segment.accepts());
            let is_new = stream
                .last
                .is_none_or(|last| expected.wrapping_sub(last.expected) < 1 << 31);
            if is_new {
                stream.last = Some(Last {
                    next: segment.sequence.wrapping_add(length),
                    expected,
                });
            }
        }
        if segment.accepts() {
            stream.first_data = Some(segment.sequence.wrapping_add(1));
        }
        stream.delta
    }

    /// What an error about a client's segment has to be moved back by.
    pub(super) fn delta(&self, sides: &Sides) -> u32 {
        self.streams.get(sides).map_or(0, |stream| stream.delta)
    }

    /// The connection has ended: how far the server has come, if that is known.
    pub(super) fn end(&mut self, sides: &Sides) -> Option<Last> {
        self.streams.remove(sides)?.last
    }

    /// A number that nobody else can tell, and that grows with time for equal sides (RFC 6528): a server that still
    /// remembers an earlier connection accepts a new one.
    fn open(&mut self, now: Instant, sides: Sides, sequence: u32) -> u32 {
        if let Some(stream) = self.streams.get(&sides) {
            // It comes again, or its server has answered and knows it by these numbers.
            if stream.initial == sequence || stream.first_data.is_some() {
                return stream.delta;
            }
        }
        if self.streams.len() >= MAX_STREAMS && !self.streams.contains_key(&sides) {
            return 0;
        }
        let age = now.saturating_duration_since(*self.epoch.get_or_insert(now));
        let ticks = (age.as_nanos() / NANOS_PER_NUMBER) as u32;
        let initial = (self.secret.hash_one(sides) as u32).wrapping_add(ticks);
        let delta = initial.wrapping_sub(sequence);
        let stream = Stream {
            initial: sequence,
            delta,
            first_data: None,
            last: None,
        };
        self.streams.insert(sides, stream);
        delta
    }
}

const SYN: u8 = 2;
const NANOS_PER_NUMBER: u128 = 64;
/// As many as a worker's balancer holds connections, by default.
const MAX_STREAMS: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ACK: u8 = 16;
    const RST: u8 = 4;

    fn sides() -> Sides {
        Sides {
            local: "10.0.0.200:33001".parse().unwrap(),
            server: "10.0.0.11:8080".parse().unwrap(),
        }
    }

    fn segment(flags: u8, sequence: u32, acknowledgement: u32, payload: usize) -> Segment {
        Segment {
            sequence,
            acknowledgement: (flags & ACK != 0).then_some(acknowledgement),
            flags,
            payload,
        }
    }

    #[test]
    fn a_client_is_introduced_until_it_has_seen_data() {
        let (mut streams, now) = (Streams::new(), Instant::now());
        let mut send = |segment: Segment| streams.client_sent(now, sides(), Some(&segment));
        let ToServer { delta, introduces } = send(segment(SYN, 1000, 0, 0));
        assert!(!introduces);
        assert_eq!(
            send(segment(SYN, 1000, 0, 0)).delta,
            delta,
            "it comes again"
        );
        let anew = send(segment(SYN, 5000, 0, 0)).delta;
        assert_ne!(anew, delta, "no answer yet: another attempt");
        let accept = segment(SYN | ACK, 777, anew.wrapping_add(5001), 0);
        assert_eq!(streams.server_sent(sides(), Some(&accept)), anew);
        let mut send = |segment: Segment| streams.client_sent(now, sides(), Some(&segment));
        for payload in [0, 100] {
            let sent = send(segment(ACK, 5001, 778, payload));
            assert_eq!(
                sent,
                ToServer {
                    delta: anew,
                    introduces: true
                }
            );
        }
        for other in [
            segment(ACK, 5001, 779, 0),
            segment(ACK | RST, 5001, 778, 0),
            segment(SYN | ACK, 5001, 778, 0),
            segment(RST, 5001, 0, 0),
        ] {
            assert_eq!(
                send(other),
                ToServer {
                    delta: anew,
                    introduces: false
                }
            );
        }
        assert_eq!(
            send(segment(SYN, 9000, 0, 0)).delta,
            anew,
            "the server knows it"
        );
    }

    #[test]
    fn numbers_grow_with_time_and_differ_by_sides() {
        let (mut streams, now) = (Streams::new(), Instant::now());
        let mut initial = |at, sides: Sides, sequence: u32| {
            let syn = segment(SYN, sequence, 0, 0);
            let delta = streams.client_sent(at, sides, Some(&syn)).delta;
            streams.end(&sides);
            delta.wrapping_add(sequence)
        };
        let first = initial(now, sides(), 1);
        let second = initial(now + Duration::from_secs(1), sides(), 4_000_000_000);
        assert_eq!(second.wrapping_sub(first), 15_625_000);
        let other = Sides {
            local: "10.0.0.200:33002".parse().unwrap(),
            ..sides()
        };
        assert_ne!(initial(now, other, 1), first);
    }

    #[test]
    fn the_end_tells_how_far_the_server_came() {
        let (mut streams, now) = (Streams::new(), Instant::now());
        assert_eq!(streams.end(&sides()), None);
        let syn = segment(SYN, u32::MAX, 0, 0);
        let delta = streams.client_sent(now, sides(), Some(&syn)).delta;
        assert_eq!(streams.delta(&sides()), delta);
        let mut answer = |segment: Segment| streams.server_sent(sides(), Some(&segment));
        answer(segment(SYN | ACK, u32::MAX, delta, 0));
        answer(segment(ACK, 0, delta.wrapping_add(10), 100));
        // One from before, and a reset, tell nothing new.
        answer(segment(ACK, 0, delta, 0));
        answer(segment(ACK | RST, 5, delta.wrapping_add(99), 0));
        let last = Last {
            next: 100,
            expected: delta.wrapping_add(10),
        };
        assert_eq!(streams.end(&sides()), Some(last));
        assert_eq!(streams.end(&sides()), None);
    }

    #[test]
    fn what_is_not_remembered_is_not_changed() {
        let (mut streams, now) = (Streams::new(), Instant::now());
        let data = segment(ACK, 1, 2, 3);
        assert_eq!(
            streams.client_sent(now, sides(), Some(&data)),
            ToServer::default()
        );
        assert_eq!(streams.client_sent(now, sides(), None), ToServer::default());
        assert_eq!(streams.server_sent(sides(), Some(&data)), 0);
        assert_eq!(streams.delta(&sides()), 0);
    }
}
