//! TCP resets in the host's place, where there is no way to the host that would send them.

use std::net::{IpAddr, SocketAddr};

use crate::checksum;
use crate::frame::Frame;
use crate::wire::{ethernet, ipv4, ipv6, protocol, tcp};

/// Builds the reset that answers a segment of no connection (RFC 9293, section 3.10.7.1). `original` is the IP packet.
///
/// The result has room for an Ethernet header in front; its content is not specified. `None` about a reset, and about
/// what is no whole TCP segment.
pub fn build(original: &[u8]) -> Option<Frame> {
    let (source, destination, bytes) = match ipv4::Packet::new_checked(original) {
        Ok(packet) if packet.protocol() == protocol::TCP && !packet.is_fragment() => (
            IpAddr::V4(packet.source()),
            IpAddr::V4(packet.destination()),
            &original[packet.header_len()..packet.total_len()],
        ),
        Ok(_) => return None,
        Err(_) => {
            let packet = ipv6::Packet::new_checked(original).ok()?;
            let upper = packet.upper().ok()?;
            let is_part = upper.fragment.is_some_and(|part| !part.is_atomic());
            if upper.protocol != protocol::TCP || is_part {
                return None;
            }
            (
                IpAddr::V6(packet.source()),
                IpAddr::V6(packet.destination()),
                &original[upper.offset..packet.total_len()],
            )
        }
    };
    let segment = tcp::Packet::new_checked(bytes).ok()?;
    if segment.flags() & RST != 0 {
        return None;
    }
    let word =
        |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (sequence, acknowledgement, flags) = if segment.flags() & ACK != 0 {
        (word(8), 0, RST)
    } else {
        let counted = |flag| u32::from(segment.flags() & flag != 0);
        let length = segment.payload().len() as u32 + counted(SYN) + counted(FIN);
        (0, word(4).wrapping_add(length), RST | ACK)
    };

    let from = SocketAddr::new(destination, segment.destination_port());
    let to = SocketAddr::new(source, segment.source_port());
    emit(from, to, (sequence, acknowledgement), flags)
}

/// Builds a reset that answers nothing: the receiver expects this sequence number next, so it believes the reset (RFC 5961,
/// section 3.2). The result is as [`build`]'s; `None` if the addresses are of different families.
pub fn unasked(source: SocketAddr, destination: SocketAddr, sequence: u32) -> Option<Frame> {
    emit(source, destination, (sequence, 0), RST)
}

fn emit(
    source: SocketAddr,
    destination: SocketAddr,
    (sequence, acknowledgement): (u32, u32),
    flags: u8,
) -> Option<Frame> {
    let (mut frame, at) = headed(source.ip(), destination.ip())?;
    let reset = &mut frame.bytes_mut()[at..];
    reset[0..2].copy_from_slice(&source.port().to_be_bytes());
    reset[2..4].copy_from_slice(&destination.port().to_be_bytes());
    reset[4..8].copy_from_slice(&sequence.to_be_bytes());
    reset[8..12].copy_from_slice(&acknowledgement.to_be_bytes());
    reset[12] = (tcp::MIN_HEADER_LEN as u8 / 4) << 4;
    reset[13] = flags;
    let pseudo = checksum::pseudo_header(
        source.ip(),
        destination.ip(),
        protocol::TCP,
        tcp::MIN_HEADER_LEN as u32,
    );
    let sum = checksum::finish(pseudo + checksum::sum(reset));
    reset[tcp::CHECKSUM_OFFSET..tcp::CHECKSUM_OFFSET + 2].copy_from_slice(&sum.to_be_bytes());
    Some(frame)
}

/// A frame with an IP header and room for a TCP header, and where that begins.
fn headed(source: IpAddr, destination: IpAddr) -> Option<(Frame, usize)> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = ipv4::Repr {
                source,
                destination,
                protocol: protocol::TCP,
                tos: 0,
                ttl: 64,
                ident: 0,
                dont_fragment: true,
                payload_len: tcp::MIN_HEADER_LEN as u16,
            };
            let at = ethernet::HEADER_LEN + header.buffer_len();
            let mut frame = Frame::zeroed(at + tcp::MIN_HEADER_LEN);
            header.emit(&mut frame.bytes_mut()[ethernet::HEADER_LEN..]);
            Some((frame, at))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = ipv6::Repr {
                source,
                destination,
                next_header: protocol::TCP,
                traffic_class: 0,
                hop_limit: 64,
                payload_len: tcp::MIN_HEADER_LEN as u16,
            };
            let at = ethernet::HEADER_LEN + header.buffer_len();
            let mut frame = Frame::zeroed(at + tcp::MIN_HEADER_LEN);
            header.emit(&mut frame.bytes_mut()[ethernet::HEADER_LEN..]);
            Some((frame, at))
        }
        _ => None,
    }
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use pnet_packet::Packet;
    use pnet_packet::ipv4::{Ipv4Packet, checksum};
    use pnet_packet::tcp::{TcpPacket, ipv4_checksum};

    use super::*;

    /// Sequence number, acknowledgement and flags of the reset.
    fn answer(
        segment: impl Fn(&mut etherparse::TcpHeader),
        payload: &[u8],
    ) -> Option<(u32, u32, u8)> {
        let mut header = etherparse::TcpHeader::new(50000, 80, 1000, 512);
        segment(&mut header);
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([203, 0, 113, 5], [192, 0, 2, 10], 64)
            .tcp_header(header)
            .write(&mut bytes, payload)
            .unwrap();
        let frame = build(&bytes)?;
        let packet = Ipv4Packet::new(&frame.bytes()[14..]).unwrap();
        assert_eq!(packet.get_checksum(), checksum(&packet));
        let (source, destination) = (packet.get_source(), packet.get_destination());
        assert_eq!(
            (source.octets(), destination.octets()),
            ([192, 0, 2, 10], [203, 0, 113, 5])
        );
        let tcp = TcpPacket::new(packet.payload()).unwrap();
        assert_eq!(
            tcp.get_checksum(),
            ipv4_checksum(&tcp, &source, &destination)
        );
        assert_eq!((tcp.get_source(), tcp.get_destination()), (80, 50000));
        Some((
            tcp.get_sequence(),
            tcp.get_acknowledgement(),
            tcp.get_flags(),
        ))
    }

    #[test]
    fn a_segment_with_ack_is_reset_at_its_acknowledgement() {
        let data = |header: &mut etherparse::TcpHeader| {
            header.ack = true;
            header.acknowledgment_number = 77;
        };
        assert_eq!(answer(data, b"hello"), Some((77, 0, RST)));
    }

    #[test]
    fn a_segment_without_ack_is_acknowledged() {
        assert_eq!(answer(|_| {}, b"hello"), Some((0, 1005, RST | ACK)));
        assert_eq!(
            answer(|header| header.syn = true, b""),
            Some((0, 1001, RST | ACK))
        );
        assert_eq!(
            answer(|header| header.fin = true, b"x"),
            Some((0, 1002, RST | ACK))
        );
        let wraps = |header: &mut etherparse::TcpHeader| {
            header.syn = true;
            header.sequence_number = u32::MAX;
        };
        assert_eq!(answer(wraps, b""), Some((0, 0, RST | ACK)));
    }

    #[test]
    fn ipv6_segments_are_answered_by_ipv6_resets() {
        let (client, vip) = ([0x20; 16], [0x21; 16]);
        let mut bytes = Vec::new();
        PacketBuilder::ipv6(client, vip, 64)
            .tcp(50000, 80, 1000, 512)
            .syn()
            .write(&mut bytes, &[])
            .unwrap();
        let frame = build(&bytes).unwrap();
        let ip = pnet_packet::ipv6::Ipv6Packet::new(&frame.bytes()[14..]).unwrap();
        assert_eq!(
            (ip.get_source().octets(), ip.get_destination().octets()),
            (vip, client)
        );
        assert_eq!((ip.get_hop_limit(), ip.get_payload_length()), (64, 20));
        let tcp = TcpPacket::new(ip.payload()).unwrap();
        assert_eq!(
            tcp.get_checksum(),
            pnet_packet::tcp::ipv6_checksum(&tcp, &ip.get_source(), &ip.get_destination())
        );
        assert_eq!(
            (tcp.get_acknowledgement(), tcp.get_flags()),
            (1001, RST | ACK)
        );
        bytes[6] = 17;
        assert!(build(&bytes).is_none());
    }

    #[test]
    fn resets_are_not_answered() {
        assert_eq!(answer(|header| header.rst = true, b""), None);
        assert!(build(&[0x45; 30]).is_none());
    }
}
