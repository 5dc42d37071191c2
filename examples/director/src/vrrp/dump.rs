//! The files that keepalived writes for SIGUSR1 (`keepalived.data`) and SIGUSR2 (`keepalived.stats`).

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lvs_vrrp::VirtualAddress;
use tracing::{info, warn};

use super::Status;
use crate::logging::chain;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dump {
    /// How everything stands.
    Data,
    /// Counters.
    Statistics,
}

/// Writes a file into the directory for temporary files, and says where.
pub fn write(dump: Dump, all: &[Status]) {
    let (name, text) = match dump {
        Dump::Data => ("keepalived.data", data(all)),
        Dump::Statistics => ("keepalived.stats", statistics(all)),
    };
    let path = std::env::temp_dir().join(name);
    match replace(&path, &text) {
        Ok(()) => info!("{} written", path.display()),
        Err(error) => warn!("{} can't be written: {}", path.display(), chain(&error)),
    }
}

/// Beside, then in its place: nobody who made a link there in time has anything of it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = PathBuf::from(format!("{}.{}", path.display(), std::process::id()));
    // A file of this name was left by a process that had this number; another's cannot be opened anew.
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&beside)?;
    let written = file.write_all(text.as_bytes());
    let outcome = written.and_then(|()| fs::rename(&beside, path));
    if outcome.is_err() {
        let _ = fs::remove_file(&beside);
    }
    outcome
}

fn statistics(all: &[Status]) -> String {
    let mut text = String::new();
    for status in all {
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "VRRP Instance: {}\n{}",
            status.name, status.statistics
        );
    }
    text
}

fn data(all: &[Status]) -> String {
    let mut text = String::from("------< VRRP Topology >------\n");
    for status in all {
        let _ = describe(&mut text, status);
    }
    text
}

fn describe(text: &mut String, status: &Status) -> std::fmt::Result {
    let config = &status.config;
    writeln!(text, " VRRP Instance = {}", status.name)?;
    writeln!(text, "   VRRP Version = {}", config.version.number())?;
    writeln!(text, "   State = {}", status.state.keepalived_word())?;
    writeln!(text, "   Reason = {}", status.reason)?;
    writeln!(
        text,
        "   In this state for = {:.3} s",
        status.since.as_secs_f64()
    )?;
    if let Some((peer, heard)) = status.active_router {
        writeln!(text, "   Master router = {}", peer.address)?;
        writeln!(text, "   Master priority = {}", peer.priority)?;
        writeln!(text, "   Master heard = {:.3} s ago", heard.as_secs_f64())?;
    }
    writeln!(text, "   Interface = {}", config.interface)?;
    if let Some(source) = status.source {
        writeln!(text, "   Using src_ip = {source}")?;
    }
    writeln!(text, "   Virtual Router ID = {}", config.vrid.get())?;
    writeln!(text, "   Priority = {}", config.priority.get())?;
    writeln!(text, "   Effective priority = {}", status.priority)?;
    let interval = config.interval.duration().as_secs_f64();
    writeln!(text, "   Advert interval = {interval} sec")?;
    for fault in &status.faults {
        writeln!(text, "   Fault = {fault}")?;
    }
    if let Some(group) = &status.group {
        writeln!(text, "   Sync group = {group}")?;
    }
    let mut list = |title: &str, addresses: &[VirtualAddress]| {
        if !addresses.is_empty() {
            writeln!(text, "   {title} ({}):", addresses.len())?;
        }
        addresses
            .iter()
            .try_for_each(|each| writeln!(text, "     {} dev {}", each.address, each.interface))
    };
    list("Virtual IP", &config.addresses)?;
    list("Virtual IP Excluded", &config.excluded)
}
