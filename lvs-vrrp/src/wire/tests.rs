use super::*;
use crate::config::Version;
use proptest::prelude::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

fn to_group() -> Endpoints {
    Endpoints::V4 {
        source: Ipv4Addr::new(192, 0, 2, 11),
        destination: GROUP_V4,
    }
}

fn advert(format: Format) -> AdvertRepr {
    AdvertRepr {
        vrid: Vrid::new(51).unwrap(),
        priority: 150,
        addresses: Addresses::new(Family::V4, ["192.0.2.100".parse().unwrap()]).unwrap(),
        format,
    }
}

fn v2(auth_type: u8, auth_data: [u8; 8]) -> Format {
    Format::V2 {
        interval_secs: 1,
        auth_type,
        auth_data,
    }
}

fn emit(repr: &AdvertRepr, ends: Endpoints) -> Vec<u8> {
    let mut buffer = vec![0xaa; repr.buffer_len()];
    repr.emit(&mut buffer, ends, ChecksumForm::PseudoHeader, None);
    buffer
}

#[test]
fn messages_have_the_bytes_that_keepalived_sends() {
    let cases = [
        (
            v2(0, [0; 8]),
            "21 33 96 01 00 01 86 65 c0 00 02 64 00 00 00 00 00 00 00 00",
        ),
        (
            v2(1, *b"s3cret\0\0"),
            "21 33 96 01 01 01 49 4b c0 00 02 64 73 33 63 72 65 74 00 00",
        ),
        (
            v2(2, [0; 8]),
            "21 33 96 01 02 01 84 65 c0 00 02 64 00 00 00 00 00 00 00 00",
        ),
        (
            Format::V3 {
                max_advert_interval: 100,
            },
            "31 33 96 01 00 64 d3 67 c0 00 02 64",
        ),
    ];
    for (format, bytes) in cases {
        assert_eq!(emit(&advert(format), to_group()), hex(bytes));
    }
    let v6 = AdvertRepr {
        addresses: Addresses::new(
            Family::V6,
            [
                "fe80::100".parse().unwrap(),
                "2001:db8::100".parse().unwrap(),
            ],
        )
        .unwrap(),
        ..advert(Format::V3 {
            max_advert_interval: 100,
        })
    };
    let ends = Endpoints::V6 {
        source: "fe80::ff:fe00:11".parse().unwrap(),
        destination: GROUP_V6,
    };
    assert_eq!(
        emit(&v6, ends)[..8],
        hex("31 33 96 02 00 64 0c ed")[..],
        "IPv6"
    );
}

#[test]
fn the_authentication_header_signs_what_keepalived_signs() {
    let frame = hex("45 c0 00 40 00 01 00 00 ff 33 18 ac c0 00 02 0b e0 00 00 12
         70 04 00 00 c0 00 02 0b 00 00 00 01 28 a8 7d 2e ea 0d 8c 24 db 28 35 60
         21 33 96 01 02 01 84 65 c0 00 02 64 00 00 00 00 00 00 00 00");
    let ip = Ipv4Packet::new(&frame).unwrap();
    let ah = AhPacket::new(ip.payload()).unwrap();
    let key = *b"k3yAH\0\0\0";
    let signed = icv(
        &key,
        IcvScope::Multicast,
        ip.header(),
        ip.payload(),
        ah.payload(),
    );
    assert_eq!(signed, ah.icv());
    let repr = AhRepr::parse(&ah).unwrap();
    assert_eq!((repr.spi, repr.sequence), (0xc000_020b, 1));
    let mut again = [0xaa; AhPacket::LEN];
    repr.emit(&mut again);
    assert_eq!(again, ip.payload()[..AhPacket::LEN]);
    let mut header = [0xaa; 20];
    Ipv4Repr {
        source: ip.source(),
        destination: ip.destination(),
        protocol: ip.protocol(),
        ttl: ip.ttl(),
        identification: ip.identification(),
        payload_len: ip.payload().len(),
    }
    .emit(&mut header);
    assert_eq!(header, frame[..20]);
    let unicast = icv(
        &key,
        IcvScope::Unicast,
        ip.header(),
        ip.payload(),
        ah.payload(),
    );
    assert_ne!(unicast, signed, "the TTL counts as zero");
}

#[test]
fn gratuitous_arp_has_the_bytes_that_keepalived_sends() {
    let arp = GratuitousArp {
        mac: MacAddress([2, 0, 0, 0, 0, 0x11]),
        address: Ipv4Addr::new(192, 0, 2, 100),
    };
    let bytes = hex(
        "ff ff ff ff ff ff 02 00 00 00 00 11 08 06 00 01 08 00 06 04 00 01 02 00 00 00 00 11 \
         c0 00 02 64 ff ff ff ff ff ff c0 00 02 64",
    );
    assert_eq!(arp.frame()[..], bytes[..]);
    assert_eq!(GratuitousArp::parse(&bytes), Some(arp));
    let mut reply = bytes;
    reply[21] = 2;
    assert_eq!(GratuitousArp::parse(&reply), None);
}

#[test]
fn a_neighbour_advertisement_is_what_a_strict_parser_expects() {
    let na = UnsolicitedNa {
        mac: MacAddress([2, 0, 0, 0, 0, 0x11]),
        address: "2001:db8::100".parse().unwrap(),
        router: false,
    };
    let frame = na.frame();
    assert_eq!(UnsolicitedNa::parse(&frame), Some(na));
    let parsed = etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
    let etherparse::NetHeaders::Ipv6(ip, _) = parsed.net.unwrap() else {
        panic!("IPv6");
    };
    assert_eq!((ip.hop_limit, Ipv6Addr::from(ip.source)), (255, na.address));
    let Some(etherparse::TransportHeader::Icmpv6(icmp)) = parsed.transport else {
        panic!("ICMPv6");
    };
    let computed = icmp
        .icmp_type
        .calc_checksum(ip.source, ip.destination, parsed.payload.slice())
        .unwrap();
    assert_eq!(icmp.checksum, computed);
    assert_eq!(frame[58], 0x20, "override, not solicited, no router");
}

#[test]
fn groups_and_virtual_routers_have_their_mac_addresses() {
    let of = |group: IpAddr| MacAddress::of_group(group).map(|mac| mac.to_string());
    assert_eq!(of(GROUP_V4.into()).unwrap(), "01:00:5e:00:00:12");
    assert_eq!(of(GROUP_V6.into()).unwrap(), "33:33:00:00:00:12");
    assert_eq!(
        of("239.129.2.3".parse().unwrap()).unwrap(),
        "01:00:5e:01:02:03"
    );
    assert_eq!(of("192.0.2.1".parse().unwrap()), None);
    let vrid = Vrid::new(255).unwrap();
    let mac = |family| MacAddress::of_virtual_router(family, vrid).to_string();
    assert_eq!(mac(Family::V4), "00:00:5e:00:01:ff");
    assert_eq!(mac(Family::V6), "00:00:5e:00:02:ff");
}

#[test]
fn a_checksum_is_right_in_the_form_it_was_made_in() {
    let repr = advert(Format::V3 {
        max_advert_interval: 100,
    });
    let unicast = Endpoints::V4 {
        source: Ipv4Addr::new(192, 0, 2, 11),
        destination: Ipv4Addr::new(192, 0, 2, 12),
    };
    for form in [
        ChecksumForm::Message,
        ChecksumForm::PseudoHeader,
        ChecksumForm::GroupPseudoHeader,
    ] {
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(&mut bytes, unicast, form, Some(GROUP_V4));
        let packet = AdvertPacket::new(&bytes).unwrap();
        assert_eq!(packet.checksum_form(unicast, Some(GROUP_V4)), Some(form));
        if form == ChecksumForm::GroupPseudoHeader {
            assert_eq!(packet.checksum_form(unicast, None), None);
        }
    }
}

#[test]
fn addresses_are_of_one_family_and_at_most_255() {
    let v4 = |n: u8| IpAddr::from([192, 0, 2, n]);
    assert!(Addresses::new(Family::V4, (0..255).map(v4)).is_some());
    assert!(Addresses::new(Family::V4, (0..=255).map(v4)).is_none());
    assert!(Addresses::new(Family::V6, [v4(1)]).is_none());
    let full = AdvertRepr {
        addresses: Addresses::new(Family::V4, (0..16).map(v4)).unwrap(),
        ..advert(v2(0, [0; 8]))
    };
    assert_eq!(full.buffer_len(), 80);
}

#[test]
fn a_checksum_of_an_odd_number_of_bytes_pads_with_zero() {
    use super::checksum::Sum;
    assert_eq!(
        Sum::default().bytes(&[1, 2, 3]).finish(),
        Sum::default().bytes(&[1, 2, 3, 0]).finish()
    );
}

fn any_advert() -> impl Strategy<Value = (AdvertRepr, Endpoints)> {
    let v4 = (
        prop::collection::vec(any::<[u8; 4]>(), 0..=255),
        any::<[u8; 4]>(),
        any::<[u8; 4]>(),
    )
        .prop_map(|(list, source, destination)| {
            let ends = Endpoints::V4 {
                source: source.into(),
                destination: destination.into(),
            };
            (
                Addresses::new(Family::V4, list.into_iter().map(IpAddr::from)).unwrap(),
                ends,
            )
        });
    let v6 = (
        prop::collection::vec(any::<[u8; 16]>(), 0..=255),
        any::<[u8; 16]>(),
        any::<[u8; 16]>(),
    )
        .prop_map(|(list, source, destination)| {
            let ends = Endpoints::V6 {
                source: source.into(),
                destination: destination.into(),
            };
            (
                Addresses::new(Family::V6, list.into_iter().map(IpAddr::from)).unwrap(),
                ends,
            )
        });
    let format = prop_oneof![
        (any::<u8>(), any::<u8>(), any::<[u8; 8]>()).prop_map(
            |(interval_secs, auth_type, auth_data)| {
                Format::V2 {
                    interval_secs,
                    auth_type,
                    auth_data,
                }
            }
        ),
        (0..4096_u16).prop_map(|max_advert_interval| Format::V3 {
            max_advert_interval
        }),
    ];
    (prop_oneof![v4, v6], format, 1..=255_u8, any::<u8>()).prop_map(
        |((addresses, ends), format, vrid, priority)| {
            let format = match format {
                // Not on the wire, so it cannot come back.
                Format::V2 {
                    interval_secs,
                    auth_type,
                    ..
                } if ends.family() == Family::V6 => Format::V2 {
                    interval_secs,
                    auth_type,
                    auth_data: [0; 8],
                },
                format => format,
            };
            let repr = AdvertRepr {
                vrid: Vrid::new(vrid).unwrap(),
                priority,
                addresses,
                format,
            };
            (repr, ends)
        },
    )
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed((repr, ends) in any_advert()) {
        let bytes = emit(&repr, ends);
        let packet = AdvertPacket::new(&bytes).unwrap();
        prop_assert_eq!(packet.expected_len(ends.family()), bytes.len());
        let (parsed, form) = AdvertRepr::parse(&packet, ends, None).unwrap();
        prop_assert_eq!(&parsed, &repr);
        let plain = ends.family() == Family::V4 && repr.version() == Version::V2;
        let expected = if plain { ChecksumForm::Message } else { ChecksumForm::PseudoHeader };
        // By chance a sum can be right in the other form too.
        prop_assert!(form == expected || packet.checksum() == 0 || packet.checksum() == 0xffff);
    }

    #[test]
    fn no_length_but_the_whole_is_an_advertisement((repr, ends) in any_advert(), extra in 1..40_usize) {
        let bytes = emit(&repr, ends);
        for end in 0..bytes.len() {
            let shorter = AdvertPacket::new(&bytes[..end]);
            let refused = shorter.map_or(true, |packet| {
                let _ = packet.trimmed(ends.family()).checksum_form(ends, Some(GROUP_V4));
                packet.addresses(ends.family()).count();
                let _ = packet.auth_data(ends.family());
                AdvertRepr::parse(&packet, ends, None).is_err()
            });
            prop_assert!(refused, "{end} of {}", bytes.len());
        }
        let mut longer = bytes.clone();
        longer.resize(bytes.len() + extra, 0);
        let packet = AdvertPacket::new(&longer).unwrap();
        prop_assert!(AdvertRepr::parse(&packet, ends, None).is_err());
        prop_assert!(AdvertRepr::parse(&packet.trimmed(ends.family()), ends, None).is_ok());
    }

    #[test]
    fn a_flipped_bit_is_no_advertisement((repr, ends) in any_advert(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bytes = emit(&repr, ends);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let packet = AdvertPacket::new(&bytes).unwrap();
        let parsed = AdvertRepr::parse(&packet, ends, None);
        // One flipped bit is always seen by the sum of the same form; another version's form may fit by chance.
        let same_version = bytes[0] >> 4 == repr.version().number();
        prop_assert!(parsed.is_err() || !same_version || parsed.unwrap().1 == ChecksumForm::Message);
    }

    #[test]
    fn views_of_any_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(packet) = Ipv4Packet::new(&bytes) {
            let _ = (packet.total_len(), packet.header(), packet.payload(), packet.source());
        }
        if let Ok(packet) = AhPacket::new(&bytes) {
            let _ = AhRepr::parse(&packet);
            let _ = packet.payload();
        }
        if let Ok(packet) = AdvertPacket::new(&bytes) {
            for family in [Family::V4, Family::V6] {
                packet.addresses(family).count();
                let _ = packet.auth_data(family);
                let _ = packet.trimmed(family).as_bytes();
            }
        }
        let _ = (GratuitousArp::parse(&bytes), UnsolicitedNa::parse(&bytes));
    }
}
