//! What a reading depends on besides the text.

use std::collections::{BTreeMap, BTreeSet};

use crate::dialect::Dialect;
use crate::lex::IncludeChecks;

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
    /// The accounts of the machine, if scripts for others are to be dropped; without, every account is taken to exist.
    pub accounts: Option<BTreeSet<String>>,
    /// Checks of includes that are on from the start.
    pub include_checks: IncludeChecks,
}
