//! Frames that somebody has damaged. Nobody knows what is right for them, so what must not happen is said: no panic; what
//! leaves is one IP packet, as long as it says, to a neighbour that the balancer named or to a sender of what came in;
//! nothing is longer than its link; and each frame is accounted for.

use std::time::{Duration, Instant};

use lvs_fwd::balancer::{Balancer, PacketInfo, Packets, Verdict};
use lvs_fwd::engine::{Engine, EngineConfig, Output};
use lvs_fwd::frame::{ChecksumState, Frame, Gso, GsoKind};
use lvs_fwd::view::{PortId, View};

use super::table::{Case, Expect};
use super::world::{INSIDE, OUTSIDE, ROUTER, SERVER, view};

/// Answers by what the mutations come from, so that every method is gone through.
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
    fed: u64,
}

impl Victim {
    pub(crate) fn new(cases: &[Case]) -> Self {
        let mut verdicts: Vec<Verdict> = Vec::new();
        for case in cases {
            if !verdicts.contains(&case.verdict) {
                verdicts.push(case.verdict);
            }
        }
        Self {
            engine: Engine::new(EngineConfig::default()),
            view: view(),
            balancer: Any {
                verdicts,
                next: 0,
                asked: 0,
            },
            now: Instant::now(),
            output: Output::new(),
            fed: 0,
        }
    }

    /// How many packets the balancer has been asked about.
    pub(crate) fn asked(&self) -> usize {
        self.balancer.asked
    }

    /// Feeds a frame, and looks at what comes out.
    pub(crate) fn feed(&mut self, port: PortId, frame: Frame) {
        self.fed += 1;
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

/// A small, fast and repeatable source of numbers.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % below.max(1)
    }
}

/// Damages a frame a little, most often where headers are, and makes its header checksum right again as a rule.
pub(crate) fn damage(frame: &Frame, numbers: &mut Numbers) -> Frame {
    let mut bytes = frame.bytes().to_vec();
    for _ in 0..=numbers.next(3) {
        let length = bytes.len();
        if length < 15 {
            break;
        }
        let near = 14 + numbers.next((length - 14).min(80));
        match numbers.next(8) {
            0 => bytes[near] = numbers.next(256) as u8,
            1 => bytes[near] ^= 1 << numbers.next(8),
            2 => bytes[near] = [0, 1, 0x7f, 0x80, 0xff][numbers.next(5)],
            3 => bytes.truncate(14 + numbers.next(length - 13)),
            4 => bytes.extend((0..numbers.next(64)).map(|n| n as u8)),
            5 => {
                let from = 14 + numbers.next(length - 14);
                let count = numbers.next(40).min(length - from).min(length - near);
                bytes.copy_within(from..from + count, near);
            }
            6 => {
                bytes.remove(near);
            }
            _ => {
                // Where protocols, lengths and fragments are said.
                let at = [16, 17, 18, 20, 21, 23, 34, 46, 54, 55, 57][numbers.next(11)];
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = [0, 1, 4, 6, 8, 17, 41, 43, 44, 47, 50, 51, 58, 60, 132, 255]
                        [numbers.next(16)];
                }
            }
        }
    }
    if bytes.len() >= 34 && bytes[14] >> 4 == 4 && numbers.next(8) != 0 {
        let header = usize::from(bytes[14] & 15) * 4;
        if (20..=bytes.len() - 14).contains(&header) {
            bytes[24..26].fill(0);
            let sum = !super::build::fold(super::build::sum(&bytes[14..14 + header]));
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        }
    }
    let mut damaged = Frame::from_bytes(&bytes);
    damaged.meta = frame.meta;
    if numbers.next(16) == 0 {
        damaged.meta.checksum = ChecksumState::Partial {
            start: numbers.next(100) as u16,
            offset: numbers.next(20) as u16,
        };
    }
    if numbers.next(16) == 0 {
        damaged.meta.gso = Some(Gso {
            kind: [
                GsoKind::Tcp4,
                GsoKind::Tcp6,
                GsoKind::Udp,
                GsoKind::UdpFragments,
            ][numbers.next(4)],
            ecn: false,
            size: 1 + numbers.next(1400) as u16,
            header_len: numbers.next(100) as u16,
        });
    }
    damaged
}

/// How many mutations: a few in an ordinary run, as many as this variable says in a long one.
pub(crate) fn count(few: usize) -> usize {
    std::env::var("LVS_FWD_MUTATIONS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(few)
}

#[test]
fn frames_cut_at_every_length_do_no_harm() {
    let cases = super::table::cases();
    let mut victim = Victim::new(&cases);
    for case in cases.iter().step_by(7) {
        for frame in &case.frames {
            for length in 0..frame.len().min(200) {
                let mut cut = Frame::from_bytes(&frame.bytes()[..length]);
                cut.meta = frame.meta;
                victim.feed(case.port, cut);
            }
        }
    }
}

#[test]
fn lengths_that_lie_do_no_harm() {
    let cases = super::table::cases();
    let mut victim = Victim::new(&cases);
    for case in cases.iter().step_by(11) {
        let Some(frame) = case.frames.first() else {
            continue;
        };
        // IPv4 header length, total length, UDP length, TCP header length; IPv6 payload and extension lengths.
        for at in [14, 16, 17, 18, 19, 38, 39, 46, 55, 58, 59, 66] {
            for value in [0, 1, 7, 8, 19, 20, 0x40, 0x4f, 0x50, 0xf0, 0xff] {
                let mut lying = frame.clone();
                let Some(byte) = lying.bytes_mut().get_mut(at) else {
                    continue;
                };
                *byte = value;
                victim.feed(case.port, lying);
            }
        }
    }
}

#[test]
fn random_damage_does_no_harm() {
    let cases = super::table::cases();
    let mut victim = Victim::new(&cases);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let total = count(60_000);
    for _ in 0..total {
        let case = &cases[numbers.next(cases.len())];
        let frame = &case.frames[numbers.next(case.frames.len())];
        victim.feed(case.port, damage(frame, &mut numbers));
    }
    let asked = victim.asked();
    assert!(asked > total / 4, "most of it is more than noise: {asked}");
}

#[test]
fn damage_to_what_must_not_go_on_does_not_send_it_on() {
    // What is left, dropped or the host's has no way to a server whatever follows it.
    let cases = super::table::cases();
    for case in &cases {
        if !matches!(case.expect, Expect::Left(_) | Expect::Dropped(_)) {
            continue;
        }
        let again = super::world::run(
            &case.view,
            case.port,
            case.frames.iter().chain(&case.frames).cloned().collect(),
            case.verdict,
        );
        assert!(
            again.sent.is_empty() && again.host.is_empty(),
            "{}",
            case.name
        );
    }
}
