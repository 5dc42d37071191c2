//! Virtual servers and real servers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::checker::{self, Schedule};
use super::{Context, global};
use crate::diag::{Code, Consequence, Diagnostic};
use crate::model::{
    Family, GlobalDefs, Granularity, LvsMethod, Protocol, RealServer, Scheduler, SchedulerFlags,
    ServiceAddress, SorryServer, VirtualServer,
};
use crate::source::Span;
use crate::tree::Statement;

use words::{granularity, method, scheduler};

mod words;

/// Reads a virtual server; `None` means that it is dropped.
pub(super) fn read(
    cx: &mut Context,
    block: &Statement,
    globals: &GlobalDefs,
) -> Option<VirtualServer> {
    let service = service(cx, block);
    let mut draft = Draft::new(block, service.clone(), globals);
    for statement in block.statements() {
        if !draft.service_setting(cx, statement)
            && !draft.server_default(cx, statement)
            && !draft.sorry(cx, statement)
            && statement.spec.name != "real_server"
        {
            cx.not_acted_on(statement);
        }
    }
    draft.settle(cx);
    for statement in block.statements() {
        if statement.spec.name == "real_server" {
            draft.real_server(cx, statement);
        }
    }
    service?;
    draft.finish(cx)
}

fn service(cx: &mut Context, block: &Statement) -> Option<ServiceAddress> {
    let (first, rest) = block.args.split_first()?;
    match first.text.as_str() {
        "fwmark" => {
            let Some(word) = rest.first() else {
                missing(cx, block, "`virtual_server fwmark <0..4294967295>`");
                return None;
            };
            let mark = cx.uint("fwmark", word, 0..=u64::from(u32::MAX));
            if mark.is_none() {
                cx.report(
                    Code::VsAddressInvalid,
                    Consequence::Drop,
                    word.span,
                    format!(
                        "`{}` is not a mark, the virtual server is skipped",
                        word.text
                    ),
                );
            }
            mark.and_then(|m| u32::try_from(m).ok())
                .map(ServiceAddress::Mark)
        }
        "group" => match rest.first() {
            Some(word) => Some(ServiceAddress::Group(word.text.to_string())),
            None => {
                missing(cx, block, "`virtual_server group <NAME>`");
                None
            }
        },
        _ => {
            let (address, port) =
                cx.endpoint(&block.args, Code::VsAddressInvalid, Consequence::Drop)?;
            Some(ServiceAddress::Address { address, port })
        }
    }
}

fn missing(cx: &mut Context, block: &Statement, expected: &str) {
    cx.push(
        Diagnostic::new(
            Code::MissingArgument,
            Consequence::Fatal,
            block.head(),
            "`virtual_server` lacks an argument",
        )
        .expected(expected),
    );
}

struct Draft {
    head: Span,
    server: VirtualServer,
    scheduler: Option<Scheduler>,
    protocol: Option<(Protocol, Span)>,
    method: Option<LvsMethod>,
    ops: Option<Span>,
    ha_suspend: Option<Span>,
    quorum: Option<Span>,
    hysteresis: Option<Span>,
    sorry: Option<Sorry>,
    /// Servers with the address as written, which is what counts for duplicates.
    written: Vec<(IpAddr, Option<u16>, Span)>,
    /// Place of the first server that has no method of its own, if the virtual server has none either.
    method_missing: bool,
    defaults: Defaults,
}

/// What real servers inherit.
struct Defaults {
    schedule: Schedule,
    weight: u32,
    inhibit_on_failure: bool,
    virtualhost: Option<String>,
    rs_alert: bool,
}

struct Sorry {
    address: IpAddr,
    port: Option<u16>,
    method: Option<LvsMethod>,
    inhibit: bool,
    span: Span,
}

impl Draft {
    fn new(block: &Statement, service: Option<ServiceAddress>, globals: &GlobalDefs) -> Self {
        let mail = &globals.mail;
        let alert = mail.alert_checker.or(mail.alert);
        Self {
            head: block.head(),
            server: VirtualServer {
                service: service.unwrap_or(ServiceAddress::Group(String::new())),
                family: None,
                protocol: Protocol::Udp,
                scheduler: Scheduler::WeightedLeastConnections,
                flags: SchedulerFlags::default(),
                method: LvsMethod::Nat,
                persistence_timeout: None,
                persistence_granularity: None,
                persistence_engine: None,
                one_packet: false,
                quorum: 1,
                hysteresis: 0,
                quorum_up: None,
                quorum_down: None,
                alpha: false,
                omega: false,
                ha_suspend: false,
                smtp_alert: alert.unwrap_or(false),
                snmp_name: None,
                sorry_server: None,
                real_servers: Vec::new(),
            },
            scheduler: None,
            protocol: None,
            method: None,
            ops: None,
            ha_suspend: None,
            quorum: None,
            hysteresis: None,
            sorry: None,
            written: Vec::new(),
            method_missing: false,
            defaults: Defaults {
                schedule: Schedule::global(globals),
                weight: 1,
                inhibit_on_failure: false,
                virtualhost: None,
                rs_alert: alert.unwrap_or(true),
            },
        }
    }

    fn service_setting(&mut self, cx: &mut Context, statement: &Statement) -> bool {
        let span = statement.head();
        let server = &mut self.server;
        match statement.spec.canonical() {
            "lb_algo" => self.scheduler = scheduler(cx, statement).or(self.scheduler),
            "lvs_method" => self.method = method(cx, statement, self.method),
            "protocol" => {
                if let Some(word) = statement.args.first() {
                    match Protocol::from_word(&word.text.to_ascii_uppercase()) {
                        Some(protocol) => self.protocol = Some((protocol, span)),
                        None => cx.push(
                            Diagnostic::new(
                                Code::InvalidValue,
                                Consequence::Ignore,
                                word.span,
                                format!("unknown protocol `{}`", word.text),
                            )
                            .expected("`TCP`, `UDP` or `SCTP`"),
                        ),
                    }
                }
            }
            "persistence_timeout" => {
                if statement.args.is_empty() {
                    server.persistence_timeout = Some(DEFAULT_PERSISTENCE);
                } else if let Some(timeout) = cx.seconds_arg(statement, 1..=2_678_400) {
                    server.persistence_timeout = Some(timeout);
                }
            }
            "persistence_granularity" => {
                if let Some(granularity) = granularity(cx, statement) {
                    server.persistence_granularity = Some(granularity);
                    server
                        .persistence_timeout
                        .get_or_insert(DEFAULT_PERSISTENCE);
                    if matches!(server.service, ServiceAddress::Mark(_)) {
                        server.family.get_or_insert(match granularity {
                            Granularity::Mask(_) => Family::Inet,
                            Granularity::Prefix(_) => Family::Inet6,
                        });
                    }
                }
            }
            "persistence_engine" => server.persistence_engine = cx.text_arg(statement),
            "ops" => self.ops = Some(span),
            "flag-1" => server.flags.flag1 = true,
            "flag-2" => server.flags.flag2 = true,
            "flag-3" => server.flags.flag3 = true,
            name @ ("sh-port" | "sh-fallback" | "mh-port" | "mh-fallback" | "hashed") => {
                self.hash_flag(cx, name, span);
            }
            "ip_family" => match statement.args.first().map(|w| w.text.as_str()) {
                Some("inet") => server.family = Some(Family::Inet),
                Some("inet6") => server.family = Some(Family::Inet6),
                _ => cx.push(
                    Diagnostic::new(
                        Code::InvalidValue,
                        Consequence::Ignore,
                        span,
                        "unknown family",
                    )
                    .expected("`inet` or `inet6`"),
                ),
            },
            "ha_suspend" => self.ha_suspend = Some(span),
            "omega" => server.omega = true,
            "quorum" => {
                server.quorum = cx.u32_arg(statement, 1..=i32::MAX as u32).unwrap_or(1);
                self.quorum = Some(span);
            }
            "hysteresis" => {
                server.hysteresis = cx
                    .u32_arg(statement, 0..=i32::MAX as u32)
                    .unwrap_or(server.hysteresis);
                self.hysteresis = Some(span);
            }
            "quorum_up" => {
                let script = cx.script_arg(statement);
                cx.first_wins(statement, &mut server.quorum_up, script);
            }
            "quorum_down" => {
                let script = cx.script_arg(statement);
                cx.first_wins(statement, &mut server.quorum_down, script);
            }
            "snmp_name" => server.snmp_name = cx.text_arg(statement),
            "smtp_alert" => server.smtp_alert = cx.bool_arg(statement).unwrap_or(server.smtp_alert),
            _ => return false,
        }
        true
    }

    fn hash_flag(&mut self, cx: &mut Context, name: &str, span: Span) {
        match self.scheduler {
            Some(Scheduler::SourceHashing | Scheduler::MaglevHashing) => {
                let of_other = !name.starts_with(self.scheduler.map_or("", Scheduler::as_str));
                self.server.flags.flag1 |= name.ends_with("-fallback") && !of_other;
                self.server.flags.flag2 |= name.ends_with("-port") && !of_other;
            }
            _ => cx.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    Consequence::Ignore,
                    span,
                    format!("`{name}` has no meaning for this scheduler"),
                )
                .hint("write it after `lb_algo sh` or `lb_algo mh`"),
            ),
        }
    }

    fn server_default(&mut self, cx: &mut Context, statement: &Statement) -> bool {
        let defaults = &mut self.defaults;
        match statement.spec.canonical() {
            "weight" => {
                defaults.weight = cx
                    .u32_arg(statement, 1..=i32::MAX as u32)
                    .unwrap_or(defaults.weight);
            }
            "inhibit_on_failure" => defaults.inhibit_on_failure = true,
            "virtualhost" => defaults.virtualhost = cx.text_arg(statement),
            "alpha" => {
                self.server.alpha = true;
                defaults.schedule.alpha = true;
            }
            _ => return defaults.schedule.read(cx, statement, 1),
        }
        true
    }

    fn sorry(&mut self, cx: &mut Context, statement: &Statement) -> bool {
        let name = statement.spec.canonical();
        match name {
            "sorry_server" => {
                if let Some((address, port)) =
                    cx.endpoint(&statement.args, Code::RsAddressInvalid, Consequence::Ignore)
                {
                    self.sorry = Some(Sorry {
                        address,
                        port,
                        method: self.method,
                        inhibit: false,
                        span: statement.head(),
                    });
                }
            }
            "sorry_server_inhibit" | "sorry_server_lvs_method" => match &mut self.sorry {
                None => cx.push(
                    Diagnostic::new(
                        Code::InvalidValue,
                        Consequence::Ignore,
                        statement.head(),
                        format!("`{name}` before `sorry_server` is ignored"),
                    )
                    .hint("write it after `sorry_server`"),
                ),
                Some(sorry) if name == "sorry_server_inhibit" => sorry.inhibit = true,
                Some(sorry) => sorry.method = method(cx, statement, sorry.method),
            },
            _ => return false,
        }
        true
    }

    /// Everything that real servers depend on.
    fn settle(&mut self, cx: &mut Context) {
        let head = self.head;
        let server = &mut self.server;
        match server.service {
            ServiceAddress::Address { address, port } => {
                server.family = Some(Family::of(address));
                if self.protocol.is_none() {
                    cx.push(
                        Diagnostic::new(
                            Code::VsNoProtocol,
                            Consequence::Adjust,
                            head,
                            "no protocol is given, UDP is used",
                        )
                        .expected("`protocol TCP`, `UDP` or `SCTP`"),
                    );
                }
                if port.is_none() && server.persistence_timeout.is_none() {
                    cx.report(
                        Code::VsZeroPort,
                        Consequence::Adjust,
                        head,
                        "a service of every port needs persistence, 360 s are used",
                    );
                    server.persistence_timeout = Some(DEFAULT_PERSISTENCE);
                }
            }
            ServiceAddress::Mark(_) => {
                if let Some((_, span)) = self.protocol.take() {
                    cx.report(
                        Code::VsFwmarkWithProtocol,
                        Consequence::Ignore,
                        span,
                        "a mark service has no protocol",
                    );
                }
            }
            ServiceAddress::Group(_) => {}
        }
        server.protocol = self
            .protocol
            .map_or(Protocol::Udp, |(protocol, _)| protocol);
        if self.scheduler.is_none() {
            cx.push(
                Diagnostic::new(
                    Code::VsNoScheduler,
                    Consequence::Adjust,
                    head,
                    "no scheduler is given, wlc is used",
                )
                .expected("`lb_algo <SCHEDULER>`"),
            );
        }
        server.scheduler = self
            .scheduler
            .unwrap_or(Scheduler::WeightedLeastConnections);
        server.method = self.method.unwrap_or(LvsMethod::Nat);
        if let Some(span) = self.ops {
            server.one_packet = server.protocol == Protocol::Udp;
            if !server.one_packet {
                cx.report(
                    Code::OpsRequiresUdp,
                    Consequence::Ignore,
                    span,
                    "`ops` needs protocol UDP",
                );
            }
        }
        if let Some(span) = self.ha_suspend {
            server.ha_suspend = !matches!(server.service, ServiceAddress::Mark(_));
            if !server.ha_suspend {
                cx.report(
                    Code::HaSuspendWithFwmark,
                    Consequence::Ignore,
                    span,
                    "`ha_suspend` has no meaning for a mark service",
                );
            }
        }
    }

    fn real_server(&mut self, cx: &mut Context, block: &Statement) {
        let endpoint = cx.endpoint(&block.args, Code::RsAddressInvalid, Consequence::Drop);
        // The checkers of an unusable address are read too, for their own mistakes.
        let (address, written_port) = endpoint.unwrap_or((IpAddr::V4(Ipv4Addr::UNSPECIFIED), None));
        let head = block.head();
        let defaults = &self.defaults;
        let mut schedule = defaults.schedule.clone();
        let mut virtualhost = defaults.virtualhost.clone();
        let mut own_method = None;
        let mut server = RealServer {
            address: SocketAddr::new(address, written_port.unwrap_or(0)),
            weight: defaults.weight,
            method: self.server.method,
            upper_threshold: 0,
            lower_threshold: 0,
            inhibit_on_failure: defaults.inhibit_on_failure,
            alpha: self.server.alpha,
            notify_up: None,
            notify_down: None,
            smtp_alert: defaults.rs_alert,
            snmp_name: None,
            checkers: Vec::new(),
        };
        let mut checks = Vec::new();
        for statement in block.statements() {
            match statement.spec.canonical() {
                "weight" => {
                    server.weight = cx
                        .u32_arg(statement, 0..=i32::MAX as u32)
                        .unwrap_or(server.weight);
                }
                "lvs_method" => own_method = method(cx, statement, own_method),
                "uthreshold" => {
                    server.upper_threshold = cx.u32_arg(statement, 0..=u32::MAX).unwrap_or(0);
                }
                "lthreshold" => {
                    server.lower_threshold = cx.u32_arg(statement, 0..=u32::MAX).unwrap_or(0);
                }
                "inhibit_on_failure" => {
                    server.inhibit_on_failure =
                        cx.bool_arg(statement).unwrap_or(server.inhibit_on_failure);
                }
                "alpha" => {
                    server.alpha = cx.bool_arg(statement).unwrap_or(server.alpha);
                    schedule.alpha = server.alpha;
                }
                "notify_up" => {
                    let script = cx.script_arg(statement);
                    cx.first_wins(statement, &mut server.notify_up, script);
                }
                "notify_down" => {
                    let script = cx.script_arg(statement);
                    cx.first_wins(statement, &mut server.notify_down, script);
                }
                "smtp_alert" => {
                    server.smtp_alert = cx.bool_arg(statement).unwrap_or(server.smtp_alert);
                }
                "snmp_name" => server.snmp_name = cx.text_arg(statement),
                "virtualhost" => virtualhost = cx.text_arg(statement),
                "TCP_CHECK" | "HTTP_GET" | "SSL_GET" => checks.push(statement),
                _ => {
                    if !schedule.read(cx, statement, 1) {
                        cx.not_acted_on(statement);
                    }
                }
            }
        }
        server.method = own_method.unwrap_or(self.server.method);
        self.method_missing |= own_method.is_none() && self.method.is_none();
        server
            .address
            .set_port(self.port(cx, written_port, server.method, head));
        server.checkers.reserve_exact(checks.len());
        for check in checks {
            server.checkers.extend(checker::read(
                cx,
                check,
                server.address,
                &schedule,
                virtualhost.as_deref(),
            ));
        }
        if endpoint.is_none() {
            return;
        }
        if let Some((_, _, first)) = self
            .written
            .iter()
            .find(|(a, p, _)| (*a, *p) == (address, written_port))
        {
            cx.push(
                Diagnostic::new(
                    Code::RsDuplicate,
                    Consequence::Drop,
                    head,
                    format!("real server `{address}` is given twice, the second is dropped"),
                )
                .note(*first, "first given here"),
            );
            return;
        }
        if self.family_fits(cx, address, server.method, head, "real server") {
            self.written.push((address, written_port, head));
            self.server.real_servers.push(server);
        }
    }

    fn family_fits(
        &self,
        cx: &mut Context,
        address: IpAddr,
        method: LvsMethod,
        span: Span,
        what: &str,
    ) -> bool {
        let Some(family) = self.server.family else {
            return true;
        };
        let fits = family == Family::of(address) || matches!(method, LvsMethod::Tun(_));
        if !fits {
            cx.report(
                Code::FamilyMismatch,
                Consequence::Drop,
                span,
                format!("{what} `{address}` is not {family} as its virtual server, it is dropped"),
            );
        }
        fits
    }

    /// The port that a real server has in the end.
    fn port(&self, cx: &mut Context, written: Option<u16>, method: LvsMethod, span: Span) -> u16 {
        match &self.server.service {
            ServiceAddress::Address { port, .. } => {
                let service = port.unwrap_or(0);
                let port = written.unwrap_or(service);
                if port != service && method.keeps_port() {
                    cx.push(
                        Diagnostic::new(
                            Code::RsPortDiffersReset,
                            Consequence::Adjust,
                            span,
                            format!("{method} cannot change the port, it becomes {service}"),
                        )
                        .note(self.head, "the port of the service"),
                    );
                    return service;
                }
                port
            }
            ServiceAddress::Mark(_) => match written {
                Some(_) if method.keeps_port() => {
                    cx.report(
                        Code::FwmarkRsPort,
                        Consequence::Adjust,
                        span,
                        format!("a mark service with {method} has no ports, it is cleared"),
                    );
                    0
                }
                _ => written.unwrap_or(0),
            },
            ServiceAddress::Group(_) => written.unwrap_or(0),
        }
    }

    fn finish(mut self, cx: &mut Context) -> Option<VirtualServer> {
        let head = self.head;
        self.server.real_servers.shrink_to_fit();
        if self.server.real_servers.is_empty() {
            cx.report(
                Code::VsNoRealServers,
                Consequence::Drop,
                head,
                "a virtual server without usable real servers is dropped",
            );
            return None;
        }
        if let Some(sorry) = self.sorry.take() {
            self.method_missing |= sorry.method.or(self.method).is_none();
            self.server.sorry_server = self.finish_sorry(cx, &sorry);
        }
        if self.method_missing {
            cx.push(
                Diagnostic::new(
                    Code::VsNoForwardingMethod,
                    Consequence::Adjust,
                    head,
                    "no forwarding method is given, NAT is used",
                )
                .expected("`lb_kind NAT`, `DR` or `TUN`"),
            );
        }
        if self.server.family.is_none() {
            self.server.family = self.family_of_servers();
        }
        let sum: u64 = self
            .server
            .real_servers
            .iter()
            .map(|s| u64::from(s.weight))
            .sum();
        if u64::from(self.server.quorum) > sum {
            cx.report(
                Code::QuorumExceedsWeight,
                Consequence::Adjust,
                self.quorum.unwrap_or(head),
                format!("the quorum exceeds the weight of all real servers, it becomes {sum}"),
            );
            self.server.quorum = u32::try_from(sum).unwrap_or(u32::MAX);
        }
        if self.server.hysteresis > 0 && self.server.hysteresis >= self.server.quorum {
            let most = self.server.quorum.saturating_sub(1);
            cx.report(
                Code::HysteresisGeQuorum,
                Consequence::Adjust,
                self.hysteresis.unwrap_or(head),
                format!("the hysteresis must be below the quorum, it becomes {most}"),
            );
            self.server.hysteresis = most;
        }
        Some(self.server)
    }

    fn finish_sorry(&self, cx: &mut Context, sorry: &Sorry) -> Option<SorryServer> {
        let method = sorry.method.unwrap_or(self.server.method);
        if !self.family_fits(cx, sorry.address, method, sorry.span, "sorry server") {
            return None;
        }
        let mut port = sorry.port.unwrap_or(0);
        match &self.server.service {
            ServiceAddress::Address { port: service, .. } => {
                let service = service.unwrap_or(0);
                if sorry.port.is_none() {
                    port = service;
                } else if port != service && method.keeps_port() {
                    cx.report(
                        Code::SorryPortDiffers,
                        Consequence::Adjust,
                        sorry.span,
                        format!("{method} cannot change the port, it becomes {service}"),
                    );
                    port = service;
                }
            }
            ServiceAddress::Mark(_) if sorry.port.is_some() && method.keeps_port() => {
                cx.report(
                    Code::SorryPortDiffers,
                    Consequence::Adjust,
                    sorry.span,
                    format!("a mark service with {method} has no ports, it is cleared"),
                );
                port = 0;
            }
            ServiceAddress::Mark(_) | ServiceAddress::Group(_) => {}
        }
        let address = SocketAddr::new(sorry.address, port);
        let mut inhibit = sorry.inhibit;
        if let Some(twin) = self
            .server
            .real_servers
            .iter()
            .find(|s| s.address == address && s.inhibit_on_failure != inhibit)
        {
            cx.report(
                Code::InvalidValue,
                Consequence::Adjust,
                sorry.span,
                "the sorry server is a real server too and follows its inhibit setting",
            );
            inhibit = twin.inhibit_on_failure;
        }
        Some(SorryServer {
            address,
            method,
            inhibit,
        })
    }

    /// Mark services get the family of their servers if all agree, else IPv4 when every server is tunnelled.
    fn family_of_servers(&self) -> Option<Family> {
        let mut families = self
            .server
            .real_servers
            .iter()
            .map(|s| Family::of(s.address.ip()));
        let first = families.next()?;
        Some(if families.all(|f| f == first) {
            first
        } else {
            Family::Inet
        })
    }
}

const DEFAULT_PERSISTENCE: Duration = Duration::from_secs(360);
/// Largest time that a check may be given, in microseconds.
pub(super) const MAX_TIMEOUT: u64 = global::MAX_MICROS;
