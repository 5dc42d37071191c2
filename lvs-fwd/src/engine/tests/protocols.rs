//! SCTP, and the protocols that follow a key exchange.

use super::ipv6::{VIP6, dr6, nat6, server};
use super::*;
use crate::wire::sctp;

/// [`super::ipv6::bench`] with SCTP, ESP and AH beside.
fn bench() -> Bench {
    let mut bench = super::ipv6::bench();
    let claims = Arc::make_mut(&mut bench.view.claims);
    for (vip, rip) in [("192.0.2.10", "10.0.0.11".to_owned()), (VIP6, server(11))] {
        let claim = |protocol, addr: &str, port| Endpoint {
            protocol,
            addr: addr.parse().unwrap(),
            port,
        };
        claims.insert_service(claim(132, vip, 80));
        claims.insert_server(claim(132, &rip, 8080));
        for protocol in [50, 51] {
            claims.insert_service(claim(protocol, vip, 0));
            claims.insert_server(claim(protocol, &rip, 0));
        }
    }
    bench
}

/// An IP packet of this protocol with this payload.
fn raw(ends: (IpAddr, IpAddr), protocol: u8, payload: &[u8]) -> Frame {
    let mut bytes = Vec::new();
    let number = etherparse::IpNumber(protocol);
    let link = PacketBuilder::ethernet2(ROUTER_MAC, OUTSIDE_MAC);
    match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => link
            .ipv4(source.octets(), destination.octets(), 64)
            .write(&mut bytes, number, payload),
        (IpAddr::V6(source), IpAddr::V6(destination)) => link
            .ipv6(source.octets(), destination.octets(), 64)
            .write(&mut bytes, number, payload),
        _ => panic!("two families"),
    }
    .unwrap();
    Frame::from_bytes(&bytes)
}

fn sctp(ports: (u16, u16), chunks: &[u8]) -> Vec<u8> {
    let mut packet = [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes()].concat();
    packet.extend_from_slice(&[1, 2, 3, 4, 0, 0, 0, 0]);
    packet.extend_from_slice(chunks);
    sctp::Packet::new_checked(&mut packet)
        .unwrap()
        .fill_checksum();
    packet
}

fn payload(frame: &Frame) -> &[u8] {
    let bytes = frame.bytes();
    &bytes[if bytes[14] >> 4 == 6 { 54 } else { 34 }..]
}

const INIT: [u8; 8] = [1, 0, 0, 8, 9, 9, 9, 9];

fn ends() -> [(IpAddr, IpAddr, Verdict); 2] {
    let (client6, vip6) = ("2001:db8:c::5".parse().unwrap(), VIP6.parse().unwrap());
    [
        (CLIENT.into(), VIP.into(), nat(11, 8080)),
        (client6, vip6, nat6(11, 8080)),
    ]
}

#[test]
fn sctp_behind_nat_has_the_servers_port_and_a_right_checksum() {
    for (client, vip, verdict) in ends() {
        let mut bench = bench();
        let frame = raw((client, vip), 132, &sctp((50000, 80), &INIT));
        let mut seen = Vec::new();
        bench.engine.process(
            bench.now,
            &bench.view,
            OUTSIDE,
            &mut vec![frame],
            &mut Chunks(verdict, &mut seen),
            &mut bench.output,
        );
        assert_eq!(seen, [(132, 80, INIT.to_vec())]);
        let sent = &bench.output.transmit[0].1;
        assert_eq!(*payload(sent), sctp((50000, 8080), &INIT)[..]);
    }
}

/// Answers all by one verdict, and keeps protocol, port and payload.
struct Chunks<'a>(Verdict, &'a mut Vec<(u8, u16, Vec<u8>)>);

impl Balancer for Chunks<'_> {
    fn decide(&mut self, _: Instant, packets: &Packets<'_>, verdicts: &mut Vec<Verdict>) {
        for (at, packet) in packets.iter().enumerate() {
            let payload = packets.payload(at).to_vec();
            self.1
                .push((packet.protocol, packet.destination.port(), payload));
            verdicts.push(self.0);
        }
    }
}

#[test]
fn an_unfinished_sctp_checksum_is_finished_and_a_wrong_one_stays_wrong() {
    for verdict in [dr(12), nat(11, 80), nat(11, 8080)] {
        let mut bench = bench();
        let mut packet = sctp((50000, 80), &INIT);
        packet[8..12].fill(0);
        let mut frame = raw((CLIENT.into(), VIP.into()), 132, &packet);
        frame.meta.checksum = ChecksumState::Partial {
            start: 34,
            offset: 8,
        };
        let output = bench.run(OUTSIDE, frame, verdict);
        let (_, sent) = &output.transmit[0];
        assert_eq!(sent.meta.checksum, ChecksumState::Complete);
        let view = sctp::Packet::new_checked(payload(sent)).unwrap();
        assert!(view.verify_checksum());
        let mut packet = sctp((50000, 80), &INIT);
        packet[9] ^= 4;
        let output = bench.run(
            OUTSIDE,
            raw((CLIENT.into(), VIP.into()), 132, &packet),
            verdict,
        );
        let view = sctp::Packet::new_checked(payload(&output.transmit[0].1)).unwrap();
        assert!(!view.verify_checksum());
    }
}

#[test]
fn sctp_errors_are_translated() {
    let mut bench = bench();
    let quoted = raw((VIP.into(), CLIENT.into()), 132, &sctp((80, 50000), &INIT));
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(ROUTER_MAC, OUTSIDE_MAC)
        .ipv4([198, 51, 100, 7], VIP, 64)
        .icmpv4_raw(3, 4, [0, 0, 5, 20])
        .write(&mut bytes, &quoted.bytes()[14..42])
        .unwrap();
    let output = bench.run(OUTSIDE, Frame::from_bytes(&bytes), nat(11, 8080));
    let packet = sent(output, 0, INSIDE, server_mac(11));
    assert_checksums(&packet);
    assert_eq!(packet[40..48], [&[10, 0, 0, 11][..], &CLIENT].concat());
    assert_eq!(packet[48..52], [0x1f, 0x90, 0xc3, 0x50]);
}

#[test]
fn ipsec_goes_as_the_key_exchange_does() {
    for (client, vip, nat) in ends() {
        let direct = if client.is_ipv6() { dr6(11) } else { dr(11) };
        for protocol in [50, 51] {
            if client.is_ipv6() && protocol == 51 {
                continue;
            }
            let body = [6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 7, 7, 7, 7];
            for (verdict, to) in [(direct, vip), (nat, server_of(&client))] {
                let mut bench = bench();
                let frame = raw((client, vip), protocol, &body);
                let output = bench.run(OUTSIDE, frame, verdict);
                let expected = raw((client, to), protocol, &body);
                let sent = &output.transmit[0].1;
                assert_eq!(*payload(sent), body, "nothing inside changes");
                let at = if client.is_ipv6() { 22 } else { 26 };
                assert_eq!(sent.bytes()[at..], expected.bytes()[at..]);
            }
            let mut bench = bench();
            let frame = raw((client, vip), protocol, &body);
            let output = bench.run(OUTSIDE, frame, Verdict::NotOurs);
            assert_eq!(output.host.len(), 1);
            // Too short to say which association it belongs to.
            bench.run(OUTSIDE, raw((client, vip), protocol, &body[..7]), direct);
            assert_eq!(bench.drops(DropReason::Malformed), 1);
        }
    }
}

fn server_of(client: &IpAddr) -> IpAddr {
    match client.is_ipv6() {
        true => server(11).parse().unwrap(),
        false => [10, 0, 0, 11].into(),
    }
}

#[test]
fn parts_of_ipsec_packets_follow_the_first() {
    let mut bench = bench();
    for (offset, more) in [(0u16, true), (3, false)] {
        let mut frame = raw((CLIENT.into(), VIP.into()), 50, &[9; 24]);
        let word = offset | if more { 0x2000 } else { 0 };
        frame.bytes_mut()[20..22].copy_from_slice(&word.to_be_bytes());
        fix_header(&mut frame);
        let output = bench.run(OUTSIDE, frame, dr(12));
        sent(output, 0, INSIDE, server_mac(12));
    }
}
