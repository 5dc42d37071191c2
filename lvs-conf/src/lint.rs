//! What keepalived accepts and operators regret.

use crate::diag::Diagnostic;
use crate::model::Config;
use crate::source::SourceMap;
use crate::tree::Tree;

/// Warnings about what a configuration says, in the order of the text.
///
/// `tree` and `config` are those that [`load`](crate::load()) found in `sources`. Lint findings never change
/// keepalived's exit status. A comment silences a rule where it stands.
pub fn lint(sources: &SourceMap, tree: &Tree, config: &Config) -> Vec<Diagnostic> {
    let _ = (sources, tree, config);
    Vec::new()
}
