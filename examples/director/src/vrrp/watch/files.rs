//! Tracked files: a number at their beginning.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use lvs_conf::model::TrackFile;
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};

/// Tells when tracked files may have changed.
#[derive(Debug)]
pub(super) struct FileWatch {
    inotify: OwnedFd,
    /// Some directory cannot be watched: it has to be looked at now and then.
    pub(super) is_partial: bool,
}

impl FileWatch {
    /// Watches the directories that files are in, for a file may come later or be replaced by another.
    pub(super) fn new(files: &[TrackFile]) -> io::Result<Self> {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut is_partial = false;
        for file in files {
            let directory = Path::new(&file.path)
                .parent()
                .unwrap_or_else(|| Path::new("/"));
            let what = WatchFlags::CLOSE_WRITE
                | WatchFlags::MOVED_TO
                | WatchFlags::MOVED_FROM
                | WatchFlags::DELETE
                | WatchFlags::DELETE_SELF;
            is_partial |= add_watch(&inotify, directory, what).is_err();
        }
        Ok(Self {
            inotify,
            is_partial,
        })
    }

    /// Takes in what has happened; whether a directory went, so that it has to be watched anew.
    pub(super) fn take(&self) -> bool {
        let mut space = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.inotify, &mut space);
        let mut lost = false;
        // An error says that there is nothing more.
        while let Ok(event) = reader.next() {
            lost |= event
                .events()
                .intersects(ReadFlags::DELETE_SELF | ReadFlags::IGNORED);
        }
        lost
    }
}

impl AsFd for FileWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// The number of a file: 0 if there is none. `None` if it does not fit.
pub(in super::super) fn read(path: &str) -> Option<i32> {
    let mut text = String::new();
    // Only a regular file is read: a pipe would keep everything waiting.
    let is_file = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    if is_file && let Ok(file) = fs::File::open(path) {
        // What is not text is no number.
        let _ = file.take(64).read_to_string(&mut text);
    }
    number(&text)
}

/// Decimal, or hexadecimal after `0x`, or octal after `0`; what follows is not looked at.
fn number(text: &str) -> Option<i32> {
    let text = text.trim_start();
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
        Some(digits) if digits.starts_with(|c: char| c.is_ascii_hexdigit()) => (16, digits),
        _ if rest.starts_with('0') => (8, rest),
        _ => (10, rest),
    };
    let mut value = 0_i64;
    for digit in digits.chars().map_while(|c| c.to_digit(radix)) {
        value = value.checked_mul(radix.into())?.checked_add(digit.into())?;
    }
    i32::try_from(sign * value).ok()
}

/// Creates a file as `init_file` says.
pub(in super::super) fn create(file: &TrackFile) -> io::Result<()> {
    let Some(init) = file.init else {
        return Ok(());
    };
    let mut options = OpenOptions::new();
    options.write(true);
    match init.overwrite {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    match options.open(&file.path) {
        Ok(mut open) => writeln!(open, "{}", init.value),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_is_read_as_c_reads_it() {
        for (text, expected) in [
            ("", Some(0)),
            ("word", Some(0)),
            (" -20\n", Some(-20)),
            ("+7 and more", Some(7)),
            ("0x10", Some(16)),
            ("0x", Some(0)),
            ("010", Some(8)),
            ("2147483647", Some(i32::MAX)),
            ("2147483648", None),
            ("99999999999999999999999999", None),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }
}
