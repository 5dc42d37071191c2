//! What an attempt needs from the program around the monitor: a connection of some kind, or a program to run.

use crate::SystemError;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

/// What a probe's connection is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// A TCP connection; it stands when the handshake is complete.
    #[default]
    Tcp,
    /// TLS over a TCP connection; it stands when both handshakes are complete, within one connect timeout.
    Tls(Arc<TlsOptions>),
    /// A connected UDP socket which reports ICMP errors; it stands at once. Every send is one datagram, every datagram
    /// received is reported by itself, also an empty one.
    Udp,
    /// An ICMP datagram socket (Linux: `ping_group_range`), which lets the kernel choose identifier and checksum; it
    /// stands at once. Every message received is reported by itself, from the ICMP header on.
    Icmp,
}

/// How TLS is spoken. Which certificate is shown to a server that asks for one is the program's own setting.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TlsOptions {
    /// The server name to ask for (SNI, RFC 6066 section 3), and the one that must stand in the certificate if it is
    /// verified. `None` sends no name.
    pub server_name: Option<String>,
    /// Whether the certificate must be valid for the name (or, without a name, the address). keepalived never verifies.
    pub verify: bool,
    /// Whether `close_notify` is sent at the end (keepalived's `tls_compliant`).
    pub close_notify: bool,
}

/// A program that is run for an attempt, without a shell unless it is one.
///
/// It gets a process group of its own, null devices as standard streams, no descriptors beyond them, and the
/// environment of the program around the monitor less `IFS`, `LD_PRELOAD` and `LD_LIBRARY_PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Script {
    /// The file to execute.
    pub program: PathBuf,
    /// What follows its name.
    pub arguments: Vec<OsString>,
    /// Who it runs as; `None` leaves it to the program around the monitor.
    pub user: Option<ScriptUser>,
}

/// Numbers, so that no name has to be looked up when a script starts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScriptUser {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// How a script ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(u8),
    /// By this signal.
    Signal(i32),
    /// It never ran: not executable, no such user, no process to be had.
    NotStarted(SystemError),
}
