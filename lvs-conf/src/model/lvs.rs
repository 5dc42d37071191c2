//! Virtual servers, real servers and checkers.

use super::{Duration, Family, IpAddr, Ipv4Addr, Script, SocketAddr, fmt};

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

macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $type { $($(#[$variant_doc])* $variant,)+ }

        impl $type {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word in a configuration file.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The value of a word, which must agree in case.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
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
}

impl LvsMethod {
    /// The method cannot change a port.
    pub fn keeps_port(self) -> bool {
        self != Self::Nat
    }
}

impl fmt::Display for LvsMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nat => "NAT",
            Self::Dr => "DR",
            Self::Tun(_) => "TUN",
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
    /// None: always up.
    pub checkers: Vec<Checker>,
}

/// How a real server is checked.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Checker {
    /// A connection can be made.
    TcpCheck(Probe),
    /// HTTP answers as expected.
    HttpGet(HttpCheck),
    /// HTTPS answers as expected.
    SslGet(HttpCheck),
}

impl Checker {
    /// The settings that all of them share.
    pub fn probe(&self) -> &Probe {
        match self {
            Self::TcpCheck(probe) => probe,
            Self::HttpGet(http) | Self::SslGet(http) => &http.probe,
        }
    }
}

/// Connection and timing of a check, inheritance applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Where it goes.
    pub destination: SocketAddr,
    /// Own address.
    pub bind_address: Option<IpAddr>,
    /// Own port; means nothing without `bind_address`.
    pub bind_port: Option<u16>,
    /// Interface.
    pub bind_interface: Option<String>,
    /// How long each step may take.
    pub connect_timeout: Duration,
    /// Mark of the packets; 0: none.
    pub fwmark: u32,
    /// Further attempts before it has failed.
    pub retry: u32,
    /// Wait between attempts.
    pub delay_before_retry: Duration,
    /// Time between checks.
    pub delay_loop: Duration,
    /// Largest random wait before the first check.
    pub warmup: Duration,
    /// Counts as failed until it has run.
    pub alpha: bool,
    /// Log every failed attempt.
    pub log_all_failures: bool,
}

/// An HTTP or HTTPS check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// Connection and timing.
    pub probe: Probe,
    /// Version of HTTP.
    pub version: HttpVersion,
    /// Send the server's name in TLS.
    pub enable_sni: bool,
    /// That name; `None`: the request's host name.
    pub sni_name: Option<String>,
    /// Recover without waiting between urls.
    pub fast_recovery: bool,
    /// The end of TLS must be proper.
    pub tls_compliant: bool,
    /// At least one.
    pub urls: Vec<Url>,
}

words! {
    /// Version of HTTP in requests.
    HttpVersion {
        /// HTTP/1.0.
        Http10 = "1.0",
        /// HTTP/1.0 with `Connection: close`.
        Http10Close = "1.0C",
        /// HTTP/1.1.
        Http11 = "1.1",
    }
}

/// A request and what counts as success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// What is requested, sent verbatim.
    pub path: String,
    /// MD5 of the body.
    pub digest: Option<[u8; 16]>,
    /// Inclusive ranges of status codes, at least one.
    pub status_codes: Vec<(u16, u16)>,
    /// First defined of the url's, checker's, real server's and virtual server's; `None`: the destination's address and port.
    pub virtualhost: Option<String>,
    /// What the body must match.
    pub regex: Option<Regex>,
}

/// A pattern for the body, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regex {
    /// The pattern.
    pub pattern: String,
    /// The body must not match.
    pub negated: bool,
    /// Option words.
    pub options: Vec<String>,
    /// Offset where matching starts.
    pub min_offset: u32,
    /// Largest offset of a match.
    pub max_offset: Option<u32>,
}
