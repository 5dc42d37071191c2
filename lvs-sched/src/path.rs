//! The way of a packet through connections, services and schedulers.

mod explain;
mod opening;

use std::net::SocketAddr;

use crate::conn::chunks::NONE;
use crate::conn::key::{Address, FlowKey};
use crate::conn::state::{Path, SctpState, State, TcpState};
use crate::conn::table::{Entry, Gone, Sought, Table};
use crate::director::Snapshot;
use crate::local::{LocalPort, LocalPorts};
use crate::stats::WorkerCounters;
use crate::sync::Feed;
use crate::time::Nanos;
use crate::{
    ConnectionEvent, ConnectionInfo, Direction, Director, DropReason, Family, ForwardMethod,
    LocalEnd, Packet, Payloads, Protocol, SctpEvent, TcpFlags, Verdict, VirtualService,
};
pub use explain::{Explanation, PassedOver, Reason};
use opening::Opening;

/// Everything that one packet needs besides the table of its family.
pub(crate) struct PacketPath<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) counters: &'a WorkerCounters,
    pub(crate) ends: Ends<'a>,
    pub(crate) packet: &'a Packet,
    pub(crate) payload: Option<Payload<'a>>,
    pub(crate) now: Nanos,
    pub(crate) has_room: bool,
}

/// What follows the transport header of a packet, looked up for the few services that ask.
#[derive(Clone, Copy)]
pub(crate) struct Payload<'a> {
    /// The payloads of a batch.
    pub(crate) of: &'a dyn Payloads,
    pub(crate) index: usize,
}

impl<'a> Payload<'a> {
    fn bytes(self) -> &'a [u8] {
        self.of.payload(self.index)
    }
}

impl PacketPath<'_> {
    /// A packet of TCP, UDP or SCTP.
    pub(crate) fn walk<A: Address>(
        &mut self,
        table: &mut Table<A>,
        key: &FlowKey<A>,
        sought: &Sought,
    ) -> Verdict {
        match self.packet.direction {
            Direction::Inbound => self.inbound(table, key, sought),
            Direction::Outbound => self.outbound(table, key, sought),
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
        let sought = table.sought(key);
        if self.packet.direction == Direction::Outbound {
            let Some(id) = table.find_reverse(key, &sought) else {
                return Verdict::NotOurs;
            };
            self.count_out(table.entry(id));
            return answer(table, id, Direction::Outbound);
        }
        if self.snapshot.only_follows() {
            return Verdict::NotOurs;
        }
        let id = match table.find(key, &sought) {
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
                        self.ends.created(table, id);
                        id
                    }
                    Err(verdict) => return verdict,
                }
            }
            None => return Verdict::NotOurs,
        };
        // The client gets an error in the end.
        match about_tunnel {
            true => self.count_out(table.entry(id)),
            false => self.count_in(table.entry(id)),
        }
        answer(table, id, Direction::Inbound)
    }

    /// AH or ESP: part of the key exchange's flow between the same addresses, without its state.
    pub(crate) fn ipsec<A: Address>(&mut self, table: &mut Table<A>, key: &FlowKey<A>) -> Verdict {
        let sought = table.sought(key);
        let inbound = self.packet.direction == Direction::Inbound;
        if inbound && self.snapshot.only_follows() {
            return Verdict::NotOurs;
        }
        let found = if inbound {
            table.find(key, &sought)
        } else {
            table.find_reverse(key, &sought)
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
        if inbound {
            self.count_in(entry);
        } else {
            self.count_out(entry);
        }
        let verdict = answer(table, id, self.packet.direction);
        if inbound {
            let entry = table.entry_mut(id);
            entry.packets = entry.packets.wrapping_add(1);
        }
        table.set_deadline(id, deadline);
        verdict
    }

    #[inline]
    fn inbound<A: Address>(
        &mut self,
        table: &mut Table<A>,
        key: &FlowKey<A>,
        sought: &Sought,
    ) -> Verdict {
        let tunables = &self.snapshot.tunables;
        if self.snapshot.only_follows() {
            return Verdict::NotOurs;
        }
        let mut replaced = None;
        if let Some(id) = table.find(key, sought) {
            let reschedule = self.begins()
                && (tunables.expire_nodest_conn && has_quiesced_server(table.entry(id))
                    || is_reusable(table, id, tunables.conn_reuse_mode));
            if !reschedule {
                let entry = table.entry(id);
                // The end of a drain is forced: here it ends as if nothing were known of it.
                let is_forced = has_forced_server(entry);
                if !entry.lost_its_server() && !is_forced {
                    let learns = entry.no_client_port();
                    return self.take(table, id, learns);
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
                self.pass(table, id, Direction::Inbound);
                self.ends.created(table, id);
                answer(table, id, Direction::Inbound)
            }
            Err(verdict) => verdict,
        };
        if let Some(old) = old {
            self.ends.finish(table, old, self.now, false);
        }
        outcome
    }

    #[inline]
    fn outbound<A: Address>(
        &mut self,
        table: &mut Table<A>,
        key: &FlowKey<A>,
        sought: &Sought,
    ) -> Verdict {
        let Some(id) = table.find_reverse(key, sought) else {
            return self.unknown_reply(table, key);
        };
        if self.pass(table, id, Direction::Outbound) {
            self.ends.changed(table, id);
        }
        answer(table, id, Direction::Outbound)
    }

    /// A client's packet of a connection, from which that may learn its client's port.
    #[inline]
    fn take<A: Address>(&mut self, table: &mut Table<A>, id: u32, learns: bool) -> Verdict {
        if learns {
            table.set_client_port(id, self.packet.source.port());
        }
        let changed = self.pass(table, id, Direction::Inbound);
        if changed || learns {
            self.ends.changed(table, id);
        }
        answer(table, id, Direction::Inbound)
    }

    /// Counts a packet, applies it to the connection's state and restarts the timer. Returns
    /// whether the state changed as well.
    #[inline]
    fn pass<A: Address>(&self, table: &mut Table<A>, id: u32, direction: Direction) -> bool {
        let entry = table.entry_mut(id);
        match direction {
            Direction::Inbound => {
                entry.packets = entry.packets.wrapping_add(1);
                self.count_in(entry);
            }
            Direction::Outbound => {
                entry.see_output();
                self.count_out(entry);
            }
        }
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
                return false;
            }
        };
        let changed = entry.enter(state);
        let deadline = self.now + self.snapshot.timings.of(state);
        let prolonged = entry.prolong(deadline);
        let assures = changed && state.is_established()
            || state == State::Udp && direction == Direction::Outbound;
        if assures && let Some(template) = table.template(id) {
            template.assure();
        }
        if !prolonged {
            table.lower(id, deadline);
        }
        changed
    }

    #[inline]
    fn count_in<A>(&self, entry: &Entry<A>) {
        if let Some(server) = entry
            .server
            .as_deref()
            .filter(|server| server.is_available())
        {
            server
                .counters()
                .count_in(self.counters, self.packet.length);
            self.counters.count_in(self.packet.length);
        }
    }

    #[inline]
    fn count_out<A>(&self, entry: &Entry<A>) {
        if let Some(server) = entry
            .server
            .as_deref()
            .filter(|server| server.is_available())
        {
            server
                .counters()
                .count_out(self.counters, self.packet.length);
            self.counters.count_out(self.packet.length);
        }
    }

    /// Whether the packet is one that begins a connection even where there is one.
    #[inline]
    fn begins(&self) -> bool {
        match self.packet.protocol {
            Protocol::Tcp => self.packet.tcp_flags.contains(TcpFlags::SYN),
            Protocol::Udp => false,
            Protocol::Sctp => self.packet.sctp == Some(SctpEvent::Init),
        }
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
    fn refuses_unknown_reply(&self) -> bool {
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
}

/// How connections end, and who is told of what happens to them.
pub(crate) struct Ends<'a> {
    pub(crate) director: &'a Director,
    pub(crate) ports: &'a mut LocalPorts,
    feed: &'a mut Feed,
    /// Connections end because their time has come.
    pub(crate) timed_out: bool,
}

impl<'a> Ends<'a> {
    pub(crate) fn new(
        director: &'a Director,
        feed: &'a mut Feed,
        ports: &'a mut LocalPorts,
    ) -> Self {
        Self {
            director,
            ports,
            feed,
            timed_out: false,
        }
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
            if (self.feed.is_on() || gone.local.is_some())
                && let Some(info) = gone_info(self.director, &gone)
            {
                if self.feed.is_on() {
                    self.feed.push(ConnectionEvent::Ended(info));
                }
                if let Some(local) = gone.local.take() {
                    self.ports.tell(LocalEnd {
                        connection: info,
                        timed_out: self.timed_out,
                    });
                    self.ports.give(at, local, info.destination);
                }
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

    pub(crate) fn created<A: Address>(&mut self, table: &Table<A>, id: u32) {
        if self.feed.is_on()
            && let Some(info) = info(self.director, table, table.entry(id))
        {
            self.feed.push(ConnectionEvent::Created(info));
        }
    }

    pub(crate) fn changed<A: Address>(&mut self, table: &Table<A>, id: u32) {
        if self.feed.is_on()
            && let Some(info) = info(self.director, table, table.entry(id))
        {
            self.feed.push(ConnectionEvent::Changed(info));
        }
    }
}

/// A connection as listings show it.
pub(crate) fn info<A: Address>(
    director: &Director,
    table: &Table<A>,
    entry: &Entry<A>,
) -> Option<ConnectionInfo> {
    describe(director, entry, table.local(entry))
}

fn gone_info<A: Address>(director: &Director, gone: &Gone<A>) -> Option<ConnectionInfo> {
    let local = gone.local.as_ref().map(LocalPort::addr);
    describe(director, &gone.entry, local)
}

fn describe<A: Address>(
    director: &Director,
    entry: &Entry<A>,
    local: Option<SocketAddr>,
) -> Option<ConnectionInfo> {
    let flow = &entry.flow;
    Some(ConnectionInfo {
        protocol: entry.protocol(),
        client: SocketAddr::new(flow.client.ip(), flow.client_port),
        virtual_addr: SocketAddr::new(flow.vip.ip(), flow.vport),
        destination: SocketAddr::new(flow.server.ip(), flow.server_port),
        local,
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

#[inline]
fn answer<A: Address>(table: &Table<A>, id: u32, direction: Direction) -> Verdict {
    let entry = table.entry(id);
    verdict(entry, direction, table.local(entry))
}

#[inline]
fn verdict<A: Address>(
    entry: &Entry<A>,
    direction: Direction,
    local: Option<SocketAddr>,
) -> Verdict {
    let flow = &entry.flow;
    let vip = || SocketAddr::new(flow.vip.ip(), flow.vport);
    let server = |port| SocketAddr::new(flow.server.ip(), port);
    match (direction, local) {
        (Direction::Inbound, Some(local)) => Verdict::ForwardFrom {
            local,
            server: server(flow.server_port),
        },
        (Direction::Outbound, Some(_)) => Verdict::ReplyTo {
            vip: vip(),
            client: SocketAddr::new(flow.client.ip(), flow.client_port),
        },
        (Direction::Inbound, None) => Verdict::Forward {
            method: entry.method,
            server: server(match entry.method {
                // It goes on to where it was sent.
                ForwardMethod::Bypass => flow.vport,
                _ => flow.server_port,
            }),
        },
        (Direction::Outbound, None) => Verdict::Reply {
            method: entry.method,
            vip: vip(),
        },
    }
}

fn has_quiesced_server<A>(entry: &Entry<A>) -> bool {
    entry
        .server
        .as_ref()
        .is_some_and(|server| server.is_quiesced())
}

fn has_forced_server<A>(entry: &Entry<A>) -> bool {
    let server = entry.server.as_ref();
    server.is_some_and(|server| server.watch().is_forced())
}

/// Whether a packet that begins a connection begins a new one on this entry. One that something
/// controls always keeps its server.
fn is_reusable<A: Address>(table: &Table<A>, id: u32, mode: u32) -> bool {
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
