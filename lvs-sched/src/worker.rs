//! One data-path thread's half: its connections, and what it does besides packets.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};

use crate::conn::chunks::NONE;
use crate::conn::key::{Address, FlowKey, V4, V6};
use crate::conn::state::{SctpState, State, TcpState};
use crate::conn::table::{Entry, Flow, NewEntry, Sought, Table};
use crate::defence::{self, Random, Sampling};
use crate::director::Snapshot;
use crate::local::LocalPorts;
use crate::path::{Ends, PacketPath, Payload, info};
use crate::real_server::Class;
use crate::stats::WorkerCounters;
use crate::sync::Feed;
use crate::time::{NEVER, Nanos, nanos};
use crate::{
    ConnectionEvent, Direction, Director, Explanation, ForwardMethod, ImportError,
    ImportedConnection, LocalEnd, Packet, Payloads, Protocol, Reason, TcpFlags, Verdict,
    VirtualService,
};

/// The connection table of one data-path thread.
///
/// A packet of a known connection takes no lock: it touches its entry and its server's counters.
/// All packets of a client must come to the same worker, in both directions.
pub struct Worker {
    pub(crate) director: Arc<Director>,
    counters: Arc<WorkerCounters>,
    snapshot: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    pub(crate) v4: Table<V4>,
    pub(crate) v6: Table<V6>,
    pub(crate) feed: Feed,
    pub(crate) ports: LocalPorts,
    /// The latest time told; a caller's clock that steps back stands still here.
    latest: Nanos,
    chores: Chores,
    /// Keys and hashes of a batch.
    prepared: Vec<Prepared>,
}

/// What is done in small steps besides packets.
struct Chores {
    /// When the next step is due.
    next: Nanos,
    /// The director's number of sweeps that were begun here.
    sweeps: u64,
    /// Where the present sweep is, if there is one: a place of the IPv4 table, then of the other.
    sweep: Option<u32>,
    sampling: Sampling,
    random: Random,
}

/// Where a packet belongs.
#[derive(Clone, Copy)]
enum Prepared {
    V4(FlowKey<V4>, Sought),
    V6(FlowKey<V6>, Sought),
    /// Addresses of different families.
    Neither,
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
    /// FULLNAT: the director's side of the connection to the server.
    pub local: Option<SocketAddr>,
    /// Forwarding method, as it was when the connection began.
    pub method: ForwardMethod,
    /// State.
    pub state: State,
    /// Whether it counts as active.
    pub active: bool,
    /// Whether no reply was ever seen.
    pub no_output: bool,
    /// Whether it waits for its client's first packet to learn the port; shown as port 0.
    pub no_client_port: bool,
    /// Whether it came by [`Worker::import_connection`].
    pub synchronised: bool,
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
    pub(crate) fn new(
        director: Arc<Director>,
        counters: Arc<WorkerCounters>,
        seed: u64,
        ports: LocalPorts,
    ) -> Self {
        let hasher = director.hasher.clone();
        Self {
            counters,
            snapshot: Cache::new(Arc::clone(&director.snapshot)),
            v4: Table::new(hasher.clone()),
            v6: Table::new(hasher),
            feed: Feed::default(),
            ports,
            latest: 0,
            chores: Chores {
                next: NEVER,
                sweeps: director.sweeps.load(Ordering::Acquire),
                sweep: None,
                sampling: Sampling::default(),
                random: Random::new(seed),
            },
            prepared: Vec::new(),
            director,
        }
    }

    /// What to do with a packet. Connections whose deadline is not later than `now` are ended
    /// first, so the answer does not depend on when [`handle_timeout`](Self::handle_timeout) was
    /// called.
    pub fn handle_packet(&mut self, now: Instant, packet: &Packet) -> Verdict {
        self.handle(now, packet, None)
    }

    /// [`handle_packet`](Self::handle_packet) with what follows the transport header, for services
    /// that have a [`PersistenceEngine`](crate::PersistenceEngine): without it, they drop packets
    /// that belong to no connection.
    pub fn handle_packet_with(&mut self, now: Instant, packet: &Packet, payload: &[u8]) -> Verdict {
        let payload = Payload {
            of: &[payload],
            index: 0,
        };
        self.handle(now, packet, Some(payload))
    }

    /// [`handle_packet`](Self::handle_packet) for several packets that came together. Appends one
    /// verdict each, in order.
    ///
    /// Faster than one by one in a large table: what the lookups will read is fetched for many
    /// packets at once.
    pub fn handle_batch(&mut self, now: Instant, packets: &[Packet], verdicts: &mut Vec<Verdict>) {
        self.batch(now, packets, None, verdicts);
    }

    /// [`handle_batch`](Self::handle_batch) with what follows the transport headers. Asked for only where
    /// a service has a [`PersistenceEngine`](crate::PersistenceEngine), and only for packets that
    /// belong to no connection.
    pub fn handle_batch_with(
        &mut self,
        now: Instant,
        packets: &[Packet],
        payloads: &dyn Payloads,
        verdicts: &mut Vec<Verdict>,
    ) {
        self.batch(now, packets, Some(payloads), verdicts);
    }

    /// What [`handle_packet`](Self::handle_packet) would answer now, and why, without doing it: nothing
    /// is counted, bound or begun, and no scheduler's turn passes. Connections whose time has come are
    /// ended first, as by any call.
    pub fn explain(&mut self, now: Instant, packet: &Packet) -> Explanation {
        self.explain_path(now, packet, None)
    }

    /// [`explain`](Self::explain) for [`handle_packet_with`](Self::handle_packet_with).
    pub fn explain_with(&mut self, now: Instant, packet: &Packet, payload: &[u8]) -> Explanation {
        let payload = Payload {
            of: &[payload],
            index: 0,
        };
        self.explain_path(now, packet, Some(payload))
    }

    /// What to do with an ICMP error, by the header that it quotes: `quoted` has the addresses and
    /// ports as they stand there, but `direction` and `length` are the error's own.
    ///
    /// An inbound error is about what a server sent to a client, an outbound one about what went to
    /// a server. The connection's state and timer do not change. Only errors belong here: in IPv4
    /// destination unreachable, source quench and time exceeded, in IPv6 types below 128.
    /// [`Verdict::NotOurs`] if there is no connection, unless
    /// [`Tunables::schedule_icmp`](crate::Tunables::schedule_icmp) is on.
    pub fn handle_icmp(&mut self, now: Instant, quoted: &Packet) -> Verdict {
        self.handle_quoted(now, quoted, false)
    }

    /// What to do with an ICMP error about a packet in a tunnel to a server, by the client's packet
    /// that was inside. [`Verdict::Forward`] tells whose tunnel it was; nothing is ever scheduled.
    pub fn handle_tunnel_icmp(&mut self, now: Instant, inner: &Packet) -> Verdict {
        self.handle_quoted(now, inner, true)
    }

    /// What to do with an AH or ESP packet: it belongs to the UDP flow between ports 500 of the
    /// same addresses, the key exchange, and never opens a connection.
    pub fn handle_ipsec(
        &mut self,
        now: Instant,
        direction: Direction,
        source: IpAddr,
        destination: IpAddr,
        length: u32,
    ) -> Verdict {
        let now = self.advance(now);
        let packet = exchange(direction, source, destination, length);
        let prepared = self.prepare(&packet);
        let verdict = self.on_path(now, &packet, None, |path, tables| match prepared {
            Prepared::V4(key, _) => path.ipsec(tables.0, &key),
            Prepared::V6(key, _) => path.ipsec(tables.1, &key),
            Prepared::Neither => Verdict::NotOurs,
        });
        self.counted(verdict)
    }

    /// [`explain`](Self::explain) for [`handle_ipsec`](Self::handle_ipsec).
    pub fn explain_ipsec(
        &mut self,
        now: Instant,
        direction: Direction,
        source: IpAddr,
        destination: IpAddr,
    ) -> Explanation {
        let now = self.advance(now);
        let packet = exchange(direction, source, destination, 0);
        let prepared = self.prepare(&packet);
        self.on_path(now, &packet, None, |path, tables| match prepared {
            Prepared::V4(key, _) => path.explain_ipsec(tables.0, &key),
            Prepared::V6(key, _) => path.explain_ipsec(tables.1, &key),
            Prepared::Neither => Explanation::new(Reason::MixedFamilies, Verdict::NotOurs),
        })
    }

    /// Ends connections whose time has come, and does a step of what else is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        self.work(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None` means never. May be earlier
    /// than the first end, never later: timers of a large table are sorted ahead of time, a few in
    /// each call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let mut next = self.v4.next().min(self.v6.next()).min(self.chores.next);
        let sweeps = self.director.sweeps.load(Ordering::Relaxed) != self.chores.sweeps;
        let samples = self.chores.next == NEVER && self.thins();
        if (sweeps || samples) && !self.is_empty() {
            next = next.min(self.latest + defence::PAUSE);
        }
        self.director.epoch.instant(next)
    }

    /// Queues what happens to connections from now on, for [`poll_event`](Self::poll_event): at
    /// most `capacity` events, those that do not fit are lost and counted. 0, the default, is off.
    pub fn watch(&mut self, capacity: usize) {
        self.feed.set_capacity(capacity);
    }

    /// The oldest event that was not taken yet.
    pub fn poll_event(&mut self) -> Option<ConnectionEvent> {
        self.feed.pop()
    }

    /// The oldest end of a FULLNAT connection that was not taken yet. Whoever translates its packets forgets what he knows
    /// of it, before he carries out verdicts that came after, and may tell both sides of one that timed out.
    pub fn poll_local_end(&mut self) -> Option<LocalEnd> {
        self.ports.poll_ended()
    }

    /// Events that did not fit.
    pub fn lost_events(&self) -> u64 {
        self.feed.lost()
    }

    /// Takes over a connection that another director told of. One with equal addresses is brought
    /// up to date; one of the same client and service with another server is replaced.
    ///
    /// It is bound to the server here, if there is such a one. It is not counted as a connection in
    /// the statistics.
    ///
    /// # Errors
    /// [`ImportError`]
    pub fn import_connection(
        &mut self,
        now: Instant,
        connection: &ImportedConnection,
    ) -> Result<(), ImportError> {
        let now = self.advance(now);
        let has_room = self.len() < self.director.max_connections;
        let service = self.service_of(connection);
        let service = service.as_deref();
        let mut ends = Ends::new(&self.director, &mut self.feed, &mut self.ports);
        match connection.client {
            SocketAddr::V4(_) => {
                import(&mut self.v4, &mut ends, now, connection, service, has_room)
            }
            SocketAddr::V6(_) => {
                import(&mut self.v6, &mut ends, now, connection, service, has_room)
            }
        }
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
        let director = &*self.director;
        let v4 = (self.v4.iter()).filter_map(|entry| info(director, &self.v4, entry));
        v4.chain((self.v6.iter()).filter_map(|entry| info(director, &self.v6, entry)))
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
            let key = key(protocol, &client, &other)?;
            table.get(table.find(&key, &table.sought(&key))?)
        }
        find(&self.v4, protocol, client, virtual_addr)
            .and_then(|entry| info(&self.director, &self.v4, entry))
            .or_else(|| {
                find(&self.v6, protocol, client, virtual_addr)
                    .and_then(|entry| info(&self.director, &self.v6, entry))
            })
    }

    pub(crate) fn advance(&mut self, now: Instant) -> Nanos {
        let now = self.director.epoch.nanos(now).max(self.latest);
        self.latest = now;
        let mut ends = Ends::new(&self.director, &mut self.feed, &mut self.ports);
        let ends = &mut ends;
        ends.timed_out = true;
        expire(&mut self.v4, ends, now);
        expire(&mut self.v6, ends, now);
        now
    }

    pub(crate) fn listen_timeout(&mut self) -> Nanos {
        self.snapshot
            .load()
            .timings
            .of(State::Tcp(TcpState::Listen))
    }

    fn batch(
        &mut self,
        now: Instant,
        packets: &[Packet],
        payloads: Option<&dyn Payloads>,
        verdicts: &mut Vec<Verdict>,
    ) {
        let now = self.advance(now);
        let mut prepared = std::mem::take(&mut self.prepared);
        for (number, packets) in packets.chunks(BATCH).enumerate() {
            prepared.clear();
            prepared.extend(packets.iter().map(|packet| self.prepare_ahead(packet)));
            self.fetch_entries(packets, &mut prepared);
            let first = number * BATCH;
            let limit = self.director.max_connections;
            let mut path = PacketPath {
                snapshot: self.snapshot.load(),
                counters: &self.counters,
                ends: Ends::new(&self.director, &mut self.feed, &mut self.ports),
                packet: &packets[0],
                payload: None,
                now,
                has_room: true,
            };
            let asked = packets.iter().zip(&prepared).enumerate();
            // What is answered is written to its place at once.
            verdicts.extend(asked.map(|(index, (packet, prepared))| {
                path.packet = packet;
                path.payload = payloads.map(|of| Payload {
                    of,
                    index: first + index,
                });
                path.has_room = self.v4.len() + self.v6.len() < limit;
                match prepared {
                    Prepared::V4(key, sought) => path.walk(&mut self.v4, key, sought),
                    Prepared::V6(key, sought) => path.walk(&mut self.v6, key, sought),
                    Prepared::Neither => Verdict::NotOurs,
                }
            }));
            for verdict in verdicts.iter().rev().take(packets.len()) {
                self.count_drop(verdict);
            }
        }
        self.prepared = prepared;
    }

    fn handle(&mut self, now: Instant, packet: &Packet, payload: Option<Payload<'_>>) -> Verdict {
        let now = self.advance(now);
        let prepared = self.prepare(packet);
        self.answer(now, packet, payload, &prepared)
    }

    #[inline]
    fn prepare(&self, packet: &Packet) -> Prepared {
        let (client, other) = match packet.direction {
            Direction::Inbound => (&packet.source, &packet.destination),
            Direction::Outbound => (&packet.destination, &packet.source),
        };
        self.prepare_flow(packet.protocol, client, other)
    }

    #[inline]
    fn prepare_flow(
        &self,
        protocol: Protocol,
        client: &SocketAddr,
        other: &SocketAddr,
    ) -> Prepared {
        match client {
            SocketAddr::V4(_) => {
                key(protocol, client, other).map(|key| Prepared::V4(key, self.v4.sought(&key)))
            }
            SocketAddr::V6(_) => {
                key(protocol, client, other).map(|key| Prepared::V6(key, self.v6.sought(&key)))
            }
        }
        .unwrap_or(Prepared::Neither)
    }

    /// Prepares one of several packets, and fetches what its lookup will read first. While that is on its way the others
    /// are prepared, so that the cache misses overlap.
    #[inline]
    fn prepare_ahead(&self, packet: &Packet) -> Prepared {
        let prepared = self.prepare(packet);
        match &prepared {
            Prepared::V4(_, sought) => self.v4.fetch(packet.direction, sought),
            Prepared::V6(_, sought) => self.v6.fetch(packet.direction, sought),
            Prepared::Neither => {}
        }
        prepared
    }

    /// Fetches the entries that the lookups will find.
    #[inline]
    fn fetch_entries(&self, packets: &[Packet], prepared: &mut [Prepared]) {
        for (packet, prepared) in packets.iter().zip(prepared) {
            match prepared {
                Prepared::V4(_, sought) => self.v4.fetch_entry(packet.direction, sought),
                Prepared::V6(_, sought) => self.v6.fetch_entry(packet.direction, sought),
                Prepared::Neither => {}
            }
        }
    }

    fn answer(
        &mut self,
        now: Nanos,
        packet: &Packet,
        payload: Option<Payload<'_>>,
        prepared: &Prepared,
    ) -> Verdict {
        let verdict = self.on_path(now, packet, payload, |path, tables| match prepared {
            Prepared::V4(key, sought) => path.walk(tables.0, key, sought),
            Prepared::V6(key, sought) => path.walk(tables.1, key, sought),
            Prepared::Neither => Verdict::NotOurs,
        });
        self.counted(verdict)
    }

    fn explain_path(
        &mut self,
        now: Instant,
        packet: &Packet,
        payload: Option<Payload<'_>>,
    ) -> Explanation {
        let now = self.advance(now);
        let prepared = self.prepare(packet);
        self.on_path(now, packet, payload, |path, tables| match &prepared {
            Prepared::V4(key, sought) => path.explain(tables.0, key, sought),
            Prepared::V6(key, sought) => path.explain(tables.1, key, sought),
            Prepared::Neither => Explanation::new(Reason::MixedFamilies, Verdict::NotOurs),
        })
    }

    fn handle_quoted(&mut self, now: Instant, quoted: &Packet, about_tunnel: bool) -> Verdict {
        let now = self.advance(now);
        // Inbound is about a server's packet, so the client is its destination; the others are about
        // a client's.
        let from_client = about_tunnel || quoted.direction == Direction::Outbound;
        let (client, other) = if from_client {
            (&quoted.source, &quoted.destination)
        } else {
            (&quoted.destination, &quoted.source)
        };
        let prepared = self.prepare_flow(quoted.protocol, client, other);
        let quoted = Packet {
            direction: if about_tunnel {
                Direction::Inbound
            } else {
                quoted.direction
            },
            ..*quoted
        };
        let verdict = self.on_path(now, &quoted, None, |path, tables| match prepared {
            Prepared::V4(key, _) => path.icmp(tables.0, &key, about_tunnel),
            Prepared::V6(key, _) => path.icmp(tables.1, &key, about_tunnel),
            Prepared::Neither => Verdict::NotOurs,
        });
        self.counted(verdict)
    }

    fn on_path<T>(
        &mut self,
        now: Nanos,
        packet: &Packet,
        payload: Option<Payload<'_>>,
        walk: impl FnOnce(&mut PacketPath<'_>, (&mut Table<V4>, &mut Table<V6>)) -> T,
    ) -> T {
        let has_room = self.len() < self.director.max_connections;
        let mut path = PacketPath {
            snapshot: self.snapshot.load(),
            counters: &self.counters,
            ends: Ends::new(&self.director, &mut self.feed, &mut self.ports),
            packet,
            payload,
            now,
            has_room,
        };
        walk(&mut path, (&mut self.v4, &mut self.v6))
    }

    fn counted(&self, verdict: Verdict) -> Verdict {
        self.count_drop(&verdict);
        verdict
    }

    #[inline]
    fn count_drop(&self, verdict: &Verdict) {
        if let Verdict::Drop(reason) = verdict {
            self.counters.count_drop(*reason);
        }
    }

    /// Whether `drop_entry` is active; the snapshot is not advanced.
    fn thins(&self) -> bool {
        self.director
            .snapshot
            .load()
            .tunables
            .drop_entry
            .is_active()
    }

    /// A step of the sweep for connections of removed servers, and of the flood defence's sample.
    fn work(&mut self, now: Nanos) {
        let sweeps = self.director.sweeps.load(Ordering::Acquire);
        if sweeps != self.chores.sweeps {
            self.chores.sweeps = sweeps;
            self.chores.sweep = Some(0);
        }
        let thins = self.thins();
        if now < self.chores.next && self.chores.next != NEVER {
            return;
        }
        let mut next = NEVER;
        if let Some(place) = self.chores.sweep {
            self.chores.sweep = self.sweep(now, place);
            if self.chores.sweep.is_some() {
                next = now + defence::PAUSE;
            }
        }
        if thins && !self.is_empty() {
            self.sample(now);
            next = next.min(self.chores.sampling.next(now));
        } else {
            self.chores.sampling.stop();
        }
        self.chores.next = next;
    }

    fn sweep(&mut self, now: Nanos, place: u32) -> Option<u32> {
        let (v4, v6) = (self.v4.places(), self.v6.places());
        let to = place.saturating_add(defence::STEP).min(v4 + v6);
        let mut ends = Ends::new(&self.director, &mut self.feed, &mut self.ports);
        for place in place..to {
            if place < v4 {
                end_if(&mut self.v4, &mut ends, place, now, |_, entry| {
                    entry.lost_its_server()
                });
            } else {
                end_if(&mut self.v6, &mut ends, place - v4, now, |_, entry| {
                    entry.lost_its_server()
                });
            }
        }
        (to < v4 + v6).then_some(to)
    }

    fn sample(&mut self, now: Nanos) {
        let (v4, v6) = (self.v4.places(), self.v6.places());
        let draws = self.chores.sampling.step(now, v4 + v6);
        let snapshot = self.snapshot.load();
        let mut ends = Ends::new(&self.director, &mut self.feed, &mut self.ports);
        for _ in 0..draws {
            let place = self.chores.random.below(v4 + v6);
            if place < v4 {
                end_if(&mut self.v4, &mut ends, place, now, |director, entry| {
                    is_thinned(director, snapshot, entry, now)
                });
            } else {
                end_if(
                    &mut self.v6,
                    &mut ends,
                    place - v4,
                    now,
                    |director, entry| is_thinned(director, snapshot, entry, now),
                );
            }
        }
    }

    fn service_of(&mut self, connection: &ImportedConnection) -> Option<Arc<VirtualService>> {
        let ImportedConnection {
            virtual_addr, mark, ..
        } = *connection;
        let protocol = connection.state.protocol();
        let snapshot = self.snapshot.load();
        snapshot.find(protocol, virtual_addr, mark).cloned()
    }
}

impl Drop for Worker {
    /// Its connections end with it.
    fn drop(&mut self) {
        fn end<A: Address>(table: &mut Table<A>, latest: Nanos) {
            table.drain(|gone| {
                if let Some(server) = &gone.entry.server {
                    server.unbind(gone.entry.class());
                }
                if let Some(template) = &gone.template {
                    template.release(gone.entry.deadline().min(latest));
                }
            });
        }
        end(&mut self.v4, self.latest);
        end(&mut self.v6, self.latest);
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

fn expire<A: Address>(table: &mut Table<A>, ends: &mut Ends<'_>, now: Nanos) {
    table.expire(now, |table, id| {
        let deadline = table.entry(id).deadline();
        ends.end(table, id, deadline, false);
    });
}

/// Ends the connection in a place by force, if it controls nothing and `judge` says so.
fn end_if<A: Address>(
    table: &mut Table<A>,
    ends: &mut Ends<'_>,
    place: u32,
    now: Nanos,
    judge: impl FnOnce(&Director, &Entry<A>) -> bool,
) {
    let director = ends.director;
    if table
        .get(place)
        .is_some_and(|entry| table.controls(place) == 0 && judge(director, entry))
    {
        ends.end(table, place, now, true);
    }
}

/// Whether `drop_entry` ends a connection that controls nothing.
fn is_thinned<A: Address>(
    director: &Director,
    snapshot: &Snapshot,
    entry: &Entry<A>,
    now: Nanos,
) -> bool {
    match entry.state {
        State::Tcp(TcpState::SynReceived | TcpState::SynAck)
        | State::Sctp(SctpState::Init1 | SctpState::Init) => true,
        State::Tcp(TcpState::Established) | State::Sctp(SctpState::Established) | State::Udp => {
            let timeout = entry.timeout(snapshot.timings.of(entry.state));
            let restarted = entry.deadline().saturating_sub(timeout);
            director
                .defence
                .thins(entry.packets, now.saturating_sub(restarted))
        }
        State::Tcp(_) | State::Sctp(_) => false,
    }
}

fn import<A: Address>(
    table: &mut Table<A>,
    ends: &mut Ends<'_>,
    now: Nanos,
    connection: &ImportedConnection,
    service: Option<&VirtualService>,
    has_room: bool,
) -> Result<(), ImportError> {
    let state = connection.state;
    let key: FlowKey<A> = key(
        state.protocol(),
        &connection.client,
        &connection.virtual_addr,
    )
    .ok_or(ImportError::Family)?;
    let address = A::from_ip(connection.destination.ip()).ok_or(ImportError::Family)?;
    let deadline = now + nanos(connection.remaining);
    let mut replaced = None;
    if let Some(id) = table.find(&key, &table.sought(&key)) {
        let flow = &table.entry(id).flow;
        if (flow.server, flow.server_port) == (address, connection.destination.port()) {
            let entry = table.entry_mut(id);
            entry.packets = connection.packets;
            if entry.enter(state) {
                ends.changed(table, id);
            }
            table.set_deadline(id, deadline);
            return Ok(());
        }
        if !state.is_active() {
            return Err(ImportError::Inactive);
        }
        replaced = (table.controls(id) == 0).then_some(id);
    }
    if !has_room && replaced.is_none() {
        return Err(ImportError::TableFull);
    }
    let destination = connection.destination;
    let any_port = SocketAddr::new(destination.ip(), 0);
    let server = service.and_then(|service| {
        let server = service.server(destination);
        server.or_else(|| service.server(any_port))
    });
    let method = server
        .as_ref()
        .map_or(connection.method, |server| server.method());
    let local = if method == ForwardMethod::FullNat {
        let local = service.and_then(|service| match connection.local {
            Some(addr) => {
                let address = service.locals.find(addr.ip())?;
                ends.ports.take_this(now, address, addr.port(), destination)
            }
            None => ends.ports.take(now, &service.locals, false, destination),
        });
        Some(local.ok_or(ImportError::LocalPort)?)
    } else {
        None
    };
    if let Some(server) = &server {
        server.bind(Class::Inactive);
    }
    if let Some(old) = replaced {
        ends.end(table, old, now, false);
    }
    let id = table.insert(NewEntry {
        flow: Flow {
            client: key.client,
            vip: key.other,
            server: address,
            client_port: key.client_port,
            vport: key.other_port,
            server_port: destination.port(),
        },
        state: State::new(state.protocol()),
        method,
        server,
        template: None,
        control: NONE,
        local,
        no_client_port: false,
        synchronised: true,
        packets: connection.packets,
        deadline,
    });
    table.entry_mut(id).enter(state);
    ends.created(table, id);
    Ok(())
}

/// The key exchange's packet that stands for an AH or ESP packet.
fn exchange(direction: Direction, source: IpAddr, destination: IpAddr, length: u32) -> Packet {
    Packet {
        protocol: Protocol::Udp,
        source: SocketAddr::new(source, ISAKMP),
        destination: SocketAddr::new(destination, ISAKMP),
        direction,
        tcp_flags: TcpFlags::default(),
        sctp: None,
        length,
        mark: 0,
    }
}

#[inline]
fn key<A: Address>(
    protocol: Protocol,
    client: &SocketAddr,
    other: &SocketAddr,
) -> Option<FlowKey<A>> {
    FlowKey::new(
        protocol,
        (client.ip(), client.port()),
        (other.ip(), other.port()),
    )
}

/// Packets whose lookups overlap.
const BATCH: usize = 32;
/// Port of the key exchange that AH and ESP belong to.
const ISAKMP: u16 = 500;

#[cfg(test)]
#[path = "worker_tests.rs"]
pub(crate) mod tests;
