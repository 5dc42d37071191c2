//! Where text came from: sources, spans and positions. The crate reads no file; the caller adds every source.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Names one source of a [`SourceMap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(u32);

/// One configuration text: a name for messages, and bytes that need not be UTF-8.
#[derive(Debug, Clone)]
pub struct Source {
    name: String,
    bytes: Arc<[u8]>,
    /// Found when the first position is asked for: a file without findings never needs it.
    line_starts: OnceLock<Vec<u32>>,
}

impl Source {
    fn new(name: String, mut bytes: Vec<u8>) -> Self {
        bytes.truncate(MAX_SOURCE);
        Self {
            name,
            bytes: bytes.into(),
            line_starts: OnceLock::new(),
        }
    }

    fn line_starts(&self) -> &[u32] {
        self.line_starts.get_or_init(|| {
            let ends = self.bytes.iter().enumerate();
            let starts = ends
                .filter(|(at, byte)| **byte == b'\n' && at + 1 < self.bytes.len())
                .map(|(at, _)| to_offset(at + 1));
            std::iter::once(0).chain(starts).collect()
        })
    }

    /// The text, to be kept beside the map.
    pub(crate) fn share(&self) -> Arc<[u8]> {
        Arc::clone(&self.bytes)
    }

    /// The name that messages show, usually the file's path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text as it was added.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many physical lines the source has. An empty source has one, and a final line end opens no further line.
    pub fn line_count(&self) -> usize {
        self.line_starts().len()
    }

    /// The line and column of a byte offset. Offsets past the end count as the end.
    pub fn position(&self, offset: u32) -> Position {
        let offset = offset.min(to_offset(self.bytes.len()));
        let starts = self.line_starts();
        let line = starts.partition_point(|start| *start <= offset) - 1;
        let before = &self.bytes[starts[line] as usize..offset as usize];
        Position {
            line: to_offset(line + 1),
            column: to_offset(String::from_utf8_lossy(before).chars().count() + 1),
        }
    }
}

/// Every source of one configuration. Spans refer to it, so that a message can name the file of an included line.
#[derive(Debug, Clone, Default)]
pub struct SourceMap {
    sources: Vec<Source>,
    /// By start and end of the reference.
    expansions: BTreeMap<(SourceId, u32, u32), Expansion>,
}

/// A reference in the text that was replaced by what its name stands for.
///
/// Words that came out of it have the span of the reference: that is where the reader of the file finds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expansion {
    /// The name, without `$` and braces.
    pub name: String,
    /// The place that was replaced.
    pub reference: Span,
    /// Where the name got the value that was used first.
    pub definition: Span,
}

impl SourceMap {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a source. Text beyond 4 GiB is cut off: offsets have 32 bits.
    pub fn add(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> SourceId {
        self.sources.push(Source::new(name.into(), bytes.into()));
        SourceId(to_offset(self.sources.len() - 1))
    }

    /// The source that was added first under this name.
    pub fn find(&self, name: &str) -> Option<SourceId> {
        let at = self.sources.iter().position(|source| source.name == name)?;
        Some(SourceId(to_offset(at)))
    }

    /// The replaced references within a span, in the order of the text.
    pub fn expansions(&self, span: Span) -> impl Iterator<Item = &Expansion> {
        self.expansions
            .range((span.source, span.start, 0)..(span.source, span.end, u32::MAX))
            .map(|(_, expansion)| expansion)
            .filter(move |expansion| expansion.reference.end <= span.end)
    }

    pub(crate) fn expanded(&mut self, expansion: Expansion) {
        let Span { source, start, end } = expansion.reference;
        self.expansions
            .entry((source, start, end))
            .or_insert(expansion);
    }

    /// The source with this name tag, `None` for an id of another map.
    pub fn get(&self, id: SourceId) -> Option<&Source> {
        self.sources.get(id.0 as usize)
    }

    /// Every source with the id that names it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SourceId, &Source)> {
        let ids = (0..).map(SourceId);
        ids.zip(&self.sources)
    }

    /// The bytes that a span covers; empty for a span of another map.
    pub fn text(&self, span: Span) -> &[u8] {
        self.get(span.source)
            .and_then(|source| source.bytes.get(span.start as usize..span.end as usize))
            .unwrap_or_default()
    }

    /// Where a span starts.
    pub fn position(&self, span: Span) -> Position {
        self.get(span.source)
            .map_or(Position { line: 1, column: 1 }, |source| {
                source.position(span.start)
            })
    }
}

/// A half-open range of bytes in one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The source that the offsets count in.
    pub source: SourceId,
    /// Offset of the first byte.
    pub start: u32,
    /// Offset after the last byte.
    pub end: u32,
}

impl Span {
    /// The start of the first source, for text that stood nowhere.
    pub(crate) const NOWHERE: Self = Self {
        source: SourceId(0),
        start: 0,
        end: 0,
    };

    /// The smallest span that covers both; `other` counts only if it lies in the same source.
    pub fn to(self, other: Self) -> Self {
        if self.source != other.source {
            return self;
        }
        Self {
            source: self.source,
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        }
    }
}

/// A place for people: both numbers start at 1, the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Line number.
    pub line: u32,
    /// Column in characters; a byte sequence that is not UTF-8 counts as one replacement character.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

pub(crate) fn to_offset(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

const MAX_SOURCE: usize = u32::MAX as usize - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_start_at_one() {
        let mut map = SourceMap::new();
        let id = map.add("x", "a\néé b\n");
        let source = map.get(id).unwrap();
        assert_eq!(source.line_count(), 2);
        assert_eq!(source.position(7), Position { line: 2, column: 4 });
        assert_eq!(source.position(999).line, 2);
    }
}
