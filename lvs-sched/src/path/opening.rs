//! The beginning of a connection: who may open one, and where it goes.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{PacketPath, answer, service_port};
use crate::conn::chunks::NONE;
use crate::conn::key::{Address, FlowKey};
use crate::conn::state::State;
use crate::conn::table::{Flow, NEW_CONNECTION, NewEntry, Table};
use crate::director::{FTP, FTP_DATA};
use crate::engine::MAX_DATA;
use crate::persist::{NoTemplate, Template, TemplateKey, TemplateTarget, Want};
use crate::real_server::Class;
use crate::time::nanos;
use crate::{
    Direction, DropReason, ForwardMethod, Persistence, Protocol, RealServer, Request,
    SchedulerKind, SctpEvent, ServiceConfig, ServiceKey, TcpFlags, Verdict, VirtualService,
};

/// Where a new connection goes; it is bound and counted there.
struct Choice {
    server: Arc<RealServer>,
    template: Option<Arc<Template>>,
    /// The server's port for this connection.
    port: u16,
}

/// Who may open a connection, and from which side of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) client: SocketAddr,
    pub(super) target: SocketAddr,
    /// By a header that an ICMP error quotes.
    pub(super) quoted: bool,
}

impl PacketPath<'_> {
    /// Whether the packet may open a connection where there is none.
    pub(super) fn may_open(&self) -> Result<(), Verdict> {
        let tunables = &self.snapshot.tunables;
        let (ends, sloppy) = match self.packet.protocol {
            Protocol::Udp => return Ok(()),
            Protocol::Tcp => (
                self.packet.tcp_flags.contains(TcpFlags::RST),
                tunables.sloppy_tcp,
            ),
            Protocol::Sctp => match self.packet.sctp {
                None => return Err(Verdict::Drop(DropReason::Malformed)),
                Some(event) => (event == SctpEvent::Abort, tunables.sloppy_sctp),
            },
        };
        if ends || !(self.begins() || sloppy) {
            return Err(Verdict::NotOurs);
        }
        Ok(())
    }

    /// Decides on a packet without a connection: the new connection, bound and counted, or the
    /// answer.
    pub(super) fn schedule<A: Address>(
        &mut self,
        key: &FlowKey<A>,
        opening: Opening,
        replaces: bool,
    ) -> Result<NewEntry<A>, Verdict> {
        if !opening.quoted {
            self.may_open()?;
        }
        let Opening { client, target, .. } = opening;
        let service = self
            .snapshot
            .find(self.packet.protocol, target, self.packet.mark)
            .ok_or(Verdict::NotOurs)?;
        let director = self.ends.director;
        if director.defence.drops_packet(self.snapshot.drop_rate) {
            return Err(Verdict::Drop(DropReason::Defence));
        }
        if client.port() == FTP_DATA {
            return Err(Verdict::NotOurs);
        }
        if !self.has_room && !replaces {
            return Err(Verdict::Drop(DropReason::TableFull));
        }
        let config = service.config();
        let mut one_packet = config.one_packet && self.packet.protocol == Protocol::Udp;
        let request = self.request(&config, opening);
        let choice = match &config.persistence {
            Some(persistence) => self.choose_persistent(service, persistence, &request, opening),
            None => self.choose(service, &request, opening),
        };
        let Choice {
            server,
            template,
            port,
        } = match choice {
            Ok(choice) => choice,
            Err(None) => return self.without_server(service, key, opening, one_packet),
            Err(Some(verdict)) => return Err(verdict),
        };
        let method = server.method();
        let mut local = None;
        if method == ForwardMethod::FullNat {
            // A datagram by itself would get a port of its own, and no answer.
            one_packet = false;
            let to = SocketAddr::new(server.addr().ip(), port);
            let skips = SKIPPING.contains(&config.scheduler);
            local = (self.ends.ports).take(self.now, &service.locals, skips, to);
            if local.is_none() {
                self.counters.count_drop(DropReason::NoLocalPort);
                server.unbind(Class::Inactive);
                if let Some(template) = template {
                    template.release(self.now);
                }
                return self.without_server(service, key, opening, false);
            }
        }
        self.counters.count_connection();
        let Some(address) = A::from_ip(server.addr().ip()) else {
            debug_assert!(false, "servers are of their service's family");
            server.unbind(Class::Inactive);
            return Err(Verdict::Reject);
        };
        if one_packet {
            let to = SocketAddr::new(server.addr().ip(), port);
            return Err(self.forward_one_packet(&server, template, to));
        }
        Ok(NewEntry {
            flow: Flow {
                client: key.client,
                vip: key.other,
                server: address,
                client_port: key.client_port,
                vport: key.other_port,
                server_port: port,
            },
            state: State::new(self.packet.protocol),
            method,
            server: Some(server),
            template,
            control: NONE,
            local,
            no_client_port: false,
            synchronised: false,
            packets: 0,
            deadline: self.now + NEW_CONNECTION,
        })
    }

    /// What the scheduler is asked.
    pub(super) fn request(&self, config: &ServiceConfig, opening: Opening) -> Request {
        let Opening { client, target, .. } = opening;
        // Schedulers that look at the destination see a quoted header's own, which is the client.
        let seen = if opening.quoted { client } else { target };
        let tunables = &self.snapshot.tunables;
        Request::new(client, seen)
            .with_flags(config.flags)
            .at(self.ends.director.epoch.instant(self.now))
            .with_cache_life(if config.scheduler == SchedulerKind::ReplicatedLocality {
                tunables.lblcr_expiration
            } else {
                tunables.lblc_expiration
            })
    }

    /// By the scheduler. `Err(None)` is "no destination".
    fn choose(
        &self,
        service: &VirtualService,
        request: &Request,
        opening: Opening,
    ) -> Result<Choice, Option<Verdict>> {
        if !is_at_own_port(service, opening) {
            return Err(None);
        }
        let server = service
            .schedule_and_bind(request, Class::Inactive)
            .ok_or(None)?;
        Ok(Choice {
            port: port_of(&server, opening),
            server,
            template: None,
        })
    }

    /// Through a template: its server without asking about weight or overload, else the scheduler's
    /// and a new template.
    fn choose_persistent(
        &self,
        service: &Arc<VirtualService>,
        persistence: &Persistence,
        request: &Request,
        opening: Opening,
    ) -> Result<Choice, Option<Verdict>> {
        let want = self
            .want(service, persistence, opening)
            .ok_or(Some(Verdict::Drop(DropReason::Engine)))?;
        let schedule = || service.schedule_and_bind(request, Class::Inactive);
        let grant = self
            .ends
            .director
            .templates
            .take(self.now, &want, schedule)
            .map_err(|reason| match reason {
                NoTemplate::NoServer => None,
                NoTemplate::Full => Some(Verdict::Drop(DropReason::TableFull)),
            })?;
        let server = Arc::clone(grant.template.server());
        if !grant.bound {
            server.bind(Class::Inactive);
            server.count_connection();
        }
        Ok(Choice {
            port: persistent_port_of(&server, service, opening),
            server,
            template: Some(grant.template),
        })
    }

    /// The template for a connection; `None` if the service's engine finds nothing in the packet.
    pub(super) fn want<'s>(
        &self,
        service: &'s Arc<VirtualService>,
        persistence: &Persistence,
        opening: Opening,
    ) -> Option<Want<'s>> {
        let target = opening.target;
        let at_service_port = target.port() == service_port(service);
        let shows_port = at_service_port && target.port() != FTP;
        let (protocol, shown) = match service.key() {
            Some(ServiceKey::Mark { mark, .. }) if !at_service_port => {
                (None, TemplateTarget::Mark(mark))
            }
            _ => {
                let port = if shows_port { target.port() } else { 0 };
                (
                    Some(self.packet.protocol),
                    TemplateTarget::Address(SocketAddr::new(target.ip(), port)),
                )
            }
        };
        Some(Want {
            key: TemplateKey {
                protocol,
                client: persistence.granularity.apply(opening.client.ip()),
                target: shown,
                engine: self.engine_data(service)?,
            },
            service,
            server: None,
            timeout: nanos(persistence.timeout),
            server_port: shows_port,
            expire_quiescent: self.snapshot.tunables.expire_quiescent_template,
        })
    }

    /// What the service's engine says of the packet: `Some(None)` without an engine, `None` if it
    /// finds nothing.
    #[expect(clippy::type_complexity, reason = "a template key's part")]
    pub(super) fn engine_data(
        &self,
        service: &VirtualService,
    ) -> Option<Option<(&'static str, Arc<[u8]>)>> {
        let Some(engine) = self.snapshot.engine(service) else {
            return Some(None);
        };
        let data = engine.extract(self.packet, self.payload?.bytes())?;
        (data.len() <= MAX_DATA).then(|| Some((engine.name(), Arc::from(data))))
    }

    /// A connection of one packet is never in the table: bound, forwarded, unbound.
    fn forward_one_packet(
        &self,
        server: &RealServer,
        template: Option<Arc<Template>>,
        to: SocketAddr,
    ) -> Verdict {
        if server.is_available() {
            server
                .counters()
                .count_in(self.counters, self.packet.length);
            self.counters.count_in(self.packet.length);
        }
        server.unbind(Class::Inactive);
        if let Some(template) = template {
            template.count_packet();
            template.release(self.now);
        }
        Verdict::Forward {
            method: server.method(),
            server: to,
        }
    }

    /// No server: on to the original destination, to the host, or back to the client.
    fn without_server<A: Address>(
        &self,
        service: &VirtualService,
        key: &FlowKey<A>,
        opening: Opening,
        one_packet: bool,
    ) -> Result<NewEntry<A>, Verdict> {
        if self.bypasses(service, opening) {
            if one_packet {
                return Err(Verdict::Forward {
                    method: ForwardMethod::Bypass,
                    server: opening.target,
                });
            }
            return Ok(NewEntry {
                flow: Flow {
                    client: key.client,
                    vip: key.other,
                    server: key.other,
                    client_port: key.client_port,
                    vport: key.other_port,
                    server_port: 0,
                },
                state: State::new(self.packet.protocol),
                method: ForwardMethod::Bypass,
                server: None,
                template: None,
                control: NONE,
                local: None,
                no_client_port: false,
                synchronised: false,
                packets: 0,
                deadline: self.now + NEW_CONNECTION,
            });
        }
        Err(answer_without_server(service, opening))
    }

    /// Whether a packet that finds no server goes on to where it was sent.
    pub(super) fn bypasses(&self, service: &VirtualService, opening: Opening) -> bool {
        is_mark(service)
            && !opening.quoted
            && self.snapshot.tunables.cache_bypass
            && self.snapshot.may_bypass_to(opening.target.ip())
    }

    /// A call that a real server starts: a connection as if the other end had opened it.
    pub(super) fn accept_from_server<A: Address>(
        &mut self,
        table: &mut Table<A>,
        key: &FlowKey<A>,
    ) -> Option<Verdict> {
        let director = self.ends.director;
        let (remote, source) = (self.packet.destination, self.packet.source);
        let (service, server) = director.nat_server(Protocol::Udp, source)?;
        let Some(ServiceKey::Address { vip, vport, .. }) = service.key() else {
            return None;
        };
        let engine = self.snapshot.engine(&service)?;
        if !engine.accepts_servers() || vport == 0 || source.port() == 0 {
            return None;
        }
        let config = service.config();
        let one_packet = config.one_packet;
        if !self.has_room && !one_packet {
            return Some(Verdict::Drop(DropReason::TableFull));
        }
        let vip_addr = SocketAddr::new(vip, vport);
        let bind = || {
            server.bind(Class::Inactive);
            server.count_connection();
        };
        let template = match &config.persistence {
            Some(persistence) => {
                let engine = self.engine_data(&service)?;
                let want = Want {
                    key: TemplateKey {
                        protocol: Some(Protocol::Udp),
                        client: persistence.granularity.apply(remote.ip()),
                        target: TemplateTarget::Address(vip_addr),
                        engine,
                    },
                    service: &service,
                    server: Some(&server),
                    timeout: nanos(persistence.timeout),
                    server_port: true,
                    expire_quiescent: self.snapshot.tunables.expire_quiescent_template,
                };
                let schedule = || {
                    bind();
                    Some(Arc::clone(&server))
                };
                let grant = director.templates.take(self.now, &want, schedule).ok()?;
                if !grant.bound {
                    bind();
                }
                Some(grant.template)
            }
            None => {
                bind();
                None
            }
        };
        self.counters.count_connection();
        if one_packet {
            server
                .counters()
                .count_out(self.counters, self.packet.length);
            self.counters.count_out(self.packet.length);
            server.unbind(Class::Inactive);
            if let Some(template) = template {
                template.assure();
                template.release(self.now);
            }
            return Some(Verdict::Reply {
                method: ForwardMethod::Nat,
                vip: vip_addr,
            });
        }
        let Some(vip) = A::from_ip(vip) else {
            server.unbind(Class::Inactive);
            debug_assert!(false, "servers are of their service's family");
            return None;
        };
        let id = table.insert(NewEntry {
            flow: Flow {
                client: key.client,
                vip,
                server: key.other,
                client_port: key.client_port,
                vport,
                server_port: key.other_port,
            },
            state: State::Udp,
            method: ForwardMethod::Nat,
            server: Some(server),
            template,
            control: NONE,
            local: None,
            no_client_port: false,
            synchronised: false,
            packets: 0,
            deadline: self.now + NEW_CONNECTION,
        });
        self.pass(table, id, Direction::Outbound);
        self.ends.created(table, id);
        Some(answer(table, id, Direction::Outbound))
    }
}

/// Without persistence an address service serves nothing but its own port.
pub(super) fn is_at_own_port(service: &VirtualService, opening: Opening) -> bool {
    is_mark(service) || opening.target.port() == service_port(service)
}

/// The server's port for a connection without persistence.
pub(super) fn port_of(server: &RealServer, opening: Opening) -> u16 {
    match server.addr().port() {
        0 => opening.target.port(),
        port => port,
    }
}

/// The server's port for a connection with a template.
pub(super) fn persistent_port_of(
    server: &RealServer,
    service: &VirtualService,
    opening: Opening,
) -> u16 {
    let at_service_port = opening.target.port() == service_port(service);
    match server.addr().port() {
        port if at_service_port && port != 0 => port,
        _ => opening.target.port(),
    }
}

pub(super) fn answer_without_server(service: &VirtualService, opening: Opening) -> Verdict {
    if service_port(service) == FTP && opening.target.port() != FTP {
        Verdict::NotOurs
    } else if opening.quoted {
        Verdict::Drop(DropReason::NoServer)
    } else {
        Verdict::Reject
    }
}

fn is_mark(service: &VirtualService) -> bool {
    matches!(service.key(), Some(ServiceKey::Mark { .. }))
}

/// Schedulers that take servers in turn, as local addresses are taken.
pub(super) const SKIPPING: [SchedulerKind; 2] =
    [SchedulerKind::RoundRobin, SchedulerKind::WeightedRoundRobin];
