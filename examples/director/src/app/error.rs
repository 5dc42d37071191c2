//! Why a director does not start, or ends.

use std::io;

use crate::config::ReadError;
use crate::control::protocol::SocketAddress;
use crate::data_path::StartError;
use crate::vrrp::VrrpError;

/// Why a director did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The file can't be read.
    #[error(transparent)]
    Config(#[from] ReadError),
    /// The network namespace that the options or the file name.
    #[error("can't enter the network namespace {name}")]
    Namespace {
        /// Its name.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// keepalived would end with this file; the log says why.
    #[error("the configuration can't be used")]
    Unusable,
    /// What the file has no words for is wrong; the log says what.
    #[error("a file beside the configuration can't be used")]
    Beside,
    /// The control socket is taken, most likely.
    #[error(
        "can't listen at the control socket {address}; does a director run in this network namespace already?"
    )]
    Socket {
        /// Where.
        address: SocketAddress,
        /// What the system says.
        source: io::Error,
    },
    /// Another director runs in this network namespace, with another control socket.
    #[error("a director runs in this network namespace already")]
    Second(#[source] io::Error),
    /// The data path could not be started.
    #[error("can't start forwarding")]
    DataPath(#[from] StartError),
    /// VRRP could not be started.
    #[error(transparent)]
    Vrrp(#[from] VrrpError),
    /// A worker's thread has ended; its message stands on standard error.
    #[error("worker {0} has failed: ended, so that nothing is claimed that nobody forwards")]
    Worker(usize),
    /// VRRP's thread has ended; its message stands on standard error.
    #[error("VRRP has failed: ended, so that nobody believes in addresses that do not move")]
    VrrpEnded,
    /// Signals can't be received.
    #[error("can't receive signals")]
    Signals(#[source] io::Error),
    /// Servers can't be checked.
    #[error("can't start the checks")]
    Checks(#[source] io::Error),
    /// The kernel's news can't be waited for.
    #[error("can't watch the kernel's tables")]
    Watch(#[source] io::Error),
    /// The thread that runs scripts could not be made.
    #[error("can't make the thread that runs scripts")]
    Scripts(#[source] io::Error),
    /// The sockets for setting and announcing addresses were refused.
    #[error("can't set addresses")]
    Addresses(#[source] io::Error),
    /// The control loop's runtime could not be made.
    #[error("can't make the control loop")]
    Runtime(#[source] io::Error),
}
