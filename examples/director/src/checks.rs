//! The checkers of the configuration as those of `lvs_health`.

mod scripts;

use std::net::SocketAddr;
use std::sync::Arc;

use lvs_conf::Config;
use lvs_conf::model::{
    Checker as ConfChecker, FileCheck as ConfFileCheck, HttpCheck as ConfHttpCheck, HttpVersion,
    MiscCheck as ConfMiscCheck, Probe, Regex, TrackFile, UdpCheck as ConfUdpCheck,
};
use lvs_health::{
    BfdCheck, BodyDigest, BodyPattern, Checker, CheckerConfig, ConnectOptions, DnsCheck, DnsType,
    Failure, FileCheck, HttpCheck, HttpConfig, HttpProtocol, HttpTls, MiscCheck, Next, Outcome,
    PingCheck, RegexOptions, Schedule, Script, ScriptUser, SmtpCheck, Sni, StatusSet, TcpCheck,
    Timing, UdpCheck, UdpConfig, UdpPattern, UdpReply, Url,
};

use crate::notify::scripts::Policy;

pub use scripts::CheckScripts;

/// What all checks of a configuration refer to.
#[derive(Debug)]
pub struct Checking<'a> {
    config: &'a Config,
    policy: Policy,
}

impl<'a> Checking<'a> {
    /// Of this configuration, on this host.
    pub fn new(config: &'a Config) -> Self {
        Self {
            config,
            policy: Policy::new(&config.global),
        }
    }
}

/// A check of a real server.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedCheck {
    checker: ConfChecker,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// The configuration says it all.
    Plain,
    Script(Script),
    File {
        check: FileCheck,
        path: String,
    },
    /// A BFD session decides.
    Session(String),
    /// It can't be made: the server is down.
    Fault(String),
}

impl PlannedCheck {
    /// The check, and what is worth saying about it.
    pub fn new(checker: &ConfChecker, checking: &Checking<'_>) -> (Self, Vec<String>) {
        let mut remarks = Vec::new();
        let kind = match checker {
            ConfChecker::BfdCheck(bfd) => Kind::Session(bfd.name.clone()),
            ConfChecker::MiscCheck(misc) => script(misc, checking, &mut remarks),
            ConfChecker::FileCheck(file) => tracked(file, checking, &mut remarks),
            ConfChecker::HttpGet(http) | ConfChecker::SslGet(http) => {
                for regex in http.urls.iter().filter_map(|url| url.regex.as_ref()) {
                    if let Err(error) = pattern(regex) {
                        remarks.push(format!("{error}; bodies are not matched by it"));
                    }
                }
                Kind::Plain
            }
            _ => Kind::Plain,
        };
        let planned = Self {
            checker: checker.clone(),
            kind,
        };
        (planned, remarks)
    }

    /// Whether it is a ping.
    pub fn is_ping(&self) -> bool {
        matches!(self.checker, ConfChecker::PingCheck(_))
    }

    /// The file that decides it.
    pub fn file(&self) -> Option<(&str, FileCheck)> {
        match &self.kind {
            Kind::File { check, path } => Some((path, *check)),
            _ => None,
        }
    }

    /// The BFD session that decides it.
    pub fn session(&self) -> Option<&str> {
        match &self.kind {
            Kind::Session(name) => Some(name),
            _ => None,
        }
    }

    /// What is known of it from the start: that it can't be made.
    pub fn fault(&self) -> Option<Outcome> {
        match &self.kind {
            Kind::Fault(reason) => {
                let reason = format!("the check can't be made: {reason}");
                Some(Outcome::Down(Failure::Other(reason.into())))
            }
            _ => None,
        }
    }

    /// The checker to run.
    pub fn config(&self) -> CheckerConfig {
        let probe = self.checker.probe();
        CheckerConfig {
            checker: self.checker(),
            connect: connect_options(probe),
            timing: self.timing(probe),
            share: true,
        }
    }

    fn checker(&self) -> Box<dyn Checker> {
        match (&self.checker, &self.kind) {
            (checker, Kind::Fault(_)) => Box::new(Impossible(checker.keyword())),
            (_, Kind::File { check, .. }) => Box::new(*check),
            (_, Kind::Session(name)) => Box::new(BfdCheck::new(name.as_str())),
            (ConfChecker::MiscCheck(misc), Kind::Script(script)) => {
                Box::new(MiscCheck::new(script.clone(), misc.dynamic))
            }
            (ConfChecker::HttpGet(http), _) => http_check(http, None),
            (ConfChecker::SslGet(http), _) => http_check(http, Some(tls(http))),
            (ConfChecker::SmtpCheck(smtp), _) => match SmtpCheck::new(smtp.helo_name.as_str()) {
                Ok(check) => Box::new(check),
                Err(_) => Box::new(SmtpCheck::default()),
            },
            (ConfChecker::DnsCheck(dns), _) => {
                let kind: DnsType = dns.kind.as_str().parse().unwrap_or_default();
                let root = || DnsCheck::new("", kind).expect("the root is a valid name");
                Box::new(DnsCheck::new(&dns.name, kind).unwrap_or_else(|_| root()))
            }
            (ConfChecker::UdpCheck(udp), _) => Box::new(UdpCheck::new(udp_config(udp))),
            (ConfChecker::PingCheck(_), _) => Box::new(PingCheck::new()),
            _ => Box::new(TcpCheck),
        }
    }

    fn timing(&self, probe: &Probe) -> Timing {
        let limit = match &self.checker {
            ConfChecker::MiscCheck(misc) => Some(misc.timeout),
            // Two steps may take their full time, and no server can drip for ever.
            ConfChecker::HttpGet(_) | ConfChecker::SslGet(_) | ConfChecker::SmtpCheck(_) => {
                Some(probe.connect_timeout.saturating_mul(2))
            }
            // The others have a single step.
            _ => None,
        };
        Timing {
            delay_loop: probe.delay_loop,
            retry: probe.retry,
            delay_before_retry: probe.delay_before_retry,
            connect_timeout: probe.connect_timeout,
            attempt_timeout: limit,
            warmup: probe.warmup,
            alpha: probe.alpha && !matches!(self.checker, ConfChecker::FileCheck(_)),
            log_all_failures: probe.log_all_failures,
            ..Timing::default().keepalived()
        }
    }
}

/// A check that can't be made: what is to be said of it is said from outside.
#[derive(Debug)]
struct Impossible(&'static str);

impl Checker for Impossible {
    fn name(&self) -> &'static str {
        self.0
    }

    fn schedule(&self) -> Schedule {
        Schedule::External
    }

    fn handle_connected(&mut self) -> Next {
        Next::Wait
    }
}

fn script(misc: &ConfMiscCheck, checking: &Checking<'_>, remarks: &mut Vec<String>) -> Kind {
    match checking.policy.check(&misc.script) {
        Err(refusal) => {
            remarks.push(format!("{refusal}; the server counts as down"));
            Kind::Fault(refusal.to_string())
        }
        Ok(checked) => {
            remarks.extend(checked.remarks.iter().map(ToString::to_string));
            let account = checked.command.account.filter(|account| !account.is_own());
            Kind::Script(Script {
                program: checked.command.program,
                arguments: checked.command.arguments,
                user: account.map(|account| ScriptUser {
                    uid: account.uid,
                    gid: account.gid,
                    groups: account.groups,
                }),
            })
        }
    }
}

fn tracked(file: &ConfFileCheck, checking: &Checking<'_>, remarks: &mut Vec<String>) -> Kind {
    let mut files = checking.config.track_files.iter();
    let Some(TrackFile {
        path,
        weight,
        reverse,
        ..
    }) = files.find(|tracked| tracked.name == file.name)
    else {
        let reason = format!("there is no track_file {}", file.name);
        remarks.push(format!("{reason}; the server counts as down"));
        return Kind::Fault(reason);
    };
    Kind::File {
        check: FileCheck {
            weight: file.weight.unwrap_or_else(|| i32::from(*weight)),
            reverse: file.reverse.unwrap_or(*reverse),
        },
        path: path.clone(),
    }
}

fn http_check(http: &ConfHttpCheck, tls: Option<HttpTls>) -> Box<dyn Checker> {
    let urls = http.urls.iter().map(|url| {
        let mut built = Url::new(url.path.clone());
        built.virtualhost.clone_from(&url.virtualhost);
        built.digest = url.digest.map(BodyDigest);
        let codes = url.status_codes.iter().map(|(from, to)| *from..=*to);
        built.status = StatusSet::new(codes).unwrap_or_default();
        built.pattern = url.regex.as_ref().and_then(|regex| pattern(regex).ok());
        built
    });
    let mut config = HttpConfig::new(urls.collect());
    config.tls = tls;
    config.protocol = match http.version {
        HttpVersion::Http10 => HttpProtocol::Http10,
        HttpVersion::Http10Close => HttpProtocol::Http10Close,
        HttpVersion::Http11 => HttpProtocol::Http11,
    };
    config.fast_recovery = http.fast_recovery;
    match HttpCheck::new(config) {
        Ok(check) => Box::new(check),
        // What a plan holds was checked when the file was read; a connection still says something.
        Err(_) => Box::new(TcpCheck),
    }
}

fn tls(http: &ConfHttpCheck) -> HttpTls {
    HttpTls {
        sni: match &http.sni_name {
            Some(name) => Sni::Name(name.clone()),
            None => Sni::Virtualhost,
        },
        verify: false,
        close_notify: http.tls_compliant || http.urls.iter().any(|url| url.tls_compliant),
    }
}

fn pattern(regex: &Regex) -> Result<BodyPattern, String> {
    let words = regex.options.iter().map(String::as_str);
    let options = RegexOptions::from_words(words).map_err(|error| error.to_string())?;
    let pattern = BodyPattern::new(&regex.pattern, options).map_err(|error| error.to_string())?;
    let offset = |offset: u32| usize::try_from(offset).unwrap_or(usize::MAX);
    let pattern = pattern.within(offset(regex.min_offset), regex.max_offset.map(offset));
    Ok(match regex.negated {
        true => pattern.negated(),
        false => pattern,
    })
}

fn udp_config(udp: &ConfUdpCheck) -> UdpConfig {
    let payload = match udp.payload.is_empty() {
        true => UdpConfig::default().payload,
        false => udp.payload.clone().into(),
    };
    UdpConfig {
        payload,
        reply: udp.require_reply.then(|| UdpReply {
            min_length: udp.min_reply_length,
            max_length: udp.max_reply_length,
            ..UdpReply::new(UdpPattern::from_nibbles(udp.reply.iter().copied()))
        }),
    }
}

fn connect_options(probe: &Probe) -> ConnectOptions {
    ConnectOptions {
        destination: probe.destination,
        bind: probe
            .bind_address
            .map(|addr| SocketAddr::new(addr, probe.bind_port.unwrap_or(0))),
        bind_interface: probe.bind_interface.as_deref().map(Arc::from),
        mark: probe.fwmark,
    }
}
