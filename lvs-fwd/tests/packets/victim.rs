//! A director under attack, and what must not happen to it. Nobody knows what is right for a damaged frame; but there is
//! never a panic, and what leaves is one IP packet, as long as it says and no longer than its link carries, with hops left,
//! to a neighbour that the director knows.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use lvs_fwd::balancer::{Balancer, Encapsulation, Method, PacketInfo, Packets, Verdict};
use lvs_fwd::engine::{Engine, EngineConfig, Output};
use lvs_fwd::frame::{ChecksumState, Frame};
use lvs_fwd::view::{PortId, View};
use lvs_fwd::wire::{Fragment, Headers, Quoted, Tunnelled};

use super::world::{INSIDE, OUTSIDE, ROUTER, SERVER, at, frame, names, view};

/// Says something else each time, so that every method is gone through.
struct Any {
    verdicts: Vec<Verdict>,
    next: usize,
    asked: usize,
}

impl Any {
    fn answer(&mut self, packet: &PacketInfo) -> Verdict {
        assert!(packet.length >= 20 && packet.length <= 1 << 16);
        self.asked += 1;
        self.next = (self.next + 1) % self.verdicts.len();
        self.verdicts[self.next]
    }
}

impl Balancer for Any {
    fn decide(&mut self, _: Instant, packets: &Packets<'_>, verdicts: &mut Vec<Verdict>) {
        for (number, packet) in packets.iter().enumerate() {
            assert!(packets.payload(number).len() <= packet.length as usize);
            verdicts.push(self.answer(packet));
        }
    }

    fn decide_error(&mut self, _: Instant, quoted: &PacketInfo) -> Verdict {
        self.answer(quoted)
    }

    fn decide_ipsec(&mut self, _: Instant, packet: &PacketInfo) -> Verdict {
        self.answer(packet)
    }

    fn decide_tunnel_error(&mut self, _: Instant, inner: &PacketInfo) -> Verdict {
        self.answer(inner)
    }
}

/// A director that has been through a lot.
pub(crate) struct Victim {
    engine: Engine,
    view: View,
    balancer: Any,
    now: Instant,
    output: Output,
}

impl Victim {
    pub(crate) fn new() -> Self {
        Self {
            engine: Engine::new(EngineConfig::default()),
            view: view(),
            balancer: Any {
                verdicts: verdicts(),
                next: 0,
                asked: 0,
            },
            now: Instant::now(),
            output: Output::new(),
        }
    }

    /// How many packets the balancer has been asked about.
    pub(crate) fn asked(&self) -> usize {
        self.balancer.asked
    }

    /// Feeds a frame, and looks at what comes out.
    pub(crate) fn feed(&mut self, port: PortId, frame: Frame) {
        let shown = frame.bytes().to_vec();
        let meta = frame.meta;
        // Time passes, so that nothing is held for ever.
        self.now += Duration::from_millis(5);
        self.output.clear();
        let mut frames = vec![frame];
        let (engine, view, now) = (&mut self.engine, &self.view, self.now);
        engine.process(
            now,
            view,
            port,
            &mut frames,
            &mut self.balancer,
            &mut self.output,
        );
        if engine.poll_timeout().is_some_and(|at| at <= now) {
            engine.handle_timeout(now, view, &mut self.output);
        }
        for (out, frame) in &self.output.transmit {
            let told = judge(*out, frame, view);
            assert!(told.is_ok(), "{told:?} after {meta:?} {shown:02x?}");
        }
        for frame in &self.output.host {
            assert!(!frame.is_empty(), "{shown:02x?}");
        }
    }
}

/// Whether a frame may leave.
fn judge(port: PortId, frame: &Frame, view: &View) -> Result<(), &'static str> {
    let bytes = frame.bytes();
    let known = match port {
        OUTSIDE => bytes.starts_with(&ROUTER),
        INSIDE => bytes.starts_with(&SERVER),
        _ => false,
    };
    if !known {
        return Err("to nobody whom the director knows");
    }
    let Some(packet) = bytes.get(14..).filter(|packet| packet.len() >= 20) else {
        return Err("no packet");
    };
    let word = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    let (length, hops) = match packet[0] >> 4 {
        4 => {
            let header = usize::from(packet[0] & 15) * 4;
            if header < 20 || header > packet.len() {
                return Err("an impossible header");
            }
            if super::build::fold(super::build::sum(&packet[..header])) != 0xffff {
                return Err("a wrong header checksum");
            }
            (word(2), packet[8])
        }
        6 if packet.len() >= 40 => (40 + word(4), packet[7]),
        _ => return Err("no IP packet"),
    };
    if length != packet.len() {
        return Err("a packet of another length than it says");
    }
    if hops == 0 {
        return Err("a packet without hops");
    }
    let mtu = view.port(port).map_or(0, |port| port.mtu as usize);
    match frame.meta.gso {
        None if length > mtu => return Err("longer than the link carries"),
        Some(gso) if gso.size == 0 || usize::from(gso.size) > mtu => {
            return Err("segments longer than the link carries");
        }
        _ => {}
    }
    if let ChecksumState::Partial { start, offset } = frame.meta.checksum
        && usize::from(start) + usize::from(offset) + 2 > bytes.len()
    {
        return Err("a checksum that lies beyond the packet");
    }
    Ok(())
}

/// Every kind of answer, for both families.
fn verdicts() -> Vec<Verdict> {
    let mut all = vec![Verdict::NotOurs, Verdict::Reject, Verdict::Drop(1)];
    for ipv6 in [false, true] {
        let ends = names(ipv6);
        let source = at(ends.vip, 80);
        let client = at(ends.client, 50000);
        all.push(Verdict::Reply { source });
        all.push(Verdict::ReplyTo { source, client });
        for server in [ends.rip, ends.inside, ends.silent] {
            all.extend(methods(server, ends.local).map(Verdict::Forward));
        }
    }
    all
}

fn methods(server: IpAddr, local: IpAddr) -> [Method; 8] {
    let tunnel = |encapsulation| Method::Tunnel {
        rip: server,
        encapsulation,
    };
    let gue = |checksum| Encapsulation::Gue {
        port: 6080,
        checksum,
    };
    [
        Method::Nat {
            rip: at(server, 8080),
        },
        Method::FullNat {
            rip: at(server, 8081),
            local: at(local, 33001),
        },
        Method::DirectRoute { rip: server },
        tunnel(Encapsulation::Ipip),
        tunnel(gue(false)),
        tunnel(gue(true)),
        tunnel(Encapsulation::Gre { checksum: false }),
        tunnel(Encapsulation::Gre { checksum: true }),
    ]
}

/// Any bytes as frames, one after the other, for the parsers and for a director.
pub(crate) fn run_bytes(mut data: &[u8]) {
    let mut victim = Victim::new();
    while let [choice, length, rest @ ..] = data {
        let (packet, rest) = rest.split_at((usize::from(*length) * 8).min(rest.len()));
        let port = if choice & 1 == 0 { OUTSIDE } else { INSIDE };
        let frame = match choice & 2 {
            0 => frame(port, packet),
            _ => Frame::from_bytes(packet),
        };
        parse(frame.bytes());
        victim.feed(port, frame);
        data = rest;
    }
}

/// All that looks at bytes.
fn parse(bytes: &[u8]) {
    if let Ok(headers) = Headers::parse(bytes) {
        let _ = headers.is_sound(bytes);
        assert!(headers.payload(bytes).len() <= bytes.len());
    }
    if let Ok(fragment) = Fragment::parse(bytes) {
        let _ = fragment.is_sound(bytes);
    }
    if let Some(quoted) = Quoted::parse(bytes) {
        let _ = quoted.is_sound(bytes);
    }
    if let Some(error) = Tunnelled::parse(bytes) {
        let _ = error.is_sound(bytes);
        assert!(
            error
                .inner
                .is_none_or(|inner| inner.bytes.end <= bytes.len())
        );
    }
}
