//! Bytes to logical lines to words. Every byte that survives remembers where it stood in the source.
//!
//! A [`Reader`] hands out logical lines in the order of the original reader: physical lines, comments, conditional lines,
//! definitions, sequences, references, includes, braces. [`pieces`] is the other view of a text: nothing evaluated and
//! nothing left out.

use std::sync::Arc;

use crate::source::{SourceId, Span, to_offset};

mod define;
mod include;
mod piece;
mod reader;
mod script;
mod sequence;
mod text;

pub use include::IncludeChecks;
pub use piece::{Piece, PieceKind, pieces};
pub use reader::Reader;
pub use script::{Escapes, Piece as ScriptPiece, ScriptError, split_script};
pub use text::Text;

/// One word of a line. Text that is not UTF-8 is kept with replacement characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The word without its quotes.
    pub text: Text,
    /// Where it stands, quotes included. A word that came out of a parameter has the span of the reference.
    pub span: Span,
    /// It was written in double quotes.
    pub quoted: bool,
}

/// One logical line: a single unquoted brace, or text without unquoted braces.
///
/// Lines share the text that they were cut from.
#[derive(Debug, Clone)]
pub struct Line {
    text: Arc<[u8]>,
    start: usize,
    end: usize,
    origin: Origin,
    /// The physical line ended inside double quotes, which has been reported.
    unterminated: bool,
    /// A comment was cut off.
    commented: bool,
    /// What is to be looked for in the bytes; more than there is does no harm.
    marks: u8,
}

/// Where the bytes of a line stood.
#[derive(Debug, Clone)]
enum Origin {
    /// The text is that of the source.
    Source(SourceId),
    /// One span for every byte of the text.
    Spans(Arc<[Span]>),
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
    /// The text after comment removal and substitution.
    pub fn bytes(&self) -> &[u8] {
        &self.text[self.start..self.end]
    }

    /// From the first to the last byte.
    pub fn span(&self) -> Span {
        self.span_of(self.start, self.end)
    }

    /// This line is a lone `{`.
    pub fn is_open(&self) -> bool {
        self.bytes() == b"{"
    }

    /// This line is a lone `}`.
    pub fn is_close(&self) -> bool {
        self.bytes() == b"}"
    }

    /// An open quote on this line has been reported already.
    pub fn is_unterminated(&self) -> bool {
        self.unterminated
    }

    /// Ordinary splitting: white space separates, `"` quotes without escapes and always starts or ends a word.
    pub fn words(&self) -> Words {
        let mut words = Vec::new();
        let unmatched = self.split(|text, span, quoted| {
            words.push(Word {
                text: Text::from_bytes(text),
                span,
                quoted,
            });
        });
        Words { words, unmatched }
    }

    /// Calls `word` with text, span and whether it was quoted, for every word. Returns where the dropped text starts.
    pub(crate) fn split(&self, mut word: impl FnMut(&[u8], Span, bool)) -> Option<Span> {
        let text = &self.text[..self.end];
        let mut at = self.start;
        while at < text.len() {
            let byte = text[at];
            if is_space(byte) {
                at += 1;
            } else if byte == b'"' {
                let Some(len) = text[at + 1..].iter().position(|b| *b == b'"') else {
                    return Some(self.span_of(at, text.len()));
                };
                let end = at + len + 2;
                word(&text[at + 1..end - 1], self.span_of(at, end), true);
                at = end;
            } else {
                let len = text[at..]
                    .iter()
                    .position(|b| is_space(*b) || *b == b'"')
                    .unwrap_or(text.len() - at);
                word(&text[at..at + len], self.span_of(at, at + len), false);
                at += len;
            }
        }
        None
    }

    /// Script splitting of the line, the keyword included.
    ///
    /// # Errors
    /// A quote without partner, or a lone backslash at the end.
    pub fn script_words(&self, escapes: Escapes) -> Result<Vec<Word>, ScriptError> {
        let pieces = split_script(self.bytes(), escapes)?;
        Ok(pieces
            .into_iter()
            .map(|piece| Word {
                text: Text::from_bytes(&piece.bytes),
                span: self.span_of(self.start + piece.start, self.start + piece.end),
                quoted: piece.quoted,
            })
            .collect())
    }

    /// A line of a source.
    fn of_source(text: Arc<[u8]>, source: SourceId, start: usize, end: usize) -> Self {
        Self {
            text,
            start,
            end,
            origin: Origin::Source(source),
            unterminated: false,
            commented: false,
            marks: u8::MAX,
        }
    }

    /// A line whose bytes come from several places.
    fn of_spans(text: &[u8], spans: &[Span], unterminated: bool) -> Self {
        debug_assert_eq!(text.len(), spans.len());
        Self {
            text: text.into(),
            start: 0,
            end: text.len(),
            origin: Origin::Spans(spans.into()),
            unterminated,
            commented: false,
            marks: u8::MAX,
        }
    }

    /// The span of text from one offset in `self.text` to another.
    fn span_of(&self, from: usize, to: usize) -> Span {
        match &self.origin {
            Origin::Source(source) => Span {
                source: *source,
                start: to_offset(from),
                end: to_offset(to.max(from)),
            },
            Origin::Spans(spans) => {
                let (Some(first), true) = (spans.get(from), to > from) else {
                    let at = spans.last().copied().unwrap_or(Span::NOWHERE);
                    return Span {
                        start: at.end,
                        ..at
                    };
                };
                first.to(spans[to - 1])
            }
        }
    }

    /// The spans of every byte.
    fn spans(&self) -> Vec<Span> {
        (self.start..self.end)
            .map(|at| self.span_of(at, at + 1))
            .collect()
    }

    /// The part from one offset in the line to another.
    fn part(&self, from: usize, to: usize) -> Self {
        Self {
            start: self.start + from,
            end: self.start + to,
            ..self.clone()
        }
    }

    /// The line without blanks at both ends.
    fn trimmed(mut self) -> Self {
        let bytes = self.bytes();
        let from = bytes.iter().position(|b| !is_blank(*b));
        let from = from.unwrap_or(bytes.len());
        let to = bytes.iter().rposition(|b| !is_blank(*b));
        let len = to.map_or(from, |at| at + 1);
        self.end = self.start + len;
        self.start += from;
        self
    }

    fn is_empty(&self) -> bool {
        self.bytes().iter().all(|b| is_space(*b))
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

#[cfg(test)]
mod tests;
