//! The built-in schedulers by name.

use std::fmt;
use std::str::FromStr;

use super::{
    DestinationHash, Failover, LeastConnection, LocalityLeastConnection, Maglev, MaglevHash,
    NeverQueue, Overflow, Peek, ReplicatedLocality, Request, RoundRobin, Scheduler, Servers,
    ShortestExpectedDelay, SourceHash, TwoChoices, WeightedLeastConnection, WeightedRoundRobin,
};

/// The built-in schedulers, written by their short names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub enum SchedulerKind {
    /// `rr`
    RoundRobin,
    /// `wrr`
    WeightedRoundRobin,
    /// `lc`
    LeastConnection,
    /// `wlc`, the default.
    #[default]
    WeightedLeastConnection,
    /// `lblc`
    LocalityLeastConnection,
    /// `lblcr`
    ReplicatedLocality,
    /// `dh`
    DestinationHash,
    /// `sh`
    SourceHash,
    /// `sed`
    ShortestExpectedDelay,
    /// `nq`
    NeverQueue,
    /// `fo`
    Failover,
    /// `ovf`
    Overflow,
    /// `mh`
    MaglevHash,
    /// `twos`
    TwoChoices,
    /// `maglev`, not one of the kernel's.
    Maglev,
    /// `none`: no connection finds a server.
    None,
}

/// Numbers that schedulers take from outside. Equal seeds give equal decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
pub struct Seeds {
    /// Where the random draws of `twos` begin.
    pub draws: u64,
    /// Key of `maglev`'s hash. Directors that share clients need the same.
    pub table: [u64; 2],
}

impl SchedulerKind {
    /// All kinds that are built in.
    pub const ALL: [Self; 16] = [
        Self::RoundRobin,
        Self::WeightedRoundRobin,
        Self::LeastConnection,
        Self::WeightedLeastConnection,
        Self::LocalityLeastConnection,
        Self::ReplicatedLocality,
        Self::DestinationHash,
        Self::SourceHash,
        Self::ShortestExpectedDelay,
        Self::NeverQueue,
        Self::Failover,
        Self::Overflow,
        Self::MaglevHash,
        Self::TwoChoices,
        Self::Maglev,
        Self::None,
    ];

    /// The short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "rr",
            Self::WeightedRoundRobin => "wrr",
            Self::LeastConnection => "lc",
            Self::WeightedLeastConnection => "wlc",
            Self::LocalityLeastConnection => "lblc",
            Self::ReplicatedLocality => "lblcr",
            Self::DestinationHash => "dh",
            Self::SourceHash => "sh",
            Self::ShortestExpectedDelay => "sed",
            Self::NeverQueue => "nq",
            Self::Failover => "fo",
            Self::Overflow => "ovf",
            Self::MaglevHash => "mh",
            Self::TwoChoices => "twos",
            Self::Maglev => "maglev",
            Self::None => "none",
        }
    }

    /// A fresh scheduler of this kind.
    pub fn build(self, seeds: Seeds) -> Box<dyn Scheduler> {
        match self {
            Self::RoundRobin => Box::new(RoundRobin::default()),
            Self::WeightedRoundRobin => Box::new(WeightedRoundRobin::default()),
            Self::LeastConnection => Box::new(LeastConnection::default()),
            Self::WeightedLeastConnection => Box::new(WeightedLeastConnection::default()),
            Self::LocalityLeastConnection => Box::new(LocalityLeastConnection::default()),
            Self::ReplicatedLocality => Box::new(ReplicatedLocality::default()),
            Self::DestinationHash => Box::new(DestinationHash),
            Self::SourceHash => Box::new(SourceHash::default()),
            Self::ShortestExpectedDelay => Box::new(ShortestExpectedDelay::default()),
            Self::NeverQueue => Box::new(NeverQueue::default()),
            Self::Failover => Box::new(Failover::default()),
            Self::Overflow => Box::new(Overflow::default()),
            Self::MaglevHash => Box::new(MaglevHash::default()),
            Self::TwoChoices => Box::new(TwoChoices::new(seeds.draws)),
            Self::Maglev => Box::new(Maglev::new(seeds.table)),
            Self::None => Box::new(Nobody),
        }
    }

    /// The most servers that it can be attached to.
    pub(crate) fn max_servers(self) -> usize {
        match self {
            Self::MaglevHash => MaglevHash::CELLS,
            _ => usize::MAX,
        }
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SchedulerKind {
    type Err = ParseSchedulerError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        all.find(|kind| kind.name() == name)
            .ok_or_else(|| ParseSchedulerError(name.to_owned()))
    }
}

impl TryFrom<String> for SchedulerKind {
    type Error = ParseSchedulerError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<SchedulerKind> for String {
    fn from(kind: SchedulerKind) -> Self {
        kind.name().to_owned()
    }
}

/// No scheduler has this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseSchedulerError(String);

impl ParseSchedulerError {
    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ParseSchedulerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown scheduler {:?}", self.0)
    }
}

impl std::error::Error for ParseSchedulerError {}

#[derive(Debug)]
struct Nobody;

impl Scheduler for Nobody {
    fn pick(&mut self, _: &Servers, _: &Request) -> Option<usize> {
        None
    }

    fn peek(&mut self, _: &Servers, _: &Request) -> Peek {
        Peek::Known(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_print() {
        for kind in SchedulerKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let error = "foo".parse::<SchedulerKind>().unwrap_err();
        assert_eq!(error.to_string(), "unknown scheduler \"foo\"");
    }
}
