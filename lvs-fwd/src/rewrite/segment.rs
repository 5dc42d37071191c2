//! Cutting super-packets in software, where what leaves can't be described as one: inside a tunnel.

use crate::checksum;
use crate::frame::Frame;
use crate::wire::{Headers, ipv4, ipv6, protocol, tcp, udp};

/// Cuts a TCP or UDP packet into segments of at most `size` bytes of payload and passes them on in order, each
/// a whole packet with complete checksums. What lies in front of the IP header is copied. Returns how many.
///
/// In IPv4 the identification counts up; FIN and PSH are on the last segment only, CWR on the first. Nothing comes out of what is
/// malformed, or of a size of 0.
pub fn segment(
    frame: &Frame,
    headers: &Headers,
    size: usize,
    mut pass: impl FnMut(Frame),
) -> usize {
    let Some(packet) = frame.bytes().get(..headers.end) else {
        return 0;
    };
    let Some(body) = payload_start(packet, headers) else {
        return 0;
    };
    let (head, payload) = packet.split_at(body);
    if size == 0 {
        return 0;
    }
    // A packet without payload is its only segment.
    let count = payload.len().div_ceil(size).max(1);
    let mut chunks = payload.chunks(size);
    for number in 0..count {
        let chunk = chunks.next().unwrap_or_default();
        let mut out = Frame::zeroed(body + chunk.len());
        out.meta.kind = frame.meta.kind;
        let bytes = out.bytes_mut();
        bytes[..body].copy_from_slice(head);
        bytes[body..].copy_from_slice(chunk);
        let ip = &mut bytes[headers.network..];
        if headers.is_ipv6() {
            put(ip, 4, (ip.len() - ipv6::HEADER_LEN) as u16);
        } else {
            put(ip, 2, ip.len() as u16);
            put(ip, 4, word(ip, 4).wrapping_add(number as u16));
            put(ip, 10, 0);
            let header_len = headers.transport - headers.network;
            let sum = checksum::finish(checksum::sum(&ip[..header_len]));
            put(ip, 10, sum);
        }
        finish_transport(
            &mut bytes[headers.transport..],
            headers,
            number * size,
            (number == 0, number + 1 == count),
        );
        pass(out);
    }
    count
}

/// Makes a copied transport header that of the segment which begins `offset` bytes into the payload.
fn finish_transport(
    segment: &mut [u8],
    headers: &Headers,
    offset: usize,
    (first, last): (bool, bool),
) {
    let at = if headers.protocol == protocol::TCP {
        let sequence = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]])
            .wrapping_add(offset as u32);
        segment[4..8].copy_from_slice(&sequence.to_be_bytes());
        if !first {
            segment[13] &= !CWR;
        }
        if !last {
            segment[13] &= !(FIN | PSH);
        }
        tcp::CHECKSUM_OFFSET
    } else {
        put(segment, 4, segment.len() as u16);
        udp::CHECKSUM_OFFSET
    };
    put(segment, at, 0);
    let pseudo = checksum::pseudo_header(
        headers.source.ip(),
        headers.destination.ip(),
        headers.protocol,
        segment.len() as u32,
    );
    let sum = checksum::finish(pseudo + checksum::sum(segment));
    // Zero means "none" in UDP and is the same number as 0xffff elsewhere.
    put(segment, at, if sum == 0 { 0xffff } else { sum });
}

/// Where the transport payload begins, from the frame's first byte.
fn payload_start(packet: &[u8], headers: &Headers) -> Option<usize> {
    let ip = packet.get(headers.network..)?;
    if headers.is_ipv6() {
        ipv6::Packet::new_checked(ip).ok()?;
    } else {
        ipv4::Packet::new_checked(ip).ok()?;
    }
    let segment = packet.get(headers.transport..)?;
    let length = match headers.protocol {
        protocol::TCP => tcp::Packet::new_checked(segment).ok()?.header_len(),
        protocol::UDP if segment.len() >= udp::HEADER_LEN => udp::HEADER_LEN,
        _ => return None,
    };
    Some(headers.transport + length)
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

const FIN: u8 = 1;
const PSH: u8 = 8;
const CWR: u8 = 0x80;

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, PacketHeaders, TransportHeader};
    use proptest::prelude::*;

    use super::*;

    fn packet(is_tcp: bool, payload: &[u8]) -> Frame {
        let mut bytes = Vec::new();
        let builder =
            PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4([203, 0, 113, 5], [192, 0, 2, 10], 63);
        if is_tcp {
            builder
                .tcp(50000, 80, u32::MAX - 1000, 1000)
                .psh()
                .fin()
                .cwr()
                .ack(77)
                .write(&mut bytes, payload)
                .unwrap();
        } else {
            builder.udp(40000, 53).write(&mut bytes, payload).unwrap();
        }
        Frame::from_bytes(&bytes)
    }

    proptest! {
        #[test]
        fn segments_put_together_are_the_payload(
            payload in prop::collection::vec(any::<u8>(), 0..5000),
            size in 1usize..2000,
            is_tcp in any::<bool>(),
        ) {
            let frame = packet(is_tcp, &payload);
            let headers = Headers::parse(frame.bytes()).unwrap();
            let mut parts = Vec::new();
            let count = segment(&frame, &headers, size, |part| parts.push(part));
            prop_assert_eq!(count, parts.len());
            prop_assert_eq!(count, payload.len().div_ceil(size).max(1));
            let mut body = Vec::new();
            let first = PacketHeaders::from_ethernet_slice(frame.bytes()).unwrap();
            let ident = |packet: &PacketHeaders<'_>| match &packet.net {
                Some(etherparse::NetHeaders::Ipv4(ip, _)) => ip.identification,
                _ => unreachable!(),
            };
            for (at, part) in parts.iter().enumerate() {
                let read = PacketHeaders::from_ethernet_slice(part.bytes()).unwrap();
                let Some(etherparse::NetHeaders::Ipv4(ip, _)) = &read.net else { unreachable!() };
                prop_assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                prop_assert_eq!(usize::from(ip.total_len), part.len() - 14);
                prop_assert_eq!(ip.identification, ident(&first).wrapping_add(at as u16));
                match read.transport.as_ref().unwrap() {
                    TransportHeader::Tcp(tcp) => {
                        let sum = tcp.calc_checksum_ipv4(ip, read.payload.slice()).unwrap();
                        // Both forms of zero are right.
                        prop_assert_eq!(tcp.checksum % 0xffff, sum % 0xffff);
                        prop_assert_eq!(tcp.sequence_number, (u32::MAX - 1000).wrapping_add(body.len() as u32));
                        let last = at + 1 == count;
                        prop_assert_eq!((tcp.fin, tcp.psh, tcp.cwr, tcp.ack), (last, last, at == 0, true));
                    }
                    TransportHeader::Udp(udp) => {
                        let sum = udp.calc_checksum_ipv4(ip, read.payload.slice()).unwrap();
                        prop_assert_eq!(udp.checksum, sum);
                        prop_assert_eq!(usize::from(udp.length), 8 + read.payload.slice().len());
                    }
                    _ => unreachable!(),
                }
                body.extend_from_slice(read.payload.slice());
            }
            prop_assert_eq!(body, payload);
        }
    }

    #[test]
    fn what_can_not_be_cut_is_not() {
        let frame = packet(true, &[0; 100]);
        let headers = Headers::parse(frame.bytes()).unwrap();
        assert_eq!(segment(&frame, &headers, 0, |_| ()), 0);
        let mut short = frame.clone();
        short.truncate(60);
        assert_eq!(segment(&short, &headers, 10, |_| ()), 0);
        let mut lying = frame;
        lying.bytes_mut()[46] = 0xf0;
        lying.truncate(70);
        assert_eq!(segment(&lying, &headers, 10, |_| ()), 0);
    }
}
