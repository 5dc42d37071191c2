//! Text to model in one call.

use crate::diag::{Code, Consequence, Diagnostic, exit_status};
use crate::dialect::Dialect;
use crate::files::{FileError, Files, alternatives, glob, join};
use crate::lower::lower;
use crate::model::Config;
use crate::options::Options;
use crate::parse::parse_several;
use crate::source::{SourceId, SourceMap, Span};
use crate::tree::Tree;

/// A configuration and everything that was found about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What was written, in order, with places.
    pub tree: Tree,
    /// What is left after everything unusable was dropped.
    pub config: Config,
    /// Findings in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    /// The exit status of keepalived's config test for the text alone.
    pub fn exit_status(&self) -> u8 {
        exit_status(&self.diagnostics)
    }

    /// keepalived would run with this configuration, complaints notwithstanding.
    pub fn is_usable(&self) -> bool {
        !self
            .diagnostics
            .iter()
            .any(|d| matches!(d.consequence, Consequence::Fatal | Consequence::Refuse))
    }
}

/// Parses and lowers one source of the map, with the files that it includes.
pub fn load(
    sources: &mut SourceMap,
    main: SourceId,
    files: &dyn Files,
    options: &Options,
) -> Loaded {
    load_several(sources, &[main], files, options)
}

/// The same for a file of [`Files`], which is added to the map under its path.
///
/// The name may be a shell pattern with `*`, `?`, `[...]` and `{a,b}`, relative to [`Options::directory`]. If it matches
/// several files they are read one after the other, as an include would, and [`Code::MultipleFiles`] is found.
///
/// # Errors
///
/// There is no such file, or it cannot be read; of a pattern, one that it names.
///
/// ```
/// use lvs_conf::{Code, MapFiles, Options, SourceMap, load_path};
///
/// let files = MapFiles::new()
///     .with("/etc/a.conf", "net_namespace x\n")
///     .with("/etc/b.conf", "instance y\n");
/// let mut sources = SourceMap::new();
/// let loaded = load_path(&mut sources, "/etc/?.conf", &files, &Options::default())?;
/// assert_eq!(loaded.config.daemon.instance.as_deref(), Some("y"));
/// assert_eq!(loaded.diagnostics[0].code, Code::MultipleFiles);
/// assert_eq!(loaded.exit_status(), 5);
/// # Ok::<_, lvs_conf::FileError>(())
/// ```
pub fn load_path(
    sources: &mut SourceMap,
    name: &str,
    files: &dyn Files,
    options: &Options,
) -> Result<Loaded, FileError> {
    // A file of just this name is meant, whatever characters are in it.
    let mut failure = match files.read(name) {
        Ok(text) => {
            let main = sources.add(name, text);
            return Ok(load(sources, main, files, options));
        }
        Err(error) => error,
    };
    let mut mains = Vec::new();
    for pattern in alternatives(name) {
        for path in glob(files, &join(&options.directory, &pattern)) {
            match files.read(&path) {
                Ok(text) => mains.push(sources.add(path, text)),
                Err(FileError::NotFound) => {}
                // A directory may fit a pattern, as it may at `include`.
                Err(FileError::NotRegular) => failure = FileError::NotRegular,
                // Half of what is meant is worse than nothing: a reload would take away what the other file has.
                Err(error) => return Err(error),
            }
        }
    }
    let Some(first) = mains.first().copied() else {
        return Err(failure);
    };
    let mut loaded = load_several(sources, &mains, files, options);
    if mains.len() > 1 {
        let start = Span {
            source: first,
            start: 0,
            end: 0,
        };
        let several = Diagnostic::new(
            Code::MultipleFiles,
            Consequence::Warn,
            start,
            format!(
                "`{name}` matches {} files, they are read as one",
                mains.len()
            ),
        )
        .hint("name one file, and include the others in it");
        loaded.diagnostics.insert(0, several);
    }
    Ok(loaded)
}

fn load_several(
    sources: &mut SourceMap,
    mains: &[SourceId],
    files: &dyn Files,
    options: &Options,
) -> Loaded {
    let parsed = parse_several(sources, mains, files, options);
    let (config, mut findings) = lower(&parsed.tree, options);
    if parsed.stopped {
        // The program never came to look at the whole.
        findings.retain(|d| d.code.is_found_while_reading());
    }
    if options.dialect == Dialect::V2_2_7 {
        // The first refusal ends the checks.
        let mut refused = false;
        findings.retain(|d| {
            let again = refused && d.consequence == Consequence::Refuse;
            refused |= d.consequence == Consequence::Refuse;
            !again
        });
    }
    let mut diagnostics = parsed.diagnostics;
    diagnostics.extend(findings);
    diagnostics.sort_by_key(|d| (d.span.source, d.span.start));
    for diagnostic in &mut diagnostics {
        explain_expansion(diagnostic, sources);
    }
    Loaded {
        tree: parsed.tree,
        config,
        diagnostics,
    }
}

/// Adds where the parameters got their values that a finding is about.
pub(crate) fn explain_expansion(diagnostic: &mut Diagnostic, sources: &SourceMap) {
    let mut expansions = sources.expansions(diagnostic.span).peekable();
    if expansions.peek().is_none() {
        return;
    }
    let notes: Vec<_> = expansions
        .take(MAX_NOTES)
        .map(|e| (e.definition, format!("`${}` is defined here", e.name)))
        .collect();
    for (span, message) in notes {
        if diagnostic.notes.iter().all(|note| note.span != span) {
            diagnostic.notes.push(crate::diag::Note { span, message });
        }
    }
}

const MAX_NOTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::MapFiles;

    /// `b.conf` gives this error.
    struct Faulty(FileError);

    impl Files for Faulty {
        fn read(&self, path: &str) -> Result<Vec<u8>, FileError> {
            match path {
                "/etc/a.conf" => Ok(b"instance a\n".to_vec()),
                "/etc/b.conf" => Err(self.0.clone()),
                _ => Err(FileError::NotFound),
            }
        }

        fn list(&self, directory: &str) -> Vec<String> {
            MapFiles::new()
                .with("/etc/a.conf", "")
                .with("/etc/b.conf", "")
                .list(directory)
        }
    }

    fn read(fault: FileError) -> Result<Option<String>, FileError> {
        let files = Faulty(fault);
        let options = Options::default();
        load_path(&mut SourceMap::new(), "/etc/*.conf", &files, &options)
            .map(|loaded| loaded.config.daemon.instance)
    }

    #[test]
    fn a_file_that_a_pattern_names_and_nobody_can_read_fails_the_whole() {
        for fault in [
            FileError::Executable,
            FileError::Unreadable("permission denied".to_owned()),
        ] {
            assert_eq!(read(fault.clone()), Err(fault));
        }
    }

    #[test]
    fn a_directory_that_fits_a_pattern_and_a_file_that_went_away_are_passed_over() {
        for fault in [FileError::NotRegular, FileError::NotFound] {
            assert_eq!(read(fault), Ok(Some("a".to_owned())));
        }
    }
}
