//! AF_PACKET rings on a veth pair, in a network namespace of the test's own.
//!
//! As root or in a user namespace where that is allowed; otherwise it says that it was skipped.

// Without the harness nothing tells clippy that this is a test.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lvs_fwd::balancer::{Balancer, Method, Packets, Verdict};
use lvs_fwd::checksum;
use lvs_fwd::device::Device;
use lvs_fwd::device::ring::{Fanout, Ring, RingConfig};
use lvs_fwd::frame::{ChecksumState, Frame, Gso, GsoKind, PacketKind};
use lvs_fwd::route::{
    Hop, Neighbour, NeighbourState, NeighbourTable, NextHop, Prefix, Route, RouteTable,
};
use lvs_fwd::runner::{self, RunnerConfig};
use lvs_fwd::steer;
use lvs_fwd::view::{ClaimSet, Endpoint, Port, PortId, View};
use support::{End, enter_namespace, say, veth};

fn main() {
    if let Err(why) = enter_namespace() {
        say(&format!("skipped: no network namespace: {why}"));
        return;
    }
    let (a, b) = match veth("near", "far") {
        Ok(pair) => pair,
        Err(why) => {
            say(&format!("skipped: no veth pair: {why}"));
            return;
        }
    };
    let tests: [(&str, Test); 9] = [
        (
            "frames_arrive_as_they_were_sent",
            frames_arrive_as_they_were_sent,
        ),
        ("slots_come_back_in_any_order", slots_come_back_in_any_order),
        (
            "offload_requests_travel_along",
            offload_requests_travel_along,
        ),
        (
            "long_and_short_frames_stay_in_order",
            long_and_short_frames_stay_in_order,
        ),
        (
            "long_frames_that_wait_are_bounded",
            long_frames_that_wait_are_bounded,
        ),
        (
            "a_full_ring_drops_and_recovers",
            a_full_ring_drops_and_recovers,
        ),
        (
            "frames_beyond_the_mtu_are_refused_and_counted",
            frames_beyond_the_mtu_are_refused_and_counted,
        ),
        (
            "the_fan_out_agrees_with_the_owner",
            the_fan_out_agrees_with_the_owner,
        ),
        (
            "a_worker_translates_from_ring_to_ring",
            a_worker_translates_from_ring_to_ring,
        ),
    ];
    for (name, test) in tests {
        test(&a, &b);
        say(&format!("test {name} ... ok"));
    }
}

type Test = fn(&End, &End);

fn frames_arrive_as_they_were_sent(a: &End, b: &End) {
    let (mut near, mut far) = (open(a, 256), open(b, 256));
    for len in [60, 61, 1000, 1514] {
        let frame = frame(b, a, len, 7);
        far.transmit(frame.clone());
        far.flush().unwrap();
        let got = receive(&mut near, 1);
        assert_eq!(got[0].bytes(), frame.bytes());
        assert_eq!(got[0].meta.kind, PacketKind::Host);
        assert_eq!(got[0].meta.checksum, ChecksumState::Complete);
        assert!(!got[0].is_owned(), "straight from the ring");
    }
    far.transmit(frame(
        b,
        &End {
            ifindex: 0,
            mac: [2, 9, 9, 9, 9, 9],
        },
        60,
        1,
    ));
    far.flush().unwrap();
    assert_eq!(receive(&mut near, 1)[0].meta.kind, PacketKind::OtherHost);
    // What a socket sends itself is not received by it.
    assert!(receive(&mut far, 0).is_empty());
}

fn slots_come_back_in_any_order(a: &End, b: &End) {
    let (mut near, mut far) = (open(a, 15), open(b, 15));
    let mut kept = Vec::new();
    let mut expected = 0u8;
    // Several rounds of a ring of 75, with every third frame kept for five more.
    for turn in 0..80u8 {
        for n in 0..3 {
            far.transmit(frame(b, a, 100, turn.wrapping_mul(3).wrapping_add(n)));
        }
        far.flush().unwrap();
        for (n, frame) in receive(&mut near, 3).into_iter().enumerate() {
            assert_eq!(frame.bytes()[99], expected, "in order");
            expected = expected.wrapping_add(1);
            if n == 0 {
                kept.push((turn, frame));
            }
        }
        // The newest of the old ones first, so that slots return out of order.
        if kept.len() == 4 {
            for (turn, frame) in kept.drain(..).rev() {
                assert_eq!(
                    frame.bytes()[99],
                    turn.wrapping_mul(3),
                    "nobody wrote to a slot that was out"
                );
            }
        }
    }
    // Sent from the slot that it came in.
    far.transmit(frame(b, a, 100, 200));
    far.flush().unwrap();
    let mut back = receive(&mut near, 1).remove(0);
    back.bytes_mut()[..12].copy_from_slice(&[b.mac, a.mac].concat());
    near.transmit(back);
    near.flush().unwrap();
    assert_eq!(receive(&mut far, 1)[0].bytes()[99], 200);
}

fn offload_requests_travel_along(a: &End, b: &End) {
    let (mut near, mut far) = (open(a, 256), open(b, 256));
    let mut bytes = Vec::new();
    etherparse::PacketBuilder::ethernet2(b.mac, a.mac)
        .ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64)
        .tcp(1, 2, 3, 4)
        .write(&mut bytes, &vec![5; 40_000])
        .unwrap();
    let mut frame = Frame::from_bytes(&bytes);
    frame.meta.checksum = ChecksumState::Partial {
        start: 34,
        offset: 16,
    };
    frame.meta.gso = Some(Gso {
        kind: GsoKind::Tcp4,
        ecn: false,
        size: 1448,
        header_len: 54,
    });
    far.transmit(frame.clone());
    far.flush().unwrap();
    assert_eq!(far.counters().too_long, 0);
    let got = receive(&mut near, 1);
    assert_eq!(got[0].bytes(), frame.bytes());
    assert_eq!(got[0].meta.checksum, frame.meta.checksum);
    let gso = got[0].meta.gso.unwrap();
    assert_eq!((gso.kind, gso.size), (GsoKind::Tcp4, 1448));
}

/// Frames longer than a slot go another way than short ones; both keep their order.
fn long_and_short_frames_stay_in_order(a: &End, b: &End) {
    let (mut near, mut far) = (open(a, 75), open(b, 75));
    let mut expected = Vec::new();
    for turn in 0..60u8 {
        for size in [
            60 + usize::from(turn),
            1514,
            3_000 + usize::from(turn),
            50_000,
        ] {
            let mut bytes = Vec::new();
            etherparse::PacketBuilder::ethernet2(b.mac, a.mac)
                .ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64)
                .tcp(1, 2, u32::from(turn), 4)
                .write(&mut bytes, &vec![turn; size - 54])
                .unwrap();
            let mut frame = Frame::from_bytes(&bytes);
            if size > 1514 {
                frame.meta.checksum = ChecksumState::Partial {
                    start: 34,
                    offset: 16,
                };
                frame.meta.gso = Some(Gso {
                    kind: GsoKind::Tcp4,
                    ecn: false,
                    size: 1448,
                    header_len: 54,
                });
            }
            far.transmit(frame);
            expected.push(bytes);
        }
        far.flush().unwrap();
        // In two parts, so that one begins in the middle.
        let mut got = receive(&mut near, 2);
        if got.len() < 4 {
            let rest = receive(&mut near, 4 - got.len());
            got.extend(rest);
        }
        for (frame, bytes) in got.iter().zip(expected.drain(..)) {
            assert_eq!(frame.bytes(), bytes, "in turn {turn}");
            assert_eq!(frame.meta.gso.is_some(), bytes.len() > 1514);
            assert_eq!(frame.is_owned(), bytes.len() > 1514);
        }
    }
    assert_eq!(near.counters().overruns, 0);
}

fn long_frames_that_wait_are_bounded(a: &End, b: &End) {
    let (mut near, mut far) = (open(a, 1000), open(b, 75));
    for turn in 0..1000u32 {
        let mut frame = frame(b, a, 60_000, turn as u8);
        frame.bytes_mut()[16..18].copy_from_slice(&59_986u16.to_be_bytes());
        frame.bytes_mut()[23] = 6;
        frame.bytes_mut()[46] = 0x50;
        frame.meta.checksum = ChecksumState::Partial {
            start: 34,
            offset: 16,
        };
        frame.meta.gso = Some(Gso {
            kind: GsoKind::Tcp4,
            ecn: false,
            size: 1448,
            header_len: 54,
        });
        far.transmit(frame);
        far.flush().unwrap();
    }
    let got = receive(&mut near, 1).len() as u64;
    let mut rest = 0;
    for _ in 0..1000 {
        let mut frames = Vec::new();
        near.receive(&mut frames, 64).unwrap();
        rest += frames.iter().filter(|frame| frame.len() == 60_000).count() as u64;
    }
    let counters = near.counters();
    assert!(counters.overruns > 0, "{counters:?}");
    assert_eq!(got + rest + counters.overruns, 1000, "{counters:?}");
    far.transmit(frame(b, a, 100, 222));
    far.flush().unwrap();
    assert_eq!(receive(&mut near, 1)[0].bytes()[99], 222);
}

fn a_full_ring_drops_and_recovers(a: &End, b: &End) {
    let (mut near, mut far) = (open(a, 75), open(b, 75));
    for n in 0..200 {
        far.transmit(frame(b, a, 100, n));
    }
    far.flush().unwrap();
    let got = receive(&mut near, 75);
    assert_eq!(got.len(), 75);
    drop(got);
    let counters = near.counters();
    assert!(counters.overruns >= 125, "{counters:?}");
    far.transmit(frame(b, a, 100, 222));
    far.flush().unwrap();
    assert_eq!(receive(&mut near, 1)[0].bytes()[99], 222);
}

fn frames_beyond_the_mtu_are_refused_and_counted(a: &End, b: &End) {
    let (mut near, mut far) = (open(a, 15), open(b, 15));
    far.transmit(frame(b, a, 100, 1));
    far.transmit(frame(b, a, 1515, 2));
    far.transmit(frame(b, a, 100, 3));
    far.flush().unwrap();
    let got: Vec<u8> = receive(&mut near, 2)
        .iter()
        .map(|frame| frame.bytes()[99])
        .collect();
    assert_eq!(got, [1, 3]);
    let counters = far.counters();
    assert_eq!((counters.transmitted, counters.too_long), (2, 1));
}

fn the_fan_out_agrees_with_the_owner(a: &End, b: &End) {
    let vip = [192, 0, 2, 10];
    let mut far = open(b, 256);
    let mut workers: Vec<Ring> = (0..3)
        .map(|_| {
            let fanout = Some(Fanout {
                group: 77,
                workers: 3,
                vips: vec![],
            });
            Ring::open(&RingConfig {
                fanout,
                ..RingConfig::new(a.ifindex)
            })
            .unwrap()
        })
        .collect();
    // The program is replaced while frames could arrive.
    workers[0].set_steering(&[IpAddr::from(vip)]).unwrap();
    let mut sent = 0;
    for n in 0..60u8 {
        let client = [203, 0, 113, n];
        for (source, destination) in [(client, vip), ([10, 0, 0, 11], client)] {
            let mut bytes = Vec::new();
            etherparse::PacketBuilder::ethernet2(b.mac, a.mac)
                .ipv4(source, destination, 64)
                .udp(1, 2)
                .write(&mut bytes, &[n; 30])
                .unwrap();
            far.transmit(Frame::from_bytes(&bytes));
            sent += 1;
        }
    }
    far.flush().unwrap();
    let mut got = 0;
    for (number, worker) in workers.iter_mut().enumerate() {
        for frame in receive(worker, 0) {
            let client = IpAddr::from([203, 0, 113, frame.bytes()[42]]);
            assert_eq!(steer::owner(client, 3), number as u32);
            got += 1;
        }
    }
    assert_eq!(got, sent);
}

/// A super-packet with an unfinished checksum goes in, and comes out translated, still unfinished.
fn a_worker_translates_from_ring_to_ring(a: &End, b: &End) {
    struct ToServer;
    impl Balancer for ToServer {
        fn decide(&mut self, _: Instant, packets: &Packets<'_>, verdicts: &mut Vec<Verdict>) {
            let rip = SocketAddr::from(([10, 0, 0, 11], 8080));
            verdicts.extend(
                packets
                    .iter()
                    .map(|_| Verdict::Forward(Method::Nat { rip })),
            );
        }
    }
    let vip = [192, 0, 2, 10];
    let mut claims = ClaimSet::new();
    claims.insert_service(Endpoint {
        protocol: 6,
        addr: vip.into(),
        port: 80,
    });
    let mut routes = RouteTable::new();
    routes.insert(Route::new(
        Prefix::new(IpAddr::from([10, 0, 0, 0]), 24),
        NextHop::OnLink,
        a.ifindex,
    ));
    let mut neighbours = NeighbourTable::new();
    let hop = Hop {
        ifindex: a.ifindex,
        addr: [10, 0, 0, 11].into(),
    };
    neighbours.insert(
        hop,
        Neighbour {
            mac: b.mac,
            state: NeighbourState::Reachable,
        },
    );
    let view = View {
        claims: Arc::new(claims),
        routes: Arc::new(routes),
        neighbours: Arc::new(neighbours),
        ports: Arc::new([Port::new(PortId(0), a.ifindex, "near", a.mac)]),
        ..View::default()
    };
    let (_control, mut seats) = runner::new(RunnerConfig::default(), view).unwrap();
    let device = Box::new(open(a, 15));
    let mut worker = seats
        .remove(0)
        .start(ToServer, vec![(PortId(0), device)], None);
    let mut far = open(b, 15);
    for size in [0, 1000, 20_000] {
        let mut bytes = Vec::new();
        etherparse::PacketBuilder::ethernet2(b.mac, a.mac)
            .ipv4([203, 0, 113, 5], vip, 64)
            .tcp(50000, 80, 3, 4)
            .write(&mut bytes, &vec![5; size])
            .unwrap();
        let mut frame = Frame::from_bytes(&bytes);
        let pseudo = checksum::pseudo_header(
            [203, 0, 113, 5].into(),
            vip.into(),
            6,
            bytes.len() as u32 - 34,
        );
        frame.bytes_mut()[50..52].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
        frame.meta.checksum = ChecksumState::Partial {
            start: 34,
            offset: 16,
        };
        frame.meta.gso = (size > 1446).then_some(Gso {
            kind: GsoKind::Tcp4,
            ecn: false,
            size: 1446,
            header_len: 54,
        });
        far.transmit(frame);
        far.flush().unwrap();
        worker.run_once(Duration::from_secs(5)).unwrap();
        let mut got = receive(&mut far, 1).remove(0);
        assert!(matches!(
            got.meta.checksum,
            ChecksumState::Partial {
                start: 34,
                offset: 16
            }
        ));
        assert_eq!(got.meta.gso.is_some(), size > 1446);
        got.complete_checksum();
        let packet = pnet_packet::ipv4::Ipv4Packet::new(&got.bytes()[14..]).unwrap();
        let segment = pnet_packet::tcp::TcpPacket::new(&got.bytes()[34..]).unwrap();
        assert_eq!(packet.get_destination().octets(), [10, 0, 0, 11]);
        assert_eq!(packet.get_checksum(), pnet_packet::ipv4::checksum(&packet));
        assert_eq!(segment.get_destination(), 8080);
        assert_eq!(
            segment.get_checksum(),
            pnet_packet::tcp::ipv4_checksum(
                &segment,
                &packet.get_source(),
                &packet.get_destination()
            )
        );
    }
}

fn open(end: &End, slots: u32) -> Ring {
    let ring = Ring::open(&RingConfig {
        slots,
        ..RingConfig::new(end.ifindex)
    })
    .unwrap();
    assert!(ring.memory() >= slots as usize * 1_600);
    ring
}

/// An IPv4 frame whose last byte (and byte 99) is `mark`.
fn frame(from: &End, to: &End, len: usize, mark: u8) -> Frame {
    let mut bytes = [&to.mac[..], &from.mac, &[8, 0]].concat();
    bytes.resize(len, mark);
    bytes[14] = 0x45;
    Frame::from_bytes(&bytes)
}

/// IPv4 frames, waited for until there are `count`; the kernel's own IPv6 chatter is passed over.
fn receive(ring: &mut Ring, count: usize) -> Vec<Frame> {
    let end = Instant::now() + Duration::from_secs(5);
    let mut frames = Vec::new();
    loop {
        let mut batch = Vec::new();
        ring.receive(&mut batch, 64).unwrap();
        frames.extend(
            batch
                .into_iter()
                .filter(|frame| frame.bytes()[12..14] == [8, 0]),
        );
        if frames.len() >= count || Instant::now() > end {
            assert!(frames.len() >= count, "{} of {count} frames", frames.len());
            return frames;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
