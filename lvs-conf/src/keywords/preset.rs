//! Defaults: what the table says of them, and typed readings of it for the model.
//!
//! The readings are evaluated when the crate is compiled: a row that is missing, or whose default is not what the model
//! takes, does not compile.

use std::fmt;
use std::time::Duration;

use super::{Place, TABLE, Unit};

/// What applies when a keyword is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// Nothing is set.
    None,
    /// What the keyword switches on is off.
    Off,
    /// As if the keyword stood there with these arguments.
    Value(&'static str),
    /// What another keyword says, of the same block, else of the one around it, else of `global_defs`.
    Of(&'static str),
    /// Found out elsewhere, in words.
    Told(&'static str),
}

impl fmt::Display for DefaultValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Off => f.write_str("off"),
            Self::Value(text) => write!(f, "`{text}`"),
            Self::Of(keyword) => write!(f, "that of `{keyword}`"),
            Self::Told(text) => f.write_str(text),
        }
    }
}

/// The default of a keyword as text.
pub(crate) const fn text(place: Place, name: &str) -> &'static str {
    match row(place, name).default {
        DefaultValue::Value(text) => text,
        _ => panic!("the table has no value for this keyword"),
    }
}

/// The default of a keyword that takes a time.
pub(crate) const fn duration(place: Place, name: &str) -> Duration {
    time(place, name, text(place, name))
}

/// The default of a keyword that takes a number. The caller's type must hold it.
pub(crate) const fn number(place: Place, name: &str) -> i64 {
    parse(text(place, name), 1)
}

/// What a keyword without its argument stands for.
pub(crate) const fn bare_text(place: Place, name: &str) -> &'static str {
    row(place, name)
        .bare
        .expect("the table says what the keyword means without argument")
}

/// The same for a time.
pub(crate) const fn bare_duration(place: Place, name: &str) -> Duration {
    time(place, name, bare_text(place, name))
}

/// The same for a number.
pub(crate) const fn bare_number(place: Place, name: &str) -> i64 {
    parse(bare_text(place, name), 1)
}

const fn time(place: Place, name: &str, text: &str) -> Duration {
    let per = match row(place, name).range {
        Some(range) => match range.unit {
            Unit::Seconds(_) => 1_000_000,
            Unit::Milliseconds(_) => 1_000,
            Unit::Microseconds => 1,
            Unit::None | Unit::Bytes => panic!("the keyword takes no time"),
        },
        None => panic!("the keyword takes no time"),
    };
    let micros = parse(text, per);
    assert!(micros >= 0, "times are not negative");
    Duration::from_micros(micros.unsigned_abs())
}

/// A number times `per`: decimal, octal with a leading `0`.
const fn parse(text: &str, per: i64) -> i64 {
    let bytes = text.as_bytes();
    let (negative, mut at) = match bytes.first() {
        Some(b'-') => (true, 1),
        Some(_) => (false, 0),
        None => panic!("the default is empty"),
    };
    let base = if bytes.len() > at + 1 && bytes[at] == b'0' {
        8
    } else {
        10
    };
    let mut value: i64 = 0;
    while at < bytes.len() {
        assert!(bytes[at].is_ascii_digit(), "the default is no number");
        value = value * base + (bytes[at] - b'0') as i64;
        at += 1;
    }
    if negative { -value * per } else { value * per }
}

const fn row(place: Place, name: &str) -> &'static super::Keyword {
    let mut part = 0;
    while part < TABLE.len() {
        let mut at = 0;
        while at < TABLE[part].len() {
            let row = &TABLE[part][at];
            if is_same(row.name, name) && is_in(row.places, place) {
                return row;
            }
            at += 1;
        }
        part += 1;
    }
    panic!("the table has no such keyword");
}

const fn is_in(places: &[Place], place: Place) -> bool {
    let mut at = 0;
    while at < places.len() {
        if places[at] as usize == place as usize {
            return true;
        }
        at += 1;
    }
    false
}

pub(crate) const fn is_same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// A default of the table: `preset!(duration, GlobalDefs, "smtp_connect_timeout")`.
macro_rules! preset {
    ($kind:ident as $type:ty, $place:ident, $name:literal) => {
        const {
            let value = $crate::keywords::preset::$kind($crate::keywords::Place::$place, $name);
            assert!(
                value >= <$type>::MIN as i64 && value <= <$type>::MAX as i64,
                "the type holds the default"
            );
            value as $type
        }
    };
    ($kind:ident, $place:ident, $name:literal) => {
        const { $crate::keywords::preset::$kind($crate::keywords::Place::$place, $name) }
    };
    ($words:ident, of $place:ident, $name:literal) => {
        const {
            $words::from_word($crate::keywords::preset::text(
                $crate::keywords::Place::$place,
                $name,
            ))
            .expect("the default is one of the words")
        }
    };
}
pub(crate) use preset;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_read_in_the_unit_of_their_keyword() {
        assert_eq!(
            duration(Place::BfdInstance, "idle_tx"),
            Duration::from_secs(1)
        );
        assert_eq!(
            duration(Place::GlobalDefs, "vrrp_rlimit_rttime"),
            Duration::from_millis(10)
        );
        assert_eq!(number(Place::GlobalDefs, "umask"), 0o177);
        assert_eq!(number(Place::GlobalDefs, "nftables_priority"), -1);
        assert_eq!(
            bare_duration(Place::VirtualServer, "persistence_timeout"),
            Duration::from_secs(360)
        );
    }
}
