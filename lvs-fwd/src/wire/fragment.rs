//! Parts of a datagram (RFC 791, section 2.3; RFC 8200, section 4.5).

use std::net::{IpAddr, SocketAddr};

use super::{
    Headers, Unparsed, be16, ethernet, has_ports, ipv4, ipv6, is_ipsec, protocol, sctp, tcp, udp,
};

/// A part of a TCP, UDP, SCTP, ESP or AH datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// The headers. A later fragment has no transport header: its place is where the packet ends, and the ports are 0.
    pub headers: Headers,
    /// Which datagram it is a part of.
    pub datagram: Datagram,
    /// Place of its payload in the datagram's, in bytes.
    pub offset: usize,
    /// Bytes of its payload.
    pub length: usize,
    /// Whether more of the datagram follows.
    pub more: bool,
}

/// What the fragments of a datagram have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Datagram {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// Identification.
    pub ident: u32,
    /// IP protocol number.
    pub protocol: u8,
}

impl Fragment {
    /// Looks for the headers of a fragment. Checksums are not judged.
    ///
    /// # Errors
    ///
    /// [`Unparsed::Malformed`] also for what can't be a part of a datagram, and for a first fragment without ports.
    /// A whole packet is [`Unparsed::NotIp`].
    pub fn parse(frame: &[u8]) -> Result<Self, Unparsed> {
        let link = ethernet::Packet::new_checked(frame).map_err(|_| Unparsed::Malformed)?;
        match link.ethertype() {
            ethernet::IPV4 => Self::parse_ipv4(frame),
            ethernet::IPV6 => Self::parse_ipv6(frame),
            _ => Err(Unparsed::NotIp),
        }
    }

    fn parse_ipv4(frame: &[u8]) -> Result<Self, Unparsed> {
        let network = ethernet::HEADER_LEN;
        let packet =
            ipv4::Packet::new_checked(&frame[network..]).map_err(|_| Unparsed::Malformed)?;
        if !packet.is_fragment() {
            return Err(Unparsed::NotIp);
        }
        Self::new(
            frame,
            Place {
                part: network + packet.header_len(),
                end: network + packet.total_len(),
                offset: packet.fragment_offset(),
                more: packet.more_fragments(),
                // The longest datagram has this header too.
                header_len: packet.header_len(),
            },
            Datagram {
                source: packet.source().into(),
                destination: packet.destination().into(),
                ident: packet.ident().into(),
                protocol: packet.protocol(),
            },
        )
    }

    fn parse_ipv6(frame: &[u8]) -> Result<Self, Unparsed> {
        let network = ethernet::HEADER_LEN;
        let packet =
            ipv6::Packet::new_checked(&frame[network..]).map_err(|_| Unparsed::Malformed)?;
        let upper = packet.upper()?;
        let Some(part) = upper.fragment.filter(|part| !part.is_atomic()) else {
            return Err(Unparsed::NotIp);
        };
        let at = part.at + ipv6::FRAGMENT_HEADER_LEN;
        // Of more headers behind this one the later fragments would know nothing.
        if part.offset == 0 && upper.offset != at {
            return Err(Unparsed::Extensions);
        }
        Self::new(
            frame,
            Place {
                part: network + at,
                end: network + packet.total_len(),
                offset: part.offset,
                more: part.more,
                header_len: part.at - ipv6::HEADER_LEN,
            },
            Datagram {
                source: packet.source().into(),
                destination: packet.destination().into(),
                ident: part.ident,
                protocol: upper.protocol,
            },
        )
    }

    fn new(frame: &[u8], place: Place, datagram: Datagram) -> Result<Self, Unparsed> {
        if !has_ports(datagram.protocol) && !is_ipsec(datagram.protocol) {
            return Err(Unparsed::OtherProtocol);
        }
        let length = place.end - place.part;
        let is_part = length > 0
            && (!place.more || length.is_multiple_of(8))
            && place.header_len + place.offset + length <= usize::from(u16::MAX);
        if !is_part {
            return Err(Unparsed::Malformed);
        }
        let (transport, ports) = match frame.get(place.part..place.end) {
            _ if place.offset != 0 => (place.end, (0, 0)),
            Some(_) if is_ipsec(datagram.protocol) => (place.part, (0, 0)),
            Some(payload) if payload.len() >= 4 => {
                (place.part, (be16(payload, 0), be16(payload, 2)))
            }
            _ => return Err(Unparsed::Malformed),
        };
        Ok(Self {
            headers: Headers {
                network: ethernet::HEADER_LEN,
                transport,
                end: place.end,
                protocol: datagram.protocol,
                source: SocketAddr::new(datagram.source, ports.0),
                destination: SocketAddr::new(datagram.destination, ports.1),
            },
            datagram,
            offset: place.offset,
            length,
            more: place.more,
        })
    }

    /// Whether it is the first part, which has the transport header.
    pub fn is_first(&self) -> bool {
        self.offset == 0
    }

    /// Whether the checksum of an IPv4 header is right, and the transport header whole in a first fragment.
    pub fn is_sound(&self, frame: &[u8]) -> bool {
        let header = ipv4::Packet::new_checked(&frame[self.headers.network..]);
        if !self.headers.is_ipv6() && !header.is_ok_and(|packet| packet.verify_checksum()) {
            return false;
        }
        let segment = &frame[self.headers.transport..self.headers.end];
        match (self.is_first(), self.headers.protocol) {
            (false, _) => true,
            (true, protocol::TCP) => tcp::Packet::new_checked(segment).is_ok(),
            (true, protocol::UDP) => udp::Packet::new_checked(segment)
                .is_ok_and(|packet| packet.length() >= udp::HEADER_LEN),
            (true, protocol::SCTP) => sctp::Packet::new_checked(segment).is_ok(),
            // Fragments are longer than what an association is found by.
            (true, _) => true,
        }
    }
}

/// Where a fragment's payload lies in its frame, and in its datagram.
struct Place {
    part: usize,
    end: usize,
    offset: usize,
    more: bool,
    /// Headers that count towards the datagram's length.
    header_len: usize,
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
                bytes[23] = [6, 17, 132, 50][usize::from(bytes[23] & 3)];
            }
            if !real && bytes.len() > 60 {
                bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
                bytes[14] = 0x60 | bytes[14] & 15;
                bytes[18] = 0;
                bytes[19] &= 31;
                bytes[20] = 44;
                bytes[54] = if bytes[54] & 1 == 0 { 60 } else { 17 };
                bytes[56] &= 1;
            }
            if let Ok(fragment) = Fragment::parse(&bytes) {
                let _ = fragment.is_sound(&bytes);
                let headers = fragment.headers;
                prop_assert!(headers.end <= bytes.len() && headers.transport <= headers.end);
                prop_assert!(Headers::parse(&bytes) == Err(Unparsed::Fragment));
            }
        }
    }
}
