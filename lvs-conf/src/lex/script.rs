//! The words of script commands, which have rules of their own.

use super::is_space;

/// Whether escapes take effect while splitting a script line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escapes {
    /// A backslash and the character after it are copied, and the character quotes nothing.
    Keep,
    /// `\n`, `\x41`, `\101`, `\cA` and the like become the byte that they stand for.
    Process,
    /// As before, but `\x` takes every hex digit that follows, as release 2.2.7 does.
    ProcessLongHex,
}

/// Why a script line cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptError {
    /// The quote that starts at this byte has no partner.
    UnterminatedQuote(usize),
    /// The text ends in a backslash.
    LoneBackslash,
}

impl std::fmt::Display for ScriptError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UnterminatedQuote(_) => "quote without partner",
            Self::LoneBackslash => "backslash at the end",
        })
    }
}

impl std::error::Error for ScriptError {}

/// One word of a script line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The word, quotes removed.
    pub bytes: Vec<u8>,
    /// Offset of its first byte in the split text, the quote included.
    pub start: usize,
    /// Offset after its last byte.
    pub end: usize,
    /// Some of it was quoted, so that it may be empty.
    pub quoted: bool,
}

/// Splits a script line: `"` and `'` quote, and quoted and unquoted pieces that touch form one word.
///
/// # Errors
/// A quote without partner, or a lone backslash at the end.
pub fn split_script(text: &[u8], escapes: Escapes) -> Result<Vec<Piece>, ScriptError> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut current: Option<Piece> = None;
    let mut quote: Option<(u8, usize)> = None;
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        if quote.is_none() && is_space(byte) {
            pieces.extend(current.take());
            at += 1;
            continue;
        }
        let piece = current.get_or_insert_with(|| Piece {
            bytes: Vec::new(),
            start: at,
            end: at,
            quoted: false,
        });
        match (quote, byte) {
            (_, b'\\') => {
                let Some(next) = text.get(at + 1) else {
                    return Err(ScriptError::LoneBackslash);
                };
                at += match escapes {
                    Escapes::Keep => {
                        piece.bytes.extend([b'\\', *next]);
                        2
                    }
                    Escapes::Process | Escapes::ProcessLongHex => {
                        let hex = if escapes == Escapes::Process {
                            2
                        } else {
                            usize::MAX
                        };
                        let (value, len) = escape(&text[at + 1..], hex);
                        piece.bytes.push(value);
                        1 + len
                    }
                };
            }
            (Some((open, _)), _) if byte == open => {
                quote = None;
                at += 1;
            }
            (None, b'"' | b'\'') => {
                quote = Some((byte, at));
                piece.quoted = true;
                at += 1;
            }
            _ => {
                piece.bytes.push(byte);
                at += 1;
            }
        }
        piece.end = at;
    }
    if let Some((_, start)) = quote {
        return Err(ScriptError::UnterminatedQuote(start));
    }
    pieces.extend(current);
    Ok(pieces)
}

/// The byte that an escape stands for and how many bytes after the backslash it takes. `rest` is not empty, and `\x` takes up
/// to `hex` digits.
fn escape(rest: &[u8], hex: usize) -> (u8, usize) {
    let digits = |from: usize, max: usize, radix: u32| {
        let mut value: u32 = 0;
        let mut len = 0;
        while len < max {
            let Some(digit) = rest
                .get(from + len)
                .and_then(|b| char::from(*b).to_digit(radix))
            else {
                break;
            };
            value = (value * radix + digit) & 0xffff;
            len += 1;
        }
        ((value & 0xff) as u8, len)
    };
    match rest[0] {
        b'a' => (0x07, 1),
        b'b' => (0x08, 1),
        b'E' => (0x1b, 1),
        b'f' => (0x0c, 1),
        b'n' => (b'\n', 1),
        b'r' => (b'\r', 1),
        b't' => (b'\t', 1),
        b'v' => (0x0b, 1),
        b'x' => match digits(1, hex, 16) {
            (_, 0) => (b'x', 1),
            (value, len) => (value, 1 + len),
        },
        b'c' if rest.len() > 1 => (rest[1] & 0x1f, 2),
        b'0'..=b'7' => digits(0, 3, 8),
        other => (other, 1),
    }
}
