//! Instances, sync groups and what they track.

use super::{
    Duration, Family, GlobalDefs, IpAddr, Ipv4Addr, Ipv6Addr, Route, Rule, Script, Tracking,
    VirtualAddress, fmt, preset,
};

/// Defaults that instances take from `global_defs`.
#[derive(Debug, Clone, PartialEq)]
pub struct VrrpDefaults {
    /// Version of IPv4 instances.
    pub version: u8,
    /// IPv4 group of advertisements.
    pub group4: Ipv4Addr,
    /// IPv6 group of advertisements.
    pub group6: Ipv6Addr,
    /// Gratuitous ARP.
    pub garp: Garp,
    /// Gap between gratuitous ARP messages.
    pub garp_interval: Duration,
    /// Gap between neighbour advertisements.
    pub gna_interval: Duration,
    /// Advertisements to miss before a takeover.
    pub down_timer_adverts: u8,
    /// Do not answer an advertisement of lower priority.
    pub lower_prio_no_advert: bool,
    /// Answer an advertisement of higher priority once.
    pub higher_prio_send_advert: bool,
    /// Accept unicast advertisements of configured peers only.
    pub check_unicast_src: bool,
    /// Check the addresses of a sender once only.
    pub skip_check_adv_addr: bool,
    /// Keep strictly to the standard.
    pub strict: bool,
    /// Wait before instances start.
    pub startup_delay: Duration,
    /// The same, counted from the system's boot.
    pub delay_after_boot: Duration,
    /// Gratuitous ARP on other interfaces.
    pub garp_extra: GarpExtra,
    /// The owner of the addresses ignores advertisements.
    pub owner_ignore_adverts: bool,
    /// Version 3 checksums without pseudo header.
    pub v3_checksum_as_v2: bool,
    /// No group membership messages for the local net.
    pub disable_local_igmp: bool,
    /// Log advertisements of unknown routers.
    pub log_unknown_vrids: bool,
    /// Prefix of the names of VMAC interfaces; `None`: `vrrp`.
    pub vmac_prefix: Option<String>,
    /// The same for those of addresses on other interfaces; `None`: `vmac_prefix`.
    pub vmac_addr_prefix: Option<String>,
}

impl Default for VrrpDefaults {
    fn default() -> Self {
        Self {
            version: preset!(number as u8, GlobalDefs, "vrrp_version"),
            group4: address(preset!(text, GlobalDefs, "vrrp_mcast_group4")),
            group6: address(preset!(text, GlobalDefs, "vrrp_mcast_group6")),
            garp: Garp::default(),
            garp_interval: Duration::ZERO,
            gna_interval: Duration::ZERO,
            down_timer_adverts: preset!(number as u8, GlobalDefs, "vrrp_down_timer_adverts"),
            lower_prio_no_advert: false,
            higher_prio_send_advert: false,
            check_unicast_src: false,
            skip_check_adv_addr: false,
            strict: false,
            startup_delay: Duration::ZERO,
            delay_after_boot: Duration::ZERO,
            garp_extra: GarpExtra::default(),
            owner_ignore_adverts: false,
            v3_checksum_as_v2: false,
            disable_local_igmp: false,
            log_unknown_vrids: false,
            vmac_prefix: None,
            vmac_addr_prefix: None,
        }
    }
}

/// An address out of the table.
fn address<A: std::str::FromStr<Err: fmt::Debug>>(text: &str) -> A {
    text.parse()
        .expect("the table's addresses are of their family")
}

/// How often a new master announces its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Garp {
    /// Delay of the second burst; zero: none.
    pub delay: Duration,
    /// Messages of a burst.
    pub repeat: u32,
    /// Period while master; zero: off.
    pub refresh: Duration,
    /// Messages of a periodic burst.
    pub refresh_repeat: u32,
    /// Delay of the second burst after an advertisement of lower priority; `None`: as `delay`.
    pub lower_prio_delay: Option<Duration>,
    /// Messages of that burst; `None`: as `repeat`.
    pub lower_prio_repeat: Option<u32>,
}

impl Default for Garp {
    fn default() -> Self {
        Self {
            delay: preset!(duration, GlobalDefs, "vrrp_garp_master_delay"),
            repeat: preset!(number as u32, GlobalDefs, "vrrp_garp_master_repeat"),
            refresh: preset!(duration, GlobalDefs, "vrrp_garp_master_refresh"),
            refresh_repeat: preset!(number as u32, GlobalDefs, "vrrp_garp_master_refresh_repeat"),
            lower_prio_delay: None,
            lower_prio_repeat: None,
        }
    }
}

/// Periodic gratuitous ARP on interfaces of addresses that are not the instance's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GarpExtra {
    /// Period; zero: off.
    pub interval: Duration,
    /// On interfaces that are no VMAC too.
    pub all: bool,
}

/// A virtual router.
#[derive(Debug, Clone, PartialEq)]
pub struct VrrpInstance {
    /// Name.
    pub name: String,
    /// State at start.
    pub state: InitialState,
    /// Where advertisements are sent; `None` only for unicast.
    pub interface: Option<String>,
    /// Virtual router id, 1..=255.
    pub virtual_router_id: u8,
    /// 1..=255; 255 is the owner of the addresses.
    pub priority: u8,
    /// Pace of advertisements, already as the version can carry it.
    pub advert_interval: Duration,
    /// 2 or 3.
    pub version: u8,
    /// Family of advertisements and of `virtual_addresses`.
    pub family: Family,
    /// A higher priority takes over from a lower one.
    pub preempt: bool,
    /// Wait before taking over from a lower priority.
    pub preempt_delay: Duration,
    /// Packets to the addresses are accepted.
    pub accept: bool,
    /// Keep strictly to the standard.
    pub strict: bool,
    /// Password of version 2.
    pub authentication: Option<Authentication>,
    /// Keyed authentication of keepalived's own.
    pub hmac: Option<AuthHmac>,
    /// Routing domain, for unicast without interface.
    pub vrf: Option<String>,
    /// Interface with the virtual MAC address or an own IP address.
    pub vmac: Option<Vmac>,
    /// A VMAC for addresses on other interfaces too.
    pub vmac_addr: bool,
    /// Advertisements go through the interface below the VMAC.
    pub vmac_xmit_base: bool,
    /// Another address of a net takes over when the first goes.
    pub promote_secondaries: bool,
    /// The instance needs no address.
    pub no_virtual_address: bool,
    /// Priority that a late timer falls back to.
    pub timer_expired_backup: Option<u8>,
    /// The owner of the addresses ignores advertisements.
    pub owner_ignore_adverts: bool,
    /// Checksum of old releases for unicast; `Some(true)`: always, `Some(false)`: never, `None`: found out.
    pub old_unicast_checksum: Option<bool>,
    /// Version 3 checksums without pseudo header.
    pub v3_checksum_as_v2: bool,
    /// Size of the receive buffer in bytes; `None`: by the global policy.
    pub kernel_rx_buf_size: Option<u32>,
    /// Interface of connection synchronisation (old; the global setting is preferred).
    pub lvs_sync_interface: Option<String>,
    /// Poll the media state of the interface.
    pub linkbeat_use_polling: bool,
    /// Level of debug messages, 0..=4; no effect.
    pub debug: u8,
    /// Gratuitous ARP on other interfaces.
    pub garp_extra: GarpExtra,
    /// Source of advertisements; `None`: the interface's address.
    pub source: Option<IpAddr>,
    /// Multicast group; `None`: the global one.
    pub group: Option<IpAddr>,
    /// Unicast peers; empty: multicast.
    pub unicast_peers: Vec<UnicastPeer>,
    /// Time to live of unicast advertisements; `None`: 255 for IPv4.
    pub unicast_ttl: Option<u8>,
    /// Fault instead of multicast when there are no peers.
    pub unicast_fault_no_peer: bool,
    /// Accept unicast advertisements of configured peers only.
    pub check_unicast_src: bool,
    /// Check the addresses of a sender once only.
    pub skip_check_adv_addr: bool,
    /// Fault while the source address is absent.
    pub track_src_ip: bool,
    /// Ignore faults of the own interface.
    pub dont_track_primary: bool,
    /// Advertisements to miss before a takeover.
    pub down_timer_adverts: u8,
    /// Do not answer an advertisement of lower priority.
    pub lower_prio_no_advert: bool,
    /// Answer an advertisement of higher priority once.
    pub higher_prio_send_advert: bool,
    /// Gratuitous ARP.
    pub garp: Garp,
    /// Advertised addresses.
    pub virtual_addresses: Vec<VirtualAddress>,
    /// Addresses that are set but not advertised.
    pub excluded_addresses: Vec<VirtualAddress>,
    /// Virtual routes.
    pub routes: Vec<Route>,
    /// Virtual rules.
    pub rules: Vec<Rule>,
    /// What changes priority or state.
    pub track: Tracking,
    /// What is run on changes.
    pub notify: Notify,
    /// Mail on changes, with the global defaults applied.
    pub smtp_alert: bool,
}

/// State of an instance at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InitialState {
    /// MASTER.
    Master,
    /// BACKUP.
    Backup,
}

/// Authentication of version 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    /// How.
    pub kind: AuthenticationKind,
    /// 1 to 8 bytes.
    pub password: Vec<u8>,
}

/// Kinds of authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthenticationKind {
    /// Plain text password.
    Pass,
    /// IPsec authentication header.
    Ah,
}

/// Keyed authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthHmac {
    /// Keys, at least one.
    pub keys: Vec<HmacKey>,
    /// Number of the key for sending, one of `keys`.
    pub active_key: u8,
    /// Tolerated difference of clocks; `None`: three intervals, at least 5 s.
    pub time_window: Option<Duration>,
    /// How old packets are recognised.
    pub anti_replay: AntiReplay,
    /// What packets without a valid key do.
    pub mode: HmacMode,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HmacKey {
    /// 1..=255.
    pub id: u8,
    /// Where its 32 to 64 bytes are.
    pub value: HmacValue,
}

/// Where the bytes of a key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HmacValue {
    /// Here.
    Bytes(Vec<u8>),
    /// In a file, as text or as `hex:` with hex digits.
    File(String),
}

words! {
    /// How old packets are recognised.
    AntiReplay {
        /// By the time.
        Time = "time",
        /// By a counter.
        Monotonic = "monotonic",
    }
}

words! {
    /// What packets without a valid key do.
    HmacMode {
        /// They are dropped.
        Enforce = "enforce",
        /// They are logged.
        Permissive = "permissive",
        /// They are taken, and none are sent with a key.
        ReceiveOnly = "receive-only",
    }
}

impl AntiReplay {
    /// What applies unless another is given.
    pub const DEFAULT: Self = preset!(AntiReplay, of AuthHmac, "anti_replay");
}

impl HmacMode {
    /// What applies unless another is given.
    pub const DEFAULT: Self = preset!(HmacMode, of AuthHmac, "mode");
}

/// An interface that an instance makes for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vmac {
    /// Its name; `None`: made from the prefix and the virtual router id.
    pub name: Option<String>,
    /// What it is.
    pub kind: VmacKind,
    /// Interface group.
    pub group: Option<u32>,
}

/// What the interface of an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmacKind {
    /// A macvlan with a virtual MAC address.
    Macvlan {
        /// The address; `None`: the standard's.
        mac: Option<MacAddress>,
        /// Let the kernel notify about changes.
        notify: bool,
    },
    /// An ipvlan.
    Ipvlan {
        /// Its own address with a prefix length.
        address: Option<(IpAddr, u8)>,
        /// How it exchanges packets with its neighbours.
        mode: IpvlanMode,
    },
}

words! {
    /// How ipvlan interfaces of one parent exchange packets.
    IpvlanMode {
        /// Directly.
        Bridge = "bridge",
        /// Not at all.
        Private = "private",
        /// Through the switch.
        Vepa = "vepa",
    }
}

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A unicast peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnicastPeer {
    /// Its address.
    pub address: IpAddr,
    /// Smallest accepted time to live.
    pub min_ttl: Option<u8>,
    /// Largest accepted time to live.
    pub max_ttl: Option<u8>,
}

/// What is run on changes of state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notify {
    /// Became master.
    pub master: Option<Script>,
    /// Became backup.
    pub backup: Option<Script>,
    /// Entered fault.
    pub fault: Option<Script>,
    /// Was stopped.
    pub stop: Option<Script>,
    /// Any change, with four further arguments (kind, name, state, priority).
    pub any: Option<Script>,
    /// A master of lower priority was heard (instances only).
    pub master_rx_lower_pri: Option<Script>,
    /// Removed by a reload (instances only).
    pub deleted: Option<Script>,
    /// Report DELETED instead of FAULT when removed by a reload (instances only).
    pub report_deleted: bool,
    /// Report changes of priority.
    pub priority_changes: Option<bool>,
}

/// Instances that change state together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncGroup {
    /// Name.
    pub name: String,
    /// Names of existing instances, each in one group only.
    pub members: Vec<String>,
    /// What the group watches.
    pub track: Tracking,
    /// What is run on changes.
    pub notify: Notify,
    /// Mail on changes, with the global defaults applied.
    pub smtp_alert: bool,
    /// Members may track with weights.
    pub tracking_weight: bool,
}

/// Instances that static addresses, routes and rules follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackGroup {
    /// Name.
    pub name: String,
    /// Names of existing instances.
    pub members: Vec<String>,
}

/// Interfaces that share one pace of gratuitous ARP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GarpGroup {
    /// Gap between gratuitous ARP messages.
    pub garp_interval: Option<Duration>,
    /// Gap between neighbour advertisements.
    pub gna_interval: Option<Duration>,
    /// The interfaces, each in one group only.
    pub interfaces: Vec<String>,
}

impl SyncGroup {
    /// A group without members.
    pub(crate) fn with_defaults(name: &str, smtp_alert: bool) -> Self {
        Self {
            name: name.to_owned(),
            members: Vec::new(),
            track: Tracking::default(),
            notify: Notify::default(),
            smtp_alert,
            tracking_weight: false,
        }
    }
}

impl VrrpInstance {
    /// Priority of an instance that gives none and is not MASTER.
    pub const DEFAULT_PRIORITY: u8 = preset!(number as u8, Instance, "priority");

    /// An instance of which nothing is known but the global settings.
    pub(crate) fn with_defaults(name: &str, global: &GlobalDefs) -> Self {
        let defaults = &global.vrrp;
        Self {
            name: name.to_owned(),
            state: InitialState::Backup,
            interface: None,
            virtual_router_id: 0,
            priority: Self::DEFAULT_PRIORITY,
            advert_interval: preset!(duration, Instance, "advert_int"),
            version: defaults.version,
            family: Family::Inet,
            preempt: true,
            preempt_delay: preset!(duration, Instance, "preempt_delay"),
            accept: true,
            strict: defaults.strict,
            authentication: None,
            hmac: None,
            vrf: None,
            vmac: None,
            vmac_addr: false,
            vmac_xmit_base: false,
            promote_secondaries: false,
            no_virtual_address: false,
            timer_expired_backup: None,
            owner_ignore_adverts: defaults.owner_ignore_adverts,
            old_unicast_checksum: None,
            v3_checksum_as_v2: defaults.v3_checksum_as_v2,
            kernel_rx_buf_size: None,
            lvs_sync_interface: None,
            linkbeat_use_polling: false,
            debug: preset!(number as u8, Instance, "debug"),
            garp_extra: defaults.garp_extra,
            source: None,
            group: None,
            unicast_peers: Vec::new(),
            unicast_ttl: None,
            unicast_fault_no_peer: false,
            check_unicast_src: defaults.check_unicast_src,
            skip_check_adv_addr: defaults.skip_check_adv_addr,
            track_src_ip: false,
            dont_track_primary: false,
            down_timer_adverts: defaults.down_timer_adverts,
            lower_prio_no_advert: defaults.lower_prio_no_advert,
            higher_prio_send_advert: defaults.higher_prio_send_advert,
            garp: defaults.garp,
            virtual_addresses: Vec::new(),
            excluded_addresses: Vec::new(),
            routes: Vec::new(),
            rules: Vec::new(),
            track: Tracking::default(),
            notify: Notify::default(),
            smtp_alert: global
                .mail
                .alert_vrrp
                .or(global.mail.alert)
                .unwrap_or(false),
        }
    }
}
