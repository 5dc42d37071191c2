//! Persistence engines: what connections of one client group have in common besides the group.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Packet, Protocol};

/// Finds in a packet the string by which connections stay together, on top of the client group.
///
/// Used for persistent services that have it, see
/// [`Director::set_engine`](crate::Director::set_engine). A template then belongs to the engine, the
/// string and the group; a packet without a string is dropped.
pub trait PersistenceEngine: Send + Sync + fmt::Debug {
    /// Short name for listings. Templates of engines with different names never match.
    fn name(&self) -> &'static str;

    /// The string of a packet, by what follows its transport header. At most 255 bytes; more count
    /// as none.
    fn extract<'a>(&self, packet: &Packet, payload: &'a [u8]) -> Option<&'a [u8]>;

    /// Whether packets of real servers begin connections as well, so that what a server starts
    /// meets the same template.
    fn accepts_servers(&self) -> bool {
        false
    }
}

/// What follows the transport headers of packets that come together.
pub trait Payloads {
    /// The payload of the packet with this place among them; empty if there is none.
    fn payload(&self, index: usize) -> &[u8];
}

impl<T: AsRef<[u8]>, const N: usize> Payloads for [T; N] {
    fn payload(&self, index: usize) -> &[u8] {
        self.get(index).map_or(&[], AsRef::as_ref)
    }
}

impl<T: AsRef<[u8]>> Payloads for Vec<T> {
    fn payload(&self, index: usize) -> &[u8] {
        self.get(index).map_or(&[], AsRef::as_ref)
    }
}

/// The engines that are built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum EngineKind {
    /// `sip`: SIP over UDP by the Call-ID.
    Sip,
}

impl EngineKind {
    /// The short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sip => "sip",
        }
    }

    /// An engine of this kind.
    pub fn build(self) -> Arc<dyn PersistenceEngine> {
        match self {
            Self::Sip => Arc::new(Sip),
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for EngineKind {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "sip" => Ok(Self::Sip),
            _ => Err(UnknownEngine(name.to_owned())),
        }
    }
}

/// No engine has this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownEngine(String);

impl fmt::Display for UnknownEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown persistence engine {:?}", self.0)
    }
}

impl std::error::Error for UnknownEngine {}

/// SIP over UDP: all packets of one call go to one server, by the Call-ID header (RFC 3261).
///
/// An existing connection of the same addresses and ports wins over the Call-ID, so between two
/// fixed endpoints it works in one-packet mode only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sip;

impl PersistenceEngine for Sip {
    fn name(&self) -> &'static str {
        "sip"
    }

    fn extract<'a>(&self, packet: &Packet, payload: &'a [u8]) -> Option<&'a [u8]> {
        if packet.protocol != Protocol::Udp {
            return None;
        }
        call_id(payload)
    }

    fn accepts_servers(&self) -> bool {
        true
    }
}

fn call_id(payload: &[u8]) -> Option<&[u8]> {
    let mut from = 0;
    loop {
        let line = next_line(payload, from)?;
        from = line;
        let Some(name) = header_name(&payload[line..]) else {
            continue;
        };
        let colon = skip_white(payload, line + name);
        if payload.get(colon) != Some(&b':') {
            return None;
        }
        let start = skip_white(payload, colon + 1);
        let length = value_length(&payload[start..]);
        if length == 0 {
            continue;
        }
        let end = start + length;
        // Something must follow, and it must be the end of the line.
        return (length <= MAX_DATA && matches!(payload.get(end)?, b'\r' | b'\n'))
            .then(|| &payload[start..end]);
    }
}

/// Where the next line after `from` starts that is not a continuation. The first line of a packet
/// is never one of them: it is the request or status line.
fn next_line(payload: &[u8], mut from: usize) -> Option<usize> {
    loop {
        from += payload.get(from..)?.iter().position(|b| is_end(*b))? + 1;
        if payload[from - 1] == b'\r' && payload.get(from) == Some(&b'\n') {
            from += 1;
        }
        match payload.get(from)? {
            b' ' | b'\t' => {}
            // An empty line: its own end is found next.
            _ => return Some(from),
        }
    }
}

/// Length of a Call-ID header's name, long or compact.
fn header_name(line: &[u8]) -> Option<usize> {
    if line.len() >= 7 && line[..7].eq_ignore_ascii_case(b"Call-ID") {
        return Some(7);
    }
    match line {
        [b'i' | b'I', next, ..] if !next.is_ascii_alphabetic() => Some(1),
        _ => None,
    }
}

/// Skips white space, over one folded line.
fn skip_white(payload: &[u8], mut at: usize) -> usize {
    let white = |at: usize| matches!(payload.get(at), Some(b' ' | b'\t'));
    while white(at) {
        at += 1;
    }
    let mut folded = at;
    if payload.get(folded) == Some(&b'\r') {
        folded += 1;
    }
    if payload.get(folded) == Some(&b'\n') {
        folded += 1;
    }
    if folded > at && white(folded) {
        at = folded;
        while white(at) {
            at += 1;
        }
    }
    at
}

/// Length of `word` or `word@word` at the start; 0 if there is none.
fn value_length(text: &[u8]) -> usize {
    let word = |text: &[u8]| text.iter().take_while(|b| is_word(**b)).count();
    let first = word(text);
    if first == 0 || text.get(first) != Some(&b'@') {
        return first;
    }
    match word(&text[first + 1..]) {
        0 => 0,
        second => first + 1 + second,
    }
}

fn is_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+'`~()<>:\\\"/[]?{}".contains(&byte)
}

/// Longest string of an engine in bytes.
pub(crate) const MAX_DATA: usize = 255;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(payload: &str) -> Option<&str> {
        call_id(payload.as_bytes()).map(|id| std::str::from_utf8(id).unwrap())
    }

    #[test]
    fn call_ids_are_found() {
        assert_eq!(
            found("INVITE sip:a@b SIP/2.0\r\nVia: x\r\nCall-ID: abc@host.example\r\n\r\n"),
            Some("abc@host.example")
        );
        assert_eq!(found("X\r\ncall-id:abc\r\n"), Some("abc"));
        assert_eq!(found("X\ni: abc\n"), Some("abc"));
        assert_eq!(found("X\rI  :\tabc\r"), Some("abc"));
        assert_eq!(found("X\r\nCall-ID:\r\n abc\r\n"), Some("abc"), "folded");
        assert_eq!(
            found("X\r\nCall-ID: a@\r\nCall-ID: b\r\n"),
            Some("b"),
            "an unusable header is passed over"
        );
        assert_eq!(found("X\r\nCall-ID: \r\ni:b\r\n"), Some("b"));
        assert_eq!(found("X\r\n Call-ID: a\r\ni:b\r\n"), Some("b"));
        assert_eq!(found("X\r\n\r\ni:b\r\n"), Some("b"));
    }

    #[test]
    fn others_are_not() {
        assert_eq!(found(""), None);
        assert_eq!(found("Call-ID: abc\r\n"), None, "the first line");
        assert_eq!(found("X\r\nCall-ID abc\r\ni: b\r\n"), None, "no colon");
        assert_eq!(found("X\r\nCall-ID: abc"), None, "ends with the payload");
        assert_eq!(found("X\r\nCall-ID: abc;x\r\n"), None);
        assert_eq!(found("X\r\nId: abc\r\n"), None);
        assert_eq!(found(&format!("X\r\ni:{}\r\n", "a".repeat(256))), None);
        assert!(found(&format!("X\r\ni:{}\r\n", "a".repeat(255))).is_some());
    }

    proptest! {
        #[test]
        fn no_payload_makes_it_fail(pieces in prop::collection::vec(
            prop::sample::select(vec!["\r", "\n", "Call-ID", "i", ":", " ", "a", "@", "\t", "é"]), 0..40)) {
            let payload = pieces.concat();
            if let Some(id) = found(&payload) {
                prop_assert!(!id.is_empty() && id.len() <= MAX_DATA);
            }
        }
    }
}
