//! One frame: bytes that can be rewritten in place, and what the kernel said about them.
//!
//! A [`Frame`] is a value. It owns a slot of a receive ring, a chunk of packet memory or a buffer on the heap; whoever
//! holds it may change it, sending it moves it, and dropping it gives a slot back to its ring. Frames may be
//! released in any order. A frame that is kept for long (held for a neighbour, handed to another worker)
//! is copied to the heap first, so that rings do not run dry.

use std::ops::Range;

use crate::checksum;
use crate::sys::ring::Slot;
#[cfg(feature = "af-xdp")]
use crate::sys::xdp::{Chunk, Memory};
use crate::wire::sctp;
#[cfg(feature = "af-xdp")]
use std::sync::Arc;

/// Room in front of a frame's first byte, so that a header can be put there without moving the rest.
pub const HEADROOM: usize = 64;

/// Bytes of an Ethernet frame, or of an IP packet where a device has no link header.
#[derive(Debug)]
pub struct Frame {
    storage: Storage,
    start: usize,
    end: usize,
    /// What is known about the bytes beyond the bytes.
    pub meta: FrameMeta,
}

impl Frame {
    /// A frame on the heap holding a copy of these bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut buffer = Vec::with_capacity(HEADROOM + bytes.len());
        buffer.resize(HEADROOM, 0);
        buffer.extend_from_slice(bytes);
        Self::from_buffer(buffer, HEADROOM)
    }

    /// A frame of `len` zero bytes on the heap.
    pub fn zeroed(len: usize) -> Self {
        Self::from_buffer(vec![0; HEADROOM + len], HEADROOM)
    }

    /// A frame that takes over a buffer; its bytes begin at `start`.
    ///
    /// # Panics
    ///
    /// If `start` lies beyond the buffer.
    pub fn from_buffer(buffer: Vec<u8>, start: usize) -> Self {
        assert!(start <= buffer.len(), "a frame begins inside its buffer");
        let end = buffer.len();
        Self {
            storage: Storage::Heap(buffer),
            start,
            end,
            meta: FrameMeta::default(),
        }
    }

    /// A frame in a ring slot: `start..end` within the slot's bytes. `None` if that is no part of the slot.
    pub(crate) fn from_slot(slot: Slot, start: usize, end: usize, meta: FrameMeta) -> Option<Self> {
        (start <= end && end <= slot.bytes().len()).then_some(Self {
            storage: Storage::Slot(slot),
            start,
            end,
            meta,
        })
    }

    /// A frame in a chunk of packet memory: `start..end` within it. `None` if that is no part of the chunk.
    #[cfg(feature = "af-xdp")]
    pub(crate) fn from_chunk(chunk: Chunk, start: usize, end: usize) -> Option<Self> {
        (start <= end && end <= chunk.bytes().len()).then_some(Self {
            storage: Storage::Chunk(chunk),
            start,
            end,
            meta: FrameMeta::default(),
        })
    }

    /// The chunk that the frame lies in, with the place of its first byte there; the frame itself if it does not lie in a
    /// chunk of this memory.
    #[cfg(feature = "af-xdp")]
    pub(crate) fn into_chunk(self, memory: &Arc<Memory>) -> Result<(Chunk, usize), Self> {
        match self.storage {
            Storage::Chunk(chunk) if chunk.is_of(memory) => Ok((chunk, self.start)),
            storage => Err(Self { storage, ..self }),
        }
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.storage.bytes()[self.start..self.end]
    }

    /// The bytes, to be rewritten in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.storage.bytes_mut()[self.start..self.end]
    }

    /// Number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether the bytes lie on the heap, so that keeping the frame costs no ring anything.
    pub fn is_owned(&self) -> bool {
        matches!(self.storage, Storage::Heap(_))
    }

    /// The same frame on the heap; a ring slot is given back.
    #[must_use]
    pub fn into_owned(mut self) -> Self {
        self.make_owned();
        self
    }

    /// Moves the bytes to the heap, if they are not there yet; a ring slot is given back.
    pub fn make_owned(&mut self) {
        if !self.is_owned() {
            self.relocate(HEADROOM);
        }
    }

    /// Cuts the frame to `len` bytes; longer than it is changes nothing.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }

    /// Removes `count` bytes (or all, if there are fewer) from the front. Offsets in the metadata follow.
    pub fn trim_front(&mut self, count: usize) {
        let count = count.min(self.len());
        self.start += count;
        self.meta.shift(-(count as isize));
    }

    /// Puts `count` bytes of unspecified content in front. Offsets in the metadata follow.
    pub fn grow_front(&mut self, count: usize) {
        if count > self.start {
            self.relocate(HEADROOM + count);
        }
        self.start -= count;
        self.meta.shift(count as isize);
    }

    /// Puts `text` in the place of some bytes. If it has another length the frame moves to the heap. Offsets in the
    /// metadata stay: what is replaced must lie behind them.
    ///
    /// # Panics
    ///
    /// If `at` is no part of the frame.
    pub fn splice(&mut self, at: Range<usize>, text: &[u8]) {
        if at.len() == text.len() {
            self.bytes_mut()[at].copy_from_slice(text);
            return;
        }
        let mut buffer = Vec::with_capacity(HEADROOM + self.len() - at.len() + text.len());
        buffer.resize(HEADROOM, 0);
        buffer.extend_from_slice(&self.bytes()[..at.start]);
        buffer.extend_from_slice(text);
        buffer.extend_from_slice(&self.bytes()[at.end..]);
        self.start = HEADROOM;
        self.end = buffer.len();
        self.storage = Storage::Heap(buffer);
    }

    /// Finishes a partial checksum, for an output that can't carry the request along. Nothing happens to
    /// any other frame.
    ///
    /// The frame must have been cut to the length that its IP header states: padding is no payload.
    pub fn complete_checksum(&mut self) {
        let ChecksumState::Partial { start, offset } = self.meta.checksum else {
            return;
        };
        self.meta.checksum = ChecksumState::Complete;
        let bytes = self.bytes_mut();
        let (start, field) = (usize::from(start), usize::from(start) + usize::from(offset));
        if field + 2 > bytes.len() {
            return;
        }
        if usize::from(offset) == sctp::CHECKSUM_OFFSET {
            // Nobody else has it there. What marks SCTP's checksum as another kind does not reach user space.
            if let Ok(mut packet) = sctp::Packet::new_checked(&mut bytes[start..]) {
                packet.fill_checksum();
            }
            return;
        }
        // The field holds the sum of the pseudo-header and is part of what is summed.
        let sum = checksum::finish(checksum::sum(&bytes[start..]));
        // Zero means "none" in UDP and is the same number as 0xffff elsewhere.
        let sum = if sum == 0 { 0xffff } else { sum };
        bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// The buffer of a frame on the heap, for another use.
    pub(crate) fn into_buffer(self) -> Option<Vec<u8>> {
        match self.storage {
            Storage::Heap(buffer) => Some(buffer),
            _ => None,
        }
    }

    /// Takes the frame out of a place; an empty one, which owns nothing, stays there.
    #[inline]
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::empty())
    }

    /// One without bytes.
    #[inline]
    pub(crate) fn empty() -> Self {
        Self {
            storage: Storage::Heap(Vec::new()),
            start: 0,
            end: 0,
            meta: FrameMeta::default(),
        }
    }

    /// Copies the bytes to a new buffer with this much room in front.
    fn relocate(&mut self, headroom: usize) {
        let mut buffer = Vec::with_capacity(headroom + self.len());
        buffer.resize(headroom, 0);
        buffer.extend_from_slice(self.bytes());
        self.start = headroom;
        self.end = buffer.len();
        self.storage = Storage::Heap(buffer);
    }
}

impl Clone for Frame {
    /// The copy lies on the heap.
    fn clone(&self) -> Self {
        let mut copy = Self::from_bytes(self.bytes());
        copy.meta = self.meta;
        copy
    }
}

/// What is known about a frame beyond its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameMeta {
    /// State of the transport checksum.
    pub checksum: ChecksumState,
    /// Set if the frame is a super-packet that stands for several segments.
    pub gso: Option<Gso>,
    /// Whom the link layer addressed.
    pub kind: PacketKind,
    /// The outermost VLAN tag, which is not part of the bytes.
    pub vlan: Option<VlanTag>,
    /// Set if it was put together from fragments: IP length of the longest one. It fits where that one fits.
    pub longest_part: Option<u16>,
    /// The host has no copy of it: the device took it away. What turns out not to be the balancer's is given back.
    pub exclusive: bool,
}

impl FrameMeta {
    /// Adjusts offsets from the first byte after the front has moved by `count` bytes.
    fn shift(&mut self, count: isize) {
        let moved = |offset: u16| {
            let moved = isize::try_from(offset)
                .unwrap_or(isize::MAX)
                .saturating_add(count);
            u16::try_from(moved.max(0)).unwrap_or(u16::MAX)
        };
        if let ChecksumState::Partial { start, .. } = &mut self.checksum {
            *start = moved(*start);
        }
        if let Some(gso) = &mut self.gso {
            gso.header_len = moved(gso.header_len);
        }
    }
}

/// State of a frame's transport checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChecksumState {
    /// Filled in by the sender; nobody has checked it.
    #[default]
    Complete,
    /// Filled in, and found right by the device.
    Verified,
    /// Not filled in: the field holds the plain (not complemented) sum of the pseudo-header, and whoever
    /// sends the frame adds the sum of the bytes from `start` on.
    Partial {
        /// Where summing begins: the transport header, from the frame's first byte.
        start: u16,
        /// The checksum field, from `start`.
        offset: u16,
    },
}

/// How a super-packet is to be cut when it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gso {
    /// By which rules.
    pub kind: GsoKind,
    /// Whether the first segment alone carries CWR (TCP with ECN).
    pub ecn: bool,
    /// Transport payload bytes of each segment; the last may have fewer.
    pub size: u16,
    /// Link, IP and transport header bytes together; a hint.
    pub header_len: u16,
}

/// Kinds of super-packets that a packet socket can express.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP, to be cut into datagrams.
    Udp,
    /// UDP, to be cut into IP fragments.
    UdpFragments,
}

/// Whom the link layer addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PacketKind {
    /// This host.
    #[default]
    Host,
    /// Everybody on the link.
    Broadcast,
    /// A group.
    Multicast,
    /// Another host; seen in promiscuous mode.
    OtherHost,
    /// Sent by this host.
    Outgoing,
}

/// An 802.1Q or 802.1ad tag that the kernel took off the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanTag {
    /// Priority, drop eligibility and VLAN number.
    pub tci: u16,
    /// EtherType of the tag, 0x8100 or 0x88a8.
    pub tpid: u16,
}

impl VlanTag {
    /// The VLAN number; 0 for a frame that has a priority but no VLAN.
    pub fn id(&self) -> u16 {
        self.tci & 0x0fff
    }
}

#[derive(Debug)]
enum Storage {
    Heap(Vec<u8>),
    Slot(Slot),
    #[cfg(feature = "af-xdp")]
    Chunk(Chunk),
}

impl Storage {
    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Heap(buffer) => buffer,
            Self::Slot(slot) => slot.bytes(),
            #[cfg(feature = "af-xdp")]
            Self::Chunk(chunk) => chunk.bytes(),
        }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Heap(buffer) => buffer,
            Self::Slot(slot) => slot.bytes_mut(),
            #[cfg(feature = "af-xdp")]
            Self::Chunk(chunk) => chunk.bytes_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_and_go_and_offsets_follow() {
        let mut frame = Frame::from_bytes(b"payload");
        frame.meta.checksum = ChecksumState::Partial {
            start: 3,
            offset: 2,
        };
        frame.meta.gso = Some(Gso {
            kind: GsoKind::Tcp4,
            ecn: false,
            size: 1,
            header_len: 3,
        });
        frame.grow_front(14);
        assert_eq!(&frame.bytes()[14..], b"payload");
        assert_eq!(
            frame.meta.checksum,
            ChecksumState::Partial {
                start: 17,
                offset: 2
            }
        );
        assert_eq!(frame.meta.gso.unwrap().header_len, 17);
        frame.grow_front(HEADROOM);
        assert_eq!(&frame.bytes()[14 + HEADROOM..], b"payload");
        frame.trim_front(14 + HEADROOM);
        assert_eq!(frame.bytes(), b"payload");
        assert_eq!(
            frame.meta.checksum,
            ChecksumState::Partial {
                start: 3,
                offset: 2
            }
        );
        frame.trim_front(100);
        assert!(frame.is_empty());
    }

    #[test]
    fn truncation_only_shortens() {
        let mut frame = Frame::from_bytes(b"payload");
        frame.truncate(100);
        assert_eq!(frame.len(), 7);
        frame.truncate(3);
        assert_eq!(frame.bytes(), b"pay");
    }

    #[test]
    fn a_frame_moves_between_threads() {
        fn send<T: Send>() {}
        send::<Frame>();
    }
}
