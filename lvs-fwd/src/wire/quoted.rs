//! An ICMP error, and the headers that it quotes, found in one pass.

use std::net::{IpAddr, SocketAddr};

use super::{Headers, be16, ethernet, has_ports, icmp, ipv4, ipv6, protocol};

/// An ICMP error about a TCP, UDP or SCTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    /// The error's own headers; it has no ports, so they are 0.
    pub headers: Headers,
    /// The quoted IP header, from the frame's first byte.
    pub network: usize,
    /// The quoted transport header, of which there are 8 bytes at least.
    pub transport: usize,
    /// IP protocol number of the quoted packet: TCP, UDP or SCTP.
    pub protocol: u8,
    /// Sender of the quoted packet.
    pub source: SocketAddr,
    /// Receiver of the quoted packet.
    pub destination: SocketAddr,
}

impl Quoted {
    /// Looks for an error whose quoted packet says which connection it belongs to. Its checksums are not judged.
    ///
    /// In IPv4 that is destination unreachable, source quench or time exceeded, whole, and neither IP header with options;
    /// in IPv6 every error, whole, without extension headers, about a packet without any, or with a fragment header alone.
    ///
    /// `None` for everything else: other ICMP, fragments, quoted later fragments, quoted packets that are cut before
    /// their ports.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let link = ethernet::Packet::new_checked(frame).ok()?;
        match link.ethertype() {
            ethernet::IPV4 => Self::parse_ipv4(frame),
            ethernet::IPV6 => Self::parse_ipv6(frame),
            _ => None,
        }
    }

    fn parse_ipv4(frame: &[u8]) -> Option<Self> {
        let network = ethernet::HEADER_LEN;
        let outer = ipv4::Packet::new_checked(&frame[network..]).ok()?;
        if outer.is_fragment()
            || outer.protocol() != protocol::ICMP
            || outer.header_len() != ipv4::MIN_HEADER_LEN
        {
            return None;
        }
        let message = icmp::Packet::new_checked(outer.payload()).ok()?;
        if !ERRORS.contains(&message.kind()) {
            return None;
        }
        // The packet itself goes on behind what is quoted, so its length says nothing here.
        let quoted = message.payload();
        if quoted.len() < ipv4::MIN_HEADER_LEN + QUOTED_TRANSPORT || quoted[0] != 0x45 {
            return None;
        }
        let protocol = quoted[9];
        if !has_ports(protocol) || be16(quoted, 6) & ipv4::OFFSET_MASK != 0 {
            return None;
        }
        let transport = network + ipv4::MIN_HEADER_LEN;
        let at = transport + icmp::HEADER_LEN;
        Some(Self {
            headers: Headers {
                network,
                transport,
                end: network + outer.total_len(),
                protocol: protocol::ICMP,
                source: SocketAddr::new(outer.source().into(), 0),
                destination: SocketAddr::new(outer.destination().into(), 0),
            },
            network: at,
            transport: at + ipv4::MIN_HEADER_LEN,
            protocol,
            source: side::<4>(quoted, 12, 20),
            destination: side::<4>(quoted, 16, 22),
        })
    }

    fn parse_ipv6(frame: &[u8]) -> Option<Self> {
        let network = ethernet::HEADER_LEN;
        let outer = ipv6::Packet::new_checked(&frame[network..]).ok()?;
        if outer.next_header() != protocol::ICMPV6 {
            return None;
        }
        let message = icmp::Packet::new_checked(outer.payload()).ok()?;
        if message.kind() & INFORMATIONAL != 0 {
            return None;
        }
        let quoted = message.payload();
        if quoted.len() < ipv6::HEADER_LEN + QUOTED_TRANSPORT || quoted[0] >> 4 != 6 {
            return None;
        }
        let (protocol, ports) = match quoted[6] {
            ipv6::FRAGMENT => {
                let at = ipv6::HEADER_LEN + ipv6::FRAGMENT_HEADER_LEN;
                let is_first = be16(quoted, ipv6::HEADER_LEN + 2) & !7 == 0;
                if !is_first || quoted.len() < at + QUOTED_TRANSPORT {
                    return None;
                }
                (quoted[ipv6::HEADER_LEN], at)
            }
            protocol => (protocol, ipv6::HEADER_LEN),
        };
        if !has_ports(protocol) {
            return None;
        }
        let transport = network + ipv6::HEADER_LEN;
        let at = transport + icmp::HEADER_LEN;
        Some(Self {
            headers: Headers {
                network,
                transport,
                end: network + outer.total_len(),
                protocol: protocol::ICMPV6,
                source: SocketAddr::new(outer.source().into(), 0),
                destination: SocketAddr::new(outer.destination().into(), 0),
            },
            network: at,
            transport: at + ports,
            protocol,
            source: side::<16>(quoted, 8, ports),
            destination: side::<16>(quoted, 24, ports + 2),
        })
    }

    /// Whether the checksums of an IPv4 header and of the message are right.
    pub fn is_sound(&self, frame: &[u8]) -> bool {
        icmp::is_sound(&self.headers, frame)
    }
}

/// An end of the quoted packet, by where its address of `N` bytes and its port stand. The caller has looked at the length.
fn side<const N: usize>(quoted: &[u8], addr: usize, port: usize) -> SocketAddr
where
    IpAddr: From<[u8; N]>,
{
    let mut octets = [0; N];
    octets.copy_from_slice(&quoted[addr..addr + N]);
    SocketAddr::new(IpAddr::from(octets), be16(quoted, port))
}

/// Destination unreachable, source quench, time exceeded.
pub(crate) const ERRORS: [u8; 3] = [3, 4, 11];
/// In ICMPv6 the kind of what is no error has this bit.
pub(crate) const INFORMATIONAL: u8 = 0x80;
/// What every error quotes of the transport header (RFC 792).
const QUOTED_TRANSPORT: usize = 8;
