//! Instances, sync groups and what they track.

use super::{Duration, Family, IpAddr, Ipv4Addr, Ipv6Addr, RawLine, Script};

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
}

impl Default for VrrpDefaults {
    fn default() -> Self {
        Self {
            version: 2,
            group4: Ipv4Addr::new(224, 0, 0, 18),
            group6: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12),
            garp: Garp::default(),
            garp_interval: Duration::ZERO,
            gna_interval: Duration::ZERO,
            down_timer_adverts: 3,
            lower_prio_no_advert: false,
            higher_prio_send_advert: false,
            check_unicast_src: false,
            skip_check_adv_addr: false,
            strict: false,
            startup_delay: Duration::ZERO,
        }
    }
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
            delay: Duration::from_secs(5),
            repeat: 5,
            refresh: Duration::ZERO,
            refresh_repeat: 1,
            lower_prio_delay: None,
            lower_prio_repeat: None,
        }
    }
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
    /// Virtual routes as written.
    pub routes: Vec<RawLine>,
    /// Virtual rules as written.
    pub rules: Vec<RawLine>,
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

/// An address that the master holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualAddress {
    /// The address.
    pub address: IpAddr,
    /// Prefix length, the peer's if there is one.
    pub prefix_len: u8,
    /// Interface; `None`: the instance's.
    pub interface: Option<String>,
    /// Label.
    pub label: Option<String>,
    /// Scope as written.
    pub scope: Option<String>,
    /// Broadcast address, computed for `+` and `-`.
    pub broadcast: Option<Ipv4Addr>,
    /// Address of the other end.
    pub peer: Option<IpAddr>,
    /// Loss of the address does not affect the instance.
    pub no_track: bool,
    /// Other options as written, such as `home` or `noprefixroute`.
    pub options: Vec<String>,
}

/// What an instance or group watches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tracking {
    /// Interfaces.
    pub interfaces: Vec<Track>,
    /// Scripts.
    pub scripts: Vec<Track>,
    /// Files.
    pub files: Vec<Track>,
    /// Processes.
    pub processes: Vec<Track>,
    /// BFD instances.
    pub bfd: Vec<Track>,
}

/// One watched object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// Its name.
    pub name: String,
    /// `None`: the object's own weight. Zero: its failure is a fault.
    pub weight: Option<i16>,
    /// The sign is flipped; `None`: as the object says.
    pub reverse: Option<bool>,
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
    /// Any change, with four further arguments.
    pub any: Option<Script>,
    /// A master of lower priority was heard (instances only).
    pub master_rx_lower_pri: Option<Script>,
    /// Removed by a reload (instances only).
    pub deleted: Option<Script>,
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

/// A script whose result changes priorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VrrpScript {
    /// Name.
    pub name: String,
    /// The command. A first word that starts with `<` asks whether a file can be opened.
    pub script: Script,
    /// Time between runs.
    pub interval: Duration,
    /// Time that a run may take.
    pub timeout: Duration,
    /// Added to or taken from the priority; zero: failure is a fault.
    pub weight: i16,
    /// The sign is flipped.
    pub reverse: bool,
    /// Successes in a row before it counts as up.
    pub rise: u32,
    /// Failures in a row before it counts as down.
    pub fall: u32,
    /// Counts as failed at start.
    pub init_fail: bool,
}
