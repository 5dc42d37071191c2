//! IPv6: what is the same as in IPv4, and what is not.

use std::net::Ipv6Addr;

use pnet_packet::Packet as _;
use pnet_packet::icmpv6::Icmpv6Packet;
use pnet_packet::ipv6::Ipv6Packet;

use super::*;
use crate::rewrite::tun;

pub(super) const CLIENT6: &str = "2001:db8:c::5";
pub(super) const VIP6: &str = "2001:db8:1::10";
pub(super) const OUTSIDE6: &str = "2001:db8:1::1";
pub(super) const INSIDE6: &str = "2001:db8:2::1";
pub(super) const IPV6: [u8; 2] = [0x86, 0xdd];

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

pub(super) fn server(last: u8) -> String {
    format!("2001:db8:2::{last}")
}

/// [`view`] with IPv6 beside: the router is known by its link-local address, servers are as in IPv4.
pub(super) fn bench() -> Bench {
    let mut bench = Bench::new();
    let view = &mut bench.view;
    let claims = Arc::make_mut(&mut view.claims);
    let endpoint = |protocol, addr: &str, port| Endpoint {
        protocol,
        addr: addr.parse().unwrap(),
        port,
    };
    for protocol in [6, 17] {
        for vport in [80, 53] {
            claims.insert_service(endpoint(protocol, VIP6, vport));
        }
        for last in [1, 11, 12] {
            claims.insert_server(endpoint(protocol, &server(last), 8080));
        }
    }
    let routes = Arc::make_mut(&mut view.routes);
    let mut route = |addr: &str, length, next_hop, ifindex| {
        routes.insert(Route::new(
            Prefix::new(addr.parse().unwrap(), length),
            next_hop,
            ifindex,
        ));
    };
    route("::", 0, NextHop::Gateway("fe80::fe".parse().unwrap()), 2);
    route("2001:db8:1::", 64, NextHop::OnLink, 2);
    route("2001:db8:2::", 64, NextHop::OnLink, 3);
    route("fe80::", 64, NextHop::OnLink, 3);
    let neighbours = Arc::make_mut(&mut view.neighbours);
    let mut neighbour = |ifindex, addr: &str, mac| {
        let hop = Hop {
            ifindex,
            addr: addr.parse().unwrap(),
        };
        let state = NeighbourState::Reachable;
        neighbours.insert(hop, Neighbour { mac, state });
    };
    neighbour(2, "fe80::fe", ROUTER_MAC);
    for last in [11, 12] {
        neighbour(3, &server(last), server_mac(last));
    }
    let local = Arc::make_mut(&mut view.local);
    let mut ports = view.ports.to_vec();
    for (port, addr) in ports.iter_mut().zip([OUTSIDE6, INSIDE6]) {
        local.insert(addr.parse().unwrap());
        // The kernel lists a virtual address first, because it came last.
        port.addresses.push("fe80::1".parse().unwrap());
        port.addresses.push(VIP6.parse().unwrap());
        port.addresses.push(addr.parse().unwrap());
    }
    local.insert(VIP6.parse().unwrap());
    view.ports = ports.into();
    bench
}

pub(super) fn builder(
    source: &str,
    destination: &str,
    hops: u8,
) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2(ROUTER_MAC, OUTSIDE_MAC).ipv6(
        v6(source).octets(),
        v6(destination).octets(),
        hops,
    )
}

pub(super) fn tcp6(
    source: (&str, u16),
    destination: (&str, u16),
    hops: u8,
    payload: &[u8],
) -> Frame {
    let mut bytes = Vec::new();
    builder(source.0, destination.0, hops)
        .tcp(source.1, destination.1, 7, 1000)
        .syn()
        .write(&mut bytes, payload)
        .unwrap();
    Frame::from_bytes(&bytes)
}

pub(super) fn udp6(
    source: (&str, u16),
    destination: (&str, u16),
    hops: u8,
    payload: &[u8],
) -> Frame {
    let mut bytes = Vec::new();
    builder(source.0, destination.0, hops)
        .udp(source.1, destination.1)
        .write(&mut bytes, payload)
        .unwrap();
    Frame::from_bytes(&bytes)
}

pub(super) fn request6(hops: u8, payload: &[u8]) -> Frame {
    tcp6((CLIENT6, 50000), (VIP6, 80), hops, payload)
}

pub(super) fn packet(frame: &Frame) -> Vec<u8> {
    frame.bytes()[14..].to_vec()
}

pub(super) fn nat6(last: u8, port: u16) -> Verdict {
    Verdict::Forward(Method::Nat {
        rip: SocketAddr::new(server(last).parse().unwrap(), port),
    })
}

pub(super) fn dr6(last: u8) -> Verdict {
    Verdict::Forward(Method::DirectRoute {
        rip: server(last).parse().unwrap(),
    })
}

pub(super) fn tunnel(rip: &str, encapsulation: Encapsulation) -> Verdict {
    Verdict::Forward(Method::Tunnel {
        rip: rip.parse().unwrap(),
        encapsulation,
    })
}

pub(super) fn un_nat6() -> Verdict {
    Verdict::Reply {
        source: SocketAddr::new(VIP6.parse().unwrap(), 80),
    }
}

fn sent6(output: &Output, at: usize, port: PortId, mac: [u8; 6]) -> Vec<u8> {
    sent_as(output, at, port, mac, IPV6)
}

/// The packet's transport protocol and payload; its checksum is recomputed with pnet.
fn judged(bytes: &[u8]) -> (u8, Vec<u8>) {
    let ip = Ipv6Packet::new(bytes).unwrap();
    assert_eq!(usize::from(ip.get_payload_length()) + 40, bytes.len());
    let (source, destination) = (ip.get_source(), ip.get_destination());
    let protocol = ip.get_next_header().0;
    match protocol {
        6 => {
            let tcp = TcpPacket::new(ip.payload()).unwrap();
            let sum = pnet_packet::tcp::ipv6_checksum(&tcp, &source, &destination);
            assert!(same(tcp.get_checksum(), sum), "TCP");
        }
        17 => {
            let udp = UdpPacket::new(ip.payload()).unwrap();
            let sum = pnet_packet::udp::ipv6_checksum(&udp, &source, &destination);
            assert!(same(udp.get_checksum(), sum), "UDP");
        }
        58 => {
            let icmp = Icmpv6Packet::new(ip.payload()).unwrap();
            let sum = pnet_packet::icmpv6::checksum(&icmp, &source, &destination);
            assert!(same(icmp.get_checksum(), sum), "ICMPv6");
        }
        _ => {}
    }
    (protocol, ip.payload().to_vec())
}

#[test]
fn nat_changes_addresses_ports_and_checksums() {
    for (frame, expected) in [
        (
            request6(64, b"hello"),
            tcp6((CLIENT6, 50000), (&server(11), 8080), 63, b"hello"),
        ),
        (
            udp6((CLIENT6, 40000), (VIP6, 53), 2, b"query"),
            udp6((CLIENT6, 40000), (&server(11), 8080), 1, b"query"),
        ),
    ] {
        let mut bench = bench();
        let output = bench.run(OUTSIDE, frame, nat6(11, 8080));
        assert_eq!(sent6(output, 0, INSIDE, server_mac(11)), packet(&expected));
    }
    let mut bench = bench();
    let reply = tcp6((&server(11), 8080), (CLIENT6, 50000), 64, b"answer");
    let output = bench.run(INSIDE, reply, un_nat6());
    let expected = tcp6((VIP6, 80), (CLIENT6, 50000), 63, b"answer");
    assert_eq!(sent6(output, 0, OUTSIDE, ROUTER_MAC), packet(&expected));
}

#[test]
fn partial_checksums_stay_partial() {
    let mut frame = request6(64, b"hello");
    let pseudo = |destination: &str| {
        crate::checksum::fold(crate::checksum::pseudo_header(
            CLIENT6.parse().unwrap(),
            destination.parse().unwrap(),
            6,
            25,
        ))
    };
    frame.bytes_mut()[70..72].copy_from_slice(&pseudo(VIP6).to_be_bytes());
    frame.meta.checksum = ChecksumState::Partial {
        start: 54,
        offset: 16,
    };
    let mut bench = bench();
    let output = bench.run(OUTSIDE, frame, nat6(11, 8080));
    let sum = &output.transmit[0].1.bytes()[70..72];
    let expected = pseudo(&server(11));
    assert!(same(u16::from_be_bytes([sum[0], sum[1]]), expected));
    output.transmit[0].1.complete_checksum();
    judged(&sent6(output, 0, INSIDE, server_mac(11)));
}

#[test]
fn a_datagram_without_a_checksum_stays_without() {
    let mut frame = udp6((CLIENT6, 40000), (VIP6, 53), 64, b"query");
    frame.bytes_mut()[60..62].fill(0);
    let mut bench = bench();
    let output = bench.run(OUTSIDE, frame, nat6(11, 8080));
    assert_eq!(sent6(output, 0, INSIDE, server_mac(11))[46..48], [0, 0]);
}

#[test]
fn direct_routing_takes_a_hop_and_nothing_else() {
    let mut bench = bench();
    let output = bench.run(OUTSIDE, request6(64, b"hello"), dr6(12));
    assert_eq!(
        sent6(output, 0, INSIDE, server_mac(12)),
        packet(&request6(63, b"hello"))
    );
}

#[test]
fn tunnels_carry_either_family_in_either() {
    let four = tcp(
        ROUTER_MAC,
        OUTSIDE_MAC,
        (CLIENT, 50000),
        (VIP, 80),
        64,
        b"x",
    );
    let four_after = tcp(
        ROUTER_MAC,
        OUTSIDE_MAC,
        (CLIENT, 50000),
        (VIP, 80),
        63,
        b"x",
    );
    let six = (request6(64, b"x"), request6(63, b"x"));
    let gue = Encapsulation::Gue {
        port: 6080,
        checksum: true,
    };
    let gre = Encapsulation::Gre { checksum: false };
    for encapsulation in [Encapsulation::Ipip, gue, gre] {
        for (frame, after) in [(&four, &four_after), (&six.0, &six.1)] {
            for rip in ["10.0.0.11", "2001:db8:2::11"] {
                let mut bench = bench();
                let output = bench.run(OUTSIDE, frame.clone(), tunnel(rip, encapsulation));
                let is_v6 = rip.contains(':');
                let ethertype = if is_v6 { IPV6 } else { [8, 0] };
                let sent = sent_as(output, 0, INSIDE, server_mac(11), ethertype);
                let rip: IpAddr = rip.parse().unwrap();
                assert!(sent.ends_with(&packet(after)));
                let overhead = tun::overhead(encapsulation, &rip);
                assert_eq!(sent.len(), after.len() - 14 + overhead);
                if is_v6 {
                    let ip = Ipv6Packet::new(&sent).unwrap();
                    assert_eq!(IpAddr::V6(ip.get_destination()), rip);
                    assert_eq!(ip.get_source(), v6(INSIDE6), "not the virtual address");
                    assert_eq!(ip.get_hop_limit(), 63);
                    if encapsulation == gue {
                        judged(&sent);
                    }
                } else {
                    let ip = Ipv4Packet::new(&sent).unwrap();
                    assert_eq!(IpAddr::V4(ip.get_destination()), rip);
                    assert_eq!(ip.get_checksum(), pnet_packet::ipv4::checksum(&ip));
                }
            }
        }
    }
}

/// The ICMPv6 error that was sent to the client, which quotes this packet.
fn told(output: &Output, quoted: &[u8]) -> [u8; 8] {
    let sent = sent6(output, 0, OUTSIDE, ROUTER_MAC);
    let (protocol, message) = judged(&sent);
    assert_eq!(protocol, 58);
    let ip = Ipv6Packet::new(&sent).unwrap();
    assert_eq!(
        (ip.get_source(), ip.get_destination()),
        (v6(VIP6), v6(CLIENT6))
    );
    assert!(ip.get_hop_limit() >= 63 && sent.len() <= 1280);
    assert!(quoted.starts_with(&message[8..]));
    message[..8].try_into().unwrap()
}

#[test]
fn senders_are_told_by_the_virtual_address() {
    let long = udp6((CLIENT6, 40000), (VIP6, 53), 64, &[7; 1453]);
    let short = request6(1, b"hello");
    for (name, frame, verdict, kind, mtu) in [
        ("hops used up", &short, nat6(11, 8080), [3, 0], 0),
        (
            "nobody serves",
            &request6(64, b""),
            Verdict::Reject,
            [1, 4],
            0,
        ),
        ("too big", &long, nat6(11, 8080), [2, 0], 1500),
        ("too big", &long, dr6(11), [2, 0], 1500),
        (
            "six in four",
            &long,
            tunnel("10.0.0.11", Encapsulation::Ipip),
            [2, 0],
            1480,
        ),
        (
            "six in six",
            &long,
            tunnel(&server(11), Encapsulation::Ipip),
            [2, 0],
            1460,
        ),
        (
            "GUE in six",
            &long,
            tunnel(
                &server(11),
                Encapsulation::Gue {
                    port: 1,
                    checksum: true,
                },
            ),
            [2, 0],
            1448,
        ),
    ] {
        let mut bench = bench();
        let output = bench.run(OUTSIDE, frame.clone(), verdict);
        let message = told(output, &packet(frame));
        assert_eq!(message[..2], kind, "{name}");
        let stated = u32::from_be_bytes(message[4..].try_into().unwrap());
        assert_eq!(stated, mtu, "{name}");
        assert_eq!(bench.events(Event::IcmpSent), 1, "{name}");
    }
}

#[test]
fn too_big_is_said_again_and_again_and_the_rest_once_a_second() {
    let mut bench = bench();
    let long = udp6((CLIENT6, 40000), (VIP6, 53), 64, &[7; 1453]);
    for _ in 0..3 {
        bench.run(OUTSIDE, long.clone(), dr6(11));
        bench.run(OUTSIDE, request6(64, b""), Verdict::Reject);
    }
    assert_eq!(bench.events(Event::IcmpSent), 4);
    assert_eq!(bench.events(Event::IcmpSuppressed), 2);
}

#[test]
fn no_sender_is_asked_for_less_than_1280() {
    for rip in ["10.0.0.11", "2001:db8:2::11"] {
        let mut bench = bench();
        bench.view.ports = bench
            .view
            .ports
            .iter()
            .cloned()
            .map(|port| Port { mtu: 1290, ..port })
            .collect();
        let frame = |length: usize| udp6((CLIENT6, 40000), (VIP6, 53), 64, &vec![7; length - 48]);
        let verdict = tunnel(rip, Encapsulation::Ipip);
        let output = bench.run(OUTSIDE, frame(1281), verdict);
        let message = told(output, &packet(&frame(1281)));
        assert_eq!(message, [2, 0, message[2], message[3], 0, 0, 5, 0]);
        let output = bench.run(OUTSIDE, frame(1280), verdict);
        assert_eq!(
            output.transmit.len(),
            2,
            "the outer packet goes in fragments"
        );
        let mut body = Vec::new();
        for at in 0..2 {
            if rip.contains(':') {
                let part = sent6(output, at, INSIDE, server_mac(11));
                let ip = Ipv6Packet::new(&part).unwrap();
                assert!(part.len() <= 1290);
                assert_eq!(ip.get_next_header().0, 44);
                assert_eq!(part[40], 41);
                body.extend_from_slice(&part[48..]);
            } else {
                let part = sent(output, at, INSIDE, server_mac(11));
                assert!(part.len() <= 1290);
                assert_eq!(part[9], 41);
                body.extend_from_slice(&part[20..]);
            }
        }
        let expected = udp6((CLIENT6, 40000), (VIP6, 53), 63, &[7; 1232]);
        assert_eq!(body, packet(&expected));
    }
}

#[test]
fn ipv4_in_ipv6_is_refused_or_cut_by_its_own_rules() {
    let verdict = tunnel(&server(11), Encapsulation::Ipip);
    let mut bench = bench();
    let sized = |may: bool| {
        let mut frame = udp((CLIENT, 40000), (VIP, 53), &[7; 1433]);
        frame.bytes_mut()[20] = if may { 0 } else { 0x40 };
        fix_header(&mut frame);
        frame
    };
    let output = bench.run(OUTSIDE, sized(false), verdict);
    let error = sent(output, 0, OUTSIDE, ROUTER_MAC);
    assert_eq!(
        (&error[20..22], &error[26..28]),
        (&[3, 4][..], &[5, 0xb4][..])
    );
    let output = bench.run(OUTSIDE, sized(true), verdict);
    assert_eq!(output.transmit.len(), 2);
    let idents: Vec<Vec<u8>> = (0..2)
        .map(|at| sent6(output, at, INSIDE, server_mac(11))[44..48].to_vec())
        .collect();
    assert_eq!(idents[0], idents[1]);
}

/// A request with these headers in front of the transport header.
fn extended(chain: &[u8], first: u8, frame: &Frame) -> Frame {
    let bytes = frame.bytes();
    let mut out = [&bytes[..54], chain, &bytes[54..]].concat();
    out[20] = first;
    let length = (out.len() - 54) as u16;
    out[18..20].copy_from_slice(&length.to_be_bytes());
    Frame::from_bytes(&out)
}

#[test]
fn extension_headers_stay_where_they_are() {
    let options = [6, 0, 1, 4, 0, 0, 0, 0];
    let routing = [6, 0, 4, 0, 0, 0, 0, 0];
    let atomic = [6, 0, 0, 0, 0, 0, 0, 9];
    let authentication = [&[6, 4][..], &[0; 22]].concat();
    let chain = [
        &[60, 0, 1, 4, 0, 0, 0, 0][..],
        &[43, 0, 1, 4, 0, 0, 0, 0],
        &routing,
    ]
    .concat();
    for (name, first, headers) in [
        ("hop by hop", 0, &options[..]),
        ("destination", 60, &options),
        ("routing without segments left", 43, &routing),
        ("whole datagram with a fragment header", 44, &atomic),
        ("authentication", 51, &authentication),
        ("several", 0, &chain),
    ] {
        let mut bench = bench();
        let frame = extended(headers, first, &request6(64, b"hello"));
        let output = bench.run(OUTSIDE, frame, nat6(11, 8080));
        let expected = tcp6((CLIENT6, 50000), (&server(11), 8080), 63, b"hello");
        let expected = extended(headers, first, &expected);
        assert_eq!(
            sent6(output, 0, INSIDE, server_mac(11)),
            packet(&expected),
            "{name}"
        );
        let output = bench.run(
            OUTSIDE,
            extended(headers, first, &request6(1, b"")),
            dr6(11),
        );
        assert_eq!(
            sent6(output, 0, OUTSIDE, ROUTER_MAC)[40..42],
            [3, 0],
            "{name}"
        );
    }
}

#[test]
fn what_is_not_the_balancers_is_left_alone() {
    let icmp = |kind: u8| {
        let mut bytes = Vec::new();
        builder(CLIENT6, VIP6, 255)
            .icmpv6_raw(kind, 0, [0; 4])
            .write(&mut bytes, &[0; 20])
            .unwrap();
        Frame::from_bytes(&bytes)
    };
    let many = [60, 0, 1, 4, 0, 0, 0, 0].repeat(9);
    let mut table = vec![
        (
            "segments left",
            extended(&[6, 0, 4, 1, 0, 0, 0, 0], 43, &request6(64, b"")),
            LeftReason::Extensions,
        ),
        (
            "too many headers",
            extended(&many, 60, &request6(64, b"")),
            LeftReason::Extensions,
        ),
        (
            "no service",
            tcp6((CLIENT6, 50000), (VIP6, 81), 64, b""),
            LeftReason::NotClaimed,
        ),
        (
            "a check's answer",
            tcp6((&server(11), 8080), (INSIDE6, 40000), 64, b""),
            LeftReason::NotClaimed,
        ),
        (
            "ESP without a key exchange's service",
            extended(&[], 50, &request6(64, b"")),
            LeftReason::NotClaimed,
        ),
        (
            "OSPF",
            extended(&[], 89, &request6(64, b"")),
            LeftReason::OtherProtocol,
        ),
        (
            "a header cut short",
            extended(&[], 60, &request6(64, b"")),
            LeftReason::NotIp,
        ),
    ];
    // Echo, groups, routers and neighbours.
    table.extend((128..=143).map(|kind| ("information", icmp(kind), LeftReason::OtherProtocol)));
    for (name, frame, reason) in table {
        let mut bench = bench();
        bench.run(OUTSIDE, frame, nat6(11, 8080));
        assert!(bench.is_silent(), "{name}");
        assert_eq!(bench.left(reason), 1, "{name}");
    }
}

#[test]
fn senders_that_can_not_be_answered_are_dropped() {
    for source in ["fe80::5", "ff02::1", "::1", "::"] {
        let mut bench = bench();
        bench.run(
            OUTSIDE,
            tcp6((source, 50000), (VIP6, 80), 64, b""),
            nat6(11, 8080),
        );
        assert!(bench.is_silent(), "{source}");
        assert_eq!(bench.drops(DropReason::MartianSource), 1, "{source}");
    }
}

#[test]
fn real_servers_of_the_other_family_or_of_a_link_are_refused() {
    let to = |rip: &str| Method::Nat {
        rip: SocketAddr::new(rip.parse().unwrap(), 8080),
    };
    for (name, method) in [
        ("NAT to IPv4", to("10.0.0.11")),
        ("loopback", to("::1")),
        ("link-local", to("fe80::11")),
        (
            "DR to IPv4",
            Method::DirectRoute {
                rip: [10, 0, 0, 11].into(),
            },
        ),
    ] {
        let mut bench = bench();
        bench.run(OUTSIDE, request6(64, b""), Verdict::Forward(method));
        assert!(bench.is_silent(), "{name}");
        assert_eq!(bench.drops(DropReason::BadVerdict), 1, "{name}");
    }
    let mut bench = bench();
    bench.run(OUTSIDE, request(64, b""), nat6(11, 8080));
    assert_eq!(bench.drops(DropReason::BadVerdict), 1, "NAT from IPv4");
}

#[test]
fn a_server_on_the_director_gets_it_through_the_host() {
    let mut bench = bench();
    let output = bench.run(OUTSIDE, request6(1, b"hello"), nat6(1, 8080));
    let expected = tcp6((CLIENT6, 50000), (INSIDE6, 8080), 1, b"hello");
    assert_eq!(output.host[0].bytes(), packet(&expected));
    let reply = tcp6((INSIDE6, 8080), (CLIENT6, 50000), 64, b"answer");
    let mut bench = super::ipv6::bench();
    let output = bench.run_host(Frame::from_bytes(&packet(&reply)), un_nat6());
    let expected = tcp6((VIP6, 80), (CLIENT6, 50000), 64, b"answer");
    assert_eq!(sent6(output, 0, OUTSIDE, ROUTER_MAC), packet(&expected));
    // What the balancer has no say in is routed as it is.
    let mut ping = Vec::new();
    builder(INSIDE6, CLIENT6, 64)
        .icmpv6_echo_request(1, 1)
        .write(&mut ping, b"ping")
        .unwrap();
    let output = bench.run_host(Frame::from_bytes(&ping[14..]), Verdict::NotOurs);
    assert_eq!(sent6(output, 0, OUTSIDE, ROUTER_MAC), ping[14..]);
}

#[test]
fn without_a_host_its_answers_are_given() {
    let mut bench = bench();
    bench.view.hostless = true;
    let output = bench.run(OUTSIDE, request6(64, b""), Verdict::NotOurs);
    let (protocol, segment) = judged(&sent6(output, 0, OUTSIDE, ROUTER_MAC));
    assert_eq!((protocol, segment[13]), (6, 0x14));
    let query = udp6((CLIENT6, 40000), (VIP6, 53), 64, b"query");
    let output = bench.run(OUTSIDE, query.clone(), Verdict::NotOurs);
    assert_eq!(told(output, &packet(&query))[..2], [1, 4]);
}

#[test]
fn replies_of_no_connection_are_routed_if_the_kernel_would() {
    let reply = tcp6((&server(11), 8080), (CLIENT6, 50000), 64, b"answer");
    for forwards in [true, false] {
        let mut bench = bench();
        bench.view.ports = bench
            .view
            .ports
            .iter()
            .cloned()
            .map(|port| Port {
                forwarding: !forwards,
                forwarding_v6: forwards,
                ..port
            })
            .collect();
        let output = bench.run(INSIDE, reply.clone(), Verdict::NotOurs);
        assert_eq!(output.transmit.len(), usize::from(forwards));
        assert_eq!(bench.drops(DropReason::ForwardingOff), u64::from(!forwards));
    }
}

fn error6(source: &str, destination: &str, kind: [u8; 2], quoted: &[u8]) -> Frame {
    let mut bytes = Vec::new();
    builder(source, destination, 64)
        .icmpv6_raw(kind[0], kind[1], [0, 0, 5, 0])
        .write(&mut bytes, quoted)
        .unwrap();
    Frame::from_bytes(&bytes)
}

const ROUTER6: &str = "2001:db8:f::7";

#[test]
fn a_server_learns_what_happened_to_its_answers() {
    let answer = packet(&tcp6((VIP6, 80), (CLIENT6, 50000), 60, b"hello"));
    let expected = packet(&tcp6((&server(11), 8080), (CLIENT6, 50000), 60, b"hello"));
    for (kind, quote) in [([2, 0], 65), ([3, 0], 60), ([1, 4], 48), ([4, 1], 56)] {
        let mut bench = bench();
        let frame = error6(ROUTER6, VIP6, kind, &answer[..quote]);
        let output = bench.run(OUTSIDE, frame, nat6(11, 8080));
        let sent = sent6(output, 0, INSIDE, server_mac(11));
        let (_, message) = judged(&sent);
        let ip = Ipv6Packet::new(&sent).unwrap();
        assert_eq!((ip.get_source(), ip.get_hop_limit()), (v6(ROUTER6), 63));
        assert_eq!(ip.get_destination(), v6(&server(11)));
        assert_eq!(
            (&message[..2], &message[4..8]),
            (&kind[..], &[0, 0, 5, 0][..])
        );
        assert_eq!(message[8..], expected[..quote]);
        assert_eq!(bench.events(Event::IcmpReceived), 1);
    }
}

#[test]
fn errors_about_fragments_are_translated_too() {
    let header = [17, 0, 0, 1, 0, 0, 0, 9];
    let part = |source: (&str, u16)| {
        packet(&extended(
            &header,
            44,
            &udp6(source, (CLIENT6, 40000), 60, &[7; 64]),
        ))
    };
    let mut bench = bench();
    let frame = error6(ROUTER6, VIP6, [2, 0], &part((VIP6, 53)));
    let output = bench.run(OUTSIDE, frame, nat6(11, 8080));
    let (_, message) = judged(&sent6(output, 0, INSIDE, server_mac(11)));
    assert_eq!(message[8..], part((&server(11), 8080)));
    let mut later = part((VIP6, 53));
    later[43] = 8;
    bench.run(
        OUTSIDE,
        error6(ROUTER6, VIP6, [2, 0], &later),
        nat6(11, 8080),
    );
    assert!(bench.is_silent());
    assert_eq!(bench.left(LeftReason::OtherProtocol), 1);
}

#[test]
fn a_client_hears_from_the_virtual_address_what_happened_to_its_packets() {
    let question = packet(&tcp6((CLIENT6, 50000), (&server(11), 8080), 60, b"hello"));
    for source in [server(11), "2001:db8:2::200".to_owned()] {
        let mut bench = bench();
        let frame = error6(&source, CLIENT6, [1, 4], &question);
        let output = bench.run(INSIDE, frame, un_nat6());
        let expected = packet(&tcp6((CLIENT6, 50000), (VIP6, 80), 60, b"hello"));
        assert_eq!(told(output, &expected)[..2], [1, 4]);
    }
}

#[test]
fn without_nat_the_server_gets_the_error_as_it_is() {
    let answer = packet(&tcp6((VIP6, 80), (CLIENT6, 50000), 60, b"hello"));
    let frame = error6(ROUTER6, VIP6, [2, 0], &answer);
    let mut expected = packet(&frame);
    expected[7] -= 1;
    let mut bench = bench();
    let output = bench.run(OUTSIDE, frame.clone(), dr6(12));
    assert_eq!(sent6(output, 0, INSIDE, server_mac(12)), expected);
    let output = bench.run(OUTSIDE, frame, tunnel(&server(11), Encapsulation::Ipip));
    assert_eq!(sent6(output, 0, INSIDE, server_mac(11))[40..], expected);
}

#[test]
fn broken_errors_are_dropped_and_none_is_answered() {
    let answer = packet(&tcp6((VIP6, 80), (CLIENT6, 50000), 60, &[0; 1400]));
    let mut broken = error6(ROUTER6, VIP6, [2, 0], &answer);
    broken.bytes_mut()[57] ^= 1;
    let large = error6(ROUTER6, VIP6, [2, 0], &answer);
    for (name, frame, verdict, reason) in [
        ("checksum", broken, nat6(11, 8080), DropReason::Malformed),
        ("too big", large.clone(), nat6(11, 8080), DropReason::TooBig),
        ("refused", large, Verdict::Reject, DropReason::Rejected),
        (
            "sender",
            error6("fe80::7", VIP6, [2, 0], &answer[..100]),
            nat6(11, 8080),
            DropReason::MartianSource,
        ),
    ] {
        let mut bench = bench();
        if name == "too big" {
            bench.view.ports = bench
                .view
                .ports
                .iter()
                .cloned()
                .map(|port| Port { mtu: 1400, ..port })
                .collect();
        }
        bench.run(OUTSIDE, frame, verdict);
        assert!(bench.is_silent(), "{name}");
        assert_eq!(bench.drops(reason), 1, "{name}");
    }
}

/// A UDP datagram from the client in fragments of so many bytes.
fn fragments(destination: (&str, u16), hops: u8, length: usize, size: usize) -> Vec<Frame> {
    let payload: Vec<u8> = (0..length).map(|n| (n * 31 / 7) as u8).collect();
    let whole = udp6((CLIENT6, 40000), destination, hops, &payload);
    let body = &whole.bytes()[54..];
    let count = body.len().div_ceil(size);
    let part = |(at, chunk): (usize, &[u8])| {
        let more = u16::from(at + 1 < count);
        let mut bytes = whole.bytes()[..54].to_vec();
        bytes[18..20].copy_from_slice(&(chunk.len() as u16 + 8).to_be_bytes());
        bytes[20] = 44;
        bytes.extend_from_slice(&[17, 0]);
        bytes.extend_from_slice(&((at * size) as u16 | more).to_be_bytes());
        bytes.extend_from_slice(&[0x12, 0x34, 0x56, 0x78]);
        bytes.extend_from_slice(chunk);
        Frame::from_bytes(&bytes)
    };
    body.chunks(size).enumerate().map(part).collect()
}

#[test]
fn later_fragments_follow_the_first_one() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut bench = bench();
        let frames = fragments((VIP6, 53), 64, 3000, 1232);
        let mut got = Vec::new();
        for at in order {
            let output = bench.run(OUTSIDE, frames[at].clone(), nat6(11, 8080));
            got.extend(
                (0..output.transmit.len()).map(|at| sent6(output, at, INSIDE, server_mac(11))),
            );
        }
        got.sort_by_key(|part| u16::from_be_bytes([part[42], part[43]]));
        let expected: Vec<Vec<u8>> = fragments((&server(11), 8080), 63, 3000, 1232)
            .iter()
            .map(packet)
            .collect();
        assert_eq!(got, expected, "{order:?}");
        assert_eq!(bench.events(Event::Fragments), 3);
    }
}

#[test]
fn fragments_that_overlap_or_lie_are_dropped() {
    let frames = fragments((VIP6, 53), 64, 3000, 1232);
    let mut over = frames[1].clone();
    over.bytes_mut()[56..58].copy_from_slice(&[0, 9]);
    let mut odd = frames[1].clone();
    odd.bytes_mut()[19] -= 1;
    let mut beyond = frames[1].clone();
    beyond.bytes_mut()[56..58].copy_from_slice(&[0xff, 0xf9]);
    for (name, frame, reason) in [
        ("over the first", over, DropReason::FragmentOverlap),
        ("no multiple of eight", odd, DropReason::Malformed),
        ("beyond the end", beyond, DropReason::Malformed),
    ] {
        let mut bench = bench();
        bench.run(OUTSIDE, frames[0].clone(), nat6(11, 8080));
        bench.run(OUTSIDE, frame, nat6(11, 8080));
        assert!(bench.is_silent(), "{name}");
        assert_eq!(bench.drops(reason), 1, "{name}");
    }
    // Too short for ports.
    let mut bench = bench();
    let mut tiny = frames[0].clone();
    tiny.bytes_mut()[18..20].copy_from_slice(&[0, 8 + 8]);
    tiny.truncate(54 + 8 + 8);
    bench.run(OUTSIDE, tiny.clone(), nat6(11, 8080));
    assert_eq!(
        bench.drops(DropReason::Malformed),
        0,
        "eight bytes hold the ports"
    );
}

#[test]
fn super_packets_are_judged_by_their_segments() {
    let mut frame = request6(64, &[7; 4000]);
    frame.meta.gso = Some(Gso {
        kind: GsoKind::Tcp6,
        ecn: false,
        size: 1440,
        header_len: 74,
    });
    let mut bench = bench();
    let output = bench.run(OUTSIDE, frame.clone(), nat6(11, 8080));
    assert_eq!(output.transmit[0].1.meta.gso, frame.meta.gso);
    judged(&sent6(output, 0, INSIDE, server_mac(11)));
    let output = bench.run(
        OUTSIDE,
        frame.clone(),
        tunnel(&server(11), Encapsulation::Ipip),
    );
    assert_eq!(sent6(output, 0, OUTSIDE, ROUTER_MAC)[40..42], [2, 0]);
    frame.meta.gso.as_mut().unwrap().size = 1400;
    let output = bench.run(OUTSIDE, frame, tunnel(&server(11), Encapsulation::Ipip));
    assert_eq!(output.transmit.len(), 3);
    let mut body = Vec::new();
    for at in 0..3 {
        let part = sent6(output, at, INSIDE, server_mac(11));
        assert!(part.len() <= 1500);
        let (_, segment) = judged(&part[40..]);
        body.extend_from_slice(&segment[20..]);
    }
    assert_eq!(body, [7; 4000]);
}

#[test]
fn both_directions_and_errors_meet_the_worker_of_the_client() {
    let owner = steer::owner(CLIENT6.parse().unwrap(), 2);
    let answer = packet(&tcp6((VIP6, 80), (CLIENT6, 50000), 60, b"hello"));
    for (port, frame) in [
        (OUTSIDE, request6(64, b"")),
        (INSIDE, tcp6((&server(11), 8080), (CLIENT6, 50000), 64, b"")),
        (OUTSIDE, error6(ROUTER6, VIP6, [2, 0], &answer)),
        (OUTSIDE, fragments((VIP6, 53), 64, 3000, 1232).remove(1)),
    ] {
        let mut bench = bench();
        bench.engine = Engine::new(EngineConfig {
            worker: 1 - owner,
            workers: 2,
            ..EngineConfig::default()
        });
        let output = bench.run(port, frame, nat6(11, 8080));
        assert_eq!(output.handoff.len(), 1);
        assert_eq!(output.handoff[0].0, owner);
    }
}

proptest! {
    #[test]
    fn frames_of_any_content_come_out_right_or_not_at_all(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        real in 0usize..4,
        cut in 0usize..200,
        verdict in 0usize..4,
    ) {
        let base = match real {
            0 => request6(64, b"hello"),
            1 => extended(&[6, 0, 1, 4, 0, 0, 0, 0], 0, &request6(64, b"hello")),
            2 => error6(ROUTER6, VIP6, [2, 0], &packet(&tcp6((VIP6, 80), (CLIENT6, 50000), 60, b"hello"))),
            _ => fragments((VIP6, 53), 64, 300, 128).remove(0),
        };
        // Some bytes of a real frame are replaced.
        let mut frame = base.clone();
        for (at, byte) in bytes.drain(..).enumerate() {
            if byte > 250 && at > 13 && at < frame.len() {
                frame.bytes_mut()[at] = byte.wrapping_mul(17);
            }
        }
        frame.truncate(cut.max(14) + if cut % 2 == 0 { 200 } else { 0 });
        let verdict = [nat6(11, 8080), dr6(11), tunnel("10.0.0.11", Encapsulation::Ipip), tunnel(&server(11), Encapsulation::Ipip)][verdict];
        let mut bench = bench();
        bench.run(OUTSIDE, frame, verdict);
        for (_, frame) in &bench.output.transmit {
            let bytes = &frame.bytes()[14..];
            match bytes[0] >> 4 {
                4 => prop_assert_eq!(usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), bytes.len()),
                _ => prop_assert_eq!(usize::from(u16::from_be_bytes([bytes[4], bytes[5]])) + 40, bytes.len()),
            }
        }
    }
}
