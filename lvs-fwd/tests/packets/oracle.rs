//! What each method makes of a packet, by the specification.

use std::net::IpAddr;

use super::build::{Body, Packet, fold, sum};
use super::world::names;

/// How packets get to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Nat,
    Direct,
    Ipip,
    Gue {
        checksum: bool,
    },
    Gre {
        checksum: bool,
    },
    FullNat,
    /// NAT to the director itself.
    LocalNat,
    /// Direct routing to the director itself.
    LocalDirect,
}

impl How {
    pub(crate) fn is_tunnel(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue { .. } | Self::Gre { .. })
    }

    pub(crate) fn is_local(self) -> bool {
        matches!(self, Self::LocalNat | Self::LocalDirect)
    }

    /// Bytes around the packet.
    pub(crate) fn overhead(self, outer6: bool) -> usize {
        let header = if outer6 { 40 } else { 20 };
        match self {
            Self::Ipip => header,
            Self::Gue { .. } => header + 12,
            Self::Gre { checksum: false } => header + 4,
            Self::Gre { checksum: true } => header + 8,
            _ => 0,
        }
    }
}

/// What a director may choose as it likes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hints {
    /// The identification of the first packet, if it is IPv4.
    pub(crate) ident: u16,
    /// Its first transport word: a tunnel's source port.
    pub(crate) port: u16,
    /// Its TCP sequence number.
    pub(crate) sequence: u32,
}

impl Hints {
    pub(crate) fn of(sent: &[Vec<u8>]) -> Self {
        let Some(packet) = sent.first() else {
            return Self::default();
        };
        let word = |at: usize| {
            packet
                .get(at..at + 2)
                .map_or(0, |word| u16::from_be_bytes([word[0], word[1]]))
        };
        let (ident, at) = match packet[0] >> 4 {
            4 => (word(4), usize::from(packet[0] & 15) * 4),
            _ if packet[6] == 60 => (0, 48 + usize::from(packet[41]) * 8),
            _ => (0, 40),
        };
        Self {
            ident,
            port: word(at),
            sequence: u32::from(word(at + 4)) << 16 | u32::from(word(at + 6)),
        }
    }
}

/// The packet for the server, which is of this family.
pub(crate) fn towards(how: How, packet: &Packet, server6: bool, hints: &Hints) -> Vec<u8> {
    let to = names(server6);
    let mut packet = packet.clone();
    if !how.is_local() {
        packet.hops -= 1;
    }
    match how {
        How::Direct | How::LocalDirect => packet.bytes(),
        How::Nat | How::LocalNat => {
            let local = how == How::LocalNat;
            packet.destination = if local { to.inside } else { to.rip };
            if let Some(ports) = packet.ports_mut() {
                ports.1 = 8080;
            }
            packet.bytes()
        }
        How::FullNat => {
            packet.source = to.local;
            packet.destination = to.rip;
            if let Some(ports) = packet.ports_mut() {
                *ports = (33001, 8081);
            }
            if let Body::Tcp { sequence, .. } = &mut packet.body {
                *sequence = hints.sequence;
            }
            if !packet.dont_fragment {
                packet.ident = hints.ident;
            }
            packet.bytes()
        }
        How::Ipip | How::Gue { .. } | How::Gre { .. } => {
            packet.unfinished = false;
            wrapped(how, &packet, server6, hints)
        }
    }
}

/// A packet inside another one.
fn wrapped(how: How, inner: &Packet, outer6: bool, hints: &Hints) -> Vec<u8> {
    let to = names(outer6);
    let inside = inner.bytes();
    let is_ipv6 = inner.source.is_ipv6();
    let (protocol, ethertype): (u8, u16) = if is_ipv6 { (41, 0x86dd) } else { (4, 0x0800) };
    let body = match how {
        How::Gue { checksum } => {
            assert!((32768..=60999).contains(&hints.port), "{}", hints.port);
            let mut data = vec![0, protocol, 0, 0];
            data.extend(inside);
            Body::Udp {
                ports: (hints.port, 6080),
                data,
                bare: !checksum,
            }
        }
        How::Gre { checksum } => {
            let [high, low] = ethertype.to_be_bytes();
            let mut bytes = match checksum {
                true => vec![0x80, 0, high, low, 0, 0, 0, 0],
                false => vec![0, 0, high, low],
            };
            bytes.extend(inside);
            if checksum {
                let sum = !fold(sum(&bytes));
                bytes[4..6].copy_from_slice(&sum.to_be_bytes());
            }
            Body::Other(47, bytes)
        }
        _ => Body::Other(protocol, inside),
    };
    let mut outer = Packet::new(to.inside, to.rip, body);
    outer.hops = inner.hops;
    // What has experienced congestion says so inside.
    outer.tos = if inner.tos & 3 == 3 {
        inner.tos & !3 | 2
    } else {
        inner.tos
    };
    outer.dont_fragment = !is_ipv6 && inner.dont_fragment;
    outer.ident = if outer.dont_fragment { 0 } else { hints.ident };
    outer.bytes()
}

/// The packet for the client, from the virtual service.
pub(crate) fn back(packet: &Packet, vip: IpAddr, client: (IpAddr, u16)) -> Packet {
    let mut packet = packet.clone();
    packet.hops -= 1;
    packet.source = vip;
    packet.destination = client.0;
    if let Some(ports) = packet.ports_mut() {
        *ports = (80, client.1);
    }
    packet
}

/// An ICMP error about a packet, quoted as it came.
pub(crate) fn error(
    from: IpAddr,
    about: &[u8],
    tos: u8,
    kind: (u8, u8),
    mtu: u16,
    hints: &Hints,
) -> Packet {
    let ipv6 = from.is_ipv6();
    let to: IpAddr = match ipv6 {
        true => <[u8; 16]>::try_from(&about[8..24]).unwrap().into(),
        false => <[u8; 4]>::try_from(&about[12..16]).unwrap().into(),
    };
    let [high, low] = mtu.to_be_bytes();
    let most = if ipv6 { 1232 } else { 548 };
    let body = Body::Icmp {
        kind: kind.0,
        code: kind.1,
        rest: [0, 0, high, low],
        data: about[..about.len().min(most)].to_vec(),
    };
    let mut error = Packet::new(from, to, body);
    error.ident = hints.ident;
    error.dont_fragment = false;
    error.tos = if ipv6 { 0 } else { tos & 0x1e | 0xc0 };
    error
}

/// The super-packet's segments.
pub(crate) fn segments(packet: &Packet, size: usize) -> Vec<Packet> {
    let Body::Tcp {
        flags,
        sequence,
        data,
        ..
    } = &packet.body
    else {
        return vec![packet.clone()];
    };
    let count = data.len().div_ceil(size);
    let cut = |(number, chunk): (usize, &[u8])| {
        let mut segment = packet.clone();
        segment.unfinished = false;
        segment.ident = packet.ident.wrapping_add(number as u16);
        if let Body::Tcp {
            flags: some,
            sequence: from,
            data,
            ..
        } = &mut segment.body
        {
            *from = sequence.wrapping_add((number * size) as u32);
            *data = chunk.to_vec();
            // FIN and PSH are the last one's.
            *some = if number + 1 < count {
                flags & !9
            } else {
                *flags
            };
        }
        segment
    };
    data.chunks(size).enumerate().map(cut).collect()
}

/// A tunnel's packet that may be fragmented though the one inside may not.
pub(crate) fn fragmentable(mut outer: Vec<u8>, hints: &Hints) -> Vec<u8> {
    if outer[0] >> 4 == 4 {
        outer[4..6].copy_from_slice(&hints.ident.to_be_bytes());
        outer[6] = 0;
        outer[10..12].fill(0);
        let sum = !fold(sum(&outer[..20]));
        outer[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    outer
}
