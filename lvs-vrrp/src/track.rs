//! Tracked objects.
use crate::config::InterfaceName;
use std::fmt;
use std::sync::Arc;

/// Something that is watched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TrackedObject {
    /// A network interface: up and running.
    Interface(InterfaceName),
    /// A script that exits with 0 now and again.
    Script(Arc<str>),
    /// A file with a number in it.
    File(Arc<str>),
    /// Processes.
    Process(Arc<str>),
    /// A BFD session.
    Bfd(Arc<str>),
    /// The other members of the sync group, while they wait for something.
    Group,
}

impl fmt::Display for TrackedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::Script(name) => write!(f, "script {name}"),
            Self::File(name) => write!(f, "file {name}"),
            Self::Process(name) => write!(f, "process {name}"),
            Self::Bfd(name) => write!(f, "BFD session {name}"),
            Self::Group => f.write_str("the sync group"),
        }
    }
}

/// Is it as it should be?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// It has not reported yet.
    Unknown,
    /// No.
    Failed,
    /// Yes.
    Good,
}
