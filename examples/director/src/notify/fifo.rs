//! A named pipe that state events are written to, one line each.
//!
//! Whoever reads it is never waited for: a full pipe loses lines, which are counted. A pipe that somebody removed is made again.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    CWD, FileType, Mode, OFlags, Stat, fchmod, fchown, fstat, lstat, mknodat, open, unlink,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, geteuid};
use tracing::{info, warn};

use super::scripts::Account;

/// An open pipe. It is removed when this is dropped if it was made here.
#[derive(Debug)]
pub struct Fifo {
    path: PathBuf,
    owner: Option<Account>,
    pipe: OwnedFd,
    is_ours: bool,
    /// Lines lost since the last that was written.
    lost: u64,
}

impl Fifo {
    /// Makes and opens the pipe. One that is there already must belong to the director's user or the owner.
    ///
    /// # Errors
    ///
    /// It can't be made or opened, or is something else.
    pub fn open(path: &Path, owner: Option<Account>) -> Result<Self, FifoError> {
        let (pipe, is_ours) = make(path, owner.as_ref())?;
        Ok(Self {
            path: path.to_owned(),
            owner,
            pipe,
            is_ours,
            lost: 0,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it should be.
    pub fn owner(&self) -> Option<&Account> {
        self.owner.as_ref()
    }

    /// Writes a line in one piece. Returns whether it got in.
    pub fn write(&mut self, line: &str) -> bool {
        self.look_after();
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        // Up to PIPE_BUF bytes are written whole or not at all; names in a configuration are far shorter.
        let outcome = rustix::io::write(&self.pipe, &bytes);
        match outcome {
            Ok(_) => {
                if self.lost > 0 {
                    info!("{}: {} events were lost", self.path.display(), self.lost);
                    self.lost = 0;
                }
                true
            }
            Err(error) => {
                if self.lost == 0 {
                    let why = if error == Errno::AGAIN {
                        "it is full, nobody reads it".to_owned()
                    } else {
                        error.to_string()
                    };
                    warn!("{}: events are lost: {why}", self.path.display());
                }
                self.lost += 1;
                false
            }
        }
    }

    /// Who opens the path should get the pipe that is written to.
    fn look_after(&mut self) {
        let is_there = match (lstat(&self.path), fstat(&self.pipe)) {
            (Ok(there), Ok(open)) => (there.st_dev, there.st_ino) == (open.st_dev, open.st_ino),
            _ => false,
        };
        if is_there {
            return;
        }
        match make(&self.path, self.owner.as_ref()) {
            Ok((pipe, is_ours)) => {
                info!("{} was gone and is made again", self.path.display());
                self.pipe = pipe;
                self.is_ours = is_ours;
            }
            Err(error) => {
                if self.lost == 0 {
                    warn!("{}", crate::logging::chain(&error));
                }
            }
        }
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        if self.is_ours {
            // One that somebody else removed is gone as well.
            let _ = unlink(&self.path);
        }
    }
}

/// A named pipe can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FifoError {
    /// The system refuses.
    #[error("{call} {}", path.display())]
    System {
        /// The call.
        call: &'static str,
        /// The pipe.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else than a named pipe.
    #[error("{} is there and is no named pipe", .0.display())]
    NotAPipe(PathBuf),
    /// It belongs to somebody else.
    #[error("the named pipe {} belongs to user {owner}", path.display())]
    Foreign {
        /// The pipe.
        path: PathBuf,
        /// The number of its owner.
        owner: u32,
    },
}

/// Opens the pipe, made if need be. Open for reading too: writing never fails for want of a reader, and never waits for one.
fn make(path: &Path, owner: Option<&Account>) -> Result<(OwnedFd, bool), FifoError> {
    let failed = |call| {
        move |error: Errno| FifoError::System {
            call,
            path: path.to_owned(),
            source: error.into(),
        }
    };
    let is_ours = match mknodat(CWD, path, FileType::Fifo, MODE, 0) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(failed("mkfifo")(error)),
    };
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let checked = || {
        if !is_ours {
            // Opening a device could do something already.
            check(path, owner, &lstat(path).map_err(failed("stat"))?)?;
        }
        let pipe = open(path, flags, Mode::empty()).map_err(failed("open"))?;
        let stat = fstat(&pipe).map_err(failed("stat"))?;
        check(path, owner, &stat)?;
        if is_ours {
            // The umask is not asked.
            fchmod(&pipe, MODE).map_err(failed("chmod"))?;
        }
        if let Some(owner) = owner
            && (stat.st_uid, stat.st_gid) != (owner.uid, owner.gid)
        {
            let (user, group) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            fchown(&pipe, Some(user), Some(group)).map_err(failed("chown"))?;
        }
        Ok(pipe)
    };
    let pipe = checked().inspect_err(|_| {
        if is_ours {
            let _ = unlink(path);
        }
    })?;
    Ok((pipe, is_ours))
}

fn check(path: &Path, owner: Option<&Account>, stat: &Stat) -> Result<(), FifoError> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
        return Err(FifoError::NotAPipe(path.to_owned()));
    }
    let is_known =
        stat.st_uid == geteuid().as_raw() || owner.is_some_and(|owner| owner.uid == stat.st_uid);
    if !is_known {
        return Err(FifoError::Foreign {
            path: path.to_owned(),
            owner: stat.st_uid,
        });
    }
    Ok(())
}

/// rw-r--r--.
const MODE: Mode = Mode::from_raw_mode(0o644);

/// Of a pipe's name.
pub(super) fn path_of(name: &str) -> &Path {
    Path::new(OsStr::new(name))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn place() -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        std::env::temp_dir().join(format!("director-fifo-{}-{number}", std::process::id()))
    }

    fn read(path: &Path) -> String {
        let mut reader = fs::File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .unwrap();
        let mut bytes = vec![0; 1 << 17];
        let count = reader.read(&mut bytes).unwrap_or(0);
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn lines_wait_for_their_reader_and_the_pipe_goes_with_the_director() {
        let path = place();
        let mut fifo = Fifo::open(&path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
        assert!(fifo.write("RS a b UP"));
        assert!(fifo.write("VS b UP"));
        assert_eq!(read(&path), "RS a b UP\nVS b UP\n");
        drop(fifo);
        assert!(!path.exists());
    }

    #[test]
    fn a_full_pipe_loses_whole_lines_and_never_blocks() {
        let path = place();
        let mut fifo = Fifo::open(&path, None).unwrap();
        let line = "x".repeat(99);
        let written = (0..5000).filter(|_| fifo.write(&line)).count();
        assert!((100..5000).contains(&written), "{written}");
        assert_eq!(fifo.lost, 5000 - written as u64);
        assert_eq!(read(&path).len(), written * 100);
        assert!(fifo.write("again"));
        assert_eq!((read(&path).as_str(), fifo.lost), ("again\n", 0));
    }

    #[test]
    fn a_pipe_that_was_removed_is_made_again() {
        let path = place();
        let mut fifo = Fifo::open(&path, None).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(fifo.write("new"));
        assert_eq!(read(&path), "new\n");
    }

    #[test]
    fn a_pipe_that_was_there_stays_there() {
        let path = place();
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        drop(Fifo::open(&path, None).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn files_links_and_missing_directories_are_refused() {
        let path = place();
        fs::write(&path, "kept").unwrap();
        let error = Fifo::open(&path, None).unwrap_err();
        assert!(matches!(error, FifoError::NotAPipe(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
        let link = place();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(Fifo::open(&link, None).is_err());
        let deep = path.join("deep");
        assert!(matches!(
            Fifo::open(&deep, None).unwrap_err(),
            FifoError::System { call: "mkfifo", .. }
        ));
        fs::remove_file(&path).unwrap();
        fs::remove_file(&link).unwrap();
    }
}
