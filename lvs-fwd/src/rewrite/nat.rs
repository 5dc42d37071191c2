//! NAT: the virtual address becomes the real server's on the way in, and again the virtual one on the way
//! out. Addresses and ports change, and every checksum that covers them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use crate::checksum::Change;
use crate::frame::{ChecksumState, Frame};
use crate::wire::{Headers, ipv4, protocol, tcp, udp};

/// Replaces the receiver: virtual service → real server.
#[inline]
pub fn set_destination(frame: &mut Frame, headers: &mut Headers, destination: SocketAddrV4) {
    if let IpAddr::V4(old) = headers.destination.ip() {
        let change = Replaced {
            old: SocketAddrV4::new(old, headers.destination.port()),
            new: destination,
        };
        replace(frame, headers, change, Side::Destination);
        headers.destination = SocketAddr::V4(destination);
    }
}

/// Replaces the sender: real server → virtual service.
#[inline]
pub fn set_source(frame: &mut Frame, headers: &mut Headers, source: SocketAddrV4) {
    if let IpAddr::V4(old) = headers.source.ip() {
        let change = Replaced {
            old: SocketAddrV4::new(old, headers.source.port()),
            new: source,
        };
        replace(frame, headers, change, Side::Source);
        headers.source = SocketAddr::V4(source);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

#[derive(Clone, Copy)]
struct Replaced {
    old: SocketAddrV4,
    new: SocketAddrV4,
}

impl Replaced {
    fn addresses(&self) -> (Ipv4Addr, Ipv4Addr) {
        (*self.old.ip(), *self.new.ip())
    }
}

#[inline]
fn replace(frame: &mut Frame, headers: &Headers, replaced: Replaced, side: Side) {
    // A partial checksum that is about something else than this transport header (an inner one) can't be
    // carried through a change of it.
    if let ChecksumState::Partial { start, .. } = frame.meta.checksum
        && usize::from(start) != headers.transport
    {
        frame.complete_checksum();
    }
    let partial = matches!(frame.meta.checksum, ChecksumState::Partial { .. });
    let (old, new) = replaced.addresses();
    let address = Change::new().ipv4(old, new);
    let bytes = frame.bytes_mut();

    if let Ok(mut packet) = ipv4::Packet::new_checked(&mut bytes[headers.network..]) {
        match side {
            Side::Source => packet.set_source(new),
            Side::Destination => packet.set_destination(new),
        }
        let sum = address.apply(packet.checksum());
        packet.set_checksum(sum);
    }
    let segment = &mut bytes[headers.transport..headers.end];
    let whole = address.word(replaced.old.port(), replaced.new.port());
    if headers.protocol == protocol::TCP {
        if let Ok(mut packet) = tcp::Packet::new_checked(segment) {
            match side {
                Side::Source => packet.set_source_port(replaced.new.port()),
                Side::Destination => packet.set_destination_port(replaced.new.port()),
            }
            // A partial sum covers the pseudo-header only: ports are not part of it.
            let sum = match partial {
                true => address.apply_partial(packet.checksum()),
                false => whole.apply(packet.checksum()),
            };
            packet.set_checksum(sum);
        }
    } else if let Ok(mut packet) = udp::Packet::new_checked(segment) {
        match side {
            Side::Source => packet.set_source_port(replaced.new.port()),
            Side::Destination => packet.set_destination_port(replaced.new.port()),
        }
        let sum = match (partial, packet.checksum()) {
            (true, sum) => address.apply_partial(sum),
            // RFC 768: the sender did not compute one, and need not get one on the way.
            (false, 0) => 0,
            (false, sum) => whole.apply_udp(sum),
        };
        packet.set_checksum(sum);
    }
}
