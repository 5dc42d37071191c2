//! The order in which lines are evaluated.

use std::collections::VecDeque;
use std::sync::Arc;

use super::define::{Definitions, Substituted};
use super::include::{IncludeChecks, OpenFile};
use super::sequence::Sequence;
use super::{Line, MAX_LINE, is_blank};
use crate::diag::{Code, Consequence, Diagnostic};
use crate::dialect::Dialect;
use crate::files::Files;
use crate::options::Options;
use crate::source::{SourceId, SourceMap, Span, to_offset};

/// Hands out the logical lines of a configuration: conditional lines decided, parameters replaced, sequences unrolled and
/// included files spliced in. Blank lines and comments are gone, every unquoted brace is a line of its own.
pub struct Reader<'a> {
    pub(super) sources: &'a mut SourceMap,
    pub(super) files: &'a dyn Files,
    pub(super) options: &'a Options,
    /// Findings so far, in the order of reading.
    pub diagnostics: Vec<Diagnostic>,
    /// Where lines come from, the innermost last.
    pub(super) frames: Vec<Frame>,
    pub(super) definitions: Definitions,
    pub(super) checks: IncludeChecks,
    /// Files opened so far.
    pub(super) opened: usize,
    queue: VecDeque<Line>,
    /// Lines that parameters and sequences made so far.
    made: usize,
    lines: u32,
    end: Span,
}

/// A place that raw lines come from.
pub(super) enum Frame {
    File(OpenFile),
    Body(Body),
    Sequence(Sequence),
}

/// The lines of a multi-line parameter that are still to be read.
pub(super) struct Body {
    pub(super) name: String,
    pub(super) lines: Arc<[Vec<u8>]>,
    pub(super) next: usize,
    pub(super) reference: Span,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("lines", &self.lines)
            .field("depth", &self.frames.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Reader<'a> {
    /// Starts with a source of the map. An id of another map has no lines.
    pub fn new(
        sources: &'a mut SourceMap,
        main: SourceId,
        files: &'a dyn Files,
        options: &'a Options,
    ) -> Self {
        Self::of_several(sources, &[main], files, options)
    }

    /// Reads several sources, one after the other as if they were one.
    pub fn of_several(
        sources: &'a mut SourceMap,
        mains: &[SourceId],
        files: &'a dyn Files,
        options: &'a Options,
    ) -> Self {
        let mut frames = Vec::new();
        let mut last = Span::NOWHERE;
        for id in mains.iter().rev() {
            if let Some(source) = sources.get(*id) {
                let file = OpenFile::new(source, *id, &options.directory);
                let end = to_offset(source.bytes().len());
                if frames.is_empty() {
                    last = Span {
                        source: *id,
                        start: end,
                        end,
                    };
                }
                // The first one is read first.
                frames.push(Frame::File(file));
            }
        }
        Self {
            sources,
            files,
            options,
            diagnostics: Vec::new(),
            frames,
            definitions: Definitions::new(options.random_seed),
            checks: options.include_checks,
            opened: 0,
            queue: VecDeque::new(),
            made: 0,
            lines: 0,
            end: last,
        }
    }

    /// The next logical line, `None` at the end.
    pub fn next_line(&mut self) -> Option<Line> {
        while self.queue.is_empty() {
            let raw = self.raw_line()?;
            let Some(line) = self.evaluate(raw) else {
                continue;
            };
            if self.include(&line) {
                continue;
            }
            if line.marks & BRACE != 0 {
                self.split_braces(&line);
            } else {
                self.lines += 1;
                return Some(line);
            }
        }
        self.lines += 1;
        self.queue.pop_front()
    }

    /// How many lines were handed out.
    pub fn count(&self) -> u32 {
        self.lines
    }

    /// The end of the source, of several that of the last.
    pub fn end(&self) -> Span {
        self.end
    }

    /// What `include_check` says, for the includes that follow.
    pub fn set_include_checks(&mut self, checks: IncludeChecks) {
        self.checks = checks;
    }

    /// What `random_seed` says, for the references to `${_RANDOM}` that follow.
    pub fn set_random_seed(&mut self, seed: u64) {
        self.definitions.seed(seed);
    }

    /// The checks that are on.
    pub fn include_checks(&self) -> IncludeChecks {
        self.checks
    }

    /// A line that is not blank, from the innermost place that has one.
    fn raw_line(&mut self) -> Option<Line> {
        loop {
            let line = match self.frames.last_mut()? {
                Frame::File(file) => {
                    if file.at == 0 {
                        file.checks_before = self.checks;
                    }
                    physical_line(file, self.options.dialect, &mut self.diagnostics)
                }
                Frame::Body(body) => body.lines.get(body.next).map(|text| {
                    body.next += 1;
                    let spans = vec![body.reference; text.len()];
                    Line::of_spans(text, &spans, false)
                }),
                Frame::Sequence(sequence) => sequence.next(&mut self.definitions),
            };
            match line {
                Some(line) => {
                    if !matches!(self.frames.last(), Some(Frame::File(_))) && !self.may_make(&line)
                    {
                        self.frames.pop();
                    } else if !line.is_empty() {
                        return Some(line);
                    }
                }
                None => {
                    if let Some(Frame::File(file)) = self.frames.pop() {
                        self.checks = file.checks_before;
                    }
                }
            }
        }
    }

    /// Counts a line that no file has. A few words can ask for more of them than anybody would wait for.
    fn may_make(&mut self, line: &Line) -> bool {
        self.made += 1;
        if self.made == MAX_MADE {
            self.diagnostics.push(
                Diagnostic::new(
                    Code::TooManyLines,
                    Consequence::Ignore,
                    line.span(),
                    format!("more than {MAX_MADE} lines out of parameters and sequences, the rest is ignored"),
                )
                .expected("fewer repetitions"),
            );
        }
        self.made < MAX_MADE
    }

    /// Conditional, definition, sequence and references, in this order, as long as references are replaced.
    fn evaluate(&mut self, line: Line) -> Option<Line> {
        let mut line = line.trimmed();
        for _ in 0..MAX_ROUNDS {
            if line.bytes().first() == Some(&b'@') {
                line = self.condition(&line)?;
            }
            match line.bytes().first()? {
                b'$' if self.define(&line) => return None,
                b'~' => {
                    let started = self.start_sequence(&line);
                    return (!started).then_some(line);
                }
                _ => {}
            }
            if line.marks & DOLLAR == 0 || !line.bytes().contains(&b'$') {
                break;
            }
            let Some(Substituted { text, spans }) = self.substitute(&line) else {
                break;
            };
            let clean = without_comment(&text, self.options.dialect);
            if let Some(open) = clean.open_quote
                && !line.unterminated
            {
                let span = spans
                    .get(open)
                    .map_or_else(|| line.span(), |s| s.to(line.span()));
                self.diagnostics.push(unterminated(span));
            }
            let unterminated = line.unterminated || clean.open_quote.is_some();
            let text: Vec<u8> = clean.kept.iter().map(|at| text[*at]).collect();
            let spans: Vec<Span> = clean.kept.iter().map(|at| spans[*at]).collect();
            line = Line::of_spans(&text, &spans, unterminated).trimmed();
            if !line.bytes().contains(&b'$') && line.bytes().first() != Some(&b'@') {
                break;
            }
        }
        (!line.is_empty()).then_some(line)
    }

    /// What is left of a conditional line, `None` if it is not for this configuration id.
    fn condition(&self, line: &Line) -> Option<Line> {
        let bytes = line.bytes();
        let negated = bytes.get(1) == Some(&b'^');
        let from = 1 + usize::from(negated);
        let len = bytes[from..].iter().position(|b| is_blank(*b))?;
        let is_ours = &bytes[from..from + len] == self.options.config_id.as_bytes();
        (is_ours != negated).then(|| line.part(from + len, bytes.len()).trimmed())
    }

    fn define(&mut self, line: &Line) -> bool {
        let Some((name, value)) = definition(line.bytes()) else {
            return false;
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let mut value = value.to_vec();
        let span = line.span();
        let mut lines = Vec::new();
        let mut continued = !line.commented && take_continuation(&mut value);
        if !continued {
            self.definitions.set(name, vec![value].into(), span);
            return true;
        }
        while continued {
            if !value.iter().all(|b| is_blank(*b)) {
                lines.push(std::mem::take(&mut value));
            }
            let Some(Frame::File(file)) = self.frames.last_mut() else {
                break;
            };
            let next = physical_line(file, self.options.dialect, &mut self.diagnostics);
            let commented = next.as_ref().is_some_and(|line| line.commented);
            value = next.map_or_else(Vec::new, |line| line.trimmed().bytes().to_vec());
            continued = !commented && take_continuation(&mut value);
        }
        if !value.is_empty() {
            lines.push(value);
        }
        if lines.is_empty() {
            lines.push(Vec::new());
        }
        self.definitions.set(name, lines.into(), span);
        true
    }

    fn split_braces(&mut self, line: &Line) {
        let bytes = line.bytes();
        let mut from = 0;
        let mut quoted = false;
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'"' => quoted = !quoted,
                b'{' | b'}' if !quoted => {
                    self.push_part(line, from, at);
                    self.queue.push_back(line.part(at, at + 1));
                    from = at + 1;
                }
                _ => {}
            }
        }
        self.push_part(line, from, bytes.len());
    }

    fn push_part(&mut self, line: &Line, from: usize, to: usize) {
        if from < to {
            let part = line.part(from, to).trimmed();
            if !part.is_empty() {
                self.queue.push_back(part);
            }
        }
    }
}

/// `$NAME=VALUE`: name and value.
pub(super) fn definition(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = line.strip_prefix(b"$")?;
    let len = name_len(rest);
    if len == 0 || rest.get(len) != Some(&b'=') {
        return None;
    }
    let value = &rest[len + 1..];
    let blanks = value.iter().take_while(|b| is_blank(**b)).count();
    Some((&rest[..len], &value[blanks..]))
}

/// How many bytes at the start are the name of a parameter.
pub(super) fn name_len(bytes: &[u8]) -> usize {
    if bytes.first().is_none_or(u8::is_ascii_digit) {
        return 0;
    }
    bytes
        .iter()
        .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_')
        .count()
}

/// Takes the `\` at the end away and says whether there was one.
fn take_continuation(value: &mut Vec<u8>) -> bool {
    let continued = value.last() == Some(&b'\\');
    if continued {
        value.pop();
    }
    continued
}

/// The next physical line without its comment; blank ones are lines as well.
fn physical_line(
    file: &mut OpenFile,
    dialect: Dialect,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Line> {
    loop {
        let text = &file.text;
        let start = file.at;
        if start >= text.len() {
            return None;
        }
        let mut marks = 0;
        let mut next = start;
        while next < text.len() {
            let mark = MARKS[usize::from(text[next])];
            marks |= mark;
            next += 1;
            if mark & LINE_END != 0 {
                break;
            }
        }
        let mut cut = (start + MAX_LINE).min(next);
        let too_long = cut < next;
        // A character is never torn, so that what remains has a proper first column.
        while too_long
            && dialect != Dialect::V2_2_7
            && cut < next
            && text[cut] & 0xc0 == 0x80
            && cut < start + MAX_LINE + 3
        {
            cut += 1;
        }
        file.at = cut;
        let mut end = cut;
        while end > start && matches!(text[end - 1], b'\n' | b'\r') {
            end -= 1;
        }
        let span = |start, end| Span {
            source: file.id,
            start: to_offset(start),
            end: to_offset(end),
        };
        if too_long && dialect != Dialect::V2_2_7 {
            diagnostics.push(
                Diagnostic::new(
                    Code::LineTooLong,
                    Consequence::Ignore,
                    span(start, end),
                    "line of more than 1023 bytes, its first 1023 bytes are discarded",
                )
                .expected("at most 1023 bytes, line end included"),
            );
            continue;
        }
        // The most frequent lines by far have nothing to look at.
        if marks & SPECIAL == 0 {
            let mut line = Line::of_source(Arc::clone(text), file.id, start, end);
            line.marks = marks;
            return Some(line);
        }
        if let Some(nul) = text[start..end].iter().position(|b| *b == 0) {
            if dialect != Dialect::V2_2_7 {
                diagnostics.push(
                    Diagnostic::new(
                        Code::NulByte,
                        Consequence::Ignore,
                        span(start + nul, start + nul + 1),
                        "NUL byte, the line is ignored",
                    )
                    .hint("the file may be no text, or in an encoding of two bytes a character"),
                );
                continue;
            }
            end = start + nul;
        }
        let clean = without_comment(&text[start..end], dialect);
        if let Some(open) = clean.open_quote {
            diagnostics.push(unterminated(span(start + open, end)));
        }
        let is_contiguous = clean.kept.iter().enumerate().all(|(at, from)| at == *from);
        let mut line = if is_contiguous {
            let end = start + clean.kept.len();
            Line::of_source(Arc::clone(text), file.id, start, end)
        } else {
            let kept = clean.kept.iter().map(|at| start + at);
            let spans: Vec<Span> = kept.clone().map(|at| span(at, at + 1)).collect();
            let bytes: Vec<u8> = kept.map(|at| text[at]).collect();
            Line::of_spans(&bytes, &spans, false)
        };
        line.unterminated = clean.open_quote.is_some();
        line.commented = clean.commented;
        return Some(line);
    }
}

fn unterminated(span: Span) -> Diagnostic {
    Diagnostic::new(
        Code::UnterminatedQuote,
        Consequence::Ignore,
        span,
        "the line ends inside double quotes, words from the quote on are ignored",
    )
    .expected("a closing `\"` on the same line")
    .hint("close the quote before the end of the line, or remove it")
}

struct Clean {
    /// Offsets of the bytes that are left.
    kept: Vec<usize>,
    open_quote: Option<usize>,
    commented: bool,
}

fn without_comment(text: &[u8], dialect: Dialect) -> Clean {
    let mut kept = Vec::with_capacity(text.len());
    let mut quote = None;
    let mut commented = false;
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => {
                quote = if quote.is_none() { Some(at) } else { None };
                kept.push(at);
            }
            b'\\' if at + 1 < text.len() => {
                let literal = quote.is_none() && matches!(text[at + 1], b'#' | b'!');
                if !literal {
                    kept.push(at);
                }
                at += 1;
                kept.push(at);
            }
            b'#' | b'!' if quote.is_none() => {
                // The release did not look at what the comment hid.
                commented = dialect != Dialect::V2_2_7 || text.last() != Some(&b'\\');
                if !commented {
                    kept.push(text.len() - 1);
                }
                break;
            }
            _ => kept.push(at),
        }
        at += 1;
    }
    // Blanks before a final backslash mean nothing either.
    if kept.last().is_some_and(|at| text[*at] == b'\\') {
        while kept.len() > 1 && is_blank(text[kept[kept.len() - 2]]) {
            kept.remove(kept.len() - 2);
        }
    }
    Clean {
        kept,
        open_quote: quote,
        commented,
    }
}

const LINE_END: u8 = 1;
/// What needs a second look: quotes, escapes, comments, NUL.
const SPECIAL: u8 = 2;

const DOLLAR: u8 = 4;
const BRACE: u8 = 8;

static MARKS: [u8; 256] = {
    let mut marks = [0; 256];
    marks[b'\n' as usize] = LINE_END;
    marks[b'"' as usize] = SPECIAL;
    marks[b'\\' as usize] = SPECIAL;
    marks[b'#' as usize] = SPECIAL;
    marks[b'!' as usize] = SPECIAL;
    marks[0] = SPECIAL;
    marks[b'$' as usize] = DOLLAR;
    marks[b'{' as usize] = BRACE;
    marks[b'}' as usize] = BRACE;
    marks
};

/// More lines than any configuration is made of.
const MAX_MADE: usize = 1 << 18;

/// How often a line is looked at again because references were replaced in it.
const MAX_ROUNDS: usize = 32;
