//! `UDP_CHECK`: a datagram is answered, or at least not refused.

use crate::{Attempt, Checker, Failure, Next, Outcome, ReadError, Start, Transport};
use bytes::Bytes;
use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// Sends one datagram. Without a required reply, silence is a success and only ICMP errors are failures.
///
/// Without a required reply a dead host is noticed only if the failure of its ARP or neighbour discovery (about 3 s)
/// comes before the connect timeout; ask for a reply, or set a timeout of 4 s at least.
#[doc(alias = "UDP_CHECK")]
#[derive(Debug, Clone)]
pub struct UdpCheck {
    config: UdpConfig,
}

/// What a [`UdpCheck`] sends and what it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpConfig {
    /// What is sent; keepalived's text of 32 bytes by default.
    pub payload: Bytes,
    /// What must come back; `None`: nothing need.
    pub reply: Option<UdpReply>,
}

impl Default for UdpConfig {
    fn default() -> Self {
        Self {
            payload: Bytes::from_static(b"keepalived check - keepalived ch"),
            reply: None,
        }
    }
}

/// A reply that must come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpReply {
    /// What it begins with; a reply that is shorter and as far equal passes. Empty: anything.
    pub pattern: UdpPattern,
    /// The shortest that passes, in bytes; 0 by default.
    pub min_length: u16,
    /// The longest that passes, in bytes; 255 by default.
    pub max_length: u16,
    /// Lengths are looked at only together with a pattern, as keepalived does.
    pub ignore_length_without_pattern: bool,
}

impl UdpReply {
    /// Any reply of up to 255 bytes that begins with this.
    pub fn new(pattern: UdpPattern) -> Self {
        Self {
            pattern,
            min_length: 0,
            max_length: 255,
            ignore_length_without_pattern: false,
        }
    }

    fn accepts(&self, data: &[u8]) -> bool {
        let lengths = usize::from(self.min_length)..=usize::from(self.max_length);
        if self.pattern.0.is_empty() {
            return self.ignore_length_without_pattern || lengths.contains(&data.len());
        }
        lengths.contains(&data.len()) && self.pattern.matches(data)
    }
}

impl UdpCheck {
    /// Sends and wants this.
    pub fn new(config: UdpConfig) -> Self {
        Self { config }
    }
}

impl Checker for UdpCheck {
    fn name(&self) -> &'static str {
        "UDP_CHECK"
    }

    fn identity(&self) -> Option<String> {
        Some(format!("{:?}", self.config))
    }

    fn begin(&mut self, _: &Attempt) -> Start {
        Start::Connect(Transport::Udp)
    }

    fn handle_connected(&mut self) -> Next {
        Next::Send(self.config.payload.clone())
    }

    fn handle_data(&mut self, data: &[u8]) -> Next {
        Next::Done(match &self.config.reply {
            Some(reply) if !reply.accepts(data) => Outcome::Down(Failure::UdpMismatch),
            _ => Outcome::Up,
        })
    }

    fn handle_error(&mut self, error: ReadError) -> Outcome {
        match error {
            // Somebody on the way complains, but not about the service.
            ReadError::Icmp if self.config.reply.is_none() => Outcome::Up,
            error => Outcome::Down(error.into()),
        }
    }

    fn handle_timeout(&mut self) -> Outcome {
        match self.config.reply {
            None => Outcome::Up,
            Some(_) => Outcome::Down(Failure::UdpNoReply),
        }
    }
}

/// Bytes of which some half bytes may be anything. Parses from keepalived's notation: bytes of one or two hexadecimal
/// digits, blanks between them as one likes, `x` for any half byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UdpPattern(Vec<Masked>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Masked {
    value: u8,
    mask: u8,
}

impl UdpPattern {
    /// From pairs of half bytes, the high one first; `None` is any.
    pub fn from_nibbles(pairs: impl IntoIterator<Item = [Option<u8>; 2]>) -> Self {
        let half = |half: Option<u8>| half.map_or((0, 0), |value| (value & 0x0f, 0x0f));
        let byte = |[high, low]: [Option<u8>; 2]| {
            let (high, low) = (half(high), half(low));
            Masked {
                value: high.0 << 4 | low.0,
                mask: high.1 << 4 | low.1,
            }
        };
        Self(pairs.into_iter().map(byte).collect())
    }

    fn matches(&self, data: &[u8]) -> bool {
        self.0
            .iter()
            .zip(data)
            .all(|(wanted, byte)| byte & wanted.mask == wanted.value)
    }
}

impl FromStr for UdpPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let half = |byte: u8| match byte {
            b'x' | b'X' => Some(None),
            _ => char::from(byte)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
                .map(Some),
        };
        let mut pairs = Vec::new();
        for word in text.split_ascii_whitespace() {
            for pair in word.as_bytes().chunks(2) {
                let last = half(pair[pair.len() - 1]).ok_or(InvalidPattern)?;
                pairs.push(match pair {
                    [first, _] => [half(*first).ok_or(InvalidPattern)?, last],
                    _ => [Some(0), last],
                });
            }
        }
        Ok(Self::from_nibbles(pairs))
    }
}

/// Something else than hexadecimal digits, blanks and `x`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidPattern;

impl fmt::Display for InvalidPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pattern is made of hexadecimal digits, blanks, and x for any digit")
    }
}

impl Error for InvalidPattern {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reply: Option<UdpReply>) -> UdpCheck {
        UdpCheck::new(UdpConfig {
            reply,
            ..UdpConfig::default()
        })
    }

    fn wants(pattern: &str, min_length: u16, max_length: u16) -> UdpReply {
        UdpReply {
            min_length,
            max_length,
            ..UdpReply::new(pattern.parse().unwrap())
        }
    }

    #[test]
    fn patterns_are_read_as_keepalived_reads_them() {
        let bytes = |text: &str| -> Vec<(u8, u8)> {
            let pattern: UdpPattern = text.parse().unwrap();
            let masked = pattern.0.iter();
            masked.map(|masked| (masked.value, masked.mask)).collect()
        };
        let plain = |bytes: &[u8]| -> Vec<(u8, u8)> { bytes.iter().map(|b| (*b, 0xff)).collect() };
        assert_eq!(
            bytes("Ab12f 3 456 546443123"),
            plain(&[
                0xab, 0x12, 0x0f, 0x03, 0x45, 0x06, 0x54, 0x64, 0x43, 0x12, 0x03
            ])
        );
        assert_eq!(bytes("0"), plain(&[0]));
        assert_eq!(
            bytes("61x263"),
            [(0x61, 0xff), (0x02, 0x0f), (0x63, 0xff)],
            "the high half byte is any"
        );
        assert_eq!(bytes("x"), [(0, 0xf0)], "alone it is the low half byte");
        assert_eq!("12g4".parse::<UdpPattern>(), Err(InvalidPattern));
    }

    #[test]
    fn replies_are_judged() {
        let up = || Outcome::Up;
        let no = || Outcome::Down(Failure::UdpMismatch);
        let long = [0; 300];
        let table: [(UdpReply, &[u8], Outcome); 9] = [
            (wants("616263646566", 0, 255), b"abc", up()),
            (wants("616264", 0, 255), b"abc", no()),
            (wants("61x263", 0, 255), b"abc", up()),
            (wants("616263", 0, 5), b"abcdef", no()),
            (wants("616263", 3, 255), b"ab", no()),
            (wants("", 1, 255), b"", no()),
            (wants("", 0, 255), &long, no()),
            (wants("", 0, 255), b"", up()),
            (wants("616263", 0, 255), b"", up()),
        ];
        for (reply, data, wanted) in table {
            let text = format!("{reply:?} {data:?}");
            assert_eq!(
                check(Some(reply)).handle_data(data),
                Next::Done(wanted),
                "{text}"
            );
        }
        let mut historical = wants("", 1, 255);
        historical.ignore_length_without_pattern = true;
        assert_eq!(
            check(Some(historical.clone())).handle_data(b""),
            Next::Done(up())
        );
        assert_eq!(check(Some(historical)).handle_data(&long), Next::Done(up()));
        assert_eq!(check(None).handle_data(&long), Next::Done(up()));
    }

    #[test]
    fn silence_and_icmp() {
        let any = || Some(wants("", 0, 255));
        assert_eq!(check(None).handle_timeout(), Outcome::Up);
        assert_eq!(
            check(any()).handle_timeout(),
            Outcome::Down(Failure::UdpNoReply)
        );
        let unreachable = Outcome::Down(Failure::IcmpUnreachable);
        assert_eq!(
            check(None).handle_error(ReadError::Unreachable),
            unreachable
        );
        assert_eq!(
            check(any()).handle_error(ReadError::Unreachable),
            unreachable
        );
        assert_eq!(check(None).handle_error(ReadError::Icmp), Outcome::Up);
        assert!(matches!(
            check(any()).handle_error(ReadError::Icmp),
            Outcome::Down(_)
        ));
    }

    #[test]
    fn what_is_sent_is_keepalived_s_text() {
        let sent = check(None).handle_connected();
        assert_eq!(sent, Next::Send("keepalived check - keepalived ch".into()));
    }
}
