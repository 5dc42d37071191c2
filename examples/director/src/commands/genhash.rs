//! `director genhash`: the digest that an HTTP_GET or SSL_GET check of a page would want.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lvs_health::{
    Attempt, BodyDigest, Checker, CheckerConfig, ConnectOptions, Driver, DriverOptions, Event,
    Failure, HttpCheck, HttpConfig, HttpProtocol, HttpTls, LocalErrorPolicy, Next, Outcome,
    ReadError, ServerConfig, Sni, Start, StatusSet, Timing, Url,
};

use super::STATUS_TROUBLE;

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where the server is.
    pub server: SocketAddr,
    /// What is asked for.
    pub url: String,
    /// Over TLS.
    pub ssl: bool,
    /// With the virtual host as server name.
    pub sni: bool,
    /// The Host header; `None`: address and port.
    pub virtualhost: Option<String>,
    /// The request's version.
    pub protocol: HttpProtocol,
    /// The connection's firewall mark; 0: none.
    pub mark: u32,
    /// How long each step may take.
    pub timeout: Duration,
    /// Say more.
    pub verbose: bool,
}

/// Asks for the page once, whatever status it has, and writes the digest of its body. Returns the exit status: 0, or 2 if
/// there was no answer.
///
/// # Errors
///
/// Nothing can be written to `out` or `errors`.
pub fn run(page: &Page, out: &mut impl Write, errors: &mut impl Write) -> io::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match runtime.block_on(ask(page)) {
        Ok((digest, took)) => {
            writeln!(out, "{digest}")?;
            if page.verbose {
                writeln!(
                    out,
                    "{} took {:.1} ms",
                    page.url,
                    took.as_secs_f64() * 1000.0
                )?;
            }
            Ok(0)
        }
        Err(reason) => {
            writeln!(errors, "{} of {}: {reason}", page.url, page.server)?;
            Ok(STATUS_TROUBLE)
        }
    }
}

async fn ask(page: &Page) -> Result<(BodyDigest, Duration), String> {
    let mut url = Url::new(page.url.clone());
    url.status = StatusSet::new([100..=599]).map_err(|error| error.to_string())?;
    // Any will do: it has the body digested.
    url.digest = Some(BodyDigest([0; 16]));
    let mut config = HttpConfig::new(vec![url]);
    config.virtualhost.clone_from(&page.virtualhost);
    config.protocol = page.protocol;
    config.tls = page.ssl.then(|| HttpTls {
        sni: if page.sni { Sni::Virtualhost } else { Sni::Off },
        ..HttpTls::default()
    });
    let found = Arc::default();
    let checker = Hashing {
        check: HttpCheck::new(config).map_err(|error| error.to_string())?,
        found: Arc::clone(&found),
    };
    let mut connect = ConnectOptions::to(page.server);
    connect.mark = page.mark;
    let timing = Timing {
        warmup: Duration::ZERO,
        connect_timeout: page.timeout,
        local_error: LocalErrorPolicy::FailAfter(0),
        alpha: true,
        ..Timing::default()
    };
    let mut driver = Driver::new(DriverOptions::new(0)).map_err(|error| error.to_string())?;
    let checker = CheckerConfig::new(checker, connect, timing);
    let server = driver.add_server(ServerConfig::new(vec![checker]));
    let failure = loop {
        match driver.next_event().await {
            Event::CheckerUp { .. } => break None,
            Event::CheckerDown { failure, .. } => break Some(failure),
            _ => {}
        }
    };
    let status = driver.monitor().checkers(server).next();
    let took = status.and_then(|status| status.latency).unwrap_or_default();
    match (
        *found.lock().unwrap_or_else(PoisonError::into_inner),
        failure,
    ) {
        (Some(digest), None | Some(Failure::DigestMismatch)) => Ok((digest, took)),
        (_, Some(failure)) => Err(failure.to_string()),
        (None, None) => Err("no body".to_owned()),
    }
}

/// A check that tells the digest.
#[derive(Debug)]
struct Hashing {
    check: HttpCheck,
    found: Arc<Mutex<Option<BodyDigest>>>,
}

impl Hashing {
    fn tell(&self) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = self.check.digest();
    }
}

impl Checker for Hashing {
    fn name(&self) -> &'static str {
        self.check.name()
    }

    fn begin(&mut self, attempt: &Attempt) -> Start {
        self.check.begin(attempt)
    }

    fn handle_connected(&mut self) -> Next {
        self.check.handle_connected()
    }

    fn handle_data(&mut self, data: &[u8]) -> Next {
        let next = self.check.handle_data(data);
        self.tell();
        next
    }

    fn handle_closed(&mut self) -> Outcome {
        let outcome = self.check.handle_closed();
        self.tell();
        outcome
    }

    fn handle_error(&mut self, error: ReadError) -> Outcome {
        self.check.handle_error(error)
    }
}
