//! How real servers are checked.

use super::{Duration, IpAddr, Script, SocketAddr, fmt, preset};

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
    /// A ping is answered.
    PingCheck(Probe),
    /// A mail server greets.
    SmtpCheck(SmtpCheck),
    /// A DNS query is answered.
    DnsCheck(DnsCheck),
    /// A command succeeds.
    MiscCheck(MiscCheck),
    /// A datagram is answered, or not refused.
    UdpCheck(UdpCheck),
    /// A BFD session is up.
    BfdCheck(BfdCheck),
    /// A tracked file says so.
    FileCheck(FileCheck),
}

impl Checker {
    /// The keyword of its block.
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::TcpCheck(_) => "TCP_CHECK",
            Self::HttpGet(_) => "HTTP_GET",
            Self::SslGet(_) => "SSL_GET",
            Self::PingCheck(_) => "PING_CHECK",
            Self::SmtpCheck(_) => "SMTP_CHECK",
            Self::DnsCheck(_) => "DNS_CHECK",
            Self::MiscCheck(_) => "MISC_CHECK",
            Self::UdpCheck(_) => "UDP_CHECK",
            Self::BfdCheck(_) => "BFD_CHECK",
            Self::FileCheck(_) => "FILE_CHECK",
        }
    }

    /// Connection and timing. A `MISC_CHECK` has timing only; for BFD and file checks, which are told of changes, it
    /// means nothing but for a BFD check's `alpha`.
    pub fn probe(&self) -> &Probe {
        match self {
            Self::TcpCheck(probe) | Self::PingCheck(probe) => probe,
            Self::HttpGet(http) | Self::SslGet(http) => &http.probe,
            Self::SmtpCheck(check) => &check.probe,
            Self::DnsCheck(check) => &check.probe,
            Self::MiscCheck(check) => &check.probe,
            Self::UdpCheck(check) => &check.probe,
            Self::BfdCheck(check) => &check.probe,
            Self::FileCheck(check) => &check.probe,
        }
    }
}

/// A mail server's greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpCheck {
    /// Connection and timing.
    pub probe: Probe,
    /// Name said to the server.
    pub helo_name: String,
}

impl SmtpCheck {
    /// The name that is said unless another is given.
    pub const DEFAULT_HELO: &'static str = preset!(text, SmtpCheck, "helo_name");
}

/// A DNS query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsCheck {
    /// Connection and timing.
    pub probe: Probe,
    /// Record type.
    pub kind: DnsType,
    /// What is asked for; empty: the root.
    pub name: String,
}

words! {
    /// Record types of DNS.
    DnsType {
        /// Address.
        A = "A",
        /// Name server.
        Ns = "NS",
        /// Canonical name.
        Cname = "CNAME",
        /// Start of authority.
        Soa = "SOA",
        /// Mail exchange.
        Mx = "MX",
        /// Text.
        Txt = "TXT",
        /// IPv6 address.
        Aaaa = "AAAA",
        /// Signature.
        Rrsig = "RRSIG",
        /// Key.
        Dnskey = "DNSKEY",
    }
}

impl DnsType {
    /// What is asked for unless another type is given.
    pub const DEFAULT: Self = preset!(DnsType, of DnsCheck, "type");
}

/// A command whose exit status is the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MiscCheck {
    /// Timing; the connection is not used.
    pub probe: Probe,
    /// The command.
    pub script: Script,
    /// How long it may run.
    pub timeout: Duration,
    /// Exit status 2..=255 sets the weight to status - 2.
    pub dynamic: bool,
}

/// A datagram and what may come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpCheck {
    /// Connection and timing.
    pub probe: Probe,
    /// What is sent; empty: an empty datagram.
    pub payload: Vec<u8>,
    /// A reply is needed.
    pub require_reply: bool,
    /// What it must start with, nibble by nibble; `None` matches every nibble.
    pub reply: Vec<[Option<u8>; 2]>,
    /// Shortest reply.
    pub min_reply_length: u16,
    /// Longest reply.
    pub max_reply_length: u16,
}

impl UdpCheck {
    /// Shortest reply unless another length is given.
    pub const DEFAULT_MIN_REPLY: u16 = preset!(number as u16, UdpCheck, "min_reply_length");
    /// Longest reply unless another length is given.
    pub const DEFAULT_MAX_REPLY: u16 = preset!(number as u16, UdpCheck, "max_reply_length");
}

/// A BFD session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BfdCheck {
    /// Whether it starts as failed is the only part that counts.
    pub probe: Probe,
    /// Name of the BFD instance.
    pub name: String,
}

/// A tracked file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileCheck {
    /// Means nothing.
    pub probe: Probe,
    /// Name of the `track_file` block.
    pub name: String,
    /// `None`: the file's own weight.
    pub weight: Option<i32>,
    /// The sign is flipped; `None`: as the file says.
    pub reverse: Option<bool>,
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

impl HttpVersion {
    /// That of a checker which names none.
    pub const DEFAULT: Self = preset!(HttpVersion, of HttpGet, "http_protocol");
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
    /// The end of TLS must be proper (SSL_GET).
    pub tls_compliant: bool,
}

impl Url {
    /// Status codes that are success unless others are given.
    pub const DEFAULT_STATUS: (u16, u16) = (200, 299);
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
    /// Start and largest size in bytes of the memory for matching.
    pub stack: Option<(u32, u32)>,
}
