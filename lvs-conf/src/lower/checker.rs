//! Checkers and the settings that they inherit.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Context;
use super::lvs::MAX_TIMEOUT;
use crate::diag::{Code, Consequence, Diagnostic};
use crate::model::{Checker, Family, GlobalDefs, HttpCheck, HttpVersion, Probe, Regex, Url};
use crate::source::Span;
use crate::tree::Statement;

/// Timing as it is handed down from virtual server to real server to checker. `None` leaves it to the kind of checker.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    pub(super) delay_loop: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) retry: Option<u32>,
    pub(super) delay_before_retry: Option<Duration>,
    pub(super) warmup: Option<Duration>,
    pub(super) alpha: bool,
    pub(super) log_all_failures: bool,
}

impl Schedule {
    /// The built-in values.
    pub(super) fn global(global: &GlobalDefs) -> Self {
        Self {
            delay_loop: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            retry: None,
            delay_before_retry: None,
            warmup: None,
            alpha: false,
            log_all_failures: global.checker_log_all_failures,
        }
    }

    /// Reads a timing keyword; false if the statement is none.
    pub(super) fn read(
        &mut self,
        cx: &mut Context,
        statement: &Statement,
        least_retry: u32,
    ) -> bool {
        match statement.spec.canonical() {
            "delay_loop" => {
                self.delay_loop = cx
                    .timer_arg(statement, 6, 1..=u64::MAX)
                    .unwrap_or(self.delay_loop);
            }
            "connect_timeout" => {
                self.connect_timeout = cx
                    .timer_arg(statement, 6, 1..=MAX_TIMEOUT)
                    .unwrap_or(self.connect_timeout);
            }
            "retry" | "nb_get_retry" => {
                self.retry = cx.u32_arg(statement, least_retry..=u32::MAX).or(self.retry);
            }
            "delay_before_retry" => {
                self.delay_before_retry = cx
                    .timer_arg(statement, 6, 0..=u64::MAX)
                    .or(self.delay_before_retry);
            }
            "warmup" => self.warmup = cx.timer_arg(statement, 6, 0..=u64::MAX).or(self.warmup),
            _ => return false,
        }
        true
    }
}

/// Reads one checker; `None` means that it is dropped.
pub(super) fn read(
    cx: &mut Context,
    block: &Statement,
    server: SocketAddr,
    schedule: &Schedule,
    virtualhost: Option<&str>,
) -> Option<Checker> {
    let http = block.spec.name != "TCP_CHECK";
    let mut schedule = schedule.clone();
    let mut probe = Probe {
        destination: server,
        bind_address: None,
        bind_port: None,
        bind_interface: None,
        connect_timeout: schedule.connect_timeout,
        fwmark: 0,
        retry: 1,
        delay_before_retry: Duration::from_secs(if http { 3 } else { 1 }),
        delay_loop: schedule.delay_loop,
        warmup: schedule.delay_loop,
        alpha: schedule.alpha,
        log_all_failures: schedule.log_all_failures,
    };
    let mut connect_ip = None;
    let mut check = HttpSettings::default();
    for statement in block.statements() {
        if !schedule.read(cx, statement, 0)
            && !connection(cx, statement, &mut probe, &mut connect_ip, &mut schedule)
            && !check.read(cx, statement)
        {
            cx.not_acted_on(statement);
        }
    }
    if let Some(address) = connect_ip {
        probe.destination.set_ip(address);
    }
    probe.connect_timeout = schedule.connect_timeout;
    probe.retry = schedule.retry.unwrap_or(probe.retry);
    probe.delay_before_retry = schedule
        .delay_before_retry
        .unwrap_or(probe.delay_before_retry);
    probe.delay_loop = schedule.delay_loop;
    probe.warmup = schedule.warmup.unwrap_or(schedule.delay_loop);
    probe.alpha = schedule.alpha;
    probe.log_all_failures = schedule.log_all_failures;
    if let SocketAddr::V6(destination) = probe.destination
        && destination.ip().is_unicast_link_local()
        && probe.bind_interface.is_none()
    {
        cx.push(
            Diagnostic::new(
                Code::InvalidValue,
                Consequence::Drop,
                block.head(),
                "a link-local destination needs an interface, the checker is dropped",
            )
            .expected("`bind_if <IFNAME>`"),
        );
        return None;
    }
    if !http {
        return Some(Checker::TcpCheck(probe));
    }
    let check = check.finish(cx, block, probe, virtualhost)?;
    Some(if block.spec.name == "SSL_GET" {
        Checker::SslGet(check)
    } else {
        Checker::HttpGet(check)
    })
}

/// `connect_ip` and `bindto` must be of one family, otherwise the later one is ignored.
fn agrees(cx: &mut Context, other: Option<IpAddr>, address: IpAddr, span: Span) -> bool {
    let agrees = other.is_none_or(|other| Family::of(other) == Family::of(address));
    if !agrees {
        cx.report(
            Code::FamilyMismatch,
            Consequence::Ignore,
            span,
            "`connect_ip` and `bindto` must be of one family",
        );
    }
    agrees
}

fn connection(
    cx: &mut Context,
    statement: &Statement,
    probe: &mut Probe,
    connect_ip: &mut Option<IpAddr>,
    schedule: &mut Schedule,
) -> bool {
    let span = statement.head();
    match statement.spec.canonical() {
        "connect_ip" => {
            if let Some(address) = cx.address_arg(statement, Code::InvalidValue)
                && agrees(cx, probe.bind_address, address, span)
            {
                *connect_ip = Some(address);
            }
        }
        "connect_port" => {
            if let Some(port) = port(cx, statement) {
                probe.destination.set_port(port);
            }
        }
        "bindto" => {
            if let Some(address) = cx.address_arg(statement, Code::InvalidValue)
                && agrees(cx, *connect_ip, address, span)
            {
                probe.bind_address = Some(address);
            }
        }
        "bind_port" => probe.bind_port = port(cx, statement).or(probe.bind_port),
        "bind_if" => {
            if let Some(name) = cx.interface_arg(statement) {
                probe.bind_interface = Some(name);
            }
        }
        "fwmark" => probe.fwmark = cx.u32_arg(statement, 0..=u32::MAX).unwrap_or(probe.fwmark),
        "alpha" => schedule.alpha = cx.bool_arg(statement).unwrap_or(schedule.alpha),
        "log_all_failures" => {
            schedule.log_all_failures = cx.bool_arg(statement).unwrap_or(schedule.log_all_failures);
        }
        _ => return false,
    }
    true
}

fn port(cx: &mut Context, statement: &Statement) -> Option<u16> {
    cx.u32_arg(statement, 1..=65535)
        .and_then(|p| u16::try_from(p).ok())
}

/// What HTTP checks have beyond a connection.
#[derive(Default)]
struct HttpSettings {
    version: Option<HttpVersion>,
    enable_sni: bool,
    sni_name: Option<String>,
    fast_recovery: bool,
    tls_compliant: bool,
    virtualhost: Option<String>,
    urls: Vec<Url>,
}

impl HttpSettings {
    fn read(&mut self, cx: &mut Context, statement: &Statement) -> bool {
        match statement.spec.canonical() {
            "url" => self.urls.extend(url(cx, statement)),
            "virtualhost" => self.virtualhost = cx.text_arg(statement),
            "http_protocol" => {
                if let Some(word) = statement.args.first() {
                    let text = if word.text == "1.0c" {
                        "1.0C"
                    } else {
                        &word.text
                    };
                    self.version = HttpVersion::from_word(text);
                    if self.version.is_none() {
                        cx.push(
                            Diagnostic::new(
                                Code::InvalidValue,
                                Consequence::Ignore,
                                word.span,
                                format!("unknown version `{}`", word.text),
                            )
                            .expected("`1.0`, `1.0C` or `1.1`"),
                        );
                    }
                }
            }
            "enable_sni" => self.enable_sni = cx.bool_arg(statement).unwrap_or(self.enable_sni),
            "sni_name" => {
                self.enable_sni = true;
                self.sni_name = cx.text_arg(statement);
            }
            "fast_recovery" => {
                self.fast_recovery = cx.bool_arg(statement).unwrap_or(self.fast_recovery);
            }
            "tls_compliant" => {
                self.tls_compliant = cx.bool_arg(statement).unwrap_or(self.tls_compliant);
            }
            _ => return false,
        }
        true
    }

    fn finish(
        mut self,
        cx: &mut Context,
        block: &Statement,
        probe: Probe,
        virtualhost: Option<&str>,
    ) -> Option<HttpCheck> {
        if self.urls.is_empty() {
            cx.push(
                Diagnostic::new(
                    Code::HttpCheckWithoutUrl,
                    Consequence::Drop,
                    block.head(),
                    format!("{} without url is dropped", block.spec.name),
                )
                .expected("`url { path <STR> }`"),
            );
            return None;
        }
        for url in &mut self.urls {
            if url.virtualhost.is_none() {
                url.virtualhost = self
                    .virtualhost
                    .clone()
                    .or_else(|| virtualhost.map(str::to_owned));
            }
        }
        self.urls.shrink_to_fit();
        Some(HttpCheck {
            probe,
            version: self.version.unwrap_or(HttpVersion::Http10),
            enable_sni: self.enable_sni,
            sni_name: self.sni_name,
            fast_recovery: self.fast_recovery,
            tls_compliant: self.tls_compliant,
            urls: self.urls,
        })
    }
}

fn url(cx: &mut Context, block: &Statement) -> Option<Url> {
    let mut path = None;
    let mut digest = None;
    let mut status_codes = Vec::new();
    let mut virtualhost = None;
    let mut pattern = None;
    let mut regex = Regex {
        pattern: String::new(),
        negated: false,
        options: Vec::new(),
        min_offset: 0,
        max_offset: None,
    };
    for statement in block.statements() {
        match statement.spec.canonical() {
            "path" => path = cx.text_arg(statement),
            "digest" => {
                let value = self::digest(cx, statement);
                cx.first_wins(statement, &mut digest, value);
            }
            "status_code" => status_ranges(cx, statement, &mut status_codes),
            "virtualhost" => virtualhost = cx.text_arg(statement),
            "regex" => pattern = self::pattern(cx, statement).or(pattern),
            "regex_no_match" => regex.negated = true,
            "regex_options" => regex
                .options
                .extend(statement.args.iter().map(|w| w.text.to_string())),
            "regex_min_offset" => {
                regex.min_offset = cx.u32_arg(statement, 0..=u32::MAX).unwrap_or(0);
            }
            "regex_max_offset" => regex.max_offset = cx.u32_arg(statement, 0..=u32::MAX),
            _ => cx.not_acted_on(statement),
        }
    }
    if status_codes.is_empty() {
        status_codes.push((200, 299));
    }
    if regex.max_offset.is_some_and(|max| regex.min_offset > max) {
        cx.report(
            Code::InvalidValue,
            Consequence::Log,
            block.keyword.span,
            "regex_min_offset exceeds regex_max_offset, both are reset",
        );
        (regex.min_offset, regex.max_offset) = (0, None);
    }
    let Some(path) = path else {
        cx.push(
            Diagnostic::new(
                Code::HttpUrlWithoutPath,
                Consequence::Drop,
                block.keyword.span,
                "url without path is dropped",
            )
            .expected("`path <STR>`"),
        );
        return None;
    };
    status_codes.shrink_to_fit();
    Some(Url {
        path,
        digest,
        status_codes,
        virtualhost,
        regex: pattern.map(|pattern| Regex { pattern, ..regex }),
    })
}

fn digest(cx: &mut Context, statement: &Statement) -> Option<[u8; 16]> {
    let word = statement.args.first()?;
    let mut digest = [0; 16];
    let text = word.text.as_bytes();
    let valid = text.len() == 32
        && digest.iter_mut().zip(text.chunks(2)).all(|(byte, pair)| {
            let nibble = |b: u8| char::from(b).to_digit(16);
            match (nibble(pair[0]), nibble(pair[1])) {
                (Some(high), Some(low)) => {
                    *byte = (high * 16 + low) as u8;
                    true
                }
                _ => false,
            }
        });
    if !valid {
        cx.push(
            Diagnostic::new(
                Code::DigestInvalid,
                Consequence::Ignore,
                word.span,
                format!("`{}` is not an MD5 digest", word.text),
            )
            .expected("32 hex digits"),
        );
    }
    valid.then_some(digest)
}

fn status_ranges(cx: &mut Context, statement: &Statement, ranges: &mut Vec<(u16, u16)>) {
    for word in &statement.args {
        let (from, to) = word
            .text
            .split_once('-')
            .unwrap_or((&word.text, &word.text));
        match (from.parse::<u16>(), to.parse::<u16>()) {
            (Ok(from), Ok(to)) if from <= to && from >= 100 && to <= 599 => ranges.push((from, to)),
            _ => cx.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    Consequence::Ignore,
                    word.span,
                    format!("`{}` is not a status code or range", word.text),
                )
                .expected("100 to 599, `N` or `N-M`"),
            ),
        }
    }
}

fn pattern(cx: &mut Context, statement: &Statement) -> Option<String> {
    match statement.script_words() {
        Ok(words) if words.len() == 2 => words.get(1).map(|w| w.text.to_string()),
        Ok(_) => {
            cx.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    Consequence::Ignore,
                    statement.head(),
                    "`regex` takes exactly one pattern",
                )
                .hint("put it in quotes"),
            );
            None
        }
        Err(error) => {
            cx.report(
                Code::UnterminatedScriptQuote,
                Consequence::Ignore,
                statement.head(),
                format!("`regex` is ignored: {error}"),
            );
            None
        }
    }
}
