//! What is wrong, where, what keepalived makes of it, and what was probably meant.

use std::fmt;

use crate::source::{SourceMap, Span};

pub use code::{Class, Code};

/// One finding about a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The kind of finding.
    pub code: Code,
    /// What becomes of the line or object.
    pub consequence: Consequence,
    /// The words that it is about.
    pub span: Span,
    /// One sentence, lower case, without full stop.
    pub message: String,
    /// What would have been right here.
    pub expected: Option<String>,
    /// A suggestion, such as "did you mean `auth_pass`?".
    pub hint: Option<String>,
    /// Further places that explain the finding.
    pub notes: Vec<Note>,
    /// Kinds of further complaints that keepalived makes about the same words.
    pub also: Vec<Code>,
}

/// A second place that belongs to a [`Diagnostic`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The place.
    pub span: Span,
    /// What is to be seen there.
    pub message: String,
}

impl Diagnostic {
    /// A finding without expectation, hint and notes.
    pub fn new(
        code: Code,
        consequence: Consequence,
        span: Span,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            consequence,
            span,
            message: message.into(),
            expected: None,
            hint: None,
            notes: Vec::new(),
            also: Vec::new(),
        }
    }

    /// Says that keepalived complains a second time about the same words.
    #[must_use]
    pub fn also(mut self, code: Code) -> Self {
        self.also.push(code);
        self
    }

    /// Says what would have been right.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// Adds a suggestion.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a second place.
    #[must_use]
    pub fn note(mut self, span: Span, message: impl Into<String>) -> Self {
        self.notes.push(Note {
            span,
            message: message.into(),
        });
        self
    }

    /// The class that decides the exit status. What is only logged has class [`Class::Ok`].
    pub fn class(&self) -> Class {
        if self.consequence == Consequence::Log {
            Class::Ok
        } else {
            self.code.class()
        }
    }

    /// How loud a person should hear it.
    pub fn severity(&self) -> Severity {
        match self.consequence {
            Consequence::Fatal | Consequence::Refuse | Consequence::Drop | Consequence::Ignore => {
                Severity::Error
            }
            Consequence::Adjust | Consequence::Warn => Severity::Warning,
            // keepalived goes on in silence, but a file was named and what it says is not in force.
            Consequence::Log if self.code == Code::IncludeMissing => Severity::Warning,
            Consequence::Log if matches!(self.code, Code::Lint(_)) => Severity::Warning,
            Consequence::Log => Severity::Info,
        }
    }

    /// The one-line form `file:line:column: severity: message`, with expectation and hint appended.
    pub fn display<'a>(&'a self, sources: &'a SourceMap) -> impl fmt::Display + 'a {
        OneLine {
            diagnostic: self,
            sources,
        }
    }
}

/// The exit status of keepalived's config test for these findings: 0, 2, 4, 5 or 6.
///
/// A missing required argument stops keepalived at once, so it decides the status whatever else was found.
pub fn exit_status(diagnostics: &[Diagnostic]) -> u8 {
    let worst = diagnostics.iter().map(Diagnostic::class).max();
    if diagnostics
        .iter()
        .any(|d| d.class() == Class::MissingParameter)
    {
        return 2;
    }
    // An include that had to be there ends the program once everything was read.
    if diagnostics
        .iter()
        .any(|d| d.code == Code::IncludeMissing && d.class() != Class::Ok)
    {
        return 6;
    }
    match worst.unwrap_or(Class::Ok) {
        Class::Ok => 0,
        Class::FileNotFound | Class::BadInterface | Class::Fatal => 4,
        Class::MissingParameter => 2,
        Class::Security => 6,
        Class::MultipleFiles
        | Class::UnknownKeyword
        | Class::UnexpectedOpenBrace
        | Class::MissingOpenBrace
        | Class::UnexpectedCloseBrace
        | Class::MissingCloseBrace
        | Class::UnmatchedQuote
        | Class::InvalidNumber
        | Class::General
        | Class::Warning
        | Class::Deprecated => 5,
    }
}

/// What keepalived does about a finding, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Consequence {
    /// The process that reads the file stops.
    Fatal,
    /// The VRRP part finds the configuration unusable and the daemon ends.
    Refuse,
    /// The object is left out, the rest runs.
    Drop,
    /// The line has no effect.
    Ignore,
    /// A value is changed to a legal one.
    Adjust,
    /// A complaint only.
    Warn,
    /// Information, never part of a config test's verdict.
    Log,
}

impl Consequence {
    /// The stable name, such as `drop`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fatal => "fatal",
            Self::Refuse => "refuse",
            Self::Drop => "drop",
            Self::Ignore => "ignore",
            Self::Adjust => "adjust",
            Self::Warn => "warn",
            Self::Log => "log",
        }
    }
}

/// How a person should read a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Something that was written does not take effect.
    Error,
    /// It takes effect, though not as written or not for long.
    Warning,
    /// Good to know.
    Info,
}

impl Severity {
    /// `error`, `warning` or `info`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

struct OneLine<'a> {
    diagnostic: &'a Diagnostic,
    sources: &'a SourceMap,
}

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let d = self.diagnostic;
        let name = self.sources.get(d.span.source).map_or("?", |s| s.name());
        let position = self.sources.position(d.span);
        write!(f, "{name}:{position}: {}: {}", d.severity(), d.message)?;
        if let Some(expected) = &d.expected {
            write!(f, ", expected {expected}")?;
        }
        if let Some(hint) = &d.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

mod code;
mod json;

#[cfg(feature = "render")]
mod render {
    use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

    use super::{Diagnostic, Severity};
    use crate::source::{SourceMap, Span};

    impl Diagnostic {
        /// A block of text with the source lines and marks under the words.
        ///
        /// The caller chooses `Renderer::plain()` or `Renderer::styled()`. Only the lines concerned are rendered, so the
        /// cost does not grow with the file.
        pub fn render(&self, sources: &SourceMap, renderer: &Renderer) -> String {
            let level = match self.severity() {
                Severity::Error => Level::ERROR,
                Severity::Warning => Level::WARNING,
                Severity::Info => Level::INFO,
            };
            let mut group = level
                .primary_title(self.message.as_str())
                .id(self.code.as_str())
                .element(excerpt(
                    sources,
                    self.span,
                    AnnotationKind::Primary,
                    self.expected.as_ref().map(|e| format!("expected {e}")),
                ));
            for note in &self.notes {
                group = group.element(excerpt(
                    sources,
                    note.span,
                    AnnotationKind::Context,
                    Some(note.message.clone()),
                ));
            }
            if let Some(hint) = &self.hint {
                group = group.element(Level::HELP.message(hint.as_str()));
            }
            renderer.render(&[group])
        }
    }

    /// The physical line of a span. Text that is not UTF-8 is shown with replacement characters, so offsets are recounted.
    fn excerpt<'a>(
        sources: &'a SourceMap,
        span: Span,
        kind: AnnotationKind,
        label: Option<String>,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let Some(source) = sources.get(span.source) else {
            return Snippet::source("");
        };
        let bytes = source.bytes();
        let start = (span.start as usize).min(bytes.len());
        let end = (span.end as usize).clamp(start, bytes.len());
        let from = bytes[..start]
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        let to = bytes[start..]
            .iter()
            .position(|b| *b == b'\n')
            .map_or(bytes.len(), |at| start + at);
        let before = String::from_utf8_lossy(&bytes[from..start]);
        let marked = String::from_utf8_lossy(&bytes[start..end.min(to)]);
        let after = String::from_utf8_lossy(&bytes[end.min(to)..to]);
        let range = before.len()..before.len() + marked.len();
        let line = source.position(span.start).line as usize;
        Snippet::source(format!("{before}{marked}{after}"))
            .path(source.name())
            .line_start(line)
            .annotation(kind.span(range).label(label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_codes_are_unique_and_kebab_case() {
        let mut names: Vec<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert!(names.iter().all(|n| {
            n.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        }));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn exit_status_follows_the_highest_class() {
        let mut map = SourceMap::new();
        let source = map.add("x", "");
        let span = Span {
            source,
            start: 0,
            end: 0,
        };
        let d = |code, consequence| Diagnostic::new(code, consequence, span, "");
        assert_eq!(exit_status(&[]), 0);
        assert_eq!(exit_status(&[d(Code::Deprecated, Consequence::Log)]), 0);
        assert_eq!(exit_status(&[d(Code::Deprecated, Consequence::Warn)]), 5);
        assert_eq!(
            exit_status(&[
                d(Code::MissingArgument, Consequence::Fatal),
                d(Code::Deprecated, Consequence::Warn)
            ]),
            2
        );
    }

    #[cfg(feature = "render")]
    #[test]
    fn rendering_marks_the_words_by_characters_and_shows_every_note() {
        let mut map = SourceMap::new();
        let source = map.add("k.conf", b"a\n\xff\xe9 caf\xc3\xa9 bad\n".to_vec());
        let at = |start, end| Span { source, start, end };
        let d = Diagnostic::new(
            Code::RsDuplicate,
            Consequence::Drop,
            at(11, 14),
            "given twice",
        )
        .expected("once")
        .hint("remove it")
        .note(at(0, 1), "first given here");
        let text = d.render(&map, &annotate_snippets::Renderer::plain());
        for part in [
            "error[rs-duplicate]: given twice",
            "k.conf:2:9",
            "^^^ expected once",
            "- first given here",
            "help: remove it",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert_eq!(
            d.display(&map).to_string(),
            "k.conf:2:9: error: given twice, expected once; remove it"
        );
    }
}
