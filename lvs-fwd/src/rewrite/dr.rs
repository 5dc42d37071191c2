//! Direct routing: one hop less, everything else stays.

use crate::checksum::Change;
use crate::frame::Frame;
use crate::wire::{Headers, ipv4, ipv6};

/// Takes one from the hops left and updates the checksum of an IPv4 header. The caller has made sure that there are
/// more than one.
#[inline]
pub fn decrement_ttl(frame: &mut Frame, headers: &Headers) {
    decrement(frame.bytes_mut(), headers);
}

/// [`decrement_ttl`] in the frame's bytes.
#[inline]
pub(crate) fn decrement(bytes: &mut [u8], headers: &Headers) {
    let Some(packet) = bytes.get_mut(headers.network..) else {
        return;
    };
    if headers.is_ipv6() {
        if let Ok(mut packet) = ipv6::Packet::new_checked(packet) {
            packet.set_hop_limit(packet.hop_limit().saturating_sub(1));
        }
        return;
    }
    let Some(mut packet) = ipv4::Packet::fixed(packet) else {
        return;
    };
    let (ttl, protocol) = (packet.ttl(), packet.protocol());
    let left = ttl.saturating_sub(1);
    // TTL and protocol share a word.
    let word = |ttl: u8| u16::from_be_bytes([ttl, protocol]);
    let sum = Change::new()
        .word(word(ttl), word(left))
        .apply(packet.checksum());
    packet.set_ttl(left);
    packet.set_checksum(sum);
}

/// Hops left; 0 if there is no header.
#[inline]
pub(crate) fn hops_left(bytes: &[u8], headers: &Headers) -> u8 {
    let at = headers.network + if headers.is_ipv6() { 7 } else { 8 };
    bytes.get(at).copied().unwrap_or(0)
}
