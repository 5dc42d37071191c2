//! The file with the director's process number.

use std::fs;
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::whole_file;

/// Removed when this is dropped, unless it has become another process's.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes the file, in the place of an older one. A director without it runs as well: `None`, and why in the log, if it can't be written.
    pub fn write(path: &Path) -> Option<Self> {
        match whole_file::write(path, &own()) {
            Ok(()) => Some(Self {
                path: path.to_owned(),
            }),
            Err(error) => {
                warn!(
                    "the pid file {} can't be written, the director runs without: {error}",
                    path.display()
                );
                None
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if fs::read_to_string(&self.path).is_ok_and(|text| text == own()) {
            // It may go in between: it is gone then.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn own() -> String {
    format!("{}\n", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_the_number_and_goes_with_the_director() {
        let path = std::env::temp_dir().join(format!("director-pid-{}", std::process::id()));
        fs::write(&path, "1\n").unwrap();
        let file = PidFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), own());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn another_process_that_has_taken_it_over_keeps_it() {
        let path = std::env::temp_dir().join(format!("director-pid-other-{}", std::process::id()));
        let file = PidFile::write(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn where_it_cannot_be_written_there_is_none_and_nothing_is_left() {
        assert!(PidFile::write(Path::new("/nonexistent/pid")).is_none());
        // A device that is always full.
        assert!(PidFile::write(Path::new("/proc/self/director.pid")).is_none());
    }
}
