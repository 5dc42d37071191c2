//! Virtual servers, real servers and checkers.

use super::{
    Checker, Duration, Family, GlobalDefs, IpAddr, Ipv4Addr, Script, SocketAddr, fmt, preset,
};

/// A virtual service with its real servers.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualServer {
    /// What clients reach.
    pub service: ServiceAddress,
    /// `None` for mark services whose real servers do not tell either.
    pub family: Option<Family>,
    /// Protocol; means nothing for mark services.
    pub protocol: Protocol,
    /// Who is picked next.
    pub scheduler: Scheduler,
    /// Flags of the scheduler.
    pub flags: SchedulerFlags,
    /// Default method of real servers.
    pub method: LvsMethod,
    /// How long clients stay with their server; `None`: not at all.
    pub persistence_timeout: Option<Duration>,
    /// Clients that count as one; `None`: each address for itself.
    pub persistence_granularity: Option<Granularity>,
    /// Persistence engine, such as `sip`.
    pub persistence_engine: Option<String>,
    /// The `local_address_group` whose addresses FNAT uses; not keepalived's.
    pub local_address_group: Option<String>,
    /// One-packet scheduling (UDP).
    pub one_packet: bool,
    /// Weight that must be alive.
    pub quorum: u32,
    /// Margin of the quorum, below it.
    pub hysteresis: u32,
    /// Run when the quorum is gained.
    pub quorum_up: Option<Script>,
    /// Run when the quorum is lost.
    pub quorum_down: Option<Script>,
    /// Real servers start as down.
    pub alpha: bool,
    /// Run down-notifies at the end.
    pub omega: bool,
    /// Suspend checks while the address is absent.
    pub ha_suspend: bool,
    /// Mail on changes of the quorum, with the global defaults applied.
    pub smtp_alert: bool,
    /// Name in SNMP.
    pub snmp_name: Option<String>,
    /// Who answers when the quorum is lost.
    pub sorry_server: Option<SorryServer>,
    /// At least one.
    pub real_servers: Vec<RealServer>,
}

/// What clients reach.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServiceAddress {
    /// An address.
    Address {
        /// The address.
        address: IpAddr,
        /// `None`: every port.
        port: Option<u16>,
    },
    /// A firewall mark.
    Mark(u32),
    /// A `virtual_server_group` by name.
    Group(String),
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { address, port } => SocketAddr::new(*address, port.unwrap_or(0)).fmt(f),
            Self::Mark(mark) => write!(f, "fwmark {mark}"),
            Self::Group(name) => write!(f, "group {name}"),
        }
    }
}

words! {
    /// Protocol of a virtual server.
    Protocol {
        /// TCP.
        Tcp = "TCP",
        /// UDP.
        Udp = "UDP",
        /// SCTP.
        Sctp = "SCTP",
    }
}

words! {
    /// Schedulers by their short names.
    Scheduler {
        /// Round robin.
        RoundRobin = "rr",
        /// Weighted round robin.
        WeightedRoundRobin = "wrr",
        /// Least connections.
        LeastConnections = "lc",
        /// Weighted least connections.
        WeightedLeastConnections = "wlc",
        /// Locality-based least connections.
        LocalityLeastConnections = "lblc",
        /// Source hashing.
        SourceHashing = "sh",
        /// Maglev hashing.
        MaglevHashing = "mh",
        /// Destination hashing.
        DestinationHashing = "dh",
        /// Weighted fail-over.
        FailOver = "fo",
        /// Weighted overflow.
        Overflow = "ovf",
        /// Locality-based least connections with replication.
        LocalityReplication = "lblcr",
        /// Shortest expected delay.
        ShortestExpectedDelay = "sed",
        /// Never queue.
        NeverQueue = "nq",
        /// Power of two choices.
        TwoChoices = "twos",
    }
}

/// Flags of a scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SchedulerFlags {
    /// `flag-1`; for `sh` and `mh`: fall back to another server when the chosen one is unavailable.
    pub flag1: bool,
    /// `flag-2`; for `sh` and `mh`: the port counts too.
    pub flag2: bool,
    /// `flag-3`.
    pub flag3: bool,
}

/// How packets reach a real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LvsMethod {
    /// Addresses are rewritten.
    Nat,
    /// The packet is unchanged, only its link address is new.
    Dr,
    /// The packet is wrapped.
    Tun(Tunnel),
    /// Both sides' addresses are rewritten; not keepalived's.
    FullNat,
}

impl LvsMethod {
    /// The method cannot change a port.
    pub fn keeps_port(self) -> bool {
        !matches!(self, Self::Nat | Self::FullNat)
    }
}

impl fmt::Display for LvsMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nat => "NAT",
            Self::Dr => "DR",
            Self::Tun(_) => "TUN",
            Self::FullNat => "FNAT",
        })
    }
}

/// What a packet is wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tunnel {
    /// IP in IP.
    Ipip,
    /// Generic UDP encapsulation.
    Gue {
        /// UDP port of the tunnel's end.
        port: u16,
        /// Checksum of the outer packet.
        checksum: TunnelChecksum,
    },
    /// Generic routing encapsulation; remote checksums do not exist here.
    Gre {
        /// Checksum of the outer packet.
        checksum: TunnelChecksum,
    },
}

/// Checksum of a tunnel's outer packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TunnelChecksum {
    /// `nocsum`.
    None,
    /// `csum`.
    Full,
    /// `remcsum`.
    Remote,
}

/// Clients that count as one for persistence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// IPv4 mask, not necessarily contiguous.
    Mask(Ipv4Addr),
    /// IPv6 prefix length, 1..=128.
    Prefix(u8),
}

/// Who answers when the quorum is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SorryServer {
    /// Address; port 0: every port.
    pub address: SocketAddr,
    /// How packets reach it.
    pub method: LvsMethod,
    /// Weight 0 instead of removal.
    pub inhibit: bool,
}

/// A server of a virtual service.
#[derive(Debug, Clone, PartialEq)]
pub struct RealServer {
    /// Address with the port that it has in the end; port 0: every port.
    pub address: SocketAddr,
    /// Share of the load, 0..=2^31-1; 0: no new connections.
    pub weight: u32,
    /// How packets reach it.
    pub method: LvsMethod,
    /// Connections above which it gets no more; 0: no limit.
    pub upper_threshold: u32,
    /// Connections below which it gets some again.
    pub lower_threshold: u32,
    /// Weight 0 instead of removal when it is down.
    pub inhibit_on_failure: bool,
    /// Starts as down.
    pub alpha: bool,
    /// Run when it comes up.
    pub notify_up: Option<Script>,
    /// Run when it goes down.
    pub notify_down: Option<Script>,
    /// Mail on changes, with the global defaults applied.
    pub smtp_alert: bool,
    /// Name in SNMP.
    pub snmp_name: Option<String>,
    /// Empty: always up.
    pub checkers: Vec<Checker>,
}

/// Addresses and marks that form one virtual server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerGroup {
    /// Name.
    pub name: String,
    /// At least one entry.
    pub entries: Vec<GroupEntry>,
}

impl ServerGroup {
    /// The family of its addresses and marks; `None` if only marks without family are in it.
    pub fn family(&self) -> Option<Family> {
        self.entries.iter().find_map(|entry| match entry {
            GroupEntry::Range { first, .. } => Some(Family::of(*first)),
            GroupEntry::Mark { family, .. } => *family,
        })
    }
}

/// One entry of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupEntry {
    /// Addresses from the first to the last, both included, of one family.
    Range {
        /// First address.
        first: IpAddr,
        /// Last address; equal to the first one for a single address.
        last: IpAddr,
        /// `None`: every port.
        port: Option<u16>,
    },
    /// A firewall mark.
    Mark {
        /// The mark.
        mark: u32,
        /// Its family; `None`: as the rest of the group.
        family: Option<Family>,
    },
}

impl fmt::Display for GroupEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { first, last, port } => {
                write!(f, "{first}")?;
                if last != first {
                    write!(f, "-{last}")?;
                }
                match port {
                    Some(port) => write!(f, " {port}"),
                    None => Ok(()),
                }
            }
            Self::Mark { mark, family } => {
                write!(f, "fwmark {mark}")?;
                match family {
                    Some(Family::Inet) => f.write_str(" inet"),
                    Some(Family::Inet6) => f.write_str(" inet6"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Certificates of SSL_GET, each the name of a file but for the password.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ssl {
    /// Password of the key.
    pub password: Option<String>,
    /// Certificate authority.
    pub ca: Option<String>,
    /// Certificate.
    pub certificate: Option<String>,
    /// Key.
    pub key: Option<String>,
}

/// Addresses from which FNAT connects to real servers; not keepalived's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAddressGroup {
    /// Name.
    pub name: String,
    /// The addresses, at least one.
    pub addresses: Vec<LocalAddress>,
}

/// A local address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LocalAddress {
    /// The address.
    pub address: IpAddr,
    /// The interface to hold it on; `None`: it is there by other means.
    pub interface: Option<String>,
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{} {interface}", self.address),
            None => self.address.fmt(f),
        }
    }
}

impl Scheduler {
    /// That of a virtual server which names none.
    pub const DEFAULT: Self = preset!(Scheduler, of VirtualServer, "lb_algo");
}

impl VirtualServer {
    /// A service of which nothing is known but the global settings.
    pub(crate) fn with_defaults(service: ServiceAddress, global: &GlobalDefs) -> Self {
        let mail = &global.mail;
        Self {
            service,
            family: None,
            protocol: preset!(Protocol, of VirtualServer, "protocol"),
            scheduler: Scheduler::DEFAULT,
            flags: SchedulerFlags::default(),
            method: LvsMethod::Nat,
            persistence_timeout: None,
            persistence_granularity: None,
            persistence_engine: None,
            local_address_group: None,
            one_packet: false,
            quorum: preset!(number as u32, VirtualServer, "quorum"),
            hysteresis: preset!(number as u32, VirtualServer, "hysteresis"),
            quorum_up: None,
            quorum_down: None,
            alpha: false,
            omega: false,
            ha_suspend: false,
            smtp_alert: mail.alert_checker.or(mail.alert).unwrap_or(false),
            snmp_name: None,
            sorry_server: None,
            real_servers: Vec::new(),
        }
    }
}

impl RealServer {
    /// A server of which nothing is known but the global settings.
    pub(crate) fn with_defaults(
        address: SocketAddr,
        method: LvsMethod,
        global: &GlobalDefs,
    ) -> Self {
        let mail = &global.mail;
        Self {
            address,
            weight: preset!(number as u32, VirtualServer, "weight"),
            method,
            upper_threshold: preset!(number as u32, RealServer, "uthreshold"),
            lower_threshold: preset!(number as u32, RealServer, "lthreshold"),
            inhibit_on_failure: false,
            alpha: false,
            notify_up: None,
            notify_down: None,
            smtp_alert: mail.alert_checker.or(mail.alert).unwrap_or(true),
            snmp_name: None,
            checkers: Vec::new(),
        }
    }
}
