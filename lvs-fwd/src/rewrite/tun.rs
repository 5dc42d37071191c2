//! Tunnels: the packet travels as it is inside a packet to the real server, which unpacks it and answers the
//! client directly. Either may be IPv4 or IPv6.

use std::net::IpAddr;

use crate::balancer::Encapsulation;
use crate::checksum;
use crate::frame::Frame;
use crate::wire::{ethernet, ipv4, ipv6, protocol, udp};

/// Bytes that a tunnel packet to this real server is longer than the packet inside.
#[inline]
pub fn overhead(encapsulation: Encapsulation, rip: &IpAddr) -> usize {
    let outer = match rip {
        IpAddr::V4(_) => ipv4::MIN_HEADER_LEN,
        IpAddr::V6(_) => ipv6::HEADER_LEN,
    };
    outer
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
    pub source: IpAddr,
    /// The real server.
    pub destination: IpAddr,
    /// Whether routers must not fragment the outer packet. In IPv6 they never do.
    pub dont_fragment: bool,
    /// Identification. Not used where routers must not fragment.
    pub ident: u16,
    /// What comes behind the header.
    pub encapsulation: Encapsulation,
}

/// Puts the outer headers between the link header and the IP packet that begins at `network`. Hops left are those of
/// the packet inside, which has made its hop already. The bytes do not move if the frame has room in front.
///
/// A partial checksum is finished first: nobody behind this could. The frame must have been cut to the length that its
/// IP header states, and must be no super-packet: see [`segment`](super::segment).
///
/// Returns `false`, and changes nothing but the checksum, if there is no such packet, it would get too long for IP, or
/// the outer addresses are of different families.
pub fn encapsulate(frame: &mut Frame, network: usize, outer: &Outer) -> bool {
    frame.complete_checksum();
    let Some(inner) = frame.bytes().get(network..).and_then(Inner::read) else {
        return false;
    };
    let overhead = overhead(outer.encapsulation, &outer.destination);
    let total_len = inner.total_len + overhead;
    let kind = match outer.encapsulation {
        Encapsulation::Ipip => inner.protocol,
        Encapsulation::Gue { .. } => protocol::UDP,
        Encapsulation::Gre { .. } => protocol::GRE,
    };
    let tos = outer_tos(inner.tos);
    let (header, header_len) = match (outer.source, outer.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let Ok(total_len) = u16::try_from(total_len) else {
                return false;
            };
            let header = ipv4::Repr {
                source,
                destination,
                protocol: kind,
                tos,
                ttl: inner.hops,
                ident: if outer.dont_fragment { 0 } else { outer.ident },
                dont_fragment: outer.dont_fragment,
                payload_len: total_len - ipv4::MIN_HEADER_LEN as u16,
            };
            (Header::V4(header), ipv4::MIN_HEADER_LEN)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let Ok(payload_len) = u16::try_from(total_len - ipv6::HEADER_LEN) else {
                return false;
            };
            let header = ipv6::Repr {
                source,
                destination,
                next_header: kind,
                traffic_class: tos,
                hop_limit: inner.hops,
                payload_len,
            };
            (Header::V6(header), ipv6::HEADER_LEN)
        }
        _ => return false,
    };
    frame.grow_front(overhead);
    let packet = &mut frame.bytes_mut()[network..][..total_len];
    let (ip, rest) = packet.split_at_mut(header_len);
    match header {
        Header::V4(header) => header.emit(ip),
        Header::V6(header) => header.emit(ip),
    }
    match outer.encapsulation {
        Encapsulation::Ipip => {}
        Encapsulation::Gue { port, checksum } => {
            let addresses = checksum.then_some((outer.source, outer.destination));
            write_gue(rest, &inner, port, addresses);
        }
        Encapsulation::Gre { checksum } => write_gre(rest, &inner, checksum),
    }
    true
}

enum Header {
    V4(ipv4::Repr),
    V6(ipv6::Repr),
}

/// What the outer headers take from the packet inside.
struct Inner {
    total_len: usize,
    tos: u8,
    hops: u8,
    protocol: u8,
    ethertype: u16,
    /// The same for every packet of a flow.
    source_port: u16,
}

impl Inner {
    fn read(bytes: &[u8]) -> Option<Self> {
        if let Ok(packet) = ipv4::Packet::new_checked(bytes) {
            let ports = match packet.payload() {
                [a, b, c, d, ..] if !packet.is_fragment() => u32::from_be_bytes([*a, *b, *c, *d]),
                _ => 0,
            };
            return Some(Self {
                total_len: packet.total_len(),
                tos: packet.tos(),
                hops: packet.ttl(),
                protocol: protocol::IPIP,
                ethertype: ethernet::IPV4,
                source_port: source_port(packet.protocol(), &bytes[12..20], ports),
            });
        }
        let packet = ipv6::Packet::new_checked(bytes).ok()?;
        let (protocol, ports) = match packet.upper() {
            Ok(upper) if upper.fragment.is_none() => (
                upper.protocol,
                match bytes.get(upper.offset..packet.total_len()) {
                    Some([a, b, c, d, ..]) => u32::from_be_bytes([*a, *b, *c, *d]),
                    _ => 0,
                },
            ),
            Ok(upper) => (upper.protocol, 0),
            Err(_) => (0, 0),
        };
        Some(Self {
            total_len: packet.total_len(),
            tos: packet.traffic_class(),
            hops: packet.hop_limit(),
            protocol: protocol::IPV6,
            ethertype: ethernet::IPV6,
            source_port: source_port(protocol, &bytes[8..40], ports),
        })
    }
}

/// Writes the UDP and GUE headers to the front; with addresses the checksum too.
fn write_gue(datagram: &mut [u8], inner: &Inner, port: u16, addresses: Option<(IpAddr, IpAddr)>) {
    let length = datagram.len() as u16;
    for (at, word) in [inner.source_port, port, length, 0].into_iter().enumerate() {
        datagram[2 * at..2 * at + 2].copy_from_slice(&word.to_be_bytes());
    }
    // Version 0, no options, what is inside, no flags.
    datagram[udp::HEADER_LEN..udp::HEADER_LEN + GUE_LEN].copy_from_slice(&[
        0,
        inner.protocol,
        0,
        0,
    ]);
    if let Some((source, destination)) = addresses {
        let pseudo = checksum::pseudo_header(source, destination, protocol::UDP, u32::from(length));
        let sum = checksum::finish(pseudo + checksum::sum(datagram));
        let sum = if sum == 0 { 0xffff } else { sum };
        datagram[udp::CHECKSUM_OFFSET..udp::CHECKSUM_OFFSET + 2]
            .copy_from_slice(&sum.to_be_bytes());
    }
}

/// Writes the GRE header to the front.
fn write_gre(packet: &mut [u8], inner: &Inner, with_checksum: bool) {
    let [high, low] = inner.ethertype.to_be_bytes();
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
fn source_port(protocol: u8, addresses: &[u8], ports: u32) -> u16 {
    let mut hash = u32::from(protocol);
    let mut mix = |word: u32| hash = (hash.rotate_left(13) ^ word).wrapping_mul(0x9e37_79b1);
    for word in addresses.chunks_exact(4) {
        mix(u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    }
    mix(ports);
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
        assert_eq!(
            frame.len(),
            SYN.len() + overhead(encapsulation, &outer.destination)
        );
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
            Inner::read(&packet).unwrap().source_port
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

    /// UDP over IPv6, of so many bytes in all.
    fn packet6(length: usize) -> Vec<u8> {
        let mut packet = vec![7; length];
        ipv6::Repr {
            source: "2001:db8::5".parse().unwrap(),
            destination: "2001:db8::10".parse().unwrap(),
            next_header: 17,
            traffic_class: 0xb9,
            hop_limit: 63,
            payload_len: (length - 40) as u16,
        }
        .emit(&mut packet);
        packet
    }

    #[test]
    fn any_family_travels_in_any() {
        let v6 = packet6(60);
        let outer6 = |encapsulation| Outer {
            source: "2001:db8:1::1".parse().unwrap(),
            destination: "2001:db8:1::31".parse().unwrap(),
            dont_fragment: true,
            ident: 0,
            encapsulation,
        };
        let outer4 = |encapsulation| Outer {
            encapsulation,
            ..outer(false)
        };
        let gue = Encapsulation::Gue {
            port: 6080,
            checksum: true,
        };
        let gre = Encapsulation::Gre { checksum: true };
        for (inner, outer, kind, shim) in [
            (&SYN[..], outer6(Encapsulation::Ipip), 4, 0),
            (&v6, outer6(Encapsulation::Ipip), 41, 0),
            (&v6, outer4(Encapsulation::Ipip), 41, 0),
            (&SYN, outer6(gue), 17, 12),
            (&v6, outer6(gue), 17, 12),
            (&v6, outer4(gue), 17, 12),
            (&SYN, outer6(gre), 47, 8),
            (&v6, outer6(gre), 47, 8),
            (&v6, outer4(gre), 47, 8),
        ] {
            let mut frame = Frame::from_bytes(&[&[0; 14], inner].concat());
            assert!(encapsulate(&mut frame, 14, &outer));
            let bytes = &frame.bytes()[14..];
            assert!(bytes.ends_with(inner));
            let is_v6 = inner.len() == 60;
            let head = bytes.len() - inner.len() - shim;
            assert_eq!(
                head + shim,
                overhead(outer.encapsulation, &outer.destination)
            );
            let tos = if is_v6 { 0xb9 } else { 0 };
            match outer.destination {
                IpAddr::V6(destination) => {
                    let packet = ipv6::Packet::new_checked(bytes).unwrap();
                    assert_eq!(packet.total_len(), bytes.len());
                    assert_eq!((packet.next_header(), packet.hop_limit()), (kind, 63));
                    assert_eq!(packet.destination(), destination);
                    assert_eq!(packet.traffic_class(), tos);
                }
                IpAddr::V4(destination) => {
                    let packet = ipv4::Packet::new_checked(bytes).unwrap();
                    assert!(packet.verify_checksum());
                    assert_eq!(packet.total_len(), bytes.len());
                    assert_eq!((packet.protocol(), packet.ttl()), (kind, 63));
                    assert_eq!(packet.destination(), destination);
                    assert_eq!((packet.tos(), packet.dont_fragment()), (tos, false));
                }
            }
            let rest = &bytes[head..];
            match outer.encapsulation {
                Encapsulation::Ipip => {}
                Encapsulation::Gue { .. } => {
                    assert_eq!(rest[8..12], [0, if is_v6 { 41 } else { 4 }, 0, 0]);
                    let pseudo = checksum::pseudo_header(
                        outer.source,
                        outer.destination,
                        17,
                        rest.len() as u32,
                    );
                    assert_eq!(checksum::finish(pseudo + checksum::sum(rest)), 0);
                }
                Encapsulation::Gre { .. } => {
                    let kind = if is_v6 { [0x86, 0xdd] } else { [8, 0] };
                    assert_eq!(rest[..4], [&[0x80, 0][..], &kind].concat());
                    assert_eq!(checksum::finish(checksum::sum(rest)), 0);
                }
            }
        }
    }

    #[test]
    fn outer_addresses_of_two_families_are_refused() {
        let outer = Outer {
            destination: "2001:db8::31".parse().unwrap(),
            ..outer(true)
        };
        assert!(!encapsulate(&mut Frame::from_bytes(&SYN), 0, &outer));
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
