//! The faithful tree: what was written, in order, with spans. No defaults, no meaning.
//!
//! The tree holds what the language makes of the text, parameters replaced and includes spliced in. What it leaves out
//! (comments, blanks, lines for other configuration ids) stays in the sources, and [`print`] gives all of it back.

use crate::keywords::Keyword;
use crate::lex::{ScriptError, Word, pieces};
use crate::dialect::Dialect;
use crate::source::{SourceId, SourceMap, Span};

/// A whole configuration.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Top-level statements in the order of the text.
    pub statements: Vec<Statement>,
    /// Whose behaviour the text was read with.
    pub dialect: Dialect,
}

/// A keyword with its arguments and, for blocks, its body.
#[derive(Debug, Clone)]
pub struct Statement {
    /// The keyword's row in the table.
    pub spec: &'static Keyword,
    /// The keyword as written.
    pub keyword: Word,
    /// The words after it.
    pub args: Box<[Word]>,
    /// What follows in braces.
    pub body: Body,
    /// The closing brace; without braces, the end of the line's words.
    pub close: Span,
    /// The words by the rules of scripts, for keywords that are split so.
    pub(crate) script: Option<Box<ScriptWords>>,
}

pub(crate) type ScriptWords = Result<Vec<Word>, ScriptError>;

impl Statement {
    /// From the keyword to its last argument.
    pub fn head(&self) -> Span {
        self.args
            .last()
            .map_or(self.keyword.span, |last| self.keyword.span.to(last.span))
    }

    /// The line split by the rules of scripts, first stage, the keyword included. Other keywords have ordinary words only.
    ///
    /// # Errors
    /// A quote without partner, or a lone backslash at the end.
    pub fn script_words(&self) -> Result<&[Word], ScriptError> {
        match self.script.as_deref() {
            None => Ok(&[]),
            Some(Ok(words)) => Ok(words),
            Some(Err(error)) => Err(*error),
        }
    }

    /// The statements of a sub-block; empty for other shapes.
    pub fn statements(&self) -> &[Self] {
        match &self.body {
            Body::Block(statements) => statements,
            Body::Leaf | Body::Values(_) => &[],
        }
    }

    /// The data lines of a value block; empty for other shapes.
    pub fn values(&self) -> &[ValueLine] {
        match &self.body {
            Body::Values(values) => values,
            Body::Leaf | Body::Block(_) => &[],
        }
    }
}

/// The part of a statement in braces.
#[derive(Debug, Clone)]
pub enum Body {
    /// No braces.
    Leaf,
    /// Statements.
    Block(Box<[Statement]>),
    /// Lines of data.
    Values(Box<[ValueLine]>),
}

/// One data line of a value block; it has at least one word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueLine {
    /// Its words.
    pub words: Vec<Word>,
}

impl ValueLine {
    /// From the first to the last word.
    pub fn span(&self) -> Option<Span> {
        let first = self.words.first()?.span;
        self.words.last().map(|last| first.to(last.span))
    }
}

/// Prints a source of a configuration as it was written, comments included: piece by piece, byte for byte.
///
/// A source of another map prints nothing.
pub fn print(sources: &SourceMap, id: SourceId) -> Vec<u8> {
    let text = sources.get(id).map_or(&[][..], |source| source.bytes());
    let mut out = Vec::with_capacity(text.len());
    for piece in pieces(text) {
        out.extend_from_slice(&text[piece.start..piece.end]);
    }
    out
}
