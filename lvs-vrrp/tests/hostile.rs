//! Packets that must have no effect: each is counted by its reason, and neither state, timers nor what is sent change.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

mod common;

use lvs_vrrp::wire::{
    self, Addresses, AdvertRepr, AhPacket, AhRepr, ChecksumForm, Endpoints, Format, IcvScope,
    Ipv4Packet, Ipv4Repr,
};
use lvs_vrrp::{
    Authentication, Config, Datagram, Discard, Event, Family, Heard, Priority, Reach, Received,
    State, Statistics, UnicastPeer, Version, VirtualAddress, VirtualRouter, Vrid,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 12);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 13);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const KEY: [u8; 8] = *b"k3yAH\0\0\0";

fn config(version: Version, authentication: Authentication) -> Config {
    let mut config = Config::new(Vrid::new(51).unwrap(), Family::V4, "e0");
    config.version = version;
    config.authentication = authentication;
    config.addresses = vec![VirtualAddress {
        address: VIP.into(),
        interface: "e0".into(),
    }];
    config
}

/// An advertisement of priority 200, which would move any router, and what can be spoilt about it.
#[derive(Clone)]
struct Advert {
    repr: AdvertRepr,
    destination: Ipv4Addr,
    ttl: u8,
    sequence: Option<u32>,
    key: [u8; 8],
    spi: u32,
    next_header: u8,
}

impl Advert {
    fn for_router(config: &Config) -> Self {
        let format = match (config.version, config.authentication) {
            (Version::V2, authentication) => Format::V2 {
                interval_secs: 1,
                auth_type: authentication.auth_type(),
                auth_data: match authentication {
                    Authentication::Password(password) => password,
                    _ => [0; 8],
                },
            },
            (Version::V3, _) => Format::V3 {
                max_advert_interval: 100,
            },
        };
        Self {
            repr: AdvertRepr {
                vrid: config.vrid,
                priority: 200,
                addresses: Addresses::new(Family::V4, [VIP.into()]).unwrap(),
                format,
            },
            destination: wire::GROUP_V4,
            ttl: 255,
            sequence: matches!(config.authentication, Authentication::Header(_)).then_some(100),
            key: KEY,
            spi: PEER.into(),
            next_header: wire::PROTOCOL_VRRP,
        }
    }

    fn packet(&self) -> Vec<u8> {
        let ends = Endpoints::V4 {
            source: PEER,
            destination: self.destination,
        };
        let mut message = vec![0; self.repr.buffer_len()];
        self.repr
            .emit(&mut message, ends, ChecksumForm::PseudoHeader, None);
        self.around(&message)
    }

    /// With a changed message, whose checksum is made right again.
    fn edited(&self, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let ends = Endpoints::V4 {
            source: PEER,
            destination: self.destination,
        };
        let mut message = vec![0; self.repr.buffer_len()];
        self.repr
            .emit(&mut message, ends, ChecksumForm::Message, None);
        edit(&mut message);
        message[6..8].fill(0);
        let sum: u32 = message
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        message[6..8].copy_from_slice(&(!u16::try_from(folded).unwrap()).to_be_bytes());
        self.around(&message)
    }

    fn around(&self, message: &[u8]) -> Vec<u8> {
        let ah_len = if self.sequence.is_some() { 24 } else { 0 };
        let mut packet = vec![0; 20 + ah_len];
        let repr = Ipv4Repr {
            source: PEER,
            destination: self.destination,
            protocol: match self.sequence {
                Some(_) => wire::PROTOCOL_AH,
                None => wire::PROTOCOL_VRRP,
            },
            ttl: self.ttl,
            identification: 7,
            payload_len: ah_len + message.len(),
        };
        repr.emit(&mut packet);
        if let Some(sequence) = self.sequence {
            let mut ah = [0; 24];
            let mut repr = AhRepr {
                spi: self.spi,
                sequence,
                icv: [0; 12],
            };
            repr.emit(&mut ah);
            ah[0] = self.next_header;
            repr.icv = wire::icv(&self.key, IcvScope::Multicast, &packet[..20], &ah, message);
            repr.emit(&mut ah);
            ah[0] = self.next_header;
            packet[20..44].copy_from_slice(&ah);
        }
        packet.extend(message);
        packet
    }
}

/// A router in a state, of which nothing is left to drain.
fn router(config: &Config, state: State) -> (VirtualRouter, Instant) {
    let mut router = VirtualRouter::new(config.clone()).unwrap();
    let mut now = Instant::now();
    router.handle_source(now, Some(OWN.into()));
    router.start(now);
    if state == State::Active {
        now = router.poll_timeout().unwrap();
        router.handle_timeout(now);
    }
    assert_eq!(router.state(), state);
    let mut buffer = Vec::new();
    while router.poll_transmit(&mut buffer).is_some() {}
    while router.poll_command().is_some() {}
    while router.poll_event().is_some() {}
    (router, now + Duration::from_millis(10))
}

fn hear(router: &mut VirtualRouter, now: Instant, packet: &[u8]) -> Result<Heard, Discard> {
    let received = Received {
        arrived: now,
        datagram: Datagram::V4(packet),
    };
    router.handle_packet(now, &received)
}

/// The packet has no effect but on one counter, and perhaps an event.
fn has_no_effect(
    name: &str,
    config: &Config,
    packet: &[u8],
    expected: Discard,
    counter: fn(&mut Statistics) -> Option<&mut u64>,
) {
    for state in [State::Backup, State::Active] {
        let (mut router, now) = router(config, state);
        let due = router.poll_timeout();
        let mut statistics = *router.statistics();
        let refused = hear(&mut router, now, packet);
        assert_eq!(refused, Err(expected), "{name} in {state}");
        if let Some(count) = counter(&mut statistics) {
            *count += 1;
        }
        assert_eq!(*router.statistics(), statistics, "{name} in {state}");
        assert_eq!(router.state(), state, "{name}");
        assert_eq!(router.poll_timeout(), due, "{name} in {state}");
        let mut buffer = Vec::new();
        assert_eq!(router.poll_transmit(&mut buffer), None, "{name}");
        assert_eq!(router.poll_command(), None, "{name}");
        let complains = matches!(router.poll_event(), Some(Event::Complaint(_)));
        assert_eq!(complains, expected.is_complaint(), "{name}");
        hear(&mut router, now, packet).unwrap_err();
        assert_eq!(router.poll_event(), None, "{name}: said once");
    }
}

#[test]
fn spoilt_advertisements_of_both_versions_are_counted_by_their_reason() {
    type Counter = fn(&mut Statistics) -> Option<&mut u64>;
    for version in [Version::V2, Version::V3] {
        let config = config(version, Authentication::None);
        let good = Advert::for_router(&config);
        let with = |change: &dyn Fn(&mut Advert)| {
            let mut advert = good.clone();
            change(&mut advert);
            advert.packet()
        };
        let mut wrong_sum = good.packet();
        wrong_sum[27] ^= 1;
        let mut long = good.packet();
        long.extend([0; 8]);
        let total = u16::try_from(long.len()).unwrap();
        long[2..4].copy_from_slice(&total.to_be_bytes());
        let length = good.repr.buffer_len();
        let other = match version {
            Version::V2 => 3,
            Version::V3 => 2,
        };
        let mut of_other = good.repr.clone();
        of_other.format = match version {
            Version::V2 => Format::V3 {
                max_advert_interval: 100,
            },
            Version::V3 => Format::V2 {
                interval_secs: 1,
                auth_type: 0,
                auth_data: [0; 8],
            },
        };
        let mut short_header = good.packet();
        short_header[0] = 0x44;
        let mut cut = good.packet();
        cut.truncate(30);
        let mut tiny = good.packet();
        tiny[2..4].copy_from_slice(&10_u16.to_be_bytes());
        let cases: Vec<(&str, Vec<u8>, Discard, Counter)> = vec![
            (
                "TTL",
                with(&|advert| advert.ttl = 254),
                Discard::Ttl(254),
                |s| Some(&mut s.ttl_errors),
            ),
            (
                "VRID",
                with(&|advert| advert.repr.vrid = Vrid::new(99).unwrap()),
                Discard::UnknownVrid(99),
                |_| None,
            ),
            (
                "version",
                with(&|advert| advert.repr = of_other.clone()),
                Discard::Version(other),
                |s| Some(&mut s.version_errors),
            ),
            ("checksum", wrong_sum, Discard::Checksum, |s| {
                Some(&mut s.checksum_errors)
            }),
            (
                "type",
                good.edited(|message| message[0] += 1),
                Discard::Type(2),
                |s| Some(&mut s.type_errors),
            ),
            (
                "count",
                good.edited(|message| message[3] = 2),
                Discard::Length {
                    need: length + 4,
                    have: length,
                },
                |s| Some(&mut s.length_errors),
            ),
            (
                "bytes behind",
                long,
                Discard::Length {
                    need: length,
                    have: length + 8,
                },
                |s| Some(&mut s.length_errors),
            ),
            (
                "unicast",
                with(&|advert| advert.destination = OWN),
                Discard::Destination(OWN.into()),
                |s| Some(&mut s.address_list_errors),
            ),
            ("header", short_header, Discard::TooShort, |s| {
                Some(&mut s.length_errors)
            }),
            (
                "cut",
                cut,
                Discard::Length {
                    need: 20 + length,
                    have: 30,
                },
                |s| Some(&mut s.length_errors),
            ),
            ("total length", tiny, Discard::TooShort, |s| {
                Some(&mut s.length_errors)
            }),
        ];
        for (name, packet, expected, counter) in cases {
            let name = format!("{name} of version {version}");
            if matches!(expected, Discard::TooShort | Discard::UnknownVrid(_)) {
                // Without a source there is nobody to complain of.
                let (mut router, now) = router(&config, State::Backup);
                assert_eq!(hear(&mut router, now, &packet), Err(expected), "{name}");
            } else {
                has_no_effect(&name, &config, &packet, expected, counter);
            }
        }
        let (mut router, now) = router(&config, State::Active);
        let heard = hear(&mut router, now, &good.packet());
        assert_eq!(heard, Ok(Heard::Won), "the unspoilt one does move it");
    }
}

#[test]
fn version_2_refuses_other_authentication_and_another_interval() {
    let none = config(Version::V2, Authentication::None);
    let password = config(Version::V2, Authentication::Password(*b"s3cret\0\0"));
    let edit = |config: &Config, at: usize, value: u8| {
        Advert::for_router(config).edited(|message| message[at] = value)
    };
    has_no_effect(
        "authentication type 7",
        &none,
        &edit(&none, 4, 7),
        Discard::InvalidAuthType(7),
        |s| Some(&mut s.auth_type_errors),
    );
    has_no_effect(
        "a password where there is none",
        &none,
        &Advert::for_router(&password).packet(),
        Discard::AuthTypeMismatch(1),
        |s| Some(&mut s.auth_type_mismatches),
    );
    has_no_effect(
        "no password where there is one",
        &password,
        &Advert::for_router(&none).packet(),
        Discard::AuthTypeMismatch(0),
        |s| Some(&mut s.auth_type_mismatches),
    );
    has_no_effect(
        "another password",
        &password,
        &edit(&password, 12, b'x'),
        Discard::Password,
        |s| Some(&mut s.auth_failures),
    );
    has_no_effect(
        "another interval",
        &none,
        &edit(&none, 5, 3),
        Discard::Interval(3),
        |s| Some(&mut s.interval_errors),
    );
}

#[test]
fn the_authentication_header_is_checked_before_it_is_believed() {
    let config = config(Version::V2, Authentication::Header(KEY));
    let good = Advert::for_router(&config);
    let with = |change: &dyn Fn(&mut Advert)| {
        let mut advert = good.clone();
        change(&mut advert);
        advert.packet()
    };
    let mut forged = good.packet();
    forged[40] ^= 1;
    let mut priority = good.packet();
    priority[46] ^= 1;
    for (name, packet, expected) in [
        ("a forged value", forged, Discard::Integrity),
        ("a changed priority", priority, Discard::Integrity),
        (
            "another key",
            with(&|advert| advert.key = *b"another\0"),
            Discard::Integrity,
        ),
        (
            "another index",
            with(&|advert| advert.spi = OWN.into()),
            Discard::Spi,
        ),
    ] {
        has_no_effect(name, &config, &packet, expected, |s| {
            Some(&mut s.auth_failures)
        });
    }
    has_no_effect(
        "another protocol behind it",
        &config,
        &with(&|advert| advert.next_header = 6),
        Discard::NextHeader(6),
        |_| None,
    );
    has_no_effect(
        "no header at all",
        &config,
        &Advert::for_router(&self::config(Version::V2, Authentication::None)).packet(),
        Discard::HeaderMismatch,
        |s| Some(&mut s.auth_type_mismatches),
    );
    has_no_effect(
        "a header that is not wanted",
        &self::config(Version::V2, Authentication::None),
        &good.packet(),
        Discard::HeaderMismatch,
        |s| Some(&mut s.auth_type_mismatches),
    );
}

#[test]
fn a_recorded_advertisement_is_not_heard_again() {
    let config = config(Version::V2, Authentication::Header(KEY));
    let good = Advert::for_router(&config);
    let (mut router, now) = router(&config, State::Backup);
    assert_eq!(hear(&mut router, now, &good.packet()), Ok(Heard::Followed));
    let due = router.poll_timeout();
    let later = now + Duration::from_secs(1);
    for sequence in [100, 99, 1, 0] {
        let mut old = good.clone();
        old.sequence = Some(sequence);
        assert_eq!(
            hear(&mut router, later, &old.packet()),
            Err(Discard::Replayed {
                got: sequence,
                last: 100
            })
        );
    }
    assert_eq!(router.poll_timeout(), due);
    assert_eq!(router.statistics().auth_failures, 4);
    // A resignation that was recorded does not unseat anybody either.
    let mut resignation = good.clone();
    resignation.repr.priority = 0;
    resignation.sequence = Some(50);
    hear(&mut router, later, &resignation.packet()).unwrap_err();
    assert_eq!(router.poll_timeout(), due);
    let mut next = good;
    next.sequence = Some(101);
    assert_eq!(
        hear(&mut router, later, &next.packet()),
        Ok(Heard::Followed)
    );
}

#[test]
fn version_3_refuses_an_interval_of_zero_and_an_empty_list() {
    let config = config(Version::V3, Authentication::None);
    let mut advert = Advert::for_router(&config);
    advert.repr.format = Format::V3 {
        max_advert_interval: 0,
    };
    has_no_effect(
        "no interval",
        &config,
        &advert.packet(),
        Discard::ZeroInterval,
        |s| Some(&mut s.interval_errors),
    );
    let mut advert = Advert::for_router(&config);
    advert.repr.addresses = Addresses::new(Family::V4, []).unwrap();
    has_no_effect(
        "no address",
        &config,
        &advert.packet(),
        Discard::NoAddress,
        |s| Some(&mut s.address_list_errors),
    );
}

#[test]
fn unicast_strangers_and_travellers_are_refused() {
    let mut config = config(Version::V3, Authentication::None);
    config.reach = Reach::Unicast {
        peers: vec![UnicastPeer {
            address: PEER.into(),
            ttl: (250, 255),
        }],
        ttl: None,
        check_source: false,
    };
    let mut advert = Advert::for_router(&config);
    advert.destination = OWN;
    advert.ttl = 249;
    for state in [State::Backup, State::Active] {
        let (mut router, now) = router(&config, state);
        assert_eq!(
            hear(&mut router, now, &advert.packet()),
            Err(Discard::PeerTtl(249))
        );
        assert_eq!((router.state(), router.statistics().ttl_errors), (state, 1));
    }
    let stranger: IpAddr = Ipv4Addr::new(192, 0, 2, 77).into();
    config.reach = Reach::Unicast {
        peers: vec![stranger.into()],
        ttl: None,
        check_source: true,
    };
    let (mut router, now) = router(&config, State::Active);
    assert_eq!(
        hear(&mut router, now, &advert.packet()),
        Err(Discard::NotAPeer)
    );
    assert_eq!(
        (router.state(), router.statistics().peer_errors),
        (State::Active, 1)
    );
}

#[test]
fn ipv6_refuses_what_was_forwarded() {
    let mut config = Config::new(Vrid::new(51).unwrap(), Family::V6, "e0");
    config.priority = Priority::new(100).unwrap();
    let vip: IpAddr = "fe80::100".parse().unwrap();
    config.addresses = vec![VirtualAddress {
        address: vip,
        interface: "e0".into(),
    }];
    let mut router = VirtualRouter::new(config).unwrap();
    let now = Instant::now();
    router.handle_source(now, Some("fe80::12".parse().unwrap()));
    router.start(now);
    let (source, destination): (Ipv6Addr, Ipv6Addr) = ("fe80::13".parse().unwrap(), wire::GROUP_V6);
    let repr = AdvertRepr {
        vrid: Vrid::new(51).unwrap(),
        priority: 200,
        addresses: Addresses::new(Family::V6, [vip]).unwrap(),
        format: Format::V3 {
            max_advert_interval: 100,
        },
    };
    let mut payload = vec![0; repr.buffer_len()];
    let ends = Endpoints::V6 {
        source,
        destination,
    };
    repr.emit(&mut payload, ends, ChecksumForm::PseudoHeader, None);
    let mut hear = |hop_limit, payload: &[u8]| {
        let received = Received {
            arrived: now,
            datagram: Datagram::V6 {
                source,
                destination,
                hop_limit,
                payload,
            },
        };
        router.handle_packet(now, &received)
    };
    assert_eq!(hear(Some(64), &payload), Err(Discard::Ttl(64)));
    assert_eq!(hear(Some(255), &payload), Ok(Heard::Followed));
    assert_eq!(hear(None, &payload), Ok(Heard::Followed), "not told");
    payload[9] ^= 1;
    assert_eq!(hear(Some(255), &payload), Err(Discard::Checksum));
}

#[test]
fn every_length_of_every_kind_is_refused_but_the_whole() {
    for (version, authentication) in [
        (Version::V2, Authentication::None),
        (Version::V2, Authentication::Password(*b"s3cret\0\0")),
        (Version::V2, Authentication::Header(KEY)),
        (Version::V3, Authentication::None),
    ] {
        let config = config(version, authentication);
        let packet = Advert::for_router(&config).packet();
        let (mut router, now) = router(&config, State::Active);
        for end in 0..packet.len() {
            assert!(hear(&mut router, now, &packet[..end]).is_err(), "{end}");
            // The same with a total length that agrees.
            let mut agreeing = packet[..end].to_vec();
            if end >= 4 {
                let length = u16::try_from(end).unwrap();
                agreeing[2..4].copy_from_slice(&length.to_be_bytes());
            }
            assert!(hear(&mut router, now, &agreeing).is_err(), "{end}");
        }
        assert_eq!(router.state(), State::Active);
        let mut padded = packet;
        padded.extend([0; 6]);
        let heard = hear(&mut router, now, &padded);
        assert_eq!(heard, Ok(Heard::Won), "padding of the link is none of ours");
    }
}

#[test]
fn complaints_are_bounded_and_can_be_looked_up() {
    let config = config(Version::V2, Authentication::None);
    let (mut router, now) = router(&config, State::Backup);
    let good = Advert::for_router(&config).packet();
    let mut events = 0;
    for last in 0..=255 {
        let mut packet = good.clone();
        packet[8] = 64;
        packet[15] = last;
        assert_eq!(hear(&mut router, now, &packet), Err(Discard::Ttl(64)));
        while router.poll_event().is_some() {
            events += 1;
        }
    }
    assert_eq!((router.complaints().count(), events), (16, 16));
    let first = router.complaints().next().unwrap();
    assert_eq!(
        first.to_string(),
        "an advertisement of 192.0.2.0 is refused: a TTL of 64 instead of 255"
    );
    assert_eq!(router.statistics().ttl_errors, 256);
}

/// The frames that the recorded program counted, and its table.
#[test]
fn counters_are_keepalived_s() {
    let Some(folder) = common::corpus() else {
        return;
    };
    let frames = common::pcap(&folder.join("v2-stats.pcap"));
    let rows = common::table(&folder.join("frames.tsv"));
    let config = config(Version::V2, Authentication::None);
    let (mut router, now) = router(&config, State::Active);
    for row in rows
        .iter()
        .filter(|row| row[0] == "v2-stats.pcap" && row[3] == "c")
    {
        let frame = &frames[row[1].parse::<usize>().unwrap() - 1];
        let ip = Ipv4Packet::new(&frame[14..]).unwrap();
        let packet = &ip.as_bytes()[..ip.total_len()];
        // What moves this router and did not move the recorded one is not heard as Active by it.
        let _ = hear(&mut router, now, packet);
    }
    let table = std::fs::read_to_string(folder.join("statistics.txt")).unwrap();
    let ours = router.statistics().to_string();
    let differing: Vec<(&str, &str)> = table
        .lines()
        .skip(1)
        .zip(ours.lines())
        .filter(|(theirs, ours)| theirs != ours)
        .collect();
    // Another number of addresses is no reason to refuse any more, being Active ended with it, and intervals are counted. The
    // recorded one had been Active for a while.
    assert_eq!(
        differing,
        [
            ("    Received: 3", "    Received: 4"),
            ("    Sent: 13", "    Sent: 4"),
            ("  Released master: 0", "  Released master: 1"),
            (
                "    Advertisement Interval: 0",
                "    Advertisement Interval: 1"
            ),
        ]
    );
    assert_eq!(table.lines().count(), ours.lines().count() + 1);
}

/// A view of an authentication header is made over enough bytes only.
#[test]
fn views_check_their_length() {
    assert!(AhPacket::new(&[0; 23]).is_err());
    assert!(Ipv4Packet::new(&[0x45; 19]).is_err());
    assert!(Ipv4Packet::new(&[0x4f; 59]).is_err());
    assert!(Ipv4Packet::new(&[0x65; 40]).is_err());
}
