//! Tunnels: the packet travels as it is inside a packet to the real server, which unpacks it and answers the
//! client directly. IP in IP (RFC 2003) so far.

use std::net::Ipv4Addr;

use crate::frame::Frame;
use crate::wire::{ipv4, protocol};

/// Bytes that a tunnel packet is longer than the packet inside.
pub const OVERHEAD: usize = ipv4::MIN_HEADER_LEN;

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
}

/// Puts the outer header between the link header and the IPv4 packet that begins at `network`. Hops left are those of
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
    let Some(payload_len) = u16::try_from(inner.total_len() + OVERHEAD)
        .ok()
        .map(|length| length - OVERHEAD as u16)
    else {
        return false;
    };
    let header = ipv4::Repr {
        source: outer.source,
        destination: outer.destination,
        protocol: protocol::IPIP,
        tos: outer_tos(inner.tos()),
        ttl: inner.ttl(),
        ident: if outer.dont_fragment { 0 } else { outer.ident },
        dont_fragment: outer.dont_fragment,
        payload_len,
    };
    frame.grow_front(OVERHEAD);
    header.emit(&mut frame.bytes_mut()[network..]);
    true
}

/// The type of service, but "congestion experienced" stays inside (RFC 3168, section 9.1.1, full functionality).
fn outer_tos(inner: u8) -> u8 {
    match inner & ECN {
        CONGESTION_EXPERIENCED => inner & !ECN | ECT_0,
        _ => inner,
    }
}

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
