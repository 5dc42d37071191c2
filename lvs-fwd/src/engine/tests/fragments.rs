//! Datagrams in fragments: each part goes where the first one went.

use super::*;

/// Cuts a packet into fragments with so many bytes of payload each.
fn cut(frame: &Frame, size: usize) -> Vec<Frame> {
    assert_eq!(size % 8, 0);
    let (head, payload) = frame.bytes().split_at(34);
    let count = payload.len().div_ceil(size);
    let part = |(at, chunk): (usize, &[u8])| {
        let mut frame = Frame::from_bytes(&[head, chunk].concat());
        let bytes = frame.bytes_mut();
        bytes[16..18].copy_from_slice(&(20 + chunk.len() as u16).to_be_bytes());
        let more = if at + 1 < count { 0x2000 } else { 0 };
        bytes[20..22].copy_from_slice(&((at * size / 8) as u16 | more).to_be_bytes());
        fix_header(&mut frame);
        frame
    };
    payload.chunks(size).enumerate().map(part).collect()
}

/// The packet that these fragments make, in whatever order they came.
fn join(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut by_offset = BTreeMap::new();
    for part in parts {
        let ip = Ipv4Packet::new(part).unwrap();
        assert_eq!(ip.get_checksum(), pnet_packet::ipv4::checksum(&ip));
        by_offset.insert(usize::from(ip.get_fragment_offset()) * 8, part);
    }
    let mut whole = parts[0][..20].to_vec();
    for (offset, part) in by_offset {
        assert_eq!(offset, whole.len() - 20, "no gap, no overlap");
        whole.extend_from_slice(&part[20..]);
    }
    let length = whole.len() as u16;
    whole[2..4].copy_from_slice(&length.to_be_bytes());
    whole[6..8].fill(0);
    let mut frame = Frame::from_bytes(&[&[0; 14], &whole[..]].concat());
    fix_header(&mut frame);
    frame.bytes()[14..].to_vec()
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 / 7) as u8).collect()
}

fn query(length: usize, ident: u16) -> Frame {
    let mut frame = udp((CLIENT, 40000), (VIP, 53), &payload(length));
    frame.bytes_mut()[18..20].copy_from_slice(&ident.to_be_bytes());
    frame
}

/// The query after so many hops, to another receiver.
fn query_to(length: usize, destination: ([u8; 4], u16), hops: u8) -> Vec<u8> {
    let mut frame = udp((CLIENT, 40000), destination, &payload(length));
    frame.bytes_mut()[22] -= hops;
    frame.bytes_mut()[18..22].copy_from_slice(&[0, 7, 0, 0]);
    fix_header(&mut frame);
    frame.bytes()[14..].to_vec()
}

impl Bench {
    fn feed(&mut self, port: PortId, frames: Vec<Frame>, verdict: Verdict) -> usize {
        let mut frames = frames;
        let mut asked = 0;
        self.engine.process(
            self.now,
            &self.view,
            port,
            &mut frames,
            &mut Script(|_: &PacketInfo| {
                asked += 1;
                verdict
            }),
            &mut self.output,
        );
        asked
    }

    fn all_sent(&self, port: PortId, mac: [u8; 6]) -> Vec<Vec<u8>> {
        (0..self.output.transmit.len())
            .map(|at| sent(&self.output, at, port, mac))
            .collect()
    }

    fn to_host(&self) -> Vec<Vec<u8>> {
        self.output
            .host
            .iter()
            .map(|frame| frame.bytes().to_vec())
            .collect()
    }
}

const PART: usize = 1480;

#[test]
fn every_part_follows_the_first_and_the_whole_is_right() {
    for together in [true, false] {
        let mut bench = Bench::new();
        let parts = cut(&query(8192, 7), PART);
        assert_eq!(parts.len(), 6);
        let mut asked = 0;
        if together {
            asked += bench.feed(OUTSIDE, parts, nat(11, 5353));
        } else {
            for part in parts {
                asked += bench.feed(OUTSIDE, vec![part], nat(11, 5353));
            }
        }
        assert_eq!(asked, 1, "only the first one is the balancer's to judge");
        let whole = join(&bench.all_sent(INSIDE, server_mac(11)));
        assert_checksums(&whole);
        assert_eq!(whole, query_to(8192, ([10, 0, 0, 11], 5353), 1));
        assert_eq!(bench.events(Event::Fragments), 6);
        assert_eq!(bench.events(Event::FragmentsHeld), 0);
    }
}

#[test]
fn parts_that_come_before_the_first_wait_for_it() {
    let mut bench = Bench::new();
    let mut parts = cut(&query(8192, 7), PART);
    parts.reverse();
    let first = parts.pop().unwrap();
    bench.feed(OUTSIDE, parts, nat(11, 5353));
    assert!(bench.is_silent());
    assert_eq!(bench.events(Event::FragmentsHeld), 5);
    assert!(bench.engine.poll_timeout().is_some());
    bench.feed(OUTSIDE, vec![first], nat(11, 5353));
    let whole = join(&bench.all_sent(INSIDE, server_mac(11)));
    assert_eq!(whole, query_to(8192, ([10, 0, 0, 11], 5353), 1));
}

#[test]
fn replies_in_fragments_get_the_virtual_address_back() {
    let mut frame = udp(([10, 0, 0, 11], 8080), (CLIENT, 40000), &payload(4000));
    let mut bench = Bench::new();
    bench.feed(INSIDE, cut(&frame, PART), un_nat());
    let whole = join(&bench.all_sent(OUTSIDE, ROUTER_MAC));
    assert_checksums(&whole);
    assert_eq!((&whole[12..16], &whole[20..22]), (&VIP[..], &[0, 80][..]));
    assert_eq!(whole[28..], payload(4000));

    // The same of a server on the director itself; what the host sends has made no hop.
    frame.bytes_mut()[26..30].copy_from_slice(&[10, 0, 0, 1]);
    fix_header(&mut frame);
    let mut bench = Bench::new();
    for mut part in cut(&frame, PART) {
        part.trim_front(14);
        bench.engine.process_host(
            bench.now,
            &bench.view,
            &mut vec![part],
            &mut Script(|_: &PacketInfo| un_nat()),
            &mut bench.output,
        );
    }
    let whole = join(&bench.all_sent(OUTSIDE, ROUTER_MAC));
    assert_eq!((whole[8], &whole[12..16]), (64, &VIP[..]));
}

#[test]
fn without_nat_parts_stay_as_they_are() {
    let mut bench = Bench::new();
    bench.feed(OUTSIDE, cut(&query(4000, 7), PART), dr(12));
    let whole = join(&bench.all_sent(INSIDE, server_mac(12)));
    assert_eq!(whole, query_to(4000, (VIP, 53), 1));

    // Each part in a packet of its own, in fragments where that gets too long.
    let tunnel = Verdict::Forward(Method::Tunnel {
        rip: [10, 0, 0, 11].into(),
        encapsulation: Encapsulation::Ipip,
    });
    let mut bench = Bench::new();
    bench.feed(OUTSIDE, cut(&query(4000, 7), 1400), tunnel);
    let parts: Vec<Vec<u8>> = bench
        .all_sent(INSIDE, server_mac(11))
        .into_iter()
        .map(|packet| packet[20..].to_vec())
        .collect();
    assert_eq!(join(&parts), query_to(4000, (VIP, 53), 1));
}

#[test]
fn parts_of_what_is_not_ours_are_the_hosts() {
    let frames = cut(&query(4000, 7), PART);
    let originals: Vec<Vec<u8>> = frames
        .iter()
        .map(|part| part.bytes()[14..].to_vec())
        .collect();
    let mut bench = Bench::new();
    bench.feed(OUTSIDE, frames, Verdict::NotOurs);
    assert_eq!(bench.to_host(), originals);

    // Another port of the address: the host has got the first part already.
    let other = udp((CLIENT, 40000), (VIP, 54), &payload(4000));
    let frames = cut(&other, PART);
    let originals: Vec<Vec<u8>> = frames
        .iter()
        .map(|part| part.bytes()[14..].to_vec())
        .collect();
    for in_order in [true, false] {
        let mut frames = frames.clone();
        if !in_order {
            frames.reverse();
        }
        let mut bench = Bench::new();
        assert_eq!(bench.feed(OUTSIDE, frames, nat(11, 5353)), 0);
        let mut host = bench.to_host();
        host.sort();
        let mut expected = originals[1..].to_vec();
        expected.sort();
        assert_eq!(host, expected);
    }

    // What a server sends from another port goes the host's way too, whose filters want to see all of it.
    let other = udp(([10, 0, 0, 11], 9999), (CLIENT, 40000), &payload(4000));
    let mut bench = Bench::new();
    bench.feed(INSIDE, cut(&other, PART), un_nat());
    assert_eq!(
        (bench.output.host.len(), bench.output.transmit.len()),
        (2, 0)
    );

    // To the director itself and of other protocols: nothing is taken.
    let check = udp(
        ([10, 0, 0, 11], 8080),
        ([10, 0, 0, 1], 40000),
        &payload(4000),
    );
    let mut bench = Bench::new();
    bench.feed(INSIDE, cut(&check, PART), un_nat());
    assert!(bench.is_silent());
    assert_eq!(bench.left(LeftReason::Fragment), 3);
}

#[test]
fn parts_without_a_first_are_given_up() {
    let mut bench = Bench::new();
    let parts = cut(&query(4000, 7), PART);
    bench.feed(OUTSIDE, parts[1..].to_vec(), nat(11, 5353));
    let at = bench.engine.poll_timeout().unwrap();
    assert_eq!(at, bench.now + Duration::from_secs(1));
    bench.engine.handle_timeout(
        at - Duration::from_millis(1),
        &bench.view,
        &mut bench.output,
    );
    assert!(bench.is_silent());
    bench
        .engine
        .handle_timeout(at, &bench.view, &mut bench.output);
    assert_eq!(bench.output.host.len(), 2);
    assert_eq!(bench.engine.poll_timeout(), None);
    // The first one comes too late and finds nobody.
    bench.now = at;
    bench.feed(OUTSIDE, parts[..1].to_vec(), nat(11, 5353));
    assert_eq!(bench.output.transmit.len(), 1);
}

#[test]
fn what_is_remembered_ends_and_is_replaced() {
    let mut bench = Bench::new();
    let parts = cut(&query(4000, 7), PART);
    bench.feed(OUTSIDE, parts[..1].to_vec(), nat(11, 5353));
    bench.now += Duration::from_secs(29);
    bench.feed(OUTSIDE, parts[1..2].to_vec(), nat(11, 5353));
    assert_eq!(bench.output.transmit.len(), 2);
    bench.now += Duration::from_secs(1);
    bench.feed(OUTSIDE, parts[1..2].to_vec(), nat(11, 5353));
    assert_eq!(bench.output.transmit.len(), 2);
    assert_eq!(bench.events(Event::FragmentsHeld), 1);
    // The number is used again, for another server.
    bench.feed(OUTSIDE, parts[..1].to_vec(), nat(12, 5353));
    bench.feed(OUTSIDE, parts[2..].to_vec(), nat(11, 5353));
    assert_eq!(bench.output.transmit.len(), 5);
    for at in 2..5 {
        sent(&bench.output, at, INSIDE, server_mac(12));
    }
}

#[test]
fn memory_is_bounded() {
    let mut bench = Bench::new();
    // One datagram's parts.
    let parts = cut(&query(800, 1), 8);
    bench.feed(OUTSIDE, parts[1..].to_vec(), nat(11, 5353));
    assert_eq!(bench.events(Event::FragmentsHeld), 64);
    assert_eq!(bench.drops(DropReason::FragmentLost), 36);
    // All that wait.
    for ident in 2..1000 {
        let parts = cut(&query(16, ident), 8);
        bench.feed(OUTSIDE, parts[1..2].to_vec(), nat(11, 5353));
    }
    assert_eq!(bench.events(Event::FragmentsHeld), 256);
    bench.now += Duration::from_secs(2);
    bench
        .engine
        .handle_timeout(bench.now, &bench.view, &mut bench.output);
    assert_eq!(bench.output.host.len(), 256);
    // All that are remembered: the oldest is forgotten.
    bench.output.clear();
    for ident in 0..5000 {
        let parts = cut(&query(16, ident), 8);
        bench.feed(OUTSIDE, parts[..1].to_vec(), nat(11, 5353));
    }
    bench.output.clear();
    for (ident, is_known) in [(0, false), (903, false), (1000, true), (4999, true)] {
        let parts = cut(&query(16, ident), 8);
        bench.feed(OUTSIDE, parts[1..2].to_vec(), nat(11, 5353));
        assert_eq!(bench.output.transmit.len() == 1, is_known, "{ident}");
        bench.output.clear();
    }
}

#[test]
fn parts_that_lie_or_overlap_are_dropped() {
    let whole = query(4000, 7);
    let parts = cut(&whole, PART);
    let changed = |at: usize, change: fn(&mut Frame)| {
        let mut frame = parts[at].clone();
        change(&mut frame);
        fix_header(&mut frame);
        frame
    };
    let mut sum = parts[0].clone();
    sum.bytes_mut()[24] ^= 1;
    let mut short = cut(&request(64, &[7; 100]), 8).swap_remove(0);
    short.bytes_mut()[20] = 0x20;
    fix_header(&mut short);
    let table = [
        ("header checksum", sum, DropReason::Malformed),
        ("TCP header cut", short, DropReason::Malformed),
        (
            "odd length",
            changed(0, |frame| {
                frame.truncate(14 + 20 + 1001);
                frame.bytes_mut()[16..18].copy_from_slice(&1021u16.to_be_bytes());
            }),
            DropReason::Malformed,
        ),
        (
            "beyond the end",
            changed(2, |frame| {
                frame.bytes_mut()[20..22].copy_from_slice(&[0x1f, 0xff]);
            }),
            DropReason::Malformed,
        ),
        (
            "UDP length",
            changed(0, |frame| frame.bytes_mut()[38..40].fill(0)),
            DropReason::Malformed,
        ),
        (
            "loopback source",
            changed(1, |frame| frame.bytes_mut()[26] = 127),
            DropReason::MartianSource,
        ),
    ];
    for (name, frame, reason) in table {
        let mut bench = Bench::new();
        bench.feed(OUTSIDE, vec![frame], nat(11, 5353));
        assert!(bench.is_silent(), "{name}");
        assert_eq!(bench.drops(reason), 1, "{name}");
    }
    // RFC 3128: a part over the transport header.
    let over = changed(1, |frame| {
        frame.bytes_mut()[20..22].copy_from_slice(&[0x20, 1]);
    });
    let mut bench = Bench::new();
    bench.feed(OUTSIDE, vec![parts[0].clone(), over], nat(11, 5353));
    assert_eq!(bench.output.transmit.len(), 1);
    assert_eq!(bench.drops(DropReason::FragmentOverlap), 1);
}

#[test]
fn a_refused_datagram_is_refused_once() {
    let mut bench = Bench::new();
    bench.feed(OUTSIDE, cut(&query(4000, 7), PART), Verdict::Reject);
    let [reply] = &bench.all_sent(OUTSIDE, ROUTER_MAC)[..] else {
        panic!("one error");
    };
    assert_eq!(reply[20..22], [3, 3]);
    assert_eq!(bench.drops(DropReason::Rejected), 3);

    let mut bench = Bench::new();
    bench.view.hostless = true;
    let segment = request(64, &[0; 4000]);
    bench.feed(OUTSIDE, cut(&segment, PART), Verdict::NotOurs);
    let [reset] = &bench.all_sent(OUTSIDE, ROUTER_MAC)[..] else {
        panic!("one reset");
    };
    // All of the payload is acknowledged, and the SYN.
    assert_eq!(reset[28..32], (7u32 + 4001).to_be_bytes());
    assert_eq!(bench.drops(DropReason::NoHost), 1);
}

#[test]
fn all_parts_meet_one_worker() {
    let owner = steer::owner(CLIENT.into(), 2);
    let mut bench = Bench::new();
    bench.engine = Engine::new(EngineConfig {
        worker: 1 - owner,
        workers: 2,
        ..EngineConfig::default()
    });
    bench.feed(OUTSIDE, cut(&query(4000, 7), PART), nat(11, 5353));
    let mut handoffs: Vec<Handoff> = bench
        .output
        .handoff
        .drain(..)
        .map(|(worker, handoff)| {
            assert_eq!(worker, owner);
            handoff
        })
        .collect();
    assert_eq!(handoffs.len(), 3);
    bench.engine = Engine::new(EngineConfig {
        worker: owner,
        workers: 2,
        ..EngineConfig::default()
    });
    bench.engine.process_handoff(
        bench.now,
        &bench.view,
        &mut handoffs,
        &mut Script(|_: &PacketInfo| nat(11, 5353)),
        &mut bench.output,
    );
    let whole = join(&bench.all_sent(INSIDE, server_mac(11)));
    assert_eq!(whole, query_to(4000, ([10, 0, 0, 11], 5353), 1));
}

proptest! {
    #[test]
    fn any_order_and_size_makes_the_same_whole(
        length in 30usize..6000,
        size in 3usize..200,
        order in any::<[u16; 32]>(),
        split in 0usize..10,
        is_tcp in any::<bool>(),
    ) {
        let size = (size * 8).max(length.div_ceil(30).next_multiple_of(8));
        let whole = if is_tcp { request(64, &payload(length)) } else { query(length, 7) };
        let mut parts: Vec<(u16, Frame)> =
            cut(&whole, size).into_iter().enumerate().map(|(at, part)| (order[at % 32], part)).collect();
        parts.sort_by_key(|(key, _)| *key);
        let mut parts: Vec<Frame> = parts.into_iter().map(|(_, part)| part).collect();
        prop_assume!(parts.len() > 1);
        let mut bench = Bench::new();
        let rest = parts.split_off(split.min(parts.len()));
        bench.feed(OUTSIDE, parts, nat(11, 8080));
        bench.feed(OUTSIDE, rest, nat(11, 8080));
        let together = join(&bench.all_sent(INSIDE, server_mac(11)));
        assert_checksums(&together);
        let mut direct = Bench::new();
        direct.view.ports = direct.view.ports.iter().cloned().map(|port| Port { mtu: 9000, ..port }).collect();
        let mut whole = whole;
        whole.bytes_mut()[20..22].fill(0);
        fix_header(&mut whole);
        direct.run(OUTSIDE, whole, nat(11, 8080));
        prop_assert_eq!(together, direct.all_sent(INSIDE, server_mac(11)).remove(0));
    }

    #[test]
    fn no_fragments_make_it_panic(
        frames in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..60), 0u16..5, any::<bool>(), 0u8..3, 0usize..9),
            1..20,
        ),
    ) {
        let mut bench = Bench::new();
        for (body, offset, more, ident, choice) in frames {
            let mut frame = query(0, u16::from(ident));
            let head = frame.bytes()[..34].to_vec();
            frame = Frame::from_bytes(&[head, body.clone()].concat());
            let bytes = frame.bytes_mut();
            bytes[16..18].copy_from_slice(&(20 + body.len() as u16).to_be_bytes());
            bytes[20..22].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
            if choice % 2 == 0 && body.len() >= 8 {
                bytes[36..40].copy_from_slice(&[0, 53, 0, 200]);
            }
            fix_header(&mut frame);
            let verdict = [nat(11, 8080), nat(1, 80), nat(13, 80), dr(12), un_nat(), Verdict::NotOurs,
                Verdict::Reject, Verdict::Drop(3), dr(1)][choice];
            bench.run(OUTSIDE, frame, verdict);
            bench.now += Duration::from_millis(300);
            let now = bench.now;
            bench.engine.handle_timeout(now, &bench.view, &mut bench.output);
        }
    }
}
