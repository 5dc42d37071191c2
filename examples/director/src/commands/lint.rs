//! `director lint`: what keepalived takes as it is and an operator may regret.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use crate::config::{self, ConfigFile};

/// Writes what is wrong with a file, then what may be regretted. Returns the exit status: keepalived's for the file if
/// that is not 0, else 1 if there is anything to regret, else 0. Whether this host has what the file names plays no part.
///
/// With `json` each finding is one JSON object in a line, and nothing else is written.
///
/// # Errors
///
/// Nothing can be written.
pub fn run(
    path: &Path,
    config_id: Option<&str>,
    json: bool,
    out: &mut (impl Write + IsTerminal),
) -> io::Result<u8> {
    let file = match ConfigFile::read(path, config_id) {
        Ok(file) => file,
        Err(error) => {
            if json {
                config::write_unreadable(&error, out)?;
            } else {
                writeln!(out, "{}", crate::logging::chain(&error))?;
            }
            return Ok(config::STATUS_NO_FILE);
        }
    };
    let lints = file.lints();
    let status = match file.exit_status() {
        0 => u8::from(!lints.is_empty()),
        status => status,
    };
    if json {
        for finding in file.diagnostics().iter().chain(&lints) {
            writeln!(out, "{}", finding.to_json(file.sources()))?;
        }
        return Ok(status);
    }
    config::show(&file, file.diagnostics(), out)?;
    config::show(&file, &lints, out)?;
    let path = path.display();
    let lints = match lints.len() {
        1 => "1 lint".to_owned(),
        count => format!("{count} lints"),
    };
    match (file.exit_status(), status) {
        (0, 0) => writeln!(out, "{path}: ok")?,
        (0, _) => writeln!(out, "{path}: {lints}")?,
        _ => writeln!(out, "{path}: keepalived complains about it; {lints}")?,
    }
    Ok(status)
}
