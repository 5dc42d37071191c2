//! Files whose numbers say how servers are (`track_file`): read when somebody writes, moves or removes them.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use lvs_conf::model::TrackFile;
use lvs_health::FileCheck;
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use crate::sys::watch;

/// The watched files and their values.
#[derive(Debug)]
pub struct Files {
    /// `None`: the system has no watch to give, files are read once.
    inotify: Option<AsyncFd<OwnedFd>>,
    /// Directories, because files come and go.
    directories: HashMap<i32, PathBuf>,
    values: BTreeMap<PathBuf, i64>,
}

impl Files {
    /// None yet. To be called within a runtime.
    pub fn open() -> Self {
        use inotify::CreateFlags;
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(io::Error::from)
            .and_then(|inotify| {
                use std::os::fd::AsFd;
                watch(inotify.as_fd())
            });
        let inotify = inotify
            .inspect_err(|error| warn!("files can't be watched: {error}"))
            .ok();
        Self {
            inotify,
            directories: HashMap::new(),
            values: BTreeMap::new(),
        }
    }

    /// Watches these files, and no others. Files that are to be made are made; `is_start`: also those that are to be
    /// written anew.
    pub fn set(&mut self, files: &[TrackFile], is_start: bool) {
        let known = std::mem::take(&mut self.values);
        for file in files {
            let path = PathBuf::from(&file.path);
            if let Some(init) = file.init
                && (!path.exists() || (init.overwrite && is_start))
                && let Err(error) = create(&path, init.value)
            {
                warn!("track_file {}: {}: {error}", file.name, path.display());
            }
            self.watch_directory(&path);
            let value = read(&path).or_else(|| known.get(&path).copied());
            self.values.insert(path, value.unwrap_or(0));
        }
    }

    /// The value of a file that is watched; 0 for others.
    pub fn value(&self, path: &str) -> i64 {
        self.values.get(Path::new(path)).copied().unwrap_or(0)
    }

    /// Waits until something may have changed.
    pub async fn changed(&self) {
        let Some(inotify) = &self.inotify else {
            return std::future::pending().await;
        };
        match inotify.readable().await {
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Reads what has changed; the paths whose values are others now.
    pub fn handle_change(&mut self) -> Vec<PathBuf> {
        let mut touched: Vec<(PathBuf, bool)> = Vec::new();
        if let Some(inotify) = &self.inotify {
            let mut space = [MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(inotify.get_ref(), &mut space);
            loop {
                match reader.next() {
                    Ok(event) => {
                        let Some(directory) = self.directories.get(&event.wd()) else {
                            continue;
                        };
                        let Some(name) = event.file_name() else {
                            continue;
                        };
                        use std::os::unix::ffi::OsStringExt;
                        let name = OsString::from_vec(name.to_bytes().to_vec());
                        let gone = ReadFlags::DELETE | ReadFlags::MOVED_FROM;
                        touched.push((directory.join(name), event.events().intersects(gone)));
                    }
                    Err(Errno::INTR) => {}
                    Err(_) => break,
                }
            }
        }
        let mut changed = Vec::new();
        for (path, is_gone) in touched {
            let Some(value) = self.values.get_mut(&path) else {
                continue;
            };
            let new = if is_gone { Some(0) } else { read(&path) };
            match new {
                Some(new) if new != *value => {
                    *value = new;
                    changed.push(path);
                }
                Some(_) => {}
                None => warn!(
                    "{}: the number is out of range, {value} stays",
                    path.display()
                ),
            }
        }
        changed
    }

    fn watch_directory(&mut self, path: &Path) {
        let directory = path.parent().unwrap_or_else(|| Path::new("/"));
        if self.directories.values().any(|known| known == directory) {
            return;
        }
        let Some(inotify) = &self.inotify else {
            return;
        };
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE;
        match inotify::add_watch(inotify.get_ref(), directory, flags) {
            Ok(watch) => drop(self.directories.insert(watch, directory.to_owned())),
            Err(error) => warn!("{} can't be watched: {error}", directory.display()),
        }
    }
}

fn create(path: &Path, value: i32) -> io::Result<()> {
    writeln!(fs::File::create(path)?, "{value}")
}

/// The number; 0 for a file that is not there, `None` for one that is out of range.
fn read(path: &Path) -> Option<i64> {
    let mut content = Vec::new();
    // What can't be read is worth no more than what is not there.
    let _ = fs::File::open(path).and_then(|file| file.take(127).read_to_end(&mut content));
    FileCheck::value(&content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn values_follow_the_file() {
        let directory = std::env::temp_dir().join(format!("lvs-files-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("load");
        let tracked = |init| TrackFile {
            name: "load".to_owned(),
            path: path.display().to_string(),
            weight: 1,
            reverse: false,
            init,
        };
        let text = path.display().to_string();
        let mut files = Files::open();
        files.set(&[tracked(None)], true);
        assert_eq!(files.value(&text), 0);
        let init = |value, overwrite| Some(lvs_conf::model::InitFile { value, overwrite });
        files.set(&[tracked(init(7, false))], true);
        assert_eq!(files.value(&text), 7);
        files.set(&[tracked(init(8, true))], false);
        assert_eq!(files.value(&text), 7, "a reload overwrites nothing");
        files.handle_change();

        let mut turn = async |edit: &dyn Fn()| {
            edit();
            tokio::time::timeout(std::time::Duration::from_secs(5), files.changed())
                .await
                .unwrap();
            let changed = files.handle_change();
            (changed.len(), files.value(&text))
        };
        assert_eq!(turn(&|| fs::write(&path, "-3\n").unwrap()).await, (1, -3));
        assert_eq!(
            turn(&|| fs::write(&path, "99999999999\n").unwrap()).await,
            (0, -3)
        );
        let other = directory.join("new");
        fs::write(&other, "0x10").unwrap();
        assert_eq!(turn(&|| fs::rename(&other, &path).unwrap()).await, (1, 16));
        assert_eq!(turn(&|| fs::remove_file(&path).unwrap()).await, (1, 0));
        fs::remove_dir_all(&directory).unwrap();
    }
}
