//! Direct routing: one hop less, everything else stays.

use crate::checksum::Change;
use crate::frame::Frame;
use crate::wire::{Headers, ipv4};

/// Takes one from the hops left and updates the header checksum. The caller has made sure that there are
/// more than one.
#[inline]
pub fn decrement_ttl(frame: &mut Frame, headers: &Headers) {
    let Ok(mut packet) = ipv4::Packet::new_checked(&mut frame.bytes_mut()[headers.network..])
    else {
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
