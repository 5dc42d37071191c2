//! NAT: the virtual address becomes the real server's on the way in, and again the virtual one on the way
//! out. Addresses and ports change, and every checksum that covers them.

use std::net::SocketAddr;

use crate::checksum::Change;
use crate::frame::{ChecksumState, Frame};
use crate::wire::{Headers, ipv4, ipv6, protocol, sctp, tcp, udp};

/// Replaces the receiver: virtual service → real server. Nothing happens if that is of the other family.
#[inline]
pub fn set_destination(frame: &mut Frame, headers: &mut Headers, destination: SocketAddr) {
    if replace(frame, headers, Side::Destination, destination) {
        headers.destination = destination;
    }
}

/// Replaces the sender: real server → virtual service. Nothing happens if that is of the other family.
#[inline]
pub fn set_source(frame: &mut Frame, headers: &mut Headers, source: SocketAddr) {
    if replace(frame, headers, Side::Source, source) {
        headers.source = source;
    }
}

/// A side of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
}

fn replace(frame: &mut Frame, headers: &Headers, side: Side, new: SocketAddr) -> bool {
    // A partial checksum that is about something else than this transport header (an inner one) can't be
    // carried through a change of it.
    if let ChecksumState::Partial { start, .. } = frame.meta.checksum
        && usize::from(start) != headers.transport
    {
        frame.complete_checksum();
    }
    let partial = matches!(frame.meta.checksum, ChecksumState::Partial { .. });
    replace_in(frame.bytes_mut(), headers, partial, side, &new)
}

/// Replaces a side in a frame's bytes, unless it is of the other family; `partial` says that the transport checksum is the
/// plain sum of the pseudo-header.
#[inline]
pub(crate) fn replace_in(
    bytes: &mut [u8],
    headers: &Headers,
    partial: bool,
    side: Side,
    new: &SocketAddr,
) -> bool {
    let old = match side {
        Side::Source => &headers.source,
        Side::Destination => &headers.destination,
    };
    let ports = (old.port(), new.port());
    let address = match (old, new) {
        (SocketAddr::V4(old), SocketAddr::V4(new)) => {
            let address = Change::new().ipv4(*old.ip(), *new.ip());
            if let Some(mut packet) = ipv4::Packet::fixed(&mut bytes[headers.network..]) {
                match side {
                    Side::Source => packet.set_source(*new.ip()),
                    Side::Destination => packet.set_destination(*new.ip()),
                }
                let sum = address.apply(packet.checksum());
                packet.set_checksum(sum);
            }
            address
        }
        (SocketAddr::V6(old), SocketAddr::V6(new)) => {
            if let Ok(mut packet) = ipv6::Packet::new_checked(&mut bytes[headers.network..]) {
                match side {
                    Side::Source => packet.set_source(*new.ip()),
                    Side::Destination => packet.set_destination(*new.ip()),
                }
            }
            Change::new().ipv6(*old.ip(), *new.ip())
        }
        _ => return false,
    };
    let segment = &mut bytes[headers.transport..headers.end];
    let whole = address.word(ports.0, ports.1);
    if headers.protocol == protocol::TCP {
        if let Ok(mut packet) = tcp::Packet::new_checked(segment) {
            match side {
                Side::Source => packet.set_source_port(ports.1),
                Side::Destination => packet.set_destination_port(ports.1),
            }
            // A partial sum covers the pseudo-header only: ports are not part of it.
            let sum = match partial {
                true => address.apply_partial(packet.checksum()),
                false => whole.apply(packet.checksum()),
            };
            packet.set_checksum(sum);
        }
    } else if headers.protocol == protocol::SCTP {
        // No address is under its checksum.
        if ports.0 != ports.1
            && let Ok(mut packet) = sctp::Packet::new_checked(segment)
        {
            match side {
                Side::Source => packet.set_source_port(ports.1),
                Side::Destination => packet.set_destination_port(ports.1),
            }
        }
    } else if headers.protocol == protocol::UDP
        && let Ok(mut packet) = udp::Packet::new_checked(segment)
    {
        match side {
            Side::Source => packet.set_source_port(ports.1),
            Side::Destination => packet.set_destination_port(ports.1),
        }
        let sum = match (partial, packet.checksum()) {
            (true, sum) => address.apply_partial(sum),
            // RFC 768: the sender did not compute one, and need not get one on the way.
            (false, 0) => 0,
            (false, sum) => whole.apply_udp(sum),
        };
        packet.set_checksum(sum);
    }
    true
}
