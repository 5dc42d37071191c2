//! The way of a packet through connections, services and schedulers.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::conn::chunks::NONE;
use crate::conn::state::{Path, SctpState, State, TcpState};
use crate::conn::table::{Address, Entry, Flow, FlowKey, Gone, NEW_CONNECTION, NewEntry, Table};
use crate::director::{FTP, FTP_DATA, Snapshot};
use crate::engine::MAX_DATA;
use crate::persist::{NoTemplate, Template, TemplateKey, TemplateTarget, Want};
use crate::real_server::Class;
use crate::stats::WorkerCounters;
use crate::sync::Feed;
use crate::time::{Nanos, nanos};
use crate::{
    ConnectionEvent, ConnectionInfo, Direction, Director, DropReason, Family, ForwardMethod,
    Packet, Persistence, Protocol, RealServer, Request, SchedulerKind, SctpEvent, ServiceConfig,
    ServiceKey, TcpFlags, Verdict, VirtualService,
};

/// Everything that one packet needs besides the table of its family.
pub(crate) struct PacketPath<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) counters: &'a WorkerCounters,
    pub(crate) ends: Ends<'a>,
    pub(crate) packet: &'a Packet,
    /// What follows the transport header, if the caller told.
    pub(crate) payload: Option<&'a [u8]>,
    pub(crate) now: Nanos,
    pub(crate) has_room: bool,
}

/// Where a new connection goes; it is bound and counted there.
struct Choice {
    server: Arc<RealServer>,
    template: Option<Arc<Template>>,
    /// The server's port for this connection.
    port: u16,
}

/// Who may open a connection, and from which side of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) client: SocketAddr,
    pub(crate) target: SocketAddr,
    /// By a header that an ICMP error quotes.
    pub(crate) quoted: bool,
}

impl PacketPath<'_> {
    /// A packet of TCP, UDP or SCTP.
    pub(crate) fn walk<A: Address>(
        &mut self,
        table: &mut Table<A>,
        key: &FlowKey<A>,
        hash: u32,
    ) -> Verdict {
        match self.packet.direction {
            Direction::Inbound => self.inbound(table, key, hash),
            Direction::Outbound => self.outbound(table, key, hash),
        }
    }

    /// An ICMP error; the packet is the header that it quotes, which travelled the other way.
    /// Neither state nor timer changes.
    pub(crate) fn icmp<A: Address>(
        &mut self,
        table: &mut Table<A>,
        key: &FlowKey<A>,
        about_tunnel: bool,
    ) -> Verdict {
        let hash = table.hash(key);
        if self.packet.direction == Direction::Outbound {
            let Some(id) = table.find_reverse(key, hash) else {
                return Verdict::NotOurs;
            };
            self.count_out(table.entry(id));
            return reply(table.entry(id));
        }
        if self.snapshot.tunables.backup_only {
            return Verdict::NotOurs;
        }
        let id = match table.find(key, hash) {
            Some(id) => id,
            None if self.snapshot.tunables.schedule_icmp && !about_tunnel => {
                let opening = Opening {
                    client: self.packet.destination,
                    target: self.packet.source,
                    quoted: true,
                };
                match self.schedule(key, opening, false) {
                    Ok(new) => {
                        let id = table.insert(new);
                        self.ends.created(table.entry(id));
                        id
                    }
                    Err(verdict) => return verdict,
                }
            }
            None => return Verdict::NotOurs,
        };
        self.count_in(table.entry(id));
        forward(table.entry(id))
    }

    /// AH or ESP: part of the key exchange's flow between the same addresses, without its state.
    pub(crate) fn ipsec<A: Address>(&mut self, table: &mut Table<A>, key: &FlowKey<A>) -> Verdict {
        let hash = table.hash(key);
        let inbound = self.packet.direction == Direction::Inbound;
        if inbound && self.snapshot.tunables.backup_only {
            return Verdict::NotOurs;
        }
        let found = if inbound {
            table.find(key, hash)
        } else {
            table.find_reverse(key, hash)
        };
        let Some(id) = found else {
            return Verdict::NotOurs;
        };
        if inbound && table.entry(id).lost_its_server() {
            if !self.snapshot.tunables.expire_nodest_conn {
                return Verdict::Drop(DropReason::ServerRemoved);
            }
            self.ends.end(table, id, self.now, false);
            return Verdict::NotOurs;
        }
        let entry = table.entry(id);
        let deadline = self.now + entry.timeout(self.snapshot.timings.of(entry.state));
        let verdict = if inbound {
            self.count_in(entry);
            forward(entry)
        } else {
            self.count_out(entry);
            reply(entry)
        };
        if inbound {
            let entry = table.entry_mut(id);
            entry.packets = entry.packets.wrapping_add(1);
        }
        table.set_deadline(id, deadline);
        verdict
    }

    fn inbound<A: Address>(
        &mut self,
        table: &mut Table<A>,
        key: &FlowKey<A>,
        hash: u32,
    ) -> Verdict {
        let tunables = &self.snapshot.tunables;
        if tunables.backup_only {
            return Verdict::NotOurs;
        }
        let mut replaced = None;
        if let Some(id) = table.find(key, hash) {
            let reschedule = self.begins()
                && (tunables.expire_nodest_conn && has_quiesced_server(table.entry(id))
                    || is_reusable(table, id, tunables.conn_reuse_mode));
            if !reschedule {
                // The end of a drain is forced: here it ends as if nothing were known of it.
                let is_forced = has_forced_server(table.entry(id));
                if !table.entry(id).lost_its_server() && !is_forced {
                    return self.take(table, id);
                }
                if !tunables.expire_nodest_conn && !is_forced {
                    return Verdict::Drop(DropReason::ServerRemoved);
                }
            }
            // One that controls others stays where it is, but the newer one is found first.
            replaced = (table.controls(id) == 0).then_some(id);
        }
        let opening = Opening {
            client: self.packet.source,
            target: self.packet.destination,
            quoted: false,
        };
        let scheduled = self.schedule(key, opening, replaced.is_some());
        // The old connection ends after the scheduler was asked and the new one was bound: it still
        // counted there.
        let old = replaced.map(|id| table.remove(id));
        let outcome = match scheduled {
            Ok(new) => {
                let id = table.insert(new);
                let verdict = self.pass(table, id, Direction::Inbound).0;
                self.ends.created(table.entry(id));
                verdict
            }
            Err(verdict) => verdict,
        };
        if let Some(old) = old {
            self.ends.finish(table, old, self.now, false);
        }
        outcome
    }

    fn outbound<A: Address>(
        &mut self,
        table: &mut Table<A>,
        key: &FlowKey<A>,
        hash: u32,
    ) -> Verdict {
        let Some(id) = table.find_reverse(key, hash) else {
            return self.unknown_reply(table, key);
        };
        let (verdict, changed) = self.pass(table, id, Direction::Outbound);
        if changed {
            self.ends.changed(table.entry(id));
        }
        verdict
    }

    /// A client's packet of a connection.
    fn take<A: Address>(&mut self, table: &mut Table<A>, id: u32) -> Verdict {
        let learns = table.entry(id).no_client_port();
        if learns {
            table.set_client_port(id, self.packet.source.port());
        }
        let (verdict, changed) = self.pass(table, id, Direction::Inbound);
        if changed || learns {
            self.ends.changed(table.entry(id));
        }
        verdict
    }

    /// Counts a packet, applies it to the connection's state and restarts the timer. Returns
    /// whether the state changed as well.
    fn pass<A: Address>(
        &self,
        table: &mut Table<A>,
        id: u32,
        direction: Direction,
    ) -> (Verdict, bool) {
        let entry = table.entry_mut(id);
        let verdict = match direction {
            Direction::Inbound => {
                entry.packets = entry.packets.wrapping_add(1);
                self.count_in(entry);
                forward(entry)
            }
            Direction::Outbound => {
                entry.see_output();
                self.count_out(entry);
                reply(entry)
            }
        };
        let path = Path::new(direction, entry.no_output());
        let state = match (entry.state, self.packet.sctp) {
            (State::Tcp(state), _) => {
                State::Tcp(state.after(path, self.packet.tcp_flags, self.snapshot.secure()))
            }
            (State::Udp, _) => State::Udp,
            (State::Sctp(state), Some(event)) => State::Sctp(state.after(path, event)),
            // Nothing can be read, nothing changes but the timer.
            (State::Sctp(_), None) => {
                let timeout = entry.timeout(self.snapshot.timings.of(entry.state));
                table.set_deadline(id, self.now + timeout);
                return (verdict, false);
            }
        };
        let changed = entry.enter(state);
        let assures = changed && state.is_established()
            || state == State::Udp && direction == Direction::Outbound;
        if assures && let Some(template) = table.template(id) {
            template.assure();
        }
        table.set_deadline(id, self.now + self.snapshot.timings.of(state));
        (verdict, changed)
    }

    fn count_in<A>(&self, entry: &Entry<A>) {
        if let Some(server) = entry
            .server
            .as_deref()
            .filter(|server| server.is_available())
        {
            server.counters().count_in(self.packet.length);
            self.counters.count_in(self.packet.length);
        }
    }

    fn count_out<A>(&self, entry: &Entry<A>) {
        if let Some(server) = entry
            .server
            .as_deref()
            .filter(|server| server.is_available())
        {
            server.counters().count_out(self.packet.length);
            self.counters.count_out(self.packet.length);
        }
    }

    /// Whether the packet is one that begins a connection even where there is one.
    pub(crate) fn begins(&self) -> bool {
        match self.packet.protocol {
            Protocol::Tcp => self.packet.tcp_flags.contains(TcpFlags::SYN),
            Protocol::Udp => false,
            Protocol::Sctp => self.packet.sctp == Some(SctpEvent::Init),
        }
    }

    /// Whether the packet may open a connection where there is none.
    pub(crate) fn may_open(&self) -> Result<(), Verdict> {
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
    fn schedule<A: Address>(
        &self,
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
        let one_packet = config.one_packet && self.packet.protocol == Protocol::Udp;
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
        self.counters.count_connection();
        let Some(address) = A::from_ip(server.addr().ip()) else {
            debug_assert!(false, "servers are of their service's family");
            server.unbind(Class::Inactive);
            return Err(Verdict::Reject);
        };
        let method = server.method();
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
            no_client_port: false,
            synchronised: false,
            packets: 0,
            deadline: self.now + NEW_CONNECTION,
        })
    }

    /// What the scheduler is asked.
    pub(crate) fn request(&self, config: &ServiceConfig, opening: Opening) -> Request {
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
            server.counters().count_connection();
        }
        Ok(Choice {
            port: persistent_port_of(&server, service, opening),
            server,
            template: Some(grant.template),
        })
    }

    /// The template for a connection; `None` if the service's engine finds nothing in the packet.
    pub(crate) fn want<'s>(
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
    pub(crate) fn engine_data(
        &self,
        service: &VirtualService,
    ) -> Option<Option<(&'static str, Arc<[u8]>)>> {
        let Some(engine) = self.snapshot.engine(service) else {
            return Some(None);
        };
        let data = engine.extract(self.packet, self.payload?)?;
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
            server.counters().count_in(self.packet.length);
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
                no_client_port: false,
                synchronised: false,
                packets: 0,
                deadline: self.now + NEW_CONNECTION,
            });
        }
        Err(answer_without_server(service, opening))
    }

    /// Whether a packet that finds no server goes on to where it was sent.
    pub(crate) fn bypasses(&self, service: &VirtualService, opening: Opening) -> bool {
        is_mark(service)
            && !opening.quoted
            && self.snapshot.tunables.cache_bypass
            && self.snapshot.may_bypass_to(opening.target.ip())
    }

    /// A real server's packet without a connection.
    fn unknown_reply<A: Address>(&mut self, table: &mut Table<A>, key: &FlowKey<A>) -> Verdict {
        let packet = self.packet;
        if self.snapshot.accepts_servers
            && packet.protocol == Protocol::Udp
            && let Some(verdict) = self.accept_from_server(table, key)
        {
            return verdict;
        }
        if self.refuses_unknown_reply() {
            return Verdict::Reject;
        }
        Verdict::NotOurs
    }

    /// Whether a real server is told that nobody waits for its packet.
    pub(crate) fn refuses_unknown_reply(&self) -> bool {
        let packet = self.packet;
        let may_be_told = !(packet.protocol == Protocol::Tcp
            && packet.tcp_flags.contains(TcpFlags::RST)
            || packet.sctp == Some(SctpEvent::Abort));
        self.snapshot.tunables.nat_icmp_send
            && may_be_told
            && self
                .ends
                .director
                .nat_server(packet.protocol, packet.source)
                .is_some()
    }

    /// A call that a real server starts: a connection as if the other end had opened it.
    fn accept_from_server<A: Address>(
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
            server.counters().count_connection();
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
            server.counters().count_out(self.packet.length);
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
            no_client_port: false,
            synchronised: false,
            packets: 0,
            deadline: self.now + NEW_CONNECTION,
        });
        let verdict = self.pass(table, id, Direction::Outbound).0;
        self.ends.created(table.entry(id));
        Some(verdict)
    }
}

/// How connections end, and who is told of what happens to them.
pub(crate) struct Ends<'a> {
    pub(crate) director: &'a Director,
    feed: &'a mut Feed,
}

impl<'a> Ends<'a> {
    pub(crate) fn new(director: &'a Director, feed: &'a mut Feed) -> Self {
        Self { director, feed }
    }

    /// Ends a connection that controls nothing. If it is `forced` to, what controlled it goes with
    /// it, unless that controls another one or is an assured template.
    pub(crate) fn end<A: Address>(
        &mut self,
        table: &mut Table<A>,
        id: u32,
        at: Nanos,
        forced: bool,
    ) {
        let gone = table.remove(id);
        self.finish(table, gone, at, forced);
    }

    /// The end of one that was taken out of the table already.
    pub(crate) fn finish<A: Address>(
        &mut self,
        table: &mut Table<A>,
        gone: Gone<A>,
        at: Nanos,
        forced: bool,
    ) {
        let mut gone = gone;
        loop {
            if let Some(server) = &gone.entry.server {
                server.unbind(gone.entry.class());
            }
            if self.feed.is_on()
                && let Some(info) = info(self.director, &gone.entry)
            {
                self.feed.push(ConnectionEvent::Ended(info));
            }
            if let Some(template) = &gone.template {
                template.release(at);
                if forced {
                    self.director.templates.cascade(template);
                }
            }
            if gone.control == NONE || !table.release(gone.control, at) || !forced {
                return;
            }
            gone = table.remove(gone.control);
        }
    }

    pub(crate) fn created<A: Address>(&mut self, entry: &Entry<A>) {
        if self.feed.is_on()
            && let Some(info) = info(self.director, entry)
        {
            self.feed.push(ConnectionEvent::Created(info));
        }
    }

    pub(crate) fn changed<A: Address>(&mut self, entry: &Entry<A>) {
        if self.feed.is_on()
            && let Some(info) = info(self.director, entry)
        {
            self.feed.push(ConnectionEvent::Changed(info));
        }
    }
}

/// A connection as listings show it.
pub(crate) fn info<A: Address>(director: &Director, entry: &Entry<A>) -> Option<ConnectionInfo> {
    let flow = &entry.flow;
    Some(ConnectionInfo {
        protocol: entry.protocol(),
        client: SocketAddr::new(flow.client.ip(), flow.client_port),
        virtual_addr: SocketAddr::new(flow.vip.ip(), flow.vport),
        destination: SocketAddr::new(flow.server.ip(), flow.server_port),
        method: entry.method,
        state: entry.state,
        active: entry.is_active(),
        no_output: entry.no_output(),
        no_client_port: entry.no_client_port(),
        synchronised: entry.is_synchronised(),
        packets: entry.packets,
        deadline: director.epoch.instant(entry.deadline())?,
    })
}

pub(crate) fn forward<A: Address>(entry: &Entry<A>) -> Verdict {
    let flow = &entry.flow;
    let port = match entry.method {
        // It goes on to where it was sent.
        ForwardMethod::Bypass => flow.vport,
        _ => flow.server_port,
    };
    Verdict::Forward {
        method: entry.method,
        server: SocketAddr::new(flow.server.ip(), port),
    }
}

pub(crate) fn reply<A: Address>(entry: &Entry<A>) -> Verdict {
    Verdict::Reply {
        method: entry.method,
        vip: SocketAddr::new(entry.flow.vip.ip(), entry.flow.vport),
    }
}

pub(crate) fn has_quiesced_server<A>(entry: &Entry<A>) -> bool {
    entry
        .server
        .as_ref()
        .is_some_and(|server| server.is_quiesced())
}

pub(crate) fn has_forced_server<A>(entry: &Entry<A>) -> bool {
    let server = entry.server.as_ref();
    server.is_some_and(|server| server.watch().is_forced())
}

/// Whether a packet that begins a connection begins a new one on this entry. One that something
/// controls always keeps its server.
pub(crate) fn is_reusable<A: Address>(table: &Table<A>, id: u32, mode: u32) -> bool {
    let entry = table.entry(id);
    let is_over = match entry.state {
        State::Tcp(TcpState::TimeWait | TcpState::Close) | State::Sctp(SctpState::Closed) => true,
        State::Tcp(TcpState::FinWait) => mode & 2 != 0 && entry.no_output(),
        State::Tcp(_) | State::Udp | State::Sctp(_) => false,
    };
    mode != 0 && is_over && table.template(id).is_none() && table.control(id).is_none()
}

fn service_port(service: &VirtualService) -> u16 {
    service.key().map_or(0, |key| key.port())
}

fn is_mark(service: &VirtualService) -> bool {
    matches!(service.key(), Some(ServiceKey::Mark { .. }))
}

/// Without persistence an address service serves nothing but its own port.
pub(crate) fn is_at_own_port(service: &VirtualService, opening: Opening) -> bool {
    is_mark(service) || opening.target.port() == service_port(service)
}

/// The server's port for a connection without persistence.
pub(crate) fn port_of(server: &RealServer, opening: Opening) -> u16 {
    match server.addr().port() {
        0 => opening.target.port(),
        port => port,
    }
}

/// The server's port for a connection with a template.
pub(crate) fn persistent_port_of(
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

pub(crate) fn answer_without_server(service: &VirtualService, opening: Opening) -> Verdict {
    if service_port(service) == FTP && opening.target.port() != FTP {
        Verdict::NotOurs
    } else if opening.quoted {
        Verdict::Drop(DropReason::NoServer)
    } else {
        Verdict::Reject
    }
}

pub(crate) fn family_of(addr: std::net::IpAddr) -> Family {
    if addr.is_ipv4() {
        Family::Inet
    } else {
        Family::Inet6
    }
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
