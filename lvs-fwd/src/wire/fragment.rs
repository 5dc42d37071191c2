//! Parts of an IPv4 datagram (RFC 791, section 2.3).

use std::net::{IpAddr, SocketAddr};

use super::{Headers, Unparsed, be16, ethernet, ipv4, protocol, tcp, udp};

/// A part of a TCP or UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// The headers. A later fragment has no transport header: its place is where the packet ends, and the ports are 0.
    pub headers: Headers,
    /// Which datagram it is a part of.
    pub datagram: Datagram,
    /// Place of its payload in the datagram's, in bytes.
    pub offset: usize,
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
    pub ident: u16,
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
        if link.ethertype() != ethernet::IPV4 {
            return Err(Unparsed::NotIp);
        }
        let network = ethernet::HEADER_LEN;
        let packet =
            ipv4::Packet::new_checked(&frame[network..]).map_err(|_| Unparsed::Malformed)?;
        if !packet.is_fragment() {
            return Err(Unparsed::NotIp);
        }
        if !matches!(packet.protocol(), protocol::TCP | protocol::UDP) {
            return Err(Unparsed::OtherProtocol);
        }
        let (offset, more, payload) = (
            packet.fragment_offset(),
            packet.more_fragments(),
            packet.payload(),
        );
        let is_part = !payload.is_empty()
            && (!more || payload.len().is_multiple_of(8))
            && packet.header_len() + offset + payload.len() <= usize::from(u16::MAX);
        if !is_part || offset == 0 && payload.len() < 4 {
            return Err(Unparsed::Malformed);
        }
        let end = network + packet.total_len();
        let (transport, ports) = match offset {
            0 => (
                network + packet.header_len(),
                (be16(payload, 0), be16(payload, 2)),
            ),
            _ => (end, (0, 0)),
        };
        let (source, destination) = (packet.source().into(), packet.destination().into());
        Ok(Self {
            headers: Headers {
                network,
                transport,
                end,
                protocol: packet.protocol(),
                source: SocketAddr::new(source, ports.0),
                destination: SocketAddr::new(destination, ports.1),
            },
            datagram: Datagram {
                source,
                destination,
                ident: packet.ident(),
                protocol: packet.protocol(),
            },
            offset,
            more,
        })
    }

    /// Whether it is the first part, which has the transport header.
    pub fn is_first(&self) -> bool {
        self.offset == 0
    }

    /// Whether the checksum of the IP header is right, and the transport header whole in a first fragment.
    pub fn is_sound(&self, frame: &[u8]) -> bool {
        let header = ipv4::Packet::new_checked(&frame[self.headers.network..]);
        if !header.is_ok_and(|packet| packet.verify_checksum()) {
            return false;
        }
        let segment = &frame[self.headers.transport..self.headers.end];
        match (self.is_first(), self.headers.protocol) {
            (false, _) => true,
            (true, protocol::TCP) => tcp::Packet::new_checked(segment).is_ok(),
            (true, _) => udp::Packet::new_checked(segment)
                .is_ok_and(|packet| packet.length() >= udp::HEADER_LEN),
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
                bytes[23] = if bytes[23] & 1 == 0 { 6 } else { 17 };
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
