//! Where a director listens.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::path::PathBuf;

/// Where the control socket is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SocketAddress {
    /// A socket file.
    Path(PathBuf),
    /// An abstract name, without its `@`: one for each network namespace, gone with its process.
    Abstract(OsString),
}

impl SocketAddress {
    /// The address in the environment variable `LVS_SOCKET`, else the default, `@lvs-director`.
    pub fn from_env() -> Self {
        env::var_os(SOCKET_VARIABLE).map_or_else(Self::default, |text| Self::parse(&text))
    }

    /// A path, or an abstract name after `@`. Empty text means the default.
    pub fn parse(text: &OsStr) -> Self {
        match text.as_bytes() {
            [] => Self::default(),
            [b'@', name @ ..] => Self::Abstract(OsStr::from_bytes(name).to_owned()),
            _ => Self::Path(text.into()),
        }
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// What the system says: nobody listens, no permission, the name is too long.
    pub fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect_addr(&self.to_unix()?)
    }

    /// Listens.
    ///
    /// # Errors
    ///
    /// What the system says: taken already, no permission, the name is too long. A socket file that a dead process left
    /// behind counts as taken.
    pub fn bind(&self) -> io::Result<UnixListener> {
        UnixListener::bind_addr(&self.to_unix()?)
    }

    fn to_unix(&self) -> io::Result<UnixAddr> {
        match self {
            Self::Path(path) => UnixAddr::from_pathname(path),
            Self::Abstract(name) => UnixAddr::from_abstract_name(name.as_bytes()),
        }
    }
}

impl Default for SocketAddress {
    fn default() -> Self {
        Self::Abstract(DEFAULT_NAME.into())
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Abstract(name) => write!(f, "@{}", name.display()),
        }
    }
}

/// The environment variable that names another control socket.
pub const SOCKET_VARIABLE: &str = "LVS_SOCKET";

const DEFAULT_NAME: &str = "lvs-director";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_addresses_are_paths_or_abstract_names() {
        let parse = |text: &str| SocketAddress::parse(OsStr::new(text));
        assert_eq!(
            parse("/run/d.sock"),
            SocketAddress::Path("/run/d.sock".into())
        );
        assert_eq!(parse("@other").to_string(), "@other");
        assert_eq!(parse(""), SocketAddress::default());
        assert_eq!(SocketAddress::default().to_string(), "@lvs-director");
    }
}
