//! The files that keepalived writes for SIGUSR1 (`keepalived.data`) and SIGUSR2 (`keepalived.stats`).

use std::fmt::Write as _;

use lvs_vrrp::VirtualAddress;
use tracing::{info, warn};

use super::Status;
use crate::logging::chain;
use crate::whole_file;

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
    match whole_file::write(&path, &text) {
        Ok(()) => info!("{} written", path.display()),
        Err(error) => warn!("{} can't be written: {}", path.display(), chain(&error)),
    }
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
