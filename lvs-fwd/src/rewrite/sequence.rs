//! TCP streams whose text changes length on the way: sequence numbers, acknowledgements and SACK edges follow.

use crate::balancer::{Edit, Replacement};
use crate::checksum::{Change, fold, sum};
use crate::frame::{ChecksumState, Frame};
use crate::wire::{Headers, protocol, tcp};

/// How far one direction of a TCP stream has moved by what was put in or taken out. Numbers wrap around, and one is
/// after another if it is less than 2^31 ahead.
///
/// The place of the last change is kept, so that what was sent before it, and is sent or acknowledged again, moves by what
/// was right before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shift {
    /// Sequence number, as its sender counts, of the segment that was changed last.
    last: u32,
    /// What is added behind it.
    after: u32,
    /// What is added up to it.
    before: u32,
}

impl Shift {
    /// Notes that a segment that begins at `sequence` by its sender's count has become `longer` bytes longer (shorter, if
    /// negative). A segment that was noted already, or one before it, changes nothing: it comes again.
    pub fn record(&mut self, sequence: u32, longer: i32) {
        if !self.is_moved() || is_after(sequence, self.last) {
            *self = Self {
                last: sequence,
                after: self.after.wrapping_add_signed(longer),
                before: self.after,
            };
        }
    }

    /// Whether anything has moved.
    #[inline]
    pub fn is_moved(&self) -> bool {
        self.after != 0 || self.before != 0
    }

    /// What the receiver is to be told for a sequence number of the sender.
    #[inline]
    pub fn sent(&self, sequence: u32) -> u32 {
        let by = if is_after(sequence, self.last) {
            self.after
        } else {
            self.before
        };
        sequence.wrapping_add(by)
    }

    /// What the sender is to be told for a number that the receiver acknowledges.
    #[inline]
    pub fn acknowledged(&self, number: u32) -> u32 {
        let by = if is_after(number, self.last.wrapping_add(self.after)) {
            self.after
        } else {
            self.before
        };
        number.wrapping_sub(by)
    }
}

/// Changes a whole TCP segment, and with it the lengths and checksums that cover it; `headers.end` follows. Wrong
/// checksums stay wrong. Anything but TCP stays as it is, and so does a text that would make the packet longer than IP
/// allows.
#[doc(alias = "seqadj")]
pub fn edit(frame: &mut Frame, headers: &mut Headers, edit: &Edit) {
    if headers.protocol != protocol::TCP {
        return;
    }
    // A partial checksum of something else, an inner header, does not know of these changes.
    if let ChecksumState::Partial { start, .. } = frame.meta.checksum
        && usize::from(start) != headers.transport
    {
        frame.complete_checksum();
    }
    let before = fold(sum(&frame.bytes()[headers.transport..headers.end]));
    let length = headers.end - headers.transport;
    renumber(&mut frame.bytes_mut()[headers.transport..headers.end], edit);
    if let Some(replacement) = &edit.replacement {
        replace(frame, headers, replacement);
    }
    let change = Change::new().word(length as u16, (headers.end - headers.transport) as u16);
    let after = fold(sum(&frame.bytes()[headers.transport..headers.end]));
    let is_partial = matches!(frame.meta.checksum, ChecksumState::Partial { .. });
    let segment = &mut frame.bytes_mut()[headers.transport..headers.end];
    if let Ok(mut packet) = tcp::Packet::new_checked(segment) {
        let sum = match is_partial {
            // It covers the pseudo-header only.
            true => change.apply_partial(packet.checksum()),
            false => change.word(before, after).apply(packet.checksum()),
        };
        packet.set_checksum(sum);
    }
}

fn renumber(segment: &mut [u8], edit: &Edit) {
    let Ok(packet) = tcp::Packet::new_checked(&segment[..]) else {
        return;
    };
    let (header_len, has_ack) = (packet.header_len(), packet.flags() & ACK != 0);
    let header = &mut segment[..header_len];
    if edit.sent.is_moved() {
        update(header, SEQUENCE, |number| edit.sent.sent(number));
    }
    if edit.received.is_moved() && has_ack {
        let acknowledged = |number| edit.received.acknowledged(number);
        update(header, ACKNOWLEDGEMENT, acknowledged);
        for_each_sack_edge(header, |header, at| update(header, at, acknowledged));
    }
}

/// Calls back with the place of each number in SACK options (RFC 2018).
fn for_each_sack_edge(header: &mut [u8], mut edge: impl FnMut(&mut [u8], usize)) {
    let mut at = tcp::MIN_HEADER_LEN;
    while at < header.len() {
        let len = match header[at] {
            OPTION_END => return,
            OPTION_NOP => 1,
            _ => usize::from(header.get(at + 1).copied().unwrap_or(0)),
        };
        let is_sack = header[at] == OPTION_SACK;
        if len == 0 || len == 1 && header[at] != OPTION_NOP || at + len > header.len() {
            return;
        }
        if is_sack {
            for number in (at + 2..at + len).step_by(4) {
                if number + 4 <= at + len {
                    edge(header, number);
                }
            }
        }
        at += len;
    }
}

fn update(header: &mut [u8], at: usize, new: impl Fn(u32) -> u32) {
    let mut number = [0; 4];
    number.copy_from_slice(&header[at..at + 4]);
    let number = new(u32::from_be_bytes(number));
    header[at..at + 4].copy_from_slice(&number.to_be_bytes());
}

fn replace(frame: &mut Frame, headers: &mut Headers, replacement: &Replacement) {
    let payload = headers.end - headers.payload(frame.bytes()).len();
    let (from, text) = (payload + replacement.at, &replacement.text);
    let to = from + replacement.len;
    let end = headers.end - replacement.len.min(headers.end) + text.len();
    if to > headers.end || end - headers.network > usize::from(u16::MAX) {
        return;
    }
    frame.truncate(headers.end);
    frame.splice(from..to, text);
    headers.end = end;
    let network = &mut frame.bytes_mut()[headers.network..];
    let (field, len) = match network[0] >> 4 {
        6 => (IPV6_LENGTH, end - headers.network - IPV6_HEADER_LEN),
        _ => (IPV4_LENGTH, end - headers.network),
    };
    let old = u16::from_be_bytes([network[field], network[field + 1]]);
    let new = len as u16;
    network[field..field + 2].copy_from_slice(&new.to_be_bytes());
    if field == IPV4_LENGTH {
        let sum = u16::from_be_bytes([network[IPV4_CHECKSUM], network[IPV4_CHECKSUM + 1]]);
        let sum = Change::new().word(old, new).apply(sum);
        network[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

#[inline]
fn is_after(number: u32, other: u32) -> bool {
    (other.wrapping_sub(number) as i32) < 0
}

const SEQUENCE: usize = 4;
const ACKNOWLEDGEMENT: usize = 8;
const ACK: u8 = 0x10;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_SACK: u8 = 5;
const IPV4_LENGTH: usize = 2;
const IPV4_CHECKSUM: usize = 10;
const IPV6_LENGTH: usize = 4;
const IPV6_HEADER_LEN: usize = 40;

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, TcpOptionElement};
    use proptest::prelude::*;

    use super::*;

    fn shift(changes: &[(u32, i32)]) -> Shift {
        let mut shift = Shift::default();
        for &(sequence, longer) in changes {
            shift.record(sequence, longer);
        }
        shift
    }

    #[test]
    fn numbers_move_behind_a_change_and_acknowledgements_move_back() {
        let shift = shift(&[(1000, 3)]);
        assert_eq!(shift.sent(1000), 1000, "the changed segment itself");
        assert_eq!(shift.sent(1050), 1053);
        assert_eq!(shift.sent(900), 900, "sent again");
        assert_eq!(shift.acknowledged(1053), 1050);
        assert_eq!(shift.acknowledged(1003), 1003, "not behind the change");
        assert_eq!(shift.acknowledged(900), 900);
    }

    #[test]
    fn changes_add_up_and_count_once() {
        let shift = shift(&[(1000, 3), (2000, -5), (2000, -5), (1000, 3)]);
        assert_eq!(shift.sent(1500), 1503);
        assert_eq!(shift.sent(2000), 2003);
        assert_eq!(shift.sent(2001), 1999);
        assert_eq!(shift.acknowledged(1999), 2001);
    }

    #[test]
    fn numbers_wrap_around() {
        let shift = shift(&[(u32::MAX - 10, 4)]);
        assert_eq!(shift.sent(u32::MAX - 1), 2);
        assert_eq!(shift.acknowledged(2), u32::MAX - 1);
        assert_eq!(shift.sent(5), 9);
    }

    /// A segment from the server to the client with SACK of 5000..5010 and 6000..6020.
    fn segment(payload: &[u8], is_ipv6: bool) -> Frame {
        let link = PacketBuilder::ethernet2([1; 6], [2; 6]);
        let builder = if is_ipv6 {
            link.ipv6([0x20; 16], [0x30; 16], 64)
        } else {
            link.ipv4([10, 0, 0, 1], [203, 0, 113, 5], 64)
        };
        let builder = builder
            .tcp(21, 40000, 1000, 500)
            .ack(4000)
            .options(&[
                TcpOptionElement::Noop,
                TcpOptionElement::SelectiveAcknowledgement(
                    (5000, 5010),
                    [Some((6000, 6020)), None, None],
                ),
            ])
            .unwrap();
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload).unwrap();
        Frame::from_bytes(&bytes)
    }

    fn headers(frame: &Frame, network_len: usize) -> Headers {
        let any = "0.0.0.0:0".parse().unwrap();
        Headers {
            network: 14,
            transport: 14 + network_len,
            end: frame.len(),
            protocol: protocol::TCP,
            source: any,
            destination: any,
        }
    }

    fn is_right(frame: &Frame) {
        let packet = etherparse::SlicedPacket::from_ethernet(frame.bytes()).unwrap();
        let Some(etherparse::TransportSlice::Tcp(tcp)) = packet.transport else {
            panic!("no TCP");
        };
        let header = tcp.to_header();
        let expected = match packet.net.unwrap() {
            etherparse::NetSlice::Ipv4(ip) => {
                let ip = ip.header().to_header();
                assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                header.calc_checksum_ipv4(&ip, tcp.payload())
            }
            etherparse::NetSlice::Ipv6(ip) => {
                header.calc_checksum_ipv6(&ip.header().to_header(), tcp.payload())
            }
            _ => panic!("no IP"),
        };
        assert_eq!(header.checksum, expected.unwrap());
    }

    fn parts(frame: &Frame) -> (u32, u32, Vec<TcpOptionElement>, Vec<u8>) {
        let packet = etherparse::SlicedPacket::from_ethernet(frame.bytes()).unwrap();
        let Some(etherparse::TransportSlice::Tcp(tcp)) = packet.transport else {
            panic!("no TCP");
        };
        let options = tcp.options_iterator().map(Result::unwrap).collect();
        (
            tcp.sequence_number(),
            tcp.acknowledgment_number(),
            options,
            tcp.payload().to_vec(),
        )
    }

    #[test]
    fn a_text_is_replaced_in_both_families() {
        for (is_ipv6, network_len) in [(false, 20), (true, 40)] {
            for text in ["x", "a longer one", "odd"] {
                let mut frame = segment(b"before OLD after", is_ipv6);
                let mut headers = headers(&frame, network_len);
                is_right(&frame);
                let change = Edit {
                    replacement: Some(Replacement {
                        at: 7,
                        len: 3,
                        text: text.into(),
                    }),
                    ..Edit::default()
                };
                edit(&mut frame, &mut headers, &change);
                is_right(&frame);
                assert_eq!(headers.end, frame.len());
                let expected = format!("before {text} after");
                assert_eq!(parts(&frame).3, expected.as_bytes());
            }
        }
    }

    #[test]
    fn numbers_acknowledgements_and_sack_edges_move() {
        let mut frame = segment(b"text", false);
        let mut headers = headers(&frame, 20);
        let change = Edit {
            sent: shift(&[(900, 7)]),
            received: shift(&[(5004, 2)]),
            replacement: None,
        };
        edit(&mut frame, &mut headers, &change);
        is_right(&frame);
        let (sequence, acknowledgement, options, _) = parts(&frame);
        assert_eq!((sequence, acknowledgement), (1007, 4000));
        assert_eq!(
            options[1],
            TcpOptionElement::SelectiveAcknowledgement(
                (5000, 5008),
                [Some((5998, 6018)), None, None],
            )
        );
    }

    #[test]
    fn a_partial_checksum_learns_the_new_length_alone() {
        let mut frame = segment(b"text", false);
        let mut headers = headers(&frame, 20);
        let pseudo = crate::checksum::pseudo_header(
            [10, 0, 0, 1].into(),
            [203, 0, 113, 5].into(),
            6,
            (frame.len() - 34) as u32,
        );
        frame.bytes_mut()[50..52].copy_from_slice(&fold(pseudo).to_be_bytes());
        frame.meta.checksum = ChecksumState::Partial {
            start: 34,
            offset: 16,
        };
        let change = Edit {
            sent: shift(&[(900, 7)]),
            replacement: Some(Replacement {
                at: 0,
                len: 4,
                text: b"other text".to_vec(),
            }),
            ..Edit::default()
        };
        edit(&mut frame, &mut headers, &change);
        frame.complete_checksum();
        is_right(&frame);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 20..80),
            offset in 5u8..16,
            at in 0usize..100,
            len in 0usize..100,
            text in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut frame = segment(b"", false);
            let mut whole = frame.bytes()[..34].to_vec();
            whole.extend_from_slice(&bytes);
            whole[34 + 12] = offset << 4;
            frame = Frame::from_bytes(&whole);
            let mut headers = headers(&frame, 20);
            let change = Edit {
                sent: shift(&[(900, 7)]),
                received: shift(&[(5004, 2)]),
                replacement: Some(Replacement { at, len, text }),
            };
            edit(&mut frame, &mut headers, &change);
            prop_assert_eq!(headers.end, frame.len());
        }
    }
}
