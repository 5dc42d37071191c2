//! What a response must be: its status, its body's digest.

use std::error::Error;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A set of HTTP statuses, each 100 to 599; by default 200 to 299.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSet(Vec<RangeInclusive<u16>>);

impl StatusSet {
    /// The union of these ranges.
    ///
    /// # Errors
    ///
    /// A range is empty or leaves 100 to 599.
    pub fn new(
        ranges: impl IntoIterator<Item = RangeInclusive<u16>>,
    ) -> Result<Self, InvalidStatus> {
        let ranges: Vec<_> = ranges.into_iter().collect();
        for range in &ranges {
            if range.is_empty() || *range.start() < 100 || *range.end() > 599 {
                return Err(InvalidStatus);
            }
        }
        Ok(Self(ranges))
    }

    /// Whether this status is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for StatusSet {
    fn default() -> Self {
        Self(vec![200..=299])
    }
}

/// The MD5 digest of a body. Parses from exactly 32 hexadecimal digits of either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BodyDigest(pub [u8; 16]);

impl FromStr for BodyDigest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidDigest);
        }
        let value = u128::from_str_radix(text, 16).map_err(|_| InvalidDigest)?;
        Ok(Self(value.to_be_bytes()))
    }
}

impl fmt::Display for BodyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidDigest;

impl fmt::Display for InvalidDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a digest is exactly 32 hexadecimal digits")
    }
}

impl Error for InvalidDigest {}

/// A status range is empty or leaves 100 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidStatus;

impl fmt::Display for InvalidStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status is 100 to 599, and a range begins with its smaller end")
    }
}

impl Error for InvalidStatus {}
