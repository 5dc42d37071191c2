//! The faithful tree: what was written, in order, with spans. No defaults, no meaning.

use crate::keywords::Keyword;
use crate::lex::{Line, Word};
use crate::source::Span;

/// A whole configuration.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Top-level statements in the order of the text.
    pub statements: Vec<Statement>,
}

/// A keyword with its arguments and, for blocks, its body.
#[derive(Debug, Clone)]
pub struct Statement {
    /// The keyword's row in the table.
    pub spec: &'static Keyword,
    /// The keyword as written.
    pub keyword: Word,
    /// The words after it.
    pub args: Vec<Word>,
    /// The logical line, for keywords that split it by the rules of scripts.
    pub line: Line,
    /// What follows in braces.
    pub body: Body,
}

impl Statement {
    /// From the keyword to its last argument.
    pub fn head(&self) -> Span {
        self.args
            .last()
            .map_or(self.keyword.span, |last| self.keyword.span.to(last.span))
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
    Block(Vec<Statement>),
    /// Lines of data.
    Values(Vec<ValueLine>),
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
