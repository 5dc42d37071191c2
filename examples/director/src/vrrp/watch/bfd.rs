//! BFD sessions (RFC 5880, RFC 5881, RFC 5883) over UDP.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use lvs_conf::model::BfdInstance;
use lvs_vrrp::bfd::{BfdConfig, BfdEvent, BfdSession, BfdState};
use socket2::{Domain, Protocol, Socket, Type};

use super::super::sys;

/// All sessions, with the sockets that they hear by.
#[derive(Debug, Default)]
pub(in super::super) struct Bfd {
    sessions: BTreeMap<Arc<str>, Session>,
    listeners: BTreeMap<Port, Socket>,
    last_discriminator: u32,
}

/// Where neighbours of a kind send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    ipv6: bool,
    number: u16,
}

#[derive(Debug)]
struct Session {
    model: BfdInstance,
    /// Number of the session on this host.
    discriminator: u32,
    machine: BfdSession,
    socket: UdpSocket,
}

impl Bfd {
    /// Has exactly these sessions; those that are the same go on. Returns what could not be opened.
    pub(in super::super) fn keep(
        &mut self,
        now: Instant,
        wanted: &[BfdInstance],
    ) -> Vec<(String, io::Error)> {
        let mut failed = Vec::new();
        self.sessions.retain(
            |name, session| match wanted.iter().find(|it| *it.name == **name) {
                Some(model) => {
                    let same = same_path(model, &session.model);
                    if same && *model != session.model {
                        let config = config(model, 0);
                        session.machine.reconfigure(now, config);
                        session.model = model.clone();
                    }
                    same
                }
                None => false,
            },
        );
        let ports: Vec<Port> = wanted.iter().map(Port::of).collect();
        self.listeners.retain(|port, _| ports.contains(port));
        for (model, port) in wanted.iter().zip(ports) {
            if let Err(error) = self.open(now, model, port) {
                failed.push((model.name.clone(), error));
            }
        }
        failed
    }

    fn open(&mut self, now: Instant, model: &BfdInstance, port: Port) -> io::Result<()> {
        if let std::collections::btree_map::Entry::Vacant(entry) = self.listeners.entry(port) {
            entry.insert(listen(port)?);
        }
        if self.sessions.contains_key(model.name.as_str()) {
            return Ok(());
        }
        let socket = sender(model)?;
        self.last_discriminator += 1;
        let number = self.last_discriminator;
        let machine = BfdSession::new(now, config(model, number), u64::from(number));
        let session = Session {
            model: model.clone(),
            discriminator: number,
            machine,
            socket,
        };
        self.sessions.insert(model.name.as_str().into(), session);
        Ok(())
    }

    /// What to wait for.
    pub(in super::super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listeners.values().map(AsFd::as_fd)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(in super::super) fn poll_timeout(&self) -> Option<Instant> {
        let sessions = self.sessions.values();
        sessions
            .filter_map(|session| session.machine.poll_timeout())
            .min()
    }

    pub(in super::super) fn handle_timeout(&mut self, now: Instant) {
        for session in self.sessions.values_mut() {
            if session.machine.poll_timeout().is_some_and(|due| due <= now) {
                session.machine.handle_timeout(now);
            }
        }
    }

    /// Hands over every packet that is there.
    pub(in super::super) fn receive_all(&mut self) {
        let mut buffer = [0; 512];
        for (port, socket) in &self.listeners {
            for _ in 0..BUDGET {
                let Ok(ancillary) = sys::receive(socket.as_fd(), &mut buffer) else {
                    break;
                };
                let Some(source) = ancillary.source.map(|source| source.ip()) else {
                    continue;
                };
                let packet = &buffer[..ancillary.length];
                let known = packet
                    .get(YOURS)
                    .and_then(|bytes| bytes.first_chunk())
                    .map_or(0, |bytes| u32::from_be_bytes(*bytes));
                // RFC 5880, 6.8.6: by the discriminator that the neighbour learned, before that by its address.
                let session = self.sessions.values_mut().find(|session| {
                    Port::of(&session.model) == *port
                        && session.model.neighbor == source
                        && (known == 0 || session.discriminator == known)
                });
                if let Some(session) = session {
                    let now = Instant::now();
                    // A refused one is counted there.
                    let _ = session
                        .machine
                        .handle_packet(now, ancillary.hop_limit, packet);
                }
            }
        }
    }

    /// Sends what sessions want sent, and returns what has changed.
    pub(in super::super) fn drain(&mut self) -> Vec<(Arc<str>, BfdEvent)> {
        let mut events = Vec::new();
        for (name, session) in &mut self.sessions {
            while let Some(packet) = session.machine.poll_transmit() {
                let to = SocketAddr::new(session.model.neighbor, Port::of(&session.model).number);
                // Silence says all that can be said.
                let _ = session.socket.send_to(&packet, to);
            }
            while let Some(event) = session.machine.poll_event() {
                events.push((Arc::clone(name), event));
            }
        }
        events
    }

    /// Tells the neighbours that the silence to come is wanted.
    pub(in super::super) fn shutdown(&mut self, now: Instant) {
        for session in self.sessions.values_mut() {
            session.machine.set_admin_down(now, true);
        }
        self.drain();
    }

    /// Names with their states.
    pub(in super::super) fn states(&self) -> impl Iterator<Item = (&Arc<str>, BfdState)> {
        let sessions = self.sessions.iter();
        sessions.map(|(name, session)| (name, session.machine.state()))
    }
}

impl Port {
    fn of(model: &BfdInstance) -> Self {
        Self {
            ipv6: model.neighbor.is_ipv6(),
            number: if model.multihop { MULTIHOP } else { SINGLE_HOP },
        }
    }
}

/// Whether a session can go on with other times.
fn same_path(one: &BfdInstance, other: &BfdInstance) -> bool {
    (one.neighbor, one.source, one.ttl, one.multihop, one.passive)
        == (
            other.neighbor,
            other.source,
            other.ttl,
            other.multihop,
            other.passive,
        )
}

fn config(model: &BfdInstance, discriminator: u32) -> BfdConfig {
    // The neighbour sends with the hop limit that is set here. Below zero nothing is asked of what arrives.
    let min_ttl = u8::try_from(model.max_hops).map_or(0, |hops| model.ttl.saturating_sub(hops));
    BfdConfig {
        discriminator,
        min_tx: model.min_tx,
        min_rx: model.min_rx,
        idle_tx: model.idle_tx,
        detect_mult: model.multiplier.max(1),
        passive: model.passive,
        min_ttl,
    }
}

fn listen(port: Port) -> io::Result<Socket> {
    let (domain, any): (_, IpAddr) = match port.ipv6 {
        true => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
        false => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if port.ipv6 {
        socket.set_only_v6(true)?;
        socket.set_recv_hoplimit_v6(true)?;
    } else {
        sys::enable_ttl(socket.as_fd())?;
    }
    socket.bind(&SocketAddr::new(any, port.number).into())?;
    Ok(socket)
}

/// RFC 5881, 4: from a port of 49152 to 65535, its own for each session.
fn sender(model: &BfdInstance) -> io::Result<UdpSocket> {
    let ipv6 = model.neighbor.is_ipv6();
    let (domain, any): (_, IpAddr) = match ipv6 {
        true => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
        false => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if ipv6 {
        socket.set_unicast_hops_v6(model.ttl.into())?;
        socket.set_tclass_v6(TRAFFIC_CLASS)?;
    } else {
        socket.set_ttl_v4(model.ttl.into())?;
        socket.set_tos_v4(TRAFFIC_CLASS)?;
    }
    let source = model.source.unwrap_or(any);
    let mut refusal = io::Error::from(io::ErrorKind::AddrInUse);
    for port in FIRST_SOURCE..=u16::MAX {
        match socket.bind(&SocketAddr::new(source, port).into()) {
            Ok(()) => return Ok(socket.into()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => refusal = error,
            Err(error) => return Err(error),
        }
    }
    Err(refusal)
}

const SINGLE_HOP: u16 = 3784;
const MULTIHOP: u16 = 4784;
const FIRST_SOURCE: u16 = 49152;

/// Network control, as adverts have it.
const TRAFFIC_CLASS: u32 = 0xc0;

/// Your Discriminator.
const YOURS: std::ops::Range<usize> = 8..12;

/// Packets of one socket in one round.
const BUDGET: usize = 64;
