//! One data-path thread's half: its connections, and the way of a packet through them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};

use crate::conn::state::{Path, State, TcpState};
use crate::conn::table::{Address, Entry, Flow, FlowKey, Table, V4, V6};
use crate::director::{FTP, FTP_DATA, Snapshot};
use crate::persist::{NoTemplate, Template, TemplateKey, TemplateTarget, Want};
use crate::real_server::Class;
use crate::service::one_way;
use crate::stats::WorkerCounters;
use crate::time::{Nanos, nanos, seconds};
use crate::{
    Direction, Director, DropReason, ForwardMethod, Packet, Persistence, Protocol, RealServer,
    Request, ServiceKey, TcpFlags, Verdict, VirtualService,
};

/// The connection table of one data-path thread.
///
/// A packet of a known connection takes no lock: it touches its entry and its server's counters.
/// All packets of a client must come to the same worker, in both directions.
pub struct Worker {
    director: Arc<Director>,
    counters: Arc<WorkerCounters>,
    snapshot: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    v4: Table<V4>,
    v6: Table<V6>,
    /// The latest time told; a caller's clock that steps back stands still here.
    latest: Nanos,
}

/// A connection, for listings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Transport protocol.
    pub protocol: Protocol,
    /// The client.
    pub client: SocketAddr,
    /// What the client talks to.
    pub virtual_addr: SocketAddr,
    /// The real server's address and port.
    pub destination: SocketAddr,
    /// Forwarding method, as it was when the connection began.
    pub method: ForwardMethod,
    /// State.
    pub state: State,
    /// Whether it counts as active.
    pub active: bool,
    /// Whether no reply was ever seen.
    pub no_output: bool,
    /// Packets from the client.
    pub packets: u32,
    /// When it ends if nothing more is heard.
    pub deadline: Instant,
}

impl ConnectionInfo {
    /// Time left.
    pub fn remaining(&self, now: Instant) -> Duration {
        self.deadline.saturating_duration_since(now)
    }
}

impl Worker {
    pub(crate) fn new(director: Arc<Director>, counters: Arc<WorkerCounters>) -> Self {
        let hasher = director.hasher.clone();
        Self {
            counters,
            snapshot: Cache::new(Arc::clone(&director.snapshot)),
            v4: Table::new(hasher.clone()),
            v6: Table::new(hasher),
            latest: 0,
            director,
        }
    }

    /// What to do with a packet. Connections whose deadline is not later than `now` are ended
    /// first, so the answer does not depend on when [`handle_timeout`](Self::handle_timeout) was
    /// called.
    pub fn handle_packet(&mut self, now: Instant, packet: &Packet) -> Verdict {
        let now = self.advance(now);
        self.answer(now, packet)
    }

    /// [`handle_packet`](Self::handle_packet) for several packets that came together. Appends one
    /// verdict each, in order.
    pub fn handle_batch(&mut self, now: Instant, packets: &[Packet], verdicts: &mut Vec<Verdict>) {
        let now = self.advance(now);
        verdicts.extend(packets.iter().map(|packet| self.answer(now, packet)));
    }

    /// Ends connections whose time has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None` means never. May be earlier
    /// than the first end, never later.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.director
            .epoch
            .instant(self.v4.next().min(self.v6.next()))
    }

    /// Number of connections.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All connections, in no particular order.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionInfo> {
        let v4 = self.v4.iter().filter_map(|entry| self.info(entry));
        v4.chain(self.v6.iter().filter_map(|entry| self.info(entry)))
    }

    /// The connection that a client's packet would meet.
    pub fn connection(
        &self,
        protocol: Protocol,
        client: SocketAddr,
        virtual_addr: SocketAddr,
    ) -> Option<ConnectionInfo> {
        fn find<A: Address>(
            table: &Table<A>,
            protocol: Protocol,
            client: SocketAddr,
            other: SocketAddr,
        ) -> Option<&Entry<A>> {
            Some(table.entry(table.find(&key(protocol, client, other)?)?))
        }
        find(&self.v4, protocol, client, virtual_addr)
            .and_then(|entry| self.info(entry))
            .or_else(|| {
                find(&self.v6, protocol, client, virtual_addr).and_then(|entry| self.info(entry))
            })
    }

    fn advance(&mut self, now: Instant) -> Nanos {
        let now = self.director.epoch.nanos(now).max(self.latest);
        self.latest = now;
        self.v4.expire(now, end);
        self.v6.expire(now, end);
        now
    }

    fn answer(&mut self, now: Nanos, packet: &Packet) -> Verdict {
        let verdict = self.decide(now, packet);
        if let Verdict::Drop(reason) = verdict {
            self.counters.count_drop(reason);
        }
        verdict
    }

    fn decide(&mut self, now: Nanos, packet: &Packet) -> Verdict {
        if packet.protocol == Protocol::Sctp {
            return Verdict::NotOurs;
        }
        let has_room = self.len() < self.director.max_connections;
        let path = PacketPath {
            director: &self.director,
            counters: &self.counters,
            snapshot: self.snapshot.load(),
            packet,
            now,
            has_room,
        };
        let (client, other) = match packet.direction {
            Direction::Inbound => (packet.source, packet.destination),
            Direction::Outbound => (packet.destination, packet.source),
        };
        if let Some(key) = key(packet.protocol, client, other) {
            path.walk(&mut self.v4, &key)
        } else if let Some(key) = key(packet.protocol, client, other) {
            path.walk(&mut self.v6, &key)
        } else {
            Verdict::NotOurs
        }
    }

    fn info<A: Address>(&self, entry: &Entry<A>) -> Option<ConnectionInfo> {
        let flow = &entry.flow;
        Some(ConnectionInfo {
            protocol: flow.protocol,
            client: SocketAddr::new(flow.client.ip(), flow.client_port),
            virtual_addr: SocketAddr::new(flow.vip.ip(), flow.vport),
            destination: SocketAddr::new(flow.server.ip(), flow.server_port),
            method: entry.method,
            state: entry.state,
            active: entry.active,
            no_output: entry.no_output,
            packets: entry.packets,
            deadline: self.director.epoch.instant(entry.deadline)?,
        })
    }
}

impl Drop for Worker {
    /// Its connections end with it.
    fn drop(&mut self) {
        let latest = self.latest;
        let at = |deadline: Nanos| deadline.min(latest);
        self.v4.drain(|entry| {
            let deadline = at(entry.deadline);
            end_at(entry, deadline);
        });
        self.v6.drain(|entry| {
            let deadline = at(entry.deadline);
            end_at(entry, deadline);
        });
        self.director.retire_worker(&self.counters);
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("connections", &self.len())
            .finish_non_exhaustive()
    }
}

/// Everything that one packet needs besides the table of its family.
struct PacketPath<'a> {
    director: &'a Director,
    counters: &'a WorkerCounters,
    snapshot: &'a Snapshot,
    packet: &'a Packet,
    now: Nanos,
    has_room: bool,
}

/// Where a new connection goes; it is bound and counted there.
struct Choice {
    server: Arc<RealServer>,
    template: Option<Arc<Template>>,
    /// The server's port for this connection.
    port: u16,
}

impl PacketPath<'_> {
    fn walk<A: Address>(&self, table: &mut Table<A>, key: &FlowKey<A>) -> Verdict {
        match self.packet.direction {
            Direction::Inbound => self.inbound(table, key),
            Direction::Outbound => self.outbound(table, key),
        }
    }

    fn inbound<A: Address>(&self, table: &mut Table<A>, key: &FlowKey<A>) -> Verdict {
        let tunables = &self.snapshot.tunables;
        let mut replaced = None;
        if let Some(id) = table.find(key) {
            let entry = table.entry(id);
            let begins = self.packet.protocol == Protocol::Tcp
                && self.packet.tcp_flags.contains(TcpFlags::SYN);
            let reschedule = begins
                && (tunables.expire_nodest_conn && entry.server.is_quiesced()
                    || is_reusable(entry, tunables.conn_reuse_mode));
            if !reschedule && entry.server.is_available() {
                return self.forward(table, id);
            }
            if !reschedule && !tunables.expire_nodest_conn {
                return Verdict::Drop(DropReason::ServerRemoved);
            }
            replaced = Some(id);
        }
        let scheduled = self.schedule(key, replaced.is_some());
        // The old connection ends after the scheduler was asked and the new one was bound: it still
        // counted there.
        let outcome = scheduled.map(|entry| table.insert(entry));
        if let Some(old) = replaced {
            end_at(table.remove(old), self.now);
        }
        match outcome {
            Ok(id) => self.forward(table, id),
            Err(verdict) => verdict,
        }
    }

    fn outbound<A: Address>(&self, table: &mut Table<A>, key: &FlowKey<A>) -> Verdict {
        let Some(id) = table.find_reverse(key) else {
            return Verdict::NotOurs;
        };
        let entry = table.entry_mut(id);
        if entry.server.is_available() {
            entry.server.counters().count_out(self.packet.length);
            self.counters.count_out(self.packet.length);
        }
        let verdict = Verdict::Reply {
            method: entry.method,
            vip: SocketAddr::new(entry.flow.vip.ip(), entry.flow.vport),
        };
        self.update_state(table, id);
        verdict
    }

    /// A client's packet of a connection.
    fn forward<A: Address>(&self, table: &mut Table<A>, id: u32) -> Verdict {
        let entry = table.entry_mut(id);
        if entry.server.is_available() {
            entry.server.counters().count_in(self.packet.length);
            self.counters.count_in(self.packet.length);
        }
        entry.packets = entry.packets.wrapping_add(1);
        let verdict = Verdict::Forward {
            method: entry.method,
            server: SocketAddr::new(entry.flow.server.ip(), entry.flow.server_port),
        };
        self.update_state(table, id);
        verdict
    }

    /// Applies the packet to the connection's state and restarts the timer.
    fn update_state<A: Address>(&self, table: &mut Table<A>, id: u32) {
        let entry = table.entry_mut(id);
        let direction = self.packet.direction;
        if direction == Direction::Outbound {
            entry.no_output = false;
        }
        match entry.state {
            State::Tcp(before) => {
                let after =
                    before.after(Path::new(direction, entry.no_output), self.packet.tcp_flags);
                entry.enter(State::Tcp(after));
                if after == TcpState::Established && before != after {
                    entry.template.iter().for_each(|template| template.assure());
                }
            }
            State::Udp => {
                if direction == Direction::Outbound {
                    entry.template.iter().for_each(|template| template.assure());
                }
            }
        }
        let deadline = self.now + self.snapshot.timings.of(entry.state);
        table.set_deadline(id, deadline);
    }

    /// Decides on a packet without a connection: the new connection, bound and counted, or the
    /// answer.
    fn schedule<A: Address>(&self, key: &FlowKey<A>, replaces: bool) -> Result<Entry<A>, Verdict> {
        let packet = self.packet;
        if packet.protocol == Protocol::Tcp {
            let opens =
                packet.tcp_flags.contains(TcpFlags::SYN) || self.snapshot.tunables.sloppy_tcp;
            if packet.tcp_flags.contains(TcpFlags::RST) || !opens {
                return Err(Verdict::NotOurs);
            }
        }
        let service = self.snapshot.find(packet).ok_or(Verdict::NotOurs)?;
        if key.client_port == FTP_DATA {
            return Err(Verdict::NotOurs);
        }
        if !self.has_room && !replaces {
            return Err(Verdict::Drop(DropReason::TableFull));
        }
        let config = service.config();
        let request = Request::new(packet.source, packet.destination).with_flags(config.flags);
        let Choice {
            server,
            template,
            port,
        } = match &config.persistence {
            Some(persistence) => self.schedule_persistent(service, persistence, &request)?,
            None => {
                let is_mark = matches!(service.key(), Some(ServiceKey::Mark { .. }));
                if !is_mark && packet.destination.port() != service_port(service) {
                    return Err(self.no_server(service));
                }
                let server = service
                    .schedule_and_bind(&request, Class::Inactive)
                    .ok_or_else(|| self.no_server(service))?;
                let port = match server.addr().port() {
                    0 => packet.destination.port(),
                    port => port,
                };
                Choice {
                    server,
                    template: None,
                    port,
                }
            }
        };
        self.counters.count_connection();
        let Some(address) = A::from_ip(server.addr().ip()) else {
            debug_assert!(false, "servers are of their service's family");
            server.unbind(Class::Inactive);
            return Err(Verdict::Reject);
        };
        let method = server.method();
        if config.one_packet && packet.protocol == Protocol::Udp {
            return Err(self.forward_one_packet(
                &server,
                template,
                SocketAddr::new(server.addr().ip(), port),
            ));
        }
        Ok(Entry {
            flow: Flow {
                client: key.client,
                vip: key.other,
                server: address,
                client_port: key.client_port,
                vport: key.other_port,
                server_port: port,
                protocol: key.protocol,
            },
            method,
            state: match packet.protocol {
                Protocol::Tcp => State::Tcp(TcpState::None),
                Protocol::Udp | Protocol::Sctp => State::Udp,
            },
            active: false,
            no_output: one_way(method),
            packets: 0,
            server,
            template,
            deadline: self.now + NEW_CONNECTION,
            armed: 0,
        })
    }

    /// Through a template: its server without asking about weight or overload, else the scheduler's
    /// and a new template.
    fn schedule_persistent(
        &self,
        service: &VirtualService,
        persistence: &Persistence,
        request: &Request,
    ) -> Result<Choice, Verdict> {
        let destination = self.packet.destination;
        let at_service_port = destination.port() == service_port(service);
        let (protocol, target) = match service.key() {
            Some(ServiceKey::Mark { mark, .. }) if !at_service_port => {
                (None, TemplateTarget::Mark(mark))
            }
            _ => {
                let shown = if at_service_port && destination.port() != FTP {
                    destination.port()
                } else {
                    0
                };
                (
                    Some(self.packet.protocol),
                    TemplateTarget::Address(SocketAddr::new(destination.ip(), shown)),
                )
            }
        };
        let want = Want {
            key: TemplateKey {
                protocol,
                client: persistence.granularity.apply(request.client.ip()),
                target,
            },
            timeout: nanos(persistence.timeout),
            server_port: at_service_port && destination.port() != FTP,
            expire_quiescent: self.snapshot.tunables.expire_quiescent_template,
        };
        let schedule = || service.schedule_and_bind(request, Class::Inactive);
        let grant = self
            .director
            .templates
            .take(self.now, &want, schedule)
            .map_err(|reason| match reason {
                NoTemplate::NoServer => self.no_server(service),
                NoTemplate::Full => Verdict::Drop(DropReason::TableFull),
            })?;
        let server = Arc::clone(grant.template.server());
        if !grant.bound {
            server.bind(Class::Inactive);
            server.counters().count_connection();
        }
        let port = match server.addr().port() {
            port if at_service_port && port != 0 => port,
            _ => destination.port(),
        };
        Ok(Choice {
            server,
            template: Some(grant.template),
            port,
        })
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
        template
            .iter()
            .for_each(|template| template.release(self.now));
        Verdict::Forward {
            method: server.method(),
            server: to,
        }
    }

    fn no_server(&self, service: &VirtualService) -> Verdict {
        if service_port(service) == FTP && self.packet.destination.port() != FTP {
            Verdict::NotOurs
        } else {
            Verdict::Reject
        }
    }
}

/// Whether a SYN begins a new connection on this entry. One that a template controls always keeps
/// its server.
fn is_reusable<A>(entry: &Entry<A>, mode: u32) -> bool {
    mode != 0
        && entry.template.is_none()
        && match entry.state {
            State::Tcp(TcpState::TimeWait | TcpState::Close) => true,
            State::Tcp(TcpState::FinWait) => mode & 2 != 0 && entry.no_output,
            State::Tcp(_) | State::Udp => false,
        }
}

fn service_port(service: &VirtualService) -> u16 {
    service.key().map_or(0, |key| key.port())
}

fn key<A: Address>(
    protocol: Protocol,
    client: SocketAddr,
    other: SocketAddr,
) -> Option<FlowKey<A>> {
    Some(FlowKey {
        client: A::from_ip(client.ip())?,
        other: A::from_ip(other.ip())?,
        client_port: client.port(),
        other_port: other.port(),
        protocol,
    })
}

/// A connection's end at its deadline.
fn end<A: Address>(entry: Entry<A>) {
    let deadline = entry.deadline;
    end_at(entry, deadline);
}

fn end_at<A: Address>(entry: Entry<A>, at: Nanos) {
    entry.server.unbind(entry.class());
    if let Some(template) = entry.template {
        template.release(at);
    }
}

const NEW_CONNECTION: Nanos = seconds(3);

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
