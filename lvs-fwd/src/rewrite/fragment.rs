//! Fragmentation, for packets that may be fragmented and don't fit: a packet socket refuses what exceeds the MTU, where
//! the kernel's own output would cut it. In IPv4 every router may do it (RFC 791, section 3.2), in IPv6 only who sends
//! the packet (RFC 8200, section 4.5): the beginning of a tunnel.

use crate::checksum;
use crate::frame::Frame;
use crate::wire::ipv4::{self, MORE_FRAGMENTS, OFFSET_MASK};
use crate::wire::ipv6;

/// Cuts an IPv4 packet into fragments of at most `mtu` bytes each and passes them on in order, every one with
/// `network` bytes of unspecified content in front for a link header. Returns how many.
///
/// A packet that is a fragment itself is cut further. Nothing comes out if the packet is malformed, or if
/// the MTU has no room for 8 bytes of payload behind the header.
pub fn fragment(
    frame: &mut Frame,
    network: usize,
    mtu: usize,
    mut pass: impl FnMut(Frame),
) -> usize {
    // The sum covers all fragments, so it must be there before they part.
    frame.complete_checksum();
    let Some(Ok(packet)) = frame.bytes().get(network..).map(ipv4::Packet::new_checked) else {
        return 0;
    };
    let (first_header, later_options) = (packet.header_len(), copied_options(packet.options()));
    let later_header = ipv4::MIN_HEADER_LEN + later_options.len();
    let bytes = &frame.bytes()[network..];
    let payload = packet.payload();
    let flags = bytes_word(bytes, 6);
    let mut at = 0;
    let mut count = 0;
    while at < payload.len() {
        let header_len = if at == 0 { first_header } else { later_header };
        let room = mtu.saturating_sub(header_len) & !7;
        if room == 0 {
            return count;
        }
        let part = &payload[at..payload.len().min(at + room)];
        let last = at + part.len() == payload.len();

        let mut out = Frame::zeroed(network + header_len + part.len());
        out.meta.kind = frame.meta.kind;
        let ip = &mut out.bytes_mut()[network..];
        ip[..ipv4::MIN_HEADER_LEN].copy_from_slice(&bytes[..ipv4::MIN_HEADER_LEN]);
        if at == 0 {
            ip[ipv4::MIN_HEADER_LEN..header_len].copy_from_slice(packet.options());
        } else {
            ip[ipv4::MIN_HEADER_LEN..header_len].copy_from_slice(&later_options);
        }
        ip[0] = 0x40 | (header_len / 4) as u8;
        put(ip, 2, (header_len + part.len()) as u16);
        let offset = ((flags & OFFSET_MASK) + (at / 8) as u16) & OFFSET_MASK;
        let more = if last {
            flags & MORE_FRAGMENTS
        } else {
            MORE_FRAGMENTS
        };
        put(ip, 6, offset | more);
        put(ip, 10, 0);
        let sum = checksum::finish(checksum::sum(&ip[..header_len]));
        put(ip, 10, sum);
        ip[header_len..].copy_from_slice(part);
        pass(out);
        at += part.len();
        count += 1;
    }
    count
}

/// Cuts an IPv6 packet of our own, whose headers but the fixed one may be cut, as [`fragment`] does.
pub fn fragment_v6(
    frame: &mut Frame,
    network: usize,
    mtu: usize,
    ident: u32,
    mut pass: impl FnMut(Frame),
) -> usize {
    frame.complete_checksum();
    let Some(Ok(packet)) = frame.bytes().get(network..).map(ipv6::Packet::new_checked) else {
        return 0;
    };
    let header = &frame.bytes()[network..network + ipv6::HEADER_LEN];
    let headers = ipv6::HEADER_LEN + ipv6::FRAGMENT_HEADER_LEN;
    let room = mtu.saturating_sub(headers) & !7;
    if room == 0 {
        return 0;
    }
    let mut count = 0;
    let mut chunks = packet.payload().chunks(room).peekable();
    while let Some(chunk) = chunks.next() {
        let mut out = Frame::zeroed(network + headers + chunk.len());
        out.meta.kind = frame.meta.kind;
        let ip = &mut out.bytes_mut()[network..];
        ip[..ipv6::HEADER_LEN].copy_from_slice(header);
        put(ip, 4, (ipv6::FRAGMENT_HEADER_LEN + chunk.len()) as u16);
        ip[6] = ipv6::FRAGMENT;
        ip[ipv6::HEADER_LEN] = packet.next_header();
        let more = if chunks.peek().is_some() {
            ipv6::MORE
        } else {
            0
        };
        // A multiple of eight, so that the lower bits are free.
        put(ip, ipv6::HEADER_LEN + 2, (count * room) as u16 | more);
        ip[ipv6::HEADER_LEN + 4..headers].copy_from_slice(&ident.to_be_bytes());
        ip[headers..].copy_from_slice(chunk);
        pass(out);
        count += 1;
    }
    count
}

/// The options that every fragment carries, padded to whole words.
fn copied_options(options: &[u8]) -> Vec<u8> {
    let mut copied = Vec::new();
    let mut rest = options;
    loop {
        match *rest {
            [] | [END_OF_OPTIONS, ..] => break,
            [NO_OPERATION, ref tail @ ..] => rest = tail,
            [kind, len, ..] if usize::from(len) >= 2 && usize::from(len) <= rest.len() => {
                let (option, tail) = rest.split_at(len.into());
                if kind & COPY != 0 {
                    copied.extend_from_slice(option);
                }
                rest = tail;
            }
            _ => break,
        }
    }
    copied.resize(copied.len().next_multiple_of(4), END_OF_OPTIONS);
    copied
}

fn bytes_word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const COPY: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ipv4::Packet;

    /// A packet with record route (7, not copied), a no-op and loose source route (131, copied).
    fn with_options(payload: usize) -> Frame {
        let mut packet = vec![0; 32 + payload];
        packet[0] = 0x48;
        put(&mut packet, 2, 32 + payload as u16);
        packet[8] = 64;
        packet[9] = 17;
        packet[20..32].copy_from_slice(&[7, 3, 4, 1, 131, 7, 4, 10, 0, 0, 1, 0]);
        for (n, byte) in packet[32..].iter_mut().enumerate() {
            *byte = n as u8;
        }
        Frame::from_bytes(&packet)
    }

    #[test]
    fn later_fragments_carry_the_copied_options_only() {
        let mut frame = with_options(200);
        let mut parts = Vec::new();
        assert_eq!(fragment(&mut frame, 0, 100, |part| parts.push(part)), 3);
        let mut body = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let packet = Packet::new_checked(part.bytes()).unwrap();
            assert!(part.len() <= 100 && packet.verify_checksum());
            assert_eq!(packet.fragment_offset(), body.len());
            assert_eq!(packet.more_fragments(), at < 2);
            let copied = [131, 7, 4, 10, 0, 0, 1, 0];
            assert_eq!(
                packet.options(),
                if at == 0 {
                    &frame.bytes()[20..32]
                } else {
                    &copied[..]
                }
            );
            body.extend_from_slice(packet.payload());
        }
        assert_eq!(body, frame.bytes()[32..]);
    }

    #[test]
    fn a_fragment_is_cut_further_in_its_place() {
        let mut frame = with_options(64);
        put(frame.bytes_mut(), 6, MORE_FRAGMENTS | 10);
        let mut offsets = Vec::new();
        fragment(&mut frame, 0, 64, |part| {
            let packet = Packet::new_checked(part.bytes()).unwrap();
            offsets.push((packet.fragment_offset(), packet.more_fragments()));
        });
        assert_eq!(offsets, [(80, true), (112, true)]);
    }

    #[test]
    fn ipv6_fragments_have_a_header_of_their_own() {
        let body: Vec<u8> = (0..3000).map(|n| n as u8).collect();
        let mut packet = vec![0; 40];
        ipv6::Repr {
            source: "2001:db8::1".parse().unwrap(),
            destination: "2001:db8::31".parse().unwrap(),
            next_header: 41,
            traffic_class: 0xb8,
            hop_limit: 63,
            payload_len: body.len() as u16,
        }
        .emit(&mut packet);
        packet.extend_from_slice(&body);
        let mut joined = Vec::new();
        let count = fragment_v6(&mut Frame::from_bytes(&packet), 0, 1280, 77, |part| {
            assert!(part.len() <= 1280);
            let packet = ipv6::Packet::new_checked(part.bytes()).unwrap();
            assert_eq!((packet.next_header(), packet.hop_limit()), (44, 63));
            assert_eq!(packet.traffic_class(), 0xb8);
            let upper = packet.upper().unwrap();
            let header = upper.fragment.unwrap();
            assert_eq!((upper.protocol, header.ident), (41, 77));
            assert_eq!(header.offset, joined.len());
            joined.extend_from_slice(&packet.payload()[8..]);
            assert_eq!(header.more, joined.len() < body.len());
        });
        assert_eq!(count, 3);
        assert_eq!(joined, body);
        let mut frame = Frame::from_bytes(&packet);
        assert_eq!(fragment_v6(&mut frame, 0, 55, 77, |_| ()), 0);
        assert_eq!(
            fragment_v6(&mut Frame::from_bytes(&[0x45; 30]), 0, 1280, 77, |_| ()),
            0
        );
    }

    #[test]
    fn no_room_means_no_fragments() {
        assert_eq!(fragment(&mut with_options(64), 0, 39, |_| ()), 0);
        assert_eq!(
            fragment(&mut Frame::from_bytes(&[0x45; 10]), 0, 1500, |_| ()),
            0
        );
        assert_eq!(
            fragment(&mut Frame::from_bytes(&[0x45; 10]), 20, 1500, |_| ()),
            0
        );
    }
}
