//! The hashes of the address schedulers.

use std::net::IpAddr;

/// IPv4: the address as a number. IPv6: the XOR of its four 32-bit words.
pub(crate) fn fold(addr: IpAddr) -> u32 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits(),
        IpAddr::V6(addr) => {
            let bits = addr.to_bits();
            (bits >> 96) as u32 ^ (bits >> 64) as u32 ^ (bits >> 32) as u32 ^ bits as u32
        }
    }
}

/// Multiplicative hash: the upper `bits` bits of the product.
pub(crate) fn h32(value: u32, bits: u32) -> usize {
    (value.wrapping_mul(0x61C8_8647) >> (32 - bits)) as usize
}

/// SipHash-1-3 of `words` (little-endian) followed by the low `tail_len` bytes of `tail`, at most 7.
pub(crate) fn sip13(key: [u64; 2], words: &[u64], tail: u64, tail_len: u64) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let mut absorb = |word: u64| {
        v[3] ^= word;
        round(&mut v);
        v[0] ^= word;
    };
    words.iter().for_each(|word| absorb(*word));
    let length = words.len() as u64 * 8 + tail_len;
    absorb(length << 56 | tail);
    v[2] ^= 0xff;
    for _ in 0..3 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplicative_hash_of_the_worked_values() {
        let cases = [
            (0, 0, 0),
            (1, 97, 391),
            (0x0A00_0001, 39, 159),
            (0xC000_0201, 50, 203),
            (0xFFFF_FFFF, 158, 632),
        ];
        for (value, eight, ten) in cases {
            assert_eq!((h32(value, 8), h32(value, 10)), (eight, ten), "{value:#x}");
        }
    }

    #[test]
    fn ipv6_words_are_folded() {
        assert_eq!(fold("2001:db8::1".parse().unwrap()), 0x2001_0DB9);
        assert_eq!(fold("2001:db8:0:1:2:3:4:5".parse().unwrap()), 0x2007_0DBF);
    }

    #[test]
    fn keyed_hash_depends_on_key_words_and_length() {
        let base = sip13([1, 2], &[7], 5, 4);
        for other in [
            sip13([1, 3], &[7], 5, 4),
            sip13([1, 2], &[], 5, 4),
            sip13([1, 2], &[7], 5, 5),
            sip13([1, 2], &[7], 6, 4),
        ] {
            assert_ne!(base, other);
        }
    }
}
