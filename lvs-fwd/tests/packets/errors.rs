//! ICMP: errors about packets of connections, from both sides and from inside tunnels, and what is left to the host.

use lvs_fwd::balancer::{Encapsulation, Method, Verdict};
use lvs_fwd::stats::{DropReason, LeftReason};

use super::build::{Body, Packet};
use super::oracle::{Hints, How, fragmentable, towards};
use super::table::{Case, Expect, to_client};
use super::world::{INSIDE, OUTSIDE, SERVER, at, family, frame, names, view};

/// TCP, UDP or SCTP, this many of its bytes quoted; SCTP's checksum can't be kept right, so it is not quoted.
const QUOTES: [(u8, usize); 5] = [(6, 548), (6, 8), (17, 548), (17, 8), (132, 8)];

fn kinds(ipv6: bool) -> &'static [(u8, u8)] {
    match ipv6 {
        false => &[(3, 4), (3, 1), (4, 0), (11, 0)],
        true => &[(2, 0), (1, 3), (3, 0)],
    }
}

fn quoted(number: u8, source: std::net::SocketAddr, destination: std::net::SocketAddr) -> Packet {
    let ports = (source.port(), destination.port());
    let body = match number {
        6 => Body::Tcp {
            ports,
            flags: 0x10,
            sequence: 5,
            acknowledged: 6,
            options: Vec::new(),
            data: vec![1; 20],
        },
        17 => Body::Udp {
            ports,
            data: vec![2; 20],
            bare: false,
        },
        _ => Body::Sctp {
            ports,
            chunks: vec![0, 0, 0, 4],
        },
    };
    Packet::new(source.ip(), destination.ip(), body)
}

/// An error about a packet, of which it quotes the IP header and so many bytes behind it.
fn error(
    from: std::net::IpAddr,
    to: std::net::IpAddr,
    kind: (u8, u8),
    about: &Packet,
    quote: usize,
) -> Packet {
    let bytes = about.bytes();
    let header = if from.is_ipv6() { 40 } else { 20 };
    let body = Body::Icmp {
        kind: kind.0,
        code: kind.1,
        rest: [0, 0, 5, 0],
        data: bytes[..bytes.len().min(header + quote)].to_vec(),
    };
    Packet::new(from, to, body)
}

struct Line {
    name: String,
    outside: bool,
    packet: Packet,
    verdict: Verdict,
}

impl Line {
    fn case(self, expect: Expect) -> Case {
        let port = if self.outside { OUTSIDE } else { INSIDE };
        Case {
            name: self.name,
            view: view(),
            port,
            frames: vec![frame(port, &self.packet.bytes())],
            verdict: self.verdict,
            expect,
        }
    }
}

fn to_server(packets: Vec<u8>) -> Expect {
    Expect::Sent {
        port: INSIDE,
        mac: SERVER,
        packets: Box::new(move |_| vec![packets.clone()]),
        unfinished: false,
        segments: None,
        parts: None,
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for ipv6 in [false, true] {
        for &kind in kinds(ipv6) {
            for (number, quote) in QUOTES {
                inbound(ipv6, kind, number, quote, &mut cases);
                outbound(ipv6, kind, number, quote, &mut cases);
            }
        }
        others(ipv6, &mut cases);
        for inner6 in [false, true] {
            tunnels(ipv6, inner6, &mut cases);
        }
    }
    cases
}

/// About what a server has sent to a client.
fn inbound(ipv6: bool, kind: (u8, u8), number: u8, quote: usize, cases: &mut Vec<Case>) {
    let (ends, family) = (names(ipv6), family(ipv6));
    let (vip, client) = (at(ends.vip, 80), at(ends.client, 50000));
    let line = |method: &str, verdict| Line {
        name: format!("{family} error {kind:?} to {method} about {number}, {quote} bytes quoted"),
        outside: true,
        packet: error(
            ends.router,
            ends.vip,
            kind,
            &quoted(number, vip, client),
            quote,
        ),
        verdict,
    };
    let with_hop_less = |mut packet: Packet| {
        packet.hops -= 1;
        packet
    };
    let nat = Verdict::Forward(Method::Nat {
        rip: at(ends.rip, 8080),
    });
    let about = quoted(number, at(ends.rip, 8080), client);
    let expected = with_hop_less(error(ends.router, ends.rip, kind, &about, quote));
    cases.push(line("NAT", nat).case(to_server(expected.bytes())));

    let full = Method::FullNat {
        rip: at(ends.rip, 8081),
        local: at(ends.local, 33001),
    };
    let about = quoted(number, at(ends.rip, 8081), at(ends.local, 33001));
    let mut expected = with_hop_less(error(ends.local, ends.rip, kind, &about, quote));
    expected.dont_fragment = true;
    cases.push(line("FULLNAT", Verdict::Forward(full)).case(to_server(expected.bytes())));

    let direct = Verdict::Forward(Method::DirectRoute { rip: ends.rip });
    let line_of = line("DR", direct);
    let expected = with_hop_less(line_of.packet.clone());
    cases.push(line_of.case(to_server(expected.bytes())));

    let tunnel = Method::Tunnel {
        rip: ends.rip,
        encapsulation: Encapsulation::Ipip,
    };
    let line_of = line("TUN", Verdict::Forward(tunnel));
    let expected = towards(How::Ipip, &line_of.packet, ipv6, &Hints::default());
    // Errors about errors there are none, so that it must not be too long.
    let expect = Expect::Sent {
        port: INSIDE,
        mac: SERVER,
        packets: Box::new(move |hints| vec![fragmentable(expected.clone(), hints)]),
        unfinished: false,
        segments: None,
        parts: None,
    };
    cases.push(line_of.case(expect));

    let local = Verdict::Forward(Method::Nat {
        rip: at(ends.inside, 8080),
    });
    let about = quoted(number, at(ends.inside, 8080), client);
    let expected = error(ends.router, ends.inside, kind, &about, quote);
    cases.push(line("a local server", local).case(Expect::Host(expected.bytes())));

    let none = line("no connection", Verdict::NotOurs);
    let expected = none.packet.bytes();
    cases.push(none.case(Expect::Host(expected)));
}

/// About what has been sent to a server: from itself, or from a router on the way.
fn outbound(ipv6: bool, kind: (u8, u8), number: u8, quote: usize, cases: &mut Vec<Case>) {
    let (ends, family) = (names(ipv6), family(ipv6));
    let (vip, client) = (at(ends.vip, 80), at(ends.client, 50000));
    for (who, from) in [("the server", ends.rip), ("a router", ends.silent)] {
        let mut expected = error(
            ends.vip,
            ends.client,
            kind,
            &quoted(number, client, vip),
            quote,
        );
        expected.hops -= 1;
        let line = |method: &str, to, about: Packet, verdict| Line {
            name: format!(
                "{family} error {kind:?} from {who} by {method} about {number}, {quote} bytes quoted"
            ),
            outside: false,
            packet: error(from, to, kind, &about, quote),
            verdict,
        };
        let about = quoted(number, client, at(ends.rip, 8080));
        let nat = Verdict::Reply { source: vip };
        let one = line("NAT", ends.client, about, nat);
        cases.push(one.case(to_client(expected.clone(), false)));
        let about = quoted(number, at(ends.local, 33001), at(ends.rip, 8081));
        let full = Verdict::ReplyTo {
            source: vip,
            client,
        };
        let one = line("FULLNAT", ends.local, about, full);
        cases.push(one.case(to_client(expected, false)));
    }
}

/// What is nobody's, broken, or the host's.
fn others(ipv6: bool, cases: &mut Vec<Case>) {
    let (ends, family) = (names(ipv6), family(ipv6));
    let nat = Verdict::Forward(Method::Nat {
        rip: at(ends.rip, 8080),
    });
    let about = quoted(6, at(ends.vip, 80), at(ends.client, 50000));
    let kind = kinds(ipv6)[0];
    let line = |name: &str, change: &dyn Fn(&mut Packet)| {
        let mut packet = error(ends.router, ends.vip, kind, &about, 548);
        change(&mut packet);
        Line {
            name: format!("{family} ICMP: {name}"),
            outside: true,
            packet,
            verdict: nat,
        }
    };
    let left = |reason| Expect::Left(reason);
    let wrong = line("an error with a wrong checksum", &|packet| packet.error = 1);
    cases.push(wrong.case(Expect::Dropped(DropReason::Malformed)));
    let last = line(
        "an error with its last hop, about which nobody is told",
        &|packet| packet.hops = 1,
    );
    cases.push(last.case(Expect::Dropped(DropReason::TimeExceeded)));
    let group = line("an error from a group", &|packet| {
        packet.source = super::world::ip(if ipv6 { "ff02::1" } else { "224.0.0.1" });
    });
    cases.push(group.case(Expect::Dropped(DropReason::MartianSource)));
    let informational: &[u8] = if ipv6 {
        &[128, 129, 133, 134, 135, 136, 137]
    } else {
        &[0, 5, 8, 12, 13, 14]
    };
    for &kind in informational {
        let line = line(&format!("type {kind}"), &|packet| {
            if let Body::Icmp { kind: to, code, .. } = &mut packet.body {
                (*to, *code) = (kind, 0);
            }
        });
        cases.push(line.case(left(LeftReason::OtherProtocol)));
    }
    for (name, port, cut) in [
        ("an error about another port", 81, 548),
        ("an error that quotes too little", 80, 7),
        ("an error that quotes nothing but the IP header", 80, 0),
    ] {
        let about = quoted(6, at(ends.vip, port), at(ends.client, 50000));
        let packet = error(ends.router, ends.vip, kind, &about, cut);
        let line = Line {
            name: format!("{family} ICMP: {name}"),
            outside: true,
            packet,
            verdict: nat,
        };
        cases.push(line.case(left(LeftReason::OtherProtocol)));
    }
    // Who has sent what it quotes is somebody else than who gets it.
    let stranger = line(
        "an error to another one than the quoted sender",
        &|packet| {
            if let Body::Icmp { data, .. } = &mut packet.body {
                let at = if ipv6 { 23 } else { 15 };
                data[at] ^= 0xff;
            }
        },
    );
    let packet = stranger.packet.bytes();
    cases.push(stranger.case(Expect::Host(packet)));
    // An error in an error has no ports to be found by.
    let nested = line("an error about an error", &|packet| {
        let inner = error(ends.vip, ends.client, (3, 1), &about, 8);
        if let Body::Icmp { data, .. } = &mut packet.body {
            *data = inner.bytes();
        }
    });
    cases.push(nested.case(left(LeftReason::OtherProtocol)));
}

/// About a tunnel's packet: the client is told how much fits inside.
fn tunnels(outer6: bool, inner6: bool, cases: &mut Vec<Case>) {
    let (far, ends) = (names(outer6), names(inner6));
    for how in [
        How::Ipip,
        How::Gue { checksum: false },
        How::Gue { checksum: true },
        How::Gre { checksum: false },
        How::Gre { checksum: true },
    ] {
        let encapsulation = match how {
            How::Gue { checksum } => Encapsulation::Gue {
                port: 6080,
                checksum,
            },
            How::Gre { checksum } => Encapsulation::Gre { checksum },
            _ => Encapsulation::Ipip,
        };
        let verdict = Verdict::Forward(Method::Tunnel {
            rip: far.rip,
            encapsulation,
        });
        let mut request = quoted(6, at(ends.client, 50000), at(ends.vip, 80));
        request.fill(1400);
        let hints = Hints {
            port: 40000,
            ..Hints::default()
        };
        let outer = towards(how, &request, outer6, &hints);
        let kind = if outer6 { (2, 0) } else { (3, 4) };
        let most = if outer6 { 1232 } else { 548 };
        let body = Body::Icmp {
            kind: kind.0,
            code: kind.1,
            rest: [0, 0, 5, 120],
            data: outer[..most].to_vec(),
        };
        let packet = Packet::new(far.silent, far.inside, body);
        let room = 1400 - how.overhead(outer6);
        let room = if inner6 { room.max(1280) } else { room };
        request.hops -= 1;
        let quote = outer.len().min(most) - how.overhead(outer6);
        let about = request.bytes()[..quote.min(if inner6 { 1232 } else { 548 })].to_vec();
        let line = Line {
            name: format!(
                "error about a {how:?} packet, {} outside, {} inside",
                family(outer6),
                family(inner6)
            ),
            outside: false,
            packet,
            verdict,
        };
        let vip = ends.vip;
        let kind = if inner6 { (2, 0) } else { (3, 4) };
        let expect = Expect::Relayed(Box::new(move |hints| {
            super::oracle::error(vip, &about, 0, kind, room as u16, hints).bytes()
        }));
        cases.push(line.case(expect));
    }
}
