//! The network namespace that keepalived's option `-s` and keyword `net_namespace` name.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::app::RunError;
use crate::config::ConfigFile;

/// Takes the calling thread, and those that it starts afterwards, into a namespace that `ip netns` shows.
///
/// # Errors
///
/// There is none of this name, or the process may not enter it.
pub fn enter(name: &str) -> io::Result<()> {
    let mut parts = Path::new(name).components();
    let is_plain = matches!(parts.next(), Some(std::path::Component::Normal(_)));
    if !is_plain || parts.next().is_some() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let namespace = File::open(Path::new(DIRECTORY).join(name))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

/// Reads a configuration within the namespace that the option or, without it, the file itself names. Both are read in
/// there: what a file says is judged by the interfaces around it.
///
/// # Errors
///
/// The file can't be read, or its namespace can't be entered.
pub(crate) fn read_within(
    option: Option<&str>,
    read: impl Fn() -> Result<ConfigFile, crate::config::ReadError>,
) -> Result<ConfigFile, RunError> {
    let enter = |name: &str| {
        enter(name).map_err(|source| RunError::Namespace {
            name: name.to_owned(),
            source,
        })
    };
    if let Some(name) = option {
        enter(name)?;
        return Ok(read()?);
    }
    let file = read()?;
    match &file.config().daemon.net_namespace {
        Some(name) => {
            enter(name)?;
            Ok(read()?)
        }
        None => Ok(file),
    }
}

/// Where `ip netns` keeps them.
const DIRECTORY: &str = "/var/run/netns";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_and_no_paths() {
        for name in ["", ".", "..", "a/b", "/proc/1/ns/net", "../netns/a"] {
            let error = enter(name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        let error = enter("there is none of this name").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
