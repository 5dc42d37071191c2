//! What a device without offload metadata does itself: it finishes checksums and cuts super-packets before they leave, and
//! finds out which checksums of received frames are unfinished.

use std::net::IpAddr;

use super::DeviceCounters;
use crate::checksum;
use crate::frame::{ChecksumState, Frame, GsoKind};
use crate::rewrite::{fragment, segment};
use crate::wire::{Headers, ethernet, ipv4, ipv6, protocol, sctp, tcp, udp};

/// Passes on what can leave as it is, no longer than `longest` bytes, and counts what can't. With a link header.
fn finish(
    mut frame: Frame,
    longest: usize,
    counters: &mut DeviceCounters,
    mut pass: impl FnMut(Frame),
) {
    let Some(gso) = frame.meta.gso else {
        frame.complete_checksum();
        if frame.len() > longest {
            counters.too_long += 1;
        } else {
            pass(frame);
        }
        return;
    };
    let mut too_long = 0;
    let mut pass = |part: Frame| match part.len() <= longest {
        true => pass(part),
        false => too_long += 1,
    };
    let count = match gso.kind {
        GsoKind::UdpFragments => {
            frame.complete_checksum();
            frame.meta.gso = None;
            let mtu = longest.saturating_sub(ethernet::HEADER_LEN);
            fragment::fragment(&mut frame, ethernet::HEADER_LEN, mtu, &mut pass)
        }
        GsoKind::Tcp4 | GsoKind::Tcp6 | GsoKind::Udp => Headers::parse(frame.bytes())
            .map_or(0, |headers| {
                segment::segment(&frame, &headers, gso.size.into(), &mut pass)
            }),
    };
    counters.too_long += too_long;
    if count == 0 {
        counters.refused += 1;
    }
}

/// Puts what can leave as it is, no longer than `longest` bytes, into a queue of at most `limit` frames, and counts the rest.
/// With a link header.
pub(super) fn finish_into(
    frame: Frame,
    longest: usize,
    counters: &mut DeviceCounters,
    waiting: &mut Vec<Frame>,
    limit: usize,
) {
    let mut no_buffers = 0;
    finish(frame, longest, counters, |part| {
        if waiting.len() < limit {
            waiting.push(part);
        } else {
            no_buffers += 1;
        }
    });
    counters.no_buffers += no_buffers;
}

/// The state of a received frame's checksum, as far as the frame itself tells: it is unfinished if it is the bare sum of
/// the pseudo-header, of SCTP if it is zero.
///
/// A finished checksum can be that number too, once in 65,536 packets. Finishing it then gives the very same number, so
/// nothing is lost; only a packet that was damaged on its way besides would go unnoticed.
#[inline]
#[cfg(any(feature = "af-xdp", feature = "pnet"))]
pub(super) fn checksum_state(bytes: &[u8]) -> ChecksumState {
    unfinished(bytes, ethernet::HEADER_LEN).unwrap_or_default()
}

/// The same for an IP packet.
pub(super) fn checksum_state_ip(bytes: &[u8]) -> ChecksumState {
    unfinished(bytes, 0).unwrap_or_default()
}

#[inline]
fn unfinished(bytes: &[u8], link: usize) -> Option<ChecksumState> {
    let network = bytes.get(link..)?;
    let version = network.first()? >> 4;
    let is_ip = |ethertype: u16| link == 0 || bytes[12..14] == ethertype.to_be_bytes();
    let (source, destination, kind, header_len, length): (IpAddr, IpAddr, _, _, _) = match version {
        4 if is_ip(ethernet::IPV4) => {
            let packet = ipv4::Packet::new_checked(network).ok()?;
            if packet.is_fragment() {
                return None;
            }
            let (from, to) = (packet.source(), packet.destination());
            let header_len = packet.header_len();
            let length = packet.total_len() - header_len;
            (
                from.into(),
                to.into(),
                packet.protocol(),
                header_len,
                length,
            )
        }
        6 if is_ip(ethernet::IPV6) => {
            let packet = ipv6::Packet::new_checked(network).ok()?;
            let (from, to) = (packet.source(), packet.destination());
            let length = packet.payload().len();
            (
                from.into(),
                to.into(),
                packet.next_header(),
                ipv6::HEADER_LEN,
                length,
            )
        }
        _ => return None,
    };
    let offset = match kind {
        protocol::TCP => tcp::CHECKSUM_OFFSET,
        protocol::UDP => udp::CHECKSUM_OFFSET,
        protocol::SCTP => {
            let field = network
                .get(header_len + sctp::CHECKSUM_OFFSET..)?
                .get(..4)?;
            return (field == [0; 4]).then_some(ChecksumState::Partial {
                start: (link + header_len) as u16,
                offset: sctp::CHECKSUM_OFFSET as u16,
            });
        }
        _ => return None,
    };
    let field = network.get(header_len + offset..header_len + offset + 2)?;
    let field = u16::from_be_bytes([field[0], field[1]]);
    let length = u32::try_from(length).ok()?;
    let bare = checksum::fold(checksum::pseudo_header(source, destination, kind, length));
    // Zero is "none" in UDP, and no sum of addresses is.
    (field == bare && field != 0).then_some(ChecksumState::Partial {
        start: (link + header_len) as u16,
        offset: offset as u16,
    })
}
