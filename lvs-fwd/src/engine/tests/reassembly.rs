//! Datagrams that are put together before anybody looks at them.

use super::*;
use crate::wire::sctp;

/// An SCTP packet of a client, this many bytes of chunks.
fn packet(length: usize) -> Frame {
    let mut body = [0xc3, 0x50, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0].to_vec();
    body.extend((0..length).map(|n| (n * 31 / 7) as u8));
    sctp::Packet::new_checked(&mut body)
        .unwrap()
        .fill_checksum();
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(ROUTER_MAC, OUTSIDE_MAC)
        .ipv4(CLIENT, VIP, 64)
        .write(&mut bytes, etherparse::IpNumber(132), &body)
        .unwrap();
    bytes[20] = 0;
    let mut frame = Frame::from_bytes(&bytes);
    fix_header(&mut frame);
    frame
}

/// Part of a frame's payload, as a fragment.
fn part(frame: &Frame, from: usize, length: usize) -> Frame {
    let payload = &frame.bytes()[34..];
    let (from, end) = (from.min(payload.len()), (from + length).min(payload.len()));
    let mut part = Frame::from_bytes(&[&frame.bytes()[..34], &payload[from..end]].concat());
    let total = (20 + end - from) as u16;
    let word = (from / 8) as u16 | if end < payload.len() { 0x2000 } else { 0 };
    part.bytes_mut()[16..18].copy_from_slice(&total.to_be_bytes());
    part.bytes_mut()[20..22].copy_from_slice(&word.to_be_bytes());
    fix_header(&mut part);
    part
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    let claims = Arc::make_mut(&mut bench.view.claims);
    claims.insert_service(endpoint(132, VIP, 80));
    bench
}

/// The datagram in what was sent, whose pieces are in order.
fn whole(bench: &Bench) -> Vec<u8> {
    let mut body = Vec::new();
    let count = bench.output.transmit.len();
    for at in 0..count {
        let packet = sent(&bench.output, at, INSIDE, server_mac(11));
        let ip = Ipv4Packet::new(&packet).unwrap();
        assert_eq!(ip.get_checksum(), pnet_packet::ipv4::checksum(&ip));
        assert_eq!(usize::from(ip.get_fragment_offset()) * 8, body.len());
        assert_eq!(ip.get_flags(), u8::from(at + 1 < count));
        assert_eq!(ip.get_ttl(), 63);
        body.extend_from_slice(&packet[20..]);
    }
    body
}

#[test]
fn sctp_in_parts_gets_the_servers_port_and_a_right_checksum() {
    let frame = packet(4000);
    let parts: Vec<Frame> = (0..3).map(|n| part(&frame, n * 1400, 1400)).collect();
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        let mut bench = bench();
        for at in order {
            assert!(bench.output.transmit.is_empty());
            bench.run(OUTSIDE, parts[at].clone(), nat(11, 8080));
        }
        let body = whole(&bench);
        assert_eq!(bench.output.transmit.len(), 3, "in parts of the same size");
        assert_eq!(body[2..4], 8080u16.to_be_bytes());
        assert_eq!(body[12..], frame.bytes()[46..]);
        assert!(sctp::Packet::new_checked(&body).unwrap().verify_checksum());
        assert_eq!(bench.events(Event::Reassembled), 1);
        assert_eq!(bench.engine.poll_timeout(), None);
    }
}

#[test]
fn tcp_and_ipv6_in_parts_are_put_together_too() {
    let mut bench = super::ipv6::bench();
    let request = super::ipv6::request6(64, &[7; 2000]);
    let payload = &request.bytes()[54..];
    for (from, end) in [(0, 1200), (1200, payload.len())] {
        let word = from as u16 | u16::from(end < payload.len());
        let [high, low] = word.to_be_bytes();
        let header = [6, 0, high, low, 0, 0, 0, 9];
        let mut bytes = [&request.bytes()[..54], &header, &payload[from..end]].concat();
        let length = (8 + end - from) as u16;
        bytes[18..20].copy_from_slice(&length.to_be_bytes());
        bytes[20] = 44;
        bench.run(
            OUTSIDE,
            Frame::from_bytes(&bytes),
            super::ipv6::nat6(11, 8080),
        );
    }
    assert_eq!(bench.output.transmit.len(), 2);
    let mut body = Vec::new();
    for (_, frame) in &bench.output.transmit {
        assert!(frame.len() <= 14 + 1248);
        assert_eq!(frame.bytes()[20], 44);
        body.extend_from_slice(&frame.bytes()[62..]);
    }
    let rip: std::net::Ipv6Addr = super::ipv6::server(11).parse().unwrap();
    let tcp = TcpPacket::new(&body).unwrap();
    let sum = pnet_packet::tcp::ipv6_checksum(&tcp, &super::ipv6::CLIENT6.parse().unwrap(), &rip);
    assert_eq!((tcp.get_checksum(), tcp.get_destination()), (sum, 8080));
    assert_eq!(body[20..], payload[20..]);
}

#[test]
fn parts_that_contradict_each_other_cost_their_datagram() {
    let frame = packet(4000);
    let longer = packet(4800);
    let strays = [
        ("over the one before", part(&frame, 800, 1400)),
        ("over the next one", part(&frame, 1400, 1480)),
        ("beyond the end", part(&longer, 4016, 400)),
        ("another end", part(&packet(3980), 2800, 2000)),
    ];
    for (name, stray) in strays {
        let mut bench = bench();
        bench.run(OUTSIDE, part(&frame, 0, 1400), nat(11, 8080));
        bench.run(OUTSIDE, part(&frame, 2800, 1400), nat(11, 8080));
        bench.run(OUTSIDE, stray, nat(11, 8080));
        assert_eq!(bench.drops(DropReason::FragmentOverlap), 3, "{name}");
        // What comes later is of the same datagram.
        bench.run(OUTSIDE, part(&frame, 1400, 1400), nat(11, 8080));
        assert!(bench.is_silent());
        assert_eq!(bench.drops(DropReason::FragmentOverlap), 4, "{name}");
        bench.now += Duration::from_secs(30);
        let (now, view) = (bench.now, &bench.view);
        bench.engine.handle_timeout(now, view, &mut bench.output);
        assert_eq!(bench.engine.poll_timeout(), None);
    }
}

#[test]
fn a_part_that_comes_twice_counts_once() {
    let mut bench = bench();
    let frame = packet(2000);
    bench.run(OUTSIDE, part(&frame, 0, 1400), nat(11, 8080));
    bench.run(OUTSIDE, part(&frame, 0, 1400), nat(11, 8080));
    assert_eq!(bench.drops(DropReason::FragmentOverlap), 1);
    bench.run(OUTSIDE, part(&frame, 1400, 1400), nat(11, 8080));
    assert_eq!(whole(&bench).len(), 2012);
}

#[test]
fn what_does_not_come_in_time_is_given_up() {
    let frame = packet(3000);
    for (from, dropped, to_host) in [(0, 1, 0), (1400, 0, 1)] {
        let mut bench = bench();
        bench.run(OUTSIDE, part(&frame, from, 1400), nat(11, 8080));
        bench.output.clear();
        let at = bench.engine.poll_timeout().unwrap();
        assert_eq!(at, bench.now + Duration::from_secs(30));
        bench
            .engine
            .handle_timeout(at, &bench.view, &mut bench.output);
        assert_eq!(bench.drops(DropReason::FragmentsIncomplete), dropped);
        assert_eq!(bench.output.host.len(), to_host, "nobody knows whose it is");
        assert_eq!(bench.engine.poll_timeout(), None);
    }
}

#[test]
fn the_hosts_datagrams_are_given_to_it() {
    let mut bench = bench();
    let mut frame = packet(3000);
    // To another port of the address.
    frame.bytes_mut()[37] = 81;
    bench.run(OUTSIDE, part(&frame, 1400, 1400), nat(11, 8080));
    assert!(bench.is_silent());
    bench.run(OUTSIDE, part(&frame, 0, 1400), nat(11, 8080));
    assert_eq!(bench.output.host.len(), 1, "the one that waited");
    bench.run(OUTSIDE, part(&frame, 2800, 1400), nat(11, 8080));
    assert_eq!(bench.output.host.len(), 1);
}

#[test]
fn floods_of_parts_are_bounded() {
    let mut bench = bench();
    let frame = packet(3000);
    for sender in 0..40u8 {
        for ident in 0..400u16 {
            let mut part = part(&frame, 0, 1400);
            part.bytes_mut()[18..20].copy_from_slice(&ident.to_be_bytes());
            part.bytes_mut()[29] = sender + 1;
            fix_header(&mut part);
            bench.run(OUTSIDE, part, nat(11, 8080));
        }
    }
    let held = bench.events(Event::FragmentsHeld);
    assert!((2000..2700).contains(&held), "{held} of 4 MiB");
    assert_eq!(bench.drops(DropReason::FragmentLost), 16000 - held);
    bench.now += Duration::from_secs(30);
    let (now, view) = (bench.now, &bench.view);
    bench.engine.handle_timeout(now, view, &mut bench.output);
    assert_eq!(bench.drops(DropReason::FragmentsIncomplete), held);
}
