//! What would happen to a packet, and why: the way of its parent module without leaving a trace on it.

use std::fmt;
use std::net::SocketAddr;

use super::opening::{
    Opening, SKIPPING, answer_without_server, is_at_own_port, persistent_port_of, port_of,
};
use super::{PacketPath, answer, has_forced_server, has_quiesced_server, info, is_reusable};
use crate::conn::key::{Address, FlowKey};
use crate::conn::table::{Sought, Table};
use crate::director::FTP_DATA;
use crate::persist::{Foreseen, TemplateKey, TemplateTarget, Want};
use crate::time::nanos;
use crate::{
    ConnectionInfo, Direction, DropReason, ForwardMethod, Protocol, RealServer, ServiceConfig,
    ServiceKey, TemplateInfo, Verdict, VirtualService,
};

/// What a worker would do with a packet now, and why. Made by
/// [`Worker::explain`](crate::Worker::explain).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The answer that the packet would get. `None` if it depends on a scheduler of the program's own
    /// that does not [`peek`](crate::Scheduler::peek).
    pub verdict: Option<Verdict>,
    /// What decides.
    pub reason: Reason,
    /// The connection that the packet meets.
    pub connection: Option<ConnectionInfo>,
    /// Why this connection does not decide.
    pub passed_over: Option<PassedOver>,
    /// The service that a packet without a connection belongs to.
    pub service: Option<ServiceKey>,
    /// The service's attributes.
    pub config: Option<ServiceConfig>,
    /// The persistence template that was found. Unless [`Reason::Template`] says that it decides, it
    /// is retired now, because its server was removed, quiesced or drained by force.
    pub template: Option<TemplateInfo>,
    /// The real server's address in its service, which may have port 0 ("that of the packet"); the
    /// verdict has the port that is used.
    pub server: Option<SocketAddr>,
}

/// What decides about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Its connection.
    Connection,
    /// Its connection's server was removed, and the connection waits for its end.
    ServerRemoved,
    /// A persistence template names the server.
    Template,
    /// The scheduler would choose this server now.
    Scheduler,
    /// The scheduler can't tell whom it would choose.
    Unforeseen,
    /// The scheduler finds no usable server.
    NoServer,
    /// No local address has a free port towards the server.
    NoLocalPort,
    /// The service is found by the address, but serves another port.
    OtherPort,
    /// There is no usable server, and the packet goes on to where it was sent
    /// ([`Tunables::cache_bypass`](crate::Tunables::cache_bypass)).
    Bypass,
    /// No service has its destination or mark.
    NoService,
    /// There is no connection, and such a packet begins none.
    BeginsNothing,
    /// It comes from port 20, as FTP's data connections do that a server opens.
    FtpData,
    /// The connection table is full.
    TableFull,
    /// The template table is full.
    TemplatesFull,
    /// It is thinned out as a defence ([`Tunables::drop_packet`](crate::Tunables::drop_packet)).
    Defence,
    /// The persistence engine finds nothing in it to go by.
    Engine,
    /// An SCTP packet without a chunk.
    Malformed,
    /// This director only receives synchronised connections
    /// ([`Tunables::backup_only`](crate::Tunables::backup_only)).
    BackupOnly,
    /// A real server begins a call, which becomes a connection.
    ServerBegins,
    /// It comes from a real server, and no connection waits for it.
    UnknownReply,
    /// Its addresses are of different families.
    MixedFamilies,
}

impl Reason {
    /// Short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::ServerRemoved => "server-removed",
            Self::Template => "template",
            Self::Scheduler => "scheduler",
            Self::Unforeseen => "unforeseen",
            Self::NoServer => "no-server",
            Self::NoLocalPort => "no-local-port",
            Self::OtherPort => "other-port",
            Self::Bypass => "bypass",
            Self::NoService => "no-service",
            Self::BeginsNothing => "begins-nothing",
            Self::FtpData => "ftp-data",
            Self::TableFull => "table-full",
            Self::TemplatesFull => "templates-full",
            Self::Defence => "defence",
            Self::Engine => "engine",
            Self::Malformed => "malformed",
            Self::BackupOnly => "backup-only",
            Self::ServerBegins => "server-begins",
            Self::UnknownReply => "unknown-reply",
            Self::MixedFamilies => "mixed-families",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a packet that meets a connection is treated like one without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PassedOver {
    /// It begins a connection, and the old one is over
    /// ([`Tunables::conn_reuse_mode`](crate::Tunables::conn_reuse_mode)).
    Over,
    /// It begins a connection, and the old one's server is quiesced
    /// ([`Tunables::expire_nodest_conn`](crate::Tunables::expire_nodest_conn)).
    Quiesced,
    /// The connection's server was removed
    /// ([`Tunables::expire_nodest_conn`](crate::Tunables::expire_nodest_conn)).
    Removed,
    /// The connection's server is drained by force.
    Drained,
}

impl PassedOver {
    /// Short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Over => "over",
            Self::Quiesced => "quiesced",
            Self::Removed => "removed",
            Self::Drained => "drained",
        }
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Explanation {
    pub(crate) fn new(reason: Reason, verdict: Verdict) -> Self {
        Self {
            verdict: Some(verdict),
            reason,
            connection: None,
            passed_over: None,
            service: None,
            config: None,
            template: None,
            server: None,
        }
    }

    fn decided(mut self, reason: Reason, verdict: Verdict) -> Self {
        self.reason = reason;
        self.verdict = Some(verdict);
        self
    }
}

impl PacketPath<'_> {
    /// What [`walk`](Self::walk) would answer.
    pub(crate) fn explain<A: Address>(
        &self,
        table: &Table<A>,
        key: &FlowKey<A>,
        sought: &Sought,
    ) -> Explanation {
        match self.packet.direction {
            Direction::Inbound => self.explain_inbound(table, key, sought),
            Direction::Outbound => match table.find_reverse(key, sought) {
                Some(id) => self.explain_connection(table, id, Direction::Outbound),
                None => self.explain_unknown_reply(),
            },
        }
    }

    /// What [`ipsec`](Self::ipsec) would answer.
    pub(crate) fn explain_ipsec<A: Address>(
        &self,
        table: &Table<A>,
        key: &FlowKey<A>,
    ) -> Explanation {
        let tunables = &self.snapshot.tunables;
        let direction = self.packet.direction;
        let sought = table.sought(key);
        let found = match direction {
            Direction::Inbound if tunables.backup_only => {
                return Explanation::new(Reason::BackupOnly, Verdict::NotOurs);
            }
            Direction::Inbound => table.find(key, &sought),
            Direction::Outbound => table.find_reverse(key, &sought),
        };
        let Some(id) = found else {
            return Explanation::new(Reason::BeginsNothing, Verdict::NotOurs);
        };
        let met = self.explain_connection(table, id, direction);
        if direction == Direction::Outbound || !table.entry(id).lost_its_server() {
            return met;
        }
        match tunables.expire_nodest_conn {
            true => Explanation {
                passed_over: Some(PassedOver::Removed),
                ..met.decided(Reason::BeginsNothing, Verdict::NotOurs)
            },
            false => met.decided(
                Reason::ServerRemoved,
                Verdict::Drop(DropReason::ServerRemoved),
            ),
        }
    }

    fn explain_inbound<A: Address>(
        &self,
        table: &Table<A>,
        key: &FlowKey<A>,
        sought: &Sought,
    ) -> Explanation {
        let tunables = &self.snapshot.tunables;
        if self.snapshot.only_follows() {
            return Explanation::new(Reason::BackupOnly, Verdict::NotOurs);
        }
        let opening = Opening {
            client: self.packet.source,
            target: self.packet.destination,
            quoted: false,
        };
        let Some(id) = table.find(key, sought) else {
            let blank = Explanation::new(Reason::NoService, Verdict::NotOurs);
            return self.explain_opening(blank, opening, false);
        };
        let entry = table.entry(id);
        let met = self.explain_connection(table, id, Direction::Inbound);
        let passed_over = if self.begins() && is_reusable(table, id, tunables.conn_reuse_mode) {
            PassedOver::Over
        } else if self.begins() && tunables.expire_nodest_conn && has_quiesced_server(entry) {
            PassedOver::Quiesced
        } else if has_forced_server(entry) {
            PassedOver::Drained
        } else if !entry.lost_its_server() {
            return met;
        } else if tunables.expire_nodest_conn {
            PassedOver::Removed
        } else {
            let verdict = Verdict::Drop(DropReason::ServerRemoved);
            return met.decided(Reason::ServerRemoved, verdict);
        };
        let passed = Explanation {
            connection: met.connection,
            passed_over: Some(passed_over),
            ..Explanation::new(Reason::NoService, Verdict::NotOurs)
        };
        self.explain_opening(passed, opening, table.controls(id) == 0)
    }

    fn explain_connection<A: Address>(
        &self,
        table: &Table<A>,
        id: u32,
        direction: Direction,
    ) -> Explanation {
        let director = self.ends.director;
        let entry = table.entry(id);
        let verdict = answer(table, id, direction);
        let server = entry.server.as_ref();
        let template = table.template(id);
        Explanation {
            connection: info(director, table, entry),
            server: server.map(|server| server.addr()),
            template: template.and_then(|of| director.templates.info_of(&director.epoch, of)),
            ..Explanation::new(Reason::Connection, verdict)
        }
    }

    /// As `schedule`.
    fn explain_opening(
        &self,
        mut so_far: Explanation,
        opening: Opening,
        replaces: bool,
    ) -> Explanation {
        if let Err(verdict) = self.may_open() {
            let reason = match verdict {
                Verdict::Drop(_) => Reason::Malformed,
                _ => Reason::BeginsNothing,
            };
            return so_far.decided(reason, verdict);
        }
        let Opening { client, target, .. } = opening;
        let protocol = self.packet.protocol;
        let Some(service) = self.snapshot.find(protocol, target, self.packet.mark) else {
            return so_far.decided(Reason::NoService, Verdict::NotOurs);
        };
        let config = service.config();
        so_far.service = service.key();
        so_far.config = Some(config);
        let director = self.ends.director;
        if director.defence.would_drop_packet(self.snapshot.drop_rate) {
            return so_far.decided(Reason::Defence, Verdict::Drop(DropReason::Defence));
        }
        if client.port() == FTP_DATA {
            return so_far.decided(Reason::FtpData, Verdict::NotOurs);
        }
        if !self.has_room && !replaces {
            return so_far.decided(Reason::TableFull, Verdict::Drop(DropReason::TableFull));
        }
        if config.persistence.is_none() && !is_at_own_port(service, opening) {
            let answer = self.without_server_answer(service, opening);
            return so_far.decided(answer.0.unwrap_or(Reason::OtherPort), answer.1);
        }
        if let Some(persistence) = &config.persistence {
            let Some(want) = self.want(service, persistence, opening) else {
                return so_far.decided(Reason::Engine, Verdict::Drop(DropReason::Engine));
            };
            let templates = &director.templates;
            match templates.peek(self.now, &director.epoch, &want) {
                Foreseen::Template(server, info) => {
                    so_far.template = info;
                    so_far.server = Some(server.addr());
                    let port = persistent_port_of(&server, service, opening);
                    return self.explain_server(
                        so_far,
                        Reason::Template,
                        service,
                        &server,
                        port,
                        opening,
                    );
                }
                Foreseen::Full => {
                    let verdict = Verdict::Drop(DropReason::TableFull);
                    return so_far.decided(Reason::TemplatesFull, verdict);
                }
                Foreseen::New { retiring } => so_far.template = retiring,
            }
        }
        match service.peek(&self.request(&config, opening)) {
            Ok(Some(server)) => {
                so_far.server = Some(server.addr());
                let port = if config.persistence.is_some() {
                    persistent_port_of(&server, service, opening)
                } else {
                    port_of(&server, opening)
                };
                self.explain_server(so_far, Reason::Scheduler, service, &server, port, opening)
            }
            Ok(None) => {
                let answer = self.without_server_answer(service, opening);
                so_far.decided(answer.0.unwrap_or(Reason::NoServer), answer.1)
            }
            Err(_) => Explanation {
                verdict: None,
                reason: Reason::Unforeseen,
                ..so_far
            },
        }
    }

    /// A new connection to this server.
    fn explain_server(
        &self,
        so_far: Explanation,
        reason: Reason,
        service: &VirtualService,
        server: &RealServer,
        port: u16,
        opening: Opening,
    ) -> Explanation {
        let method = server.method();
        let server = SocketAddr::new(server.addr().ip(), port);
        if method != ForwardMethod::FullNat {
            return so_far.decided(reason, Verdict::Forward { method, server });
        }
        let skips = SKIPPING.contains(&service.config().scheduler);
        match self.ends.ports.peek(&service.locals, skips, server) {
            Some(local) => so_far.decided(reason, Verdict::ForwardFrom { local, server }),
            None => {
                let answer = self.without_server_answer(service, opening);
                so_far.decided(answer.0.unwrap_or(Reason::NoLocalPort), answer.1)
            }
        }
    }

    /// As `without_server`; a reason only if it bypasses.
    fn without_server_answer(
        &self,
        service: &VirtualService,
        opening: Opening,
    ) -> (Option<Reason>, Verdict) {
        if self.bypasses(service, opening) {
            let verdict = Verdict::Forward {
                method: ForwardMethod::Bypass,
                server: opening.target,
            };
            return (Some(Reason::Bypass), verdict);
        }
        (None, answer_without_server(service, opening))
    }

    /// As `unknown_reply`.
    fn explain_unknown_reply(&self) -> Explanation {
        let blank = Explanation::new(Reason::UnknownReply, Verdict::NotOurs);
        if self.snapshot.accepts_servers
            && self.packet.protocol == Protocol::Udp
            && let Some(accepted) = self.explain_call_from_server(&blank)
        {
            return accepted;
        }
        if self.refuses_unknown_reply() {
            return blank.decided(Reason::UnknownReply, Verdict::Reject);
        }
        blank
    }

    /// As `accept_from_server`.
    fn explain_call_from_server(&self, blank: &Explanation) -> Option<Explanation> {
        let director = self.ends.director;
        let (remote, source) = (self.packet.destination, self.packet.source);
        let (service, server) = director.nat_server(Protocol::Udp, source)?;
        let key = service.key()?;
        let ServiceKey::Address { vip, vport, .. } = key else {
            return None;
        };
        let engine = self.snapshot.engine(&service)?;
        if !engine.accepts_servers() || vport == 0 || source.port() == 0 {
            return None;
        }
        let config = service.config();
        let so_far = Explanation {
            service: Some(key),
            config: Some(config),
            server: Some(server.addr()),
            ..blank.clone()
        };
        if !self.has_room && !config.one_packet {
            let verdict = Verdict::Drop(DropReason::TableFull);
            return Some(so_far.decided(Reason::TableFull, verdict));
        }
        let vip = SocketAddr::new(vip, vport);
        let mut template = None;
        if let Some(persistence) = &config.persistence {
            let want = Want {
                key: TemplateKey {
                    protocol: Some(Protocol::Udp),
                    client: persistence.granularity.apply(remote.ip()),
                    target: TemplateTarget::Address(vip),
                    engine: self.engine_data(&service)?,
                },
                service: &service,
                server: Some(&server),
                timeout: nanos(persistence.timeout),
                server_port: true,
                expire_quiescent: self.snapshot.tunables.expire_quiescent_template,
            };
            template = match director.templates.peek(self.now, &director.epoch, &want) {
                Foreseen::Template(_, info) => info,
                Foreseen::New { retiring } => retiring,
                Foreseen::Full => return None,
            };
        }
        let verdict = Verdict::Reply {
            method: ForwardMethod::Nat,
            vip,
        };
        let accepted = Explanation { template, ..so_far };
        Some(accepted.decided(Reason::ServerBegins, verdict))
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
