//! Bytes to logical lines to words. Every byte that survives remembers where it stood in the source.
//!
//! The order is that of the original reader: physical lines, comments, (the language's line constructs,) braces, words.

use crate::diag::{Code, Consequence, Diagnostic};
use crate::source::{Source, SourceId, Span, to_offset};

/// One word of a line. Text that is not UTF-8 is kept with replacement characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The word without its quotes.
    pub text: String,
    /// Where it stands, quotes included.
    pub span: Span,
    /// It was written in double quotes.
    pub quoted: bool,
}

/// One logical line: a single unquoted brace, or text without unquoted braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    bytes: Vec<u8>,
    /// Source offset of every byte.
    offsets: Vec<u32>,
    source: SourceId,
    /// The physical line ended inside double quotes, which has been reported.
    unterminated: bool,
}

/// The words of a line, and the quote that has no partner if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// The usable words.
    pub words: Vec<Word>,
    /// Where the text that was dropped starts.
    pub unmatched: Option<Span>,
}

impl Line {
    /// The text after comment removal.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// From the first to the last byte.
    pub fn span(&self) -> Span {
        self.span_of(0, self.bytes.len())
    }

    /// This line is a lone `{`.
    pub fn is_open(&self) -> bool {
        self.bytes == b"{"
    }

    /// This line is a lone `}`.
    pub fn is_close(&self) -> bool {
        self.bytes == b"}"
    }

    /// An open quote on this line has been reported already.
    pub fn is_unterminated(&self) -> bool {
        self.unterminated
    }

    /// Ordinary splitting: white space separates, `"` quotes without escapes and always starts or ends a word.
    pub fn words(&self) -> Words {
        let mut words = Vec::new();
        let mut at = 0;
        while at < self.bytes.len() {
            let byte = self.bytes[at];
            if is_space(byte) {
                at += 1;
            } else if byte == b'"' {
                let Some(len) = self.bytes[at + 1..].iter().position(|b| *b == b'"') else {
                    return Words {
                        words,
                        unmatched: Some(self.span_of(at, self.bytes.len())),
                    };
                };
                let end = at + len + 2;
                words.push(self.word(at + 1, end - 1, self.span_of(at, end), true));
                at = end;
            } else {
                let len = self.bytes[at..]
                    .iter()
                    .position(|b| is_space(*b) || *b == b'"')
                    .unwrap_or(self.bytes.len() - at);
                words.push(self.word(at, at + len, self.span_of(at, at + len), false));
                at += len;
            }
        }
        Words {
            words,
            unmatched: None,
        }
    }

    /// Script splitting of the line, the keyword included: first stage, escapes are copied through.
    ///
    /// # Errors
    /// A quote without partner, or a lone backslash at the end.
    pub fn script_words(&self) -> Result<Vec<Word>, ScriptError> {
        let pieces = split_script(&self.bytes, Escapes::Keep)?;
        Ok(pieces
            .into_iter()
            .map(|piece| Word {
                text: String::from_utf8_lossy(&piece.bytes).into_owned(),
                span: self.span_of(piece.start, piece.end),
                quoted: piece.quoted,
            })
            .collect())
    }

    fn word(&self, from: usize, to: usize, span: Span, quoted: bool) -> Word {
        Word {
            text: String::from_utf8_lossy(&self.bytes[from..to]).into_owned(),
            span,
            quoted,
        }
    }

    fn span_of(&self, from: usize, to: usize) -> Span {
        let start = self.offsets.get(from).copied().unwrap_or_default();
        let end = if to > from {
            self.offsets[to - 1] + 1
        } else {
            start
        };
        Span {
            source: self.source,
            start,
            end,
        }
    }

    fn part(&self, from: usize, to: usize) -> Self {
        Self {
            bytes: self.bytes[from..to].to_vec(),
            offsets: self.offsets[from..to].to_vec(),
            source: self.source,
            unterminated: self.unterminated,
        }
    }

    /// The line without blanks at both ends.
    fn trimmed(&self) -> Self {
        let from = self.bytes.iter().position(|b| !is_blank(*b));
        let to = self.bytes.iter().rposition(|b| !is_blank(*b));
        match (from, to) {
            (Some(from), Some(to)) => self.part(from, to + 1),
            _ => self.part(0, 0),
        }
    }

    fn split_braces(&self, out: &mut Vec<Self>) {
        let mut from = 0;
        let mut quoted = false;
        for at in 0..self.bytes.len() {
            match self.bytes[at] {
                b'"' => quoted = !quoted,
                b'{' | b'}' if !quoted => {
                    self.push_part(from, at, out);
                    out.push(self.part(at, at + 1));
                    from = at + 1;
                }
                _ => {}
            }
        }
        self.push_part(from, self.bytes.len(), out);
    }

    fn push_part(&self, from: usize, to: usize, out: &mut Vec<Self>) {
        let part = self.part(from, to).trimmed();
        if part.bytes.iter().any(|b| !is_space(*b)) {
            out.push(part);
        }
    }
}

/// Splits a source into logical lines. Blank lines and comments are gone, every unquoted brace is a line of its own.
pub fn lines(source: &Source, id: SourceId, diagnostics: &mut Vec<Diagnostic>) -> Vec<Line> {
    let mut out = Vec::new();
    for (start, end) in physical_lines(source.bytes(), id, diagnostics) {
        let line = without_comment(source.bytes(), id, start, end, diagnostics).trimmed();
        if let Some(construct) = Construct::of(&line.bytes) {
            diagnostics.push(
                Diagnostic::new(
                    Code::UnsupportedConstruct,
                    Consequence::Ignore,
                    line.span(),
                    format!("{} not evaluated, the line is ignored", construct.plural()),
                )
                .expected("a keyword or a brace"),
            );
            continue;
        }
        line.split_braces(&mut out);
    }
    out
}

/// Whether escapes take effect while splitting a script line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escapes {
    /// A backslash and the character after it are copied, and the character quotes nothing.
    Keep,
    /// `\n`, `\x41`, `\101`, `\cA` and the like become the byte that they stand for.
    Process,
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
                    Escapes::Process => {
                        let (value, len) = escape(&text[at + 1..]);
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

/// A line construct of the language that is handled before words are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Construct {
    Conditional,
    Definition,
    Sequence,
    Include,
}

impl Construct {
    fn of(line: &[u8]) -> Option<Self> {
        if line.starts_with(b"@") {
            return Some(Self::Conditional);
        }
        if line.starts_with(b"~SEQ") || line.starts_with(b"~LST") {
            return Some(Self::Sequence);
        }
        if let Some(rest) = line.strip_prefix(b"$") {
            let len = rest
                .iter()
                .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_')
                .count();
            let named = rest.first().is_some_and(|b| !b.is_ascii_digit());
            return (len > 0 && named && rest.get(len) == Some(&b'=')).then_some(Self::Definition);
        }
        let end = line.iter().position(|b| is_space(*b))?;
        INCLUDES.contains(&&line[..end]).then_some(Self::Include)
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Conditional => "conditional lines are",
            Self::Definition => "parameter definitions are",
            Self::Sequence => "sequences are",
            Self::Include => "includes are",
        }
    }
}

/// Start and end (without line end) of every usable physical line.
fn physical_lines(
    bytes: &[u8],
    source: SourceId,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<(usize, usize)> {
    let mut out = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let next = bytes[start..]
            .iter()
            .position(|b| *b == b'\n')
            .map_or(bytes.len(), |at| start + at + 1);
        let mut cut = (start + MAX_LINE).min(next);
        let too_long = cut < next;
        // A character is never torn, so that what remains has a proper first column.
        while too_long && cut < next && bytes[cut] & 0xc0 == 0x80 && cut < start + MAX_LINE + 3 {
            cut += 1;
        }
        let mut end = cut;
        while end > start && matches!(bytes[end - 1], b'\n' | b'\r') {
            end -= 1;
        }
        let span = Span {
            source,
            start: to_offset(start),
            end: to_offset(end),
        };
        if too_long {
            diagnostics.push(
                Diagnostic::new(
                    Code::LineTooLong,
                    Consequence::Ignore,
                    span,
                    "line of more than 1023 bytes, its first 1023 bytes are discarded",
                )
                .expected("at most 1023 bytes, line end included"),
            );
        } else if let Some(nul) = bytes[start..end].iter().position(|b| *b == 0) {
            let at = to_offset(start + nul);
            diagnostics.push(Diagnostic::new(
                Code::NulByte,
                Consequence::Ignore,
                Span {
                    source,
                    start: at,
                    end: at + 1,
                },
                "NUL byte, the line is ignored",
            ));
        } else {
            out.push((start, end));
        }
        start = cut;
    }
    out
}

fn without_comment(
    bytes: &[u8],
    source: SourceId,
    start: usize,
    end: usize,
    diagnostics: &mut Vec<Diagnostic>,
) -> Line {
    let mut line = Line {
        bytes: Vec::with_capacity(end - start),
        offsets: Vec::with_capacity(end - start),
        source,
        unterminated: false,
    };
    let mut keep = |at: usize| {
        line.bytes.push(bytes[at]);
        line.offsets.push(to_offset(at));
    };
    let mut quote = None;
    let mut at = start;
    while at < end {
        match bytes[at] {
            b'"' => {
                quote = if quote.is_none() { Some(at) } else { None };
                keep(at);
            }
            b'\\' if at + 1 < end => {
                let literal = quote.is_none() && matches!(bytes[at + 1], b'#' | b'!');
                if !literal {
                    keep(at);
                }
                at += 1;
                keep(at);
            }
            b'#' | b'!' if quote.is_none() => break,
            _ => keep(at),
        }
        at += 1;
    }
    if let Some(open) = quote {
        line.unterminated = true;
        diagnostics.push(
            Diagnostic::new(
                Code::UnterminatedQuote,
                Consequence::Ignore,
                Span {
                    source,
                    start: to_offset(open),
                    end: to_offset(end),
                },
                "the line ends inside double quotes, words from the quote on are ignored",
            )
            .expected("a closing `\"` on the same line"),
        );
    }
    // Blanks before a final backslash mean nothing either.
    if line.bytes.last() == Some(&b'\\') {
        while line.bytes.len() > 1 && is_blank(line.bytes[line.bytes.len() - 2]) {
            line.bytes.remove(line.bytes.len() - 2);
            line.offsets.remove(line.offsets.len() - 2);
        }
    }
    line
}

/// The byte that an escape stands for and how many bytes after the backslash it takes. `rest` is not empty.
fn escape(rest: &[u8]) -> (u8, usize) {
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
            value = value * radix + digit;
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
        b'x' => match digits(1, 2, 16) {
            (_, 0) => (b'x', 1),
            (value, len) => (value, 1 + len),
        },
        b'c' if rest.len() > 1 => (rest[1] & 0x1f, 2),
        b'0'..=b'7' => digits(0, 3, 8),
        other => (other, 1),
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0c | 0x0b | b'\r' | b'\n')
}

/// Longest physical line, line end included.
const MAX_LINE: usize = 1023;
const INCLUDES: &[&[u8]] = &[
    b"include",
    b"includer",
    b"includem",
    b"includew",
    b"includeb",
    b"includea",
];

#[cfg(test)]
mod tests;
