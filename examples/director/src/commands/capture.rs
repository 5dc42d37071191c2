//! Packets out of capture files: pcap, of either byte order and resolution.

/// The n-th packet of the file, from 1: an Ethernet frame or an IP packet without a link header.
///
/// # Errors
///
/// [`CaptureError`]
pub(crate) fn packet(file: &[u8], number: usize) -> Result<Vec<u8>, CaptureError> {
    let header = file.get(..FILE_HEADER).ok_or(CaptureError::NotPcap)?;
    let word = match u32::from_le_bytes([header[0], header[1], header[2], header[3]]) {
        MICROSECONDS | NANOSECONDS => little as fn(&[u8], usize) -> Option<u32>,
        swapped if [MICROSECONDS, NANOSECONDS].contains(&swapped.swap_bytes()) => big,
        _ => return Err(CaptureError::NotPcap),
    };
    let link = word(header, 20).ok_or(CaptureError::NotPcap)? & 0xffff;
    let mut at = FILE_HEADER;
    let mut count = 0;
    loop {
        let record = file.get(at..).unwrap_or_default();
        let Some(captured) = word(record, 8) else {
            return Err(CaptureError::TooFew(count));
        };
        let end = (captured as usize).checked_add(RECORD_HEADER);
        let bytes = end.and_then(|end| record.get(RECORD_HEADER..end));
        let Some(bytes) = bytes else {
            return Err(CaptureError::TooFew(count));
        };
        count += 1;
        if count == number {
            return unwrap(link, bytes);
        }
        at += RECORD_HEADER + bytes.len();
    }
}

/// Why there is no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CaptureError {
    /// The file is of another format.
    #[error("not a pcap file (pcapng is converted by `tcpdump -r FILE -w NEW`)")]
    NotPcap,
    /// The file has fewer packets.
    #[error("the file has {0} packets")]
    TooFew(usize),
    /// The link layer is not known here.
    #[error("packets of link type {0} are not understood here")]
    LinkType(u32),
}

/// Takes the link layers off that are not Ethernet.
fn unwrap(link: u32, bytes: &[u8]) -> Result<Vec<u8>, CaptureError> {
    match link {
        1 | 12 | 101 | 228 | 229 => Ok(bytes.to_vec()),
        // Linux cooked captures (`tcpdump -i any`), versions 1 and 2.
        113 => Ok(bytes.get(16..).unwrap_or_default().to_vec()),
        276 => Ok(bytes.get(20..).unwrap_or_default().to_vec()),
        other => Err(CaptureError::LinkType(other)),
    }
}

fn little(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn big(bytes: &[u8], at: usize) -> Option<u32> {
    little(bytes, at).map(u32::swap_bytes)
}

const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(link: u32, packets: &[&[u8]], order: fn(u32) -> [u8; 4]) -> Vec<u8> {
        let mut file = order(MICROSECONDS).to_vec();
        file.extend([0; 16]);
        file.extend(order(link));
        for packet in packets {
            file.extend([0; 8]);
            file.extend(order(packet.len() as u32));
            file.extend(order(packet.len() as u32));
            file.extend(*packet);
        }
        file
    }

    #[test]
    fn packets_are_counted_from_one_in_both_byte_orders() {
        for order in [u32::to_le_bytes, u32::to_be_bytes] {
            let file = capture(1, &[b"one", b"second"], order);
            assert_eq!(packet(&file, 1).unwrap(), b"one");
            assert_eq!(packet(&file, 2).unwrap(), b"second");
            assert_eq!(packet(&file, 3), Err(CaptureError::TooFew(2)));
            assert_eq!(packet(&file, 0), Err(CaptureError::TooFew(2)));
            for length in 0..file.len() {
                assert!(packet(&file[..length], 2).is_err());
            }
        }
        assert_eq!(
            packet(b"not a capture, but long enough", 1),
            Err(CaptureError::NotPcap)
        );
        let cooked = capture(113, &[&[7; 20]], u32::to_le_bytes);
        assert_eq!(packet(&cooked, 1).unwrap(), [7; 4]);
        let unknown = capture(9, &[b"x"], u32::to_le_bytes);
        assert_eq!(packet(&unknown, 1), Err(CaptureError::LinkType(9)));
    }
}
