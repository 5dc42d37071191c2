//! Settings of `global_defs`.

use super::{Duration, IpAddr, Script, ScriptUser, VrrpDefaults, fmt, preset};

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
    /// They may come back as another type, too.
    pub allow_if_changes: bool,
    /// Who runs scripts that name nobody.
    pub script_user: Option<ScriptUser>,
    /// Do not run scripts as root that others can change.
    pub enable_script_security: bool,
    /// Keep symbolic links in script paths.
    pub use_symlink_paths: bool,
    /// Set supplementary groups for scripts.
    pub set_supplementary_groups: bool,
    /// Run before everything else.
    pub startup_script: Option<Script>,
    /// How long that may take.
    pub startup_script_timeout: Duration,
    /// Run after everything else.
    pub shutdown_script: Option<Script>,
    /// How long that may take.
    pub shutdown_script_timeout: Duration,
    /// Pipes for state events.
    pub fifos: NotifyFifos,
    /// Notify for real servers that come up at start.
    pub rs_init_notifies: bool,
    /// Log every failed check.
    pub checker_log_all_failures: bool,
    /// Defaults of instances.
    pub vrrp: VrrpDefaults,
    /// Rules for addresses that are not accepted.
    pub firewall: Firewall,
    /// Idle times of connections.
    pub lvs_timeouts: LvsTimeouts,
    /// Clear the virtual services at start.
    pub lvs_flush: bool,
    /// Clear the virtual services at the end.
    pub lvs_flush_on_stop: FlushOnStop,
    /// Connection synchronisation.
    pub lvs_sync_daemon: Option<SyncDaemon>,
    /// The processes.
    pub processes: Processes,
    /// Receive buffers of kernel sockets.
    pub buffers: Buffers,
    /// SNMP.
    pub snmp: Snmp,
    /// D-Bus.
    pub dbus: Dbus,
    /// Reload.
    pub reload: Reload,
    /// Files and directories.
    pub files: Files,
    /// Makes random parameters repeatable; `None`: the time.
    pub random_seed: Option<u32>,
}

impl Default for GlobalDefs {
    fn default() -> Self {
        Self {
            router_id: None,
            mail: Mail::default(),
            default_interface: preset!(text, GlobalDefs, "default_interface").to_owned(),
            dynamic_interfaces: false,
            allow_if_changes: false,
            script_user: None,
            enable_script_security: false,
            use_symlink_paths: false,
            set_supplementary_groups: false,
            startup_script: None,
            startup_script_timeout: preset!(duration, GlobalDefs, "startup_script_timeout"),
            shutdown_script: None,
            shutdown_script_timeout: preset!(duration, GlobalDefs, "shutdown_script_timeout"),
            fifos: NotifyFifos::default(),
            rs_init_notifies: false,
            checker_log_all_failures: false,
            vrrp: VrrpDefaults::default(),
            firewall: Firewall::default(),
            lvs_timeouts: LvsTimeouts::default(),
            lvs_flush: false,
            lvs_flush_on_stop: FlushOnStop::No,
            lvs_sync_daemon: None,
            processes: Processes::default(),
            buffers: Buffers::default(),
            snmp: Snmp::default(),
            dbus: Dbus::default(),
            reload: Reload::default(),
            files: Files::default(),
            random_seed: None,
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
            connect_timeout: preset!(duration, GlobalDefs, "smtp_connect_timeout"),
            alert: None,
            alert_vrrp: None,
            alert_checker: None,
            no_faults: false,
            no_checkers: false,
        }
    }
}

/// Pipes that state events are written to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NotifyFifos {
    /// Every event.
    pub all: Option<Fifo>,
    /// Who reads it.
    pub all_script: Option<Script>,
    /// Events of instances and sync groups.
    pub vrrp: Option<Fifo>,
    /// Who reads it.
    pub vrrp_script: Option<Script>,
    /// Events of virtual and real servers.
    pub lvs: Option<Fifo>,
    /// Who reads it.
    pub lvs_script: Option<Script>,
    /// Changes of priority are events too.
    pub priority_changes: bool,
    /// Repeat the states after a reload.
    pub states_on_reload: bool,
}

/// A named pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fifo {
    /// Where it is.
    pub path: String,
    /// Who owns it; `None`: the daemon's user.
    pub user: Option<ScriptUser>,
}

/// Firewall rules that the daemon sets up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// Chains of iptables for incoming and outgoing packets.
    pub iptables: Option<(String, String)>,
    /// Names of ipsets; `Some` and empty: no ipsets.
    pub ipsets: Option<Vec<String>>,
    /// Table of nftables.
    pub nftables: Option<String>,
    /// Priority of its chains.
    pub nftables_priority: i32,
    /// Match interfaces by number.
    pub nftables_ifindex: bool,
    /// Count packets.
    pub nftables_counters: bool,
    /// Table for marks of server groups.
    pub ipvs_table: Option<String>,
    /// Priority of its chains.
    pub ipvs_priority: i32,
    /// First mark.
    pub ipvs_start_mark: u32,
}

impl Default for Firewall {
    fn default() -> Self {
        Self {
            iptables: None,
            ipsets: None,
            nftables: None,
            nftables_priority: preset!(number as i32, GlobalDefs, "nftables_priority"),
            nftables_ifindex: false,
            nftables_counters: false,
            ipvs_table: None,
            ipvs_priority: preset!(number as i32, GlobalDefs, "nftables_ipvs_priority"),
            ipvs_start_mark: preset!(number as u32, GlobalDefs, "nftables_ipvs_start_fwmark"),
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

/// The processes that the original program splits into, and how they are scheduled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processes {
    /// Give them distinct names.
    pub distinct_names: bool,
    /// Name of the parent.
    pub name: Option<String>,
    /// Instances.
    pub vrrp: Process,
    /// Checkers.
    pub checker: Process,
    /// BFD sessions.
    pub bfd: Process,
    /// Highest real-time priority that is taken automatically; 0: none, -1: not even a hint.
    pub max_auto_priority: i8,
    /// Delay that raises the priority.
    pub min_auto_priority_delay: Duration,
}

impl Default for Processes {
    fn default() -> Self {
        Self {
            distinct_names: false,
            name: None,
            vrrp: Process::default(),
            checker: Process::default(),
            bfd: Process::default(),
            max_auto_priority: preset!(number as i8, GlobalDefs, "max_auto_priority"),
            min_auto_priority_delay: preset!(duration, GlobalDefs, "min_auto_priority_delay"),
        }
    }
}

/// How one process is scheduled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its name.
    pub name: Option<String>,
    /// Nice value, -20..=19.
    pub priority: i8,
    /// Keep it in memory.
    pub no_swap: bool,
    /// Real-time priority, 1..=99; `None`: not real-time.
    pub real_time_priority: Option<u8>,
    /// Real-time that it may use without a pause.
    pub real_time_limit: Duration,
    /// Processors that may run it; empty: all.
    pub cpus: Vec<u32>,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            name: None,
            priority: preset!(number as i8, GlobalDefs, "vrrp_priority"),
            no_swap: false,
            real_time_priority: None,
            real_time_limit: preset!(duration, GlobalDefs, "vrrp_rlimit_rttime"),
            cpus: Vec::new(),
        }
    }
}

/// Receive buffers of kernel sockets in bytes; `None`: the system's size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffers {
    /// Answers to the VRRP part.
    pub vrrp_commands: Buffer,
    /// Events for the VRRP part.
    pub vrrp_monitor: Buffer,
    /// Events of processes.
    pub process_monitor: Buffer,
    /// Answers to the checker part.
    pub lvs_commands: Buffer,
    /// Events for the checker part.
    pub lvs_monitor: Buffer,
    /// Size of the buffer for advertisements.
    pub advertisements: RxPolicy,
    /// Advertisements that it holds.
    pub multiplier: u32,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            vrrp_commands: Buffer::default(),
            vrrp_monitor: Buffer::default(),
            process_monitor: Buffer::default(),
            lvs_commands: Buffer::default(),
            lvs_monitor: Buffer::default(),
            advertisements: RxPolicy::default(),
            multiplier: preset!(number as u32, GlobalDefs, "vrrp_rx_bufs_multiplier"),
        }
    }
}

/// Size of one receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Buffer {
    /// Bytes.
    pub size: Option<u32>,
    /// Beyond the system's limit if need be.
    pub force: bool,
}

/// How the receive buffer of advertisements is sized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RxPolicy {
    /// By the system.
    #[default]
    System,
    /// By the MTU of the interface.
    Mtu,
    /// By the size of an advertisement.
    Advert,
    /// So many bytes.
    Bytes(u32),
}

/// SNMP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snmp {
    /// Address of the agent; `None`: `unix:/var/agentx/master`.
    pub socket: Option<String>,
    /// Send traps.
    pub traps: bool,
    /// keepalived's own data about instances.
    pub vrrp: bool,
    /// keepalived's own data about virtual servers.
    pub checker: bool,
    /// Data of the standard for version 2.
    pub rfc_v2: bool,
    /// Data of the standard for version 3.
    pub rfc_v3: bool,
    /// Longest age of virtual server statistics.
    pub vs_update_interval: Duration,
    /// Longest age of real server statistics; `None`: as for virtual servers.
    pub rs_update_interval: Option<Duration>,
}

impl Default for Snmp {
    fn default() -> Self {
        Self {
            socket: None,
            traps: false,
            vrrp: false,
            checker: false,
            rfc_v2: false,
            rfc_v3: false,
            vs_update_interval: preset!(duration, GlobalDefs, "snmp_vs_stats_update_interval"),
            rs_update_interval: None,
        }
    }
}

/// D-Bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dbus {
    /// Offer instances there.
    pub enabled: bool,
    /// Name of the service.
    pub service_name: String,
    /// Name for instances without interface.
    pub no_interface_name: String,
}

impl Default for Dbus {
    fn default() -> Self {
        Self {
            enabled: false,
            service_name: preset!(text, GlobalDefs, "dbus_service_name").to_owned(),
            no_interface_name: preset!(text, GlobalDefs, "dbus_no_interface_name").to_owned(),
        }
    }
}

/// What happens around a reload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reload {
    /// Test the new file first; the text is where its complaints go, empty: nowhere.
    pub check_config: Option<String>,
    /// File with the time of a reload.
    pub time_file: Option<String>,
    /// Keep it and reload daily.
    pub repeat: bool,
    /// File that exists while the configuration is read; empty: the default name.
    pub file: Option<String>,
}

/// Files and directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Checks of all includes.
    pub include_check: IncludeChecks,
    /// Where copies of the read configuration are kept.
    pub config_save_dir: Option<String>,
    /// Where the configuration is handed to the processes.
    pub tmp_config_directory: Option<String>,
    /// Instance name in the names of dumps.
    pub data_use_instance: bool,
    /// Where the state is dumped to.
    pub state_dump: Option<String>,
    /// Where statistics are dumped to.
    pub stats_dump: Option<String>,
    /// Where the JSON dump goes.
    pub json_dump: Option<String>,
    /// Its format, 1 or 2.
    pub json_version: u8,
    /// The distribution's names of routing tables.
    pub iproute_usr_dir: Option<String>,
    /// The machine's names of routing tables.
    pub iproute_etc_dir: Option<String>,
    /// Permissions that created files do not get.
    pub umask: u16,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            include_check: IncludeChecks::default(),
            config_save_dir: None,
            tmp_config_directory: None,
            data_use_instance: false,
            state_dump: None,
            stats_dump: None,
            json_dump: None,
            json_version: preset!(number as u8, GlobalDefs, "json_version"),
            iproute_usr_dir: None,
            iproute_etc_dir: None,
            umask: preset!(number as u16, GlobalDefs, "umask"),
        }
    }
}

/// What an include must satisfy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IncludeChecks {
    /// Every match is a readable regular file.
    pub read: bool,
    /// Something matches.
    pub matches: bool,
    /// Something matches even if there are wildcards.
    pub wildcard: bool,
    /// Each alternative in braces matches.
    pub brace: bool,
}

words! {
    /// How the media state of an interface is read.
    LinkbeatMethod {
        /// MII registers.
        Mii = "MII",
        /// Ethtool.
        Ethtool = "ETHTOOL",
        /// Interface flags.
        Ioctl = "IOCTL",
    }
}

/// An interface whose media state is polled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkbeatInterface {
    /// Its name.
    pub name: String,
    /// How; `None`: whatever works.
    pub method: Option<LinkbeatMethod>,
}

/// How long an interface must be down or up before it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceDelay {
    /// Its name.
    pub name: String,
    /// Down.
    pub down: Duration,
    /// Up.
    pub up: Duration,
}
