//! ICMP errors about packets of connections: who gets them, and what they quote then.

use etherparse::icmpv4::TYPE_DEST_UNREACH;

use super::*;

const ROUTER: [u8; 4] = [198, 51, 100, 7];
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 11], 8080);

/// An error from the outside or the inside, about this IP packet.
fn error(source: [u8; 4], destination: [u8; 4], kind: (u8, u8), quoted: &[u8]) -> Frame {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(ROUTER_MAC, OUTSIDE_MAC)
        .ipv4(source, destination, 64)
        .icmpv4_raw(kind.0, kind.1, [0, 0, 5, 20])
        .write(&mut bytes, quoted)
        .unwrap();
    Frame::from_bytes(&bytes)
}

fn packet(frame: Frame) -> Vec<u8> {
    frame.bytes()[14..].to_vec()
}

/// What the server has sent, as clients see it.
fn answer() -> Vec<u8> {
    packet(tcp(
        [0; 6],
        [0; 6],
        (VIP, 80),
        (CLIENT, 50000),
        60,
        b"hello",
    ))
}

/// What the client has sent, as the server sees it.
fn question() -> Vec<u8> {
    packet(tcp([0; 6], [0; 6], (CLIENT, 50000), SERVER, 60, b"hello"))
}

const TOO_BIG: (u8, u8) = (TYPE_DEST_UNREACH, 4);

#[test]
fn a_server_learns_what_happened_to_its_answers() {
    for (kind, quote) in [(TOO_BIG, 45), ((11, 0), 45), ((4, 0), 28), ((3, 1), 44)] {
        let mut bench = Bench::new();
        let frame = error(ROUTER, VIP, kind, &answer()[..quote]);
        let mut seen = None;
        bench.engine.process(
            bench.now,
            &bench.view,
            OUTSIDE,
            &mut vec![frame.clone()],
            &mut Script(|quoted: &PacketInfo| {
                seen = Some(*quoted);
                nat(11, 8080)
            }),
            &mut bench.output,
        );
        assert_eq!(
            seen.unwrap(),
            PacketInfo {
                protocol: 6,
                source: SocketAddr::from((VIP, 80)),
                destination: SocketAddr::from((CLIENT, 50000)),
                direction: Direction::Inbound,
                tcp_flags: 0,
                length: 28 + quote as u32,
                mark: 0,
            }
        );
        let sent = sent(&bench.output, 0, INSIDE, server_mac(11));
        assert_checksums(&sent);
        assert_eq!(
            (sent[8], &sent[12..20]),
            (63, &[ROUTER, SERVER.0].concat()[..])
        );
        assert_eq!(
            (sent[20], sent[21], &sent[24..28]),
            (kind.0, kind.1, &[0, 0, 5, 20][..])
        );
        let expected = packet(tcp([0; 6], [0; 6], SERVER, (CLIENT, 50000), 60, b"hello"));
        assert_eq!(sent[28..], expected[..quote]);
        assert_eq!(bench.events(Event::IcmpReceived), 1);
    }
}

#[test]
fn a_client_hears_from_the_virtual_address_what_happened_to_its_packets() {
    for source in [SERVER.0, [10, 0, 0, 200]] {
        let mut bench = Bench::new();
        let frame = error(source, CLIENT, (3, 3), &question());
        let output = bench.run(INSIDE, frame, un_nat());
        let sent = sent(output, 0, OUTSIDE, ROUTER_MAC);
        assert_checksums(&sent);
        assert_eq!(sent[12..20], [VIP, CLIENT].concat());
        let expected = packet(tcp(
            [0; 6],
            [0; 6],
            (CLIENT, 50000),
            (VIP, 80),
            60,
            b"hello",
        ));
        assert_eq!(sent[28..], expected);
    }
}

#[test]
fn quoted_datagrams_without_a_checksum_stay_without() {
    let mut quoted = packet(udp((VIP, 53), (CLIENT, 40000), b"answer"));
    quoted[26..28].fill(0);
    let mut bench = Bench::new();
    let output = bench.run(OUTSIDE, error(ROUTER, VIP, TOO_BIG, &quoted), nat(11, 5353));
    let sent = sent(output, 0, INSIDE, server_mac(11));
    assert_checksums(&sent);
    assert_checksums(&sent[28..]);
    assert_eq!(
        sent[40..52],
        [&[10, 0, 0, 11][..], &CLIENT, &[0x14, 0xe9, 0x9c, 0x40]].concat()
    );
    assert_eq!(sent[54..56], [0, 0]);
}

#[test]
fn without_nat_the_server_gets_the_error_as_it_is() {
    let frame = error(ROUTER, VIP, TOO_BIG, &answer());
    let mut expected = frame.clone();
    expected.bytes_mut()[22] -= 1;
    fix_header(&mut expected);
    let expected = packet(expected);
    let mut bench = Bench::new();
    let output = bench.run(OUTSIDE, frame.clone(), dr(12));
    assert_eq!(sent(output, 0, INSIDE, server_mac(12)), expected);
    let tunnel = Verdict::Forward(Method::Tunnel {
        rip: SERVER.0.into(),
        encapsulation: Encapsulation::Ipip,
    });
    let output = bench.run(OUTSIDE, frame, tunnel);
    assert_eq!(sent(output, 0, INSIDE, server_mac(11))[20..], expected);
}

#[test]
fn errors_of_no_connection_are_the_hosts_or_are_routed() {
    let inbound = error(ROUTER, VIP, TOO_BIG, &answer());
    let mut bench = Bench::new();
    let output = bench.run(OUTSIDE, inbound.clone(), Verdict::NotOurs);
    assert_eq!(output.host[0].bytes(), &inbound.bytes()[14..]);
    bench.view.hostless = true;
    bench.run(OUTSIDE, inbound, Verdict::NotOurs);
    assert!(bench.is_silent(), "no error about an error");
    assert_eq!(bench.drops(DropReason::NoHost), 1);

    let outbound = error(SERVER.0, CLIENT, (3, 3), &question());
    let output = bench.run(INSIDE, outbound.clone(), Verdict::NotOurs);
    let sent = sent(output, 0, OUTSIDE, ROUTER_MAC);
    assert_eq!(sent[12..], outbound.bytes()[26..]);
}

#[test]
fn an_error_to_somebody_else_than_the_quoted_sender_is_of_no_connection() {
    let mut quoted = answer();
    quoted[15] ^= 1;
    let frame = error(ROUTER, VIP, TOO_BIG, &quoted);
    let mut bench = Bench::new();
    let output = bench.run(OUTSIDE, frame, nat(11, 8080));
    assert_eq!((output.host.len(), output.transmit.len()), (1, 0));
}

#[test]
fn no_error_is_answered_by_an_error() {
    // Too large and not to be fragmented: it is, all the same.
    let mut quoted = answer();
    quoted.resize(1560, 7);
    let mut large = error(ROUTER, VIP, TOO_BIG, &quoted);
    large.bytes_mut()[20] = 0x40;
    fix_header(&mut large);
    for verdict in [
        nat(11, 8080),
        Verdict::Forward(Method::Tunnel {
            rip: SERVER.0.into(),
            encapsulation: Encapsulation::Ipip,
        }),
    ] {
        let mut bench = Bench::new();
        let output = bench.run(OUTSIDE, large.clone(), verdict);
        assert_eq!(output.transmit.len(), 2);
        for at in 0..2 {
            let part = sent(output, at, INSIDE, server_mac(11));
            assert!(part.len() <= 1500 && part[6] & 0x40 == 0);
        }
    }
    let mut last_hop = error(ROUTER, VIP, TOO_BIG, &answer());
    last_hop.bytes_mut()[22] = 1;
    fix_header(&mut last_hop);
    let mut bench = Bench::new();
    bench.run(OUTSIDE, last_hop, nat(11, 8080));
    bench.run(
        OUTSIDE,
        error(ROUTER, VIP, TOO_BIG, &answer()),
        Verdict::Reject,
    );
    assert!(bench.is_silent());
    assert_eq!(bench.drops(DropReason::TimeExceeded), 1);
    assert_eq!(bench.events(Event::IcmpSuppressed), 2);
}

#[test]
fn what_is_no_error_of_a_service_is_left_alone() {
    let changed = |at: usize, value: u8| {
        let mut quoted = answer();
        quoted[at] = value;
        error(ROUTER, VIP, TOO_BIG, &quoted)
    };
    let mut fragment = error(ROUTER, VIP, TOO_BIG, &answer());
    fragment.bytes_mut()[20] = 0x20;
    let table = [
        (
            "echo request",
            error(ROUTER, VIP, (8, 0), &answer()),
            LeftReason::OtherProtocol,
        ),
        (
            "echo reply",
            error(ROUTER, VIP, (0, 0), &answer()),
            LeftReason::OtherProtocol,
        ),
        (
            "redirect",
            error(ROUTER, VIP, (5, 0), &answer()),
            LeftReason::OtherProtocol,
        ),
        (
            "parameter problem",
            error(ROUTER, VIP, (12, 0), &answer()),
            LeftReason::OtherProtocol,
        ),
        ("fragment", fragment, LeftReason::Fragment),
        (
            "nothing quoted",
            error(ROUTER, VIP, TOO_BIG, &[]),
            LeftReason::OtherProtocol,
        ),
        (
            "ports missing",
            error(ROUTER, VIP, TOO_BIG, &answer()[..27]),
            LeftReason::OtherProtocol,
        ),
        (
            "quoted options",
            changed(0, 0x46),
            LeftReason::OtherProtocol,
        ),
        (
            "quoted later fragment",
            changed(7, 1),
            LeftReason::OtherProtocol,
        ),
        ("quoted SCTP", changed(9, 132), LeftReason::OtherProtocol),
        ("no service", changed(21, 81), LeftReason::OtherProtocol),
        (
            "about the director's own check",
            error(SERVER.0, [10, 0, 0, 1], (3, 3), &question()),
            LeftReason::OtherProtocol,
        ),
    ];
    for (name, frame, reason) in table {
        let mut bench = Bench::new();
        bench.run(OUTSIDE, frame, nat(11, 8080));
        assert!(bench.is_silent(), "{name}");
        assert_eq!(bench.left(reason), 1, "{name}");
    }
}

#[test]
fn broken_errors_are_dropped() {
    let mut message = error(ROUTER, VIP, TOO_BIG, &answer());
    message.bytes_mut()[41] ^= 1;
    let mut header = error(ROUTER, VIP, TOO_BIG, &answer());
    header.bytes_mut()[24] ^= 1;
    for (frame, reason) in [
        (message, DropReason::Malformed),
        (header, DropReason::Malformed),
        (
            error([127, 0, 0, 1], VIP, TOO_BIG, &answer()),
            DropReason::MartianSource,
        ),
    ] {
        let mut bench = Bench::new();
        bench.run(OUTSIDE, frame, nat(11, 8080));
        assert!(bench.is_silent());
        assert_eq!(bench.drops(reason), 1);
    }
}

#[test]
fn errors_meet_the_worker_of_the_client_that_is_quoted() {
    let frames = [
        (OUTSIDE, error(ROUTER, VIP, TOO_BIG, &answer())),
        (INSIDE, error(SERVER.0, CLIENT, (3, 3), &question())),
    ];
    let owner = steer::owner(CLIENT.into(), 2);
    for (port, frame) in frames {
        let mut bench = Bench::new();
        bench.engine = Engine::new(EngineConfig {
            worker: 1 - owner,
            workers: 2,
            ..EngineConfig::default()
        });
        let output = bench.run(port, frame, Verdict::NotOurs);
        assert_eq!(output.handoff.len(), 1);
        let (worker, handoff) = output.handoff.pop().unwrap();
        assert_eq!(worker, owner);
        bench.engine = Engine::new(EngineConfig {
            worker: owner,
            workers: 2,
            ..EngineConfig::default()
        });
        bench.engine.process_handoff(
            bench.now,
            &bench.view,
            &mut vec![handoff],
            &mut Script(|quoted: &PacketInfo| match quoted.direction {
                Direction::Inbound => nat(11, 8080),
                Direction::Outbound => un_nat(),
            }),
            &mut bench.output,
        );
        assert_eq!(bench.output.transmit.len(), 1);
    }
}

proptest! {
    #[test]
    fn errors_of_any_content_come_out_right_or_not_at_all(
        mut quoted in prop::collection::vec(any::<u8>(), 0..80),
        real in any::<bool>(),
        kind in 0u8..16,
        cut in 0usize..120,
        inbound in any::<bool>(),
    ) {
        if real && quoted.len() >= 24 {
            let base = if inbound { answer() } else { question() };
            quoted[..24].copy_from_slice(&base[..24]);
        }
        let (source, destination) = if inbound { (ROUTER, VIP) } else { (SERVER.0, CLIENT) };
        let mut frame = error(source, destination, (kind, 0), &quoted);
        if cut < frame.len() && cut % 3 == 0 {
            frame.truncate(cut);
        }
        let mut bench = Bench::new();
        let verdict = if inbound { nat(11, 8080) } else { un_nat() };
        bench.run(OUTSIDE, frame, verdict);
        for (_, frame) in &bench.output.transmit {
            assert_checksums(&frame.bytes()[14..]);
            prop_assert!(real && [3, 4, 11].contains(&kind));
        }
    }
}
