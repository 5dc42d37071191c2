//! The columns of the table: how, between which families, and by which protocol packets go.

use lvs_fwd::balancer::{Encapsulation, Method, Verdict};
use lvs_fwd::frame::{ChecksumState, Frame, Gso, GsoKind};
use lvs_fwd::view::View;

use super::build::{Body, Packet};
use super::oracle::How;
use super::world::{OUTSIDE, at, family, frame, names, view};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
    Sctp,
    Esp,
}

/// A column of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub(crate) how: How,
    pub client6: bool,
    pub server6: bool,
    pub(crate) kind: Kind,
}

impl Way {
    pub(crate) fn all() -> Vec<Self> {
        let same = [
            How::Nat,
            How::Direct,
            How::FullNat,
            How::LocalNat,
            How::LocalDirect,
        ];
        let tunnels = [
            How::Ipip,
            How::Gue { checksum: false },
            How::Gue { checksum: true },
            How::Gre { checksum: false },
            How::Gre { checksum: true },
        ];
        let mut all = Vec::new();
        for kind in [Kind::Tcp, Kind::Udp, Kind::Sctp, Kind::Esp] {
            for how in same.into_iter().chain(tunnels) {
                for (client6, server6) in
                    [(false, false), (true, true), (false, true), (true, false)]
                {
                    let makes_sense = (client6 == server6 || how.is_tunnel())
                        // Nothing tells connections behind one address apart.
                        && (how != How::FullNat || kind != Kind::Esp);
                    if makes_sense {
                        all.push(Self {
                            how,
                            client6,
                            server6,
                            kind,
                        });
                    }
                }
            }
        }
        all
    }

    pub(crate) fn name(&self) -> String {
        format!(
            "{:?} {} by {:?} to {}",
            self.kind,
            family(self.client6),
            self.how,
            family(self.server6)
        )
    }

    pub(crate) fn packet(&self) -> Packet {
        let ends = names(self.client6);
        let ports = (50000, 80);
        let body = match self.kind {
            Kind::Tcp => Body::Tcp {
                ports,
                flags: 2,
                sequence: 7,
                acknowledged: 0,
                options: Vec::new(),
                data: Vec::new(),
            },
            Kind::Udp => Body::Udp {
                ports,
                data: b"question".to_vec(),
                bare: false,
            },
            Kind::Sctp => Body::Sctp {
                ports,
                chunks: vec![1, 0, 0, 8, 1, 2, 3, 4],
            },
            Kind::Esp => Body::Other(50, vec![0, 0, 0, 1, 0, 0, 0, 2, 3, 4, 5, 6]),
        };
        Packet::new(ends.client, ends.vip, body)
    }

    /// Longest packet that fits.
    pub(crate) fn room(&self) -> usize {
        1500 - self.how.overhead(self.server6)
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let to = names(self.server6);
        let tunnel = |encapsulation| Method::Tunnel {
            rip: to.rip,
            encapsulation,
        };
        Verdict::Forward(match self.how {
            How::Nat => Method::Nat {
                rip: at(to.rip, 8080),
            },
            How::LocalNat => Method::Nat {
                rip: at(to.inside, 8080),
            },
            How::Direct => Method::DirectRoute { rip: to.rip },
            How::LocalDirect => Method::DirectRoute { rip: to.inside },
            How::FullNat => Method::FullNat {
                rip: at(to.rip, 8081),
                local: at(to.local, 33001),
            },
            How::Ipip => tunnel(Encapsulation::Ipip),
            How::Gue { checksum } => tunnel(Encapsulation::Gue {
                port: 6080,
                checksum,
            }),
            How::Gre { checksum } => tunnel(Encapsulation::Gre { checksum }),
        })
    }

    /// The verdict, with another server.
    pub(crate) fn verdict_for(&self, server: std::net::IpAddr) -> Verdict {
        let Verdict::Forward(method) = self.verdict() else {
            return self.verdict();
        };
        Verdict::Forward(match method {
            Method::Nat { rip } => Method::Nat {
                rip: at(server, rip.port()),
            },
            Method::FullNat { rip, local } => Method::FullNat {
                rip: at(server, rip.port()),
                local,
            },
            Method::DirectRoute { .. } => Method::DirectRoute { rip: server },
            Method::Tunnel { encapsulation, .. } => Method::Tunnel {
                rip: server,
                encapsulation,
            },
        })
    }

    /// Whether this is the column for what no method matters to.
    pub(crate) fn is_plain(&self) -> bool {
        self.how == How::Nat
    }

    pub(crate) fn has_ports(&self) -> bool {
        self.kind != Kind::Esp
    }
}

/// What comes in.
pub(crate) struct Input {
    pub(crate) packet: Packet,
    pub(crate) segment: Option<u16>,
    pub(crate) view: View,
    pub(crate) verdict: Verdict,
}

impl Input {
    pub(crate) fn new(way: &Way) -> Self {
        Self {
            packet: way.packet(),
            segment: None,
            view: view(),
            verdict: way.verdict(),
        }
    }

    pub(crate) fn frame(&self) -> Frame {
        let mut frame = frame(OUTSIDE, &self.packet.bytes());
        let header = if self.packet.source.is_ipv6() { 40 } else { 20 };
        let start = (14 + header + self.packet.options.len()) as u16;
        if self.packet.unfinished {
            let offset = match self.packet.protocol() {
                6 => 16,
                17 => 6,
                _ => 8,
            };
            frame.meta.checksum = ChecksumState::Partial { start, offset };
        }
        if let Some(size) = self.segment {
            let kind = if self.packet.source.is_ipv6() {
                GsoKind::Tcp6
            } else {
                GsoKind::Tcp4
            };
            frame.meta.gso = Some(Gso {
                kind,
                ecn: false,
                size,
                header_len: start + 20,
            });
        }
        frame
    }
}
