//! Text to model in one call.

use crate::diag::{Consequence, Diagnostic, exit_status};
use crate::dialect::Dialect;
use crate::files::Files;
use crate::lower::lower;
use crate::model::Config;
use crate::options::Options;
use crate::parse::parse;
use crate::source::{SourceId, SourceMap};
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
    let parsed = parse(sources, main, files, options);
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
