//! Frames of keepalived: each is read as its table says, and what its nodes sent is written again byte for byte.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

mod common;

use lvs_vrrp::wire::{
    self, AdvertPacket, AdvertRepr, AhPacket, AhRepr, ChecksumForm, Endpoints, GratuitousArp,
    IcvScope, Ipv4Packet, Ipv4Repr, MacAddress, UnsolicitedNa,
};
use lvs_vrrp::{Authentication, Family};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// A row of `frames.tsv`.
struct Row<'a>(&'a [String]);

impl Row<'_> {
    fn file(&self) -> &str {
        &self.0[0]
    }
    fn number(&self) -> usize {
        self.0[1].parse().unwrap()
    }
    fn sender(&self) -> &str {
        &self.0[3]
    }
    fn kind(&self) -> &str {
        &self.0[4]
    }
    fn column(&self, at: usize) -> &str {
        &self.0[at]
    }
    fn name(&self) -> String {
        format!("{} frame {}", self.file(), self.number())
    }
}

#[test]
fn every_frame_of_keepalived_is_read_and_written_exactly() {
    let Some(folder) = common::corpus() else {
        return;
    };
    let rows = common::table(&folder.join("frames.tsv"));
    let mut captures = BTreeMap::new();
    let mut counts = BTreeMap::<&str, usize>::new();
    for row in &rows {
        let row = Row(row);
        let frames = captures
            .entry(row.file().to_owned())
            .or_insert_with(|| common::pcap(&folder.join(row.file())));
        let frame = &frames[row.number() - 1];
        match row.kind() {
            "advert" => advert(&row, frame),
            "garp" => {
                let arp = GratuitousArp::parse(frame).unwrap_or_else(|| panic!("{}", row.name()));
                assert_eq!(arp.mac.to_string(), row.column(5));
                assert_eq!(arp.address.to_string(), row.column(7));
                assert_eq!(arp.frame()[..], frame[..], "{}", row.name());
            }
            "una" => {
                let na = UnsolicitedNa::parse(frame).unwrap_or_else(|| panic!("{}", row.name()));
                let router = if na.router { "R1" } else { "R0" };
                assert_eq!(row.column(21), format!("{router} S0 O1 tlla {}", na.mac));
                assert_eq!(na.address.to_string(), row.column(7));
                assert_eq!(na.frame()[..], frame[..], "{}", row.name());
            }
            other => {
                assert!(matches!(other, "tcp" | "arp-request" | "arp-reply"));
                assert_eq!(GratuitousArp::parse(frame), None, "{}", row.name());
                assert_eq!(UnsolicitedNa::parse(frame), None, "{}", row.name());
            }
        }
        *counts.entry(&rows[0][4]).or_default() += 1;
    }
    let frames: usize = captures.values().map(Vec::len).sum();
    assert_eq!(frames, rows.len(), "no frame without a row");
    println!("{frames} frames of {} captures", captures.len());
}

/// An advertisement with what carries it.
fn advert(row: &Row<'_>, frame: &[u8]) {
    let mac = |bytes: &[u8]| MacAddress(bytes.try_into().unwrap()).to_string();
    assert_eq!(mac(&frame[..6]), row.column(6));
    assert_eq!(mac(&frame[6..12]), row.column(5));
    let (ends, message) = match frame[12..14] {
        [0x08, 0x00] => over_ipv4(row, &frame[14..]),
        [0x86, 0xdd] => over_ipv6(row, &frame[14..]),
        _ => panic!("{}", row.name()),
    };
    assert_eq!(ends.source().to_string(), row.column(7));
    assert_eq!(ends.destination().to_string(), row.column(8));
    if let Some(group) = MacAddress::of_group(ends.destination()) {
        assert_eq!(group.to_string(), row.column(6));
    }
    let family = ends.family();
    let packet = AdvertPacket::new(message).unwrap();
    let interval = match packet.version() {
        2 => format!("{} s", packet.interval_secs()),
        _ => format!("{} cs", packet.max_advert_interval()),
    };
    let auth_type = (packet.version() == 2).then(|| packet.auth_type().to_string());
    let read: Vec<String> = vec![
        packet.version().to_string(),
        packet.message_type().to_string(),
        packet.vrid().to_string(),
        packet.priority().to_string(),
        interval,
        packet.address_count().to_string(),
        auth_type.unwrap_or_default(),
    ];
    assert_eq!(read, row.0[10..17], "{}", row.name());
    if let Some(data) = packet.auth_data(family) {
        let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, row.column(17), "{}", row.name());
    }
    let addresses: Vec<String> = packet
        .addresses(family)
        .map(|each| each.to_string())
        .collect();
    assert_eq!(addresses.join(" "), row.column(18), "{}", row.name());

    let form = packet
        .trimmed(family)
        .checksum_form(ends, Some(wire::GROUP_V4));
    let said = match (form, packet.version(), family) {
        (None, ..) => "wrong",
        (Some(_), 2, _) | (Some(_), _, Family::V6) => "ok",
        (Some(ChecksumForm::PseudoHeader), ..) => "ok, pseudo-header",
        (Some(ChecksumForm::GroupPseudoHeader), ..) => "ok, pseudo-header with 224.0.0.18",
        (Some(ChecksumForm::Message), ..) => "ok, plain",
    };
    let checksum = format!("{:04x} {said}", packet.checksum());
    assert_eq!(checksum, row.column(19), "{}", row.name());

    match AdvertRepr::parse(&packet, ends, Some(wire::GROUP_V4)) {
        Ok((repr, form)) => {
            let mut again = vec![0xaa; repr.buffer_len()];
            repr.emit(&mut again, ends, form, Some(wire::GROUP_V4));
            assert_eq!(again, message, "{}", row.name());
        }
        Err(error) => assert_eq!(row.sender(), "c", "{}: {error}", row.name()),
    }
}

fn over_ipv4<'a>(row: &Row<'_>, packet: &'a [u8]) -> (Endpoints, &'a [u8]) {
    let ip = Ipv4Packet::new(packet).unwrap();
    assert_eq!(ip.ttl().to_string(), row.column(9));
    let id = format!("ip id {} tos c0", ip.identification());
    assert_eq!(id, row.column(21), "{}", row.name());
    let payload = &ip.as_bytes()[ip.header_len()..ip.total_len()];
    let repr = Ipv4Repr {
        source: ip.source(),
        destination: ip.destination(),
        protocol: ip.protocol(),
        ttl: ip.ttl(),
        identification: ip.identification(),
        payload_len: payload.len(),
    };
    let mut header = [0xaa; 20];
    repr.emit(&mut header);
    assert_eq!(header, packet[..20], "{}", row.name());
    let ends = Endpoints::V4 {
        source: ip.source(),
        destination: ip.destination(),
    };
    if ip.protocol() != wire::PROTOCOL_AH {
        assert_eq!(row.column(20), "", "{}", row.name());
        return (ends, payload);
    }
    let ah = AhPacket::new(payload).unwrap();
    let repr = AhRepr::parse(&ah).unwrap();
    let key = Authentication::pad(b"k3yAH").unwrap();
    let icv = wire::icv(
        &key,
        IcvScope::Multicast,
        ip.header(),
        payload,
        ah.payload(),
    );
    assert_eq!(icv, repr.icv, "{}", row.name());
    let hex: String = icv.iter().map(|byte| format!("{byte:02x}")).collect();
    let said = format!(
        "spi {} seq {} icv {hex} ttl-kept",
        std::net::Ipv4Addr::from(repr.spi),
        repr.sequence
    );
    assert_eq!(said, row.column(20), "{}", row.name());
    let mut again = [0xaa; AhPacket::LEN];
    repr.emit(&mut again);
    assert_eq!(again, payload[..AhPacket::LEN], "{}", row.name());
    (ends, ah.payload())
}

fn over_ipv6<'a>(row: &Row<'_>, packet: &'a [u8]) -> (Endpoints, &'a [u8]) {
    let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
    assert_eq!(packet[6], wire::PROTOCOL_VRRP);
    assert_eq!(packet[7].to_string(), row.column(9));
    let class = (packet[0] << 4) | (packet[1] >> 4);
    assert_eq!(class, wire::TRAFFIC_CLASS);
    let ends = Endpoints::new(IpAddr::V6(address(8)), IpAddr::V6(address(24))).unwrap();
    (ends, &packet[40..40 + length])
}
