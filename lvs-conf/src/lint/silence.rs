//! Comments that silence rules.

use super::{Rule, finding};
use crate::diag::{Code, Diagnostic};
use crate::keywords::nearest;
use crate::lex::{Piece, PieceKind, pieces};
use crate::source::{SourceId, SourceMap, Span, to_offset};

/// Where which rules are silent.
pub(super) struct Silence {
    places: Vec<(Rule, Span)>,
}

impl Silence {
    pub(super) fn covers(&self, finding: &Diagnostic) -> bool {
        let at = finding.span;
        self.places.iter().any(|(rule, place)| {
            finding.code == Code::Lint(*rule)
                && place.source == at.source
                && (place.start..place.end.max(place.start + 1)).contains(&at.start)
        })
    }
}

/// Reads the comments of every source; what cannot be read is a finding of its own.
pub(super) fn read(sources: &SourceMap, findings: &mut Vec<Diagnostic>) -> Silence {
    let mut places = Vec::new();
    for (id, source) in sources.iter() {
        let text = source.bytes();
        // Most files have none, and those need not be cut.
        if text
            .windows(MARK.len())
            .any(|window| window == MARK.as_bytes())
        {
            Comments::new(id, text).read(&mut places, findings);
        }
    }
    Silence { places }
}

/// The way through one source.
struct Comments<'a> {
    id: SourceId,
    text: &'a [u8],
    /// Start of the current line.
    line: usize,
    /// The current line has more than a comment.
    code: bool,
    /// No statement has come since this block opened.
    fresh: bool,
    /// Start of the last line with a word.
    word_line: usize,
    /// Where each open block began, its keyword included, and the rules that are silent in it.
    blocks: Vec<(usize, Vec<Rule>)>,
    /// Rules that are silent on the next line with code.
    next: Vec<Rule>,
    /// Rules that are silent on the current line.
    here: Vec<Rule>,
}

impl<'a> Comments<'a> {
    fn new(id: SourceId, text: &'a [u8]) -> Self {
        Self {
            id,
            text,
            line: 0,
            code: false,
            fresh: false,
            word_line: 0,
            blocks: Vec::new(),
            next: Vec::new(),
            here: Vec::new(),
        }
    }

    fn read(mut self, places: &mut Vec<(Rule, Span)>, findings: &mut Vec<Diagnostic>) {
        for piece in pieces(self.text) {
            match piece.kind {
                PieceKind::Blank => {}
                PieceKind::LineEnd => self.end_line(piece.end, places),
                PieceKind::Comment => self.comment(piece, places, findings),
                PieceKind::Open => {
                    self.blocks.push((self.word_line, Vec::new()));
                    self.code = true;
                    self.fresh = true;
                }
                PieceKind::Close => {
                    self.code = true;
                    self.fresh = false;
                    if let Some((start, rules)) = self.blocks.pop() {
                        self.add(rules, start, piece.end, places);
                    }
                }
                PieceKind::Word | PieceKind::Directive => {
                    self.code = true;
                    self.fresh = false;
                    self.word_line = self.line;
                }
            }
        }
        let end = self.text.len();
        self.end_line(end, places);
        for (start, rules) in std::mem::take(&mut self.blocks) {
            self.add(rules, start, end, places);
        }
    }

    fn end_line(&mut self, end: usize, places: &mut Vec<(Rule, Span)>) {
        if self.code {
            let mut rules = std::mem::take(&mut self.next);
            rules.append(&mut self.here);
            self.add(rules, self.line, end, places);
        }
        self.code = false;
        self.line = end;
    }

    fn comment(
        &mut self,
        piece: Piece,
        places: &mut Vec<(Rule, Span)>,
        findings: &mut Vec<Diagnostic>,
    ) {
        let bytes = &self.text[piece.start..piece.end];
        let Some(at) = after_mark(bytes) else {
            return;
        };
        let text = String::from_utf8_lossy(&bytes[at..]);
        let Some((whole_file, list)) = request(text.trim()) else {
            findings.push(finding(
                Rule::UnknownRule,
                self.span(piece.start, piece.start + bytes.trim_ascii_end().len()),
                "this comment for lint cannot be read",
            ));
            return;
        };
        let mut rules = Vec::new();
        for name in list.split(',').map(str::trim) {
            match Rule::from_name(name) {
                Some(rule) => rules.push(rule),
                None => findings.push(self.unknown(piece, name)),
            }
        }
        if whole_file {
            self.add(rules, 0, self.text.len() + 1, places);
        } else if let (true, false, Some((_, silent))) =
            (self.fresh, self.code, self.blocks.last_mut())
        {
            silent.append(&mut rules);
        } else if self.code {
            self.here.append(&mut rules);
        } else {
            self.next.append(&mut rules);
        }
    }

    fn unknown(&self, comment: Piece, name: &str) -> Diagnostic {
        let bytes = &self.text[comment.start..comment.end];
        let open = bytes.iter().position(|b| *b == b'(').unwrap_or(0);
        let at = bytes[open..]
            .windows(name.len().max(1))
            .position(|window| window == name.as_bytes())
            .map_or(comment.start, |at| comment.start + open + at);
        let span = self.span(at, (at + name.len()).min(comment.end));
        let mut diagnostic = finding(
            Rule::UnknownRule,
            span,
            format!("lint has no rule `{name}`"),
        );
        if let Some(near) = nearest(name, Rule::ALL.iter().map(|rule| rule.as_str())) {
            diagnostic.hint = Some(format!("did you mean `{near}`?"));
        }
        diagnostic
    }

    fn add(&self, rules: Vec<Rule>, from: usize, to: usize, places: &mut Vec<(Rule, Span)>) {
        let span = self.span(from, to);
        places.extend(rules.into_iter().map(|rule| (rule, span)));
    }

    fn span(&self, from: usize, to: usize) -> Span {
        Span {
            source: self.id,
            start: to_offset(from),
            end: to_offset(to),
        }
    }
}

/// Where the text of a comment for lint starts.
fn after_mark(comment: &[u8]) -> Option<usize> {
    let signs = comment
        .iter()
        .take_while(|b| matches!(b, b'#' | b'!' | b' ' | b'\t'))
        .count();
    comment[signs..]
        .starts_with(MARK.as_bytes())
        .then_some(signs + MARK.len())
}

/// Whether the whole file is meant, and the names in brackets.
fn request(text: &str) -> Option<(bool, &str)> {
    let (whole_file, rest) = match text.strip_prefix("allow-file") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("allow")?),
    };
    let (list, _) = rest.trim_start().strip_prefix('(')?.split_once(')')?;
    Some((whole_file, list))
}

const MARK: &str = "lint:";
