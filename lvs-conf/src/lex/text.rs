//! The text of a word. A configuration has millions of words, nearly all of them short.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// Immutable text that derefs to `str`. Up to 22 bytes are stored in place.
#[derive(Clone)]
pub struct Text(Repr);

#[derive(Clone)]
enum Repr {
    Static(&'static str),
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Box<str>),
}

impl Text {
    /// Text that lives as long as the program, such as a keyword's name.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Repr::Static(text))
    }

    /// Bytes as text; what is not UTF-8 becomes replacement characters.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        // Nearly every word is ASCII, which this finds out without a branch for each byte.
        let is_ascii = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all | byte).is_ascii();
        if bytes.len() <= SHORT && (is_ascii(bytes) || std::str::from_utf8(bytes).is_ok()) {
            let mut short = [0; SHORT];
            short[..bytes.len()].copy_from_slice(bytes);
            return Self(Repr::Short {
                len: bytes.len() as u8,
                bytes: short,
            });
        }
        Self(Repr::Long(String::from_utf8_lossy(bytes).into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Static(text) => text,
            Repr::Short { len, bytes } => std::str::from_utf8(&bytes[..usize::from(*len)])
                .expect("short text was checked when it was made"),
            Repr::Long(text) => text,
        }
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::from_static("")
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::from_bytes(text.as_bytes())
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        match text.0 {
            Repr::Long(text) => text.into(),
            Repr::Static(_) | Repr::Short { .. } => text.as_str().to_owned(),
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<String> for Text {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<Text> for String {
    fn eq(&self, other: &Text) -> bool {
        self == other.as_str()
    }
}

impl PartialEq<Text> for str {
    fn eq(&self, other: &Text) -> bool {
        self == other.as_str()
    }
}

impl PartialEq<Text> for &str {
    fn eq(&self, other: &Text) -> bool {
        *self == other.as_str()
    }
}

const SHORT: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_bytes_that_are_no_text_survive() {
        assert_eq!(size_of::<Text>(), 24);
        for len in 0..40 {
            let text = "é".repeat(len);
            assert_eq!(Text::from(text.as_str()), text);
            assert_eq!(String::from(Text::from(text.as_str())), text);
        }
        assert_eq!(Text::from_bytes(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(Text::from_static("rr"), Text::from("rr"));
    }
}
