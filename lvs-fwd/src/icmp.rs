//! ICMP errors to senders: when one may be sent, how often, and what it looks like.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::frame::Frame;
use crate::steer;
use crate::wire::icmp::{Error, Repr};
use crate::wire::{INFORMATIONAL, ethernet, icmp, ipv4, ipv6, protocol};

/// Builds the error about an IPv4 packet, which begins at `original`'s first byte and is quoted as it is. What follows the
/// first eight bytes behind its header may be missing.
///
/// The result has room for an Ethernet header in front; its content is not specified. `None` where no error
/// may be sent: about an ICMP error, a fragment other than the first, or a sender that is no single host
/// (RFC 1122, section 3.2.2).
pub fn build(error: Error, source: Ipv4Addr, ident: u16, original: &[u8]) -> Option<Frame> {
    let header_len = ipv4::quoted_header_len(original)?;
    // Nothing that the accessors below look at lies behind the header.
    let mut header = [0; MAX_HEADER_LEN];
    header[..header_len].copy_from_slice(&original[..header_len]);
    header[2..4].copy_from_slice(&(header_len as u16).to_be_bytes());
    let packet = ipv4::Packet::new_checked(&header[..header_len]).ok()?;
    let total_len = usize::from(u16::from_be_bytes([original[2], original[3]]));
    let original = &original[..original.len().min(total_len)];
    let rest = original.get(header_len..)?;
    let to = packet.source();
    let about_error = packet.protocol() == protocol::ICMP
        && rest
            .first()
            .is_some_and(|kind| !matches!(kind, 0 | 8 | 13 | 14));
    if about_error || packet.fragment_offset() != 0 || !is_single_host(to) {
        return None;
    }
    if rest.len() < LEAST_QUOTED && original.len() < total_len {
        return None;
    }
    let room = quotable(false);
    let message = Repr {
        error,
        quoted: &original[..original.len().min(room)],
    };
    let header = ipv4::Repr {
        source,
        destination: to,
        protocol: protocol::ICMP,
        tos: packet.tos() & 0x1e | 0xc0,
        ttl: 64,
        ident,
        dont_fragment: false,
        payload_len: message.buffer_len() as u16,
    };
    let at = ethernet::HEADER_LEN + header.buffer_len();
    let mut frame = Frame::zeroed(at + message.buffer_len());
    header.emit(&mut frame.bytes_mut()[ethernet::HEADER_LEN..]);
    message.emit(&mut frame.bytes_mut()[at..]);
    Some(frame)
}

/// As [`build`] about an IPv6 packet (RFC 4443, section 2.4). To a packet whose receiver is a group only "too big" may be
/// said.
pub fn build_v6(error: Error, source: Ipv6Addr, original: &[u8]) -> Option<Frame> {
    // Of the fixed header alone; what is behind it may be cut off.
    let mut header: [u8; ipv6::HEADER_LEN] = *original.first_chunk()?;
    header[4..6].fill(0);
    let packet = ipv6::Packet::new_checked(&header).ok()?;
    let total_len = ipv6::HEADER_LEN + usize::from(u16::from_be_bytes([original[4], original[5]]));
    let original = &original[..original.len().min(total_len)];
    if original.len() < (ipv6::HEADER_LEN + LEAST_QUOTED).min(total_len) {
        return None;
    }
    let to = packet.source();
    let upper = ipv6::quoted_upper(original);
    let about_error = upper.is_some_and(|upper| {
        upper.protocol == protocol::ICMPV6
            && original
                .get(upper.offset)
                .is_some_and(|kind| kind & INFORMATIONAL == 0)
    });
    let is_later = upper
        .and_then(|upper| upper.fragment)
        .is_some_and(|part| part.offset != 0);
    let to_group = packet.destination().is_multicast() && !matches!(error, Error::TooBig(_));
    if about_error || is_later || to_group || !is_single_host_v6(to) {
        return None;
    }
    let room = quotable(true);
    let message = Repr {
        error,
        quoted: &original[..original.len().min(room)],
    };
    let header = ipv6::Repr {
        source,
        destination: to,
        next_header: protocol::ICMPV6,
        traffic_class: 0,
        hop_limit: 64,
        payload_len: message.buffer_len() as u16,
    };
    let at = ethernet::HEADER_LEN + header.buffer_len();
    let mut frame = Frame::zeroed(at + message.buffer_len());
    header.emit(&mut frame.bytes_mut()[ethernet::HEADER_LEN..]);
    message.emit_v6(&mut frame.bytes_mut()[at..], source, to);
    Some(frame)
}

/// How much of a packet an error can quote at most, in bytes of IP.
pub(crate) fn quotable(is_ipv6: bool) -> usize {
    match is_ipv6 {
        true => ipv6::MIN_MTU - ipv6::HEADER_LEN - icmp::HEADER_LEN,
        false => MAX_LEN - ipv4::MIN_HEADER_LEN - icmp::HEADER_LEN,
    }
}

/// Whether a packet may come from this address.
#[inline]
pub fn is_single_host(addr: Ipv4Addr) -> bool {
    let first = addr.octets()[0];
    // 0/8 is "this network", 127/8 loopback, 224/4 multicast, 240/4 reserved with broadcast as its last.
    first != 0 && first != 127 && first < 224
}

/// Whether a packet that is routed may come from this address: a link-local one never leaves its link (RFC 4291, section
/// 2.5.6).
#[inline]
pub fn is_single_host_v6(addr: Ipv6Addr) -> bool {
    let first = addr.octets()[0];
    // ff00::/8 are groups; ::/8 has the unspecified address, loopback and the mapped ones.
    first != 0xff && first != 0 && !addr.is_unicast_link_local()
}

/// How many errors may be sent: a bucket for all, and one a second for each destination. Like the kernel,
/// "too big" is exempt, because path MTU discovery depends on it.
///
/// Destinations share a fixed number of places; two that meet in one place are told more often than they
/// should be, never less.
#[derive(Debug)]
pub struct Limiter {
    tokens: u32,
    filled: Option<Instant>,
    last: Vec<Option<(IpAddr, Instant)>>,
}

impl Limiter {
    /// A full bucket.
    pub fn new() -> Self {
        Self {
            tokens: BURST,
            filled: None,
            last: vec![None; PLACES],
        }
    }

    /// Whether this error may be sent to this address now; if so, it is counted as sent.
    pub fn allow(&mut self, now: Instant, error: Error, to: IpAddr) -> bool {
        if matches!(error, Error::TooBig(_)) {
            return true;
        }
        let place = steer::place(&to, PLACES);
        if let Some((addr, at)) = self.last[place]
            && addr == to
            && now.saturating_duration_since(at) < PER_DESTINATION
        {
            return false;
        }
        self.fill(now);
        if self.tokens == 0 {
            return false;
        }
        self.tokens -= 1;
        self.last[place] = Some((to, now));
        true
    }

    fn fill(&mut self, now: Instant) {
        let since = *self.filled.get_or_insert(now);
        let new = now.saturating_duration_since(since).as_micros() / PER_TOKEN.as_micros();
        if new >= u128::from(BURST) {
            self.tokens = BURST;
            self.filled = Some(now);
        } else if new > 0 {
            // Below BURST, so it fits.
            let new = new as u32;
            self.tokens = (self.tokens + new).min(BURST);
            self.filled = Some(since + PER_TOKEN * new);
        }
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new()
    }
}

/// Longest IPv4 header.
const MAX_HEADER_LEN: usize = 60;
/// What an error quotes of a packet behind its header at least.
const LEAST_QUOTED: usize = 8;
/// Longest error in bytes (RFC 1812, section 4.3.2.3).
const MAX_LEN: usize = 576;
const BURST: u32 = 50;
const PER_TOKEN: Duration = Duration::from_millis(1);
const PER_DESTINATION: Duration = Duration::from_secs(1);
const PLACES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// Vector 26.1 of the forwarding specification.
    pub(crate) const SYN: [u8; 44] = [
        0x45, 0x00, 0x00, 0x2c, 0x12, 0x34, 0x40, 0x00, 0x40, 0x06, 0x2a, 0x88, 0xcb, 0x00, 0x71,
        0x05, 0xc0, 0x00, 0x02, 0x0a, 0xc3, 0x50, 0x00, 0x50, 0x11, 0x22, 0x33, 0x44, 0x00, 0x00,
        0x00, 0x00, 0x60, 0x02, 0xfa, 0xf0, 0x97, 0x1e, 0x00, 0x00, 0x02, 0x04, 0x05, 0xb4,
    ];

    #[test]
    fn port_unreachable_equals_the_vector() {
        let mut expected = vec![
            0x45, 0xc0, 0x00, 0x48, 0x00, 0x00, 0x00, 0x00, 0x40, 0x01, 0x7b, 0xe5, 0xc0, 0x00,
            0x02, 0x0a, 0xcb, 0x00, 0x71, 0x05, 0x03, 0x03, 0xfb, 0x2b, 0x00, 0x00, 0x00, 0x00,
        ];
        expected.extend_from_slice(&SYN);
        let frame = build(Error::PortUnreachable, [192, 0, 2, 10].into(), 0, &SYN).unwrap();
        assert_eq!(&frame.bytes()[14..], expected);
    }

    #[test]
    fn long_packets_are_quoted_up_to_576_bytes() {
        let mut packet = SYN.to_vec();
        packet.resize(1500, 0);
        packet[2..4].copy_from_slice(&1500u16.to_be_bytes());
        let frame = build(Error::TooBig(1400), [192, 0, 2, 10].into(), 0, &packet).unwrap();
        assert_eq!(frame.len(), 14 + 576);
        let message = icmp::Packet::new_checked(&frame.bytes()[34..]).unwrap();
        assert_eq!(
            (message.kind(), message.code(), message.mtu()),
            (3, 4, 1400)
        );
        assert!(message.verify_checksum());
    }

    #[test]
    fn no_errors_about_errors_fragments_or_groups() {
        let vip = [192, 0, 2, 10].into();
        let build = |packet: &[u8]| build(Error::TimeExceeded, vip, 0, packet).is_some();
        assert!(build(&SYN));
        let mut error = SYN;
        error[9] = 1;
        error[20] = 3;
        assert!(!build(&error));
        error[20] = 8;
        assert!(build(&error), "an echo request is no error");
        let mut fragment = SYN;
        fragment[7] = 1;
        assert!(!build(&fragment));
        for first in [0, 127, 224, 255] {
            let mut group = SYN;
            group[12] = first;
            assert!(!build(&group));
        }
        assert!(!build(&SYN[..27]));
        assert!(build(&SYN[..28]), "cut short, as others quote it");
    }

    fn packet6(length: usize, next: u8) -> Vec<u8> {
        let mut packet = vec![0; length];
        ipv6::Repr {
            source: "2001:db8::5".parse().unwrap(),
            destination: "2001:db8:1::10".parse().unwrap(),
            next_header: next,
            traffic_class: 0,
            hop_limit: 64,
            payload_len: (length - 40) as u16,
        }
        .emit(&mut packet);
        packet
    }

    #[test]
    fn ipv6_errors_quote_up_to_the_least_mtu_and_sum_the_addresses() {
        let vip: Ipv6Addr = "2001:db8:1::10".parse().unwrap();
        for (error, expected) in [
            (Error::HostUnreachable, [1, 3, 0, 0]),
            (Error::PortUnreachable, [1, 4, 0, 0]),
            (Error::Prohibited, [1, 1, 0, 0]),
            (Error::TooBig(1400), [2, 0, 5, 0x78]),
            (Error::TimeExceeded, [3, 0, 0, 0]),
        ] {
            let packet = packet6(1500, 17);
            let frame = build_v6(error, vip, &packet).unwrap();
            assert_eq!(frame.len(), 14 + 1280);
            let ip = ipv6::Packet::new_checked(&frame.bytes()[14..]).unwrap();
            assert_eq!((ip.source(), ip.next_header()), (vip, 58));
            assert_eq!((ip.hop_limit(), ip.total_len()), (64, 1280));
            let message = &frame.bytes()[54..];
            assert_eq!([message[0], message[1], message[6], message[7]], expected);
            assert_eq!(message[8..], packet[..1232]);
            let sum = pnet_packet::icmpv6::checksum(
                &pnet_packet::icmpv6::Icmpv6Packet::new(message).unwrap(),
                &vip,
                &ip.destination(),
            );
            assert_eq!(u16::from_be_bytes([message[2], message[3]]), sum);
            assert!(
                icmp::Packet::new_checked(message)
                    .unwrap()
                    .verify_checksum_v6(vip, ip.destination())
            );
        }
    }

    #[test]
    fn no_ipv6_errors_about_errors_fragments_or_groups() {
        let vip = "2001:db8:1::10".parse().unwrap();
        let build = |packet: &[u8]| build_v6(Error::TimeExceeded, vip, packet).is_some();
        assert!(build(&packet6(60, 6)));
        let mut error = packet6(60, 58);
        error[40] = 1;
        assert!(!build(&error));
        error[40] = 128;
        assert!(build(&error), "an echo request is no error");
        let mut fragment = packet6(60, 44);
        fragment[40] = 17;
        assert!(build(&fragment));
        fragment[43] = 8;
        assert!(!build(&fragment));
        for source in ["ff02::1", "::1", "::", "fe80::1"] {
            let mut packet = packet6(60, 6);
            packet[8..24].copy_from_slice(&source.parse::<Ipv6Addr>().unwrap().octets());
            assert!(!build(&packet), "{source}");
        }
        let mut to_group = packet6(60, 6);
        to_group[24] = 0xff;
        assert!(!build(&to_group));
        assert!(build_v6(Error::TooBig(1280), vip, &to_group).is_some());
        assert!(!build(&packet6(60, 6)[..47]));
        assert!(build(&packet6(60, 6)[..48]));
    }

    #[test]
    fn one_a_second_for_each_destination_and_a_thousand_for_all() {
        let start = Instant::now();
        let mut limiter = Limiter::new();
        let client: IpAddr = [203, 0, 113, 5].into();
        assert!(limiter.allow(start, Error::PortUnreachable, client));
        assert!(!limiter.allow(
            start + Duration::from_millis(999),
            Error::TimeExceeded,
            client
        ));
        assert!(limiter.allow(start, Error::TooBig(1400), client));
        assert!(limiter.allow(
            start + Duration::from_secs(1),
            Error::PortUnreachable,
            client
        ));

        let mut limiter = Limiter::new();
        let mut flood = |at: Instant| {
            (0..1000u32)
                .filter(|n| {
                    limiter.allow(
                        at,
                        Error::PortUnreachable,
                        IpAddr::V4((n * 7919 + 1).into()),
                    )
                })
                .count()
        };
        assert_eq!(flood(start), 50);
        assert_eq!(flood(start), 0);
        assert!((9..=10).contains(&flood(start + Duration::from_millis(10))));
    }
}
