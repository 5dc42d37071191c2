//! Diagnostics for programs: one JSON object each.

use std::fmt::Write as _;

use super::Diagnostic;
use crate::source::{Position, SourceMap, Span};

impl Diagnostic {
    /// The finding as one JSON object without line ends.
    ///
    /// | Member | Value |
    /// |---|---|
    /// | `code` | [`Code::as_str`](super::Code::as_str) |
    /// | `class` | [`Class::as_str`](super::Class::as_str), `ok` for what a config test does not report |
    /// | `severity` | [`Severity::as_str`](super::Severity::as_str) |
    /// | `consequence` | [`Consequence::as_str`](super::Consequence::as_str), what keepalived makes of it |
    /// | `file` | name of the source |
    /// | `line`, `column` | numbers from 1, columns in characters |
    /// | `end` | object with `line` and `column` after the last character |
    /// | `message` | one sentence |
    /// | `expected`, `hint` | text or null |
    /// | `notes` | array of objects with `file`, `line`, `column`, `end`, `message` |
    ///
    /// All members are always there. Later releases may add members and codes, and neither rename nor remove any.
    pub fn to_json(&self, sources: &SourceMap) -> String {
        let mut out = String::from("{");
        member(&mut out, "code", self.code.as_str());
        member(&mut out, "class", self.class().as_str());
        member(&mut out, "severity", self.severity().as_str());
        member(&mut out, "consequence", self.consequence.as_str());
        place(&mut out, sources, self.span);
        member(&mut out, "message", &self.message);
        optional(&mut out, "expected", self.expected.as_deref());
        optional(&mut out, "hint", self.hint.as_deref());
        out.push_str("\"notes\":[");
        for (at, note) in self.notes.iter().enumerate() {
            out.push_str(if at == 0 { "{" } else { ",{" });
            place(&mut out, sources, note.span);
            out.push_str("\"message\":");
            text(&mut out, &note.message);
            out.push('}');
        }
        out.push_str("]}");
        out
    }
}

fn place(out: &mut String, sources: &SourceMap, span: Span) {
    let name = sources.get(span.source).map_or("", |source| source.name());
    member(out, "file", name);
    let start = sources.position(span);
    let end = sources.position(Span {
        start: span.end,
        ..span
    });
    let Position { line, column } = start;
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "\"line\":{line},\"column\":{column},\"end\":{{\"line\":{},\"column\":{}}},",
        end.line, end.column
    );
}

fn member(out: &mut String, name: &str, value: &str) {
    text(out, name);
    out.push(':');
    text(out, value);
    out.push(',');
}

fn optional(out: &mut String, name: &str, value: Option<&str>) {
    match value {
        Some(value) => member(out, name, value),
        None => {
            text(out, name);
            out.push_str(":null,");
        }
    }
}

fn text(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::super::{Code, Consequence};
    use super::*;

    #[test]
    fn every_member_is_there_and_text_is_escaped() {
        let mut map = SourceMap::new();
        let source = map.add("k \"x\".conf", "a\nbé bad\n");
        let at = |start, end| Span { source, start, end };
        let diagnostic = Diagnostic::new(
            Code::RsDuplicate,
            Consequence::Drop,
            at(6, 9),
            "tab\there \u{1}",
        )
        .hint("back\\slash")
        .note(at(0, 1), "first");
        assert_eq!(
            diagnostic.to_json(&map),
            concat!(
                r#"{"code":"rs-duplicate","class":"general","severity":"error","consequence":"drop","file":"k \"x\".conf","#,
                r#""line":2,"column":4,"end":{"line":2,"column":7},"message":"tab\there \u0001","#,
                r#""expected":null,"hint":"back\\slash","notes":[{"file":"k \"x\".conf","line":1,"column":1,"#,
                r#""end":{"line":1,"column":2},"message":"first"}]}"#
            )
        );
    }
}
