//! Checkers and the settings that they inherit.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Context;
use super::track::Names;
use crate::diag::{Code, Consequence, Diagnostic};
use crate::keywords::Place;
use crate::keywords::preset::preset;
use crate::model::{
    BfdCheck, Checker, DnsCheck, DnsType, Family, FileCheck, GlobalDefs, MiscCheck, Probe, Script,
    SmtpCheck, UdpCheck,
};
use crate::settings::{Settings as _, settings};
use crate::source::Span;
use crate::tree::Statement;

mod http;

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

settings! { Schedule {
    "delay_loop" => delay_loop,
    "connect_timeout" => connect_timeout,
    "retry" => retry,
    "nb_get_retry" => retry,
    "delay_before_retry" => delay_before_retry,
    "warmup" => warmup,
    "alpha" => alpha,
    "log_all_failures" => log_all_failures,
} }

impl Schedule {
    /// The built-in values.
    pub(super) fn global(global: &GlobalDefs) -> Self {
        Self {
            delay_loop: preset!(duration, VirtualServer, "delay_loop"),
            connect_timeout: preset!(duration, VirtualServer, "connect_timeout"),
            retry: None,
            delay_before_retry: None,
            warmup: None,
            alpha: false,
            log_all_failures: global.checker_log_all_failures,
        }
    }

    /// Reads a timing keyword; false if the statement is none.
    pub(super) fn read(&mut self, cx: &mut Context, statement: &Statement) -> bool {
        self.set(cx, statement)
    }
}

settings! { Probe {
    "bind_port" => bind_port,
    "fwmark" => fwmark,
} }

settings! { SmtpCheck {
    "helo_name" => helo_name,
} }

settings! { UdpCheck {
    "min_reply_length" => min_reply_length,
    "max_reply_length" => max_reply_length,
} }

/// The real server that is checked.
pub(super) struct Target<'a> {
    pub(super) address: SocketAddr,
    pub(super) schedule: &'a Schedule,
    pub(super) virtualhost: Option<&'a str>,
    pub(super) names: &'a Names,
    /// Place of the virtual server in the file.
    pub(super) at: usize,
}

/// Reads one checker block, which may be several checkers or none.
pub(super) fn read(
    cx: &mut Context,
    block: &Statement,
    target: &Target<'_>,
    checkers: &mut Vec<Checker>,
) {
    let mut draft = Draft {
        schedule: target.schedule.clone(),
        probe: probe(target.address, target.schedule),
        connect_ip: None,
    };
    let kind = block.spec.name;
    match kind {
        "BFD_CHECK" => checkers.extend(bfd(cx, block, target, draft, checkers)),
        "FILE_CHECK" => checkers.extend(file(cx, block, target)),
        "MISC_CHECK" => checkers.extend(misc(cx, block, draft)),
        "SMTP_CHECK" => smtp(cx, block, target, draft, checkers),
        "DNS_CHECK" => checkers.extend(dns(cx, block, draft)),
        "UDP_CHECK" => checkers.extend(udp(cx, block, draft)),
        "HTTP_GET" | "SSL_GET" => checkers.extend(http::http(cx, block, target, draft)),
        _ => {
            for statement in block.statements() {
                draft.read(cx, statement);
            }
            let probe = draft.finish(cx, block, Unset::default());
            checkers.extend(probe.map(|probe| match kind {
                "PING_CHECK" => Checker::PingCheck(probe),
                _ => Checker::TcpCheck(probe),
            }));
        }
    }
}

pub(super) fn probe(destination: SocketAddr, schedule: &Schedule) -> Probe {
    Probe {
        destination,
        bind_address: None,
        bind_port: None,
        bind_interface: None,
        connect_timeout: schedule.connect_timeout,
        fwmark: preset!(number as u32, TcpCheck, "fwmark"),
        retry: preset!(number as u32, TcpCheck, "retry"),
        delay_before_retry: preset!(duration, TcpCheck, "delay_before_retry"),
        delay_loop: schedule.delay_loop,
        warmup: schedule.delay_loop,
        alpha: schedule.alpha,
        log_all_failures: schedule.log_all_failures,
    }
}

/// For checkers that are told of changes and probe nothing.
fn unused_probe(destination: SocketAddr) -> Probe {
    probe(destination, &Schedule::global(&GlobalDefs::default()))
}

/// What applies where nobody said anything, by the kind of checker.
struct Unset {
    retry: u32,
    /// `None`: the time between checks.
    delay_before_retry: Option<Duration>,
}

impl Default for Unset {
    fn default() -> Self {
        Self {
            retry: preset!(number as u32, TcpCheck, "retry"),
            delay_before_retry: Some(preset!(duration, TcpCheck, "delay_before_retry")),
        }
    }
}

/// Connection and timing while they are read.
struct Draft {
    schedule: Schedule,
    probe: Probe,
    connect_ip: Option<IpAddr>,
}

impl Draft {
    fn read(&mut self, cx: &mut Context, statement: &Statement) -> bool {
        self.schedule.set(cx, statement) || self.connection(cx, statement)
    }

    fn connection(&mut self, cx: &mut Context, statement: &Statement) -> bool {
        let span = statement.head();
        let probe = &mut self.probe;
        match statement.spec.canonical() {
            "connect_ip" => {
                if let Some(address) = cx.address_arg(statement, Code::InvalidValue)
                    && agrees(cx, probe.bind_address, address, span)
                {
                    self.connect_ip = Some(address);
                }
            }
            "connect_port" => {
                let mut port = None;
                cx.set(statement, &mut port);
                if let Some(port) = port {
                    probe.destination.set_port(port);
                }
            }
            "bindto" => {
                if let Some(address) = cx.address_arg(statement, Code::InvalidValue)
                    && agrees(cx, self.connect_ip, address, span)
                {
                    probe.bind_address = Some(address);
                }
            }
            "bind_if" => {
                if let Some(name) = cx.interface_arg(statement) {
                    probe.bind_interface = Some(name);
                }
            }
            _ => return probe.set(cx, statement),
        }
        true
    }

    /// `None` means that the checker is dropped.
    fn finish(self, cx: &mut Context, block: &Statement, unset: Unset) -> Option<Probe> {
        let Self {
            schedule,
            mut probe,
            connect_ip,
        } = self;
        if let Some(address) = connect_ip {
            probe.destination.set_ip(address);
        }
        let delay_loop = schedule.delay_loop;
        probe.connect_timeout = schedule.connect_timeout;
        probe.retry = schedule.retry.unwrap_or(unset.retry);
        probe.delay_before_retry = schedule
            .delay_before_retry
            .or(unset.delay_before_retry)
            .unwrap_or(delay_loop);
        probe.delay_loop = delay_loop;
        probe.warmup = schedule.warmup.unwrap_or(delay_loop);
        probe.alpha = schedule.alpha;
        probe.log_all_failures = schedule.log_all_failures;
        if let SocketAddr::V6(destination) = probe.destination
            && destination.ip().is_unicast_link_local()
            && probe.bind_interface.is_none()
            && block.spec.name != "MISC_CHECK"
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
        Some(probe)
    }
}

fn bfd(
    cx: &mut Context,
    block: &Statement,
    target: &Target<'_>,
    mut draft: Draft,
    others: &[Checker],
) -> Option<Checker> {
    let mut name = None;
    for statement in block.statements() {
        if statement.spec.name == "name" {
            name = statement.args.first();
        } else {
            draft.schedule.set(cx, statement);
        }
    }
    let used = |name: &str| {
        others
            .iter()
            .any(|other| matches!(other, Checker::BfdCheck(bfd) if bfd.name == name))
    };
    let why = match name {
        None => "BFD_CHECK names no BFD instance".to_owned(),
        Some(word) if used(&word.text) => format!("`{}` is checked already", word.text),
        Some(word) if !target.names.has_checker_bfd(&word.text, target.at) => {
            format!(
                "BFD instance `{}` is not defined before this line",
                word.text
            )
        }
        Some(word) => {
            return Some(Checker::BfdCheck(BfdCheck {
                probe: Probe {
                    alpha: draft.schedule.alpha,
                    ..unused_probe(target.address)
                },
                name: word.text.to_string(),
            }));
        }
    };
    cx.push(
        Diagnostic::new(
            Code::TrackBfdUndefined,
            Consequence::Drop,
            name.map_or_else(|| block.head(), |word| word.span),
            format!("{why}, the checker is dropped"),
        )
        .expected("`name <BFD>`"),
    );
    None
}

fn file(cx: &mut Context, block: &Statement, target: &Target<'_>) -> Option<Checker> {
    let mut name = None;
    let (mut weight, mut reverse) = (None, None);
    for statement in block.statements() {
        if statement.spec.name == "track_file" {
            name = statement.args.first();
        } else if let Some((value, direction)) = super::small::weight(cx, statement) {
            (weight, reverse) = (Some(value), direction);
        }
    }
    match name {
        Some(word) if target.names.has_file(&word.text, target.at) => {
            Some(Checker::FileCheck(FileCheck {
                probe: unused_probe(target.address),
                name: word.text.to_string(),
                weight,
                reverse,
            }))
        }
        _ => {
            cx.push(
                Diagnostic::new(
                    Code::TrackFileUndefined,
                    Consequence::Drop,
                    name.map_or_else(|| block.head(), |word| word.span),
                    "FILE_CHECK names no file that is defined before this line, it is dropped",
                )
                .expected("`track_file <NAME>`"),
            );
            None
        }
    }
}

fn misc(cx: &mut Context, block: &Statement, mut draft: Draft) -> Option<Checker> {
    let mut script: Option<Script> = None;
    let (mut user, mut timeout, mut dynamic) = (None, None, false);
    for statement in block.statements() {
        match statement.spec.canonical() {
            "misc_path" => script = cx.script_arg(statement).or(script),
            "misc_timeout" => cx.set(statement, &mut timeout),
            "misc_dynamic" => dynamic = true,
            "user" => cx.set(statement, &mut user),
            _ => {
                draft.schedule.set(cx, statement);
            }
        }
    }
    let unset = Unset {
        retry: preset!(number as u32, MiscCheck, "retry"),
        ..Unset::default()
    };
    let mut probe = draft.finish(cx, block, unset)?;
    probe.connect_timeout = unused_probe(probe.destination).connect_timeout;
    let Some(mut script) = script else {
        cx.push(
            Diagnostic::new(
                Code::MiscCheckWithoutPath,
                Consequence::Drop,
                cx.whole(block),
                "MISC_CHECK without command is dropped",
            )
            .expected("`misc_path <CMD>`"),
        );
        return None;
    };
    script.user = user;
    Some(Checker::MiscCheck(MiscCheck {
        timeout: timeout.unwrap_or(probe.delay_loop),
        probe,
        script,
        dynamic,
    }))
}

/// Each `host` is a check of its own; if there are only hosts, the first one is the check.
fn smtp(
    cx: &mut Context,
    block: &Statement,
    target: &Target<'_>,
    mut draft: Draft,
    checkers: &mut Vec<Checker>,
) {
    let mut check = SmtpCheck {
        probe: draft.probe.clone(),
        helo_name: SmtpCheck::DEFAULT_HELO.to_owned(),
    };
    let mut hosts = Vec::new();
    let mut own = false;
    for statement in block.statements() {
        if statement.spec.name == "host" {
            let mut host = Draft {
                schedule: target.schedule.clone(),
                probe: probe(target.address, target.schedule),
                connect_ip: None,
            };
            for statement in statement.statements() {
                host.read(cx, statement);
            }
            hosts.push(host);
        } else if draft.read(cx, statement) {
            own |= crate::keywords::find(Place::SmtpHost, statement.spec.name).is_some();
        } else {
            check.set(cx, statement);
        }
    }
    let timing = draft.schedule.clone();
    for host in &mut hosts {
        host.schedule = Schedule {
            connect_timeout: host.schedule.connect_timeout,
            ..timing.clone()
        };
    }
    if own || hosts.is_empty() {
        hosts.insert(0, draft);
    }
    for host in hosts {
        if let Some(probe) = host.finish(cx, block, Unset::default()) {
            checkers.push(Checker::SmtpCheck(SmtpCheck {
                probe,
                helo_name: check.helo_name.clone(),
            }));
        }
    }
}

fn dns(cx: &mut Context, block: &Statement, mut draft: Draft) -> Option<Checker> {
    let mut kind = DnsType::DEFAULT;
    let mut name: Option<String> = None;
    for statement in block.statements() {
        match statement.spec.canonical() {
            "type" => {
                let of = |word: &str| DnsType::from_word(&word.to_ascii_uppercase());
                kind = cx.word_arg(statement, of, DnsType::ALL).unwrap_or(kind);
            }
            "name" => match statement.args.first() {
                Some(word) if has_empty_label(&word.text) => cx.invalid(
                    word.span,
                    format!("`{}` has an empty label", word.text),
                    "a host name",
                ),
                _ => cx.set(statement, &mut name),
            },
            _ => {
                draft.read(cx, statement);
            }
        }
    }
    let unset = Unset {
        retry: preset!(number as u32, DnsCheck, "retry"),
        delay_before_retry: None,
    };
    Some(Checker::DnsCheck(DnsCheck {
        probe: draft.finish(cx, block, unset)?,
        kind,
        name: name.unwrap_or_default(),
    }))
}

fn has_empty_label(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    !name.is_empty() && name.split('.').any(str::is_empty)
}

fn udp(cx: &mut Context, block: &Statement, mut draft: Draft) -> Option<Checker> {
    let mut check = UdpCheck {
        probe: draft.probe.clone(),
        payload: Vec::new(),
        require_reply: false,
        reply: Vec::new(),
        min_reply_length: UdpCheck::DEFAULT_MIN_REPLY,
        max_reply_length: UdpCheck::DEFAULT_MAX_REPLY,
    };
    for statement in block.statements() {
        match statement.spec.canonical() {
            "payload" => {
                if let Some(bytes) = pattern_bytes(cx, statement, false) {
                    check.payload = bytes
                        .iter()
                        .map(|[high, low]| high.unwrap_or(0) * 16 + low.unwrap_or(0))
                        .collect();
                }
            }
            "require_reply" => {
                check.require_reply = true;
                check.reply = pattern_bytes(cx, statement, true).unwrap_or_default();
            }
            _ => {
                if !draft.read(cx, statement) {
                    check.set(cx, statement);
                }
            }
        }
    }
    if check.min_reply_length > check.max_reply_length {
        cx.report(
            Code::InvalidValue,
            Consequence::Warn,
            block.head(),
            "min_reply_length exceeds max_reply_length, no reply will do",
        );
    }
    check.probe = draft.finish(cx, block, Unset::default())?;
    Some(Checker::UdpCheck(check))
}

/// Pairs of hex digits over the words of a line; a single digit before a blank is a byte. `x` matches every digit.
fn pattern_bytes(
    cx: &mut Context,
    statement: &Statement,
    wildcards: bool,
) -> Option<Vec<[Option<u8>; 2]>> {
    let mut bytes = Vec::new();
    for word in &statement.args {
        let mut nibbles = Vec::new();
        for c in word.text.chars() {
            match c.to_digit(16) {
                Some(digit) => nibbles.push(Some(digit as u8)),
                None if wildcards && matches!(c, 'x' | 'X') => nibbles.push(None),
                None => {
                    cx.invalid(
                        word.span,
                        format!("`{c}` is no hex digit"),
                        "pairs of hex digits",
                    );
                    return None;
                }
            }
        }
        for pair in nibbles.chunks(2) {
            bytes.push(match *pair {
                [high, low] => [high, low],
                _ => [Some(0), pair[0]],
            });
        }
    }
    Some(bytes)
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
