//! What the configuration means: typed, checked, with every default and inheritance applied.
//!
//! Spans take no part in equality, so two models are equal if and only if they ask for the same thing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::source::Span;

mod lvs;
mod vrrp;

pub use lvs::*;
pub use vrrp::*;

/// A whole configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// `global_defs`, merged if there are several.
    pub global: GlobalDefs,
    /// `vrrp_script` blocks that have a command.
    pub scripts: Vec<VrrpScript>,
    /// `vrrp_sync_group` blocks with valid members.
    pub sync_groups: Vec<SyncGroup>,
    /// `vrrp_instance` blocks that can run.
    pub instances: Vec<VrrpInstance>,
    /// `virtual_server` blocks with real servers.
    pub virtual_servers: Vec<VirtualServer>,
}

/// Global settings.
#[derive(Debug, Clone, PartialEq)]
pub struct GlobalDefs {
    /// Name of this machine; `None`: the local host name.
    pub router_id: Option<String>,
    /// Mail settings.
    pub mail: Mail,
    /// `default_interface`, for static addresses.
    pub default_interface: String,
    /// Interfaces may appear and vanish.
    pub dynamic_interfaces: bool,
    /// Who runs scripts that name nobody.
    pub script_user: Option<ScriptUser>,
    /// Do not run scripts as root that others can change.
    pub enable_script_security: bool,
    /// Run before everything else.
    pub startup_script: Option<Script>,
    /// Run after everything else.
    pub shutdown_script: Option<Script>,
    /// Notify for real servers that come up at start.
    pub rs_init_notifies: bool,
    /// Log every failed check.
    pub checker_log_all_failures: bool,
    /// Defaults of instances.
    pub vrrp: VrrpDefaults,
    /// Idle times of connections.
    pub lvs_timeouts: LvsTimeouts,
    /// Clear the virtual services at start.
    pub lvs_flush: bool,
    /// Clear the virtual services at the end.
    pub lvs_flush_on_stop: FlushOnStop,
    /// Connection synchronisation.
    pub lvs_sync_daemon: Option<SyncDaemon>,
}

impl Default for GlobalDefs {
    fn default() -> Self {
        Self {
            router_id: None,
            mail: Mail::default(),
            default_interface: "eth0".to_owned(),
            dynamic_interfaces: false,
            script_user: None,
            enable_script_security: false,
            startup_script: None,
            shutdown_script: None,
            rs_init_notifies: false,
            checker_log_all_failures: false,
            vrrp: VrrpDefaults::default(),
            lvs_timeouts: LvsTimeouts::default(),
            lvs_flush: false,
            lvs_flush_on_stop: FlushOnStop::No,
            lvs_sync_daemon: None,
        }
    }
}

/// Who gets mails, and through which server. Mails are sent only if there are a server and recipients.
#[derive(Debug, Clone, PartialEq)]
pub struct Mail {
    /// Recipients.
    pub to: Vec<String>,
    /// Sender; `None`: the user at the local host.
    pub from: Option<String>,
    /// Address or name of the server.
    pub server: Option<String>,
    /// Port of the server.
    pub port: u16,
    /// Name said to the server; `None`: the local host name.
    pub helo_name: Option<String>,
    /// Timeout of the connection.
    pub connect_timeout: Duration,
    /// `smtp_alert`.
    pub alert: Option<bool>,
    /// `smtp_alert_vrrp`.
    pub alert_vrrp: Option<bool>,
    /// `smtp_alert_checker`.
    pub alert_checker: Option<bool>,
    /// No mails for the fault state.
    pub no_faults: bool,
    /// Mails for real servers only, not for each checker.
    pub no_checkers: bool,
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            to: Vec::new(),
            from: None,
            server: None,
            port: 25,
            helo_name: None,
            connect_timeout: Duration::from_secs(30),
            alert: None,
            alert_vrrp: None,
            alert_checker: None,
            no_faults: false,
            no_checkers: false,
        }
    }
}

/// Idle times of connections; `None`: left as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LvsTimeouts {
    /// Established TCP.
    pub tcp: Option<Duration>,
    /// TCP after FIN.
    pub tcp_fin: Option<Duration>,
    /// UDP.
    pub udp: Option<Duration>,
}

/// What is cleared when the daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushOnStop {
    /// Nothing beyond what was set up.
    No,
    /// Every virtual service.
    All,
    /// The configured virtual servers, without taking their real servers out first.
    VirtualServers,
}

/// Connection synchronisation between directors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncDaemon {
    /// Interface of the messages.
    pub interface: String,
    /// The instance whose state decides who sends; `None`: always both.
    pub instance: Option<String>,
    /// 0..=255; `None`: the instance's virtual router id, or 0.
    pub id: Option<u8>,
    /// Longest message in bytes.
    pub max_length: Option<u16>,
    /// UDP port.
    pub port: Option<u16>,
    /// Time to live.
    pub ttl: Option<u8>,
    /// Multicast group.
    pub group: Option<IpAddr>,
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

/// A line that is kept as words, such as a route.
#[derive(Debug, Clone)]
pub struct RawLine {
    /// The words.
    pub words: Vec<String>,
    /// Where they stand; takes no part in equality.
    pub span: Span,
}

impl PartialEq for RawLine {
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words
    }
}

impl Eq for RawLine {}

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
