//! `HTTP_GET` and `SSL_GET`: a request with keepalived's bytes, a response read and judged by its rules.

mod chunked;
mod config;
#[cfg(feature = "regex")]
pub(crate) mod pattern;
mod response;
mod status;
#[cfg(test)]
mod tests;

pub use config::{HttpConfig, HttpConfigError, HttpProtocol, HttpRules, HttpTls, Sni, Url};
pub use status::{BodyDigest, InvalidDigest, InvalidStatus, StatusSet};

use crate::{
    Attempt, Checker, Failure, Next, Note, Outcome, Schedule, Start, Timing, TlsOptions, Transport,
};
use bytes::Bytes;
use response::{Reading, Response};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Requests one url per attempt and walks through all of them; see [`Schedule::Walk`].
///
/// A response is judged by its status, then by the MD5 digest of its body where one is wanted, then by a regular
/// expression (feature `regex`). Redirects are not followed. The body is kept only for a regular expression, and then
/// not more of it than [`HttpRules::match_limit`], so its size costs no memory.
#[doc(alias = "HTTP_GET")]
#[doc(alias = "SSL_GET")]
#[derive(Debug)]
pub struct HttpCheck {
    config: HttpConfig,
    /// How each url's server is reached.
    transports: Vec<Transport>,
    /// What was already noted about each url's length.
    noted: Vec<Option<(u64, u64)>>,
    note: Option<Note>,
    url: usize,
    request: Bytes,
    response: Response,
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
        let transports = config.urls.iter().map(|url| transport(&config, url));
        Ok(Self {
            transports: transports.collect(),
            noted: vec![None; config.urls.len()],
            note: None,
            url: 0,
            request: Bytes::new(),
            response: Response::new(Reading::default()),
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

    /// The MD5 digest of the body that came last, if the url wants one to be looked at.
    pub fn digest(&self) -> Option<BodyDigest> {
        self.response.digest()
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
            Some(_) if url.digest.is_some() && url.digest != self.response.digest() => {
                Outcome::Down(Failure::DigestMismatch)
            }
            #[cfg(feature = "regex")]
            Some(_)
                if let Some(pattern) = &url.pattern
                    && !pattern.accepts(self.response.kept()) =>
            {
                Outcome::Down(Failure::RegexMismatch)
            }
            Some(_) => Outcome::Up,
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
                || self.response.has_last_chunk()
                || head
                    .content_length
                    .is_some_and(|length| self.response.received() >= length)
        })
    }
}

impl Checker for HttpCheck {
    fn name(&self) -> &'static str {
        match self.config.tls {
            None => "HTTP_GET",
            Some(_) => "SSL_GET",
        }
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
        #[cfg(feature = "regex")]
        let keep = url.pattern.is_some();
        #[cfg(not(feature = "regex"))]
        let keep = false;
        self.response = Response::new(Reading {
            header_limit: self.config.rules.header_limit,
            keep: if keep {
                self.config.rules.match_limit
            } else {
                0
            },
            digest: url.digest.is_some(),
            decode_digest: self.config.rules.decode_digest,
        });
        Start::Connect(self.transports[self.url].clone())
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

fn transport(config: &HttpConfig, url: &Url) -> Transport {
    let Some(tls) = &config.tls else {
        return Transport::Tcp;
    };
    let virtualhost = url.virtualhost.as_ref().or(config.virtualhost.as_ref());
    let server_name = match &tls.sni {
        Sni::Off => None,
        Sni::Virtualhost => virtualhost.map(|host| without_port(host).to_owned()),
        Sni::Name(name) => Some(name.clone()),
    };
    Transport::Tls(Arc::new(TlsOptions {
        server_name,
        verify: tls.verify,
        close_notify: tls.close_notify,
    }))
}

/// A Host header may carry a port, a server name must not.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) => {
            name
        }
        _ => host,
    }
}

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
