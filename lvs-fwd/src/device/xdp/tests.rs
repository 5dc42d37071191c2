//! What the program takes and what it leaves, asked of the kernel frame by frame, without any interface.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use etherparse::PacketBuilder;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Map, MapKind, XdpClaim, bpf, program};
use crate::marks::{MarkRule, MarkTable};
use crate::route::Prefix;
use crate::view::{ClaimSet, Endpoint, LocalAddresses};

/// A program for these, or `None` where BPF is not permitted.
fn steering(claim: &XdpClaim) -> (OwnedFd, Map) {
    let sockets = Map::create(MapKind::Sockets, 4, 4, 1).unwrap();
    let code = program::steering(claim.maps(&sockets), MAC);
    (bpf::load_xdp(&code).unwrap(), sockets)
}

fn claim() -> Option<XdpClaim> {
    let mut claim = match XdpClaim::new() {
        Ok(claim) => claim,
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stdout(), "skipped: {error}");
            return None;
        }
    };
    claim.replace(&claims()).unwrap();
    let local = ["192.0.2.10", "10.0.0.1", "2001:db8::10", "fd00::1"];
    let local: LocalAddresses = local.iter().map(|addr| ip(addr)).collect();
    claim.set_local(&local).unwrap();
    Some(claim)
}

fn claims() -> ClaimSet {
    let mut set = ClaimSet::new();
    for (protocol, vip, port, rip, rport) in [
        (6, "192.0.2.10", 80, "10.0.0.11", 8080),
        (17, "192.0.2.10", 53, "10.0.0.11", 53),
        (6, "192.0.2.20", 0, "10.0.0.12", 0),
        (6, "2001:db8::10", 80, "fd00::11", 8080),
    ] {
        let endpoint = |addr, port| Endpoint {
            protocol,
            addr: ip(addr),
            port,
        };
        set.insert_service(endpoint(vip, port));
        set.insert_server(endpoint(rip, rport));
    }
    for far in ["10.0.0.31", "fd00::31"] {
        set.insert_tunnel_server(ip(far));
    }
    set
}

#[test]
fn exactly_what_is_claimed_is_taken() {
    let Some(claim) = claim() else { return };
    let (program, _sockets) = steering(&claim);
    let cases: Vec<(&str, bool, Vec<u8>)> = vec![
        (
            "to a service",
            true,
            tcp("203.0.113.5", 4000, "192.0.2.10", 80),
        ),
        (
            "to its address at ssh",
            false,
            tcp("203.0.113.5", 4000, "192.0.2.10", 22),
        ),
        (
            "of another protocol",
            false,
            udp("203.0.113.5", 4000, "192.0.2.10", 80),
        ),
        (
            "to a UDP service",
            true,
            udp("203.0.113.5", 4000, "192.0.2.10", 53),
        ),
        (
            "to any port",
            true,
            tcp("203.0.113.5", 4000, "192.0.2.20", 4711),
        ),
        (
            "to any port of another protocol",
            false,
            udp("203.0.113.5", 1, "192.0.2.20", 4711),
        ),
        (
            "to another address",
            false,
            tcp("203.0.113.5", 4000, "192.0.2.11", 80),
        ),
        (
            "a server's reply",
            true,
            tcp("10.0.0.11", 8080, "203.0.113.5", 4000),
        ),
        (
            "a server's other port",
            false,
            tcp("10.0.0.11", 22, "203.0.113.5", 4000),
        ),
        (
            "a reply from any port",
            true,
            tcp("10.0.0.12", 22, "203.0.113.5", 4000),
        ),
        (
            "an answer to a health check",
            false,
            tcp("10.0.0.11", 8080, "10.0.0.1", 4000),
        ),
        (
            "from a server to a service",
            true,
            tcp("10.0.0.11", 8080, "192.0.2.10", 80),
        ),
        (
            "IPv6 to a service",
            true,
            tcp("2001:db8::5", 4000, "2001:db8::10", 80),
        ),
        (
            "IPv6 to ssh",
            false,
            tcp("2001:db8::5", 4000, "2001:db8::10", 22),
        ),
        (
            "IPv6 reply",
            true,
            tcp("fd00::11", 8080, "2001:db8::5", 4000),
        ),
        (
            "IPv6 answer to a health check",
            false,
            tcp("fd00::11", 8080, "fd00::1", 4000),
        ),
        (
            "behind IPv6 extension headers",
            true,
            extended(&[0, 43, 60], 80),
        ),
        ("behind them, to ssh", false, extended(&[0, 43, 60], 22)),
        ("behind too many", false, extended(&[60; 5], 80)),
        ("to another hardware address", false, {
            let mut frame = tcp("203.0.113.5", 4000, "192.0.2.10", 80);
            frame[5] ^= 1;
            frame
        }),
        ("with a VLAN tag", false, {
            let mut frame = tcp("203.0.113.5", 4000, "192.0.2.10", 80);
            frame.splice(12..12, [0x81, 0, 0, 5]);
            frame
        }),
        ("with IP options", true, {
            let mut frame = tcp("203.0.113.5", 4000, "192.0.2.10", 80);
            frame[14] = 0x46;
            frame.splice(34..34, [1, 1, 1, 1]);
            frame
        }),
        (
            "a first fragment",
            true,
            fragment("192.0.2.10", 53, 0, true),
        ),
        (
            "a first fragment to another port",
            false,
            fragment("192.0.2.10", 54, 0, true),
        ),
        (
            "a later fragment",
            true,
            fragment("192.0.2.10", 0xffff, 64, false),
        ),
        (
            "a later fragment to another address",
            false,
            fragment("192.0.2.11", 53, 64, false),
        ),
        ("ICMP echo", false, icmp(8, "192.0.2.10", None)),
        ("an error about a reply of a service", true, {
            icmp(
                3,
                "192.0.2.10",
                Some(tcp("192.0.2.10", 80, "203.0.113.5", 4000)),
            )
        }),
        ("an error about the host's packet", false, {
            icmp(
                3,
                "192.0.2.10",
                Some(tcp("192.0.2.10", 4444, "203.0.113.5", 22)),
            )
        }),
        ("a redirect about a service's packet", false, {
            icmp(
                5,
                "192.0.2.10",
                Some(tcp("192.0.2.10", 80, "203.0.113.5", 4000)),
            )
        }),
        ("an error about a request at a server", true, {
            icmp(
                11,
                "203.0.113.5",
                Some(tcp("203.0.113.5", 4000, "10.0.0.11", 8080)),
            )
        }),
        ("an error about a health check", false, {
            icmp(
                3,
                "10.0.0.1",
                Some(tcp("10.0.0.1", 4000, "10.0.0.11", 8080)),
            )
        }),
        ("ICMPv6 too big about a service's packet", true, {
            icmp6(
                2,
                "2001:db8::10",
                Some(tcp("2001:db8::10", 80, "2001:db8::5", 4000)),
            )
        }),
        ("ICMPv6 unreachable about a request", true, {
            icmp6(
                1,
                "2001:db8::5",
                Some(tcp("2001:db8::5", 4000, "fd00::11", 8080)),
            )
        }),
        ("ICMPv6 about a health check", false, {
            icmp6(1, "fd00::1", Some(tcp("fd00::1", 4000, "fd00::11", 8080)))
        }),
        ("an error about a tunnel's packet", true, {
            icmp(3, "10.0.0.1", Some(wrapped("10.0.0.1", "10.0.0.31", 4)))
        }),
        ("an error about a tunnel of others", false, {
            icmp(3, "10.0.0.1", Some(wrapped("10.0.0.1", "10.0.0.32", 4)))
        }),
        ("ICMPv6 about a tunnel's packet", true, {
            icmp6(2, "fd00::1", Some(wrapped("fd00::1", "fd00::31", 41)))
        }),
        (
            "neighbour solicitation",
            false,
            icmp6(135, "2001:db8::10", None),
        ),
        ("ICMPv6 echo", false, icmp6(128, "2001:db8::10", None)),
        ("VRRP", false, other(112)),
        ("ARP", false, {
            let mut frame = tcp("203.0.113.5", 4000, "192.0.2.10", 80);
            frame[12..14].copy_from_slice(&[8, 6]);
            frame
        }),
    ];
    for (name, taken, frame) in &cases {
        // Without a socket what is taken is dropped.
        let expected = if *taken { 1 } else { 2 };
        assert_eq!(
            bpf::run(program.as_fd(), frame).unwrap(),
            expected,
            "{name}"
        );
    }
    let counters = claim.counters().unwrap();
    assert_eq!(counters.to_services, 9);
    assert_eq!(counters.from_servers, 3);
    assert_eq!(counters.errors, 6);
}

#[test]
fn changes_are_in_force_at_once() {
    let Some(mut claim) = claim() else { return };
    let (program, _sockets) = steering(&claim);
    let frame = tcp("203.0.113.5", 4000, "192.0.2.10", 80);
    let other = tcp("203.0.113.5", 4000, "192.0.2.10", 81);
    let answer = |frame| bpf::run(program.as_fd(), frame).unwrap();
    assert_eq!((answer(&frame), answer(&other)), (1, 2));
    let mut set = ClaimSet::new();
    set.insert_service(Endpoint {
        protocol: 6,
        addr: ip("192.0.2.10"),
        port: 81,
    });
    claim.replace(&set).unwrap();
    assert_eq!((answer(&frame), answer(&other)), (2, 1));
    assert_eq!(*claim.set(), set);
    let check = tcp("10.0.0.11", 8080, "10.0.0.1", 4000);
    claim.replace(&claims()).unwrap();
    claim.set_local(&LocalAddresses::new()).unwrap();
    assert_eq!(
        answer(&check),
        1,
        "an address that is not the host's any more"
    );
}

#[test]
fn what_may_have_a_mark_is_taken() {
    let Some(mut claim) = claim() else { return };
    let (program, _sockets) = steering(&claim);
    let rule = |prefix: &str, length, ports: &[u16], mark| MarkRule {
        protocol: Some(6),
        destination: Some(Prefix::new(ip(prefix), length)),
        destination_ports: ports.iter().map(|port| *port..=*port).collect(),
        mark,
        ..MarkRule::default()
    };
    let rules = vec![
        rule("192.0.2.30", 32, &[22], 0),
        rule("192.0.2.30", 32, &[], 1),
        rule("192.0.2.0", 24, &[443], 1),
        rule("2001:db8::", 32, &[443], 2),
    ];
    let mut set = claims();
    set.set_marks(MarkTable::new(rules, |_, _| true));
    claim.replace(&set).unwrap();
    let client = "203.0.113.5";
    let cases = [
        ("exempt", false, tcp(client, 4000, "192.0.2.30", 22)),
        ("any port", true, tcp(client, 4000, "192.0.2.30", 23)),
        ("in a prefix", true, tcp(client, 4000, "192.0.2.31", 443)),
        ("its other port", false, tcp(client, 4000, "192.0.2.31", 80)),
        ("beside it", false, tcp(client, 4000, "192.0.3.31", 443)),
        ("UDP", false, udp(client, 4000, "192.0.2.31", 443)),
        ("a service still", true, tcp(client, 4000, "192.0.2.10", 80)),
        (
            "a server's packet to a marked address of the host",
            true,
            tcp("10.0.0.11", 8080, "192.0.2.10", 443),
        ),
        (
            "IPv6",
            true,
            tcp("2001:db8:1::5", 4000, "2001:db8::77", 443),
        ),
        ("IPv6 behind other headers", true, extended(&[0, 60], 443)),
        (
            "IPv6, its other port",
            false,
            tcp("2001:db8:1::5", 4000, "2001:db8::77", 22),
        ),
        (
            "an error about an answer",
            true,
            icmp(3, "192.0.2.31", Some(tcp("192.0.2.31", 443, client, 4000))),
        ),
        (
            "an error about something else",
            false,
            icmp(3, "192.0.2.31", Some(tcp("192.0.2.31", 80, client, 4000))),
        ),
    ];
    for (name, taken, frame) in &cases {
        let expected = if *taken { 1 } else { 2 };
        assert_eq!(
            bpf::run(program.as_fd(), frame).unwrap(),
            expected,
            "{name}"
        );
    }
    let counters = claim.counters().unwrap();
    assert_eq!((counters.marked, counters.to_services), (6, 1));
    claim.replace(&claims()).unwrap();
    for (_, _, frame) in &cases[..6] {
        assert_eq!(bpf::run(program.as_fd(), frame).unwrap(), 2, "no marks");
    }
}

/// Frames that are cut anywhere, or changed anywhere, are taken or left, and the kernel's own checks find nothing.
#[test]
fn damaged_frames_do_no_harm() {
    let Some(claim) = claim() else { return };
    let (program, _sockets) = steering(&claim);
    let frames = [
        tcp("203.0.113.5", 4000, "192.0.2.10", 80),
        extended(&[0, 43, 60], 80),
        icmp(
            3,
            "192.0.2.10",
            Some(tcp("192.0.2.10", 80, "203.0.113.5", 4000)),
        ),
        icmp6(
            1,
            "2001:db8::5",
            Some(tcp("2001:db8::5", 4000, "fd00::11", 8080)),
        ),
    ];
    for frame in &frames {
        for length in 14..frame.len() {
            bpf::run(program.as_fd(), &frame[..length]).unwrap();
        }
    }
    let changes = prop::collection::vec((14usize..80, any::<u8>()), 1..4);
    let mut runner = TestRunner::new(Config::with_cases(2000));
    let outcome = runner.run(&(0..frames.len(), changes), |(which, changes)| {
        let mut frame = frames[which].clone();
        for (at, value) in changes {
            let at = at % frame.len();
            frame[at] = value;
        }
        prop_assert!(bpf::run(program.as_fd(), &frame).unwrap() <= 2);
        Ok(())
    });
    outcome.unwrap();
}

fn ip(addr: &str) -> IpAddr {
    addr.parse().unwrap()
}

fn builder(
    source: &str,
    destination: &str,
) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], MAC);
    match (ip(source), ip(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            link.ipv4(source.octets(), destination.octets(), 64)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            link.ipv6(source.octets(), destination.octets(), 64)
        }
        _ => panic!("one family"),
    }
}

fn tcp(source: &str, sport: u16, destination: &str, dport: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    builder(source, destination)
        .tcp(sport, dport, 1, 2)
        .write(&mut frame, b"payload")
        .unwrap();
    frame
}

fn udp(source: &str, sport: u16, destination: &str, dport: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    builder(source, destination)
        .udp(sport, dport)
        .write(&mut frame, b"payload")
        .unwrap();
    frame
}

/// What may be a tunnel's packet.
fn wrapped(near: &str, far: &str, protocol: u8) -> Vec<u8> {
    let mut frame = tcp(near, 0x4500, far, 0);
    let at = if frame[14] >> 4 == 6 { 20 } else { 23 };
    frame[at] = protocol;
    frame
}

fn other(protocol: u8) -> Vec<u8> {
    let mut frame = tcp("203.0.113.5", 4000, "192.0.2.10", 80);
    frame[23] = protocol;
    frame
}

/// A TCP segment to the IPv6 service behind these extension headers.
fn extended(headers: &[u8], port: u16) -> Vec<u8> {
    let mut frame = tcp("2001:db8::5", 4000, "2001:db8::10", port);
    let mut next = 6;
    for (n, header) in headers.iter().enumerate().rev() {
        // The first one is longer.
        let length = if n == 0 { 16 } else { 8 };
        let mut bytes = vec![0; length];
        bytes[0] = next;
        bytes[1] = (length / 8 - 1) as u8;
        frame.splice(54..54, bytes);
        next = *header;
    }
    frame[20] = next;
    let length = (frame.len() - 54) as u16;
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame
}

fn fragment(destination: &str, dport: u16, offset: u16, more: bool) -> Vec<u8> {
    let mut frame = udp("203.0.113.5", 4000, destination, dport);
    let word = (offset / 8) | (u16::from(more) << 13);
    frame[20..22].copy_from_slice(&word.to_be_bytes());
    frame
}

fn icmp(kind: u8, destination: &str, quoted: Option<Vec<u8>>) -> Vec<u8> {
    let mut frame = udp("198.51.100.7", 0, destination, 0);
    frame[23] = 1;
    frame.truncate(34);
    frame.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0]);
    match quoted {
        Some(quoted) => frame.extend_from_slice(&quoted[14..14 + 28]),
        None => frame.extend_from_slice(&[0x45; 28]),
    }
    frame
}

fn icmp6(kind: u8, destination: &str, quoted: Option<Vec<u8>>) -> Vec<u8> {
    let mut frame = udp("2001:db8::7", 0, destination, 0);
    frame[20] = 58;
    frame.truncate(54);
    frame.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0]);
    match quoted {
        Some(quoted) => frame.extend_from_slice(&quoted[14..14 + 48]),
        None => frame.extend_from_slice(&[0x60; 48]),
    }
    frame
}

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
