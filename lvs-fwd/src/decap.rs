//! What a real server behind a tunnel does: takes the packet out of the one that it came in.
//!
//! Bytes only: who receives them, and who gets what was inside, is the caller's business. The far end of
//! [`rewrite::tun`](crate::rewrite::tun), and of other directors' tunnels: IPv4 and IPv6 in either, directly
//! (RFC 2003, RFC 2473, RFC 4213), by GRE (RFC 2784) or by Generic UDP Encapsulation version 0.

use std::net::IpAddr;
use std::ops::Range;

use crate::checksum;
use crate::wire::{ipv4, protocol};

/// Between which headers the packet lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// None: an IP header whose protocol is this number, 4 or 41, and the packet behind it.
    Ip(u8),
    /// A GRE header behind the IP header.
    Gre,
    /// A GUE header behind the UDP header.
    Gue,
}

/// Why nothing was taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NotInside {
    /// The tunnel's header or the packet inside is cut short, or contradicts itself.
    #[error("malformed")]
    Malformed,
    /// A checksum is wrong.
    #[error("wrong checksum")]
    Checksum,
    /// Something that balancers do not send: a control message, a key, a routing header, another protocol.
    #[error("not of a balancer")]
    Unsupported,
}

/// The packet inside what follows the outer IP header, or for GUE the UDP header. The UDP checksum is judged by whoever has
/// the outer header.
///
/// The checksum of a TCP or UDP packet inside is finished in place where it is not yet: with GUE's remote checksum option,
/// and where it is the bare sum of the pseudo-header, as from a balancer on the same machine. (A finished checksum that is
/// this number by chance stays what it is.)
///
/// # Errors
///
/// [`NotInside`]
pub fn inside(carrier: Carrier, payload: &mut [u8]) -> Result<&[u8], NotInside> {
    let place = match carrier {
        Carrier::Ip(number) => whole(number, payload, 0)?,
        Carrier::Gre => in_gre(payload)?,
        Carrier::Gue => in_gue(payload)?,
    };
    let packet = payload.get_mut(place).ok_or(NotInside::Malformed)?;
    complete(packet);
    Ok(packet)
}

fn in_gre(payload: &[u8]) -> Result<Range<usize>, NotInside> {
    let word = |at: usize| {
        Some(u16::from_be_bytes(
            payload.get(at..at + 2)?.try_into().ok()?,
        ))
    };
    let flags = word(0).ok_or(NotInside::Malformed)?;
    let number = match word(2).ok_or(NotInside::Malformed)? {
        0x0800 => protocol::IPIP,
        0x86dd => IPV6,
        _ => return Err(NotInside::Unsupported),
    };
    let inner = match flags {
        0 => 4,
        GRE_CHECKSUM => {
            if payload.len() >= 8 && checksum::fold(checksum::sum(payload)) != 0xffff {
                return Err(NotInside::Checksum);
            }
            8
        }
        _ => return Err(NotInside::Unsupported),
    };
    whole(number, payload, inner)
}

fn in_gue(payload: &mut [u8]) -> Result<Range<usize>, NotInside> {
    let Some(&[first, number, flag_high, flag_low]) = payload.first_chunk() else {
        return Err(NotInside::Malformed);
    };
    // Version 0 and no control message.
    if first & 0xe0 != 0 {
        return Err(NotInside::Unsupported);
    }
    let optional = usize::from(first & 0x1f) * 4;
    let inner = GUE_LEN + optional;
    if payload.len() < inner {
        return Err(NotInside::Malformed);
    }
    match (u16::from_be_bytes([flag_high, flag_low]), optional) {
        (0, 0) => {}
        (GUE_PRIVATE, 8) if payload[4..8] == GUE_REMOTE_CHECKSUM => {
            let at = |at: usize| usize::from(u16::from_be_bytes([payload[at], payload[at + 1]]));
            let (start, field) = (at(8), at(10));
            finish(&mut payload[inner..], start, field)?;
        }
        _ => return Err(NotInside::Unsupported),
    }
    whole(number, payload, inner)
}

/// Computes the checksum of what begins at `start` into the field at `field`, which holds what is not summed here.
fn finish(packet: &mut [u8], start: usize, field: usize) -> Result<(), NotInside> {
    if start > field || field + 2 > packet.len() {
        return Err(NotInside::Malformed);
    }
    let sum = checksum::finish(checksum::sum(&packet[start..]));
    packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// Finishes a checksum that is the bare sum of the pseudo-header.
fn complete(packet: &mut [u8]) {
    let Some((addresses, protocol, header)) = transport(packet) else {
        return;
    };
    let field = match protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => return,
    };
    let Some(segment) = packet.get_mut(header..) else {
        return;
    };
    let length = segment.len() as u32;
    let Some(present) = segment.get(field..field + 2) else {
        return;
    };
    let present = u16::from_be_bytes([present[0], present[1]]);
    let bare = checksum::pseudo_header(addresses[0], addresses[1], protocol, length);
    // None at all is a checksum of UDP, too.
    if present == 0 || present != checksum::fold(bare) {
        return;
    }
    let sum = match checksum::finish(checksum::sum(segment)) {
        0 if protocol == protocol::UDP => 0xffff,
        sum => sum,
    };
    segment[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Sender and receiver of a whole packet, its transport protocol and where that begins; `None` for parts of packets and
/// behind IPv6 extension headers.
fn transport(packet: &[u8]) -> Option<([IpAddr; 2], u8, usize)> {
    match packet.first()? >> 4 {
        4 => {
            let header = ipv4::Packet::new_checked(packet).ok()?;
            let ends = [header.source(), header.destination()].map(IpAddr::V4);
            (!header.is_fragment()).then(|| (ends, header.protocol(), header.header_len()))
        }
        6 => {
            let header = packet.first_chunk::<40>()?;
            let addr = |at: usize| {
                let bytes: [u8; 16] = header[at..at + 16].try_into().ok()?;
                Some(IpAddr::from(bytes))
            };
            Some(([addr(8)?, addr(24)?], header[6], 40))
        }
        _ => None,
    }
}

/// Where the packet that begins there lies, without what follows it.
fn whole(number: u8, payload: &[u8], at: usize) -> Result<Range<usize>, NotInside> {
    let packet = payload.get(at..).ok_or(NotInside::Malformed)?;
    let length = length_of(number, packet)?;
    if length > packet.len() {
        return Err(NotInside::Malformed);
    }
    Ok(at..at + length)
}

/// Length of the packet as its header states it.
fn length_of(number: u8, packet: &[u8]) -> Result<usize, NotInside> {
    match number {
        protocol::IPIP => {
            let inner = ipv4::Packet::new_checked(packet).map_err(|_| NotInside::Malformed)?;
            if !inner.verify_checksum() {
                return Err(NotInside::Checksum);
            }
            Ok(inner.total_len())
        }
        IPV6 => {
            let header = packet.first_chunk::<40>().ok_or(NotInside::Malformed)?;
            if header[0] >> 4 != 6 {
                return Err(NotInside::Malformed);
            }
            Ok(40 + usize::from(u16::from_be_bytes([header[4], header[5]])))
        }
        _ => Err(NotInside::Unsupported),
    }
}

/// IPv6 in IP.
const IPV6: u8 = 41;
const GRE_CHECKSUM: u16 = 0x8000;
const GUE_LEN: usize = 4;
/// Private flags follow.
const GUE_PRIVATE: u16 = 0x0001;
/// The private flag of remote checksum offload, alone.
const GUE_REMOTE_CHECKSUM: [u8; 4] = [0x80, 0, 0, 0];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balancer::Encapsulation;
    use crate::frame::Frame;
    use crate::rewrite::tun::{Outer, encapsulate};

    /// 203.0.113.5:50000 to 192.0.2.10:80, a SYN in an Ethernet frame.
    const SYN: [u8; 58] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 9, 9, 8, 0, 0x45, 0, 0, 0x2c, 0x12, 0x34, 0x40, 0, 0x40, 6,
        0x2a, 0x88, 203, 0, 113, 5, 192, 0, 2, 10, 0xc3, 0x50, 0, 80, 0x11, 0x22, 0x33, 0x44, 0, 0,
        0, 0, 0x60, 2, 0xfa, 0xf0, 0x97, 0x1e, 0, 0, 2, 4, 5, 0xb4,
    ];

    fn wrapped(encapsulation: Encapsulation) -> Vec<u8> {
        let mut frame = Frame::from_bytes(&SYN);
        let outer = Outer {
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 11].into(),
            dont_fragment: true,
            ident: 0,
            encapsulation,
        };
        assert!(encapsulate(&mut frame, 14, &outer));
        frame.bytes()[34..].to_vec()
    }

    fn all() -> [(Carrier, Vec<u8>); 5] {
        let gue = |checksum| {
            let port = 6080;
            wrapped(Encapsulation::Gue { port, checksum })[8..].to_vec()
        };
        let gre = |checksum| wrapped(Encapsulation::Gre { checksum });
        [
            (Carrier::Ip(4), wrapped(Encapsulation::Ipip)),
            (Carrier::Gue, gue(false)),
            (Carrier::Gue, gue(true)),
            (Carrier::Gre, gre(false)),
            (Carrier::Gre, gre(true)),
        ]
    }

    #[test]
    fn what_was_wrapped_comes_out() {
        for (carrier, mut payload) in all() {
            payload.extend([0; 6]);
            let length = payload.len() - 6;
            assert_eq!(inside(carrier, &mut payload[..length]), Ok(&SYN[14..]));
            if carrier != Carrier::Gre {
                assert_eq!(
                    inside(carrier, &mut payload),
                    Ok(&SYN[14..]),
                    "padding goes"
                );
            }
            for cut in 0..length {
                assert!(
                    inside(carrier, &mut payload[..cut]).is_err(),
                    "{carrier:?} {cut}"
                );
            }
        }
    }

    #[test]
    fn a_remote_checksum_is_finished() {
        let mut payload = vec![2, 4, 0, 1, 0x80, 0, 0, 0, 0, 20, 0, 36];
        payload.extend(&SYN[14..]);
        // What the sender leaves there: the sum of the pseudo-header.
        let ends = [[203, 0, 113, 5], [192, 0, 2, 10]].map(std::net::IpAddr::from);
        let pseudo = checksum::fold(checksum::pseudo_header(ends[0], ends[1], 6, 24));
        payload[12 + 36..12 + 38].copy_from_slice(&pseudo.to_be_bytes());
        assert_eq!(inside(Carrier::Gue, &mut payload), Ok(&SYN[14..]));
        payload[11] = 200;
        assert_eq!(
            inside(Carrier::Gue, &mut payload),
            Err(NotInside::Malformed)
        );
    }

    #[test]
    fn an_unfinished_checksum_is_finished() {
        let mut payload = SYN[14..].to_vec();
        let ends = [[203, 0, 113, 5], [192, 0, 2, 10]].map(IpAddr::from);
        let bare = checksum::fold(checksum::pseudo_header(ends[0], ends[1], 6, 24));
        payload[36..38].copy_from_slice(&bare.to_be_bytes());
        assert_eq!(inside(Carrier::Ip(4), &mut payload), Ok(&SYN[14..]));
        // A wrong one stays wrong.
        payload[36] ^= 1;
        let wrong = payload.clone();
        assert_eq!(inside(Carrier::Ip(4), &mut payload), Ok(&wrong[..]));
    }

    #[test]
    fn an_ipv6_packet_comes_out_of_each() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 3, 17, 64];
        packet.extend([7; 32 + 3]);
        let with = |header: &[u8]| [header, &packet].concat();
        for (carrier, header) in [
            (Carrier::Ip(41), &[][..]),
            (Carrier::Gre, &[0, 0, 0x86, 0xdd]),
            (Carrier::Gue, &[0, 41, 0, 0]),
        ] {
            assert_eq!(inside(carrier, &mut with(header)), Ok(&packet[..]));
        }
        assert_eq!(
            inside(Carrier::Ip(4), &mut with(&[])),
            Err(NotInside::Malformed)
        );
    }

    #[test]
    fn what_is_not_of_a_balancer_is_refused() {
        let cases: [(Carrier, &[u8]); 6] = [
            (Carrier::Ip(6), &SYN[14..]),
            (Carrier::Gre, &[0x20, 0, 8, 0, 0, 0, 0, 0]),
            (Carrier::Gre, &[0, 0, 0x88, 0x47]),
            (Carrier::Gue, &[0x20, 4, 0, 0]),
            (Carrier::Gue, &[0x40, 4, 0, 0]),
            (Carrier::Gue, &[0, 6, 0, 0]),
        ];
        for (carrier, bytes) in cases {
            let outcome = inside(carrier, &mut bytes.to_vec()).map(<[u8]>::len);
            assert_eq!(
                outcome,
                Err(NotInside::Unsupported),
                "{carrier:?} {bytes:?}"
            );
        }
        let mut damaged = wrapped(Encapsulation::Gre { checksum: true });
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(inside(Carrier::Gre, &mut damaged), Err(NotInside::Checksum));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..100), start in 0..5_usize) {
            let mut started = all()[start].1.clone();
            for (at, byte) in bytes.iter().take(20).enumerate() {
                let at = (at * 7 + usize::from(*byte)) % started.len();
                started[at] ^= byte;
            }
            for carrier in [Carrier::Ip(4), Carrier::Ip(41), Carrier::Gre, Carrier::Gue] {
                let _ = inside(carrier, &mut bytes);
                let _ = inside(carrier, &mut started);
            }
        }
    }
}
