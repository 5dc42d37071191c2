//! What virtual routers watch besides interfaces: scripts, files, processes, BFD sessions.

pub(super) mod bfd;
pub(super) mod files;
pub(super) mod processes;
mod thread;

pub(super) use thread::Watcher;

use std::collections::BTreeMap;
use std::sync::Arc;

use lvs_conf::model::{BfdInstance, TrackFile, TrackProcess};

use crate::notify::scripts::Command;

/// What has to be run, read and counted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Watched {
    /// Check scripts that may be run.
    pub scripts: BTreeMap<Arc<str>, Command>,
    /// Files with a number.
    pub files: Vec<TrackFile>,
    /// Processes to count.
    pub processes: Vec<TrackProcess>,
    /// BFD sessions.
    pub bfd: Vec<BfdInstance>,
}
