//! Reading and judging the configuration file.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use lvs_conf::annotate_snippets::Renderer;
use lvs_conf::{Config, Diagnostic, FileError, Files, Loaded, Options, Severity, SourceMap};
use lvs_fwd::netlink::Netlink;
use tracing::{error, info, warn};

use crate::disk::Disk;

/// A configuration file as read.
#[derive(Debug)]
pub struct ConfigFile {
    sources: SourceMap,
    loaded: Loaded,
}

impl ConfigFile {
    /// Reads the file and those that it includes. Without a configuration id the host's name is taken.
    ///
    /// # Errors
    ///
    /// It can't be read, or is no regular file. What is wrong inside is no error here.
    pub fn read(path: &Path, config_id: Option<&str>) -> Result<Self, ReadError> {
        let name = path.display().to_string();
        let text = Disk.read(&name).map_err(|source| ReadError {
            path: path.to_owned(),
            source,
        })?;
        let mut sources = SourceMap::new();
        let main = sources.add(name, text);
        let options = Options {
            config_id: config_id.map_or_else(crate::disk::host_name, str::to_owned),
            directory: std::env::current_dir()
                .map(|directory| directory.display().to_string())
                .unwrap_or_default(),
            environment: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            random_seed: RandomState::new().hash_one(0),
            ..Options::default()
        };
        let loaded = lvs_conf::load(&mut sources, main, &Disk, &options);
        Ok(Self { sources, loaded })
    }

    /// What the file asks for, as far as it can be used.
    pub fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// Whether keepalived would run with it.
    pub fn is_usable(&self) -> bool {
        self.loaded.is_usable()
    }

    /// Logs what was found, each in one line.
    pub fn log_diagnostics(&self) {
        for diagnostic in &self.loaded.diagnostics {
            let line = diagnostic.display(&self.sources);
            match diagnostic.severity() {
                Severity::Error => error!("{line}"),
                Severity::Warning => warn!("{line}"),
                Severity::Info => info!("{line}"),
            }
        }
    }

    /// The errors that another reading of the file did not have, wherever they stand.
    pub fn new_errors(&self, before: &Self) -> Vec<String> {
        let known: Vec<_> = before.errors().map(fault).collect();
        self.errors()
            .filter(|diagnostic| !known.contains(&fault(diagnostic)))
            .map(|diagnostic| diagnostic.display(&self.sources).to_string())
            .collect()
    }

    fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        let all = self.loaded.diagnostics.iter();
        all.filter(|diagnostic| diagnostic.severity() == Severity::Error)
    }
}

/// Checks a file for a person: everything that is wrong, with the lines that it stands on. Returns the exit status that
/// keepalived's config test has.
///
/// # Errors
///
/// Nothing can be written.
pub fn check(
    path: &Path,
    config_id: Option<&str>,
    out: &mut (impl Write + IsTerminal),
) -> io::Result<u8> {
    let file = match ConfigFile::read(path, config_id) {
        Ok(file) => file,
        Err(error) => {
            writeln!(out, "{}", crate::logging::chain(&error))?;
            return Ok(STATUS_NO_FILE);
        }
    };
    let renderer = if out.is_terminal() {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    for diagnostic in &file.loaded.diagnostics {
        writeln!(out, "{}\n", diagnostic.render(&file.sources, &renderer))?;
    }
    let missing = missing_interfaces(file.config(), present_interfaces().as_deref());
    for interface in &missing {
        writeln!(out, "error: {interface}")?;
    }
    let status = status(&file, &missing);
    let count = |severity| {
        let all = file.loaded.diagnostics.iter();
        all.filter(|diagnostic| diagnostic.severity() == severity)
            .count()
    };
    let (errors, warnings) = (
        count(Severity::Error) + missing.len(),
        count(Severity::Warning),
    );
    if status == 0 {
        writeln!(out, "{}: ok", path.display())?;
    } else {
        writeln!(
            out,
            "{}: {errors} errors, {warnings} warnings",
            path.display()
        )?;
    }
    Ok(status)
}

/// Checks a file for a program: one JSON object a finding, nothing else. Returns what [`check`] returns; interfaces that the
/// host does not have count, but are no findings.
///
/// # Errors
///
/// Nothing can be written.
pub fn check_json(path: &Path, config_id: Option<&str>, out: &mut impl Write) -> io::Result<u8> {
    let Ok(file) = ConfigFile::read(path, config_id) else {
        return Ok(STATUS_NO_FILE);
    };
    for diagnostic in &file.loaded.diagnostics {
        writeln!(out, "{}", diagnostic.to_json(&file.sources))?;
    }
    let missing = missing_interfaces(file.config(), present_interfaces().as_deref());
    Ok(status(&file, &missing))
}

/// The configuration file can't be read.
#[derive(Debug, thiserror::Error)]
#[error("can't read configuration file {}", path.display())]
pub struct ReadError {
    path: PathBuf,
    source: FileError,
}

/// The status of the text, and of interfaces that are missing.
fn status(file: &ConfigFile, missing: &[String]) -> u8 {
    let status = file.loaded.exit_status();
    // keepalived stops at a missing argument, before it looks at interfaces.
    if missing.is_empty() || status == STATUS_STOPPED {
        status
    } else {
        status.max(STATUS_COMPLAINT)
    }
}

/// The same mistake in two readings, wherever it stands.
fn fault(diagnostic: &Diagnostic) -> (&'static str, &str) {
    (diagnostic.code.as_str(), &diagnostic.message)
}

/// Interfaces that the file names and this host does not have, in words.
fn missing_interfaces(config: &Config, present: Option<&[String]>) -> Vec<String> {
    let Some(present) = present.filter(|_| !config.global.dynamic_interfaces) else {
        return Vec::new();
    };
    let mut missing = Vec::new();
    for instance in &config.instances {
        let addresses = instance
            .virtual_addresses
            .iter()
            .chain(&instance.excluded_addresses);
        let named = addresses.filter_map(|address| address.interface.as_ref());
        let mut names: Vec<&String> = instance.interface.iter().chain(named).collect();
        names.sort_unstable();
        names.dedup();
        let absent = names.into_iter().filter(|name| !present.contains(name));
        missing.extend(absent.map(|name| {
            format!(
                "vrrp_instance {}: interface {name} does not exist on this host",
                instance.name
            )
        }));
    }
    missing
}

/// `None` if they can't be asked for; then nothing is said about them.
fn present_interfaces() -> Option<Vec<String>> {
    let links = Netlink::open()
        .and_then(|mut netlink| netlink.links())
        .ok()?;
    Some(links.into_iter().map(|link| link.name).collect())
}

/// keepalived's status where reading stops at once.
const STATUS_STOPPED: u8 = 2;

/// keepalived's status for a complaint.
const STATUS_COMPLAINT: u8 = 5;

/// keepalived's status for a file that can't be read.
const STATUS_NO_FILE: u8 = 4;
