//! `HTTP_GET`: a request with keepalived's bytes, a response read and judged by its rules.

mod response;
#[cfg(test)]
mod tests;

use crate::{Attempt, Checker, Failure, Next, Note, Outcome, Schedule, Start, Timing};
use bytes::Bytes;
use response::Response;
use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Requests one url per attempt and walks through all of them; see [`Schedule::Walk`].
///
/// A response is judged by its status, then by the MD5 digest of its body where one is wanted. Redirects are not
/// followed. The body is not kept, so its size costs no memory.
#[doc(alias = "HTTP_GET")]
#[derive(Debug)]
pub struct HttpCheck {
    config: HttpConfig,
    /// What was already noted about each url's length.
    noted: Vec<Option<(u64, u64)>>,
    note: Option<Note>,
    url: usize,
    request: Bytes,
    response: Response,
}

/// What an [`HttpCheck`] asks for.
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
            rules: HttpRules::default(),
        }
    }
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
}

impl Url {
    /// This path with any 2xx status.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            virtualhost: None,
            status: StatusSet::default(),
            digest: None,
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
    /// The largest header in bytes, its empty line included. A larger one fails with [`Failure::NoData`].
    pub header_limit: usize,
    /// `HTTP/1.1 200` without a reason, not even the space before it, is malformed.
    pub strict_reason: bool,
    /// Only the end of the stream ends a body. Otherwise the Content-Length does too, and a 204 or 304 has no body, so
    /// that a server that keeps connections open is not mistaken for a silent one.
    pub read_to_end: bool,
}

impl HttpRules {
    /// The historical reading: 4095 bytes of header, a space after the status, the end of the stream.
    pub fn keepalived() -> Self {
        Self {
            header_limit: 4095,
            strict_reason: true,
            read_to_end: true,
        }
    }
}

impl Default for HttpRules {
    fn default() -> Self {
        Self {
            header_limit: 64 * 1024,
            strict_reason: false,
            read_to_end: false,
        }
    }
}

impl HttpCheck {
    /// Checks the configuration.
    ///
    /// # Errors
    ///
    /// There is no url, a path is empty, a path or host contains a control character, or a request would be longer
    /// than 2047 bytes (keepalived cuts such a request off and probes something else than was asked for).
    pub fn new(config: HttpConfig) -> Result<Self, HttpConfigError> {
        if config.urls.is_empty() {
            return Err(HttpConfigError::NoUrl);
        }
        for (index, url) in config.urls.iter().enumerate() {
            let host = url.virtualhost.as_ref().or(config.virtualhost.as_ref());
            if url.path.is_empty() {
                return Err(HttpConfigError::NoPath { url: index });
            }
            let controls = |text: &str| text.bytes().any(|byte| byte.is_ascii_control());
            if controls(&url.path) || host.is_some_and(|host| controls(host)) {
                return Err(HttpConfigError::ControlCharacter { url: index });
            }
            if request(&config, url, LONGEST_DESTINATION).len() > REQUEST_LIMIT {
                return Err(HttpConfigError::RequestTooLong { url: index });
            }
        }
        Ok(Self {
            noted: vec![None; config.urls.len()],
            note: None,
            url: 0,
            request: Bytes::new(),
            response: Response::new(config.rules.header_limit),
            config,
        })
    }

    /// The timing that keepalived gives this kind by default: 3 s before a retry.
    pub fn default_timing() -> Timing {
        Timing {
            delay_before_retry: Duration::from_secs(3),
            ..Timing::default()
        }
    }

    fn judge(&mut self) -> Outcome {
        let Some(head) = self.response.head() else {
            return Outcome::Down(Failure::NoData);
        };
        if let Some(announced) = head.content_length {
            let pair = (announced, self.response.received());
            if pair.0 != pair.1 && self.noted[self.url] != Some(pair) {
                self.noted[self.url] = Some(pair);
                self.note = Some(Note::BodyLength {
                    url: self.url,
                    announced: pair.0,
                    received: pair.1,
                });
            }
        }
        let url = &self.config.urls[self.url];
        match head.status(self.config.rules.strict_reason) {
            None => Outcome::Down(Failure::BadStatusLine),
            Some(status) if !url.status.contains(status) => {
                Outcome::Down(Failure::BadStatus(status))
            }
            Some(_) => match url.digest {
                Some(wanted) if wanted != self.response.digest() => {
                    Outcome::Down(Failure::DigestMismatch)
                }
                _ => Outcome::Up,
            },
        }
    }

    fn is_complete(&self) -> bool {
        if self.config.rules.read_to_end {
            return false;
        }
        self.response.head().is_some_and(|head| {
            let empty = matches!(
                head.status(self.config.rules.strict_reason),
                Some(204 | 304)
            );
            empty
                || head
                    .content_length
                    .is_some_and(|length| self.response.received() >= length)
        })
    }
}

impl Checker for HttpCheck {
    fn name(&self) -> &'static str {
        "HTTP_GET"
    }

    fn identity(&self) -> Option<String> {
        Some(format!("{:?}", self.config))
    }

    fn schedule(&self) -> Schedule {
        Schedule::Walk {
            parts: self.config.urls.len(),
            fast_recovery: self.config.fast_recovery,
        }
    }

    fn begin(&mut self, attempt: &Attempt) -> Start {
        self.url = attempt.part.min(self.config.urls.len() - 1);
        let url = &self.config.urls[self.url];
        self.request = request(&self.config, url, attempt.destination).into();
        self.response = Response::new(self.config.rules.header_limit);
        Start::default()
    }

    fn handle_connected(&mut self) -> Next {
        Next::Send(self.request.clone())
    }

    fn handle_data(&mut self, data: &[u8]) -> Next {
        if self.response.push(data).is_err() {
            return Next::Done(Outcome::Down(Failure::NoData));
        }
        if self.is_complete() {
            return Next::Done(self.judge());
        }
        Next::Wait
    }

    fn handle_closed(&mut self) -> Outcome {
        self.judge()
    }

    fn poll_note(&mut self) -> Option<Note> {
        self.note.take()
    }
}

/// A set of HTTP statuses, each 100 to 599; by default 200 to 299.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSet(Vec<RangeInclusive<u16>>);

impl StatusSet {
    /// The union of these ranges.
    ///
    /// # Errors
    ///
    /// A range is empty or leaves 100 to 599.
    pub fn new(
        ranges: impl IntoIterator<Item = RangeInclusive<u16>>,
    ) -> Result<Self, InvalidStatus> {
        let ranges: Vec<_> = ranges.into_iter().collect();
        for range in &ranges {
            if range.is_empty() || *range.start() < 100 || *range.end() > 599 {
                return Err(InvalidStatus);
            }
        }
        Ok(Self(ranges))
    }

    /// Whether this status is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for StatusSet {
    fn default() -> Self {
        Self(vec![200..=299])
    }
}

/// The MD5 digest of a body. Parses from exactly 32 hexadecimal digits of either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BodyDigest(pub [u8; 16]);

impl FromStr for BodyDigest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidDigest);
        }
        let value = u128::from_str_radix(text, 16).map_err(|_| InvalidDigest)?;
        Ok(Self(value.to_be_bytes()))
    }
}

impl fmt::Display for BodyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidDigest;

impl fmt::Display for InvalidDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a digest is exactly 32 hexadecimal digits")
    }
}

impl Error for InvalidDigest {}

/// A status range is empty or leaves 100 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidStatus;

impl fmt::Display for InvalidStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status is 100 to 599, and a range begins with its smaller end")
    }
}

impl Error for InvalidStatus {}

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

fn request(config: &HttpConfig, url: &Url, destination: SocketAddr) -> String {
    let (version, connection) = match config.protocol {
        HttpProtocol::Http10 => (0, ""),
        HttpProtocol::Http10Close => (0, "Connection: close\r\n"),
        HttpProtocol::Http11 => (1, "Connection: close\r\n"),
    };
    let host = match url.virtualhost.as_ref().or(config.virtualhost.as_ref()) {
        Some(host) => host.clone(),
        // `SocketAddr` would print the scope of a link-local address, which means nothing to the server.
        None => match destination.ip() {
            IpAddr::V4(ip) => format!("{ip}:{}", destination.port()),
            IpAddr::V6(ip) => format!("[{ip}]:{}", destination.port()),
        },
    };
    format!(
        "GET {} HTTP/1.{version}\r\nUser-Agent: KeepAliveClient\r\n{connection}Host: {host}\r\n\r\n",
        url.path
    )
}

const REQUEST_LIMIT: usize = 2047;

/// The destination with the longest text, so that a request that passes here never grows beyond the limit.
const LONGEST_DESTINATION: SocketAddr = SocketAddr::new(
    IpAddr::V6(std::net::Ipv6Addr::from_bits(u128::MAX)),
    u16::MAX,
);
