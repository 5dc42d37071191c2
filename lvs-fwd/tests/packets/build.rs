//! Packets as values, written with every checksum computed from first principles, and shown decoded. Nothing of the crate
//! under test is used.

use std::fmt::Write as _;
use std::net::IpAddr;

/// An IP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) hops: u8,
    pub(crate) tos: u8,
    pub(crate) ident: u16,
    pub(crate) dont_fragment: bool,
    /// IPv4 options, whole words; or an IPv6 destination options header.
    pub(crate) options: Vec<u8>,
    pub(crate) body: Body,
    /// Added to the transport checksum.
    pub(crate) error: u16,
    /// The transport checksum is the bare sum of the pseudo-header (of SCTP 0).
    pub(crate) unfinished: bool,
}

/// What the IP header is followed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    Tcp {
        ports: (u16, u16),
        flags: u8,
        sequence: u32,
        acknowledged: u32,
        options: Vec<u8>,
        data: Vec<u8>,
    },
    Udp {
        ports: (u16, u16),
        data: Vec<u8>,
        /// Whether the checksum is "none".
        bare: bool,
    },
    Sctp {
        ports: (u16, u16),
        chunks: Vec<u8>,
    },
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
        data: Vec<u8>,
    },
    /// Anything else: a protocol, and bytes.
    Other(u8, Vec<u8>),
}

impl Packet {
    pub(crate) fn new(source: IpAddr, destination: IpAddr, body: Body) -> Self {
        Self {
            source,
            destination,
            hops: 64,
            tos: 0,
            ident: 0x1234,
            dont_fragment: true,
            options: Vec::new(),
            body,
            error: 0,
            unfinished: false,
        }
    }

    /// The number of the transport protocol.
    pub(crate) fn protocol(&self) -> u8 {
        match &self.body {
            Body::Tcp { .. } => 6,
            Body::Udp { .. } => 17,
            Body::Sctp { .. } => 132,
            Body::Icmp { .. } if self.source.is_ipv6() => 58,
            Body::Icmp { .. } => 1,
            Body::Other(number, _) => *number,
        }
    }

    pub(crate) fn ports_mut(&mut self) -> Option<&mut (u16, u16)> {
        match &mut self.body {
            Body::Tcp { ports, .. } | Body::Udp { ports, .. } | Body::Sctp { ports, .. } => {
                Some(ports)
            }
            Body::Icmp { .. } | Body::Other(..) => None,
        }
    }

    pub(crate) fn data_mut(&mut self) -> &mut Vec<u8> {
        match &mut self.body {
            Body::Tcp { data, .. } | Body::Udp { data, .. } | Body::Icmp { data, .. } => data,
            Body::Sctp { chunks, .. } => chunks,
            Body::Other(_, bytes) => bytes,
        }
    }

    /// Makes the packet this many bytes long.
    pub(crate) fn fill(&mut self, length: usize) {
        let have = self.bytes().len();
        assert!(length >= have, "{length} < {have}");
        let data = self.data_mut();
        let more = data.len() + length - have;
        let from = data.len();
        data.extend((from..more).map(|n| (n * 7) as u8));
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let transport = self.transport();
        let mut packet = Vec::new();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                assert!(self.options.len().is_multiple_of(4));
                let header = 20 + self.options.len();
                packet.extend([0x40 | (header / 4) as u8, self.tos]);
                packet.extend(((header + transport.len()) as u16).to_be_bytes());
                packet.extend(self.ident.to_be_bytes());
                packet.extend([if self.dont_fragment { 0x40 } else { 0 }, 0]);
                packet.extend([self.hops, self.protocol(), 0, 0]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
                packet.extend(&self.options);
                let sum = !fold(sum(&packet));
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let length = (self.options.len() + transport.len()) as u16;
                packet.extend([0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
                packet.extend(length.to_be_bytes());
                let next = if self.options.is_empty() {
                    self.protocol()
                } else {
                    60
                };
                packet.extend([next, self.hops]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
                packet.extend(&self.options);
                if !self.options.is_empty() {
                    packet[40] = self.protocol();
                }
            }
            _ => panic!("two families"),
        }
        packet.extend(transport);
        packet
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let at = match &self.body {
            Body::Tcp {
                ports,
                flags,
                sequence,
                acknowledged,
                options,
                data,
            } => {
                bytes.extend(ports.0.to_be_bytes());
                bytes.extend(ports.1.to_be_bytes());
                bytes.extend(sequence.to_be_bytes());
                bytes.extend(acknowledged.to_be_bytes());
                bytes.extend([((20 + options.len()) as u8 / 4) << 4, *flags]);
                bytes.extend([0xfa, 0xf0, 0, 0, 0, 0]);
                bytes.extend(options);
                bytes.extend(data);
                16
            }
            Body::Udp { ports, data, bare } => {
                bytes.extend(ports.0.to_be_bytes());
                bytes.extend(ports.1.to_be_bytes());
                bytes.extend(((8 + data.len()) as u16).to_be_bytes());
                bytes.extend([0, 0]);
                bytes.extend(data);
                if *bare {
                    return bytes;
                }
                6
            }
            Body::Sctp { ports, chunks } => {
                bytes.extend(ports.0.to_be_bytes());
                bytes.extend(ports.1.to_be_bytes());
                bytes.extend([9, 8, 7, 6, 0, 0, 0, 0]);
                bytes.extend(chunks);
                if !self.unfinished {
                    let sum = crc32c(&bytes) ^ u32::from(self.error);
                    bytes[8..12].copy_from_slice(&sum.to_le_bytes());
                }
                return bytes;
            }
            Body::Icmp {
                kind,
                code,
                rest,
                data,
            } => {
                bytes.extend([*kind, *code, 0, 0]);
                bytes.extend(rest);
                bytes.extend(data);
                2
            }
            Body::Other(_, other) => return other.clone(),
        };
        let mut pseudo = 0;
        if self.protocol() != 1 {
            pseudo += match (self.source, self.destination) {
                (IpAddr::V4(a), IpAddr::V4(b)) => sum(&a.octets()) + sum(&b.octets()),
                (IpAddr::V6(a), IpAddr::V6(b)) => sum(&a.octets()) + sum(&b.octets()),
                _ => panic!("two families"),
            };
            pseudo += u32::from(self.protocol()) + bytes.len() as u32;
        }
        let mut field = match self.unfinished {
            true => fold(pseudo),
            false => fold(u32::from(!fold(pseudo + sum(&bytes))) + u32::from(self.error)),
        };
        if field == 0 && self.protocol() == 17 {
            field = 0xffff;
        }
        bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
        bytes
    }
}

pub(crate) fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);
    words
        .map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)))
        .sum()
}

pub(crate) fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Bit by bit.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

/// The datagram that fragments make; they may come in any order.
pub(crate) fn join(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut parts: Vec<(usize, bool, Vec<u8>)> = Vec::new();
    let mut head = Vec::new();
    for packet in fragments {
        let (word, header, head_len) = match packet[0] >> 4 {
            4 => {
                let header = usize::from(packet[0] & 15) * 4;
                let word = u16::from_be_bytes([packet[6], packet[7]]);
                ((word & 0x1fff) << 3 | word >> 13 & 1, header, header)
            }
            _ => {
                assert_eq!(packet[6], 44, "a fragment header");
                (u16::from_be_bytes([packet[42], packet[43]]), 48, 40)
            }
        };
        if word & !7 == 0 {
            head = packet[..head_len].to_vec();
            if packet[0] >> 4 == 6 {
                head[6] = packet[40];
            }
        }
        parts.push((
            usize::from(word & !7),
            word & 1 != 0,
            packet[header..].to_vec(),
        ));
    }
    parts.sort_by_key(|part| part.0);
    let count = parts.len();
    let mut body = Vec::new();
    for (number, (offset, more, part)) in parts.into_iter().enumerate() {
        assert_eq!(offset, body.len(), "no gap, no overlap");
        assert_eq!(more, number + 1 < count);
        body.extend(part);
    }
    let header = head.len();
    head.extend(body);
    let length = head.len() as u16;
    if head[0] >> 4 == 4 {
        head[2..4].copy_from_slice(&length.to_be_bytes());
        head[6..8].fill(0);
        head[10..12].fill(0);
        let sum = !fold(sum(&head[..header]));
        head[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        head[4..6].copy_from_slice(&(length - 40).to_be_bytes());
    }
    head
}

/// An IP packet, as tcpdump would show it, and what is inside of it.
pub(crate) fn decoded(packet: &[u8]) -> String {
    let mut text = String::new();
    decode(packet, 0, &mut text);
    text
}

fn decode(packet: &[u8], depth: usize, text: &mut String) {
    let word = |bytes: &[u8], at: usize| {
        bytes
            .get(at..at + 2)
            .map_or(0, |word| u16::from_be_bytes([word[0], word[1]]))
    };
    let indent = "    ".repeat(depth);
    let (protocol, rest) = match packet.first().map_or(0, |byte| byte >> 4) {
        4 if packet.len() >= 20 => {
            let header = (usize::from(packet[0] & 15) * 4).min(packet.len());
            let addr = |at: usize| {
                format!(
                    "{}.{}.{}.{}",
                    packet[at],
                    packet[at + 1],
                    packet[at + 2],
                    packet[at + 3]
                )
            };
            let good = fold(sum(&packet[..header])) == 0xffff;
            let _ = writeln!(
                text,
                "{indent}IPv4 {} > {} hops {} tos {:#x} length {} ident {:#x} flags {:#x} protocol {}{}",
                addr(12),
                addr(16),
                packet[8],
                packet[1],
                word(packet, 2),
                word(packet, 4),
                word(packet, 6),
                packet[9],
                if good { "" } else { " CHECKSUM WRONG" },
            );
            let first = word(packet, 6) & 0x1fff == 0;
            (if first { packet[9] } else { 255 }, &packet[header..])
        }
        6 if packet.len() >= 40 => {
            let addr = |at: usize| {
                let octets: [u8; 16] = packet[at..at + 16].try_into().unwrap();
                IpAddr::from(octets)
            };
            let _ = writeln!(
                text,
                "{indent}IPv6 {} > {} hops {} payload {} next {}",
                addr(8),
                addr(24),
                packet[7],
                word(packet, 4),
                packet[6],
            );
            (packet[6], &packet[40..])
        }
        _ => {
            let _ = writeln!(text, "{indent}{packet:02x?}");
            return;
        }
    };
    let indent = format!("{indent}  ");
    let ports = format!("{} > {}", word(rest, 0), word(rest, 2));
    let inner = match protocol {
        4 | 41 => Some(0),
        6 => {
            let flags = rest.get(13).copied().unwrap_or(0);
            let header = rest.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4);
            let _ = writeln!(
                text,
                "{indent}TCP {ports} flags {flags:#x} sequence {:#06x}{:04x} checksum {:#x} header {header}",
                word(rest, 4),
                word(rest, 6),
                word(rest, 16)
            );
            None
        }
        17 => {
            let _ = writeln!(
                text,
                "{indent}UDP {ports} length {} checksum {:#x}",
                word(rest, 4),
                word(rest, 6)
            );
            (word(rest, 2) == 6080).then_some(12)
        }
        132 => {
            let _ = writeln!(
                text,
                "{indent}SCTP {ports} checksum {:#06x}{:04x}",
                word(rest, 8),
                word(rest, 10)
            );
            None
        }
        1 | 58 => {
            let _ = writeln!(
                text,
                "{indent}ICMP {:02x?} checksum {:#x}",
                rest.get(..8),
                word(rest, 2)
            );
            Some(8)
        }
        47 => {
            let _ = writeln!(text, "{indent}GRE {:02x?}", rest.get(..4));
            Some(if word(rest, 0) == 0 { 4 } else { 8 })
        }
        _ => None,
    };
    match inner {
        Some(at) if rest.len() > at => decode(&rest[at..], depth + 1, text),
        _ => {
            let _ = writeln!(text, "{indent}{:02x?}", &rest[..rest.len().min(64)]);
        }
    }
}
