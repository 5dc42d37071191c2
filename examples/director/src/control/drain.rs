//! Emptying real servers by hand: what `director drain`, `undrain` and `weight` ask for.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The name of the operation. Its arguments are a [`DrainQuestion`], its answer is a [`DrainsInfo`].
pub const OPERATION: &str = "drain";

/// What is to be done, and with which servers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DrainQuestion {
    /// What to do; without it nothing, and the answer names all servers that are being drained.
    #[serde(default)]
    pub action: Option<DrainAction>,
    /// The real server's address.
    #[serde(default)]
    pub server: Option<IpAddr>,
    /// Its port; without it all that have the address.
    #[serde(default)]
    pub port: Option<u16>,
    /// The virtual service, as listings write it or by address and port; without it every service that has the server.
    #[serde(default)]
    pub service: Option<String>,
}

/// What to do with real servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrainAction {
    /// Weight 0, whatever configuration and checks say, until it is taken back.
    Drain {
        /// Seconds until what is left is ended.
        deadline: Option<u64>,
    },
    /// Back to the weight that it should have.
    Undrain,
    /// Another weight, until the configuration or a check changes it.
    Weight {
        /// The weight.
        weight: u32,
    },
}

/// Servers that are being drained, or that a question was about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DrainsInfo {
    /// They, ordered by service.
    pub servers: Vec<DrainInfo>,
}

/// A real server of a virtual service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainInfo {
    /// The virtual service.
    pub service: String,
    /// Address and port.
    pub server: String,
    /// How it stands.
    pub state: DrainState,
    /// Its weight now.
    pub weight: u32,
    /// The weight that it gets when it is not drained any more.
    pub restores: u32,
    /// Active connections.
    pub active: u32,
    /// Inactive ones.
    pub inactive: u32,
    /// Templates of persistence, each of which may bring new connections.
    pub persistent: u32,
    /// Seconds until the end is forced; `None` without a deadline, and when it is over.
    pub deadline: Option<u64>,
}

/// How a server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrainState {
    /// It is not drained.
    Serving,
    /// Some are left.
    Draining,
    /// Nobody is left.
    Done,
    /// The deadline has come: who was left is ended at the next packet.
    Forced,
}
