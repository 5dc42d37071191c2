//! The files of a configuration, and the name of this host.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;

use lvs_conf::{FileError, Files};

/// The file system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disk;

impl Files for Disk {
    fn read(&self, path: &str) -> Result<Vec<u8>, FileError> {
        let file = fs::File::open(path).map_err(reason)?;
        let about = file.metadata().map_err(reason)?;
        if !about.is_file() {
            return Err(FileError::NotRegular);
        }
        if about.permissions().mode() & EXECUTE != 0 {
            return Err(FileError::Executable);
        }
        let mut text = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut text).map_err(reason)?;
        Ok(text)
    }

    fn list(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }
}

/// The name of this host up to the first dot; empty where it can't be told.
pub(crate) fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim_end().split('.').next();
    name.unwrap_or_default().to_owned()
}

fn reason(error: io::Error) -> FileError {
    match error.kind() {
        io::ErrorKind::NotFound => FileError::NotFound,
        io::ErrorKind::IsADirectory => FileError::NotRegular,
        _ => FileError::Unreadable(error.to_string()),
    }
}

const EXECUTE: u32 = 0o111;

const MAX_FILE: u64 = 64 << 20;
