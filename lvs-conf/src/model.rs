//! What the configuration means: typed, checked, with every default and inheritance applied.
//!
//! No value knows where it was written, so two models are equal if and only if they ask for the same thing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::keywords::preset::preset;

macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $type { $($(#[$variant_doc])* $variant,)+ }

        impl $type {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word in a configuration file.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The value of a word, which must agree in case.
            pub const fn from_word(word: &str) -> Option<Self> {
                let mut at = 0;
                while at < Self::ALL.len() {
                    if $crate::keywords::preset::is_same(Self::ALL[at].as_str(), word) {
                        return Some(Self::ALL[at]);
                    }
                    at += 1;
                }
                None
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

mod check;
mod global;
mod lvs;
mod net;
mod track;
mod vrrp;

pub use check::*;
pub use global::*;
pub use lvs::*;
pub use net::*;
pub use track::*;
pub use vrrp::*;

/// A whole configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// Settings outside every block.
    pub daemon: DaemonSettings,
    /// `global_defs`, merged if there are several.
    pub global: GlobalDefs,
    /// `linkbeat_interfaces`.
    pub linkbeat_interfaces: Vec<LinkbeatInterface>,
    /// `interface_up_down_delays`.
    pub interface_delays: Vec<InterfaceDelay>,
    /// `track_group` blocks.
    pub track_groups: Vec<TrackGroup>,
    /// `static_ipaddress`.
    pub static_addresses: Vec<VirtualAddress>,
    /// `static_routes`.
    pub static_routes: Vec<Route>,
    /// `static_rules`.
    pub static_rules: Vec<Rule>,
    /// `garp_group` blocks.
    pub garp_groups: Vec<GarpGroup>,
    /// `track_file` blocks that name a file.
    pub track_files: Vec<TrackFile>,
    /// `vrrp_script` blocks that have a command.
    pub scripts: Vec<VrrpScript>,
    /// `vrrp_track_process` blocks that name a process.
    pub track_processes: Vec<TrackProcess>,
    /// `bfd_instance` blocks that have a neighbour.
    pub bfd_instances: Vec<BfdInstance>,
    /// `vrrp_sync_group` blocks with valid members.
    pub sync_groups: Vec<SyncGroup>,
    /// `vrrp_instance` blocks that can run.
    pub instances: Vec<VrrpInstance>,
    /// `local_address_group` blocks with entries.
    pub local_address_groups: Vec<LocalAddressGroup>,
    /// `virtual_server_group` blocks with entries.
    pub server_groups: Vec<ServerGroup>,
    /// `virtual_server` blocks with real servers.
    pub virtual_servers: Vec<VirtualServer>,
    /// `SSL`.
    pub ssl: Option<Ssl>,
}

/// Settings of the daemon as a whole, outside every block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSettings {
    /// Run in this network namespace.
    pub net_namespace: Option<String>,
    /// Network namespace of the virtual servers; empty: the initial one.
    pub net_namespace_ipvs: Option<String>,
    /// Allow ipsets with a namespace on old kernels.
    pub namespace_with_ipsets: bool,
    /// Keep pid files in a directory of their own.
    pub use_pid_dir: bool,
    /// Instance name in pid files and logs.
    pub instance: Option<String>,
    /// How long the parent waits for its children at the end.
    pub child_wait_time: Duration,
    /// Poll the media state of every interface of an instance.
    pub linkbeat_use_polling: bool,
}

impl Default for DaemonSettings {
    fn default() -> Self {
        Self {
            net_namespace: None,
            net_namespace_ipvs: None,
            namespace_with_ipsets: false,
            use_pid_dir: false,
            instance: None,
            child_wait_time: preset!(duration, Top, "child_wait_time"),
            linkbeat_use_polling: false,
        }
    }
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// Who runs it; `None`: `script_user`.
    pub user: Option<ScriptUser>,
}

/// An account that runs scripts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptUser {
    /// Account name.
    pub name: String,
    /// Group name; `None`: the account's primary group.
    pub group: Option<String>,
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Inet,
            IpAddr::V6(_) => Self::Inet6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "IPv4",
            Self::Inet6 => "IPv6",
        })
    }
}

/// A value that is a number or a name of a table of the system, such as a routing table's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Id {
    /// The number.
    Number(u32),
    /// A name; whether the system knows it is not this crate's to say.
    Name(String),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}
