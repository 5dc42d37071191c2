//! Numbers, times, booleans, addresses and commands.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Context;
use crate::diag::{Code, Consequence, Diagnostic};
use crate::lex::{Escapes, ScriptError, Word, split_script};
use crate::model::Script;
use crate::tree::Statement;

impl Context<'_> {
    /// An unsigned number in a range.
    pub(crate) fn uint(
        &mut self,
        what: &str,
        word: &Word,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let value = self.int(what, word, 0..=i64::MAX)?;
        let value = u64::try_from(value).ok()?;
        if range.contains(&value) {
            return Some(value);
        }
        self.out_of_range(what, word, *range.start(), *range.end());
        None
    }

    /// A signed number in a range.
    pub(super) fn int(
        &mut self,
        what: &str,
        word: &Word,
        range: RangeInclusive<i64>,
    ) -> Option<i64> {
        let digits = word.text.strip_prefix(['+', '-']).unwrap_or(&word.text);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            self.push(
                Diagnostic::new(
                    Code::InvalidNumber,
                    Consequence::Ignore,
                    word.span,
                    format!("`{}` is not a number for `{what}`", word.text),
                )
                .expected("decimal digits")
                .hint(number_hint(&word.text)),
            );
            return None;
        }
        let negative = word.text.starts_with('-');
        if negative && *range.start() >= 0 {
            self.report(
                Code::NegativeNumber,
                Consequence::Ignore,
                word.span,
                format!("`{what}` cannot be negative"),
            );
            return None;
        }
        let value = digits
            .parse::<i64>()
            .ok()
            .map(|v| if negative { -v } else { v });
        match value {
            Some(value) if range.contains(&value) => Some(value),
            _ => {
                self.out_of_range(what, word, *range.start(), *range.end());
                None
            }
        }
    }

    /// A number that fits a small type.
    pub(super) fn small<T: TryFrom<u64>>(
        &mut self,
        what: &str,
        word: &Word,
        range: RangeInclusive<u64>,
    ) -> Option<T> {
        self.uint(what, word, range)
            .and_then(|v| T::try_from(v).ok())
    }

    fn out_of_range(
        &mut self,
        what: &str,
        word: &Word,
        from: impl std::fmt::Display,
        to: impl std::fmt::Display,
    ) {
        self.push(
            Diagnostic::new(
                Code::NumberOutOfRange,
                Consequence::Ignore,
                word.span,
                format!("`{}` is out of range for `{what}`", word.text),
            )
            .expected(format!("{from} to {to}")),
        );
    }

    /// The first argument as a number of the range that the table gives.
    pub(crate) fn number(&mut self, statement: &Statement) -> Option<i64> {
        let word = statement.args.first()?;
        let what = statement.keyword.text;
        let Some(range) = statement.spec.range else {
            return self.int(what, word, 0..=i64::from(u32::MAX));
        };
        let before = self.diagnostics.len();
        if range.clamp {
            let Some(value) = self.int(what, word, i64::MIN..=i64::MAX) else {
                self.complain_twice(before);
                return None;
            };
            let used = value.clamp(range.least, range.most);
            if used != value {
                self.push(
                    Diagnostic::new(
                        Code::RtPriorityClamped,
                        Consequence::Adjust,
                        word.span,
                        format!(
                            "`{}` is out of range for `{what}`, {used} is used",
                            word.text
                        ),
                    )
                    .expected(range.to_string()),
                );
            }
            return Some(used);
        }
        let Some(value) = self.int(what, word, range.least..=range.most) else {
            self.complain_twice(before);
            return None;
        };
        if value == 0 && range.raise_zero {
            self.zero_raised(statement);
            return Some(1);
        }
        Some(value)
    }

    /// keepalived complains about a number, and again about the keyword that cannot use it.
    fn complain_twice(&mut self, before: usize) {
        for diagnostic in &mut self.diagnostics[before..] {
            diagnostic.also.push(Code::InvalidValue);
        }
    }

    fn zero_raised(&mut self, statement: &Statement) {
        self.report(
            Code::ZeroRaisedToOne,
            Consequence::Adjust,
            statement.head(),
            format!("`{}` cannot be zero, it becomes 1", statement.keyword.text),
        );
    }

    /// The first argument as a time of the range and the unit that the table gives.
    pub(crate) fn duration(&mut self, statement: &Statement) -> Option<Duration> {
        let word = statement.args.first()?;
        let what = statement.keyword.text;
        let range = statement.spec.range?;
        let per = range.unit.micros();
        let decimals = range.unit.decimals();
        let micros = if decimals == 0 {
            let before = self.diagnostics.len();
            let Some(value) = self.int(what, word, range.least / per..=range.most / per) else {
                self.complain_twice(before);
                return None;
            };
            value.saturating_mul(per)
        } else {
            let Some((value, exact)) = decimal_micros(&word.text, usize::from(decimals)) else {
                let (code, text) = if word.text.starts_with('-') {
                    (Code::NegativeNumber, format!("`{what}` cannot be negative"))
                } else {
                    (
                        Code::InvalidNumber,
                        format!("`{}` is not a number for `{what}`", word.text),
                    )
                };
                let mut diagnostic = Diagnostic::new(code, Consequence::Ignore, word.span, text)
                    .expected(format!("a number such as `3` or `0.25`, {range}"))
                    .also(Code::InvalidValue);
                if code == Code::InvalidNumber {
                    diagnostic = diagnostic.hint(number_hint(&word.text));
                }
                self.push(diagnostic);
                return None;
            };
            if !exact {
                self.push(
                    Diagnostic::new(
                        Code::TooManyDecimals,
                        Consequence::Adjust,
                        word.span,
                        format!("`{}` has too many decimals and is rounded", word.text),
                    )
                    .expected(format!("at most {decimals} decimals")),
                );
            }
            let value = i64::try_from(value).unwrap_or(i64::MAX) / (1_000_000 / per);
            if !(range.least..=range.most).contains(&value) {
                self.push(
                    Diagnostic::new(
                        Code::NumberOutOfRange,
                        Consequence::Ignore,
                        word.span,
                        format!("`{}` is out of range for `{what}`", word.text),
                    )
                    .expected(range.to_string())
                    .also(Code::InvalidValue),
                );
                return None;
            }
            value
        };
        if micros == 0 && range.raise_zero {
            self.zero_raised(statement);
            return Some(Duration::from_secs(1));
        }
        u64::try_from(micros).ok().map(Duration::from_micros)
    }

    /// An optional boolean; an absent one is true.
    pub(crate) fn bool_arg(&mut self, statement: &Statement) -> Option<bool> {
        let Some(word) = statement.args.first() else {
            return Some(true);
        };
        match word.text.as_str() {
            "on" | "true" | "yes" => Some(true),
            "off" | "false" | "no" => Some(false),
            _ => {
                self.push(
                    Diagnostic::new(
                        Code::InvalidBoolean,
                        Consequence::Ignore,
                        word.span,
                        format!(
                            "`{}` is not a boolean for `{}`",
                            word.text, statement.keyword.text
                        ),
                    )
                    .expected("`on`, `true`, `yes`, `off`, `false` or `no`"),
                );
                None
            }
        }
    }

    /// The first argument as text, cut to the length that the table gives.
    pub(crate) fn text(&mut self, statement: &Statement) -> Option<String> {
        let word = statement.args.first()?;
        let mut text = word.text.to_string();
        if let Some(range) = statement.spec.range
            && text.len() as i64 > range.most
        {
            let mut most = range.most as usize;
            while !text.is_char_boundary(most) {
                most -= 1;
            }
            text.truncate(most);
            self.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    Consequence::Adjust,
                    word.span,
                    format!("`{}` is cut to `{text}`", word.text),
                )
                .expected(range.to_string()),
            );
        }
        Some(text)
    }

    /// The first argument as one of some words.
    pub(super) fn word_arg<T: Copy>(
        &mut self,
        statement: &Statement,
        find: impl Fn(&str) -> Option<T>,
        all: &[impl std::fmt::Display],
    ) -> Option<T> {
        let word = statement.args.first()?;
        let found = find(&word.text);
        if found.is_none() {
            let names: Vec<String> = all.iter().map(ToString::to_string).collect();
            let mut diagnostic = Diagnostic::new(
                Code::InvalidValue,
                Consequence::Ignore,
                word.span,
                format!(
                    "`{}` is no value of `{}`",
                    word.text, statement.keyword.text
                ),
            )
            .expected(names.join(", "));
            if let Some(near) =
                crate::keywords::nearest(&word.text, names.iter().map(String::as_str))
            {
                diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
            }
            self.push(diagnostic);
        }
        found
    }

    /// The first argument as an interface name.
    pub(super) fn interface_arg(&mut self, statement: &Statement) -> Option<String> {
        let word = statement.args.first()?;
        self.interface(word)
    }

    pub(super) fn interface(&mut self, word: &Word) -> Option<String> {
        if word.text.len() <= 15 && !word.text.is_empty() {
            return Some(word.text.to_string());
        }
        self.push(
            Diagnostic::new(
                Code::InterfaceNameTooLong,
                Consequence::Ignore,
                word.span,
                format!("`{}` cannot be the name of an interface", word.text),
            )
            .expected("1 to 15 bytes"),
        );
        None
    }

    /// The first argument as an address; `code` files the complaint.
    pub(super) fn address_arg(&mut self, statement: &Statement, code: Code) -> Option<IpAddr> {
        let word = statement.args.first()?;
        let address = socket_address(&word.text);
        if address.is_none() {
            self.bad_address(word, code, Consequence::Ignore);
        }
        address
    }

    pub(super) fn bad_address(&mut self, word: &Word, code: Code, consequence: Consequence) {
        let mut diagnostic = Diagnostic::new(
            code,
            consequence,
            word.span,
            format!("`{}` is not an address", word.text),
        )
        .expected("an IPv4 or IPv6 address in numbers");
        if word.text.starts_with('[') {
            diagnostic = diagnostic.hint("write IPv6 addresses without brackets");
        } else if let Some((address, port)) = word.text.rsplit_once(':')
            && address.parse::<std::net::Ipv4Addr>().is_ok()
        {
            diagnostic =
                diagnostic.hint(format!("put a blank before the port: `{address} {port}`"));
        } else if let Some(wrong) = wrong_octet(&word.text) {
            diagnostic = diagnostic.hint(format!("`{wrong}` is more than 255"));
        } else if word.text.contains(|c: char| c.is_ascii_alphabetic()) && !word.text.contains(':')
        {
            diagnostic = diagnostic.hint("write the address itself, names are not looked up");
        }
        self.push(diagnostic);
    }

    /// An address and an optional port; port 0 counts as none.
    pub(super) fn endpoint(
        &mut self,
        words: &[Word],
        code: Code,
        consequence: Consequence,
    ) -> Option<(IpAddr, Option<u16>)> {
        let (first, rest) = words.split_first()?;
        let Some(address) = socket_address(&first.text) else {
            self.bad_address(first, code, consequence);
            return None;
        };
        let Some(word) = rest.first() else {
            return Some((address, None));
        };
        match word.text.parse::<u16>() {
            Ok(port) => Some((address, (port != 0).then_some(port))),
            Err(_) => {
                self.push(
                    Diagnostic::new(
                        code,
                        consequence,
                        word.span,
                        format!("`{}` is not a port", word.text),
                    )
                    .expected("1 to 65535"),
                );
                None
            }
        }
    }

    /// The command of a script keyword.
    pub(crate) fn script_arg(&mut self, statement: &Statement) -> Option<Script> {
        let name = &statement.keyword.text;
        let words = match statement.script_words() {
            Ok(words) => words,
            Err(error) => {
                self.bad_script(statement, error);
                return None;
            }
        };
        let Some(word) = words.get(1) else {
            let code = if name.ends_with("up_script") || name.ends_with("down_script") {
                Code::StartupScriptProblem
            } else {
                Code::InvalidValue
            };
            self.report(
                code,
                Consequence::Ignore,
                statement.head(),
                format!("`{name}` has no command"),
            );
            return None;
        };
        let command = match split_script(word.text.as_bytes(), Escapes::Process) {
            Ok(pieces) => pieces
                .into_iter()
                .map(|p| String::from_utf8_lossy(&p.bytes).into_owned())
                .collect::<Vec<_>>(),
            Err(error) => {
                self.bad_script(statement, error);
                return None;
            }
        };
        if command.iter().all(String::is_empty) {
            self.report(
                Code::InvalidValue,
                Consequence::Ignore,
                word.span,
                format!("`{name}` has an empty command"),
            );
            return None;
        }
        let user = crate::settings::user(words.get(2..).unwrap_or_default());
        if let Some(word) = words.get(2)
            && !word
                .text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        {
            self.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    Consequence::Warn,
                    word.span,
                    format!(
                        "`{}` after the command is taken as the user who runs it",
                        word.text
                    ),
                )
                .hint("put the command and its arguments in one pair of double quotes"),
            );
        }
        Some(Script { command, user })
    }

    fn bad_script(&mut self, statement: &Statement, error: ScriptError) {
        self.push(Diagnostic::new(
            Code::UnterminatedScriptQuote,
            if error == ScriptError::LoneBackslash {
                Consequence::Log
            } else {
                Consequence::Ignore
            },
            statement.head(),
            format!("`{}` is ignored: {error}", statement.keyword.text),
        ));
    }
}

/// Pairs of hex digits.
pub(super) fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(
        digits
            .chunks(2)
            .map(|pair| pair[0] * 16 + pair[1])
            .collect(),
    )
}

/// What to write instead of a word that should be a number.
pub(super) fn number_hint(text: &str) -> String {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let mut repaired = text.replace(['O', 'o'], "0");
    repaired = repaired.replace(['l', 'I'], "1");
    if is_number(&repaired) {
        return format!("did you mean `{repaired}`?");
    }
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic() || c == '%');
    if is_number(digits) {
        return format!("write `{digits}`, without unit");
    }
    if text.starts_with("0x") {
        return "write it in decimal".to_owned();
    }
    if text.contains(['.', ',']) {
        return "write a whole number".to_owned();
    }
    if text.contains('$') {
        return "define the parameter before this line, or write the number".to_owned();
    }
    "write a number such as `1`, or remove the line".to_owned()
}

/// Seconds with up to six decimals.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let (micros, exact) = decimal_micros(text, 6)?;
    exact.then(|| Duration::from_micros(micros))
}

/// A number in decimal, octal with a leading `0`, or hexadecimal with a leading `0x`.
pub(super) fn any_base(text: &str) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok();
    }
    match text.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => u64::from_str_radix(octal, 8).ok(),
        _ if text.starts_with('+') => None,
        _ => text.parse().ok(),
    }
}

/// The part of an IPv4 address that is too large.
fn wrong_octet(text: &str) -> Option<&str> {
    let parts: Vec<&str> = text.split('.').collect();
    let numbers = parts.iter().map(|part| part.parse::<u32>());
    if parts.len() != 4 || numbers.clone().any(|number| number.is_err()) {
        return None;
    }
    let at = numbers.flatten().position(|number| number > 255)?;
    Some(parts[at])
}

/// An address as servers and peers are written: a range or prefix after it is cut off.
pub(super) fn socket_address(text: &str) -> Option<IpAddr> {
    let end = text.find(['-', '/']).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// Seconds to microseconds, half-up, and whether no digit was lost.
fn decimal_micros(text: &str, decimals: usize) -> Option<(u64, bool)> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut micros: u64 = 0;
    for at in 0..6 {
        let digit = if at < decimals {
            fraction
                .as_bytes()
                .get(at)
                .map_or(0, |b| u64::from(b - b'0'))
        } else {
            0
        };
        micros = micros * 10 + digit;
    }
    let exact = fraction.len() <= decimals;
    let unit = 10_u64.pow(6_u32.saturating_sub(decimals as u32));
    let up = fraction
        .as_bytes()
        .get(decimals)
        .is_some_and(|b| *b >= b'5');
    let total = whole.checked_mul(1_000_000)?.checked_add(micros)?;
    Some((total.checked_add(if up { unit } else { 0 })?, exact))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_rounded_half_up() {
        assert_eq!(decimal_micros(".5", 6), Some((500_000, true)));
        assert_eq!(decimal_micros("3", 6), Some((3_000_000, true)));
        assert_eq!(decimal_micros("0.0005", 3), Some((1_000, false)));
        assert_eq!(decimal_micros("6s", 6), None);
        assert_eq!(decimal_micros(".", 6), None);
        assert_eq!(decimal_micros("99999999999999999999", 6), None);
    }

    #[test]
    fn a_range_or_prefix_after_an_address_is_cut_off() {
        assert_eq!(socket_address("10.0.0.1/24"), "10.0.0.1".parse().ok());
        assert_eq!(socket_address("fe80::1-ff"), "fe80::1".parse().ok());
        assert_eq!(socket_address("10.0.0.1:80"), None);
    }
}
