//! The Internet checksum (SCTP's is in [`crc32c`]): whole, incremental (RFC 1624, equation 3), pseudo-header, partial.
//!
//! Sums are plain `u64` accumulators of 16-bit big-endian words; [`finish`] folds and complements. An
//! incremental [`Change`] collects words that were replaced and is applied to a stored checksum once, which
//! keeps a wrong checksum wrong: what a sender broke is not repaired on the way.

pub mod crc32c;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Sum of bytes as big-endian words; an odd last byte counts as the high half of a word.
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    // Four bytes at a time: the sum of 32-bit words is congruent to that of their halves.
    let mut chunks = bytes.chunks_exact(4);
    let mut total: u64 = 0;
    for chunk in &mut chunks {
        total += u64::from(u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
    }
    total
        + match *chunks.remainder() {
            [a] => u64::from(a) << 8,
            [a, b] => u64::from(u16::from_be_bytes([a, b])),
            [a, b, c] => u64::from(u16::from_be_bytes([a, b])) + (u64::from(c) << 8),
            _ => 0,
        }
}

/// Folds an accumulator to 16 bits.
#[inline]
pub fn fold(sum: u64) -> u16 {
    // As often as the largest one needs: whether others need it less often, no processor can foresee.
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum of an accumulated sum: folded and complemented.
#[inline]
pub fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// Sum of a pseudo-header; `length` is that of the transport header and payload in bytes. Addresses of
/// different families have no common pseudo-header; each counts as what it is.
#[inline]
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: u32) -> u64 {
    let addr = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => sum(&addr.octets()),
        IpAddr::V6(addr) => sum(&addr.octets()),
    };
    addr(source) + addr(destination) + u64::from(protocol) + u64::from(length)
}

/// What was replaced under a checksum: `Σ(~m + m')`.
///
/// Every word must lie at an even offset from where the checksummed data begins; addresses and ports do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change(u64);

impl Change {
    /// Nothing replaced.
    pub fn new() -> Self {
        Self(0)
    }

    /// A word was replaced.
    #[inline]
    #[must_use]
    pub fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + u64::from(!old) + u64::from(new))
    }

    /// An IPv4 address was replaced.
    #[inline]
    #[must_use]
    pub fn ipv4(self, old: Ipv4Addr, new: Ipv4Addr) -> Self {
        // 32-bit words are congruent to the sum of their halves, complements included.
        Self(self.0 + u64::from(!u32::from(old)) + u64::from(u32::from(new)))
    }

    /// An IPv6 address was replaced.
    #[inline]
    #[must_use]
    pub fn ipv6(self, old: Ipv6Addr, new: Ipv6Addr) -> Self {
        let old = old.octets().map(|octet| !octet);
        Self(self.0 + sum(&old) + sum(&new.octets()))
    }

    /// An address was replaced by another one of its family.
    #[inline]
    #[must_use]
    pub fn addr(self, old: IpAddr, new: IpAddr) -> Self {
        match (old, new) {
            (IpAddr::V4(old), IpAddr::V4(new)) => self.ipv4(old, new),
            (IpAddr::V6(old), IpAddr::V6(new)) => self.ipv6(old, new),
            // Not one change, but both sides still count as what they are.
            (IpAddr::V4(old), IpAddr::V6(new)) => {
                Self(self.0 + u64::from(!u32::from(old)) + sum(&new.octets()))
            }
            (IpAddr::V6(old), IpAddr::V4(new)) => {
                let old = old.octets().map(|octet| !octet);
                Self(self.0 + sum(&old) + u64::from(u32::from(new)))
            }
        }
    }

    /// The checksum after the change: `~(~HC + Σ(~m + m'))`.
    #[inline]
    pub fn apply(self, checksum: u16) -> u16 {
        finish(u64::from(!checksum) + self.0)
    }

    /// As [`apply`](Self::apply) for UDP: a result of 0, which would mean "none", is stored as 0xffff.
    #[inline]
    pub fn apply_udp(self, checksum: u16) -> u16 {
        match self.apply(checksum) {
            0 => 0xffff,
            checksum => checksum,
        }
    }

    /// The field of a partial checksum after the change: a plain sum, so nothing is complemented. Only words
    /// of the pseudo-header may have been counted.
    #[inline]
    pub fn apply_partial(self, field: u16) -> u16 {
        fold(u64::from(field) + self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The two representations of zero are one number.
    fn same(a: u16, b: u16) -> bool {
        a == b || (a == 0 || a == 0xffff) && (b == 0 || b == 0xffff)
    }

    #[test]
    fn rfc_1624_corner_case() {
        // RFC 1624 section 4: HC = 0xdd2f, m = 0x5555, m' = 0x3285; equation 3 gives 0.
        assert_eq!(Change::new().word(0x5555, 0x3285).apply(0xdd2f), 0);
        assert_eq!(Change::new().word(0x5555, 0x3285).apply_udp(0xdd2f), 0xffff);
    }

    #[test]
    fn partial_vector() {
        let change = Change::new().ipv4([192, 0, 2, 10].into(), [10, 0, 0, 11].into());
        assert_eq!(change.apply_partial(0xfe2e), 0x462f);
        let pseudo = pseudo_header([10, 9, 0, 2].into(), [10, 9, 0, 3].into(), 6, 40);
        assert_eq!(fold(pseudo), 0x1445);
    }

    #[test]
    fn the_largest_sums_are_folded_wholly() {
        for sum in [
            u64::MAX,
            1 << 63,
            0xffff_ffff_0000_0001,
            0x1_ffff_ffff,
            0x1_fffe,
            0xffff,
            0,
        ] {
            let folded = fold(sum);
            assert!(sum == 0 || folded != 0);
            assert_eq!(u64::from(folded) % 0xffff, sum % 0xffff);
        }
    }

    proptest! {
        #[test]
        fn whole_sums_agree_with_pnet(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            // A skip word beyond the data leaves nothing out.
            let theirs = pnet_packet::util::checksum(&bytes, bytes.len());
            prop_assert!(same(finish(sum(&bytes)), theirs));
        }

        #[test]
        fn pseudo_headers_agree_with_pnet(
            source in any::<u32>(),
            destination in any::<u32>(),
            mut segment in prop::collection::vec(any::<u8>(), 20..100),
        ) {
            let (source, destination) = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
            let theirs = pnet_packet::tcp::ipv4_checksum(
                &pnet_packet::tcp::TcpPacket::new(&segment).unwrap(),
                &source,
                &destination,
            );
            segment[16..18].fill(0);
            let ours = pseudo_header(source.into(), destination.into(), 6, segment.len() as u32) + sum(&segment);
            prop_assert!(same(finish(ours), theirs));
        }

        #[test]
        fn incremental_equals_whole(
            mut bytes in prop::collection::vec(any::<u8>(), 8..100),
            at in any::<prop::sample::Index>(),
            new in any::<u32>(),
        ) {
            bytes.truncate(bytes.len() & !1);
            let at = at.index(bytes.len() / 2 - 1) * 2;
            let before = finish(sum(&bytes));
            let old = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            bytes[at..at + 4].copy_from_slice(&new.to_be_bytes());
            let after = finish(sum(&bytes));
            prop_assert!(same(Change::new().ipv4(old.into(), new.into()).apply(before), after));
            let words = Change::new()
                .word((old >> 16) as u16, (new >> 16) as u16)
                .word(old as u16, new as u16);
            prop_assert!(same(words.apply(before), after));
        }
    }
}
