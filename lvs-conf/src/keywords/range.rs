//! Ranges and units of values.

use std::fmt;

/// The values that a keyword takes. Times are counted in microseconds whatever they are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Smallest value.
    pub least: i64,
    /// Largest value.
    pub most: i64,
    /// What is counted, and how it is written.
    pub unit: Unit,
    /// Zero becomes one, with a complaint.
    pub raise_zero: bool,
    /// What lies outside becomes the nearest value, with a complaint; otherwise the line is ignored.
    pub clamp: bool,
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nothing in particular.
    None,
    /// Bytes of a text.
    Bytes,
    /// Seconds with so many decimals.
    Seconds(u8),
    /// Milliseconds with so many decimals.
    Milliseconds(u8),
    /// Microseconds.
    Microseconds,
}

impl Unit {
    /// Microseconds in one unit as written; 1 for what is no time.
    pub fn micros(self) -> i64 {
        match self {
            Self::Seconds(_) => 1_000_000,
            Self::Milliseconds(_) => 1_000,
            Self::Microseconds | Self::None | Self::Bytes => 1,
        }
    }

    /// Decimals that a number may have.
    pub fn decimals(self) -> u8 {
        match self {
            Self::Seconds(decimals) | Self::Milliseconds(decimals) => decimals,
            Self::Microseconds | Self::None | Self::Bytes => 0,
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Bytes => " bytes",
            Self::Seconds(_) => " s",
            Self::Milliseconds(_) => " ms",
            Self::Microseconds => " us",
        }
    }
}

impl Range {
    pub(super) const fn new(least: i64, most: i64, unit: Unit) -> Self {
        Self {
            least,
            most,
            unit,
            raise_zero: false,
            clamp: false,
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = self.unit.micros();
        let least = Written(self.least, per);
        if self.unit == Unit::Bytes {
            return write!(f, "at most {}{}", self.most, self.unit.suffix());
        }
        match self.most {
            i64::MAX if self.least == 0 => write!(f, "0 or more{}", self.unit.suffix()),
            i64::MAX => write!(f, "at least {least}{}", self.unit.suffix()),
            most => write!(f, "{least} to {}{}", Written(most, per), self.unit.suffix()),
        }
    }
}

/// A count as it is written: divided by the unit, without trailing zeros.
struct Written(i64, i64);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::print::write_scaled(f, self.0.into(), self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_shown_as_they_are_written() {
        let range = |least, most, unit| Range::new(least, most, unit).to_string();
        assert_eq!(range(1, 255, Unit::None), "1 to 255");
        assert_eq!(
            range(10_000, 255_000_000, Unit::Seconds(6)),
            "0.01 to 255 s"
        );
        assert_eq!(
            range(1_000, 4_294_967_000, Unit::Milliseconds(3)),
            "1 to 4294967 ms"
        );
        assert_eq!(range(1, i64::MAX, Unit::Seconds(6)), "at least 0.000001 s");
        assert_eq!(range(0, 15, Unit::Bytes), "at most 15 bytes");
    }
}
