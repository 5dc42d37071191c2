//! The configuration of a whole VRRP router.

use crate::announce::Pacing;
use crate::config::{Config, ConfigError, InterfaceName};
use crate::script::ScriptConfig;
use crate::track::{Delays, Tracked, TrackedObject};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Everything that an operator says about VRRP on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Setup {
    /// The virtual routers, in the order of the configuration.
    pub virtual_routers: Vec<Member>,
    /// The sync groups.
    pub groups: Vec<GroupConfig>,
    /// The check scripts.
    pub scripts: Vec<ScriptConfig>,
    /// The processes that are counted.
    pub processes: Vec<ProcessConfig>,
    /// How long changes of an interface must last.
    pub interface_delays: BTreeMap<InterfaceName, Delays>,
    /// Gaps between announcements.
    pub pacing: Pacing,
    /// The same for interfaces with their own.
    pub interface_pacing: BTreeMap<InterfaceName, Pacing>,
}

/// A virtual router under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: Arc<str>,
    /// What it is.
    pub config: Config,
    /// What it watches. Interfaces of its addresses, routes and rules that must be up belong here too.
    pub track: Vec<Tracked>,
    /// Its own interface must be up. Default: yes.
    pub track_own_interface: bool,
    /// Something about it cannot work here, found out by the shell: it stays in Fault.
    pub fault: Option<Arc<str>>,
}

impl Member {
    /// A virtual router that watches its own interface only.
    #[must_use]
    pub fn new(name: &str, config: Config) -> Self {
        Self {
            name: name.into(),
            config,
            track: Vec::new(),
            track_own_interface: true,
            fault: None,
        }
    }
}

/// Virtual routers that change their state together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// Its name.
    pub name: Arc<str>,
    /// Names of its members.
    pub members: Vec<Arc<str>>,
    /// What all members watch.
    pub track: Vec<Tracked>,
    /// What members watch by themselves keeps its weight. Without it weights become faults or nothing, for a group whose members
    /// have different priorities may never agree.
    pub member_weights: bool,
}

/// Processes that are counted (keepalived's `vrrp_track_process`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessConfig {
    /// Name.
    pub name: Arc<str>,
    /// There must be so many.
    pub quorum: u32,
    /// There may be so many; `None`: any number.
    pub quorum_max: Option<u32>,
    /// How long enough or too few must last.
    pub delays: Delays,
}

/// Why a setup is refused. The operator's to repair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// A virtual router cannot be as it is described.
    #[error("{name}: {error}")]
    Member {
        /// Its name.
        name: Arc<str>,
        /// Why.
        #[source]
        error: ConfigError,
    },
    /// Two of a kind have this name.
    #[error("the name {0} is used twice")]
    Name(Arc<str>),
    /// A group names a router that is not there.
    #[error("{group}: there is no virtual router {member}")]
    UnknownMember {
        /// The group.
        group: Arc<str>,
        /// The missing name.
        member: Arc<str>,
    },
    /// A router is in two groups.
    #[error("{0} is in two sync groups")]
    TwoGroups(Arc<str>),
    /// A script or a process that is not described.
    #[error("there is no {0}")]
    UnknownObject(TrackedObject),
}

impl Setup {
    /// Is the whole consistent?
    ///
    /// # Errors
    /// The first thing that is not.
    pub fn check(&self) -> Result<(), SetupError> {
        let mut names = BTreeSet::new();
        for member in &self.virtual_routers {
            member.config.check().map_err(|error| SetupError::Member {
                name: member.name.clone(),
                error,
            })?;
            once(&mut names, &member.name)?;
        }
        let mut grouped = BTreeSet::new();
        let mut groups = BTreeSet::new();
        for group in &self.groups {
            once(&mut groups, &group.name)?;
            for member in &group.members {
                if !names.contains(member) {
                    return Err(SetupError::UnknownMember {
                        group: group.name.clone(),
                        member: member.clone(),
                    });
                }
                if !grouped.insert(member.clone()) {
                    return Err(SetupError::TwoGroups(member.clone()));
                }
            }
        }
        let mut scripts = BTreeSet::new();
        for script in &self.scripts {
            once(&mut scripts, &script.name)?;
        }
        let mut processes = BTreeSet::new();
        for process in &self.processes {
            once(&mut processes, &process.name)?;
        }
        let members = self.virtual_routers.iter().map(|member| &member.track);
        let groups = self.groups.iter().map(|group| &group.track);
        for tracked in members.chain(groups).flatten() {
            let known = match &tracked.object {
                TrackedObject::Script(name) => scripts.contains(name),
                TrackedObject::Process(name) => processes.contains(name),
                _ => true,
            };
            if !known {
                return Err(SetupError::UnknownObject(tracked.object.clone()));
            }
        }
        Ok(())
    }

    /// The group of a virtual router.
    pub(super) fn group_of(&self, name: &str) -> Option<&GroupConfig> {
        let mut groups = self.groups.iter();
        groups.find(|group| group.members.iter().any(|member| &**member == name))
    }

    /// What a virtual router watches in the end: its own list and its group's, with the weights that make sense there.
    pub(super) fn tracked_by(&self, member: &Member) -> Vec<Tracked> {
        let group = self.group_of(&member.name);
        let own = TrackedObject::Interface(member.config.interface.clone());
        let mut list = Vec::new();
        if member.track_own_interface {
            list.push(Tracked::fault(own.clone()));
        }
        if let Some(group) = group {
            let owner = group.members.iter().any(|name| {
                let mut members = self.virtual_routers.iter();
                members.any(|other| other.name == *name && other.config.priority.is_owner())
            });
            for tracked in &group.track {
                let weight = if owner { 0 } else { tracked.weight };
                let tracked = Tracked {
                    weight,
                    ..tracked.clone()
                };
                add(&mut list, tracked);
            }
        }
        let weightless = group.is_some_and(|group| !group.member_weights);
        let owner = member.config.priority.is_owner();
        for tracked in &member.track {
            let kept = match &tracked.object {
                // Its own interface is watched by another rule.
                object if *object == own => None,
                _ if tracked.weight == 0 || !(weightless || owner) => Some(tracked.clone()),
                TrackedObject::Interface(_) if weightless => Some(Tracked {
                    weight: 0,
                    ..tracked.clone()
                }),
                TrackedObject::File(_) if tracked.weight == 1 => Some(Tracked {
                    weight: 0,
                    ..tracked.clone()
                }),
                TrackedObject::Process(_) => Some(tracked.clone()),
                _ => None,
            };
            if let Some(tracked) = kept {
                add(&mut list, tracked);
            }
        }
        list
    }
}

/// The first word about an object counts.
fn add(list: &mut Vec<Tracked>, tracked: Tracked) {
    if !list.iter().any(|other| other.object == tracked.object) {
        list.push(tracked);
    }
}

fn once(names: &mut BTreeSet<Arc<str>>, name: &Arc<str>) -> Result<(), SetupError> {
    if names.insert(name.clone()) {
        Ok(())
    } else {
        Err(SetupError::Name(name.clone()))
    }
}
