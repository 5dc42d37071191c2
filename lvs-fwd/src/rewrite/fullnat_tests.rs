use etherparse::{PacketBuilder, PacketHeaders, TransportHeader};
use proptest::prelude::*;

use super::*;
use crate::frame::{Gso, GsoKind};
use crate::rewrite::{dr, nat};

const CLIENT: &str = "203.0.113.5:50000";

/// The frame of these bytes of an IP packet in hexadecimal.
fn frame(hex: &str) -> Frame {
    let mut bytes = vec![0; 12];
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let packet: Vec<u8> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    bytes.extend(if packet[0] >> 4 == 4 {
        [8, 0]
    } else {
        [0x86, 0xdd]
    });
    bytes.extend(packet);
    Frame::from_bytes(&bytes)
}

fn segment(ipv6: bool, options: &[u8], payload: &[u8], flags: u8) -> Frame {
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6]);
    let builder = match ipv6 {
        false => builder.ipv4([203, 0, 113, 5], [192, 0, 2, 10], 63),
        true => builder.ipv6([0x20; 16], [0x21; 16], 63),
    };
    let mut builder = builder.tcp(50000, 80, 1000, 2000);
    if flags & SYN != 0 {
        builder = builder.syn();
    }
    if flags & ACK != 0 {
        builder = builder.ack(5_000_000);
    }
    if flags & RST != 0 {
        builder = builder.rst();
    }
    let mut bytes = Vec::new();
    builder
        .options_raw(options)
        .unwrap()
        .write(&mut bytes, payload)
        .unwrap();
    Frame::from_bytes(&bytes)
}

/// Options and payload, after all sums and lengths were found right.
fn judged(frame: &Frame) -> (Vec<u8>, Vec<u8>) {
    let read = PacketHeaders::from_ethernet_slice(frame.bytes()).unwrap();
    let payload = read.payload.slice();
    let Some(TransportHeader::Tcp(tcp)) = &read.transport else {
        panic!("no TCP");
    };
    let sum = match read.net.as_ref().unwrap() {
        etherparse::NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(usize::from(ip.total_len), frame.len() - 14);
            tcp.calc_checksum_ipv4(ip, payload).unwrap()
        }
        etherparse::NetHeaders::Ipv6(ip, _) => {
            assert_eq!(usize::from(ip.payload_length), frame.len() - 54);
            tcp.calc_checksum_ipv6(ip, payload).unwrap()
        }
        _ => panic!("no IP"),
    };
    let same = |sum: u16| if sum == 0xffff { 0 } else { sum };
    assert_eq!(same(tcp.checksum), same(sum));
    (tcp.options.as_slice().to_vec(), payload.to_vec())
}

fn insert(frame: &mut Frame, client: &str, mtu: usize) -> bool {
    let mut headers = Headers::parse(frame.bytes()).unwrap();
    let done = insert_client(frame, &mut headers, client.parse().unwrap(), mtu);
    assert_eq!(Headers::parse(frame.bytes()).unwrap(), headers);
    done
}

#[test]
fn the_acknowledgement_of_the_handshake_carries_the_client() {
    let mut frame = frame(
        "45 00 00 28 12 34 40 00 40 06 2a 8c cb 00 71 05 c0 00 02 0a c3 50 00 50 11 22 33 45 99 88 77 67
         50 10 fa f0 9d db 00 00",
    );
    let mut headers = Headers::parse(frame.bytes()).unwrap();
    let client = headers.source;
    dr::decrement_ttl(&mut frame, &headers);
    to_server(&mut frame, &headers, 0x4444_4444);
    assert!(insert_client(&mut frame, &mut headers, client, 1500));
    let (local, server) = ("10.0.0.200:33001", "10.0.0.11:8080");
    nat::set_source(&mut frame, &mut headers, local.parse().unwrap());
    nat::set_destination(&mut frame, &mut headers, server.parse().unwrap());
    let expected = self::frame(
        "45 00 00 30 12 34 40 00 3f 06 14 c2 0a 00 00 c8 0a 00 00 0b 80 e9 1f 90 55 66 77 89 99 88 77 67
         70 10 fa f0 04 50 00 00 fe 08 c3 50 cb 00 71 05",
    );
    assert_eq!(frame.bytes()[14..], expected.bytes()[14..]);
}

#[test]
fn both_families_of_clients_have_their_form() {
    let mut v6 = segment(true, &[], b"hello", ACK);
    assert!(insert(&mut v6, "[2001:db8::9]:50000", 1500));
    let (options, payload) = judged(&v6);
    assert_eq!(
        options,
        [
            0xfe, 0x14, 0xc3, 0x50, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9
        ]
    );
    assert_eq!(payload, b"hello");
    let mut v4 = segment(false, &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8], b"hello", ACK);
    assert!(insert(&mut v4, CLIENT, 1500));
    let (options, _) = judged(&v4);
    assert_eq!(options[..8], [0xfe, 8, 0xc3, 0x50, 203, 0, 113, 5]);
    assert_eq!(options[8..], [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn options_make_room_if_the_server_can_do_without() {
    // 40 bytes of options: timestamps and three SACK blocks.
    let mut options = vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 5, 26];
    options.extend([9; 24]);
    let mut full = segment(false, &options, b"hello", ACK);
    assert!(insert(&mut full, CLIENT, 1500));
    let (after, payload) = judged(&full);
    assert_eq!(after[..8], [0xfe, 8, 0xc3, 0x50, 203, 0, 113, 5]);
    assert_eq!(after[8..], [8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0]);
    assert_eq!(payload, b"hello");
    // A packet of the whole MTU may not grow: its options have to make up for it all, or nothing changes.
    let full = vec![7; 1500 - 40];
    let mut frame = segment(false, &[], &full, ACK);
    let before = frame.bytes().to_vec();
    assert!(!insert(&mut frame, CLIENT, 1500));
    assert_eq!(frame.bytes(), before);
    let mut frame = segment(false, &options, &full[40..], ACK);
    assert!(insert(&mut frame, CLIENT, 1500));
    assert_eq!(judged(&frame).1, full[40..]);
}

#[test]
fn super_packets_are_cut_smaller() {
    let mut frame = segment(false, &[], &[7; 20_000], ACK);
    frame.meta.gso = Some(Gso {
        kind: GsoKind::Tcp4,
        ecn: false,
        size: 1460,
        header_len: 54,
    });
    assert!(insert(&mut frame, CLIENT, 1500));
    let gso = frame.meta.gso.unwrap();
    assert_eq!((gso.size, gso.header_len), (1452, 62));
    let mut longest = segment(false, &[], &[7; 65_535 - 44], ACK);
    longest.meta.gso = Some(Gso { size: 1000, ..gso });
    assert!(
        !insert(&mut longest, CLIENT, 1500),
        "IP has no longer packets"
    );
}

#[test]
fn partial_sums_stay_partial() {
    let finish = |frame: &Frame| {
        let mut frame = frame.clone();
        frame.complete_checksum();
        frame
    };
    for ipv6 in [false, true] {
        let whole = segment(ipv6, &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8], b"hello", ACK);
        let headers = Headers::parse(whole.bytes()).unwrap();
        let mut frame = whole.clone();
        let pseudo = crate::checksum::pseudo_header(
            headers.source.ip(),
            headers.destination.ip(),
            6,
            (headers.end - headers.transport) as u32,
        );
        let at = headers.transport + tcp::CHECKSUM_OFFSET;
        frame.bytes_mut()[at..at + 2].copy_from_slice(&fold(pseudo).to_be_bytes());
        frame.meta.checksum = ChecksumState::Partial {
            start: headers.transport as u16,
            offset: tcp::CHECKSUM_OFFSET as u16,
        };
        judged(&finish(&frame));
        to_server(&mut frame, &headers, 77);
        judged(&finish(&frame));
        assert!(insert(&mut frame, "[2001:db8::9]:50000", 1500));
        judged(&finish(&frame));
        let headers = Headers::parse(frame.bytes()).unwrap();
        to_client(&mut frame, &headers, 77, 8);
        judged(&finish(&frame));
    }
}

#[test]
fn what_opens_a_connection_has_no_timestamps_and_nothing_pretends() {
    let options = [
        2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 254, 8, 0, 1, 9, 9, 9, 9, 253, 4, 0, 0,
    ];
    let mut syn = segment(false, &options, b"", SYN);
    let headers = Headers::parse(syn.bytes()).unwrap();
    to_server(&mut syn, &headers, u32::MAX);
    let (after, _) = judged(&syn);
    assert_eq!(after[..6], options[..6]);
    assert_eq!(after[6..], [1; 22]);
    assert_eq!(Segment::parse(&syn, &headers).unwrap().sequence, 999);
    let mut later = segment(false, &options, b"", ACK);
    to_server(&mut later, &headers, 1);
    let (after, _) = judged(&later);
    assert_eq!(after[..16], options[..16], "timestamps of others stay");
    assert_eq!(after[16..], [1; 12]);
}

#[test]
fn answers_acknowledge_what_the_client_has_sent() {
    let mut options = vec![2, 4, 5, 0xb4, 1, 1, 5, 18];
    for edge in [10u32, 20, 30, 40] {
        options.extend((edge + 7).to_be_bytes());
    }
    let mut frame = segment(false, &options, b"", SYN | ACK);
    let headers = Headers::parse(frame.bytes()).unwrap();
    to_client(&mut frame, &headers, 7, 8);
    let (after, _) = judged(&frame);
    assert_eq!(after[..4], [2, 4, 5, 0xac]);
    let edges: Vec<u32> = after[8..24].chunks(4).map(|edge| word(edge, 0)).collect();
    assert_eq!(edges, [10, 20, 30, 40]);
    let read = Segment::parse(&frame, &headers).unwrap();
    assert_eq!(read.acknowledgement, Some(5_000_000 - 7));
    assert!(read.accepts() && !read.opens() && !read.resets());
    let mut tiny = segment(false, &[2, 4, 2, 0], b"", SYN | ACK);
    let headers = Headers::parse(tiny.bytes()).unwrap();
    to_client(&mut tiny, &headers, 0, 20);
    assert_eq!(judged(&tiny).0, [2, 4, 2, 0], "no smaller than it need be");
}

#[test]
fn an_identification_is_replaced() {
    let mut frame = segment(false, &[], b"hello", ACK);
    let headers = Headers::parse(frame.bytes()).unwrap();
    set_ident(&mut frame, &headers, 0x1234);
    judged(&frame);
    assert_eq!(frame.bytes()[18..20], [0x12, 0x34]);
}

proptest! {
    #[test]
    fn any_options_leave_a_sound_segment(
        options in prop::collection::vec(prop_oneof![Just(1u8), Just(5), Just(8), Just(10), Just(254), any::<u8>()], 0..41),
        payload in prop::collection::vec(any::<u8>(), 0..100),
        flags in prop_oneof![Just(SYN), Just(ACK), Just(SYN | ACK), Just(RST)],
        (ipv6, delta, mtu) in (any::<bool>(), any::<u32>(), 60usize..200),
    ) {
        let mut frame = segment(ipv6, &options, &payload, flags);
        let headers = Headers::parse(frame.bytes()).unwrap();
        to_server(&mut frame, &headers, delta);
        prop_assert_eq!(&judged(&frame).1, &payload);
        let length = headers.ip_len();
        if insert(&mut frame, CLIENT, mtu) {
            prop_assert_eq!(judged(&frame).0[..8].to_vec(), vec![0xfe, 8, 0xc3, 0x50, 203, 0, 113, 5]);
            prop_assert!(frame.len() - 14 <= mtu.max(length));
        }
        let headers = Headers::parse(frame.bytes()).unwrap();
        to_client(&mut frame, &headers, delta, 8);
        prop_assert_eq!(&judged(&frame).1, &payload);
    }
}
