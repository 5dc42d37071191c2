//! Included files.

use std::sync::Arc;

use super::reader::{Frame, Reader};
use super::{Line, is_blank, is_space};
use crate::diag::{Code, Consequence, Diagnostic};
use crate::files::{FileError, alternatives, glob, has_wildcard, join};
use crate::source::{Source, SourceId, Span};

/// Which failures of an include are errors. Those that are not are only told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IncludeChecks {
    /// A file that was named or found cannot be read.
    pub read: bool,
    /// A name without wildcard matches nothing.
    pub matches: bool,
    /// A name with wildcards matches nothing.
    pub wildcard_match: bool,
    /// One of the alternatives in braces matches nothing.
    pub brace_match: bool,
}

impl IncludeChecks {
    /// Every check.
    pub const ALL: Self = Self {
        read: true,
        matches: true,
        wildcard_match: true,
        brace_match: true,
    };

    /// The checks after a statement `include_check WORDS`. Without words all are on. Words that are none are returned.
    ///
    /// The first word without sign starts anew; words with `+` and `-` switch single checks.
    pub fn after<'w>(self, words: impl IntoIterator<Item = &'w str>) -> (Self, Vec<&'w str>) {
        let mut checks = self;
        let mut wrong = Vec::new();
        let mut first = true;
        for word in words {
            let (name, on) = match word.strip_prefix('-') {
                Some(name) => (name, false),
                None => (word.strip_prefix('+').unwrap_or(word), true),
            };
            if name == word {
                if !first {
                    wrong.push(word);
                    continue;
                }
                checks = Self {
                    read: true,
                    ..Self::default()
                };
            }
            first = false;
            match name {
                "read" => checks.read = on,
                "match" => checks.matches = on,
                "wildcard_match" => checks.wildcard_match = on,
                "brace_match" => checks.brace_match = on,
                _ => wrong.push(word),
            }
        }
        if first {
            checks = Self::ALL;
        }
        (checks, wrong)
    }

    fn with(self, keyword: &[u8]) -> Self {
        let Some(letter) = keyword.get(INCLUDE.len()) else {
            return self;
        };
        let is = |letters: &[u8]| letters.contains(letter);
        Self {
            read: self.read || is(b"rmwba"),
            matches: self.matches || is(b"mwa"),
            wildcard_match: self.wildcard_match || is(b"wa"),
            brace_match: self.brace_match || is(b"ba"),
        }
    }
}

/// A file that lines are read from.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) id: SourceId,
    pub(super) text: Arc<[u8]>,
    /// Offset of the next line.
    pub(super) at: usize,
    /// What names in it are relative to.
    directory: String,
    /// The checks that hold again when the file has ended.
    pub(super) checks_before: IncludeChecks,
}

impl OpenFile {
    pub(super) fn new(source: &Source, id: SourceId, outside: &str) -> Self {
        let directory = match source.name().rsplit_once('/') {
            Some(("", _)) => "/".to_owned(),
            Some((directory, _)) => join(outside, directory),
            None => outside.to_owned(),
        };
        Self {
            id,
            text: source.share(),
            at: 0,
            directory,
            checks_before: IncludeChecks::default(),
        }
    }
}

impl Reader<'_> {
    /// The directory of the file that is being read.
    pub(super) fn directory(&self) -> &str {
        let files = self.frames.iter().rev().find_map(|frame| match frame {
            Frame::File(file) => Some(file.directory.as_str()),
            Frame::Body(_) | Frame::Sequence(_) => None,
        });
        files.unwrap_or(&self.options.directory)
    }

    /// Opens the files that a line includes. `false` if it is no include.
    pub(super) fn include(&mut self, line: &Line) -> bool {
        let bytes = line.bytes();
        if !bytes.starts_with(INCLUDE) {
            return false;
        }
        let Some(end) = bytes.iter().position(|b| is_space(*b)) else {
            return false;
        };
        let keyword = &bytes[..end];
        if !matches!(keyword.len() - INCLUDE.len(), 0 | 1)
            || !keyword[INCLUDE.len()..]
                .iter()
                .all(|b| b"rmwba".contains(b))
        {
            return false;
        }
        let from = end + bytes[end..].iter().take_while(|b| is_blank(**b)).count();
        let span = line.part(from, bytes.len()).span();
        let pattern = String::from_utf8_lossy(&bytes[from..]).into_owned();
        let checks = self.checks.with(keyword);
        let mut opened = Vec::new();
        let patterns = alternatives(&pattern);
        for one in &patterns {
            self.include_pattern(one, patterns.len() > 1, checks, span, &mut opened);
        }
        // The first one is read first.
        self.frames
            .extend(opened.into_iter().rev().map(Frame::File));
        true
    }

    fn include_pattern(
        &mut self,
        pattern: &str,
        is_alternative: bool,
        checks: IncludeChecks,
        span: Span,
        opened: &mut Vec<OpenFile>,
    ) {
        let paths = glob(self.files, &join(self.directory(), pattern));
        let is_wild = has_wildcard(pattern);
        let must_match = if is_alternative {
            checks.brace_match
        } else if is_wild {
            checks.wildcard_match
        } else {
            checks.matches
        };
        if paths.is_empty() {
            self.not_included(pattern, span, must_match, "no file matches");
        }
        for path in paths {
            match self.open(&path, span) {
                Ok(Some(file)) => opened.push(file),
                Ok(None) => {}
                Err(FileError::NotFound) => {
                    self.not_included(&path, span, must_match, "no such file");
                }
                Err(FileError::NotRegular) if is_wild && !checks.read => {}
                Err(error) => self.not_included(&path, span, checks.read, &error.to_string()),
            }
        }
    }

    /// `None` for a file that must not be read again here, which is reported.
    fn open(&mut self, path: &str, span: Span) -> Result<Option<OpenFile>, FileError> {
        let id = match self.sources.find(path) {
            Some(id) => id,
            None => self.sources.add(path, self.files.read(path)?),
        };
        let mut depth = 0;
        let mut is_open = false;
        for frame in &self.frames {
            if let Frame::File(file) = frame {
                depth += 1;
                is_open |= file.id == id;
            }
        }
        self.opened += 1;
        if is_open || depth > MAX_DEPTH || self.opened > MAX_OPENED {
            let message = if is_open {
                format!("`{path}` includes itself, it is not read again")
            } else {
                format!("`{path}` is not read, there are too many includes")
            };
            self.diagnostics.push(Diagnostic::new(
                Code::IncludeLoop,
                Consequence::Ignore,
                span,
                message,
            ));
            return Ok(None);
        }
        let source = self.sources.get(id).ok_or(FileError::NotFound)?;
        Ok(Some(OpenFile::new(source, id, &self.options.directory)))
    }

    fn not_included(&mut self, path: &str, span: Span, is_error: bool, why: &str) {
        let consequence = if is_error {
            Consequence::Fatal
        } else {
            Consequence::Log
        };
        let mut diagnostic = Diagnostic::new(
            Code::IncludeMissing,
            consequence,
            span,
            format!("`{path}` is not included: {why}"),
        );
        if path.contains(['"', '\'']) {
            diagnostic = diagnostic.hint("write the name without quotes, they count as part of it");
        }
        self.diagnostics.push(diagnostic);
    }
}

const INCLUDE: &[u8] = b"include";

/// How deep includes may nest: names that lead to one file in different ways hide a loop.
const MAX_DEPTH: usize = 100;

/// How many files a configuration may read, each as often as it is included.
const MAX_OPENED: usize = 20_000;
