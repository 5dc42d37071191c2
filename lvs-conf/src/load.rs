//! Text to model in one call.

use crate::diag::{Consequence, Diagnostic, exit_status};
use crate::lower::lower;
use crate::model::Config;
use crate::parse::parse;
use crate::source::{SourceId, SourceMap};

/// A configuration and everything that was found about it.
#[derive(Debug, Clone)]
pub struct Loaded {
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

/// Parses and lowers one source of the map.
pub fn load(sources: &SourceMap, id: SourceId) -> Loaded {
    let parsed = parse(sources, id);
    let (config, findings) = lower(&parsed.tree);
    let mut diagnostics = parsed.diagnostics;
    diagnostics.extend(findings);
    diagnostics.sort_by_key(|d| (d.span.source, d.span.start));
    Loaded {
        config,
        diagnostics,
    }
}
