//! ICMP errors about tunnels' packets: what the client is told, and what is remembered. Each quotes what was really sent.

use super::ipv6::{CLIENT6, IPV6, VIP6, request6, server, tcp6};
use super::*;
use crate::wire::Headers;

/// Of both families, with two real servers behind tunnels.
fn bench() -> Bench {
    let mut bench = super::ipv6::bench();
    let claims = Arc::make_mut(&mut bench.view.claims);
    claims.insert_tunnel_server([10, 0, 0, 11].into());
    claims.insert_tunnel_server(server(11).parse().unwrap());
    bench
}

fn through(encapsulation: Encapsulation, ipv6: bool) -> Verdict {
    let rip = match ipv6 {
        true => server(11).parse().unwrap(),
        false => [10, 0, 0, 11].into(),
    };
    Verdict::Forward(Method::Tunnel { rip, encapsulation })
}

/// A request of this many bytes of IP.
fn sized(ipv6: bool, length: usize) -> Frame {
    match ipv6 {
        true => request6(64, &vec![7; length - 60]),
        false => {
            let mut frame = request(64, &vec![7; length - 40]);
            frame.bytes_mut()[20] = 0x40;
            fix_header(&mut frame);
            frame
        }
    }
}

/// From a router on the way, about this packet, of which it quotes so many bytes.
fn error(kind: (u8, u8), mtu: u16, about: &[u8], quote: usize) -> Frame {
    let quoted = &about[..about.len().min(quote)];
    let [high, low] = mtu.to_be_bytes();
    let mut bytes = Vec::new();
    let link = PacketBuilder::ethernet2(server_mac(12), INSIDE_MAC);
    let done = if about[0] >> 4 == 6 {
        link.ipv6(
            server(200).parse::<std::net::Ipv6Addr>().unwrap().octets(),
            {
                let near: [u8; 16] = about[8..24].try_into().unwrap();
                near
            },
            64,
        )
        .icmpv6_raw(kind.0, kind.1, [0, 0, high, low])
        .write(&mut bytes, quoted)
    } else {
        let near: [u8; 4] = about[12..16].try_into().unwrap();
        link.ipv4([10, 0, 0, 200], near, 64)
            .icmpv4_raw(kind.0, kind.1, [0, 0, high, low])
            .write(&mut bytes, quoted)
    };
    done.unwrap();
    Frame::from_bytes(&bytes)
}

fn too_big(outer6: bool) -> (u8, u8) {
    if outer6 { (2, 0) } else { (3, 4) }
}

/// Type, code and MTU that the client was told, about its own packet.
fn told(bench: &Bench, request: &Frame) -> (u8, u8, u16) {
    let [(port, frame)] = &bench.output.transmit[..] else {
        panic!("{:?}", bench.output.transmit);
    };
    assert_eq!(*port, OUTSIDE);
    let packet = &frame.bytes()[14..];
    let mut request = request.clone();
    let at = if packet[0] >> 4 == 6 {
        request.bytes_mut()[21] = packet[55];
        let expected = [VIP6, CLIENT6].map(|addr| addr.parse::<std::net::Ipv6Addr>().unwrap());
        assert_eq!(packet[8..40], expected.map(|addr| addr.octets()).concat());
        40
    } else {
        // From further on it has made a hop.
        request.bytes_mut()[22] = packet[36];
        fix_header(&mut request);
        assert_checksums(packet);
        assert_eq!(packet[12..20], [VIP, CLIENT].concat());
        20
    };
    let quoted = &packet[at + 8..];
    assert!(quoted.len() >= 28);
    assert_eq!(*quoted, request.bytes()[14..][..quoted.len()]);
    let mtu = u16::from_be_bytes([packet[at + 6], packet[at + 7]]);
    (packet[at], packet[at + 1], mtu)
}

const GUE: Encapsulation = Encapsulation::Gue {
    port: 6080,
    checksum: true,
};
const ALL: [(Encapsulation, usize); 4] = [
    (Encapsulation::Ipip, 0),
    (GUE, 12),
    (Encapsulation::Gre { checksum: false }, 4),
    (Encapsulation::Gre { checksum: true }, 8),
];

fn outer_len(ipv6: bool) -> usize {
    if ipv6 { 40 } else { 20 }
}

#[test]
fn the_client_learns_how_much_the_way_to_its_server_carries() {
    for (encapsulation, extra) in ALL {
        for (outer6, inner6) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut bench = bench();
            let verdict = through(encapsulation, outer6);
            let request = sized(inner6, 1420);
            let output = bench.run(OUTSIDE, request.clone(), verdict);
            let outer = output.transmit[0].1.bytes()[14..].to_vec();
            for quote in [outer_len(outer6) + extra + outer_len(inner6) + 8, 548] {
                let error = error(too_big(outer6), 1400, &outer, quote);
                bench.run(INSIDE, error, verdict);
                let room = 1400 - outer_len(outer6) - extra;
                let room = if inner6 { room.max(1280) } else { room };
                let expected = (too_big(inner6).0, too_big(inner6).1, room as u16);
                let case = (encapsulation, outer6, inner6, quote);
                assert_eq!(told(&bench, &request), expected, "{case:?}");
                // The next one is told at once, and one that fits goes.
                bench.run(OUTSIDE, sized(inner6, room + 1), verdict);
                assert_eq!(told(&bench, &sized(inner6, room + 1)).2, room as u16);
                let output = bench.run(OUTSIDE, sized(inner6, room), verdict);
                assert_eq!(output.transmit[0].0, INSIDE);
                assert_eq!(bench.drops(DropReason::TooBig), 1);
                bench.now += Duration::from_secs(600);
                let output = bench.run(OUTSIDE, request.clone(), verdict);
                assert_eq!((output.transmit.len(), output.transmit[0].0), (1, INSIDE));
                bench.engine = Engine::new(EngineConfig::default());
            }
        }
    }
}

#[test]
fn an_error_that_quotes_eight_bytes_still_teaches() {
    let mut bench = bench();
    let verdict = through(Encapsulation::Ipip, false);
    let output = bench.run(OUTSIDE, sized(false, 1480), verdict);
    let outer = output.transmit[0].1.bytes()[14..].to_vec();
    let output = bench.run(INSIDE, error((3, 4), 1400, &outer, 28), verdict);
    assert!(output.transmit.is_empty());
    bench.run(OUTSIDE, sized(false, 1480), verdict);
    assert_eq!(told(&bench, &sized(false, 1480)), (3, 4, 1380));
}

#[test]
fn what_may_be_fragmented_is_from_then_on() {
    let mut bench = bench();
    let verdict = through(GUE, false);
    let mut request = request(64, &[7; 1400]);
    request.bytes_mut()[20] = 0;
    fix_header(&mut request);
    let output = bench.run(OUTSIDE, request.clone(), verdict);
    let outer = output.transmit[0].1.bytes()[14..].to_vec();
    let output = bench.run(INSIDE, error((3, 4), 1300, &outer, 548), verdict);
    assert!(output.transmit.is_empty());
    let output = bench.run(OUTSIDE, request, verdict);
    assert_eq!(output.transmit.len(), 2);
    assert!(output.transmit.iter().all(|(_, frame)| frame.len() <= 1314));
}

#[test]
fn what_else_happened_on_the_way_is_told_in_the_clients_family() {
    // Error, and what becomes of it for an IPv4 and an IPv6 client.
    let of_ipv4 = [
        ((3, 1), (3, 1), (1, 3)),
        ((3, 0), (3, 0), (1, 3)),
        ((3, 3), (3, 3), (1, 4)),
        ((3, 13), (3, 13), (1, 1)),
        ((11, 0), (11, 0), (3, 0)),
    ];
    let of_ipv6 = [
        ((1, 0), (3, 1), (1, 0)),
        ((1, 4), (3, 3), (1, 4)),
        ((1, 1), (3, 13), (1, 1)),
        ((3, 0), (11, 0), (3, 0)),
        ((4, 1), (3, 1), (1, 3)),
    ];
    for (outer6, table) in [(false, of_ipv4), (true, of_ipv6)] {
        for (kind, to_ipv4, to_ipv6) in table {
            for (inner6, expected) in [(false, to_ipv4), (true, to_ipv6)] {
                let mut bench = bench();
                let verdict = through(GUE, outer6);
                let request = sized(inner6, 100);
                let output = bench.run(OUTSIDE, request.clone(), verdict);
                let outer = output.transmit[0].1.bytes()[14..].to_vec();
                bench.run(INSIDE, error(kind, 0, &outer, 548), verdict);
                let (kind, code, _) = told(&bench, &request);
                assert_eq!((kind, code), expected, "{outer6} {inner6}");
            }
        }
    }
}

#[test]
fn errors_that_no_tunnel_caused_change_nothing() {
    let verdict = through(GUE, false);
    let mut bench = bench();
    let output = bench.run(OUTSIDE, sized(false, 1400), verdict);
    let outer = output.transmit[0].1.bytes()[14..].to_vec();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut outer = outer.clone();
        change(&mut outer);
        error((3, 4), 1300, &outer, 548)
    };
    let mut unsound = changed(&|_| {});
    unsound.bytes_mut()[100] ^= 1;
    let strays = [
        ("another sender", changed(&|outer| outer[15] = 9)),
        ("another server", changed(&|outer| outer[19] = 12)),
        ("a later fragment", changed(&|outer| outer[7] = 1)),
        ("a wrong checksum", unsound),
    ];
    for (name, frame) in strays {
        let output = bench.run(INSIDE, frame, verdict);
        assert!(
            output.transmit.is_empty() && output.host.is_empty(),
            "{name}"
        );
        assert_eq!(bench.events(Event::TunnelErrors), 0, "{name}");
    }
    // These do come from the tunnel's way, but of another one than the connection's, or of none.
    let stray = (3, 1);
    let mut port = outer.clone();
    port[23] ^= 1;
    let of_other_port = error(stray, 0, &port, 548);
    for (name, frame, verdict) in [
        ("another port", of_other_port, verdict),
        (
            "no connection",
            error(stray, 0, &outer, 548),
            Verdict::NotOurs,
        ),
        ("NAT", error(stray, 0, &outer, 548), nat(11, 8080)),
        (
            "another server",
            error(stray, 0, &outer, 548),
            through(GUE, true),
        ),
        (
            "no IP inside",
            error(stray, 0, &changed_gue(&outer, 29, 7), 548),
            verdict,
        ),
        (
            "a control message",
            error(stray, 0, &changed_gue(&outer, 28, 0x20), 548),
            verdict,
        ),
    ] {
        let output = bench.run(INSIDE, frame, verdict);
        assert!(output.transmit.is_empty(), "{name}");
    }
    assert_eq!(bench.events(Event::TunnelErrors), 6);
    let output = bench.run(OUTSIDE, sized(false, 1400), verdict);
    assert_eq!(output.transmit[0].0, INSIDE);
}

fn changed_gue(outer: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut outer = outer.to_vec();
    outer[at] = value;
    outer
}

#[test]
fn the_host_keeps_its_errors() {
    let mut bench = bench();
    let verdict = through(Encapsulation::Ipip, false);
    let output = bench.run(OUTSIDE, sized(false, 1480), verdict);
    let outer = output.transmit[0].1.bytes()[14..].to_vec();
    let mut frame = error((3, 4), 1400, &outer, 548);
    frame.meta.exclusive = true;
    let expected = frame.bytes()[14..].to_vec();
    let output = bench.run(INSIDE, frame, verdict);
    assert_eq!(output.transmit.len(), 1);
    assert_eq!(output.host.len(), 1);
    assert_eq!(output.host[0].bytes(), expected);
}

#[test]
fn every_worker_learns_and_the_flows_own_one_tells() {
    let verdict = through(Encapsulation::Ipip, true);
    for client in 1..20u8 {
        let source = format!("2001:db8:c::{client}");
        let request = tcp6((&source, 50000), (VIP6, 80), 64, &[7; 1340]);
        let owner = steer::owner(source.parse().unwrap(), 2);
        let view = bench().view;
        let mut engines = [0, 1].map(|worker| {
            Engine::new(EngineConfig {
                worker,
                workers: 2,
                ..EngineConfig::default()
            })
        });
        let now = Instant::now();
        let mut balancer = Tunnels(verdict);
        let mut output = Output::new();
        let mut frames = vec![request.clone()];
        let own = &mut engines[owner as usize];
        own.process(now, &view, OUTSIDE, &mut frames, &mut balancer, &mut output);
        let outer = output.transmit[0].1.bytes()[14..].to_vec();
        output.clear();
        let mut frames = vec![error((2, 0), 1300, &outer, 548)];
        engines[0].process(now, &view, INSIDE, &mut frames, &mut balancer, &mut output);
        assert_eq!(output.handoff.len(), 1);
        let (worker, handoff) = output.handoff.pop().unwrap();
        assert_eq!(worker, 1);
        let mut handoffs = vec![handoff];
        engines[1].process_handoff(now, &view, &mut handoffs, &mut balancer, &mut output);
        assert!(output.handoff.is_empty());
        assert_eq!(output.transmit.len(), 1, "told once");
        output.clear();
        // Either would refuse a packet of its own now.
        for engine in &mut engines {
            for last in 1..20u8 {
                let source = format!("2001:db8:d::{last}");
                let frame = tcp6((&source, 50000), (VIP6, 80), 64, &[7; 1340]);
                let mut frames = vec![frame];
                engine.process(now, &view, OUTSIDE, &mut frames, &mut balancer, &mut output);
            }
        }
        assert!(output.transmit.iter().all(|(port, _)| *port == OUTSIDE));
        assert!(output.transmit.len() >= 19);
    }
}

/// Answers everything by the tunnel.
struct Tunnels(Verdict);

impl Balancer for Tunnels {
    fn decide(&mut self, _: Instant, packets: &Packets<'_>, verdicts: &mut Vec<Verdict>) {
        verdicts.extend(packets.iter().map(|_| self.0));
    }

    fn decide_tunnel_error(&mut self, _: Instant, inner: &PacketInfo) -> Verdict {
        assert_eq!(inner.direction, Direction::Outbound);
        assert_eq!(
            inner.destination,
            SocketAddr::new(VIP6.parse().unwrap(), 80)
        );
        self.0
    }
}

#[test]
fn a_quoted_packet_may_be_cut_anywhere() {
    for (encapsulation, _) in ALL {
        for (outer6, inner6) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut bench = bench();
            let verdict = through(encapsulation, outer6);
            let output = bench.run(OUTSIDE, sized(inner6, 120), verdict);
            let outer = output.transmit[0].1.bytes()[14..].to_vec();
            for quote in 0..outer.len() {
                let error = error(too_big(outer6), 1400, &outer, quote);
                bench.run(INSIDE, error, verdict);
                for (port, frame) in &bench.output.transmit {
                    assert_eq!(*port, OUTSIDE);
                    assert!(Headers::parse(frame.bytes()).is_err(), "ICMP");
                    assert!(frame.bytes()[12..14] == IPV6 || !inner6);
                }
            }
        }
    }
}
