//! Kernel settings that were changed, and what they were: on disk, so that a successor can give back what a killed process
//! could not.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::settings;

/// What was changed, in order.
#[derive(Debug)]
pub(super) struct Journal {
    /// `None`: nowhere to write it.
    file: Option<PathBuf>,
    changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    name: String,
    /// What it was.
    was: u32,
    /// What it was set to; what somebody else has changed since is left alone.
    set: u32,
}

impl Journal {
    /// The journal of the calling thread's network namespace, with what the last process left in it.
    pub(super) fn open(directory: &Path) -> Self {
        let file = Self::file(directory);
        if let Err(error) = &file {
            warn!(
                "{}: {error}: after a kill the settings stay as they are",
                directory.display()
            );
        }
        let file = file.ok();
        let changes = file
            .as_ref()
            .and_then(|file| fs::read(file).ok())
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        Self { file, changes }
    }

    /// Namespaces are told apart by their inode.
    fn file(directory: &Path) -> io::Result<PathBuf> {
        fs::create_dir_all(directory)?;
        let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
        let file = directory.join(format!("realserver-{namespace}.json"));
        // Somebody who may read only is told now.
        fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&file)?;
        Ok(file)
    }

    /// Changes a setting, its old value written down first.
    pub(super) fn set(&mut self, name: &str, value: u32) -> io::Result<()> {
        let was = settings::read(name).ok_or(io::ErrorKind::NotFound)?;
        self.changes.push(Change {
            name: name.to_owned(),
            was,
            set: value,
        });
        self.save()?;
        settings::write(name, value)
    }

    /// Gives everything back, the last change first. Returns how many settings that were.
    pub(super) fn restore(&mut self) -> usize {
        let mut count = 0;
        while let Some(Change { name, was, set }) = self.changes.pop() {
            if settings::read(&name) != Some(set) {
                continue;
            }
            match settings::write(&name, was) {
                Ok(()) => count += 1,
                Err(error) => warn!("/proc/sys/{name} stays {set}, it was {was}: {error}"),
            }
        }
        if let Some(file) = &self.file {
            let _ = fs::remove_file(file);
        }
        count
    }

    fn save(&self) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        // Whole or not at all, whenever the process ends.
        let new = file.with_extension("new");
        let mut writer = fs::File::create(&new)?;
        writer.write_all(&serde_json::to_vec(&self.changes).map_err(io::Error::other)?)?;
        writer.sync_all()?;
        fs::rename(&new, file)
    }
}
