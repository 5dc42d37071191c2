//! Tunnels: the packet travels as it is inside a packet to the real server, which unpacks it and answers the
//! client directly.

use std::net::Ipv4Addr;

use crate::balancer::Encapsulation;
use crate::checksum;
use crate::frame::Frame;
use crate::wire::{ethernet, ipv4, protocol, udp};

/// Bytes that a tunnel packet is longer than the packet inside.
#[inline]
pub fn overhead(encapsulation: Encapsulation) -> usize {
    ipv4::MIN_HEADER_LEN
        + match encapsulation {
            Encapsulation::Ipip => 0,
            Encapsulation::Gue { .. } => udp::HEADER_LEN + GUE_LEN,
            Encapsulation::Gre { checksum: false } => GRE_LEN,
            Encapsulation::Gre { checksum: true } => GRE_LEN + GRE_CHECKSUM_LEN,
        }
}

/// Least room for the packet inside in bytes (RFC 791, section 3.1); with less there is no tunnel.
pub const MIN_MTU: usize = 68;

/// What the outer header says and the packet inside does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    /// An address of the director.
    pub source: Ipv4Addr,
    /// The real server.
    pub destination: Ipv4Addr,
    /// Whether routers must not fragment the outer packet.
    pub dont_fragment: bool,
    /// Identification. Not used where routers must not fragment.
    pub ident: u16,
    /// What comes behind the header.
    pub encapsulation: Encapsulation,
}

/// Puts the outer headers between the link header and the IPv4 packet that begins at `network`. Hops left are those of
/// the packet inside, which has made its hop already. The bytes do not move if the frame has room in front.
///
/// A partial checksum is finished first: nobody behind this could. The frame must have been cut to the length that its
/// IP header states, and must be no super-packet: see [`segment`](super::segment).
///
/// Returns `false`, and changes nothing but the checksum, if there is no such packet or it would get too long for IP.
pub fn encapsulate(frame: &mut Frame, network: usize, outer: &Outer) -> bool {
    frame.complete_checksum();
    let Some(Ok(inner)) = frame.bytes().get(network..).map(ipv4::Packet::new_checked) else {
        return false;
    };
    let overhead = overhead(outer.encapsulation);
    let Ok(total_len) = u16::try_from(inner.total_len() + overhead) else {
        return false;
    };
    let header = ipv4::Repr {
        source: outer.source,
        destination: outer.destination,
        protocol: match outer.encapsulation {
            Encapsulation::Ipip => protocol::IPIP,
            Encapsulation::Gue { .. } => protocol::UDP,
            Encapsulation::Gre { .. } => protocol::GRE,
        },
        tos: outer_tos(inner.tos()),
        ttl: inner.ttl(),
        ident: if outer.dont_fragment { 0 } else { outer.ident },
        dont_fragment: outer.dont_fragment,
        payload_len: total_len - ipv4::MIN_HEADER_LEN as u16,
    };
    let source_port = source_port(&inner);
    frame.grow_front(overhead);
    let packet = &mut frame.bytes_mut()[network..][..usize::from(total_len)];
    let (ip, rest) = packet.split_at_mut(ipv4::MIN_HEADER_LEN);
    header.emit(ip);
    match outer.encapsulation {
        Encapsulation::Ipip => {}
        Encapsulation::Gue { port, checksum } => {
            let addresses = checksum.then_some((outer.source, outer.destination));
            write_gue(rest, [source_port, port], addresses);
        }
        Encapsulation::Gre { checksum } => write_gre(rest, checksum),
    }
    true
}

/// Writes the UDP and GUE headers to the front; with addresses the checksum too.
fn write_gue(datagram: &mut [u8], ports: [u16; 2], addresses: Option<(Ipv4Addr, Ipv4Addr)>) {
    let length = datagram.len() as u16;
    for (at, word) in [ports[0], ports[1], length, 0].into_iter().enumerate() {
        datagram[2 * at..2 * at + 2].copy_from_slice(&word.to_be_bytes());
    }
    // Version 0, no options, IPv4 inside, no flags.
    datagram[udp::HEADER_LEN..udp::HEADER_LEN + GUE_LEN].copy_from_slice(&[
        0,
        protocol::IPIP,
        0,
        0,
    ]);
    if let Some((source, destination)) = addresses {
        let pseudo = checksum::pseudo_header(
            source.into(),
            destination.into(),
            protocol::UDP,
            u32::from(length),
        );
        let sum = checksum::finish(pseudo + checksum::sum(datagram));
        let sum = if sum == 0 { 0xffff } else { sum };
        datagram[udp::CHECKSUM_OFFSET..udp::CHECKSUM_OFFSET + 2]
            .copy_from_slice(&sum.to_be_bytes());
    }
}

/// Writes the GRE header to the front.
fn write_gre(packet: &mut [u8], with_checksum: bool) {
    let [high, low] = ethernet::IPV4.to_be_bytes();
    if !with_checksum {
        packet[..GRE_LEN].copy_from_slice(&[0, 0, high, low]);
        return;
    }
    packet[..GRE_LEN + GRE_CHECKSUM_LEN].copy_from_slice(&[0x80, 0, high, low, 0, 0, 0, 0]);
    let sum = checksum::finish(checksum::sum(packet));
    packet[GRE_LEN..GRE_LEN + 2].copy_from_slice(&sum.to_be_bytes());
}

/// A UDP port of Linux's usual range for clients, the same for every packet of a flow, so that the network spreads flows
/// and keeps each in order. Fragments have no ports to go by.
fn source_port<T: AsRef<[u8]>>(inner: &ipv4::Packet<T>) -> u16 {
    let ports = match inner.payload() {
        [a, b, c, d, ..] if !inner.is_fragment() => u32::from_be_bytes([*a, *b, *c, *d]),
        _ => 0,
    };
    let mut hash = u32::from(inner.protocol());
    for word in [inner.source().into(), inner.destination().into(), ports] {
        hash = (hash.rotate_left(13) ^ word).wrapping_mul(0x9e37_79b1);
    }
    hash ^= hash << 16;
    let range = u64::from(LAST_PORT - FIRST_PORT);
    FIRST_PORT + ((u64::from(hash) * range) >> 32) as u16
}

/// The type of service, but "congestion experienced" stays inside (RFC 3168, section 9.1.1, full functionality).
fn outer_tos(inner: u8) -> u8 {
    match inner & ECN {
        CONGESTION_EXPERIENCED => inner & !ECN | ECT_0,
        _ => inner,
    }
}

const GUE_LEN: usize = 4;
const GRE_LEN: usize = 4;
const GRE_CHECKSUM_LEN: usize = 4;
const FIRST_PORT: u16 = 32768;
const LAST_PORT: u16 = 60999;
const ECN: u8 = 3;
const ECT_0: u8 = 2;
const CONGESTION_EXPERIENCED: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// Vector 26.1 of the forwarding specification after its hop.
    const SYN: [u8; 44] = [
        0x45, 0x00, 0x00, 0x2c, 0x12, 0x34, 0x40, 0x00, 0x3f, 0x06, 0x2b, 0x88, 0xcb, 0x00, 0x71,
        0x05, 0xc0, 0x00, 0x02, 0x0a, 0xc3, 0x50, 0x00, 0x50, 0x11, 0x22, 0x33, 0x44, 0x00, 0x00,
        0x00, 0x00, 0x60, 0x02, 0xfa, 0xf0, 0x97, 0x1e, 0x00, 0x00, 0x02, 0x04, 0x05, 0xb4,
    ];

    fn outer(dont_fragment: bool) -> Outer {
        Outer {
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 31].into(),
            dont_fragment,
            ident: 7,
            encapsulation: Encapsulation::Ipip,
        }
    }

    #[test]
    fn ipip_equals_the_vector_and_moves_nothing() {
        let mut frame = Frame::from_bytes(&[&[0; 14], &SYN[..]].concat());
        let before = frame.bytes()[14..].as_ptr();
        assert!(encapsulate(&mut frame, 14, &outer(true)));
        assert_eq!(
            frame.bytes()[14..34],
            [
                0x45, 0x00, 0x00, 0x40, 0x00, 0x00, 0x40, 0x00, 0x3f, 0x04, 0x27, 0x9b, 0x0a, 0x00,
                0x00, 0x01, 0x0a, 0x00, 0x00, 0x1f,
            ]
        );
        assert_eq!(frame.bytes()[34..], SYN);
        assert_eq!(frame.bytes()[34..].as_ptr(), before);
    }

    fn wrapped(encapsulation: Encapsulation) -> Vec<u8> {
        let mut frame = Frame::from_bytes(&SYN);
        let outer = Outer {
            encapsulation,
            ..outer(true)
        };
        assert!(encapsulate(&mut frame, 0, &outer));
        assert_eq!(frame.len(), SYN.len() + overhead(encapsulation));
        assert!(frame.bytes().ends_with(&SYN));
        frame.bytes().to_vec()
    }

    #[test]
    fn gue_equals_the_vectors_but_for_the_flows_port() {
        let port = |packet: &[u8]| u16::from_be_bytes([packet[20], packet[21]]);
        let mut plain = wrapped(Encapsulation::Gue {
            port: 6080,
            checksum: false,
        });
        let ours = port(&plain);
        assert!((FIRST_PORT..=LAST_PORT).contains(&ours));
        plain[20..22].copy_from_slice(&[0xd4, 0x31]);
        let expected = [
            0x45, 0x00, 0x00, 0x4c, 0x00, 0x00, 0x40, 0x00, 0x3f, 0x11, 0x27, 0x82, 0x0a, 0x00,
            0x00, 0x01, 0x0a, 0x00, 0x00, 0x1f, 0xd4, 0x31, 0x17, 0xc0, 0x00, 0x38, 0x00, 0x00,
            0x00, 0x04, 0x00, 0x00,
        ];
        assert_eq!(plain[..32], expected);
        let mut summed = wrapped(Encapsulation::Gue {
            port: 6080,
            checksum: true,
        });
        assert_eq!(port(&summed), ours);
        let sum = u16::from_be_bytes([summed[26], summed[27]]);
        let sum = checksum::Change::new().word(ours, 0xd431).apply_udp(sum);
        assert_eq!(sum, 0xfd97);
        summed[20..22].copy_from_slice(&[0xd4, 0x31]);
        summed[26..28].fill(0);
        assert_eq!(summed, plain);
    }

    #[test]
    fn gre_equals_the_vectors() {
        let plain = wrapped(Encapsulation::Gre { checksum: false });
        assert_eq!(plain[2..4], [0, 0x44]);
        assert_eq!(plain[9..12], [0x2f, 0x27, 0x6c]);
        assert_eq!(plain[20..24], [0, 0, 8, 0]);
        let summed = wrapped(Encapsulation::Gre { checksum: true });
        assert_eq!(summed[2..4], [0, 0x48]);
        assert_eq!(summed[9..12], [0x2f, 0x27, 0x68]);
        assert_eq!(summed[20..28], [0x80, 0, 8, 0, 0x76, 0x2e, 0, 0]);
    }

    #[test]
    fn packets_of_a_flow_share_a_port_and_flows_differ() {
        let port = |change: fn(&mut [u8])| {
            let mut packet = SYN;
            change(&mut packet);
            source_port(&ipv4::Packet::new_checked(&packet[..]).unwrap())
        };
        let first = port(|_| ());
        assert_eq!(port(|packet| packet[33] = 0x10), first);
        assert_ne!(port(|packet| packet[21] = 0x51), first);
        assert_ne!(port(|packet| packet[15] = 6), first);
    }

    #[test]
    fn service_class_is_copied_and_congestion_is_not() {
        for (inner, expected) in [(0xb8, 0xb8), (0xb9, 0xb9), (0xba, 0xba), (0xbb, 0xba)] {
            let mut packet = SYN;
            packet[1] = inner;
            let mut frame = Frame::from_bytes(&packet);
            assert!(encapsulate(&mut frame, 0, &outer(false)));
            let packet = ipv4::Packet::new_checked(frame.bytes()).unwrap();
            assert_eq!(packet.tos(), expected);
            assert!(packet.verify_checksum() && !packet.dont_fragment());
            assert_eq!(packet.ident(), 7);
        }
    }

    #[test]
    fn what_does_not_fit_in_ip_is_not_wrapped() {
        for (length, fits) in [(65_515, true), (65_516, false), (65_535, false)] {
            let mut packet = vec![0; length];
            packet[..20].copy_from_slice(&SYN[..20]);
            packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            assert_eq!(
                encapsulate(&mut Frame::from_bytes(&packet), 0, &outer(true)),
                fits
            );
        }
        assert!(!encapsulate(
            &mut Frame::from_bytes(&SYN[..30]),
            0,
            &outer(true)
        ));
        assert!(!encapsulate(&mut Frame::from_bytes(&SYN), 60, &outer(true)));
    }
}
