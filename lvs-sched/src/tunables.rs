//! Settings of a director.

use crate::Timeouts;

/// The kernel's tunables (`net.ipv4.vs.*`) that this crate acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tunables {
    /// What a SYN on an ended connection does. 0: the old server is used again. Any other value: it
    /// is scheduled anew if the state is TIME_WAIT or CLOSE; with bit value 2 also from FIN_WAIT
    /// when no reply was ever seen. Default 1.
    pub conn_reuse_mode: u32,
    /// Packets of a connection whose server was removed are scheduled anew instead of dropped, and
    /// so is a SYN when the server is quiesced. Default off.
    pub expire_nodest_conn: bool,
    /// A template whose server is quiesced is not used. Default off.
    pub expire_quiescent_template: bool,
    /// Any TCP segment without RST may open a connection. Default off.
    pub sloppy_tcp: bool,
    /// TCP ports from here on may be data ports of an FTP service. Default 1024.
    pub unprivileged_port_start: u16,
}

impl Default for Tunables {
    fn default() -> Self {
        Self {
            conn_reuse_mode: 1,
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            sloppy_tcp: false,
            unprivileged_port_start: 1024,
        }
    }
}

/// What a director is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectorConfig {
    /// Random seeds of the hash tables; with known ones a sender could build collisions.
    pub seeds: [u64; 4],
    /// Connections that one worker holds; more are dropped and counted. Default 2^20.
    pub max_connections: usize,
    /// Persistence templates of the whole director; connections that need more are dropped and
    /// counted. Default 2^20.
    pub max_templates: usize,
    /// Timeouts to begin with.
    pub timeouts: Timeouts,
    /// Tunables to begin with.
    pub tunables: Tunables,
}

impl DirectorConfig {
    /// Defaults, with the caller's random seeds.
    pub fn new(seeds: [u64; 4]) -> Self {
        Self {
            seeds,
            max_connections: 1 << 20,
            max_templates: 1 << 20,
            timeouts: Timeouts::default(),
            tunables: Tunables::default(),
        }
    }
}
