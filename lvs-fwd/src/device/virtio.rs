//! The 10-byte virtio-net header, in which packet sockets and TUN devices carry offload metadata.
//!
//! Fields are in host byte order there, and offsets count from the frame's first byte.

use crate::frame::{ChecksumState, FrameMeta, Gso, GsoKind};

/// Length of the header in bytes.
pub const LEN: usize = 10;

/// Reads a header into the checksum state and super-packet description. `None` if it names a kind of
/// super-packet that is not known here, or one with segments of no bytes.
pub fn decode(header: &[u8; LEN]) -> Option<(ChecksumState, Option<Gso>)> {
    let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let checksum = if header[0] & NEEDS_CHECKSUM != 0 {
        ChecksumState::Partial {
            start: word(6),
            offset: word(8),
        }
    } else if header[0] & DATA_VALID != 0 {
        ChecksumState::Verified
    } else {
        ChecksumState::Complete
    };
    let kind = match header[1] & !ECN {
        0 => return Some((checksum, None)),
        1 => GsoKind::Tcp4,
        3 => GsoKind::UdpFragments,
        4 => GsoKind::Tcp6,
        5 => GsoKind::Udp,
        _ => return None,
    };
    let gso = Gso {
        kind,
        ecn: header[1] & ECN != 0,
        size: word(4),
        header_len: word(2),
    };
    (gso.size != 0).then_some((checksum, Some(gso)))
}

/// Writes the header that asks for what is left to do. "Data valid" is a statement about reception and is
/// not sent.
pub fn encode(meta: &FrameMeta) -> [u8; LEN] {
    let mut header = [0; LEN];
    let mut put = |at: usize, value: u16| header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    if let ChecksumState::Partial { start, offset } = meta.checksum {
        put(6, start);
        put(8, offset);
    }
    if let Some(gso) = meta.gso {
        put(2, gso.header_len);
        put(4, gso.size);
        header[1] = match gso.kind {
            GsoKind::Tcp4 => 1,
            GsoKind::UdpFragments => 3,
            GsoKind::Tcp6 => 4,
            GsoKind::Udp => 5,
        };
        if gso.ecn {
            header[1] |= ECN;
        }
    }
    if matches!(meta.checksum, ChecksumState::Partial { .. }) {
        header[0] = NEEDS_CHECKSUM;
    }
    header
}

const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const ECN: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    fn header(flags: u8, gso: u8, words: [u16; 4]) -> [u8; LEN] {
        let mut header = [flags, gso, 0, 0, 0, 0, 0, 0, 0, 0];
        for (at, word) in words.into_iter().enumerate() {
            header[2 + 2 * at..4 + 2 * at].copy_from_slice(&word.to_ne_bytes());
        }
        header
    }

    #[test]
    fn headers_observed_on_veth_survive() {
        for observed in [
            header(1, 0, [0, 0, 34, 16]),
            header(1, 1, [66, 1448, 34, 16]),
        ] {
            let (checksum, gso) = decode(&observed).unwrap();
            assert_eq!(
                checksum,
                ChecksumState::Partial {
                    start: 34,
                    offset: 16
                }
            );
            let meta = FrameMeta {
                checksum,
                gso,
                ..FrameMeta::default()
            };
            assert_eq!(encode(&meta), observed);
        }
    }

    #[test]
    fn data_valid_is_not_passed_on() {
        let (checksum, gso) = decode(&header(2, 0, [0; 4])).unwrap();
        assert_eq!((checksum, gso), (ChecksumState::Verified, None));
        let meta = FrameMeta {
            checksum,
            ..FrameMeta::default()
        };
        assert_eq!(encode(&meta), [0; LEN]);
    }

    #[test]
    fn unknown_kinds_and_empty_segments_are_refused() {
        assert_eq!(decode(&header(1, 2, [66, 1448, 34, 16])), None);
        assert_eq!(decode(&header(1, 1, [66, 0, 34, 16])), None);
    }
}
