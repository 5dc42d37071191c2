//! The situations, and what is expected in each. Most are gone through for every method, family and protocol.

use lvs_fwd::balancer::Verdict;
use lvs_fwd::frame::{Frame, PacketKind, VlanTag};
use lvs_fwd::stats::{DropReason, LeftReason};
use lvs_fwd::view::{PortId, View};

use super::build::{Body, Packet};
use super::oracle::{Hints, error, fragmentable, segments, towards};
use super::vectors;
use super::ways::{Input, Kind, Way};
use super::world::{INSIDE, OUTSIDE, ROUTER, SERVER, frame, ip, names, view};

/// One that is built the same way.
pub(crate) type OnePacket = Box<dyn Fn(&Hints) -> Vec<u8>>;
/// Packets, given what the director may choose.
pub(crate) type Packets = Box<dyn Fn(&Hints) -> Vec<Vec<u8>>>;

/// One line of the table.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) view: View,
    pub(crate) port: PortId,
    pub(crate) frames: Vec<Frame>,
    pub(crate) verdict: Verdict,
    pub(crate) expect: Expect,
}

pub(crate) enum Expect {
    /// These packets leave; with `parts` one packet, in fragments of this length at most.
    Sent {
        port: PortId,
        mac: [u8; 6],
        packets: Packets,
        unfinished: bool,
        segments: Option<u16>,
        parts: Option<usize>,
    },
    /// Nothing goes on, and this ICMP error or reset says so.
    Told {
        reason: DropReason,
        port: PortId,
        mac: [u8; 6],
        packet: OnePacket,
    },
    /// The client is told what somebody further on has said.
    Relayed(OnePacket),
    Host(Vec<u8>),
    Left(LeftReason),
    Dropped(DropReason),
    /// For the neighbour.
    Waits,
}

/// A row of the table.
struct Situation {
    name: &'static str,
    /// In which columns it makes sense.
    applies: fn(&Way) -> bool,
    change: fn(&Way, &mut Input),
    /// What is done to the frame itself.
    spoil: fn(&mut Frame),
    expect: fn(&Way, &Input) -> Expect,
}

const SITUATION: Situation = Situation {
    name: "as it is",
    applies: |_| true,
    change: |_, _| {},
    spoil: |_| {},
    expect: goes,
};

/// The packet goes its way; to the director itself without a hop.
fn goes(way: &Way, input: &Input) -> Expect {
    let (how, server6, packet) = (way.how, way.server6, input.packet.clone());
    if how.is_local() {
        return Expect::Host(towards(how, &packet, server6, &Hints::default()));
    }
    let unfinished = packet.unfinished && !how.is_tunnel() && way.kind != Kind::Sctp;
    Expect::Sent {
        port: INSIDE,
        mac: SERVER,
        packets: Box::new(move |hints| {
            let mut packet = packet.clone();
            // That checksum is nobody else's business.
            packet.unfinished &= packet.protocol() != 132;
            vec![towards(how, &packet, server6, hints)]
        }),
        unfinished,
        segments: None,
        parts: None,
    }
}

/// As [`goes`], in fragments.
fn goes_in_parts(way: &Way, input: &Input) -> Expect {
    match goes(way, input) {
        Expect::Sent {
            port,
            mac,
            packets,
            unfinished,
            segments,
            ..
        } => Expect::Sent {
            port,
            mac,
            packets,
            unfinished,
            segments,
            parts: Some(1500),
        },
        other => other,
    }
}

fn goes_in_segments(way: &Way, input: &Input) -> Expect {
    let Some(size) = input.segment else {
        return goes(way, input);
    };
    let (how, server6, packet) = (way.how, way.server6, input.packet.clone());
    match goes(way, input) {
        Expect::Sent { port, mac, .. } if how.is_tunnel() => Expect::Sent {
            port,
            mac,
            packets: Box::new(move |hints| {
                let all = segments(&packet, size.into()).into_iter().enumerate();
                all.map(|(number, part)| {
                    let hints = Hints {
                        ident: hints.ident.wrapping_add(number as u16),
                        ..*hints
                    };
                    towards(how, &part, server6, &hints)
                })
                .collect()
            }),
            unfinished: false,
            segments: None,
            parts: None,
        },
        Expect::Sent {
            port,
            mac,
            packets,
            unfinished,
            ..
        } => Expect::Sent {
            port,
            mac,
            packets,
            unfinished,
            segments: Some(size),
            parts: None,
        },
        other => other,
    }
}

/// The client is told, by the virtual address.
fn told(input: &Input, reason: DropReason, kinds: [(u8, u8); 2], mtu: usize) -> Expect {
    let (packet, vip) = (input.packet.clone(), input.packet.destination);
    let kind = kinds[usize::from(vip.is_ipv6())];
    Expect::Told {
        reason,
        port: OUTSIDE,
        mac: ROUTER,
        packet: Box::new(move |hints| {
            error(vip, &packet.bytes(), packet.tos, kind, mtu as u16, hints).bytes()
        }),
    }
}

const UNREACHABLE: [(u8, u8); 2] = [(3, 1), (1, 3)];
const NO_PORT: [(u8, u8); 2] = [(3, 3), (1, 4)];
const TOO_BIG: [(u8, u8); 2] = [(3, 4), (2, 0)];
const EXCEEDED: [(u8, u8); 2] = [(11, 0), (3, 0)];

fn no_bigger_than(way: &Way) -> usize {
    if way.client6 {
        way.room().max(1280)
    } else {
        way.room()
    }
}

fn header_len(way: &Way) -> usize {
    if way.client6 { 60 } else { 40 }
}

fn super_packet(way: &Way, input: &mut Input, size: usize) {
    if let Body::Tcp {
        flags,
        data,
        acknowledged,
        ..
    } = &mut input.packet.body
    {
        (*flags, *acknowledged) = (0x18, 99);
        *data = (0..2 * size + 100).map(|n| (n * 11) as u8).collect();
    }
    input.packet.unfinished = true;
    input.segment = Some(size as u16);
    let _ = way;
}

const SITUATIONS: &[Situation] = &[
    SITUATION,
    Situation {
        name: "with IPv4 options or an IPv6 extension header",
        change: |way, input| {
            input.packet.options = match way.client6 {
                false => vec![0x94, 4, 0, 0],
                true => vec![0, 0, 1, 4, 0, 0, 0, 0],
            };
        },
        ..SITUATION
    },
    Situation {
        name: "with its last hop but one",
        change: |_, input| input.packet.hops = 2,
        ..SITUATION
    },
    Situation {
        name: "with its last hop",
        change: |_, input| input.packet.hops = 1,
        expect: |way, input| match way.how.is_local() {
            true => goes(way, input),
            false => told(input, DropReason::TimeExceeded, EXCEEDED, 0),
        },
        ..SITUATION
    },
    Situation {
        name: "that may be fragmented",
        applies: |way| !way.client6,
        change: |_, input| input.packet.dont_fragment = false,
        ..SITUATION
    },
    Situation {
        name: "as long as fits",
        change: |way, input| input.packet.fill(way.room()),
        ..SITUATION
    },
    Situation {
        name: "too long by a byte",
        applies: |way| !way.how.is_local(),
        change: |way, input| input.packet.fill(no_bigger_than(way) + 1),
        expect: |way, input| told(input, DropReason::TooBig, TOO_BIG, no_bigger_than(way)),
        ..SITUATION
    },
    Situation {
        name: "too long by a byte, that may be fragmented",
        applies: |way| !way.client6 && !way.how.is_local(),
        change: |way, input| {
            input.packet.fill(way.room() + 1);
            input.packet.dont_fragment = false;
        },
        expect: goes_in_parts,
        ..SITUATION
    },
    Situation {
        name: "too long for a tunnel without path MTU discovery",
        applies: |way| !way.client6 && way.how.is_tunnel(),
        change: |way, input| {
            input.packet.fill(way.room() + 1);
            input.view.tunnels.path_mtu_discovery = false;
        },
        expect: |way, input| {
            let (how, server6, packet) = (way.how, way.server6, input.packet.clone());
            Expect::Sent {
                port: INSIDE,
                mac: SERVER,
                packets: Box::new(move |hints| {
                    let outer = towards(how, &packet, server6, hints);
                    vec![fragmentable(outer, hints)]
                }),
                unfinished: false,
                segments: None,
                parts: Some(1500),
            }
        },
        ..SITUATION
    },
    Situation {
        name: "with a wrong transport checksum, which stays wrong",
        applies: Way::has_ports,
        change: |_, input| input.packet.error = 0x1111,
        ..SITUATION
    },
    Situation {
        name: "without a checksum, which UDP may be",
        applies: |way| way.kind == Kind::Udp && !way.client6,
        change: |_, input| {
            if let Body::Udp { bare, .. } = &mut input.packet.body {
                *bare = true;
            }
        },
        ..SITUATION
    },
    Situation {
        name: "with an unfinished checksum",
        applies: |way| way.has_ports() && !(way.how.is_local() && way.kind == Kind::Sctp),
        change: |_, input| input.packet.unfinished = true,
        ..SITUATION
    },
    Situation {
        name: "that has experienced congestion",
        change: |_, input| input.packet.tos = 0x2b,
        ..SITUATION
    },
    Situation {
        name: "with padding behind it",
        spoil: |frame| {
            let padded = [frame.bytes(), &[0xee; 6]].concat();
            let meta = frame.meta;
            *frame = Frame::from_bytes(&padded);
            frame.meta = meta;
        },
        ..SITUATION
    },
    Situation {
        name: "of several segments",
        applies: |way| way.kind == Kind::Tcp,
        change: |way, input| super_packet(way, input, 1000),
        expect: goes_in_segments,
        ..SITUATION
    },
    Situation {
        name: "of segments as long as fits",
        applies: |way| way.kind == Kind::Tcp,
        change: |way, input| super_packet(way, input, way.room() - header_len(way)),
        expect: goes_in_segments,
        ..SITUATION
    },
    Situation {
        name: "of segments too long by a byte",
        applies: |way| way.kind == Kind::Tcp && !way.how.is_local(),
        change: |way, input| super_packet(way, input, no_bigger_than(way) + 1 - header_len(way)),
        expect: |way, input| told(input, DropReason::TooBig, TOO_BIG, no_bigger_than(way)),
        ..SITUATION
    },
    Situation {
        name: "to a server that has not answered yet",
        applies: |way| !way.how.is_local(),
        change: |way, input| input.verdict = way.verdict_for(names(way.server6).silent),
        expect: |_, _| Expect::Waits,
        ..SITUATION
    },
    Situation {
        name: "to a server without a route",
        applies: |way| !way.how.is_local(),
        change: |way, input| input.verdict = way.verdict_for(names(way.server6).nowhere),
        expect: |_, input| told(input, DropReason::NoRoute, UNREACHABLE, 0),
        ..SITUATION
    },
    Situation {
        name: "to a server that is a loopback address",
        applies: |way| !way.how.is_local(),
        change: |way, input| {
            let loopback = ip(if way.server6 { "::1" } else { "127.0.0.1" });
            input.verdict = way.verdict_for(loopback);
        },
        expect: |_, _| Expect::Dropped(DropReason::BadVerdict),
        ..SITUATION
    },
    Situation {
        name: "to a server of the other family without a tunnel",
        applies: |way| !way.how.is_local() && !way.how.is_tunnel(),
        change: |way, input| input.verdict = way.verdict_for(names(!way.server6).rip),
        expect: |_, _| Expect::Dropped(DropReason::BadVerdict),
        ..SITUATION
    },
    Situation {
        name: "without a server",
        applies: Way::is_plain,
        change: |_, input| input.verdict = Verdict::Reject,
        expect: |_, input| told(input, DropReason::Rejected, NO_PORT, 0),
        ..SITUATION
    },
    Situation {
        name: "of no connection",
        applies: Way::is_plain,
        change: |_, input| input.verdict = Verdict::NotOurs,
        expect: |_, input| Expect::Host(input.packet.bytes()),
        ..SITUATION
    },
    Situation {
        name: "of no connection where there is no host",
        applies: Way::is_plain,
        change: |_, input| {
            input.verdict = Verdict::NotOurs;
            input.view.hostless = true;
        },
        expect: |way, input| match way.kind {
            Kind::Tcp => reset(input),
            _ => told(input, DropReason::NoHost, NO_PORT, 0),
        },
        ..SITUATION
    },
    Situation {
        name: "that the balancer drops",
        applies: Way::is_plain,
        change: |_, input| input.verdict = Verdict::Drop(3),
        expect: |_, _| Expect::Dropped(DropReason::Balancer),
        ..SITUATION
    },
    Situation {
        name: "to no service",
        applies: |way| way.is_plain() && way.has_ports(),
        change: |_, input| {
            if let Some(ports) = input.packet.ports_mut() {
                ports.1 = 9999;
            }
        },
        expect: |_, _| Expect::Left(LeftReason::NotClaimed),
        ..SITUATION
    },
    Situation {
        name: "from loopback",
        applies: Way::is_plain,
        change: |way, input| {
            input.packet.source = ip(if way.client6 { "::1" } else { "127.0.0.1" });
        },
        expect: |_, _| Expect::Dropped(DropReason::MartianSource),
        ..SITUATION
    },
    Situation {
        name: "from a group",
        applies: Way::is_plain,
        change: |way, input| {
            input.packet.source = ip(if way.client6 { "ff02::1" } else { "224.0.0.1" });
        },
        expect: |_, _| Expect::Dropped(DropReason::MartianSource),
        ..SITUATION
    },
    Situation {
        name: "of a VLAN",
        applies: Way::is_plain,
        spoil: |frame| {
            frame.meta.vlan = Some(VlanTag {
                tci: 0x2064,
                tpid: 0x8100,
            });
        },
        expect: |_, _| Expect::Left(LeftReason::Vlan),
        ..SITUATION
    },
    Situation {
        name: "to another hardware address",
        applies: Way::is_plain,
        spoil: |frame| frame.meta.kind = PacketKind::OtherHost,
        expect: |_, _| Expect::Left(LeftReason::NotToUs),
        ..SITUATION
    },
    Situation {
        name: "that a port of the director has sent",
        applies: Way::is_plain,
        spoil: |frame| frame.bytes_mut()[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]),
        expect: |_, _| Expect::Left(LeftReason::OwnFrame),
        ..SITUATION
    },
    Situation {
        name: "with a wrong header checksum",
        applies: |way| way.is_plain() && !way.client6,
        spoil: |frame| frame.bytes_mut()[24] ^= 1,
        expect: |_, _| Expect::Dropped(DropReason::Malformed),
        ..SITUATION
    },
    Situation {
        name: "that lost its last byte",
        applies: Way::is_plain,
        spoil: |frame| {
            let length = frame.len() - 1;
            frame.truncate(length);
        },
        expect: |_, _| Expect::Left(LeftReason::NotIp),
        ..SITUATION
    },
    Situation {
        name: "cut short inside its transport header",
        applies: |way| way.is_plain() && way.kind != Kind::Esp,
        spoil: |frame| {
            let ipv6 = frame.bytes()[14] >> 4 == 6;
            let length: u16 = if ipv6 { 7 } else { 27 };
            let at = if ipv6 { 18 } else { 16 };
            frame.bytes_mut()[at..at + 2].copy_from_slice(&length.to_be_bytes());
            if !ipv6 {
                frame.bytes_mut()[24..26].fill(0);
                let sum = !super::build::fold(super::build::sum(&frame.bytes()[14..34]));
                frame.bytes_mut()[24..26].copy_from_slice(&sum.to_be_bytes());
            }
        },
        expect: |_, _| Expect::Dropped(DropReason::Malformed),
        ..SITUATION
    },
];

/// What the host would have answered to the SYN.
fn reset(input: &Input) -> Expect {
    let packet = input.packet.clone();
    Expect::Told {
        reason: DropReason::NoHost,
        port: OUTSIDE,
        mac: ROUTER,
        packet: Box::new(move |_| {
            let body = Body::Tcp {
                ports: (80, 50000),
                flags: 0x14,
                sequence: 0,
                acknowledged: 8,
                options: Vec::new(),
                data: Vec::new(),
            };
            let mut reset = Packet::new(packet.destination, packet.source, body);
            reset.ident = 0;
            let mut bytes = reset.bytes();
            // It offers no window.
            let at = if packet.source.is_ipv6() { 40 } else { 20 };
            bytes[at + 14..at + 16].fill(0);
            let field = u16::from_be_bytes([bytes[at + 16], bytes[at + 17]]);
            let sum = super::build::fold(u32::from(field) + 0xfaf0);
            bytes[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
            bytes
        }),
    }
}

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        for situation in SITUATIONS.iter().filter(|row| (row.applies)(&way)) {
            let mut input = Input::new(&way);
            (situation.change)(&way, &mut input);
            let mut frame = input.frame();
            (situation.spoil)(&mut frame);
            cases.push(Case {
                name: format!("{}: {}", way.name(), situation.name),
                expect: (situation.expect)(&way, &input),
                view: input.view,
                port: OUTSIDE,
                frames: vec![frame],
                verdict: input.verdict,
            });
        }
        cases.extend(fragments(&way));
    }
    cases.extend(super::replies::cases());
    cases.extend(super::errors::cases());
    cases.extend(vectors::cases());
    cases
}

/// A packet that comes in two fragments, in both orders.
fn fragments(way: &Way) -> Vec<Case> {
    let is_whole = matches!(way.kind, Kind::Tcp | Kind::Sctp);
    if !is_whole && (way.how.is_local() || way.how.is_tunnel()) {
        return Vec::new();
    }
    let mut input = Input::new(way);
    input.packet.fill(1200);
    input.packet.dont_fragment = false;
    let parts = cut(&input.packet.bytes(), way.kind, 800);
    let expect = || match way.how.is_tunnel() {
        true => goes(way, &input),
        false => goes_in_parts(way, &input),
    };
    [("in order", [0, 1]), ("the last one first", [1, 0])]
        .into_iter()
        .map(|(name, order)| Case {
            name: format!("{}: in two fragments, {name}", way.name()),
            expect: expect(),
            view: view(),
            port: OUTSIDE,
            frames: order.map(|at| frame(OUTSIDE, &parts[at])).to_vec(),
            verdict: way.verdict(),
        })
        .collect()
}

/// Cuts an IP packet without options in two.
fn cut(packet: &[u8], kind: Kind, at: usize) -> [Vec<u8>; 2] {
    let ipv6 = packet[0] >> 4 == 6;
    let header = if ipv6 { 40 } else { 20 };
    let (first, last) = packet[header..].split_at(at);
    let number = match kind {
        Kind::Tcp => 6,
        Kind::Udp => 17,
        Kind::Sctp => 132,
        Kind::Esp => 50,
    };
    [(first, 0, true), (last, at, false)].map(|(part, offset, more)| {
        let mut bytes = packet[..header].to_vec();
        if ipv6 {
            bytes[6] = 44;
            bytes[4..6].copy_from_slice(&((8 + part.len()) as u16).to_be_bytes());
            let [high, low] = (offset as u16 | u16::from(more)).to_be_bytes();
            bytes.extend([number, 0, high, low, 0, 0, 0, 42]);
        } else {
            bytes[2..4].copy_from_slice(&((20 + part.len()) as u16).to_be_bytes());
            let word = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
            bytes[6..8].copy_from_slice(&word.to_be_bytes());
            bytes[10..12].fill(0);
            let sum = !super::build::fold(super::build::sum(&bytes));
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        bytes.extend(part);
        bytes
    })
}

/// A packet that goes to the client.
pub(crate) fn to_client(packet: Packet, unfinished: bool) -> Expect {
    Expect::Sent {
        port: OUTSIDE,
        mac: ROUTER,
        packets: Box::new(move |_| vec![packet.bytes()]),
        unfinished,
        segments: None,
        parts: None,
    }
}
