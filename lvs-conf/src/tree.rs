//! The faithful tree: what was written, in order, with spans. No defaults, no meaning.
//!
//! The tree holds what the language makes of the text, parameters replaced and includes spliced in. What it leaves out
//! (comments, blanks, lines for other configuration ids) stays in the sources, and [`print()`] gives all of it back.

use std::ops::Deref;

use crate::dialect::Dialect;
use crate::keywords::Keyword;
use crate::lex::{ScriptError, Word, pieces};
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
    /// The keyword and where it stands.
    pub keyword: Head,
    /// The words after it.
    pub args: Args,
    /// What follows in braces.
    pub body: Body,
    /// The words by the rules of scripts, for keywords that are split so.
    pub(crate) script: Option<Box<ScriptWords>>,
}

/// A keyword in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The keyword.
    pub text: &'static str,
    /// Where it stands, quotes included.
    pub span: Span,
}

/// The words after a keyword, a slice. One word is by far the most frequent number and is stored in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Args(Words);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Words {
    One(Word),
    Many(Box<[Word]>),
}

impl Args {
    /// Takes all words out of a buffer.
    pub(crate) fn take(words: &mut Vec<Word>) -> Self {
        if words.len() == 1
            && let Some(word) = words.pop()
        {
            return Self(Words::One(word));
        }
        Self(Words::Many(words.drain(..).collect()))
    }
}

impl Deref for Args {
    type Target = [Word];

    fn deref(&self) -> &[Word] {
        match &self.0 {
            Words::One(word) => std::slice::from_ref(word),
            Words::Many(words) => words,
        }
    }
}

impl<'a> IntoIterator for &'a Args {
    type Item = &'a Word;
    type IntoIter = std::slice::Iter<'a, Word>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
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
            Body::Block { statements, .. } => statements,
            Body::Leaf | Body::Values { .. } => &[],
        }
    }

    /// The data lines of a value block; empty for other shapes.
    pub fn values(&self) -> &[ValueLine] {
        match &self.body {
            Body::Values { lines, .. } => lines,
            Body::Leaf | Body::Block { .. } => &[],
        }
    }

    /// The closing brace; without braces, the words of the line.
    pub fn close(&self) -> Span {
        match self.body {
            Body::Leaf => self.head(),
            Body::Block { close, .. } | Body::Values { close, .. } => close,
        }
    }
}

/// The part of a statement in braces.
#[derive(Debug, Clone)]
pub enum Body {
    /// No braces.
    Leaf,
    /// Statements.
    Block {
        /// In the order of the text.
        statements: Box<[Statement]>,
        /// The closing brace, or the end of the text.
        close: Span,
    },
    /// Lines of data.
    Values {
        /// In the order of the text.
        lines: Box<[ValueLine]>,
        /// The closing brace, or the end of the text.
        close: Span,
    },
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
