//! ICMP errors about packets of NAT connections: the addresses change outside and in what is quoted, so that the receiver
//! finds its own packet there.

use std::net::{IpAddr, SocketAddr};

use crate::checksum::{self, Change};
use crate::frame::{ChecksumState, Frame};
use crate::wire::{Headers, Quoted, icmp, ipv4, protocol, tcp, udp};

/// An error about what a real server has sent to a client: virtual service → real server, as the receiver and as the
/// quoted sender. Nothing happens if the server is of the other family.
pub fn set_destination(frame: &mut Frame, headers: &mut Headers, destination: SocketAddr) {
    if translate(frame, destination, Side::Destination) {
        headers.destination = SocketAddr::new(destination.ip(), 0);
    }
}

/// An error about what a client has sent to a real server: real server, or a router on the way there, → virtual service,
/// as the sender and as the quoted receiver. Nothing happens if the service is of the other family.
pub fn set_source(frame: &mut Frame, headers: &mut Headers, source: SocketAddr) {
    if translate(frame, source, Side::Source) {
        headers.source = SocketAddr::new(source.ip(), 0);
    }
}

/// The side of the error that changes; of what is quoted it is the other one.
#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

fn translate(frame: &mut Frame, new: SocketAddr, side: Side) -> bool {
    let Some(quoted) = Quoted::parse(frame.bytes()) else {
        return false;
    };
    if new.is_ipv6() != quoted.headers.is_ipv6() {
        return false;
    }
    // The message's checksum is computed anew below.
    frame.meta.checksum = ChecksumState::Complete;
    let bytes = &mut frame.bytes_mut()[..quoted.headers.end];
    set_address(&mut bytes[quoted.headers.network..], new.ip(), side);
    let (inner, old) = match side {
        Side::Destination => (Side::Source, quoted.source),
        Side::Source => (Side::Destination, quoted.destination),
    };
    set_address(&mut bytes[quoted.network..], new.ip(), inner);
    set_port(
        &mut bytes[quoted.transport..],
        quoted.protocol,
        old,
        new,
        inner,
    );
    let (source, destination) = match side {
        Side::Source => (new.ip(), quoted.headers.destination.ip()),
        Side::Destination => (quoted.headers.source.ip(), new.ip()),
    };
    let message = &mut bytes[quoted.headers.transport..];
    message[ICMP_CHECKSUM..ICMP_CHECKSUM + 2].fill(0);
    let pseudo = match (source, destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            icmp::pseudo_v6(source, destination, message.len())
        }
        _ => 0,
    };
    let sum = checksum::finish(pseudo + checksum::sum(message));
    message[ICMP_CHECKSUM..ICMP_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    true
}

/// Sets an address of an IP header, in IPv4 of one without options. The rest of the packet may be missing.
fn set_address(packet: &mut [u8], new: IpAddr, side: Side) {
    match new {
        IpAddr::V4(new) => {
            let at = match side {
                Side::Source => 12,
                Side::Destination => 16,
            };
            let Some(header) = packet.first_chunk_mut::<{ ipv4::MIN_HEADER_LEN }>() else {
                return;
            };
            let mut old = [0; 4];
            old.copy_from_slice(&header[at..at + 4]);
            header[at..at + 4].copy_from_slice(&new.octets());
            let sum = u16::from_be_bytes([header[10], header[11]]);
            let sum = Change::new().ipv4(old.into(), new).apply(sum);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        IpAddr::V6(new) => {
            let at = match side {
                Side::Source => 8,
                Side::Destination => 24,
            };
            if let Some(addr) = packet.get_mut(at..at + 16) {
                addr.copy_from_slice(&new.octets());
            }
        }
    }
}

/// Sets a port, and updates the checksum of TCP and UDP if that much is quoted.
fn set_port(segment: &mut [u8], kind: u8, old: SocketAddr, new: SocketAddr, side: Side) {
    let at = match side {
        Side::Source => 0,
        Side::Destination => 2,
    };
    segment[at..at + 2].copy_from_slice(&new.port().to_be_bytes());
    let change = Change::new()
        .addr(old.ip(), new.ip())
        .word(old.port(), new.port());
    let at = match kind {
        protocol::TCP => tcp::CHECKSUM_OFFSET,
        protocol::UDP => udp::CHECKSUM_OFFSET,
        // SCTP's covers all of the packet, which is not quoted.
        _ => return,
    };
    let Some(field) = segment.get_mut(at..at + 2) else {
        return;
    };
    let sum = u16::from_be_bytes([field[0], field[1]]);
    let sum = match (kind, sum) {
        (protocol::UDP, 0) => 0,
        (protocol::UDP, sum) => change.apply_udp(sum),
        (_, sum) => change.apply(sum),
    };
    field.copy_from_slice(&sum.to_be_bytes());
}

const ICMP_CHECKSUM: usize = 2;
