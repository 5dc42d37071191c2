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

/// How long packets may be on interfaces, in bytes with the IP header. Where it is not known there is no limit.
///
/// ```
/// use lvs_conf::Mtus;
///
/// let mtus = Mtus::all(1500).with("lo", 65_536);
/// assert_eq!((mtus.of("eth0"), mtus.of("lo")), (Some(1500), Some(65_536)));
/// assert_eq!(Mtus::default().of("eth0"), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mtus {
    named: BTreeMap<String, u32>,
    others: Option<u32>,
}

impl Mtus {
    /// One length for every interface.
    pub fn all(mtu: u32) -> Self {
        Self {
            named: BTreeMap::new(),
            others: Some(mtu),
        }
    }

    /// The length on one interface.
    #[must_use]
    pub fn with(mut self, interface: impl Into<String>, mtu: u32) -> Self {
        self.named.insert(interface.into(), mtu);
        self
    }

    /// The length on an interface, if it is known.
    pub fn of(&self, interface: &str) -> Option<u32> {
        self.named.get(interface).copied().or(self.others)
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
    /// Where `${_RANDOM}` starts unless the text gives a `random_seed`; equal seeds give equal readings.
    pub random_seed: u64,
    /// What the machine has, if what it lacks is to count; without, everything is taken to exist.
    pub machine: Option<Machine>,
    /// How long packets may be on interfaces.
    pub mtus: Mtus,
    /// Checks of includes that are on from the start.
    pub include_checks: IncludeChecks,
}
