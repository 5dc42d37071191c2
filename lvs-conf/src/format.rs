//! Canonical layout: the same words and comments, evenly indented.
//!
//! Four blanks for every open brace, one statement a line, the opening brace on the line of its keyword, at most one blank
//! line in a row and none at either end, no blanks at the end of a line, LF as line end. Comments keep their place: on a line
//! of their own, or at the end of the line. Blanks between words stay as typed, because scripts take them literally and
//! people align columns with them; so does every quote.
//!
//! A line is kept in one piece, and only its indentation changes, when cutting it or joining a brace to it could change what
//! it means: conditional lines, definitions, sequences, includes, lines with a parameter, a backslash, a NUL or an open quote,
//! and lines with a brace before something that would be one of these at the start of a line. The lines of a definition stay
//! exactly as they are.
//!
//! Nothing that is written gets lost, whatever the text: a file with unbalanced braces keeps them, so its findings stay the
//! same and only its indentation looks odd from there on. A file with a line of more than 1023 bytes, which keepalived cuts
//! into several, is left alone.

use crate::lex::{Piece, PieceKind, pieces};
use crate::source::{SourceId, SourceMap};

/// A source in canonical layout, comments kept. Formatting twice changes nothing more, and the text means what it meant.
///
/// Bytes that are not UTF-8 come out as replacement characters; [`format_bytes`] keeps them. A source of another map is
/// empty.
///
/// ```
/// use lvs_conf::{SourceMap, format};
///
/// let mut sources = SourceMap::new();
/// let id = sources.add("k.conf", "vrrp_instance a\n{ interface eth0 # uplink\n\n\n  priority 150 }");
/// assert_eq!(
///     format(&sources, id),
///     "vrrp_instance a {\n    interface eth0 # uplink\n\n    priority 150\n}\n"
/// );
/// ```
pub fn format(sources: &SourceMap, id: SourceId) -> String {
    String::from_utf8_lossy(&format_bytes(sources, id)).into_owned()
}

/// The same as [`format()`], byte for byte.
pub fn format_bytes(sources: &SourceMap, id: SourceId) -> Vec<u8> {
    let Some(source) = sources.get(id) else {
        return Vec::new();
    };
    let text = source.bytes();
    if text
        .split(|b| *b == b'\n')
        .any(|line| line.len() >= MAX_LINE)
    {
        return text.to_vec();
    }
    let mut layout = Layout::new(text.len());
    for line in lines(text) {
        layout.line(&line);
    }
    layout.out
}

/// One physical line in pieces.
struct Line<'a> {
    text: &'a [u8],
    pieces: Vec<Piece>,
    /// Without the line feed.
    raw: &'a [u8],
}

fn lines(text: &[u8]) -> Vec<Line<'_>> {
    let mut out = Vec::new();
    let mut line = Vec::new();
    let mut start = 0;
    for piece in pieces(text) {
        if piece.kind == PieceKind::LineEnd {
            let end = piece.end - usize::from(text[..piece.end].ends_with(b"\n"));
            out.push(Line {
                text,
                pieces: std::mem::take(&mut line),
                raw: &text[start..end],
            });
            start = piece.end;
        } else {
            line.push(piece);
        }
    }
    if start < text.len() {
        out.push(Line {
            text,
            pieces: line,
            raw: &text[start..],
        });
    }
    out
}

impl Line<'_> {
    fn bytes(&self, piece: &Piece) -> &[u8] {
        &self.text[piece.start..piece.end]
    }

    fn comment(&self) -> Option<&[u8]> {
        let last = self.pieces.iter().rfind(|p| p.kind != PieceKind::Blank)?;
        (last.kind == PieceKind::Comment).then(|| self.bytes(last))
    }

    /// The text without comment and without blanks at both ends.
    fn code(&self) -> &[u8] {
        let code = |p: &&Piece| !matches!(p.kind, PieceKind::Blank | PieceKind::Comment);
        let (Some(first), Some(last)) = (
            self.pieces.iter().find(code),
            self.pieces.iter().rfind(code),
        ) else {
            return &[];
        };
        &self.text[first.start..last.end]
    }

    /// Cutting or joining could change what the line means.
    fn is_delicate(&self) -> bool {
        let code = self.code();
        self.raw.len() > SAFE_LINE
            || code.iter().any(|b| matches!(b, b'\\' | b'$'))
            || self
                .raw
                .iter()
                .any(|b| b.is_ascii_control() && *b != b'\t' && *b != b'\r')
            || code.contains(&b'\r')
            || code.iter().filter(|b| **b == b'"').count() % 2 == 1
            || self.pieces.iter().any(|p| p.kind == PieceKind::Directive)
            || self
                .comment()
                .is_some_and(|c| trimmed_end(c).ends_with(b"\\"))
            || self.segments().iter().any(|s| would_direct(s))
    }

    /// Statements and braces, each without blanks at both ends.
    fn segments(&self) -> Vec<&[u8]> {
        let mut out: Vec<&[u8]> = Vec::new();
        let mut from = None;
        let mut to = 0;
        for piece in &self.pieces {
            match piece.kind {
                PieceKind::Open | PieceKind::Close => {
                    out.extend(from.take().map(|from| &self.text[from..to]));
                    out.push(self.bytes(piece));
                }
                PieceKind::Word | PieceKind::Directive => {
                    from.get_or_insert(piece.start);
                    to = piece.end;
                }
                PieceKind::Blank | PieceKind::LineEnd | PieceKind::Comment => {}
            }
        }
        out.extend(from.map(|from| &self.text[from..to]));
        out
    }
}

/// What has been written so far.
struct Layout {
    out: Vec<u8>,
    depth: usize,
    /// Where a brace can be joined to the last line: end of its code.
    open_end: Option<usize>,
    /// Blank lines are waiting.
    blank: bool,
    /// The last line may go on in the next.
    continued: bool,
    /// The condition of a conditional line that moved the depth, in a run of conditional lines.
    condition: Option<Vec<u8>>,
}

impl Layout {
    fn new(len: usize) -> Self {
        Self {
            out: Vec::with_capacity(len + len / 4),
            depth: 0,
            open_end: None,
            blank: false,
            continued: false,
            condition: None,
        }
    }

    fn line(&mut self, line: &Line<'_>) {
        let continued =
            std::mem::replace(&mut self.continued, trimmed_end(line.raw).ends_with(b"\\"));
        if continued {
            self.open_end = None;
            self.separate();
            self.out.extend_from_slice(line.raw);
            self.out.push(b'\n');
            return;
        }
        let code = line.code();
        if code.is_empty() {
            match line.comment() {
                Some(comment) if !has_nul(line.raw) => self.push(kept_end(comment), 0),
                None if !has_nul(line.raw) => {
                    self.blank = true;
                    return;
                }
                _ => self.push(unindented(line.raw), 0),
            }
            self.open_end = None;
            return;
        }
        if line.is_delicate() {
            self.whole(line);
        } else {
            self.condition = None;
            self.statements(line);
        }
    }

    /// A line that is not cut.
    fn whole(&mut self, line: &Line<'_>) {
        let raw = unindented(line.raw);
        let (condition, code) = condition(line.code());
        let Braces { closing, balance } = if is_definition(line.code()) {
            Braces::default()
        } else {
            braces(code)
        };
        // Of alternatives for different configuration ids one is real.
        let alternative = match (&mut self.condition, condition) {
            (_, None) => {
                self.condition = None;
                false
            }
            (Some(first), Some(now)) => first.as_slice() != now,
            (None, Some(now)) => {
                if balance != 0 {
                    self.condition = Some(now.to_vec());
                }
                false
            }
        };
        if alternative {
            self.push(kept_end(raw), usize::try_from(balance).unwrap_or(0));
        } else {
            self.push(kept_end(raw), closing);
            self.depth = self.depth.saturating_add_signed(balance);
        }
        self.open_end = None;
    }

    /// A line with every statement and brace in its place.
    fn statements(&mut self, line: &Line<'_>) {
        let segments = line.segments();
        if segments.len() == 1 && line.comment().is_some() && self.last_has_comment() {
            // One line has room for one comment.
            self.open_end = None;
        }
        for segment in segments {
            match segment {
                b"{" => {
                    if !self.join() {
                        self.push(segment, 0);
                    }
                    self.open_end = None;
                    self.depth += 1;
                }
                b"}" => {
                    self.push(segment, 1);
                    self.depth = self.depth.saturating_sub(1);
                    self.open_end = None;
                }
                _ => {
                    self.push(segment, 0);
                    self.open_end = Some(self.out.len() - 1);
                }
            }
        }
        if let Some(comment) = line.comment() {
            let before = line.pieces.iter().rev().nth(1);
            let gap = match before {
                Some(piece) if piece.kind == PieceKind::Blank => line.bytes(piece),
                _ => b" ",
            };
            self.out.pop();
            self.out.extend_from_slice(gap);
            self.out.extend_from_slice(kept_end(comment));
            self.out.push(b'\n');
        }
    }

    /// Something follows the code of the last line.
    fn last_has_comment(&self) -> bool {
        self.open_end.is_some_and(|end| end + 1 < self.out.len())
    }

    /// Puts a brace behind the code of the last line, before its comment.
    fn join(&mut self) -> bool {
        let Some(end) = self.open_end.take() else {
            return false;
        };
        let start = self.out[..end].iter().rposition(|b| *b == b'\n');
        if self.out.len() - start.map_or(0, |at| at + 1) > SAFE_LINE {
            return false;
        }
        self.out.splice(end..end, *b" {");
        self.blank = false;
        true
    }

    /// A line, so many levels further out than the depth.
    fn push(&mut self, text: &[u8], out: usize) {
        self.separate();
        let indent = INDENT * self.depth.saturating_sub(out);
        if text.len() + indent < MAX_LINE {
            self.out.resize(self.out.len() + indent, b' ');
        }
        self.out.extend_from_slice(text);
        self.out.push(b'\n');
    }

    fn separate(&mut self) {
        let blank = std::mem::take(&mut self.blank);
        if blank && !self.out.is_empty() && !self.out.ends_with(b"\n\n") {
            self.out.push(b'\n');
        }
    }
}

/// What a line does to the depth.
#[derive(Default)]
struct Braces {
    /// Closing braces that it starts with.
    closing: usize,
    /// Braces opened less braces closed.
    balance: isize,
}

/// Braces outside quotes that belong to no reference.
fn braces(code: &[u8]) -> Braces {
    let mut found = Braces::default();
    let (mut quoted, mut leading) = (false, true);
    let mut at = 0;
    while at < code.len() {
        match code[at] {
            b'"' => quoted = !quoted,
            b'$' if code.get(at + 1) == Some(&b'{') => {
                let rest = &code[at..];
                at += rest.iter().position(|b| *b == b'}').unwrap_or(rest.len());
                leading = false;
            }
            b'{' if !quoted => {
                found.balance += 1;
                leading = false;
            }
            b'}' if !quoted => {
                found.balance -= 1;
                found.closing += usize::from(leading);
            }
            b' ' | b'\t' => {}
            _ => leading = false,
        }
        at += 1;
    }
    found
}

/// The condition of a conditional line, and what it is about.
fn condition(code: &[u8]) -> (Option<&[u8]>, &[u8]) {
    if code.first() != Some(&b'@') {
        return (None, code);
    }
    let len = code
        .iter()
        .position(|b| matches!(b, b' ' | b'\t'))
        .unwrap_or(code.len());
    let (condition, rest) = code.split_at(len);
    (Some(condition), rest)
}

fn is_definition(code: &[u8]) -> bool {
    let (_, code) = condition(code);
    let code = code.trim_ascii_start();
    code.first() == Some(&b'$')
        && code
            .iter()
            .skip(1)
            .find(|b| !b.is_ascii_alphanumeric() && **b != b'_')
            == Some(&b'=')
}

/// At the start of a line this would be more than a statement.
fn would_direct(segment: &[u8]) -> bool {
    matches!(segment.first(), Some(b'@' | b'~' | b'$')) || segment.starts_with(b"include")
}

fn unindented(raw: &[u8]) -> &[u8] {
    let from = raw.iter().position(|b| !matches!(b, b' ' | b'\t'));
    &raw[from.unwrap_or(raw.len())..]
}

fn has_nul(raw: &[u8]) -> bool {
    raw.contains(&0)
}

/// Without white space at the end, but a backslash stays as far from the end as it was.
fn kept_end(text: &[u8]) -> &[u8] {
    let short = trimmed_end(text);
    if short.ends_with(b"\\") { text } else { short }
}

fn trimmed_end(text: &[u8]) -> &[u8] {
    let last = text
        .iter()
        .rposition(|b| !matches!(b, b' ' | b'\t' | b'\r'));
    &text[..last.map_or(0, |at| at + 1)]
}

const INDENT: usize = 4;

/// Longest physical line of the language, line end included.
const MAX_LINE: usize = 1023;

/// A line up to this length can be joined with a brace and a blank or two and stays legal.
const SAFE_LINE: usize = 1000;

#[cfg(test)]
mod tests;
