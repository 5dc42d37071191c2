//! A text in pieces that leave nothing out: what a formatter or an editor looks at.

use super::reader::definition;
use super::{is_blank, is_space};

/// What a piece of a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PieceKind {
    /// White space between words.
    Blank,
    /// The end of a line, with carriage returns before it.
    LineEnd,
    /// From `#` or `!` to the end of the line.
    Comment,
    /// `{`.
    Open,
    /// `}`.
    Close,
    /// A word, with its quotes.
    Word,
    /// A conditional line, a definition (each of its lines), a sequence or an include, as far as it is no comment.
    Directive,
}

/// A part of a text. Pieces follow one another without gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// What it is.
    pub kind: PieceKind,
    /// Offset of its first byte.
    pub start: usize,
    /// Offset after its last byte.
    pub end: usize,
}

/// Cuts a text into pieces, nothing evaluated. Put together again they are the text, byte for byte.
pub fn pieces(text: &[u8]) -> impl Iterator<Item = Piece> + '_ {
    Pieces {
        text,
        at: 0,
        line: Place::Start,
    }
}

struct Pieces<'a> {
    text: &'a [u8],
    at: usize,
    line: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing but blanks so far.
    Start,
    /// After a word or brace.
    Inside,
    /// The line belongs to the definition before it.
    Continued,
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let start = self.at;
        let rest = &self.text[start..];
        let first = *rest.first()?;
        let count = |keep: &dyn Fn(u8) -> bool| rest.iter().take_while(|b| keep(**b)).count();
        let (kind, len) = if let Some(len) = line_end(rest) {
            (PieceKind::LineEnd, len)
        } else if is_space(first) {
            let blanks = (0..rest.len())
                .take_while(|at| is_space(rest[*at]) && line_end(&rest[*at..]).is_none())
                .count();
            (PieceKind::Blank, blanks)
        } else if matches!(first, b'#' | b'!') {
            (PieceKind::Comment, count(&|b| b != b'\n'))
        } else if self.line == Place::Continued || (self.line == Place::Start && is_directive(rest))
        {
            (PieceKind::Directive, code_len(rest))
        } else {
            match first {
                b'{' => (PieceKind::Open, 1),
                b'}' => (PieceKind::Close, 1),
                b'"' => {
                    let inner = &rest[1..];
                    let end = inner.iter().position(|b| matches!(b, b'"' | b'\n'));
                    let len = match end {
                        Some(at) if inner[at] == b'"' => at + 2,
                        Some(at) => at + 1,
                        None => rest.len(),
                    };
                    (PieceKind::Word, len)
                }
                _ => (PieceKind::Word, word_len(rest)),
            }
        };
        self.at += len;
        self.line = match kind {
            PieceKind::Blank => self.line,
            PieceKind::LineEnd if self.line == Place::Continued => Place::Continued,
            PieceKind::LineEnd => Place::Start,
            PieceKind::Directive => {
                let code = &rest[..len];
                let defines = self.line == Place::Continued || definition(code).is_some();
                if defines && code.ends_with(b"\\") {
                    Place::Continued
                } else {
                    Place::Inside
                }
            }
            PieceKind::Comment if self.line == Place::Continued => Place::Inside,
            PieceKind::Comment => self.line,
            PieceKind::Open | PieceKind::Close | PieceKind::Word => Place::Inside,
        };
        // A line without text ends a definition.
        if kind == PieceKind::LineEnd
            && self.line == Place::Continued
            && self.text[self.at..].iter().find(|b| !is_blank(**b)) == Some(&b'\n')
        {
            self.line = Place::Start;
        }
        Some(Piece {
            kind,
            start,
            end: start + len,
        })
    }
}

/// The length of the line end that a text starts with.
fn line_end(rest: &[u8]) -> Option<usize> {
    let returns = rest.iter().take_while(|b| **b == b'\r').count();
    match rest.get(returns) {
        Some(b'\n') => Some(returns + 1),
        None if returns > 0 => Some(returns),
        _ => None,
    }
}

fn is_directive(rest: &[u8]) -> bool {
    let line = &rest[..rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())];
    let word = &line[..line.iter().position(|b| is_space(*b)).unwrap_or(line.len())];
    line.starts_with(b"@")
        || line.starts_with(b"~")
        || definition(line).is_some()
        || (word.len() < line.len()
            && word.strip_prefix(b"include").is_some_and(|letter| {
                letter.len() <= 1 && letter.iter().all(|b| b"rmwba".contains(b))
            }))
}

/// The length of the rest of the line without comment and blanks at its end; at least one byte.
fn code_len(rest: &[u8]) -> usize {
    let mut quoted = false;
    let mut at = 0;
    while at < rest.len() && rest[at] != b'\n' {
        match rest[at] {
            b'"' => quoted = !quoted,
            b'\\' if rest.get(at + 1).is_some_and(|b| *b != b'\n') => at += 1,
            b'#' | b'!' if !quoted => break,
            _ => {}
        }
        at += 1;
    }
    while at > 1 && is_space(rest[at - 1]) {
        at -= 1;
    }
    at
}

/// The length of an unquoted word; at least one byte.
fn word_len(rest: &[u8]) -> usize {
    let mut at = 0;
    while at < rest.len() {
        match rest[at] {
            b'\\'
                if rest
                    .get(at + 1)
                    .is_some_and(|b| matches!(b, b'#' | b'!' | b'\\' | b'"')) =>
            {
                at += 1;
            }
            b'"' | b'{' | b'}' | b'#' | b'!' => break,
            byte if is_space(byte) => break,
            _ => {}
        }
        at += 1;
    }
    at.max(1)
}
