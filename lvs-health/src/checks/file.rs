//! `FILE_CHECK`: a number in a file says how the server is.

use crate::{Adjustment, Checker, Failure, Next, Outcome};

/// Turns the value of a watched file into an outcome and an adjustment of the weight.
///
/// It is never asked by itself: whoever watches the file calls [`judge`](Self::judge) when it changes and hands the
/// answer to [`Monitor::handle_outcome`](crate::Monitor::handle_outcome).
#[doc(alias = "FILE_CHECK")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileCheck {
    /// What the value is multiplied by. 0: a value other than 0 is down.
    pub weight: i32,
    /// The sign is turned; with a weight of 0, 0 is down.
    pub reverse: bool,
}

impl FileCheck {
    /// The number that a file's content stands for; `None` for one outside of `[-2^31, 2^31]`, which counts as not
    /// written. The first 127 bytes are read: `0x` is hexadecimal, a leading 0 octal, a text and nothing are 0.
    pub fn value(content: &[u8]) -> Option<i64> {
        let content = &content[..content.len().min(127)];
        let text = content.trim_ascii_start();
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        let (radix, digits) = match digits {
            [b'0', b'x' | b'X', rest @ ..] if rest.first().is_some_and(u8::is_ascii_hexdigit) => {
                (16, rest)
            }
            [b'0', rest @ ..] => (8, rest),
            _ => (10, digits),
        };
        let digits = digits
            .iter()
            .map_while(|byte| char::from(*byte).to_digit(radix));
        let value = digits.fold(0i64, |value, digit| {
            let shifted = value.saturating_mul(i64::from(radix));
            shifted.saturating_add(i64::from(digit))
        });
        let value = if negative { -value } else { value };
        (-LIMIT..=LIMIT).contains(&value).then_some(value)
    }

    /// What this value means.
    pub fn judge(&self, value: i64) -> (Outcome, Adjustment) {
        if self.weight == 0 {
            return match (value != 0) == self.reverse {
                true => (Outcome::Up, Adjustment::None),
                false => (Outcome::Down(Failure::FileFault(value)), Adjustment::None),
            };
        }
        let sign = if self.reverse { -1 } else { 1 };
        let delta = value.saturating_mul(i64::from(self.weight)) * sign;
        if delta <= i64::from(i32::MIN) {
            return (Outcome::Down(Failure::FileFault(value)), Adjustment::None);
        }
        let delta = i32::try_from(delta).unwrap_or(i32::MAX);
        (Outcome::Up, Adjustment::By(delta))
    }
}

impl Checker for FileCheck {
    fn name(&self) -> &'static str {
        "FILE_CHECK"
    }

    fn identity(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }

    fn schedule(&self) -> crate::Schedule {
        crate::Schedule::External
    }

    fn handle_connected(&mut self) -> Next {
        Next::Wait
    }
}

const LIMIT: i64 = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;

    /// The weight of a server of weight 10; `None` is down.
    fn weight(check: FileCheck, content: &str) -> Option<i64> {
        let value = FileCheck::value(content.as_bytes()).unwrap();
        match check.judge(value) {
            (Outcome::Up, adjustment) => {
                Some((10 + adjustment.delta(10)).clamp(0, i64::from(i32::MAX)))
            }
            _ => None,
        }
    }

    #[test]
    fn values_become_weights_as_observed_of_keepalived() {
        let max = i64::from(i32::MAX);
        let table: &[(i32, bool, &str, Option<i64>)] = &[
            (1, false, "5", Some(15)),
            (1, false, "-3\n", Some(7)),
            (1, false, "-20", Some(0)),
            (1, false, "100000", Some(100_010)),
            (1, false, "0x10", Some(26)),
            (1, false, "abc", Some(10)),
            (1, false, "-2147483648", None),
            (1, false, "-2147483647", Some(0)),
            (1, false, "2147483647", Some(max)),
            (1, false, "7", Some(17)),
            (1, false, "", Some(10)),
            (5, true, "5", Some(0)),
            (5, true, "-3", Some(25)),
            (5, true, "-20", Some(110)),
            (5, true, "100000", Some(0)),
            (5, true, "abc", Some(10)),
            (5, true, "-2147483648", Some(max)),
            (5, true, "2147483647", None),
            (5, true, "7", Some(0)),
            (0, false, "1", None),
            (0, false, "2", None),
            (0, false, "0", Some(10)),
            (0, true, "0", None),
            (0, true, "1", Some(10)),
        ];
        for (multiplier, reverse, content, wanted) in table {
            let check = FileCheck {
                weight: *multiplier,
                reverse: *reverse,
            };
            assert_eq!(weight(check, content), *wanted, "{check:?} {content}");
        }
    }

    #[test]
    fn numbers_are_read_as_strtol_reads_them() {
        let table: &[(&str, Option<i64>)] = &[
            (" 12abc", Some(12)),
            ("+7", Some(7)),
            ("010", Some(8)),
            ("0x", Some(0)),
            ("-0xff", Some(-255)),
            ("2147483648", Some(2_147_483_648)),
            ("2147483649", None),
            ("-2147483649", None),
            ("99999999999999999999999", None),
            ("-99999999999999999999999", None),
        ];
        for (text, wanted) in table {
            assert_eq!(FileCheck::value(text.as_bytes()), *wanted, "{text}");
        }
        assert_eq!(FileCheck::value(&[0xff; 4000]), Some(0));
    }
}
