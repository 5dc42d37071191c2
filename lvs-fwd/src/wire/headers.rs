//! What the data path needs to know of a frame.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use super::ipv6::{self, Obscured};
use super::{be16, ethernet, has_ports, ipv4, is_ipsec, protocol, sctp, tcp, udp};

/// Where the headers of a frame lie whose protocol is balanced, and who talks to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// The IP header, from the frame's first byte.
    pub network: usize,
    /// The transport header, from the frame's first byte.
    pub transport: usize,
    /// Where the packet ends; what follows is padding.
    pub end: usize,
    /// IP protocol number: TCP, UDP, SCTP, or ESP or AH, which have no ports: theirs are 0.
    pub protocol: u8,
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
}

/// Why a frame has no [`Headers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unparsed {
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// IPv6 extension headers that are not followed: a routing header with segments left, or too many.
    Extensions,
    /// Lengths contradict each other, or ports are missing.
    Malformed,
    /// Part of a datagram.
    Fragment,
    /// A transport protocol that is not balanced.
    OtherProtocol,
}

impl Headers {
    /// Looks for the headers. Their checksums are not judged, nor anything behind the ports.
    ///
    /// # Errors
    ///
    /// Why there are none.
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<Self, Unparsed> {
        // Most frames are this long: one comparison, and then everything has its place.
        let Some(fixed) = frame.first_chunk::<IPV4_FIXED>() else {
            return Err(Self::too_short(frame));
        };
        match be16(fixed, 12) {
            ethernet::IPV4 => {}
            ethernet::IPV6 => return Self::parse_ipv6(frame),
            _ => return Err(Unparsed::NotIp),
        }
        let network = ethernet::HEADER_LEN;
        let header_len = usize::from(fixed[network] & 0x0f) * 4;
        let total_len = usize::from(be16(fixed, network + 2));
        let (transport, end) = (network + header_len, network + total_len);
        let is_ipv4 = fixed[network] >> 4 == 4
            && header_len >= ipv4::MIN_HEADER_LEN
            && total_len >= header_len
            && end <= frame.len();
        if !is_ipv4 {
            return Err(Unparsed::Malformed);
        }
        if be16(fixed, network + 6) & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET_MASK) != 0 {
            return Err(Unparsed::Fragment);
        }
        let protocol = fixed[network + 9];
        let ports = ports(protocol, &frame[transport..end])?;
        let addr =
            |at: usize| Ipv4Addr::new(fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]);
        Ok(Self {
            network,
            transport,
            end,
            protocol,
            source: SocketAddr::V4(SocketAddrV4::new(addr(network + 12), ports.0)),
            destination: SocketAddr::V4(SocketAddrV4::new(addr(network + 16), ports.1)),
        })
    }

    /// What is wrong with a frame in which no IPv4 header has room.
    #[cold]
    fn too_short(frame: &[u8]) -> Unparsed {
        match ethernet::Packet::new_checked(frame).map(|link| link.ethertype()) {
            Ok(ethernet::IPV4 | ethernet::IPV6) | Err(_) => Unparsed::Malformed,
            Ok(_) => Unparsed::NotIp,
        }
    }

    #[inline(never)]
    fn parse_ipv6(frame: &[u8]) -> Result<Self, Unparsed> {
        let network = ethernet::HEADER_LEN;
        let packet =
            ipv6::Packet::new_checked(&frame[network..]).map_err(|_| Unparsed::Malformed)?;
        let upper = packet.upper()?;
        if upper.fragment.is_some_and(|part| !part.is_atomic()) {
            return Err(Unparsed::Fragment);
        }
        let (transport, end) = (network + upper.offset, network + packet.total_len());
        let ports = ports(upper.protocol, &frame[transport..end])?;
        Ok(Self {
            network,
            transport,
            end,
            protocol: upper.protocol,
            source: SocketAddr::new(IpAddr::V6(packet.source()), ports.0),
            destination: SocketAddr::new(IpAddr::V6(packet.destination()), ports.1),
        })
    }

    /// Whether the transport header is whole, and the checksum of an IPv4 header right: what a router and a
    /// receiver would insist on before they change or believe anything.
    #[inline]
    pub fn is_sound(&self, frame: &[u8]) -> bool {
        let Some(segment) = frame.get(self.transport..self.end) else {
            return false;
        };
        let transport = match self.protocol {
            protocol::TCP => tcp::Packet::new_checked(segment).is_ok(),
            protocol::UDP => udp::Packet::new_checked(segment)
                .is_ok_and(|packet| (udp::HEADER_LEN..=segment.len()).contains(&packet.length())),
            protocol::SCTP => sctp::Packet::new_checked(segment).is_ok(),
            _ => segment.len() >= IPSEC_LEAST,
        };
        let header = frame.get(self.network..self.transport);
        transport && (self.is_ipv6() || header.is_some_and(ipv4::is_sum_right))
    }

    /// Whether the packet is IPv6.
    #[inline]
    pub fn is_ipv6(&self) -> bool {
        self.destination.is_ipv6()
    }

    /// The TCP flags, as in [`tcp::Packet::flags`]; 0 for other protocols.
    #[inline]
    pub fn tcp_flags(&self, frame: &[u8]) -> u8 {
        match self.protocol {
            protocol::TCP => frame.get(self.transport + 13).copied().unwrap_or(0),
            _ => 0,
        }
    }

    /// What follows the transport header; empty if that is not [whole](Self::is_sound).
    #[inline]
    pub fn payload<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        let segment = frame.get(self.transport..self.end).unwrap_or_default();
        let header = match self.protocol {
            protocol::TCP => segment
                .get(12)
                .map_or(usize::MAX, |byte| usize::from(byte >> 4) * 4),
            protocol::UDP => udp::HEADER_LEN,
            protocol::SCTP => sctp::HEADER_LEN,
            _ => 0,
        };
        segment.get(header..).unwrap_or_default()
    }

    /// IP length in bytes.
    #[inline]
    pub fn ip_len(&self) -> usize {
        self.end - self.network
    }
}

/// The ports in front of a segment, if its protocol is balanced.
#[inline]
fn ports(number: u8, segment: &[u8]) -> Result<(u16, u16), Unparsed> {
    if has_ports(number) {
        if segment.len() < 4 {
            return Err(Unparsed::Malformed);
        }
        return Ok((be16(segment, 0), be16(segment, 2)));
    }
    match is_ipsec(number) {
        true => Ok((0, 0)),
        false => Err(Unparsed::OtherProtocol),
    }
}

/// Bytes of an Ethernet header and an IPv4 header without options.
const IPV4_FIXED: usize = ethernet::HEADER_LEN + ipv4::MIN_HEADER_LEN;
/// Bytes of ESP and AH that name their association and place in it.
const IPSEC_LEAST: usize = 8;

impl From<Obscured> for Unparsed {
    fn from(obscured: Obscured) -> Self {
        match obscured {
            Obscured::Malformed => Self::Malformed,
            Obscured::SourceRouted | Obscured::TooMany => Self::Extensions,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80), real in any::<bool>()) {
            if real && bytes.len() > 34 {
                bytes[12..14].copy_from_slice(&[8, 0]);
                bytes[14] = 0x40 | bytes[14] & 7;
                bytes[16] = 0;
                bytes[20] &= 0x40;
                bytes[21] = 0;
                bytes[23] = [6, 17, 132, 50][usize::from(bytes[23] & 3)];
            }
            if !real && bytes.len() > 60 {
                bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
                bytes[14] = 0x60 | bytes[14] & 15;
                bytes[18] = 0;
                bytes[19] &= 31;
                bytes[20] = [6, 17, 0, 43, 44, 51, 132, 50][usize::from(bytes[20] & 7)];
            }
            if let Ok(headers) = Headers::parse(&bytes) {
                let _ = headers.is_sound(&bytes);
                let _ = headers.tcp_flags(&bytes);
                let _ = headers.payload(&bytes);
                prop_assert!(headers.end <= bytes.len() && headers.transport <= headers.end);
            }
        }
    }
}
