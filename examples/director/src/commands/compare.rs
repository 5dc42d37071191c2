//! `director plan`: what a reload would change, without changing it.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use lvs_conf::diff::{Change, Edit, diff};
use lvs_conf::{Config, NoFiles, Options, SourceMap};
use serde::Serialize;

use super::STATUS_TROUBLE;
use crate::beside::Beside;
use crate::claims;
use crate::config::ConfigFile;
use crate::control::ask;
use crate::control::configuration::{self, RunningConfig};
use crate::control::protocol::SocketAddress;
use crate::logging::chain;
use crate::plan::Plan;

/// What a file is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Old {
    /// Another file.
    File(PathBuf),
    /// The configuration of the director that runs in this network namespace.
    Running,
}

/// Writes the changes from the old configuration to the new one, a line each or as one JSON object, in the order of a reload.
/// Returns the exit status: 0 without changes, 1 with changes, 2 if they can't be told or a reload would refuse the new file.
///
/// # Errors
///
/// Nothing can be written to `out` or `errors`.
pub fn run(
    old: &Old,
    new: &Path,
    config_id: Option<&str>,
    json: bool,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> io::Result<u8> {
    let found = changes(old, new, config_id);
    if json {
        let shown = match &found {
            Ok(changes) => Shown {
                changes: changes.iter().map(ShownChange::new).collect(),
                remarks: remarks(new, config_id),
                refusal: &[],
            },
            Err(lines) => Shown {
                refusal: lines,
                ..Shown::default()
            },
        };
        let text = serde_json::to_string(&shown).map_err(io::Error::other)?;
        writeln!(out, "{text}")?;
        return Ok(found.map_or(STATUS_TROUBLE, |changes| u8::from(!changes.is_empty())));
    }
    match found {
        Ok(changes) => {
            for change in &changes {
                writeln!(out, "{change}")?;
            }
            for remark in remarks(new, config_id) {
                writeln!(errors, "{remark}")?;
            }
            Ok(u8::from(!changes.is_empty()))
        }
        Err(lines) => {
            for line in lines {
                writeln!(errors, "{line}")?;
            }
            Ok(STATUS_TROUBLE)
        }
    }
}

/// All of it, for programs.
#[derive(Debug, Default, Serialize)]
struct Shown<'a> {
    changes: Vec<ShownChange>,
    remarks: Vec<String>,
    /// Why there are no changes to tell, in lines.
    refusal: &'a [String],
}

#[derive(Debug, Serialize)]
struct ShownChange {
    edit: &'static str,
    object: String,
    needs_restart: bool,
}

impl ShownChange {
    fn new(change: &Change) -> Self {
        Self {
            edit: match change.edit {
                Edit::Remove => "remove",
                Edit::Change => "change",
                Edit::Add => "add",
            },
            object: change.object.to_string(),
            needs_restart: change.needs_restart(),
        }
    }
}

/// What a reload would warn of: services of marks that no rule beside the new file gives packets.
fn remarks(new: &Path, config_id: Option<&str>) -> Vec<String> {
    let (Ok(file), Ok(beside)) = (ConfigFile::read(new, config_id), Beside::read(new)) else {
        return Vec::new();
    };
    let plan = Plan::new(file.config());
    let keys = plan.services.iter().map(|service| &service.key);
    let unmarked = claims::without_rule(keys, &beside.marks);
    unmarked.iter().map(claims::remark_without_rule).collect()
}

/// The changes, or in lines why there are none to tell.
fn changes(old: &Old, new: &Path, config_id: Option<&str>) -> Result<Vec<Change>, Vec<String>> {
    // Random parameters are no change.
    let seed = RandomState::new().hash_one(0);
    let read = |path: &Path| {
        ConfigFile::read_seeded(path, config_id, seed).map_err(|error| vec![chain(&error)])
    };
    let new_file = read(new)?;
    if let Err(faults) = Beside::read(new) {
        let refusal = format!("{}: a reload would refuse this file", new.display());
        let faults = faults.iter().map(ToString::to_string);
        return Err(faults.chain([refusal]).collect());
    }
    let (old_config, new_errors) = match old {
        Old::File(path) => {
            let old_file = read(path)?;
            if !old_file.is_usable() {
                return Err(vec![format!(
                    "{}: no director runs with this file, see `director -t`",
                    path.display()
                )]);
            }
            let new_errors = new_file.new_errors(&old_file);
            (old_file.config().clone(), new_errors)
        }
        Old::Running => {
            let running: RunningConfig =
                ask(&SocketAddress::from_env(), configuration::OPERATION, &())
                    .map_err(|error| vec![chain(&error)])?;
            let new_errors = new_file.errors_besides(&running.errors);
            (parse(&running), new_errors)
        }
    };
    if !new_errors.is_empty() || !new_file.is_usable() {
        let refusal = format!(
            "{}: a reload would refuse this file: it has {} new errors",
            new.display(),
            new_errors.len()
        );
        return Err(new_errors.into_iter().chain([refusal]).collect());
    }
    Ok(diff(&old_config, new_file.config()))
}

/// The model of a text that was printed from a model: it holds whole what it says.
fn parse(running: &RunningConfig) -> Config {
    let mut sources = SourceMap::new();
    let main = sources.add("running configuration", running.text.as_str());
    lvs_conf::load(&mut sources, main, &NoFiles, &Options::default()).config
}
