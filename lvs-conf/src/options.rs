//! What a reading depends on besides the text.

use std::collections::{BTreeMap, BTreeSet};

use crate::dialect::Dialect;
use crate::lex::IncludeChecks;

/// What a machine has of the things that configurations name.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Accounts that scripts can run as.
    pub accounts: BTreeSet<String>,
    /// Network namespaces.
    pub namespaces: BTreeSet<String>,
    /// Directories whose programs all exist, each with a slash at its end. Programs named without directory exist anyway.
    pub program_directories: Vec<String>,
}

impl Machine {
    pub(crate) fn has_program(&self, path: &str) -> bool {
        let mut known = self.program_directories.iter();
        !path.starts_with('/') || known.any(|directory| path.starts_with(directory.as_str()))
    }
}

/// How a configuration is read.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whose behaviour to follow.
    pub dialect: Dialect,
    /// What `@ID` lines are compared with and `${_INSTANCE}` stands for. keepalived takes the node name up to the first dot.
    pub config_id: String,
    /// The working directory: names without directory are relative to it. May be empty.
    pub directory: String,
    /// What `${_ENV NAME}` sees.
    pub environment: BTreeMap<String, String>,
    /// Where `${_RANDOM}` starts; equal seeds give equal readings.
    pub random_seed: u64,
    /// What the machine has, if what it lacks is to count; without, everything is taken to exist.
    pub machine: Option<Machine>,
    /// Checks of includes that are on from the start.
    pub include_checks: IncludeChecks,
}
