//! An ICMP error about a packet of a tunnel: it quotes the outer headers, and behind them, if it quotes enough, the packet
//! inside.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::{
    ERRORS, Headers, INFORMATIONAL, be16, ethernet, has_ports, icmp, ipv4, ipv6, protocol, udp,
};

/// An ICMP error that quotes a tunnel's packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnelled {
    /// The error's own headers; it has no ports, so they are 0.
    pub headers: Headers,
    /// Type and code of the error.
    pub kind: (u8, u8),
    /// What the error says of the MTU behind its sender; 0 if it says nothing.
    pub mtu: u32,
    /// Sender of the quoted packet: the tunnel's near end.
    pub near: IpAddr,
    /// Receiver of the quoted packet: the tunnel's far end.
    pub far: IpAddr,
    /// Length of the quoted packet, as it states it.
    pub length: usize,
    /// The packet inside, if it is quoted up to its ports.
    pub inner: Option<Inner>,
}

/// What is quoted of the packet inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inner {
    /// Its quoted bytes, from the frame's first byte. Most errors cut the packet short.
    pub bytes: Range<usize>,
    /// How it was wrapped.
    pub wrapping: Wrapping,
    /// IP protocol number.
    pub protocol: u8,
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// Whether no router may fragment it.
    pub dont_fragment: bool,
}

/// What lies between the outer header and the packet inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    /// Nothing.
    Ip,
    /// Generic UDP Encapsulation, to this port.
    Gue {
        /// UDP port of the far end.
        port: u16,
    },
    /// Generic Routing Encapsulation.
    Gre,
}

impl Tunnelled {
    /// Looks for an error about what may be a tunnel's packet: IP in IP, GRE, or UDP. Checksums are not judged.
    ///
    /// `None` for everything else: other ICMP, fragments, quoted later fragments, and quoted packets that are of no such
    /// protocol.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let network = ethernet::HEADER_LEN;
        let link = ethernet::Packet::new_checked(frame).ok()?;
        let packet = frame.get(network..)?;
        let (source, destination, header_len, total_len, number) = match link.ethertype() {
            ethernet::IPV4 => {
                let outer = ipv4::Packet::new_checked(packet).ok()?;
                if outer.is_fragment() || outer.protocol() != protocol::ICMP {
                    return None;
                }
                let ends = (outer.source().into(), outer.destination().into());
                (
                    ends.0,
                    ends.1,
                    outer.header_len(),
                    outer.total_len(),
                    protocol::ICMP,
                )
            }
            ethernet::IPV6 => {
                let outer = ipv6::Packet::new_checked(packet).ok()?;
                if outer.next_header() != protocol::ICMPV6 {
                    return None;
                }
                let ends = (outer.source().into(), outer.destination().into());
                (
                    ends.0,
                    ends.1,
                    ipv6::HEADER_LEN,
                    outer.total_len(),
                    protocol::ICMPV6,
                )
            }
            _ => return None,
        };
        let headers = Headers {
            network,
            transport: network + header_len,
            end: network + total_len,
            protocol: number,
            source: SocketAddr::new(source, 0),
            destination: SocketAddr::new(destination, 0),
        };
        let message = icmp::Packet::new_checked(frame.get(headers.transport..headers.end)?).ok()?;
        let kind = (message.kind(), message.code());
        let (is_error, mtu) = match number {
            protocol::ICMP => (
                ERRORS.contains(&kind.0),
                if kind == TOO_BIG {
                    message.mtu().into()
                } else {
                    0
                },
            ),
            _ => (
                kind.0 & INFORMATIONAL == 0,
                if kind == TOO_BIG_V6 {
                    message.mtu_v6()
                } else {
                    0
                },
            ),
        };
        if !is_error {
            return None;
        }
        let at = headers.transport + icmp::HEADER_LEN;
        let outer = Outer::read(message.payload())?;
        let inner = wrapping(outer.protocol, outer.rest).and_then(|(wrapping, skip)| {
            let start = at + outer.header_len + skip;
            Inner::read(frame, start..headers.end, wrapping, outer.rest.get(skip..)?)
        });
        Some(Self {
            headers,
            kind,
            mtu,
            near: outer.source,
            far: outer.destination,
            length: outer.length,
            inner,
        })
    }

    /// Whether it says that the packet was too long for the way on.
    pub fn is_too_big(&self) -> bool {
        match self.headers.is_ipv6() {
            true => self.kind == TOO_BIG_V6,
            false => self.kind == TOO_BIG,
        }
    }

    /// Whether the checksums of an IPv4 header and of the message are right.
    pub fn is_sound(&self, frame: &[u8]) -> bool {
        icmp::is_sound(&self.headers, frame)
    }
}

/// The outer headers as far as they are quoted.
struct Outer<'a> {
    source: IpAddr,
    destination: IpAddr,
    header_len: usize,
    length: usize,
    protocol: u8,
    rest: &'a [u8],
}

impl<'a> Outer<'a> {
    fn read(quoted: &'a [u8]) -> Option<Self> {
        match quoted.first()? >> 4 {
            4 => {
                let header_len = ipv4::quoted_header_len(quoted)?;
                let is_later = be16(quoted, 6) & ipv4::OFFSET_MASK != 0;
                (!is_later).then_some(())?;
                Some(Self {
                    source: address::<4>(quoted, 12)?,
                    destination: address::<4>(quoted, 16)?,
                    header_len,
                    length: be16(quoted, 2).into(),
                    protocol: quoted[9],
                    rest: &quoted[header_len..],
                })
            }
            6 => Some(Self {
                source: address::<16>(quoted, 8)?,
                destination: address::<16>(quoted, 24)?,
                header_len: ipv6::HEADER_LEN,
                length: ipv6::HEADER_LEN + usize::from(be16(quoted, 4)),
                protocol: quoted[6],
                rest: quoted.get(ipv6::HEADER_LEN..)?,
            }),
            _ => None,
        }
        .filter(|outer| TUNNELS.contains(&outer.protocol))
    }
}

/// How the packet inside is wrapped, and where it begins behind the outer IP header.
fn wrapping(number: u8, rest: &[u8]) -> Option<(Wrapping, usize)> {
    match number {
        protocol::IPIP | protocol::IPV6 => Some((Wrapping::Ip, 0)),
        protocol::UDP => {
            let (port, header_len) = gue(rest)?;
            Some((Wrapping::Gue { port }, header_len))
        }
        protocol::GRE => Some((Wrapping::Gre, gre(rest)?)),
        _ => None,
    }
}

/// The far end's port, and the length of the UDP and GUE headers in front of an IP packet.
fn gue(rest: &[u8]) -> Option<(u16, usize)> {
    let header = rest.get(udp::HEADER_LEN..udp::HEADER_LEN + 4)?;
    // Version 0, no control message; the low bits count words of options.
    let is_data = header[0] & 0xe0 == 0;
    let carries_ip = matches!(header[1], protocol::IPIP | protocol::IPV6);
    let options = usize::from(header[0] & 0x1f) * 4;
    (is_data && carries_ip).then(|| (be16(rest, 2), udp::HEADER_LEN + 4 + options))
}

/// The length of the GRE header in front of an IP packet.
fn gre(rest: &[u8]) -> Option<usize> {
    let header = rest.get(..4)?;
    let carries_ip = matches!(be16(header, 2), ethernet::IPV4 | ethernet::IPV6);
    match be16(header, 0) {
        0 if carries_ip => Some(4),
        GRE_CHECKSUM if carries_ip => Some(8),
        _ => None,
    }
}

impl Inner {
    fn read(frame: &[u8], bytes: Range<usize>, wrapping: Wrapping, quoted: &[u8]) -> Option<Self> {
        debug_assert_eq!(frame.get(bytes.clone()), Some(quoted));
        let (protocol, ports, source, destination, dont_fragment) = match quoted.first()? >> 4 {
            4 => {
                let header_len = ipv4::quoted_header_len(quoted)?;
                let word = be16(quoted, 6);
                (word & ipv4::OFFSET_MASK == 0).then_some(())?;
                let ends = (address::<4>(quoted, 12)?, address::<4>(quoted, 16)?);
                let dont_fragment = word & ipv4::DONT_FRAGMENT != 0;
                (quoted[9], header_len, ends.0, ends.1, dont_fragment)
            }
            6 => {
                let ends = (address::<16>(quoted, 8)?, address::<16>(quoted, 24)?);
                let upper = ipv6::quoted_upper(quoted)?;
                (upper.protocol, upper.offset, ends.0, ends.1, true)
            }
            _ => return None,
        };
        if !has_ports(protocol) || quoted.len() < ports + 4 {
            return None;
        }
        Some(Self {
            bytes,
            wrapping,
            protocol,
            source: SocketAddr::new(source, be16(quoted, ports)),
            destination: SocketAddr::new(destination, be16(quoted, ports + 2)),
            dont_fragment,
        })
    }
}

fn address<const N: usize>(packet: &[u8], at: usize) -> Option<IpAddr>
where
    IpAddr: From<[u8; N]>,
{
    let octets: [u8; N] = packet.get(at..at + N)?.try_into().ok()?;
    Some(IpAddr::from(octets))
}

const GRE_CHECKSUM: u16 = 0x8000;
const TUNNELS: [u8; 4] = [protocol::IPIP, protocol::UDP, protocol::IPV6, protocol::GRE];
const TOO_BIG: (u8, u8) = (3, 4);
const TOO_BIG_V6: (u8, u8) = (2, 0);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 60..160),
            ipv6 in any::<bool>(),
            inner in any::<[u8; 4]>(),
        ) {
            let length = bytes.len();
            if ipv6 {
                bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
                bytes[14] = 0x60;
                bytes[18..20].copy_from_slice(&((length - 54) as u16).to_be_bytes());
                bytes[20] = 58;
            } else {
                bytes[12..14].copy_from_slice(&[8, 0]);
                bytes[14] = 0x45;
                bytes[16..18].copy_from_slice(&((length - 14) as u16).to_be_bytes());
                bytes[20..22].fill(0);
                bytes[23] = 1;
            }
            let at = if ipv6 { 54 } else { 34 };
            if at + 8 < length {
                bytes[at] = 3;
                bytes[at + 8] = if inner[0] & 1 == 0 { 0x45 } else { 0x60 };
            }
            for (offset, choice) in [(9, inner[1]), (6, inner[2])] {
                if let Some(byte) = bytes.get_mut(at + 8 + offset) {
                    *byte = [4, 17, 41, 47][usize::from(choice & 3)];
                }
            }
            if let Some(error) = Tunnelled::parse(&bytes) {
                let _ = error.is_sound(&bytes);
                let _ = error.is_too_big();
                if let Some(inner) = error.inner {
                    prop_assert!(inner.bytes.start < inner.bytes.end && inner.bytes.end <= length);
                }
            }
        }
    }
}
