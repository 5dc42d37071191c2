//! IPv6 (RFC 8200).

use std::net::Ipv6Addr;

use super::{Malformed, be16, protocol, put16};

/// Length of the fixed header in bytes.
pub const HEADER_LEN: usize = 40;
/// Length of a fragment header in bytes.
pub const FRAGMENT_HEADER_LEN: usize = 8;
/// Least MTU of a link in bytes.
pub const MIN_MTU: usize = 1280;

/// A view of a packet.
#[derive(Debug, Clone, Copy)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Looks at a packet; bytes beyond its length are allowed and not part of it.
    ///
    /// # Errors
    ///
    /// If the version is not 6, or the packet longer than the bytes. A jumbogram is one without payload here.
    #[inline]
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        let packet = Self(bytes);
        let bytes = packet.0.as_ref();
        if bytes.len() < HEADER_LEN || bytes[0] >> 4 != 6 || packet.total_len() > bytes.len() {
            return Err(Malformed("IPv6"));
        }
        Ok(packet)
    }

    /// Traffic class: DSCP and ECN.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        (be16(self.0.as_ref(), 0) >> 4) as u8
    }

    /// Length of fixed header and payload in bytes.
    #[inline]
    pub fn total_len(&self) -> usize {
        HEADER_LEN + usize::from(be16(self.0.as_ref(), 4))
    }

    /// What follows the fixed header.
    #[inline]
    pub fn next_header(&self) -> u8 {
        self.0.as_ref()[6]
    }

    /// Hops left.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.0.as_ref()[7]
    }

    /// Sender.
    #[inline]
    pub fn source(&self) -> Ipv6Addr {
        self.addr(8)
    }

    /// Receiver.
    #[inline]
    pub fn destination(&self) -> Ipv6Addr {
        self.addr(24)
    }

    /// What follows the fixed header, up to the packet's length.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_LEN..self.total_len()]
    }

    /// Walks the extension headers to what they lead to.
    ///
    /// # Errors
    ///
    /// Why that can't be said.
    #[inline]
    pub fn upper(&self) -> Result<Upper, Obscured> {
        let next = self.next_header();
        if matches!(next, protocol::TCP | protocol::UDP) {
            return Ok(Upper {
                protocol: next,
                offset: HEADER_LEN,
                fragment: None,
            });
        }
        self.walk(next)
    }

    fn walk(&self, mut next: u8) -> Result<Upper, Obscured> {
        let bytes = &self.0.as_ref()[..self.total_len()];
        let mut offset = HEADER_LEN;
        let mut fragment = None;
        for _ in 0..=MAX_EXTENSIONS {
            let length = match next {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                    (usize::from(*bytes.get(offset + 1).ok_or(Obscured::Malformed)?) + 1) * 8
                }
                AUTHENTICATION => {
                    (usize::from(*bytes.get(offset + 1).ok_or(Obscured::Malformed)?) + 2) * 4
                }
                FRAGMENT => FRAGMENT_HEADER_LEN,
                protocol => {
                    return Ok(Upper {
                        protocol,
                        offset,
                        fragment,
                    });
                }
            };
            let header = bytes
                .get(offset..offset + length)
                .ok_or(Obscured::Malformed)?;
            if next == ROUTING && header[3] != 0 {
                return Err(Obscured::SourceRouted);
            }
            let kind = next;
            next = header[0];
            if kind == FRAGMENT {
                let part = Part::read(header, offset);
                fragment = Some(part);
                if part.offset != 0 {
                    if is_extension(next) {
                        return Err(Obscured::Malformed);
                    }
                    return Ok(Upper {
                        protocol: next,
                        offset: bytes.len(),
                        fragment,
                    });
                }
            }
            offset += length;
        }
        Err(Obscured::TooMany)
    }

    #[inline]
    fn addr(&self, at: usize) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&self.0.as_ref()[at..at + 16]);
        octets.into()
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the sender.
    #[inline]
    pub fn set_source(&mut self, addr: Ipv6Addr) {
        self.0.as_mut()[8..24].copy_from_slice(&addr.octets());
    }

    /// Sets the receiver.
    #[inline]
    pub fn set_destination(&mut self, addr: Ipv6Addr) {
        self.0.as_mut()[24..40].copy_from_slice(&addr.octets());
    }

    /// Sets the hops left.
    #[inline]
    pub fn set_hop_limit(&mut self, hops: u8) {
        self.0.as_mut()[7] = hops;
    }
}

/// Where it stands what follows the headers that take `length` bytes in front of the packet; `None` if they do not end
/// there.
pub(crate) fn last_next_header(packet: &[u8], length: usize) -> Option<usize> {
    let (mut at, mut next, mut end) = (6, *packet.get(6)?, HEADER_LEN);
    while end < length {
        let units = usize::from(*packet.get(end + 1)?);
        let size = match next {
            AUTHENTICATION => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        (at, next) = (end, *packet.get(end)?);
        end += size;
    }
    (end == length).then_some(at)
}

/// What the extension headers lead to in a packet that may be cut short; `None` if that is cut off or obscured.
pub(crate) fn quoted_upper(packet: &[u8]) -> Option<Upper> {
    match Packet::new_checked(packet) {
        Ok(packet) => packet.upper().ok(),
        Err(_) => {
            let mut packet = packet.to_vec();
            let length = u16::try_from(packet.len().checked_sub(HEADER_LEN)?).ok()?;
            put16(&mut packet, 4, length);
            Packet::new_checked(packet).ok()?.upper().ok()
        }
    }
}

/// What the extension headers lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upper {
    /// Protocol number. Of a later fragment it is what the fragment header says.
    pub protocol: u8,
    /// Where it begins, from the packet's first byte. A later fragment has no such header: the packet's end.
    pub offset: usize,
    /// The fragment header, if there is one.
    pub fragment: Option<Part>,
}

/// A fragment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where it lies, from the packet's first byte.
    pub at: usize,
    /// Place of the payload in the datagram's fragmentable part in bytes.
    pub offset: usize,
    /// Whether more fragments follow.
    pub more: bool,
    /// Identification, shared by the fragments of a datagram.
    pub ident: u32,
}

impl Part {
    /// Whether the whole datagram is here (RFC 6946).
    pub fn is_atomic(&self) -> bool {
        self.offset == 0 && !self.more
    }

    fn read(header: &[u8], at: usize) -> Self {
        let word = be16(header, 2);
        Self {
            at,
            offset: usize::from(word & !7),
            more: word & MORE != 0,
            ident: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        }
    }
}

/// Why the extension headers do not tell what they lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obscured {
    /// A header is cut short, or a later fragment begins with one.
    Malformed,
    /// A routing header with segments left: its receiver is not the last one.
    SourceRouted,
    /// More than [`MAX_EXTENSIONS`] headers.
    TooMany,
}

/// A fixed header to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Sender.
    pub source: Ipv6Addr,
    /// Receiver.
    pub destination: Ipv6Addr,
    /// What follows.
    pub next_header: u8,
    /// Traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Bytes that follow.
    pub payload_len: u16,
}

impl Repr {
    /// Bytes that [`emit`](Self::emit) writes.
    #[inline]
    pub fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the header to the start of the buffer, with flow label 0.
    pub fn emit(&self, buffer: &mut [u8]) {
        let header = &mut buffer[..HEADER_LEN];
        put16(header, 0, 0x6000 | u16::from(self.traffic_class) << 4);
        put16(header, 2, 0);
        put16(header, 4, self.payload_len);
        header[6] = self.next_header;
        header[7] = self.hop_limit;
        header[8..24].copy_from_slice(&self.source.octets());
        header[24..40].copy_from_slice(&self.destination.octets());
    }
}

/// Extension headers that are followed. More say nothing that a balancer should hear (RFC 8504, section 5.3).
pub const MAX_EXTENSIONS: usize = 8;

/// Next header of hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Next header of a routing header.
pub const ROUTING: u8 = 43;
/// Next header of a fragment header.
pub const FRAGMENT: u8 = 44;
/// Next header of an authentication header.
pub const AUTHENTICATION: u8 = 51;
/// Next header of destination options.
pub const DESTINATION_OPTIONS: u8 = 60;

pub(crate) const MORE: u16 = 1;

fn is_extension(next: u8) -> bool {
    matches!(
        next,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of these headers: next header of the fixed one, then the rest.
    fn packet(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        Repr {
            source: "2001:db8::5".parse().unwrap(),
            destination: "2001:db8::10".parse().unwrap(),
            next_header: next,
            traffic_class: 0xb9,
            hop_limit: 64,
            payload_len: rest.len() as u16,
        }
        .emit(&mut bytes);
        bytes.extend_from_slice(rest);
        bytes
    }

    fn upper(next: u8, rest: &[u8]) -> Result<Upper, Obscured> {
        Packet::new_checked(packet(next, rest)).unwrap().upper()
    }

    fn at(protocol: u8, offset: usize) -> Result<Upper, Obscured> {
        Ok(Upper {
            protocol,
            offset,
            fragment: None,
        })
    }

    #[test]
    fn what_is_written_is_read() {
        let packet = Packet::new_checked(packet(6, b"abc")).unwrap();
        assert_eq!(packet.traffic_class(), 0xb9);
        assert_eq!((packet.next_header(), packet.hop_limit()), (6, 64));
        assert_eq!(packet.source(), "2001:db8::5".parse::<Ipv6Addr>().unwrap());
        assert_eq!(
            packet.destination(),
            "2001:db8::10".parse::<Ipv6Addr>().unwrap()
        );
        assert_eq!((packet.total_len(), packet.payload()), (43, &b"abc"[..]));
    }

    #[test]
    fn extension_headers_are_walked_by_their_lengths() {
        assert_eq!(upper(6, &[]), at(6, 40));
        assert_eq!(upper(58, &[]), at(58, 40));
        assert_eq!(upper(59, &[]), at(59, 40), "none follows");
        assert_eq!(upper(50, &[]), at(50, 40), "ESP hides the rest");
        let options = [17, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(upper(0, &options), at(17, 48));
        assert_eq!(upper(60, &options), at(17, 48));
        let long = [&[6, 1][..], &[0; 14]].concat();
        assert_eq!(upper(0, &long), at(6, 56));
        let authentication = [&[6, 4][..], &[0; 22]].concat();
        assert_eq!(upper(51, &authentication), at(6, 64));
        let chain = [&[60, 0][..], &[0; 6], &[43, 0], &[0; 6], &[6, 0], &[0; 6]].concat();
        assert_eq!(upper(0, &chain), at(6, 64));
    }

    #[test]
    fn what_hides_the_rest_is_told_apart() {
        assert_eq!(upper(0, &[6]), Err(Obscured::Malformed));
        assert_eq!(
            upper(0, &[6, 1, 0, 0, 0, 0, 0, 0]),
            Err(Obscured::Malformed)
        );
        assert_eq!(upper(44, &[6, 0, 0, 0]), Err(Obscured::Malformed));
        let routing = [6, 0, 4, 1, 0, 0, 0, 0];
        assert_eq!(upper(43, &routing), Err(Obscured::SourceRouted));
        let options = |count: usize| {
            let mut chain = [60, 0, 0, 0, 0, 0, 0, 0].repeat(count - 1);
            chain.extend_from_slice(&[6, 0, 0, 0, 0, 0, 0, 0]);
            chain
        };
        assert_eq!(upper(60, &options(8)), at(6, 104));
        assert_eq!(upper(60, &options(9)), Err(Obscured::TooMany));
    }

    #[test]
    fn later_fragments_end_the_walk() {
        let first = [17, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3, 4];
        let part = |offset, more| Part {
            at: 40,
            offset,
            more,
            ident: 9,
        };
        assert_eq!(
            upper(44, &first),
            Ok(Upper {
                protocol: 17,
                offset: 48,
                fragment: Some(part(0, true)),
            })
        );
        let later = [17, 0, 5, 0xa8, 0, 0, 0, 9, 1, 2, 3, 4];
        assert_eq!(
            upper(44, &later),
            Ok(Upper {
                protocol: 17,
                offset: 52,
                fragment: Some(part(1448, false)),
            })
        );
        let hidden = [60, 0, 5, 0xa8, 0, 0, 0, 9, 1, 2, 3, 4];
        assert_eq!(upper(44, &hidden), Err(Obscured::Malformed));
        assert!(part(0, false).is_atomic());
    }

    #[test]
    fn lengths_are_judged() {
        let mut bytes = packet(6, b"abc");
        assert!(Packet::new_checked(&bytes[..42]).is_err());
        assert!(Packet::new_checked(&bytes[..39]).is_err());
        bytes[0] = 0x45;
        assert!(Packet::new_checked(&bytes).is_err());
    }
}
