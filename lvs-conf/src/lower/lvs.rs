//! Virtual servers and real servers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::Context;
use super::checker::{self, Schedule};
use super::track::Names;
use crate::diag::{Code, Consequence, Diagnostic};
use crate::dialect::Dialect;
use crate::keywords::Shape;
use crate::keywords::preset::preset;
use crate::model::{
    Config, Family, GlobalDefs, Granularity, GroupEntry, LvsMethod, Protocol, RealServer,
    Scheduler, ServerGroup, ServiceAddress, SorryServer, VirtualServer,
};
use crate::settings::{Settings as _, settings};
use crate::source::Span;
use crate::tree::{Statement, Tree};

use words::{granularity, method, scheduler};

mod group;
mod words;

settings! { VirtualServer {
    "persistence_engine" => persistence_engine,
    "laddr_group_name" => local_address_group,
    "flag-1" => flags.flag1,
    "flag-2" => flags.flag2,
    "flag-3" => flags.flag3,
    "omega" => omega,
    "quorum_up" => quorum_up,
    "quorum_down" => quorum_down,
    "snmp_name" => snmp_name,
    "smtp_alert" => smtp_alert,
} }

settings! { RealServer {
    "weight" => weight,
    "uthreshold" => upper_threshold,
    "lthreshold" => lower_threshold,
    "inhibit_on_failure" => inhibit_on_failure,
    "alpha" => alpha,
    "notify_up" => notify_up,
    "notify_down" => notify_down,
    "smtp_alert" => smtp_alert,
    "snmp_name" => snmp_name,
} }

/// Reads groups and virtual servers.
pub(super) fn read(cx: &mut Context, tree: &Tree, config: &mut Config) {
    for statement in &tree.statements {
        match statement.spec.name {
            "virtual_server_group" => config.server_groups.extend(group::read(cx, statement)),
            "local_address_group" => {
                let group = group::read_local(cx, statement);
                config.local_address_groups.extend(group);
            }
            _ => {}
        }
    }
    let names = Names::of(tree, config);
    let mut servers = Vec::new();
    let mut groups: BTreeMap<&str, &ServerGroup> = BTreeMap::new();
    for group in &config.server_groups {
        // The first of a name is found.
        groups.entry(&group.name).or_insert(group);
    }
    for (at, statement) in tree.statements.iter().enumerate() {
        if statement.spec.name == "virtual_server" {
            let around = Around {
                global: &config.global,
                groups: &groups,
                names: &names,
                at,
            };
            servers.extend(virtual_server(cx, statement, &around));
        }
    }
    config.virtual_servers = servers;
    for statement in &tree.statements {
        for name in statement
            .statements()
            .iter()
            .filter(|inner| inner.spec.name == "laddr_group_name")
            .filter_map(|inner| inner.args.first())
        {
            let mut groups = config.local_address_groups.iter();
            if !groups.any(|group| group.name == name.text.as_str()) {
                cx.push(
                    Diagnostic::new(
                        Code::ServerGroupUnusable,
                        Consequence::Ignore,
                        name.span,
                        format!("local_address_group `{}` is not defined", name.text),
                    )
                    .expected("`local_address_group NAME { ... }`"),
                );
            }
        }
    }
}

/// What a virtual server refers to.
struct Around<'a> {
    global: &'a GlobalDefs,
    groups: &'a BTreeMap<&'a str, &'a ServerGroup>,
    names: &'a Names,
    /// Its place in the file.
    at: usize,
}

/// Reads a virtual server; `None` means that it is dropped.
fn virtual_server(
    cx: &mut Context,
    block: &Statement,
    around: &Around<'_>,
) -> Option<VirtualServer> {
    let service = service(cx, block);
    let mut draft = Draft::new(block, service.clone(), around.global);
    if let Some(ServiceAddress::Group(name)) = &service {
        draft.group = around.groups.get(name.as_str()).copied();
        draft.server.family = draft.group.and_then(ServerGroup::family);
    }
    for statement in block.statements() {
        if !draft.service_setting(cx, statement)
            && !draft.server_default(cx, statement)
            && !draft.sorry(cx, statement)
        {
            draft.server.set(cx, statement);
        }
    }
    draft.settle(cx);
    for statement in block.statements() {
        if statement.spec.name == "real_server" {
            draft.real_server(cx, statement, around);
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

struct Draft<'a> {
    head: Span,
    /// The group of a group service, if it is defined.
    group: Option<&'a ServerGroup>,
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
}

struct Sorry {
    address: IpAddr,
    port: Option<u16>,
    method: Option<LvsMethod>,
    inhibit: bool,
    span: Span,
}

impl<'a> Draft<'a> {
    fn new(block: &Statement, service: Option<ServiceAddress>, globals: &GlobalDefs) -> Self {
        Self {
            head: block.head(),
            group: None,
            server: VirtualServer::with_defaults(
                service.unwrap_or(ServiceAddress::Group(String::new())),
                globals,
            ),
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
                } else {
                    cx.set(statement, &mut server.persistence_timeout);
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
            "ops" => self.ops = Some(span),
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
            "quorum" => {
                server.quorum = 1;
                cx.set(statement, &mut server.quorum);
                self.quorum = Some(span);
            }
            "hysteresis" => {
                cx.set(statement, &mut server.hysteresis);
                self.hysteresis = Some(span);
            }
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
            "weight" => cx.set(statement, &mut defaults.weight),
            "inhibit_on_failure" => defaults.inhibit_on_failure = true,
            "virtualhost" => defaults.virtualhost = cx.text(statement),
            "alpha" => {
                self.server.alpha = true;
                defaults.schedule.alpha = true;
            }
            _ => return defaults.schedule.read(cx, statement),
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
                // 2.2.7 ignores it in silence.
                None => cx.push(
                    Diagnostic::new(
                        Code::InvalidValue,
                        if cx.dialect == Dialect::V2_2_7 {
                            Consequence::Log
                        } else {
                            Consequence::Ignore
                        },
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
        // Addresses need a protocol, and those without port need persistence; marks need neither.
        let (addresses, every_port) = match (&self.server.service, self.group) {
            (ServiceAddress::Address { port, .. }, _) => (true, port.is_none()),
            (ServiceAddress::Group(_), Some(group)) => (
                group
                    .entries
                    .iter()
                    .any(|e| matches!(e, GroupEntry::Range { .. })),
                group
                    .entries
                    .iter()
                    .any(|e| matches!(e, GroupEntry::Range { port: None, .. })),
            ),
            _ => (false, false),
        };
        let server = &mut self.server;
        if let ServiceAddress::Address { address, .. } = server.service {
            server.family = Some(Family::of(address));
        }
        match server.service {
            ServiceAddress::Address { .. } | ServiceAddress::Group(_) => {
                if self.protocol.is_none() && addresses {
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
                if every_port && server.persistence_timeout.is_none() {
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
        server.scheduler = self.scheduler.unwrap_or(Scheduler::DEFAULT);
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

    fn real_server(&mut self, cx: &mut Context, block: &Statement, around: &Around<'_>) {
        let endpoint = cx.endpoint(&block.args, Code::RsAddressInvalid, Consequence::Drop);
        // The checkers of an unusable address are read too, for their own mistakes.
        let (address, written_port) = endpoint.unwrap_or((IpAddr::V4(Ipv4Addr::UNSPECIFIED), None));
        let head = block.head();
        let defaults = &self.defaults;
        let mut schedule = defaults.schedule.clone();
        let mut virtualhost = defaults.virtualhost.clone();
        let mut own_method = None;
        let mut server = RealServer {
            weight: defaults.weight,
            inhibit_on_failure: defaults.inhibit_on_failure,
            alpha: self.server.alpha,
            ..RealServer::with_defaults(
                SocketAddr::new(address, written_port.unwrap_or(0)),
                self.server.method,
                around.global,
            )
        };
        let mut checks = Vec::new();
        for statement in block.statements() {
            match statement.spec.canonical() {
                "lvs_method" => own_method = method(cx, statement, own_method),
                "virtualhost" => virtualhost = cx.text(statement),
                _ if matches!(statement.spec.shape, Shape::Block(_)) => checks.push(statement),
                _ => {
                    if !server.set(cx, statement) {
                        schedule.read(cx, statement);
                    }
                    schedule.alpha = server.alpha;
                }
            }
        }
        server.method = own_method.unwrap_or(self.server.method);
        self.method_missing |= own_method.is_none() && self.method.is_none();
        server
            .address
            .set_port(self.port(cx, written_port, server.method, head));
        // Most servers have one checker, and there may be a hundred thousand servers.
        server.checkers.reserve_exact(checks.len());
        for check in checks {
            let target = checker::Target {
                address: server.address,
                schedule: &schedule,
                virtualhost: virtualhost.as_deref(),
                names: around.names,
                at: around.at,
            };
            checker::read(cx, check, &target, &mut server.checkers);
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
            ServiceAddress::Group(_) => {
                self.group_port(cx, written, method, span);
                written.unwrap_or(0)
            }
        }
    }

    /// A group may have entries that a server's port does not fit.
    fn group_port(&self, cx: &mut Context, written: Option<u16>, method: LvsMethod, span: Span) {
        let (Some(group), Some(port)) = (self.group, written) else {
            return;
        };
        if !method.keeps_port() {
            return;
        }
        let differs = |entry: &GroupEntry| matches!(entry, GroupEntry::Range { port: own, .. } if *own != Some(port));
        if group.entries.iter().any(differs) {
            cx.report(
                Code::RsPortDiffers,
                Consequence::Warn,
                span,
                format!("{method} cannot change the port, but the group has others"),
            );
        }
        if group
            .entries
            .iter()
            .any(|entry| matches!(entry, GroupEntry::Mark { .. }))
        {
            cx.report(
                Code::FwmarkRsPort,
                Consequence::Warn,
                span,
                format!("marks with {method} have no ports"),
            );
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
        if let ServiceAddress::Group(name) = &self.server.service
            && self.group.is_none()
        {
            cx.push(
                Diagnostic::new(
                    Code::ServerGroupUnusable,
                    Consequence::Drop,
                    head,
                    format!(
                        "virtual_server_group `{name}` is not defined, its virtual server is dropped"
                    ),
                )
                .expected("`virtual_server_group NAME { ... }`"),
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

const DEFAULT_PERSISTENCE: Duration = preset!(bare_duration, VirtualServer, "persistence_timeout");
