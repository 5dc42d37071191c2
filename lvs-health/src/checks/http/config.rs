//! What is asked for and how answers are read.

use super::{BodyDigest, REQUEST_LIMIT, StatusSet};
#[cfg(feature = "regex")]
use crate::BodyPattern;
use std::error::Error;
use std::fmt;

/// What an [`HttpCheck`](super::HttpCheck) asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// The version of the request.
    pub protocol: HttpProtocol,
    /// The Host header of urls without one of their own, sent as it is. `None`: the address and port of the
    /// destination. (keepalived's `virtualhost` of checker, real server and virtual server, the most specific first.)
    pub virtualhost: Option<String>,
    /// What is requested, in this order; at least one.
    pub urls: Vec<Url>,
    /// At start and during recovery the urls follow each other at once.
    pub fast_recovery: bool,
    /// Over TLS (`SSL_GET`), and how; `None`: in the clear.
    pub tls: Option<HttpTls>,
    /// How responses are read.
    pub rules: HttpRules,
}

impl HttpConfig {
    /// HTTP/1.0, these urls, all else by default.
    pub fn new(urls: Vec<Url>) -> Self {
        Self {
            protocol: HttpProtocol::Http10,
            virtualhost: None,
            urls,
            fast_recovery: false,
            tls: None,
            rules: HttpRules::default(),
        }
    }
}

/// How an [`HttpConfig`] wants TLS to be spoken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpTls {
    /// The server name to ask for.
    pub sni: Sni,
    /// Whether the certificate must be valid for that name; off by default, keepalived never verifies.
    pub verify: bool,
    /// Whether `close_notify` is sent at the end (keepalived's `tls_compliant`).
    pub close_notify: bool,
}

/// Which server name is asked for in the TLS handshake (RFC 6066 section 3).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Sni {
    /// None, as keepalived without `enable_sni`.
    Off,
    /// The virtual host of the url or the checker, without its port; none if neither has one.
    #[default]
    Virtualhost,
    /// This one.
    #[doc(alias = "sni_name")]
    Name(String),
}

/// One url of an [`HttpConfig`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Path and query, sent as they are: `/a?b=c`.
    pub path: String,
    /// The Host header of this url.
    pub virtualhost: Option<String>,
    /// Which statuses are good.
    pub status: StatusSet,
    /// What the MD5 digest of the body must be.
    pub digest: Option<BodyDigest>,
    /// What the body must match, chunks decoded.
    #[cfg(feature = "regex")]
    pub pattern: Option<BodyPattern>,
}

impl Url {
    /// This path with any 2xx status.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            virtualhost: None,
            status: StatusSet::default(),
            digest: None,
            #[cfg(feature = "regex")]
            pattern: None,
        }
    }
}

/// keepalived's `http_protocol`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HttpProtocol {
    /// HTTP/1.0 without a Connection header.
    #[default]
    #[doc(alias = "1.0")]
    Http10,
    /// HTTP/1.0 with `Connection: close`.
    #[doc(alias = "1.0C")]
    Http10Close,
    /// HTTP/1.1 with `Connection: close`.
    #[doc(alias = "1.1")]
    Http11,
}

/// How a response is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRules {
    /// The largest header in bytes, its empty line included. A larger one fails with [`Failure::NoData`](crate::Failure::NoData).
    pub header_limit: usize,
    /// `HTTP/1.1 200` without a reason, not even the space before it, is malformed.
    pub strict_reason: bool,
    /// Only the end of the stream ends a body. Otherwise the Content-Length and the last chunk do too, and a 204 or 304
    /// has no body, so that a server that keeps connections open is not mistaken for a silent one.
    pub read_to_end: bool,
    /// The digest is taken of the body without its chunks' frames. keepalived takes it as it came, and so do digests
    /// that were made with its tool.
    pub decode_digest: bool,
    /// How many bytes from the start of a body a regular expression is matched against.
    pub match_limit: usize,
}

impl HttpRules {
    /// The historical reading: 4095 bytes of header, a space after the status, the end of the stream.
    pub fn keepalived() -> Self {
        Self {
            header_limit: 4095,
            strict_reason: true,
            read_to_end: true,
            ..Self::default()
        }
    }
}

impl Default for HttpRules {
    fn default() -> Self {
        Self {
            header_limit: 64 * 1024,
            strict_reason: false,
            read_to_end: false,
            decode_digest: false,
            match_limit: 1024 * 1024,
        }
    }
}

/// What is wrong with an [`HttpConfig`]. Urls are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpConfigError {
    /// There is no url.
    NoUrl,
    /// The url has no path.
    NoPath {
        /// Which url.
        url: usize,
    },
    /// Path or host contain a control character, which would end the line early.
    ControlCharacter {
        /// Which url.
        url: usize,
    },
    /// The request would have more than 2047 bytes.
    RequestTooLong {
        /// Which url.
        url: usize,
    },
}

impl fmt::Display for HttpConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUrl => f.write_str("an http check needs a url"),
            Self::NoPath { url } => write!(f, "url {url} has no path"),
            Self::ControlCharacter { url } => {
                write!(f, "path or host of url {url} contain a control character")
            }
            Self::RequestTooLong { url } => {
                write!(f, "request of url {url} exceeds {REQUEST_LIMIT} bytes")
            }
        }
    }
}

impl Error for HttpConfigError {}
