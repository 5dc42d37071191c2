//! Direct routing: one hop less, everything else stays.

use crate::checksum::Change;
use crate::frame::Frame;
use crate::wire::{Headers, ipv4, ipv6};

/// Takes one from the hops left and updates the checksum of an IPv4 header. The caller has made sure that there are
/// more than one.
#[inline]
pub fn decrement_ttl(frame: &mut Frame, headers: &Headers) {
    let bytes = &mut frame.bytes_mut()[headers.network..];
    if headers.is_ipv6() {
        if let Ok(mut packet) = ipv6::Packet::new_checked(bytes) {
            packet.set_hop_limit(packet.hop_limit().saturating_sub(1));
        }
        return;
    }
    let Ok(mut packet) = ipv4::Packet::new_checked(bytes) else {
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
