//! What a change is about.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::model::{
    Family, GroupEntry, LocalAddress, Protocol, ServiceAddress, VirtualAddress, VirtualServer,
};
use crate::print::{address_line, quoted};

/// A part of a configuration, by what it is matched with its counterpart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Object {
    /// A setting of the daemon as a whole.
    Daemon(DaemonSetting),
    /// A part of `global_defs`.
    Global(GlobalPart),
    /// An interface whose media state is polled, by name.
    LinkbeatInterface(String),
    /// The delays of an interface, by name.
    InterfaceDelay(String),
    /// A `garp_group`, by its interfaces.
    GarpGroup(Vec<String>),
    /// A tracked file, by name.
    TrackFile(String),
    /// A `vrrp_script`, by name.
    Script(String),
    /// A tracked process, by name.
    TrackProcess(String),
    /// A BFD session, by name.
    Bfd(String),
    /// A `track_group`, by name.
    TrackGroup(String),
    /// A static address.
    StaticAddress(AddressId),
    /// A static route, in canonical form.
    StaticRoute(String),
    /// A static rule, in canonical form.
    StaticRule(String),
    /// An instance.
    Instance(InstanceId),
    /// An address of an instance, advertised or not.
    InstanceAddress(InstanceId, AddressId),
    /// A route of an instance, in canonical form.
    InstanceRoute(InstanceId, String),
    /// A rule of an instance, in canonical form.
    InstanceRule(InstanceId, String),
    /// A sync group, by name.
    SyncGroup(String),
    /// An entry of a `virtual_server_group`, by the group's name.
    GroupEntry(String, GroupEntry),
    /// An address of a `local_address_group`, by the group's name.
    LocalAddress(String, LocalAddress),
    /// A virtual service: scheduler, flags, persistence, scripts.
    Service(ServiceId),
    /// Quorum and hysteresis of a service.
    Quorum(ServiceId),
    /// The sorry server of a service.
    SorryServer(ServiceId, SocketAddr),
    /// A real server of a service: weight, method, thresholds, scripts.
    Server(ServiceId, SocketAddr),
    /// A checker of a real server.
    Checker(ServiceId, SocketAddr, CheckerId),
    /// Certificates of SSL_GET.
    Ssl,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon(setting) => write!(f, "{}", setting.as_str()),
            Self::Global(part) => write!(f, "global settings of {}", part.as_str()),
            Self::LinkbeatInterface(name) => write!(f, "linkbeat interface {}", quoted(name)),
            Self::InterfaceDelay(name) => write!(f, "delays of interface {}", quoted(name)),
            Self::GarpGroup(names) => write!(f, "garp_group of {}", names.join(" ")),
            Self::TrackFile(name) => write!(f, "track_file {}", quoted(name)),
            Self::Script(name) => write!(f, "vrrp_script {}", quoted(name)),
            Self::TrackProcess(name) => write!(f, "vrrp_track_process {}", quoted(name)),
            Self::Bfd(name) => write!(f, "bfd_instance {}", quoted(name)),
            Self::TrackGroup(name) => write!(f, "track_group {}", quoted(name)),
            Self::StaticAddress(address) => write!(f, "static address {address}"),
            Self::StaticRoute(route) => write!(f, "static route {route}"),
            Self::StaticRule(rule) => write!(f, "static rule {rule}"),
            Self::Instance(id) => write!(f, "{id}"),
            Self::InstanceAddress(id, address) => write!(f, "address {address} of {id}"),
            Self::InstanceRoute(id, route) => write!(f, "route {route} of {id}"),
            Self::InstanceRule(id, rule) => write!(f, "rule {rule} of {id}"),
            Self::SyncGroup(name) => write!(f, "vrrp_sync_group {}", quoted(name)),
            Self::GroupEntry(name, entry) => {
                write!(f, "entry {entry} of virtual_server_group {}", quoted(name))
            }
            Self::LocalAddress(name, local) => {
                write!(f, "address {local} of local_address_group {}", quoted(name))
            }
            Self::Service(id) => write!(f, "service {id}"),
            Self::Quorum(id) => write!(f, "quorum of {id}"),
            Self::SorryServer(id, address) => write!(f, "sorry server {address} of {id}"),
            Self::Server(id, address) => write!(f, "server {address} of {id}"),
            Self::Checker(id, address, checker) => {
                write!(f, "{checker} of server {address} of {id}")
            }
            Self::Ssl => f.write_str("SSL certificates"),
        }
    }
}

macro_rules! names {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $type { $($(#[$variant_doc])* $variant,)+ }

        impl $type {
            /// How it is called.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

names! {
    /// A setting of the daemon as a whole.
    DaemonSetting {
        /// `net_namespace`.
        NetNamespace = "net_namespace",
        /// `net_namespace_ipvs`.
        NetNamespaceIpvs = "net_namespace_ipvs",
        /// `instance`.
        Instance = "instance",
        /// `nftables`.
        Nftables = "nftables",
        /// `nftables_ipvs`.
        NftablesIpvs = "nftables_ipvs",
        /// `tmp_config_directory`.
        TmpConfigDirectory = "tmp_config_directory",
        /// `disable_local_igmp`.
        DisableLocalIgmp = "disable_local_igmp",
        /// Pid files, shutdown, ipsets.
        Process = "process settings",
        /// `linkbeat_use_polling`.
        LinkbeatUsePolling = "linkbeat_use_polling",
    }
}

impl DaemonSetting {
    /// It cannot change while the daemon runs.
    pub fn needs_restart(self) -> bool {
        !matches!(self, Self::Process | Self::LinkbeatUsePolling)
    }
}

names! {
    /// A part of `global_defs`.
    GlobalPart {
        /// Name of the machine.
        RouterId = "router_id",
        /// Mails.
        Mail = "mail",
        /// Default and dynamic interfaces.
        Interfaces = "interfaces",
        /// Who runs scripts, and which run at start and end.
        Scripts = "scripts",
        /// Pipes for state events.
        Fifos = "notify fifos",
        /// Notifies and logs of checkers.
        Checkers = "checkers",
        /// Defaults of instances.
        Vrrp = "VRRP defaults",
        /// Firewall rules.
        Firewall = "firewall",
        /// Idle times of connections.
        LvsTimeouts = "lvs_timeouts",
        /// What is cleared at start and end.
        LvsFlush = "lvs_flush",
        /// Connection synchronisation.
        LvsSyncDaemon = "lvs_sync_daemon",
        /// Scheduling of processes.
        Processes = "processes",
        /// Receive buffers.
        Buffers = "buffers",
        /// SNMP.
        Snmp = "SNMP",
        /// D-Bus.
        Dbus = "D-Bus",
        /// Reload.
        Reload = "reload",
        /// Files and directories.
        Files = "files",
    }
}

/// What makes an instance the same one before and after a reload. The name does not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InstanceId {
    /// Virtual router id.
    pub virtual_router_id: u8,
    /// Family.
    pub family: Family,
    /// Configured interface.
    pub interface: Option<String>,
    /// How advertisements travel.
    pub mode: RouterMode,
}

/// How advertisements of an instance travel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RouterMode {
    /// To peers.
    Unicast {
        /// From this address.
        source: Option<IpAddr>,
    },
    /// To a group.
    Multicast {
        /// With a VMAC or ipvlan interface.
        vmac: bool,
        /// With VMAC interfaces for addresses elsewhere.
        vmac_addr: bool,
        /// The group; `None`: the global one.
        group: Option<IpAddr>,
    },
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} instance {}", self.family, self.virtual_router_id)?;
        if let Some(interface) = &self.interface {
            write!(f, " on {interface}")?;
        }
        match &self.mode {
            RouterMode::Unicast {
                source: Some(source),
            } => write!(f, " from {source}"),
            RouterMode::Unicast { source: None } => f.write_str(" unicast"),
            RouterMode::Multicast {
                group: Some(group), ..
            } => write!(f, " to {group}"),
            RouterMode::Multicast { vmac: true, .. } => f.write_str(" with VMAC"),
            RouterMode::Multicast { .. } => Ok(()),
        }
    }
}

/// What makes an address the same one. Broadcast, peer, flags and lifetime are not compared; who tracks it may change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AddressId {
    /// The address.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix_len: u8,
    /// Interface.
    pub interface: Option<String>,
    /// Scope.
    pub scope: Option<String>,
    /// Label.
    pub label: Option<String>,
    /// On a VMAC interface.
    pub use_vmac: bool,
}

impl AddressId {
    /// Of an address on an interface, unless it names its own.
    pub fn of(vip: &VirtualAddress, interface: Option<&String>) -> Self {
        Self {
            address: vip.address,
            prefix_len: vip.prefix_len,
            interface: vip.interface.as_ref().or(interface).cloned(),
            scope: vip.scope.clone(),
            label: vip.label.clone(),
            use_vmac: vip.use_vmac,
        }
    }
}

impl fmt::Display for AddressId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", address_line(self.address, self.prefix_len))?;
        match &self.interface {
            Some(interface) => write!(f, " on {interface}"),
            None => Ok(()),
        }
    }
}

/// What makes a virtual service the same one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceId {
    /// Address and port, mark, or group.
    pub service: ServiceAddress,
    /// Protocol of an address service.
    pub protocol: Option<Protocol>,
    /// Family of a mark service.
    pub family: Option<Family>,
}

impl ServiceId {
    /// Of a virtual server. Several of one group are told apart by their order.
    pub fn of(server: &VirtualServer) -> Self {
        let (protocol, family) = match server.service {
            ServiceAddress::Address { .. } => (Some(server.protocol), None),
            ServiceAddress::Mark(_) => (None, server.family),
            ServiceAddress::Group(_) => (None, None),
        };
        Self {
            service: server.service.clone(),
            protocol,
            family,
        }
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(protocol) = self.protocol {
            write!(f, "{protocol} ")?;
        }
        write!(f, "{}", self.service)?;
        match self.family {
            Some(family) => write!(f, " {family}"),
            None => Ok(()),
        }
    }
}

/// A checker of a real server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CheckerId {
    /// The keyword of its block.
    pub kind: &'static str,
    /// Its place among the checkers of the server, from 0; of a removed one among the old checkers.
    pub index: usize,
}

impl fmt::Display for CheckerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.index + 1)
    }
}
