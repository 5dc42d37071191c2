//! `director fmt`: the canonical layout of a file, comments kept.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use lvs_conf::{Files, SourceMap};

use super::STATUS_TROUBLE;
use crate::disk::Disk;
use crate::logging::chain;

/// What becomes of the canonical layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is written to standard output.
    Print,
    /// It takes the file's place.
    Write,
    /// It is compared with the file.
    Check,
}

/// Lays out a file, but not the files that it includes. Returns the exit status: 1 if `mode` is [`Mode::Check`] and the
/// file, which is named then, differs; 2 if something can't be read or written; else 0.
///
/// # Errors
///
/// Nothing can be written to `out` or `errors`.
pub fn run(
    path: &Path,
    mode: Mode,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> io::Result<u8> {
    let name = path.display().to_string();
    let text = match Disk.read(&name) {
        Ok(text) => text,
        Err(error) => {
            writeln!(errors, "{name}: {}", chain(&error))?;
            return Ok(STATUS_TROUBLE);
        }
    };
    let mut sources = SourceMap::new();
    let id = sources.add(name.as_str(), text.clone());
    let canonical = lvs_conf::format_bytes(&sources, id);
    match mode {
        Mode::Print => out.write_all(&canonical)?,
        Mode::Check if canonical != text => {
            writeln!(out, "{name}")?;
            return Ok(1);
        }
        Mode::Write if canonical != text => {
            if let Err(error) = replace(path, &canonical) {
                writeln!(errors, "{name}: {error}")?;
                return Ok(STATUS_TROUBLE);
            }
        }
        Mode::Check | Mode::Write => {}
    }
    Ok(0)
}

/// Puts a new file in the place of one: whoever reads it meanwhile, or after a crash, finds the old text or the new one.
/// Mode and owner stay; of a symbolic link the file that it leads to is replaced.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let about = fs::metadata(&path)?;
    let (temporary, mut file) = create_beside(&path)?;
    let written = (|| {
        let owner = file.metadata()?;
        if (owner.uid(), owner.gid()) != (about.uid(), about.gid()) {
            fchown(&file, Some(about.uid()), Some(about.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(about.mode() & MODE_BITS))?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    })();
    if written.is_err() {
        // The failure is told; what is left of the attempt can only be removed.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A new file in the same directory, which a rename can move into the place.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let mut number = 0;
    loop {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.{number}.new", std::process::id()));
        let temporary = path.with_file_name(name);
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(OWNER_ONLY)
            .open(&temporary);
        match created {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < ATTEMPTS => {
                number += 1;
            }
            created => return Ok((temporary, created?)),
        }
    }
}

const MODE_BITS: u32 = 0o7777;

const OWNER_ONLY: u32 = 0o600;

const ATTEMPTS: u32 = 100;
