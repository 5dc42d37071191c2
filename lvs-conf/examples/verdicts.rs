//! What the config test of keepalived 2.2.7 would say of each file, one row of tab-separated values a file: name, exit status
//! if all interfaces were present, and the complaints as `kind(argument)@line`.
//!
//! ```text
//! cargo run --release -p lvs-conf --example verdicts -- FILE...
//! ```
//!
//! Complaints about the machine (absent scripts, accounts, name service) are not among them. Included files are read.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use lvs_conf::{Dialect, FileError, Files, Machine, Mtus, Options, SourceMap, load, verdict};

/// Prints a line. A reader that has seen enough, such as `head`, is no failure.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

fn main() -> ExitCode {
    let mut all_read = true;
    for path in std::env::args().skip(1) {
        let name = Path::new(&path).file_name().unwrap_or_default();
        let name = name.to_string_lossy();
        let text = match Disk.read(&path) {
            Ok(text) => text,
            Err(error) => {
                eprintln!("{path}: {error}");
                all_read = false;
                continue;
            }
        };
        let options = Options {
            dialect: Dialect::V2_2_7,
            config_id: "node1".to_owned(),
            machine: Some(Machine {
                accounts: ACCOUNTS.iter().map(|name| (*name).to_owned()).collect(),
                program_directories: PROGRAMS.iter().map(|name| (*name).to_owned()).collect(),
                ..Machine::default()
            }),
            mtus: Mtus::all(1500),
            ..Options::default()
        };
        let mut sources = SourceMap::new();
        let main = sources.add(path.clone(), text);
        let loaded = load(&mut sources, main, &Disk, &options);
        let complaints = verdict::complaints(&sources, &loaded.diagnostics);
        let list: Vec<String> = complaints.iter().map(ToString::to_string).collect();
        let list = if list.is_empty() {
            "-".to_owned()
        } else {
            list.join("; ")
        };
        say!("{name}\t{}\t{list}", loaded.exit_status());
    }
    if all_read {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Those that the machine of the recorded verdicts had, as far as configurations name them.
const ACCOUNTS: &[&str] = &["root", "nobody", "daemon"];

/// Where that machine had programs.
const PROGRAMS: &[&str] = &["/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/"];

struct Disk;

impl Files for Disk {
    fn read(&self, path: &str) -> Result<Vec<u8>, FileError> {
        std::fs::read(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => FileError::NotFound,
            std::io::ErrorKind::IsADirectory => FileError::NotRegular,
            _ => FileError::Unreadable(error.to_string()),
        })
    }

    fn list(&self, directory: &str) -> Vec<String> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }
}
