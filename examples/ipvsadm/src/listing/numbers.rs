//! Numbers in the columns of counters and rates.

/// A number with the blanks before it, 9 characters wide. Large numbers are shown in thousands (`K`), millions (`M`) and so on,
/// cut, not rounded; exact numbers in full, with one blank before them however long they are.
pub fn column(value: u64, exact: bool) -> String {
    if exact {
        return format!(" {value:>8}");
    }
    let (divisor, unit) = match value {
        0..=99_999_999 => return format!("{value:>9}"),
        100_000_000..=999_999_999 => (1_000, 'K'),
        1_000_000_000..=99_999_999_999 => (1_000_000, 'M'),
        100_000_000_000..=99_999_999_999_999 => (1_000_000_000, 'G'),
        _ => (1_000_000_000_000, 'T'),
    };
    format!("{:>8}{unit}", value / divisor)
}

/// Several numbers, one after the other.
pub fn columns(values: &[u64], exact: bool) -> String {
    values.iter().map(|&value| column(value, exact)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_change_their_unit_where_the_original_does() {
        for (value, expected) in [
            (0, "        0"),
            (99_999_999, " 99999999"),
            (100_000_000, "  100000K"),
            (999_999_999, "  999999K"),
            (1_000_000_000, "    1000M"),
            (2_700_000_000, "    2700M"),
            (99_999_999_999, "   99999M"),
            (100_000_000_000, "     100G"),
            (123_456_789_012, "     123G"),
            (99_999_999_999_999, "   99999G"),
            (100_000_000_000_000, "     100T"),
            (123_456_789_012_345, "     123T"),
            (u64::MAX, "18446744T"),
        ] {
            assert_eq!(column(value, false), expected, "{value}");
        }
    }

    #[test]
    fn exact_numbers_keep_one_blank() {
        assert_eq!(column(7, true), "        7");
        assert_eq!(column(99_999_999, true), " 99999999");
        assert_eq!(column(100_000_000, true), " 100000000");
        assert_eq!(column(123_456_789_012_345, true), " 123456789012345");
    }
}
