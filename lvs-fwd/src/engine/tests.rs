//! Packet tables: a frame in, its destiny and its bytes out. Frames are built and judged by etherparse and
//! pnet, not by the code under test.

mod errors;
mod fragments;
mod fullnat;
mod ipv6;
mod payload;
mod protocols;
mod reassembly;
mod short_way;
mod tunnel;
mod tunnel_errors;
mod why;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use etherparse::PacketBuilder;
use pnet_packet::ipv4::Ipv4Packet;
use pnet_packet::tcp::TcpPacket;
use pnet_packet::udp::UdpPacket;
use proptest::prelude::*;

use super::*;
use crate::balancer::{Encapsulation, Method};
use crate::frame::{ChecksumState, FrameMeta, Gso, GsoKind, VlanTag};
use crate::rewrite::nat as nat_rewrite;
use crate::route::{
    Neighbour, NeighbourState, NeighbourTable, NextHop, Prefix, Route, RouteKind, RouteTable,
};
use crate::view::{ClaimSet, LocalAddresses, Port, TunnelOptions};

const OUTSIDE: PortId = PortId(0);
const INSIDE: PortId = PortId(1);
const OUTSIDE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const INSIDE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 254];
const CLIENT: [u8; 4] = [203, 0, 113, 5];
const VIP: [u8; 4] = [192, 0, 2, 10];
const SYN: u8 = 2;

fn server_mac(last: u8) -> [u8; 6] {
    [2, 0, 0, 0, 2, last]
}

/// A director between a router (192.0.2.254) and the servers 10.0.0.11 and .12; .13 is not resolved, .14 is
/// stale, .1 is the director itself.
fn view() -> View {
    let port = |index: PortId, ifindex, mac, addr: [u8; 4]| Port {
        addresses: vec![addr.into()],
        ..Port::new(index, ifindex, format!("eth{}", index.0), mac)
    };
    let mut claims = ClaimSet::new();
    for protocol in [6, 17] {
        for vport in [80, 53] {
            claims.insert_service(endpoint(protocol, VIP, vport));
        }
        for last in [1, 11, 12, 13, 14] {
            claims.insert_server(endpoint(protocol, [10, 0, 0, last], 8080));
        }
    }
    let mut routes = RouteTable::new();
    let mut route = |addr: [u8; 4], length, next_hop, ifindex, kind| {
        routes.insert(Route {
            kind,
            ..Route::new(Prefix::new(addr.into(), length), next_hop, ifindex)
        });
    };
    route(
        [0; 4],
        0,
        NextHop::Gateway([192, 0, 2, 254].into()),
        2,
        RouteKind::Unicast,
    );
    route([192, 0, 2, 0], 24, NextHop::OnLink, 2, RouteKind::Unicast);
    route([10, 0, 0, 0], 24, NextHop::OnLink, 3, RouteKind::Unicast);
    route([10, 0, 1, 0], 24, NextHop::OnLink, 99, RouteKind::Unicast);
    route([10, 0, 2, 0], 24, NextHop::OnLink, 0, RouteKind::Blackhole);
    route(
        [10, 0, 3, 0],
        24,
        NextHop::OnLink,
        0,
        RouteKind::Unreachable,
    );
    let mut neighbours = NeighbourTable::new();
    let mut neighbour = |ifindex, addr: [u8; 4], mac, state| {
        neighbours.insert(
            Hop {
                ifindex,
                addr: addr.into(),
            },
            Neighbour { mac, state },
        );
    };
    neighbour(2, [192, 0, 2, 254], ROUTER_MAC, NeighbourState::Reachable);
    for last in [11, 12] {
        neighbour(
            3,
            [10, 0, 0, last],
            server_mac(last),
            NeighbourState::Reachable,
        );
    }
    neighbour(3, [10, 0, 0, 13], [0; 6], NeighbourState::Failed);
    neighbour(3, [10, 0, 0, 14], server_mac(14), NeighbourState::Stale);
    let local: LocalAddresses = [IpAddr::from([192, 0, 2, 1]), [10, 0, 0, 1].into()]
        .into_iter()
        .collect();
    View {
        generation: 1,
        claims: Arc::new(claims),
        routes: Arc::new(routes),
        neighbours: Arc::new(neighbours),
        ports: Arc::new([
            port(OUTSIDE, 2, OUTSIDE_MAC, [192, 0, 2, 1]),
            port(INSIDE, 3, INSIDE_MAC, [10, 0, 0, 1]),
        ]),
        local: Arc::new(local),
        hostless: false,
        one_way: false,
        tunnels: TunnelOptions::default(),
    }
}

fn endpoint(protocol: u8, addr: [u8; 4], port: u16) -> Endpoint {
    Endpoint {
        protocol,
        addr: addr.into(),
        port,
    }
}

/// A balancer that answers every packet by one function.
struct Script<F>(F);

impl<F: FnMut(&PacketInfo) -> Verdict> Balancer for Script<F> {
    fn decide(&mut self, _: Instant, packets: &Packets<'_>, verdicts: &mut Vec<Verdict>) {
        verdicts.extend(packets.iter().map(&mut self.0));
    }

    fn decide_error(&mut self, _: Instant, quoted: &PacketInfo) -> Verdict {
        (self.0)(quoted)
    }

    fn decide_tunnel_error(&mut self, _: Instant, inner: &PacketInfo) -> Verdict {
        (self.0)(inner)
    }

    fn decide_ipsec(&mut self, _: Instant, packet: &PacketInfo) -> Verdict {
        (self.0)(packet)
    }
}

/// Remembers how many packets of each client it has seen.
#[derive(Default)]
struct Recorder(BTreeMap<IpAddr, u32>);

impl Balancer for Recorder {
    fn decide(&mut self, _: Instant, packets: &Packets<'_>, verdicts: &mut Vec<Verdict>) {
        for packet in packets {
            let (client, verdict) = match packet.direction {
                Direction::Inbound => (packet.source, nat(11, 8080)),
                Direction::Outbound => (packet.destination, un_nat()),
            };
            *self.0.entry(client.ip()).or_default() += 1;
            verdicts.push(verdict);
        }
    }
}

/// An engine under [`view`], and what it put out.
struct Bench {
    engine: Engine,
    view: View,
    now: Instant,
    output: Output,
}

impl Bench {
    fn new() -> Self {
        Self {
            engine: Engine::new(EngineConfig::default()),
            view: view(),
            now: Instant::now(),
            output: Output::new(),
        }
    }

    fn run(&mut self, port: PortId, frame: Frame, verdict: Verdict) -> &mut Output {
        self.output.clear();
        self.engine.process(
            self.now,
            &self.view,
            port,
            &mut vec![frame],
            &mut Script(|_: &PacketInfo| verdict),
            &mut self.output,
        );
        &mut self.output
    }

    fn run_host(&mut self, packet: Frame, verdict: Verdict) -> &mut Output {
        self.output.clear();
        self.engine.process_host(
            self.now,
            &self.view,
            &mut vec![packet],
            &mut Script(|_: &PacketInfo| verdict),
            &mut self.output,
        );
        &mut self.output
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.engine.counters().drops(reason)
    }

    fn left(&self, reason: LeftReason) -> u64 {
        self.engine.counters().left(reason)
    }

    fn events(&self, event: Event) -> u64 {
        self.engine.counters().events(event)
    }

    /// Every frame is counted exactly once among outputs, drops and what was left alone.
    fn is_silent(&self) -> bool {
        self.output.transmit.is_empty()
            && self.output.host.is_empty()
            && self.output.handoff.is_empty()
    }
}

/// From the router to the director, client to virtual service.
fn request(ttl: u8, payload: &[u8]) -> Frame {
    tcp(
        ROUTER_MAC,
        OUTSIDE_MAC,
        (CLIENT, 50000),
        (VIP, 80),
        ttl,
        payload,
    )
}

/// From a server to the director, real server to client.
fn reply(last: u8, ttl: u8, payload: &[u8]) -> Frame {
    tcp(
        server_mac(last),
        INSIDE_MAC,
        ([10, 0, 0, last], 8080),
        (CLIENT, 50000),
        ttl,
        payload,
    )
}

fn tcp(
    from: [u8; 6],
    to: [u8; 6],
    source: ([u8; 4], u16),
    destination: ([u8; 4], u16),
    ttl: u8,
    payload: &[u8],
) -> Frame {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(from, to)
        .ipv4(source.0, destination.0, ttl)
        .tcp(source.1, destination.1, 7, 1000)
        .syn()
        .write(&mut bytes, payload)
        .unwrap();
    Frame::from_bytes(&bytes)
}

fn udp(source: ([u8; 4], u16), destination: ([u8; 4], u16), payload: &[u8]) -> Frame {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(ROUTER_MAC, OUTSIDE_MAC)
        .ipv4(source.0, destination.0, 64)
        .udp(source.1, destination.1)
        .write(&mut bytes, payload)
        .unwrap();
    Frame::from_bytes(&bytes)
}

/// An IP packet given as bytes, in a frame from the router.
fn frame_of(packet: &[u8]) -> Frame {
    let mut bytes = [&OUTSIDE_MAC[..], &ROUTER_MAC, &[8, 0]].concat();
    bytes.extend_from_slice(packet);
    Frame::from_bytes(&bytes)
}

fn nat(last: u8, port: u16) -> Verdict {
    Verdict::Forward(Method::Nat {
        rip: SocketAddr::from(([10, 0, 0, last], port)),
    })
}

fn dr(last: u8) -> Verdict {
    Verdict::Forward(Method::DirectRoute {
        rip: [10, 0, 0, last].into(),
    })
}

fn un_nat() -> Verdict {
    Verdict::Reply {
        source: SocketAddr::from((VIP, 80)),
    }
}

/// Recomputes every checksum of an IP packet with pnet.
fn assert_checksums(packet: &[u8]) {
    let ip = Ipv4Packet::new(packet).unwrap();
    assert_eq!(
        ip.get_checksum(),
        pnet_packet::ipv4::checksum(&ip),
        "IP header"
    );
    let (source, destination) = (ip.get_source(), ip.get_destination());
    let segment =
        &packet[usize::from(ip.get_header_length()) * 4..usize::from(ip.get_total_length())];
    match ip.get_next_level_protocol().0 {
        6 => {
            let tcp = TcpPacket::new(segment).unwrap();
            let expected = pnet_packet::tcp::ipv4_checksum(&tcp, &source, &destination);
            assert!(
                same(tcp.get_checksum(), expected),
                "TCP {:x} {expected:x}",
                tcp.get_checksum()
            );
        }
        17 => {
            let udp = UdpPacket::new(segment).unwrap();
            let expected = pnet_packet::udp::ipv4_checksum(&udp, &source, &destination);
            assert!(
                udp.get_checksum() == 0 || same(udp.get_checksum(), expected),
                "UDP"
            );
        }
        1 => assert!(same(pnet_packet::util::checksum(segment, 999), 0), "ICMP"),
        other => panic!("protocol {other}"),
    }
}

fn same(a: u16, b: u16) -> bool {
    a == b || a ^ b == 0xffff && (a == 0 || b == 0)
}

/// The frame for this port, its link header checked, as an IPv4 packet.
fn sent(output: &Output, at: usize, port: PortId, destination: [u8; 6]) -> Vec<u8> {
    sent_as(output, at, port, destination, [8, 0])
}

fn sent_as(
    output: &Output,
    at: usize,
    port: PortId,
    destination: [u8; 6],
    ethertype: [u8; 2],
) -> Vec<u8> {
    let (out, frame) = &output.transmit[at];
    let source = if port == OUTSIDE {
        OUTSIDE_MAC
    } else {
        INSIDE_MAC
    };
    assert_eq!(*out, port);
    assert_eq!(
        frame.bytes()[..14],
        [&destination[..], &source, &ethertype].concat()
    );
    frame.bytes()[14..].to_vec()
}

const SYN_IN: [u8; 44] = [
    0x45, 0x00, 0x00, 0x2c, 0x12, 0x34, 0x40, 0x00, 0x40, 0x06, 0x2a, 0x88, 0xcb, 0x00, 0x71, 0x05,
    0xc0, 0x00, 0x02, 0x0a, 0xc3, 0x50, 0x00, 0x50, 0x11, 0x22, 0x33, 0x44, 0x00, 0x00, 0x00, 0x00,
    0x60, 0x02, 0xfa, 0xf0, 0x97, 0x1e, 0x00, 0x00, 0x02, 0x04, 0x05, 0xb4,
];
const SYN_OUT: [u8; 44] = [
    0x45, 0x00, 0x00, 0x2c, 0x12, 0x34, 0x40, 0x00, 0x3f, 0x06, 0xe3, 0x87, 0xcb, 0x00, 0x71, 0x05,
    0x0a, 0x00, 0x00, 0x0b, 0xc3, 0x50, 0x1f, 0x90, 0x11, 0x22, 0x33, 0x44, 0x00, 0x00, 0x00, 0x00,
    0x60, 0x02, 0xfa, 0xf0, 0x2f, 0xde, 0x00, 0x00, 0x02, 0x04, 0x05, 0xb4,
];
const UDP_IN: [u8; 34] = [
    0x45, 0x00, 0x00, 0x22, 0x12, 0x34, 0x40, 0x00, 0x40, 0x11, 0x2a, 0x87, 0xcb, 0x00, 0x71, 0x05,
    0xc0, 0x00, 0x02, 0x0a, 0x9c, 0x40, 0x00, 0x35, 0x00, 0x0e, 0xce, 0x91, 0x12, 0x34, 0x41, 0x42,
    0x43, 0x44,
];
const UDP_OUT: [u8; 34] = [
    0x45, 0x00, 0x00, 0x22, 0x12, 0x34, 0x40, 0x00, 0x3f, 0x11, 0xe3, 0x86, 0xcb, 0x00, 0x71, 0x05,
    0x0a, 0x00, 0x00, 0x0b, 0x9c, 0x40, 0x14, 0xe9, 0x00, 0x0e, 0x71, 0xdd, 0x12, 0x34, 0x41, 0x42,
    0x43, 0x44,
];

#[test]
fn nat_equals_the_specifications_vectors() {
    for (packet, port, expected) in [(&SYN_IN[..], 8080, &SYN_OUT[..]), (&UDP_IN, 5353, &UDP_OUT)] {
        let mut bench = Bench::new();
        let output = bench.run(OUTSIDE, frame_of(packet), nat(11, port));
        assert_eq!(sent(output, 0, INSIDE, server_mac(11)), expected);
    }
}

#[test]
fn padding_is_cut() {
    let mut padded = SYN_IN.to_vec();
    padded.resize(60, 0xee);
    let mut bench = Bench::new();
    let output = bench.run(OUTSIDE, frame_of(&padded), nat(11, 8080));
    assert_eq!(sent(output, 0, INSIDE, server_mac(11)), SYN_OUT);
}

#[test]
fn partial_checksums_change_by_addresses_only_and_stay_partial() {
    let mut packet = SYN_IN;
    packet[36..38].copy_from_slice(&[0xfe, 0x2e]);
    let mut frame = frame_of(&packet);
    let partial = ChecksumState::Partial {
        start: 34,
        offset: 16,
    };
    frame.meta.checksum = partial;
    let mut bench = Bench::new();
    let output = bench.run(OUTSIDE, frame, nat(11, 8080));
    let mut expected = SYN_OUT;
    expected[36..38].copy_from_slice(&[0x46, 0x2f]);
    assert_eq!(sent(output, 0, INSIDE, server_mac(11)), expected);
    assert_eq!(output.transmit[0].1.meta.checksum, partial);
    // Completed, it is the checksum of the vector.
    output.transmit[0].1.complete_checksum();
    assert_eq!(sent(output, 0, INSIDE, server_mac(11)), SYN_OUT);
}

#[test]
fn a_reply_gets_the_virtual_address_back() {
    let mut bench = Bench::new();
    let output = bench.run(INSIDE, reply(11, 64, b"hello"), un_nat());
    let packet = sent(output, 0, OUTSIDE, ROUTER_MAC);
    assert_checksums(&packet);
    let mut expected = tcp(
        OUTSIDE_MAC,
        ROUTER_MAC,
        (VIP, 80),
        (CLIENT, 50000),
        63,
        b"hello",
    );
    expected.trim_front(14);
    assert_eq!(packet, expected.bytes());
    assert_eq!(bench.events(Event::Outbound), 1);
}

#[test]
fn direct_routing_changes_ttl_and_link_header_only() {
    let mut bench = Bench::new();
    let output = bench.run(OUTSIDE, request(64, b"hello"), dr(12));
    let packet = sent(output, 0, INSIDE, server_mac(12));
    let mut expected = request(63, b"hello");
    expected.trim_front(14);
    assert_eq!(packet, expected.bytes());
    assert_checksums(&packet);
}

#[test]
fn udp_without_checksum_stays_without() {
    let mut frame = udp((CLIENT, 40000), (VIP, 53), b"query");
    frame.bytes_mut()[40..42].fill(0);
    let mut bench = Bench::new();
    let output = bench.run(OUTSIDE, frame, nat(11, 5353));
    let packet = sent(output, 0, INSIDE, server_mac(11));
    assert_eq!(packet[26..28], [0, 0]);
    assert_checksums(&packet);
}

#[test]
fn a_broken_transport_checksum_stays_broken() {
    let mut frame = request(64, b"hello");
    frame.bytes_mut()[50] ^= 1;
    let mut bench = Bench::new();
    let output = bench.run(OUTSIDE, frame, nat(11, 8080));
    let packet = sent(output, 0, INSIDE, server_mac(11));
    let tcp = TcpPacket::new(&packet[20..]).unwrap();
    let right = pnet_packet::tcp::ipv4_checksum(&tcp, &CLIENT.into(), &[10, 0, 0, 11].into());
    assert!(!same(tcp.get_checksum(), right));
}

#[test]
fn refusal_equals_the_vector_and_is_limited() {
    let mut bench = Bench::new();
    let output = bench.run(OUTSIDE, frame_of(&SYN_IN), Verdict::Reject);
    let packet = sent(output, 0, OUTSIDE, ROUTER_MAC);
    assert_eq!(
        packet[..28],
        [
            0x45, 0xc0, 0x00, 0x48, 0x00, 0x00, 0x00, 0x00, 0x40, 0x01, 0x7b, 0xe5, 0xc0, 0x00,
            0x02, 0x0a, 0xcb, 0x00, 0x71, 0x05, 0x03, 0x03, 0xfb, 0x2b, 0x00, 0x00, 0x00, 0x00,
        ]
    );
    assert_eq!(packet[28..], SYN_IN);
    assert!(
        bench
            .run(OUTSIDE, frame_of(&SYN_IN), Verdict::Reject)
            .transmit
            .is_empty()
    );
    bench.now += Duration::from_secs(1);
    assert_eq!(
        bench
            .run(OUTSIDE, frame_of(&SYN_IN), Verdict::Reject)
            .transmit
            .len(),
        1
    );
    assert_eq!(bench.drops(DropReason::Rejected), 3);
    assert_eq!(bench.events(Event::IcmpSent), 2);
    assert_eq!(bench.events(Event::IcmpSuppressed), 1);
}

#[test]
fn a_real_server_on_the_director_gets_its_packets_without_a_hop() {
    let mut bench = Bench::new();
    let output = bench.run(OUTSIDE, request(1, b"hello"), nat(1, 8080));
    assert!(output.transmit.is_empty());
    let packet = output.host[0].bytes();
    assert_checksums(packet);
    assert_eq!((packet[8], &packet[16..20]), (1, &[10, 0, 0, 1][..]));

    let output = bench.run(OUTSIDE, request(1, b"hello"), dr(1));
    assert_eq!(output.host[0].bytes(), &request(1, b"hello").bytes()[14..]);
}

#[test]
fn replies_from_the_host_make_no_hop() {
    let mut bench = Bench::new();
    let mut packet = reply(1, 1, b"hello");
    packet.trim_front(14);
    packet.meta.checksum = ChecksumState::Partial {
        start: 20,
        offset: 16,
    };
    let partial = crate::checksum::fold(crate::checksum::pseudo_header(
        [10, 0, 0, 1].into(),
        CLIENT.into(),
        6,
        25,
    ));
    packet.bytes_mut()[36..38].copy_from_slice(&partial.to_be_bytes());
    let output = bench.run_host(packet, un_nat());
    output.transmit[0].1.complete_checksum();
    let packet = sent(output, 0, OUTSIDE, ROUTER_MAC);
    assert_checksums(&packet);
    assert_eq!((packet[8], &packet[12..16]), (1, &VIP[..]));
}

#[test]
fn what_the_host_sends_besides_is_routed() {
    let mut bench = Bench::new();
    bench.view.ports = bench
        .view
        .ports
        .iter()
        .cloned()
        .map(|port| Port {
            forwarding: false,
            forwarding_v6: false,
            ..port
        })
        .collect();
    let mut packet = reply(1, 64, b"hello");
    packet.trim_front(14);
    let expected = packet.bytes().to_vec();
    assert_eq!(
        sent(
            bench.run_host(packet, Verdict::NotOurs),
            0,
            OUTSIDE,
            ROUTER_MAC
        ),
        expected
    );

    let mut ping = expected;
    ping[9] = 1;
    let output = bench.run_host(Frame::from_bytes(&ping), Verdict::Drop(0));
    assert_eq!(sent(output, 0, OUTSIDE, ROUTER_MAC), ping);
    for bytes in [&[][..], &[0x60; 60], &[0x45; 10], &[0xff; 100]] {
        assert!(
            bench
                .run_host(Frame::from_bytes(bytes), Verdict::NotOurs)
                .transmit
                .is_empty()
        );
    }
}

#[test]
fn not_ours_goes_to_the_host_or_the_routers_way() {
    let mut bench = Bench::new();
    let output = bench.run(OUTSIDE, request(1, b"hello"), Verdict::NotOurs);
    assert_eq!(output.host[0].bytes(), &request(1, b"hello").bytes()[14..]);

    let output = bench.run(INSIDE, reply(11, 64, b"hello"), Verdict::NotOurs);
    let packet = sent(output, 0, OUTSIDE, ROUTER_MAC);
    let mut expected = reply(11, 63, b"hello");
    expected.trim_front(14);
    assert_eq!(packet, expected.bytes());

    bench.view.ports = bench
        .view
        .ports
        .iter()
        .cloned()
        .map(|port| Port {
            forwarding: false,
            forwarding_v6: false,
            ..port
        })
        .collect();
    bench.run(INSIDE, reply(11, 64, b"hello"), Verdict::NotOurs);
    assert!(bench.is_silent());
    assert_eq!(bench.drops(DropReason::ForwardingOff), 1);
}

#[test]
fn without_a_host_what_is_of_no_connection_is_refused() {
    let mut bench = Bench::new();
    bench.view.hostless = true;
    let output = bench.run(OUTSIDE, request(64, b"hello"), Verdict::NotOurs);
    assert!(output.host.is_empty());
    let [(OUTSIDE, reset)] = &output.transmit[..] else {
        panic!("one frame to the router: {output:?}");
    };
    assert_eq!(reset.bytes()[..6], ROUTER_MAC);
    assert_eq!(reset.bytes()[6..12], OUTSIDE_MAC);
    assert_eq!(
        (&reset.bytes()[26..30], &reset.bytes()[30..34]),
        (&VIP[..], &CLIENT[..])
    );
    assert_eq!(reset.bytes()[47] & 4, 4, "RST");
    assert_eq!(bench.drops(DropReason::NoHost), 1);
}

#[test]
fn a_host_without_a_way_back_gets_what_it_answers_in_its_own_name() {
    let mut bench = Bench::new();
    bench.view.one_way = true;
    let own = SocketAddr::from(([10, 0, 0, 1], 8080));
    for (method, given) in [
        (Method::Nat { rip: own }, 0),
        (Method::DirectRoute { rip: own.ip() }, 1),
    ] {
        let output = bench.run(OUTSIDE, request(64, b"hello"), Verdict::Forward(method));
        assert_eq!(output.host.len(), given, "{method:?}");
    }
    assert_eq!(bench.drops(DropReason::NoHost), 1);
    let output = bench.run(OUTSIDE, request(64, b"hello"), Verdict::NotOurs);
    assert_eq!(output.host.len(), 1);
}

#[test]
fn what_is_routed_and_no_port_leads_there_is_the_hosts() {
    let reply = |to: [u8; 4]| {
        tcp(
            server_mac(11),
            INSIDE_MAC,
            ([10, 0, 0, 11], 8080),
            (to, 50000),
            64,
            b"",
        )
    };
    let mut bench = Bench::new();
    let output = bench.run(INSIDE, reply([10, 0, 1, 5]), Verdict::NotOurs);
    assert_eq!((output.host.len(), output.transmit.len()), (1, 0));
    bench.view.hostless = true;
    let output = bench.run(INSIDE, reply([10, 0, 1, 5]), Verdict::NotOurs);
    assert!(output.host.is_empty() && output.transmit.is_empty());
    assert_eq!(bench.drops(DropReason::NoPort), 1);
}

#[test]
fn frames_that_are_not_claimed_are_left_alone() {
    let arp = Frame::from_bytes(&[&[0xff; 6][..], &ROUTER_MAC, &[8, 6], &[0; 46]].concat());
    let jumbo =
        Frame::from_bytes(&[&OUTSIDE_MAC[..], &ROUTER_MAC, &[0x86, 0xdd], &[0x60; 46]].concat());
    let kind = |kind| {
        let mut frame = request(64, b"");
        frame.meta.kind = kind;
        frame
    };
    let mut priority = request(64, b"");
    priority.meta.vlan = Some(VlanTag {
        tci: 0xe000,
        tpid: 0x8100,
    });
    let mut vlan = request(64, b"");
    vlan.meta.vlan = Some(VlanTag {
        tci: 0x2064,
        tpid: 0x8100,
    });
    let mut fragment = tcp(
        ROUTER_MAC,
        OUTSIDE_MAC,
        (CLIENT, 50000),
        (VIP, 81),
        64,
        &[0; 4],
    );
    fragment.bytes_mut()[20] = 0x20;
    let mut icmp = request(64, b"");
    icmp.bytes_mut()[23] = 1;
    let own = tcp(INSIDE_MAC, OUTSIDE_MAC, (CLIENT, 50000), (VIP, 80), 64, b"");
    let other_port = tcp(ROUTER_MAC, OUTSIDE_MAC, (CLIENT, 50000), (VIP, 81), 64, b"");
    // An answer to a check of the director's own.
    let to_local = tcp(
        server_mac(11),
        INSIDE_MAC,
        ([10, 0, 0, 11], 8080),
        ([10, 0, 0, 1], 40000),
        64,
        b"",
    );
    let table = [
        ("ARP", arp, LeftReason::NotIp),
        (
            "IPv6 that is longer than the frame",
            jumbo,
            LeftReason::NotIp,
        ),
        ("short", Frame::from_bytes(&[0; 5]), LeftReason::NotIp),
        (
            "other host",
            kind(PacketKind::OtherHost),
            LeftReason::NotToUs,
        ),
        ("outgoing", kind(PacketKind::Outgoing), LeftReason::NotToUs),
        (
            "broadcast",
            kind(PacketKind::Broadcast),
            LeftReason::NotToUs,
        ),
        ("VLAN", vlan, LeftReason::Vlan),
        ("VLAN 0", priority, LeftReason::Vlan),
        ("fragment", fragment, LeftReason::Fragment),
        ("ICMP", icmp, LeftReason::OtherProtocol),
        ("own frame", own, LeftReason::OwnFrame),
        ("no service", other_port, LeftReason::NotClaimed),
        ("to the director", to_local, LeftReason::NotClaimed),
    ];
    for (name, frame, reason) in table {
        let mut bench = Bench::new();
        bench.run(OUTSIDE, frame, nat(11, 8080));
        assert!(bench.is_silent(), "{name}");
        assert_eq!(bench.left(reason), 1, "{name}");
    }
}

#[test]
fn claimed_frames_are_dropped_for_counted_reasons() {
    let mut header_sum = request(64, b"");
    header_sum.bytes_mut()[24] ^= 1;
    let mut data_offset = request(64, b"");
    data_offset.bytes_mut()[46] = 0xf0;
    let martian = tcp(
        ROUTER_MAC,
        OUTSIDE_MAC,
        ([127, 0, 0, 1], 50000),
        (VIP, 80),
        64,
        b"",
    );
    let to = |addr: [u8; 4]| Verdict::Forward(Method::DirectRoute { rip: addr.into() });
    let v6 = Verdict::Forward(Method::DirectRoute {
        rip: "2001:db8::1".parse().unwrap(),
    });
    let table = [
        (
            "IP checksum",
            header_sum,
            nat(11, 8080),
            DropReason::Malformed,
        ),
        (
            "data offset",
            data_offset,
            nat(11, 8080),
            DropReason::Malformed,
        ),
        (
            "loopback source",
            martian,
            nat(11, 8080),
            DropReason::MartianSource,
        ),
        (
            "balancer",
            request(64, b""),
            Verdict::Drop(3),
            DropReason::Balancer,
        ),
        ("other family", request(64, b""), v6, DropReason::BadVerdict),
        (
            "loopback server",
            request(64, b""),
            to([127, 0, 0, 1]),
            DropReason::BadVerdict,
        ),
        (
            "no port",
            request(64, b""),
            to([10, 0, 1, 1]),
            DropReason::NoPort,
        ),
        (
            "blackhole",
            request(64, b""),
            to([10, 0, 2, 1]),
            DropReason::Blackhole,
        ),
    ];
    for (name, frame, verdict, reason) in table {
        let mut bench = Bench::new();
        bench.run(OUTSIDE, frame, verdict);
        assert!(bench.is_silent(), "{name}");
        assert_eq!(bench.drops(reason), 1, "{name}");
    }
    let mut bench = Bench::new();
    bench.run(OUTSIDE, request(64, b""), Verdict::Drop(3));
    assert_eq!(bench.engine.counters().balancer_drops(3), 1);
}

#[test]
fn a_lazy_balancer_loses_packets_but_nothing_else() {
    struct Lazy;
    impl Balancer for Lazy {
        fn decide(&mut self, _: Instant, _: &Packets<'_>, _: &mut Vec<Verdict>) {}
    }
    let mut bench = Bench::new();
    bench.engine.process(
        bench.now,
        &bench.view,
        OUTSIDE,
        &mut vec![request(64, b"")],
        &mut Lazy,
        &mut bench.output,
    );
    assert!(bench.is_silent());
    assert_eq!(bench.drops(DropReason::NoVerdict), 1);
}

#[test]
fn senders_are_told_what_stopped_their_packets() {
    let mut large = request(64, &[7; 1461]);
    large.bytes_mut()[20] = 0x40;
    fix_header(&mut large);
    let unroutable = Verdict::Forward(Method::DirectRoute {
        rip: [10, 0, 3, 1].into(),
    });
    let table = [
        (
            "TTL 1",
            request(1, b""),
            nat(11, 8080),
            (11, 0, 0),
            DropReason::TimeExceeded,
        ),
        (
            "TTL 0",
            request(0, b""),
            nat(11, 8080),
            (11, 0, 0),
            DropReason::TimeExceeded,
        ),
        ("DF", large, nat(11, 8080), (3, 4, 1500), DropReason::TooBig),
        (
            "unreachable",
            request(64, b""),
            unroutable,
            (3, 1, 0),
            DropReason::NoRoute,
        ),
    ];
    for (name, frame, verdict, (kind, code, mtu), reason) in table {
        let mut bench = Bench::new();
        let original = frame.bytes()[14..].to_vec();
        let output = bench.run(OUTSIDE, frame, verdict);
        let packet = sent(output, 0, OUTSIDE, ROUTER_MAC);
        assert_checksums(&packet);
        assert_eq!(packet[12..20], [VIP, CLIENT].concat(), "{name}");
        let message = crate::wire::icmp::Packet::new_checked(&packet[20..]).unwrap();
        assert_eq!(
            (message.kind(), message.code(), message.mtu()),
            (kind, code, mtu),
            "{name}"
        );
        assert!(
            original.starts_with(message.payload()),
            "{name}: quoted as received"
        );
        assert_eq!(bench.drops(reason), 1, "{name}");
    }
}

#[test]
fn a_real_server_is_told_by_the_interface_where_it_is() {
    let mut bench = Bench::new();
    let output = bench.run(INSIDE, reply(11, 1, b""), un_nat());
    let packet = sent(output, 0, INSIDE, server_mac(11));
    assert_eq!(packet[12..20], [[10, 0, 0, 1], [10, 0, 0, 11]].concat());
    assert_eq!(packet[20], 11);
}

#[test]
fn super_packets_travel_whole_if_their_segments_fit() {
    let mut frame = request(64, &[9; 5792]);
    frame.bytes_mut()[20] = 0x40;
    fix_header(&mut frame);
    let gso = |size| Gso {
        kind: GsoKind::Tcp4,
        ecn: false,
        size,
        header_len: 54,
    };
    frame.meta = FrameMeta {
        gso: Some(gso(1460)),
        ..FrameMeta::default()
    };
    let mut bench = Bench::new();
    let output = bench.run(OUTSIDE, frame.clone(), nat(11, 8080));
    assert_eq!(output.transmit[0].1.meta.gso, Some(gso(1460)));
    assert_checksums(&sent(output, 0, INSIDE, server_mac(11)));

    // With DF a segment that is too large is refused, without it is made smaller.
    frame.meta.gso = Some(gso(1461));
    let output = bench.run(OUTSIDE, frame.clone(), nat(11, 8080));
    assert_eq!(output.transmit[0].1.bytes()[34..36], [3, 4]);
    frame.bytes_mut()[20] = 0;
    fix_header(&mut frame);
    let output = bench.run(OUTSIDE, frame, nat(11, 8080));
    assert_eq!(output.transmit[0].1.meta.gso, Some(gso(1460)));
}

#[test]
fn large_packets_that_may_be_fragmented_are() {
    let payload: Vec<u8> = (0..4000u32).map(|n| n as u8).collect();
    let mut frame = udp((CLIENT, 40000), (VIP, 53), &payload);
    frame.bytes_mut()[20] = 0;
    fix_header(&mut frame);
    let mut bench = Bench::new();
    let output = bench.run(OUTSIDE, frame, nat(11, 8080));
    assert_eq!(output.transmit.len(), 3);
    let mut parts = BTreeMap::new();
    for at in 0..3 {
        let packet = sent(output, at, INSIDE, server_mac(11));
        assert!(packet.len() <= 1500);
        let ip = Ipv4Packet::new(&packet).unwrap();
        assert_eq!(ip.get_checksum(), pnet_packet::ipv4::checksum(&ip));
        assert_eq!(ip.get_flags() & 1 == 1, at < 2, "more fragments");
        parts.insert(ip.get_fragment_offset(), packet[20..].to_vec());
    }
    let mut whole = sent(output, 0, INSIDE, server_mac(11))[..20].to_vec();
    let mut body = Vec::new();
    for (offset, part) in parts {
        assert_eq!(usize::from(offset) * 8, body.len());
        body.extend(part);
    }
    whole[2..4].copy_from_slice(&(20 + body.len() as u16).to_be_bytes());
    whole[6..8].fill(0);
    let mut whole = Frame::from_bytes(&[&[0; 14], &whole[..], &body].concat());
    fix_header(&mut whole);
    assert_checksums(&whole.bytes()[14..]);
    assert_eq!(&whole.bytes()[42..], payload);
}

#[test]
fn unresolved_neighbours_hold_frames_until_the_view_knows_them() {
    let mut bench = Bench::new();
    let hop = Hop {
        ifindex: 3,
        addr: [10, 0, 0, 13].into(),
    };
    assert_eq!(
        bench
            .run(OUTSIDE, request(64, b"one"), nat(13, 8080))
            .resolve,
        [hop]
    );
    assert_eq!(
        bench
            .run(OUTSIDE, request(64, b"two"), nat(13, 8080))
            .resolve,
        []
    );
    assert!(bench.is_silent());
    let mut neighbours = (*bench.view.neighbours).clone();
    neighbours.insert(
        hop,
        Neighbour {
            mac: server_mac(13),
            state: NeighbourState::Reachable,
        },
    );
    bench.view.neighbours = Arc::new(neighbours);
    bench.view.generation += 1;
    bench.output.clear();
    bench
        .engine
        .handle_view(bench.now, &bench.view, &mut bench.output);
    for (at, payload) in [b"one", b"two"].into_iter().enumerate() {
        let packet = sent(&bench.output, at, INSIDE, server_mac(13));
        assert_checksums(&packet);
        assert!(packet.ends_with(payload));
    }
    assert_eq!(
        bench
            .run(OUTSIDE, request(64, b"three"), nat(13, 8080))
            .transmit
            .len(),
        1
    );
}

#[test]
fn unanswered_neighbours_cost_their_frames() {
    let mut bench = Bench::new();
    bench.run(OUTSIDE, request(64, b"one"), nat(13, 8080));
    while let Some(at) = bench.engine.poll_timeout() {
        bench
            .engine
            .handle_timeout(at, &bench.view, &mut bench.output);
    }
    assert_eq!(bench.output.resolve.len(), 3);
    assert_eq!(bench.drops(DropReason::NeighbourFailed), 1);
    // The client is told about its own packet, not about what the server would have got.
    let told = sent(&bench.output, 0, OUTSIDE, ROUTER_MAC);
    assert_checksums(&told);
    assert_eq!(told[12..22], [&VIP[..], &CLIENT, &[3, 1]].concat());
    assert_eq!(told[28..], request(64, b"one").bytes()[14..]);
}

#[test]
fn a_neighbour_that_fails_is_told_once_to_each_client() {
    let mut bench = Bench::new();
    for payload in [&b"one"[..], b"two", b"three"] {
        bench.run(OUTSIDE, request(64, payload), nat(13, 8080));
    }
    let other = tcp(
        ROUTER_MAC,
        OUTSIDE_MAC,
        ([203, 0, 113, 6], 50000),
        (VIP, 80),
        64,
        b"",
    );
    bench.run(OUTSIDE, other, dr(13));
    bench.now += Duration::from_secs(2);
    bench.view.generation += 1;
    bench.output.clear();
    bench
        .engine
        .handle_view(bench.now, &bench.view, &mut bench.output);
    assert_eq!(bench.drops(DropReason::NeighbourFailed), 4);
    assert_eq!(bench.output.transmit.len(), 2);
    assert_eq!(bench.events(Event::IcmpSuppressed), 2);
}

#[test]
fn stale_neighbours_are_used_and_asked_for_now_and_then() {
    let mut bench = Bench::new();
    for seconds in 0..12 {
        bench.now += Duration::from_secs(1);
        // Views come and go; that alone is no reason to ask again.
        bench.view.generation += 1;
        let output = bench.run(OUTSIDE, request(64, b""), nat(14, 8080));
        assert_eq!(output.transmit.len(), 1);
        assert_eq!(
            output.resolve.len(),
            usize::from(seconds % 5 == 0),
            "{seconds}"
        );
    }
}

#[test]
fn wrong_steering_meets_the_right_worker() {
    let mut engines: Vec<Engine> = (0..2)
        .map(|worker| {
            Engine::new(EngineConfig {
                worker,
                workers: 2,
                ..EngineConfig::default()
            })
        })
        .collect();
    let (view, now) = (view(), Instant::now());
    let mut seen: [Recorder; 2] = Default::default();
    let mut sent = 0;
    for n in 0..200u32 {
        let client = [203, 0, (n / 256) as u8, n as u8];
        let frames = [
            (
                OUTSIDE,
                tcp(ROUTER_MAC, OUTSIDE_MAC, (client, 50000), (VIP, 80), 64, b""),
            ),
            (
                INSIDE,
                tcp(
                    server_mac(11),
                    INSIDE_MAC,
                    ([10, 0, 0, 11], 8080),
                    (client, 50000),
                    64,
                    b"",
                ),
            ),
        ];
        for (turn, (port, frame)) in frames.into_iter().enumerate() {
            // Requests reach the wrong worker always, replies worker 0.
            let owner = steer::owner(client.into(), 2);
            let first = if turn == 0 { 1 - owner } else { 0 };
            let mut output = Output::new();
            engines[first as usize].process(
                now,
                &view,
                port,
                &mut vec![frame],
                &mut seen[first as usize],
                &mut output,
            );
            let mut handoffs: Vec<Handoff> = output
                .handoff
                .drain(..)
                .map(|(worker, handoff)| {
                    assert_eq!(worker, owner);
                    assert!(handoff.frame.is_owned());
                    handoff
                })
                .collect();
            assert_eq!(handoffs.len(), usize::from(first != owner));
            engines[owner as usize].process_handoff(
                now,
                &view,
                &mut handoffs,
                &mut seen[owner as usize],
                &mut output,
            );
            assert!(output.handoff.is_empty());
            sent += output.transmit.len();
        }
    }
    assert_eq!(sent, 400);
    assert!(
        seen.iter()
            .all(|seen| seen.0.len() > 50 && seen.0.values().all(|&count| count == 2))
    );
    assert!(
        seen[0]
            .0
            .keys()
            .all(|client| !seen[1].0.contains_key(client))
    );
}

#[test]
fn buffers_are_kept_between_batches() {
    let mut bench = Bench::new();
    let mut frames: Vec<Frame> = Vec::new();
    let mut room = None;
    for _ in 0..4 {
        frames.extend((0..64).map(|_| request(64, b"data")));
        bench.output.clear();
        bench.engine.process(
            bench.now,
            &bench.view,
            OUTSIDE,
            &mut frames,
            &mut Script(|_: &PacketInfo| nat(11, 8080)),
            &mut bench.output,
        );
        assert_eq!(bench.output.transmit.len(), 64);
        let now = (
            (bench.engine.frames.as_ptr(), bench.engine.heads.as_ptr()),
            bench.engine.packets.as_ptr(),
            bench.engine.verdicts.as_ptr(),
            bench.output.transmit.as_ptr(),
        );
        assert_eq!(*room.get_or_insert(now), now);
    }
}

/// Recomputes the IP header checksum.
fn fix_header(frame: &mut Frame) {
    let bytes = frame.bytes_mut();
    bytes[24..26].fill(0);
    let sum = pnet_packet::ipv4::checksum(&Ipv4Packet::new(&bytes[14..]).unwrap());
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
}

proptest! {
    #[test]
    fn nat_there_and_back_restores_the_packet(
        client in (1u8..=126, any::<[u8; 3]>()),
        cport in any::<u16>(),
        rport in any::<u16>(),
        payload in prop::collection::vec(any::<u8>(), 0..300),
        is_tcp in any::<bool>(),
        partial in any::<bool>(),
    ) {
        let client = [client.0, client.1[0], client.1[1], client.1[2]];
        prop_assume!(client[0] != 10);
        let mut frame = if is_tcp {
            tcp(ROUTER_MAC, OUTSIDE_MAC, (client, cport), (VIP, 80), 64, &payload)
        } else {
            udp((client, cport), (VIP, 80), &payload)
        };
        let (protocol, offset) = if is_tcp { (6, 16) } else { (17, 6) };
        if partial {
            frame.meta.checksum = ChecksumState::Partial { start: 34, offset };
            let length = frame.len() as u32 - 34;
            let sum = crate::checksum::pseudo_header(client.into(), VIP.into(), protocol, length);
            let at = 34 + usize::from(offset);
            frame.bytes_mut()[at..at + 2].copy_from_slice(&crate::checksum::fold(sum).to_be_bytes());
        }
        let original = frame.bytes().to_vec();
        let mut bench = Bench::new();
        bench.run(OUTSIDE, frame, nat(11, rport));
        let (_, there) = bench.output.transmit.pop().unwrap();
        let mut complete = there.clone();
        complete.complete_checksum();
        assert_checksums(&complete.bytes()[14..]);

        // Straight back through the other rewrite, without turning the packet round.
        let mut headers = Headers::parse(there.bytes()).unwrap();
        let mut back = there;
        nat_rewrite::set_destination(&mut back, &mut headers, SocketAddr::from((VIP, 80)));
        back.bytes_mut()[22] += 1;
        fix_header(&mut back);
        prop_assert_eq!(&back.bytes()[14..], &original[14..]);

        // And as a reply of the server.
        let reply = tcp(server_mac(11), INSIDE_MAC, ([10, 0, 0, 11], 8080), (client, cport), 64, &payload);
        bench.run(INSIDE, reply, un_nat());
        let packet = &bench.output.transmit[0].1.bytes()[14..];
        assert_checksums(packet);
        prop_assert_eq!(&packet[12..16], &VIP[..]);
    }

    #[test]
    fn no_bytes_and_no_metadata_make_it_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        patched in any::<[bool; 4]>(),
        start in any::<u16>(),
        offset in 0u16..100,
        gso in prop::option::of((0usize..4, any::<u16>(), any::<u16>())),
        partial in any::<bool>(),
        choice in 0usize..12,
        from_host in any::<bool>(),
    ) {
        // Make it look more and more like a claimed packet.
        if patched[0] && bytes.len() >= 14 {
            bytes[12..14].copy_from_slice(&[8, 0]);
        }
        if patched[1] && bytes.len() >= 38 {
            let length = (bytes.len() - 14) as u16;
            bytes[14] = 0x45 + (bytes[14] & 3);
            bytes[16..18].copy_from_slice(&length.to_be_bytes());
            bytes[20] &= 0x40;
            bytes[21] = 0;
            bytes[23] = if bytes[23] & 1 == 0 { 6 } else { 17 };
            bytes[26..30].copy_from_slice(&CLIENT);
            bytes[30..34].copy_from_slice(&VIP);
        }
        if patched[2] && bytes.len() >= 60 {
            let header = usize::from(bytes[14] & 15) * 4;
            if 14 + header + 20 <= bytes.len() && header >= 20 {
                bytes[16 + header..18 + header].copy_from_slice(&80u16.to_be_bytes());
                bytes[26 + header] = 0x50;
                bytes[24..26].fill(0);
                let sum = crate::checksum::finish(crate::checksum::sum(&bytes[14..14 + header]));
                bytes[24..26].copy_from_slice(&sum.to_be_bytes());
            }
        }
        let mut frame = Frame::from_bytes(&bytes);
        if partial {
            frame.meta.checksum = ChecksumState::Partial {
                start: if patched[3] { 34 } else { start },
                offset,
            };
        }
        frame.meta.gso = gso.map(|(kind, size, header_len)| Gso {
            kind: [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp, GsoKind::UdpFragments][kind],
            ecn: false,
            size,
            header_len,
        });
        let verdict = [
            nat(11, 8080),
            nat(1, 8080),
            nat(13, 8080),
            dr(12),
            Verdict::Forward(Method::Tunnel { rip: [10, 0, 0, 11].into(), encapsulation: Encapsulation::Ipip }),
            Verdict::Forward(Method::Tunnel { rip: [10, 0, 0, 13].into(), encapsulation: Encapsulation::Ipip }),
            Verdict::Forward(Method::Tunnel {
                rip: [10, 0, 0, 11].into(),
                encapsulation: Encapsulation::Gue { port: 6080, checksum: true },
            }),
            Verdict::Forward(Method::Tunnel {
                rip: [10, 0, 0, 11].into(),
                encapsulation: Encapsulation::Gre { checksum: true },
            }),
            un_nat(),
            Verdict::NotOurs,
            Verdict::Reject,
            Verdict::Drop(255),
        ][choice];
        let mut bench = Bench::new();
        bench.view.ports = bench
            .view
            .ports
            .iter()
            .cloned()
            .map(|port| Port { mtu: u32::from(start) % 200, ..port })
            .collect();
        if from_host {
            frame.trim_front(14);
            bench.run_host(frame, verdict);
        } else {
            bench.run(OUTSIDE, frame, verdict);
        }
        for (_, frame) in &mut bench.output.transmit {
            frame.complete_checksum();
        }
    }
}

/// The engine may see SYN as any other flag; this only pins the byte that balancers read.
#[test]
fn balancers_see_what_is_on_the_wire() {
    let mut bench = Bench::new();
    let mut seen = Vec::new();
    bench.engine.process(
        bench.now,
        &bench.view,
        OUTSIDE,
        &mut vec![request(64, b"hello")],
        &mut Script(|packet: &PacketInfo| {
            seen.push(*packet);
            Verdict::NotOurs
        }),
        &mut bench.output,
    );
    assert_eq!(
        seen,
        [PacketInfo {
            protocol: 6,
            source: SocketAddr::from((CLIENT, 50000)),
            destination: SocketAddr::from((VIP, 80)),
            direction: Direction::Inbound,
            tcp_flags: SYN,
            length: 45,
            mark: 0,
        }]
    );
}
