//! CRC32c (Castagnoli), the checksum of SCTP (RFC 9260, appendix A).

/// The checksum of these bytes, one part after the other.
pub fn sum(parts: &[&[u8]]) -> u32 {
    !parts.iter().fold(u32::MAX, |crc, part| feed(crc, part))
}

/// What a checksum changes by (exclusive or) when some bytes do: `bytes` is the exclusive or of old and new ones, and
/// `behind` of the same message follow that stay as they are.
pub fn change(bytes: &[u8], behind: usize) -> u32 {
    let mut crc = feed(0, bytes);
    for (power, operator) in ADVANCE.iter().enumerate() {
        if behind >> power & 1 != 0 {
            crc = times(operator, crc);
        }
    }
    debug_assert_eq!(behind >> ADVANCE.len(), 0, "no IP packet is that long");
    crc
}

fn feed(mut crc: u32, bytes: &[u8]) -> u32 {
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = |at: usize| {
            u32::from_le_bytes([chunk[at], chunk[at + 1], chunk[at + 2], chunk[at + 3]])
        };
        let (low, high) = (word(0) ^ crc, word(4));
        let table = |number: usize, word: u32, byte: u32| {
            TABLES[number][(word >> (8 * byte) & 0xff) as usize]
        };
        crc = table(7, low, 0)
            ^ table(6, low, 1)
            ^ table(5, low, 2)
            ^ table(4, low, 3)
            ^ table(3, high, 0)
            ^ table(2, high, 1)
            ^ table(1, high, 2)
            ^ table(0, high, 3);
    }
    for byte in chunks.remainder() {
        crc = TABLES[0][((crc ^ u32::from(*byte)) & 0xff) as usize] ^ crc >> 8;
    }
    crc
}

/// A 32 by 32 matrix over GF(2), by columns, times a vector.
const fn times(matrix: &[u32; 32], vector: u32) -> u32 {
    let (mut product, mut bit) = (0, 0);
    while bit < 32 {
        if vector >> bit & 1 != 0 {
            product ^= matrix[bit];
        }
        bit += 1;
    }
    product
}

/// The polynomial, lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What a byte does that is followed by as many zeros as the table's number.
static TABLES: [[u32; 256]; 8] = tables();

/// What 1, 2, 4, ... zero bytes do.
static ADVANCE: [[u32; 32]; 17] = advance();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 {
                crc >> 1 ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut number = 1;
    while number < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[number - 1][byte];
            tables[number][byte] = tables[0][(before & 0xff) as usize] ^ before >> 8;
            byte += 1;
        }
        number += 1;
    }
    tables
}

const fn advance() -> [[u32; 32]; 17] {
    let tables = tables();
    let mut operators = [[0; 32]; 17];
    let mut bit = 0;
    while bit < 32 {
        let vector = 1u32 << bit;
        operators[0][bit] = tables[0][(vector & 0xff) as usize] ^ vector >> 8;
        bit += 1;
    }
    let mut power = 1;
    while power < operators.len() {
        let half = operators[power - 1];
        let mut bit = 0;
        while bit < 32 {
            operators[power][bit] = times(&half, half[bit]);
            bit += 1;
        }
        power += 1;
    }
    operators
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_checksums() {
        // RFC 3720, appendix B.4.
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(sum(&[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(sum(&[&[0xff; 32]]), 0x62a8_ab43);
        assert_eq!(sum(&[&ascending]), 0x46dd_794e);
        assert_eq!(sum(&[&ascending[..5], &ascending[5..]]), 0x46dd_794e);
        assert_eq!(sum(&[b"123456789"]), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn a_change_is_the_difference_of_the_whole(
            mut bytes in prop::collection::vec(any::<u8>(), 4..3000),
            at in any::<prop::sample::Index>(),
            change in any::<[u8; 2]>(),
        ) {
            let before = sum(&[&bytes]);
            let at = at.index(bytes.len() - 1);
            bytes[at] ^= change[0];
            bytes[at + 1] ^= change[1];
            let expected = before ^ super::change(&change, bytes.len() - at - 2);
            prop_assert_eq!(sum(&[&bytes]), expected);
        }
    }
}
