//! Reading and judging the configuration file.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use lvs_conf::annotate_snippets::Renderer;
use lvs_conf::tree::Statement;
use lvs_conf::{
    Code, Config, Diagnostic, FileError, Loaded, Mtus, Options, Severity, SourceMap, Span, Tree,
};
use lvs_fwd::netlink::Netlink;
use serde::Serialize;
use tracing::{error, info, warn};

use crate::beside::{Beside, FileFault};
use crate::disk::Disk;

mod scripts;

use scripts::{ScriptFinding, script_findings};

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
        Self::read_seeded(path, config_id, RandomState::new().hash_one(0))
    }

    /// The same; files that are read with one seed get the same random parameters.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub fn read_seeded(path: &Path, config_id: Option<&str>, seed: u64) -> Result<Self, ReadError> {
        let name = path.display().to_string();
        let mut sources = SourceMap::new();
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
            random_seed: seed,
            mtus: mtus(),
            ..Options::default()
        };
        let loaded =
            lvs_conf::load_path(&mut sources, &name, &Disk, &options).map_err(|source| {
                ReadError {
                    path: path.to_owned(),
                    source,
                }
            })?;
        Ok(Self { sources, loaded })
    }

    /// What the file asks for, as far as it can be used.
    pub fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// The statements of the file and of those that it includes.
    pub fn tree(&self) -> &Tree {
        &self.loaded.tree
    }

    /// What is wrong, in the order of the text.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.loaded.diagnostics
    }

    /// What keepalived takes as it is and an operator may regret, without what is among the
    /// [diagnostics](Self::diagnostics) already.
    pub fn lints(&self) -> Vec<Diagnostic> {
        let line = |diagnostic: &Diagnostic| {
            let span = diagnostic.span;
            (span.source, self.sources.position(span).line)
        };
        let said: HashSet<_> = self
            .diagnostics()
            .iter()
            .map(|diagnostic| (diagnostic.code, line(diagnostic)))
            .collect();
        let mut lints = lvs_conf::lint(&self.sources, &self.loaded.tree, &self.loaded.config);
        lints.retain(|lint| match lint.code {
            Code::Lint(rule) => {
                let mut other_names = rule.also_found_as().iter();
                !other_names.any(|code| said.contains(&(*code, line(lint))))
            }
            _ => true,
        });
        lints
    }

    /// keepalived's exit status for the text alone.
    pub fn exit_status(&self) -> u8 {
        self.loaded.exit_status()
    }

    /// The text that findings and statements are in.
    pub fn sources(&self) -> &SourceMap {
        &self.sources
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

    /// Logs what was found that another reading of the file did not have, apart from what
    /// [`new_errors`](Self::new_errors) has.
    pub fn log_new_warnings(&self, before: &Self) {
        let known: HashSet<_> = before.loaded.diagnostics.iter().map(fault).collect();
        let all = self.loaded.diagnostics.iter();
        for diagnostic in all.filter(|it| it.severity() == Severity::Warning) {
            if !known.contains(&fault(diagnostic)) {
                warn!("{}", diagnostic.display(&self.sources));
            }
        }
    }

    /// The errors that another reading of the file did not have, wherever they stand. An end inside a block is one of them: the file
    /// may not be written to its end yet.
    pub fn new_errors(&self, before: &Self) -> Vec<String> {
        self.errors_besides(&before.faults())
    }

    /// The errors besides these [faults](Self::faults).
    pub fn errors_besides(&self, known: &[(String, String)]) -> Vec<String> {
        let known: HashSet<(&str, &str)> = known
            .iter()
            .map(|(code, message)| (code.as_str(), message.as_str()))
            .collect();
        self.errors()
            .filter(|diagnostic| !known.contains(&fault(diagnostic)))
            .map(|diagnostic| diagnostic.display(&self.sources).to_string())
            .collect()
    }

    /// Code and message of each error: what makes it the same mistake in another reading.
    pub fn faults(&self) -> Vec<(String, String)> {
        let owned = |(code, message): (&str, &str)| (code.to_owned(), message.to_owned());
        self.errors().map(fault).map(owned).collect()
    }

    fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        let all = self.loaded.diagnostics.iter();
        all.filter(|diagnostic| {
            diagnostic.severity() == Severity::Error || diagnostic.code == Code::UnclosedBlock
        })
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
    show(&file, file.diagnostics(), out)?;
    let missing = missing_interfaces(&file, present_interfaces().as_deref());
    for interface in &missing {
        writeln!(out, "{}\n", interface.text(&file.sources))?;
    }
    let beside = Beside::read(path).err().unwrap_or_default();
    for fault in &beside {
        writeln!(out, "error: {fault}\n")?;
    }
    let scripts = script_findings(&file);
    for script in &scripts {
        writeln!(out, "{}\n", script.text(&file.sources))?;
    }
    let script_errors = scripts.iter().filter(|it| it.is_complaint()).count();
    let script_warnings = scripts.iter().filter(|it| it.is_about_security()).count();
    let others = missing.len() + beside.len();
    let status = status(&file, others, &scripts);
    let count = |severity| {
        let all = file.loaded.diagnostics.iter();
        all.filter(|diagnostic| diagnostic.severity() == severity)
            .count()
    };
    let (errors, warnings) = (
        count(Severity::Error) + others + script_errors,
        count(Severity::Warning) + script_warnings,
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

/// Checks a file for a program: one JSON object a finding, nothing else. Returns what [`check`] returns.
///
/// The members are those of [`Diagnostic::to_json`]. An interface that the host does not have is a finding with the code
/// `interface-missing`, a file that can't be read one with `file-unreadable`; the latter has line and column 0. Scripts that this host does
/// not have, or should not run, have codes that begin with `script-`.
///
/// # Errors
///
/// Nothing can be written.
pub fn check_json(path: &Path, config_id: Option<&str>, out: &mut impl Write) -> io::Result<u8> {
    let file = match ConfigFile::read(path, config_id) {
        Ok(file) => file,
        Err(error) => {
            write_unreadable(&error, out)?;
            return Ok(STATUS_NO_FILE);
        }
    };
    for diagnostic in file.diagnostics() {
        writeln!(out, "{}", diagnostic.to_json(&file.sources))?;
    }
    let missing = missing_interfaces(&file, present_interfaces().as_deref());
    for interface in &missing {
        writeln!(out, "{}", interface.finding(&file.sources).to_json())?;
    }
    let beside = Beside::read(path).err().unwrap_or_default();
    for fault in &beside {
        writeln!(out, "{}", beside_finding(fault).to_json())?;
    }
    let scripts = script_findings(&file);
    for script in &scripts {
        writeln!(out, "{}", script.finding(&file.sources).to_json())?;
    }
    Ok(status(&file, missing.len() + beside.len(), &scripts))
}

/// A fault of a file beside the configuration.
fn beside_finding(fault: &FileFault) -> Finding<'_> {
    let place = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Finding {
        code: "file-beside",
        class: "bad-file-beside",
        file: fault.file().to_str().unwrap_or_default(),
        line: place(fault.fault().line),
        column: place(fault.fault().column),
        end: End {
            line: place(fault.fault().line),
            column: place(fault.fault().column),
        },
        message: fault.fault().message.clone(),
        hint: fault.fault().hint.clone(),
        ..Finding::default()
    }
}

/// Writes findings for a person, each with its lines; in colour on a terminal.
///
/// # Errors
///
/// Nothing can be written.
pub(crate) fn show(
    file: &ConfigFile,
    findings: &[Diagnostic],
    out: &mut (impl Write + IsTerminal),
) -> io::Result<()> {
    let renderer = if out.is_terminal() {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    for diagnostic in findings {
        writeln!(out, "{}\n", diagnostic.render(&file.sources, &renderer))?;
    }
    Ok(())
}

/// A file that can't be read, as a finding for programs.
pub(crate) fn write_unreadable(error: &ReadError, out: &mut impl Write) -> io::Result<()> {
    let finding = Finding {
        code: "file-unreadable",
        class: "file-not-found",
        file: &error.path.display().to_string(),
        line: 0,
        column: 0,
        end: End { line: 0, column: 0 },
        message: crate::logging::chain(error),
        ..Finding::default()
    };
    writeln!(out, "{}", finding.to_json())
}

/// The configuration file can't be read.
#[derive(Debug, thiserror::Error)]
#[error("can't read configuration file {}", path.display())]
pub struct ReadError {
    path: PathBuf,
    source: FileError,
}

/// The status of the text, of complaints about the surroundings, and of scripts.
fn status(file: &ConfigFile, complaints: usize, scripts: &[ScriptFinding]) -> u8 {
    let status = file.loaded.exit_status();
    // keepalived stops at a missing argument, before it looks at interfaces and scripts.
    if status == STATUS_STOPPED {
        return status;
    }
    if scripts.iter().any(ScriptFinding::is_about_security) {
        return status.max(STATUS_SECURITY);
    }
    if complaints > 0 || scripts.iter().any(ScriptFinding::is_complaint) {
        return status.max(STATUS_COMPLAINT);
    }
    status
}

/// The same mistake in two readings, wherever it stands.
fn fault(diagnostic: &Diagnostic) -> (&'static str, &str) {
    (diagnostic.code.as_str(), &diagnostic.message)
}

/// An interface that the file names and this host does not have.
#[derive(Debug)]
struct MissingInterface {
    instance: String,
    interface: String,
    /// Where it is named.
    span: Option<Span>,
}

impl MissingInterface {
    fn message(&self) -> String {
        format!(
            "vrrp_instance {}: interface {} does not exist on this host",
            self.instance, self.interface
        )
    }

    /// Two lines, in the manner of the findings with an excerpt.
    fn text(&self, sources: &SourceMap) -> String {
        let finding = self.finding(sources);
        format!(
            "error: {}\n --> {}:{}:{}",
            finding.message, finding.file, finding.line, finding.column
        )
    }

    fn finding<'a>(&self, sources: &'a SourceMap) -> Finding<'a> {
        let mut finding = Finding {
            code: "interface-missing",
            class: "bad-interface",
            consequence: "refuse",
            message: self.message(),
            ..Finding::default()
        };
        finding.place(sources, self.span);
        finding
    }
}

/// A finding about the surroundings, for programs: the same members as [`Diagnostic::to_json`] writes.
#[derive(Debug, Serialize)]
struct Finding<'a> {
    code: &'static str,
    class: &'static str,
    severity: &'static str,
    consequence: &'static str,
    file: &'a str,
    line: u32,
    column: u32,
    end: End,
    message: String,
    expected: Option<String>,
    hint: Option<String>,
    notes: [(); 0],
}

#[derive(Debug, Serialize)]
struct End {
    line: u32,
    column: u32,
}

impl<'a> Finding<'a> {
    fn place(&mut self, sources: &'a SourceMap, span: Option<Span>) {
        if let Some(span) = span
            && let Some(source) = sources.get(span.source)
        {
            let (start, end) = (source.position(span.start), source.position(span.end));
            self.file = source.name();
            (self.line, self.column) = (start.line, start.column);
            self.end = End {
                line: end.line,
                column: end.column,
            };
        }
    }

    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("there are no maps in it")
    }
}

impl Default for Finding<'_> {
    fn default() -> Self {
        Self {
            code: "",
            class: "",
            severity: "error",
            consequence: "fatal",
            file: "",
            line: 0,
            column: 0,
            end: End { line: 0, column: 0 },
            message: String::new(),
            expected: None,
            hint: None,
            notes: [],
        }
    }
}

fn missing_interfaces(file: &ConfigFile, present: Option<&[String]>) -> Vec<MissingInterface> {
    let config = file.config();
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
        missing.extend(absent.map(|name| MissingInterface {
            instance: instance.name.clone(),
            interface: name.clone(),
            span: place_of(file.tree(), &instance.name, name),
        }));
    }
    missing
}

/// Where an instance names an interface; the instance itself if it got the name from elsewhere.
fn place_of(tree: &Tree, instance: &str, interface: &str) -> Option<Span> {
    let block = tree.statements.iter().find(|statement| {
        statement.spec.name == "vrrp_instance"
            && statement.args.iter().any(|name| name.text == instance)
    })?;
    let words = |statement: &Statement| -> Option<Span> {
        let lines = statement.values().iter().flat_map(|line| &line.words);
        let named = statement
            .args
            .iter()
            .chain(lines)
            .find(|word| word.text == interface)?;
        Some(named.span)
    };
    let naming = [
        "interface",
        "virtual_ipaddress",
        "virtual_ipaddress_excluded",
    ];
    let named = block
        .statements()
        .iter()
        .filter(|statement| naming.contains(&statement.spec.canonical()))
        .find_map(words);
    Some(named.unwrap_or_else(|| block.head()))
}

/// `None` if they can't be asked for; then nothing is said about them.
fn present_interfaces() -> Option<Vec<String>> {
    let links = Netlink::open()
        .and_then(|mut netlink| netlink.links())
        .ok()?;
    Some(links.into_iter().map(|link| link.name).collect())
}

/// How long packets may be on the interfaces of this host.
fn mtus() -> Mtus {
    let links = Netlink::open().and_then(|mut netlink| netlink.links());
    links
        .into_iter()
        .flatten()
        .fold(Mtus::default(), |mtus, link| mtus.with(link.name, link.mtu))
}

/// keepalived's status where reading stops at once.
const STATUS_STOPPED: u8 = 2;

/// keepalived's status for a complaint.
const STATUS_COMPLAINT: u8 = 5;

/// Of scripts that run without `enable_script_security`.
const STATUS_SECURITY: u8 = 6;

/// keepalived's status for a file that can't be read.
pub(crate) const STATUS_NO_FILE: u8 = 4;
