//! Frames that somebody has damaged, made from those of the table.

use lvs_fwd::frame::{ChecksumState, Frame, Gso, GsoKind};

use super::table::Expect;
use super::victim::{Victim, run_bytes};

/// A small, fast and repeatable source of numbers.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % below.max(1)
    }
}

/// Damages a frame a little, most often where headers are, and makes its header checksum right again as a rule.
fn damage(frame: &Frame, numbers: &mut Numbers) -> Frame {
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
fn count(few: usize) -> usize {
    std::env::var("LVS_FWD_MUTATIONS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(few)
}

#[test]
fn frames_cut_at_every_length_do_no_harm() {
    let cases = super::table::cases();
    let mut victim = Victim::new();
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
    let mut victim = Victim::new();
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
    let mut victim = Victim::new();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let total = count(200_000);
    for _ in 0..total {
        let case = &cases[numbers.next(cases.len())];
        let frame = &case.frames[numbers.next(case.frames.len())];
        victim.feed(case.port, damage(frame, &mut numbers));
    }
    let asked = victim.asked();
    assert!(asked > total / 4, "most of it is more than noise: {asked}");
}

#[test]
fn what_does_not_go_on_does_not_the_second_time_either() {
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

#[test]
fn any_bytes_do_no_harm() {
    let mut numbers = Numbers(0x0123_4567_89ab_cdef);
    for _ in 0..count(200_000) / 100 {
        let mut bytes = Vec::new();
        for _ in 0..numbers.next(400) {
            bytes.push(
                [
                    0,
                    1,
                    4,
                    8,
                    0x40,
                    0x45,
                    0x60,
                    6,
                    17,
                    58,
                    numbers.next(256) as u8,
                ][numbers.next(11)],
            );
        }
        run_bytes(&bytes);
    }
}
