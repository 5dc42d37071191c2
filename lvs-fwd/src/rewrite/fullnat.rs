//! FULLNAT's TCP: numbers that begin elsewhere towards the server, and the client's address in an option.
//!
//! Addresses and ports of both sides are [NAT](super::nat)'s, done twice. What is here changes a TCP header, or the
//! options in it, and with it the lengths and checksums that cover it. Wrong checksums stay wrong, partial ones partial.
//! Headers that are cut short stay as they are.

use std::net::{IpAddr, SocketAddr};

use crate::checksum::{Change, fold, sum};
use crate::frame::{ChecksumState, Frame};
use crate::wire::{Headers, Quoted, ipv4, ipv6, protocol, tcp};

/// What a segment says of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number, if it acknowledges.
    pub acknowledgement: Option<u32>,
    /// The flags, as in [`tcp::Packet::flags`].
    pub flags: u8,
    /// Bytes of payload.
    pub payload: usize,
}

impl Segment {
    /// Reads a whole segment. `None` for anything else.
    #[inline]
    pub fn parse(frame: &Frame, headers: &Headers) -> Option<Self> {
        if headers.protocol != protocol::TCP {
            return None;
        }
        let bytes = frame.bytes().get(headers.transport..headers.end)?;
        let packet = tcp::Packet::new_checked(bytes).ok()?;
        let flags = packet.flags();
        Some(Self {
            sequence: word(bytes, SEQUENCE),
            acknowledgement: (flags & ACK != 0).then(|| word(bytes, ACKNOWLEDGEMENT)),
            flags,
            payload: bytes.len() - packet.header_len(),
        })
    }

    /// Whether it opens a connection: SYN without ACK.
    pub fn opens(&self) -> bool {
        self.flags & (SYN | ACK | RST) == SYN
    }

    /// Whether it accepts a connection: SYN with ACK.
    pub fn accepts(&self) -> bool {
        self.flags & (SYN | ACK | RST) == SYN | ACK
    }

    /// Whether it is a reset.
    pub fn resets(&self) -> bool {
        self.flags & RST != 0
    }
}

/// A client's segment on its way to the server: `delta` is added to its sequence number, options that pretend to be the
/// director's are blanked, and so are the timestamps of a segment that opens a connection. Many clients share a local
/// address, and a server would compare their clocks.
pub fn to_server(frame: &mut Frame, headers: &Headers, delta: u32) {
    change_header(frame, headers, |header| {
        let opens = header[FLAGS] & (SYN | ACK) == SYN;
        if delta != 0 {
            update(header, SEQUENCE, |number| number.wrapping_add(delta));
        }
        blank(header, |kind, len| {
            TOA_KINDS.contains(&kind) || opens && kind == TIMESTAMPS && len == 10
        });
    });
}

/// A server's segment on its way to the client: `delta` is taken from what it acknowledges, selectively too. In one that
/// accepts a connection, the largest segment gets smaller by the length of the option that clients' segments get.
pub fn to_client(frame: &mut Frame, headers: &Headers, delta: u32, option_len: u16) {
    change_header(frame, headers, |header| {
        let flags = header[FLAGS];
        if delta != 0 && flags & ACK != 0 {
            let back = |number: u32| number.wrapping_sub(delta);
            update(header, ACKNOWLEDGEMENT, back);
            for_each_option(header, |header, at, len| {
                if header[at] == SACK && len >= 10 && (len - 2) % 8 == 0 {
                    for edge in (at + 2..at + len).step_by(4) {
                        update(header, edge, back);
                    }
                }
            });
        }
        if flags & SYN != 0 {
            for_each_option(header, |header, at, len| {
                if header[at] == MSS && len == 4 {
                    let mss = u16::from_be_bytes([header[at + 2], header[at + 3]]);
                    let mss = mss.saturating_sub(option_len).max(mss.min(MIN_MSS));
                    header[at + 2..at + 4].copy_from_slice(&mss.to_be_bytes());
                }
            });
        }
    });
}

/// Length in bytes of the option that carries this client's address.
pub fn toa_len(client: IpAddr) -> u16 {
    match client {
        IpAddr::V4(_) => 8,
        IpAddr::V6(_) => 20,
    }
}

/// Puts the client's address and port into an option behind the fixed header, if the packet, or of a super-packet each
/// segment, then has no more than `mtu` bytes. Where there is no room, options that the server can do without go first.
/// Returns whether it is there.
#[doc(alias = "toa")]
pub fn insert_client(
    frame: &mut Frame,
    headers: &mut Headers,
    client: SocketAddr,
    mtu: usize,
) -> bool {
    let Some(bytes) = frame.bytes().get(headers.transport..headers.end) else {
        return false;
    };
    let Ok(packet) = tcp::Packet::new_checked(bytes) else {
        return false;
    };
    let mut options = Options::new();
    options.push_client(client);
    let added = options.len;
    let present = &bytes[tcp::MIN_HEADER_LEN..packet.header_len()];
    // A super-packet is cut smaller, so only headers count.
    let length = match frame.meta.gso {
        None => headers.ip_len(),
        Some(_) => headers.transport - headers.network + packet.header_len() + 1,
    };
    let fits = |options: usize| {
        options <= MAX_OPTIONS
            && length + options - present.len() <= mtu
            && headers.ip_len() + options - present.len() <= usize::from(u16::MAX)
    };
    if fits(added + present.len()) {
        options.push(present);
    } else {
        options.push_needed(present);
        options.pad();
        // The whole length has to be made up for where the packet may not grow at all.
        if !fits(options.len) {
            return false;
        }
    }
    set_options(frame, headers, options.bytes());
    if let Some(gso) = &mut frame.meta.gso {
        let head = headers.transport - headers.network + tcp::MIN_HEADER_LEN + options.len;
        let room = mtu.saturating_sub(head).min(usize::from(u16::MAX)) as u16;
        gso.size = gso.size.min(room);
    }
    true
}

/// Gives an IPv4 packet, whole or in fragments, or an IPv6 fragment another identification, of which IPv4 takes the lower
/// half. Nothing happens to others. Packets of several clients leave from one local address.
pub fn set_ident(frame: &mut Frame, headers: &Headers, ident: u32) {
    let Some(packet) = frame.bytes_mut().get_mut(headers.network..headers.end) else {
        return;
    };
    if headers.is_ipv6() {
        let part = ipv6::Packet::new_checked(&*packet)
            .ok()
            .and_then(|packet| packet.upper().ok()?.fragment);
        if let Some(field) = part.and_then(|part| packet.get_mut(part.at + 4..part.at + 8)) {
            field.copy_from_slice(&ident.to_be_bytes());
        }
    } else if let Some(header) = packet.first_chunk_mut::<{ ipv4::MIN_HEADER_LEN }>() {
        let (old, new) = (be16(header, 4), ident as u16);
        let sum = Change::new().word(old, new).apply(be16(header, 10));
        header[4..6].copy_from_slice(&new.to_be_bytes());
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Moves the TCP sequence number that an ICMP error quotes back to what its receiver has sent. The error's own checksum
/// is left wrong: [`error`](super::error)'s functions compute it anew.
pub fn move_quoted_sequence(frame: &mut Frame, quoted: &Quoted, delta: u32) {
    if quoted.protocol != protocol::TCP || delta == 0 {
        return;
    }
    let Some(segment) = frame
        .bytes_mut()
        .get_mut(quoted.transport..quoted.headers.end)
        .filter(|segment| segment.len() >= SEQUENCE + 4)
    else {
        return;
    };
    let before = fold(sum(&segment[SEQUENCE..SEQUENCE + 4]));
    update(segment, SEQUENCE, |number| number.wrapping_sub(delta));
    let after = fold(sum(&segment[SEQUENCE..SEQUENCE + 4]));
    if let Some(field) = segment.get_mut(tcp::CHECKSUM_OFFSET..tcp::CHECKSUM_OFFSET + 2) {
        let stored = Change::new().word(before, after).apply(be16(field, 0));
        field.copy_from_slice(&stored.to_be_bytes());
    }
}

/// Changes a TCP header without changing its length.
fn change_header(frame: &mut Frame, headers: &Headers, change: impl FnOnce(&mut [u8])) {
    let is_partial = is_partial(frame, headers);
    let Some(segment) = frame.bytes_mut().get_mut(headers.transport..headers.end) else {
        return;
    };
    let Ok(packet) = tcp::Packet::new_checked(&*segment) else {
        return;
    };
    let header_len = packet.header_len();
    let header = &mut segment[..header_len];
    // A partial sum covers the pseudo-header only.
    if is_partial {
        change(header);
        return;
    }
    let before = fold(sum(header));
    change(header);
    let after = fold(sum(header));
    let stored = be16(header, tcp::CHECKSUM_OFFSET);
    let stored = Change::new().word(before, after).apply(stored);
    header[tcp::CHECKSUM_OFFSET..tcp::CHECKSUM_OFFSET + 2].copy_from_slice(&stored.to_be_bytes());
}

/// Whether the transport checksum is partial. One that is about something else, an inner header, is completed.
fn is_partial(frame: &mut Frame, headers: &Headers) -> bool {
    match frame.meta.checksum {
        ChecksumState::Partial { start, .. } if usize::from(start) == headers.transport => true,
        ChecksumState::Partial { .. } => {
            frame.complete_checksum();
            false
        }
        ChecksumState::Complete | ChecksumState::Verified => false,
    }
}

/// Replaces all options of a whole TCP segment; their length is a multiple of four, 40 at most, and what comes out is no
/// longer than IP allows.
fn set_options(frame: &mut Frame, headers: &mut Headers, options: &[u8]) {
    let is_partial = is_partial(frame, headers);
    let transport = headers.transport;
    let Ok(packet) = tcp::Packet::new_checked(&frame.bytes()[transport..headers.end]) else {
        return;
    };
    let old_header = packet.header_len();
    let new_header = tcp::MIN_HEADER_LEN + options.len();
    let old_len = headers.end - transport;
    let new_len = old_len - old_header + new_header;
    let before = fold(sum(&frame.bytes()[transport..transport + old_header]));
    // What lies in front of the options moves, the payload does not.
    let front = transport + tcp::MIN_HEADER_LEN;
    let checksum = frame.meta.checksum;
    if new_header > old_header {
        let more = new_header - old_header;
        frame.grow_front(more);
        frame.bytes_mut().copy_within(more..more + front, 0);
    } else {
        let less = old_header - new_header;
        frame.bytes_mut().copy_within(..front, less);
        frame.trim_front(less);
    }
    // The header's place has not changed; the hint about its length has followed.
    frame.meta.checksum = checksum;
    headers.end = transport + new_len;
    let bytes = frame.bytes_mut();
    bytes[front..front + options.len()].copy_from_slice(options);
    bytes[transport + DATA_OFFSET] =
        (new_header as u8 / 4) << 4 | bytes[transport + DATA_OFFSET] & 0x0f;
    let after = fold(sum(&bytes[transport..transport + new_header]));
    let lengths = Change::new().word(old_len as u16, new_len as u16);
    let field = transport + tcp::CHECKSUM_OFFSET;
    let stored = be16(bytes, field);
    let stored = match is_partial {
        true => lengths.apply_partial(stored),
        false => lengths.word(before, after).apply(stored),
    };
    bytes[field..field + 2].copy_from_slice(&stored.to_be_bytes());
    set_ip_len(bytes, headers);
}

/// Writes the packet's length into its IP header.
fn set_ip_len(bytes: &mut [u8], headers: &Headers) {
    let length = headers.ip_len();
    let ip = &mut bytes[headers.network..];
    if headers.is_ipv6() {
        let payload = (length - ipv6::HEADER_LEN) as u16;
        ip[4..6].copy_from_slice(&payload.to_be_bytes());
    } else {
        let change = Change::new().word(be16(ip, 2), length as u16);
        let sum = change.apply(be16(ip, 10));
        ip[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Turns options into NOPs.
fn blank(header: &mut [u8], is_unwanted: impl Fn(u8, usize) -> bool) {
    for_each_option(header, |header, at, len| {
        if is_unwanted(header[at], len) {
            header[at..at + len].fill(NOP);
        }
    });
}

/// Calls back with place and length of each option of more than one byte, up to what makes no sense.
fn for_each_option(header: &mut [u8], mut each: impl FnMut(&mut [u8], usize, usize)) {
    let mut at = tcp::MIN_HEADER_LEN;
    while at < header.len() {
        match header[at] {
            END => return,
            NOP => at += 1,
            _ => {
                let len = usize::from(header.get(at + 1).copied().unwrap_or(0));
                if len < 2 || at + len > header.len() {
                    return;
                }
                each(header, at, len);
                at += len;
            }
        }
    }
}

fn update(header: &mut [u8], at: usize, new: impl FnOnce(u32) -> u32) {
    let number = new(word(header, at));
    header[at..at + 4].copy_from_slice(&number.to_be_bytes());
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Options to be written, as many as there is room for.
struct Options {
    bytes: [u8; 64],
    len: usize,
}

impl Options {
    fn new() -> Self {
        Self {
            bytes: [END; 64],
            len: 0,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// At most 20 bytes and then 40.
    fn push(&mut self, option: &[u8]) {
        self.bytes[self.len..self.len + option.len()].copy_from_slice(option);
        self.len += option.len();
    }

    fn push_client(&mut self, client: SocketAddr) {
        let len = toa_len(client.ip()) as u8;
        self.push(&[TOA, len]);
        self.push(&client.port().to_be_bytes());
        match client.ip() {
            IpAddr::V4(addr) => self.push(&addr.octets()),
            IpAddr::V6(addr) => self.push(&addr.octets()),
        }
    }

    /// Of these options the one that a server needs in a segment that does not open a connection: timestamps, once.
    fn push_needed(&mut self, options: &[u8]) {
        let mut header = [0; MAX_OPTIONS + tcp::MIN_HEADER_LEN];
        let header = &mut header[..tcp::MIN_HEADER_LEN + options.len().min(MAX_OPTIONS)];
        let copied = header.len() - tcp::MIN_HEADER_LEN;
        header[tcp::MIN_HEADER_LEN..].copy_from_slice(&options[..copied]);
        let mut seen = false;
        for_each_option(header, |header, at, len| {
            if header[at] == TIMESTAMPS && len == 10 && !std::mem::replace(&mut seen, true) {
                self.push(&header[at..at + len]);
            }
        });
    }

    fn pad(&mut self) {
        self.len = self.len.next_multiple_of(4);
    }
}

const SEQUENCE: usize = 4;
const ACKNOWLEDGEMENT: usize = 8;
const DATA_OFFSET: usize = 12;
const FLAGS: usize = 13;
const MAX_OPTIONS: usize = 40;

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
/// RFC 4727 leaves it to experiments.
const TOA: u8 = 254;
/// What receivers take for it.
const TOA_KINDS: [u8; 2] = [253, 254];
/// No segment has to be smaller (RFC 879, section 3).
const MIN_MSS: u16 = 536;

#[cfg(test)]
#[path = "fullnat_tests.rs"]
mod tests;
