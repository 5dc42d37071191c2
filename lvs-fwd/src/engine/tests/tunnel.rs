//! Tunnels: what is around the packet, and what happens to those that don't fit.

use super::*;

fn tunnel(last: u8) -> Verdict {
    Verdict::Forward(Method::Tunnel {
        rip: [10, 0, 0, last].into(),
        encapsulation: Encapsulation::Ipip,
    })
}

/// A request with the "don't fragment" flag set or not, this many bytes of IP.
fn sized(length: usize, dont_fragment: bool) -> Frame {
    let payload: Vec<u8> = (0..length - 40).map(|n| (n * 7) as u8).collect();
    let mut frame = request(64, &payload);
    frame.bytes_mut()[20] = if dont_fragment { 0x40 } else { 0 };
    fix_header(&mut frame);
    frame
}

/// The packet inside, the header around it checked.
fn unwrap(packet: &[u8], server: u8) -> Vec<u8> {
    let outer = Ipv4Packet::new(packet).unwrap();
    assert_eq!(outer.get_checksum(), pnet_packet::ipv4::checksum(&outer));
    assert_eq!(usize::from(outer.get_total_length()), packet.len());
    assert_eq!(packet[..2], [0x45, 0]);
    assert_eq!((packet[8], packet[9]), (63, 4));
    assert_eq!(packet[12..20], [10, 0, 0, 1, 10, 0, 0, server]);
    packet[20..].to_vec()
}

/// The datagram that the fragments make.
fn put_together(output: &Output, server: u8) -> Vec<u8> {
    let mut whole = Vec::new();
    let count = output.transmit.len();
    for at in 0..count {
        let packet = sent(output, at, INSIDE, server_mac(server));
        assert!(packet.len() <= 1500);
        let ip = Ipv4Packet::new(&packet).unwrap();
        assert_eq!(ip.get_checksum(), pnet_packet::ipv4::checksum(&ip));
        assert_eq!(usize::from(ip.get_fragment_offset()) * 8, whole.len());
        assert_eq!(ip.get_flags(), u8::from(at + 1 < count), "more, and no DF");
        whole.extend_from_slice(&packet[20..]);
    }
    whole
}

fn inner(frame: &Frame) -> Vec<u8> {
    let mut frame = frame.clone();
    frame.bytes_mut()[22] -= 1;
    fix_header(&mut frame);
    frame.bytes()[14..].to_vec()
}

#[test]
fn a_packet_travels_inside_with_one_hop_less() {
    for (dont_fragment, length) in [(true, 40), (false, 40), (true, 1480), (false, 1480)] {
        let mut bench = Bench::new();
        let frame = sized(length, dont_fragment);
        let expected = inner(&frame);
        let output = bench.run(OUTSIDE, frame, tunnel(11));
        let packet = sent(output, 0, INSIDE, server_mac(11));
        assert_eq!(packet[6] & 0x40 != 0, dont_fragment);
        assert_eq!(unwrap(&packet, 11), expected);
        assert_checksums(&expected);
        assert_eq!(bench.events(Event::Encapsulated), 1);
    }
}

#[test]
fn outer_identifications_differ_where_there_may_be_fragments() {
    let mut bench = Bench::new();
    let mut ident = |dont_fragment| {
        let output = bench.run(OUTSIDE, sized(100, dont_fragment), tunnel(11));
        sent(output, 0, INSIDE, server_mac(11))[4..6].to_vec()
    };
    assert_ne!(ident(false), ident(false));
    assert_eq!(ident(true), [0, 0]);
}

#[test]
fn a_partial_checksum_is_finished_before_it_is_inside() {
    let mut packet = SYN_IN;
    packet[36..38].copy_from_slice(&[0xfe, 0x2e]);
    let mut frame = frame_of(&packet);
    frame.meta.checksum = ChecksumState::Partial {
        start: 34,
        offset: 16,
    };
    let mut bench = Bench::new();
    let output = bench.run(OUTSIDE, frame, tunnel(11));
    assert_eq!(output.transmit[0].1.meta.checksum, ChecksumState::Complete);
    let packet = unwrap(&sent(output, 0, INSIDE, server_mac(11)), 11);
    assert_checksums(&packet);
    assert_eq!(packet[36..38], [0x97, 0x1e]);
}

#[test]
fn clients_learn_how_much_fits_inside() {
    let mut bench = Bench::new();
    let output = bench.run(OUTSIDE, sized(1481, true), tunnel(11));
    let packet = sent(output, 0, OUTSIDE, ROUTER_MAC);
    assert_checksums(&packet);
    assert_eq!(packet[12..20], [VIP, CLIENT].concat());
    assert_eq!(packet[20..22], [3, 4]);
    assert_eq!(packet[26..28], 1480u16.to_be_bytes());
    assert_eq!(packet[28..48], sized(1481, true).bytes()[14..34]);
    assert_eq!(bench.drops(DropReason::TooBig), 1);
}

#[test]
fn every_encapsulation_counts_its_own_overhead() {
    let gue = |checksum| Encapsulation::Gue {
        port: 6080,
        checksum,
    };
    let table = [
        (Encapsulation::Ipip, 4, 1480),
        (gue(false), 17, 1468),
        (gue(true), 17, 1468),
        (Encapsulation::Gre { checksum: false }, 47, 1476),
        (Encapsulation::Gre { checksum: true }, 47, 1472),
    ];
    for (encapsulation, protocol, room) in table {
        let verdict = Verdict::Forward(Method::Tunnel {
            rip: [10, 0, 0, 11].into(),
            encapsulation,
        });
        let mut bench = Bench::new();
        let frame = sized(room, true);
        let expected = inner(&frame);
        let output = bench.run(OUTSIDE, frame, verdict);
        let packet = sent(output, 0, INSIDE, server_mac(11));
        assert_eq!((packet.len(), packet[9]), (1500, protocol));
        assert_eq!(packet[1500 - room..], expected);
        if protocol == 17 {
            assert_checksums(&packet);
        }
        let output = bench.run(OUTSIDE, sized(room + 1, true), verdict);
        let packet = sent(output, 0, OUTSIDE, ROUTER_MAC);
        assert_eq!(packet[26..28], (room as u16).to_be_bytes());
    }
}

#[test]
fn outer_packets_are_cut_where_that_is_allowed() {
    for (dont_fragment, discovery) in [(false, true), (false, false), (true, false)] {
        let mut bench = Bench::new();
        bench.view.tunnels.path_mtu_discovery = discovery;
        let frame = sized(1500, dont_fragment);
        let expected = inner(&frame);
        let output = bench.run(OUTSIDE, frame, tunnel(11));
        assert_eq!(output.transmit.len(), 2);
        assert_eq!(put_together(output, 11), expected);
    }
}

#[test]
fn super_packets_are_cut_into_segments_that_fit() {
    let gso = |kind, size| Gso {
        kind,
        ecn: false,
        size,
        header_len: 54,
    };
    for (dont_fragment, size, expected) in
        [(true, 1440, 1440), (false, 1448, 1440), (true, 500, 500)]
    {
        let mut bench = Bench::new();
        let mut frame = sized(40 + 7 * expected + 1, dont_fragment);
        let original = frame.bytes()[54..].to_vec();
        frame.meta.gso = Some(gso(GsoKind::Tcp4, size));
        // The field as a partial checksum leaves it: it must not matter.
        frame.bytes_mut()[50..52].fill(0xaa);
        frame.meta.checksum = ChecksumState::Partial {
            start: 34,
            offset: 16,
        };
        let output = bench.run(OUTSIDE, frame, tunnel(12));
        assert_eq!(output.transmit.len(), 8);
        let mut body = Vec::new();
        for at in 0..8 {
            assert_eq!(output.transmit[at].1.meta.gso, None);
            let packet = unwrap(&sent(output, at, INSIDE, server_mac(12)), 12);
            assert!(packet.len() <= 1480);
            assert_checksums(&packet);
            body.extend_from_slice(&packet[40..]);
        }
        assert_eq!(body, original);
        assert_eq!(bench.events(Event::Segmented), 1);
        assert_eq!(bench.events(Event::Encapsulated), 8);
    }
    let mut bench = Bench::new();
    let mut frame = sized(5000, true);
    frame.meta.gso = Some(gso(GsoKind::Tcp4, 1441));
    let output = bench.run(OUTSIDE, frame, tunnel(12));
    assert_eq!(output.transmit[0].1.bytes()[34..36], [3, 4]);
}

#[test]
fn merged_datagrams_part_again() {
    let payload: Vec<u8> = (0..3000).map(|n| n as u8).collect();
    let mut frame = udp((CLIENT, 40000), (VIP, 53), &payload);
    frame.meta.gso = Some(Gso {
        kind: GsoKind::Udp,
        ecn: false,
        size: 1000,
        header_len: 42,
    });
    let mut bench = Bench::new();
    let output = bench.run(OUTSIDE, frame.clone(), tunnel(11));
    assert_eq!(output.transmit.len(), 3);
    for at in 0..3 {
        let packet = unwrap(&sent(output, at, INSIDE, server_mac(11)), 11);
        assert_checksums(&packet);
        assert_eq!(packet[28..], payload[at * 1000..][..1000]);
    }
    // One datagram that the kernel would have cut into fragments: the fragments are of the outer packet.
    frame.meta.gso.as_mut().unwrap().kind = GsoKind::UdpFragments;
    frame.bytes_mut()[20] = 0;
    fix_header(&mut frame);
    let expected = inner(&frame);
    let output = bench.run(OUTSIDE, frame, tunnel(11));
    assert_eq!(put_together(output, 11), expected);
}

#[test]
fn tunnels_without_room_or_address_lose_packets_by_name() {
    let change = |change: fn(&Port) -> Port| {
        let mut bench = Bench::new();
        bench.view.ports = bench.view.ports.iter().map(change).collect();
        bench.run(OUTSIDE, sized(60, true), tunnel(11));
        bench
    };
    let narrow = change(|port| Port {
        mtu: 87,
        ..port.clone()
    });
    assert!(narrow.is_silent());
    assert_eq!(narrow.drops(DropReason::TooBig), 1);
    let nameless = change(|port| Port {
        addresses: vec![],
        ..port.clone()
    });
    assert!(nameless.is_silent());
    assert_eq!(nameless.drops(DropReason::NoSource), 1);
}

#[test]
fn a_tunnel_to_the_director_itself_is_none() {
    let mut bench = Bench::new();
    let output = bench.run(OUTSIDE, request(1, b"hello"), tunnel(1));
    assert_eq!(output.host[0].bytes(), &request(1, b"hello").bytes()[14..]);
}

#[test]
fn wrapped_packets_wait_for_the_neighbour_too() {
    let mut bench = Bench::new();
    assert_eq!(
        bench
            .run(OUTSIDE, sized(60, true), tunnel(13))
            .resolve
            .len(),
        1
    );
    assert_eq!(bench.events(Event::Held), 1);
}
