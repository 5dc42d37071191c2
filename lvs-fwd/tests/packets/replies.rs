//! What real servers answer: NAT and FULLNAT answers come back through the director.

use lvs_fwd::balancer::Verdict;
use lvs_fwd::frame::{ChecksumState, Gso, GsoKind};
use lvs_fwd::stats::{DropReason, LeftReason};
use lvs_fwd::view::View;

use super::build::{Body, Packet};
use super::oracle::{back, error};
use super::table::{Case, Expect, to_client};
use super::ways::Kind;
use super::world::{INSIDE, SERVER, at, family, frame, names, view};

const KINDS: [Kind; 3] = [Kind::Tcp, Kind::Udp, Kind::Sctp];

struct Answer {
    ipv6: bool,
    full: bool,
    kind: Kind,
    packet: Packet,
    view: View,
    verdict: Verdict,
    segment: Option<u16>,
}

impl Answer {
    fn new(ipv6: bool, full: bool, kind: Kind) -> Self {
        let ends = names(ipv6);
        let (to, ports) = match full {
            false => (ends.client, (8080, 50000)),
            true => (ends.local, (8081, 33001)),
        };
        let body = match kind {
            Kind::Tcp => Body::Tcp {
                ports,
                flags: 0x10,
                sequence: 1000,
                acknowledged: 8,
                options: Vec::new(),
                data: b"answer".to_vec(),
            },
            Kind::Udp => Body::Udp {
                ports,
                data: b"answer".to_vec(),
                bare: false,
            },
            _ => Body::Sctp {
                ports,
                chunks: vec![2, 0, 0, 8, 1, 2, 3, 4],
            },
        };
        let source = at(ends.vip, 80);
        Self {
            ipv6,
            full,
            kind,
            packet: Packet::new(ends.rip, to, body),
            view: view(),
            verdict: match full {
                false => Verdict::Reply { source },
                true => Verdict::ReplyTo {
                    source,
                    client: at(ends.client, 50000),
                },
            },
            segment: None,
        }
    }

    fn expected(&self) -> Packet {
        let ends = names(self.ipv6);
        back(&self.packet, ends.vip, (ends.client, 50000))
    }

    fn told(&self, reason: DropReason, kind: (u8, u8), mtu: u16) -> Expect {
        let ends = names(self.ipv6);
        // A local address is the director's own, so that it tells what happened to what came there.
        let teller = if self.full { ends.local } else { ends.inside };
        let packet = self.packet.clone();
        Expect::Told {
            reason,
            port: INSIDE,
            mac: SERVER,
            packet: Box::new(move |hints| {
                error(teller, &packet.bytes(), packet.tos, kind, mtu, hints).bytes()
            }),
        }
    }

    fn case(self, name: &str, expect: Expect) -> Case {
        let mut frame = frame(INSIDE, &self.packet.bytes());
        let start = (14 + if self.ipv6 { 40 } else { 20 } + self.packet.options.len()) as u16;
        if self.packet.unfinished {
            let offset = if self.kind == Kind::Tcp { 16 } else { 6 };
            frame.meta.checksum = ChecksumState::Partial { start, offset };
        }
        frame.meta.gso = self.segment.map(|size| Gso {
            kind: if self.ipv6 {
                GsoKind::Tcp6
            } else {
                GsoKind::Tcp4
            },
            ecn: false,
            size,
            header_len: start + 20,
        });
        let method = if self.full { "FULLNAT" } else { "NAT" };
        let family = family(self.ipv6);
        Case {
            name: format!("{:?} {family} answer by {method}: {name}", self.kind),
            view: self.view,
            port: INSIDE,
            frames: vec![frame],
            verdict: self.verdict,
            expect,
        }
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (ipv6, full) in [(false, false), (false, true), (true, false), (true, true)] {
        for kind in KINDS {
            let answer = |change: &dyn Fn(&mut Answer)| {
                let mut answer = Answer::new(ipv6, full, kind);
                change(&mut answer);
                answer
            };
            let mut goes = |name: &str, change: &dyn Fn(&mut Answer)| {
                let answer = answer(change);
                let expect = match to_client(answer.expected(), answer.packet.unfinished) {
                    Expect::Sent {
                        port,
                        mac,
                        packets,
                        unfinished,
                        parts,
                        ..
                    } => {
                        let segments = answer.segment;
                        Expect::Sent {
                            port,
                            mac,
                            packets,
                            unfinished,
                            segments,
                            parts,
                        }
                    }
                    other => other,
                };
                cases.push(answer.case(name, expect));
            };
            goes("as it is", &|_| {});
            goes("with its last hop but one", &|answer| {
                answer.packet.hops = 2;
            });
            goes("with options", &|answer| {
                answer.packet.options = match ipv6 {
                    false => vec![0x94, 4, 0, 0],
                    true => vec![0, 0, 1, 4, 0, 0, 0, 0],
                };
            });
            goes("as long as fits", &|answer| answer.packet.fill(1500));
            goes("with a wrong checksum", &|answer| {
                answer.packet.error = 0x2222;
            });
            if kind != Kind::Sctp {
                goes("with an unfinished checksum", &|answer| {
                    answer.packet.unfinished = true;
                });
            }
            if kind == Kind::Tcp {
                goes("of several segments", &|answer| {
                    answer.packet.fill(4000);
                    answer.packet.unfinished = true;
                    answer.segment = Some(1200);
                });
            }
            let last = answer(&|answer| answer.packet.hops = 1);
            let expect = last.told(
                DropReason::TimeExceeded,
                if ipv6 { (3, 0) } else { (11, 0) },
                0,
            );
            cases.push(last.case("with its last hop", expect));
            let long = answer(&|answer| answer.packet.fill(1501));
            let expect = long.told(DropReason::TooBig, if ipv6 { (2, 0) } else { (3, 4) }, 1500);
            cases.push(long.case("too long by a byte", expect));
            let other = answer(&|answer| answer.verdict = Verdict::NotOurs);
            if full {
                let packet = other.packet.bytes();
                cases.push(other.case("of no connection", Expect::Host(packet)));
            } else {
                let mut routed = other.packet.clone();
                routed.hops -= 1;
                cases.push(other.case("of no connection", to_client(routed, false)));
                let off = answer(&|answer| {
                    answer.verdict = Verdict::NotOurs;
                    let mut ports = answer.view.ports.to_vec();
                    for port in &mut ports {
                        (port.forwarding, port.forwarding_v6) = (false, false);
                    }
                    answer.view.ports = ports.into();
                });
                let expect = Expect::Dropped(DropReason::ForwardingOff);
                cases.push(off.case("of no connection where nothing is routed", expect));
                let check = answer(&|answer| answer.packet.destination = names(ipv6).inside);
                let expect = Expect::Left(LeftReason::NotClaimed);
                cases.push(check.case("to a health check", expect));
            }
            let family = answer(&|answer| {
                let source = at(names(!ipv6).vip, 80);
                answer.verdict = Verdict::Reply { source };
            });
            let expect = Expect::Dropped(DropReason::BadVerdict);
            cases.push(family.case("of a service of the other family", expect));
        }
    }
    cases
}
