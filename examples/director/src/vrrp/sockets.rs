//! Raw sockets: one to receive and one to send for each interface, family, protocol, and group or source.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use lvs_vrrp::wire::{self, MacAddress};
use lvs_vrrp::{
    Authentication, Config, Datagram, Family, InterfaceName, Reach, Received, Transmit,
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use super::announce::Announcer;
use super::sys;

/// What a pair of sockets is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) interface: InterfaceName,
    family: Family,
    protocol: u8,
    /// The group, or the unicast source.
    local: IpAddr,
}

impl Key {
    /// The sockets of a virtual router; `None` while a unicast one has no source address.
    pub(super) fn of(config: &Config, source: Option<IpAddr>) -> Option<Self> {
        let protocol = match config.authentication {
            Authentication::Header(_) => wire::PROTOCOL_AH,
            _ => wire::PROTOCOL_VRRP,
        };
        let local = match config.reach {
            Reach::Multicast { group } => group,
            Reach::Unicast { .. } => source?,
        };
        Some(Self {
            interface: config.interface.clone(),
            family: config.family,
            protocol,
            local,
        })
    }
}

/// All sockets, and one for frames.
#[derive(Debug)]
pub(super) struct Sockets {
    pairs: BTreeMap<Key, Pair>,
    announcer: Announcer,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Pair {
    ifindex: u32,
    receive: Socket,
    send: Socket,
    /// IPv6: the address that the socket is bound to.
    bound: Option<IpAddr>,
}

impl Sockets {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            pairs: BTreeMap::new(),
            announcer: Announcer::open()?,
            buffer: vec![0; LARGEST],
        })
    }

    /// Has sockets for exactly these keys on interfaces of these indexes. Returns what could not be opened.
    pub(super) fn keep(&mut self, wanted: &BTreeMap<Key, u32>) -> Vec<(Key, io::Error)> {
        self.pairs
            .retain(|key, pair| wanted.get(key) == Some(&pair.ifindex));
        let mut failed = Vec::new();
        for (key, ifindex) in wanted {
            if self.pairs.contains_key(key) {
                continue;
            }
            match Pair::open(key, *ifindex) {
                Ok(pair) => {
                    self.pairs.insert(key.clone(), pair);
                }
                Err(error) => failed.push((key.clone(), error)),
            }
        }
        failed
    }

    /// What to wait for.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.pairs.values().map(|pair| pair.receive.as_fd())
    }

    /// Hands over every datagram that is there, with the instant at which it came.
    pub(super) fn receive_all(&mut self, mut hear: impl FnMut(&InterfaceName, &Received<'_>)) {
        for (key, pair) in &self.pairs {
            for _ in 0..BUDGET {
                // An error of the socket (interface down) is told by netlink too.
                let Ok(ancillary) = sys::receive(pair.receive.as_fd(), &mut self.buffer) else {
                    break;
                };
                if ancillary.truncated {
                    continue;
                }
                let (now, clock) = (Instant::now(), sys::realtime());
                let age = ancillary
                    .received
                    .and_then(|received| clock.checked_sub(received));
                // The clock may have been set meanwhile: then the present has to do.
                let age = age.filter(|age| *age < OLDEST).unwrap_or_default();
                let bytes = &self.buffer[..ancillary.length];
                let datagram = match (key.family, ancillary.source, key.local) {
                    (Family::V4, ..) => Datagram::V4(bytes),
                    (Family::V6, Some(SocketAddr::V6(source)), IpAddr::V6(destination)) => {
                        Datagram::V6 {
                            source: *source.ip(),
                            destination,
                            hop_limit: ancillary.hop_limit,
                            payload: bytes,
                        }
                    }
                    _ => continue,
                };
                let arrived = now.checked_sub(age).unwrap_or(now);
                hear(&key.interface, &Received { arrived, datagram });
            }
        }
    }

    /// Sends what the machine wrote.
    pub(super) fn send(&mut self, key: &Key, transmit: &Transmit, bytes: &[u8]) -> io::Result<()> {
        let pair = self.pairs.get_mut(key).ok_or(io::ErrorKind::NotConnected)?;
        if key.family == Family::V6 && pair.bound != Some(transmit.source) {
            pair.bind(key, transmit)?;
        }
        let to = match transmit.destination {
            IpAddr::V4(_) => SocketAddr::new(transmit.destination, 0),
            IpAddr::V6(address) => SocketAddrV6::new(address, 0, 0, pair.ifindex).into(),
        };
        pair.send.send_to(bytes, &to.into()).map(drop)
    }

    /// Announces an address on an interface.
    pub(super) fn announce(
        &self,
        address: IpAddr,
        ifindex: u32,
        mac: MacAddress,
        router: bool,
    ) -> io::Result<()> {
        self.announcer.announce(address, ifindex, mac, router)
    }
}

impl Pair {
    fn open(key: &Key, ifindex: u32) -> io::Result<Self> {
        let receive = raw(key)?;
        receive.set_nonblocking(true)?;
        sys::enable_timestamps(receive.as_fd())?;
        let send = raw(key)?;
        send.set_nonblocking(true)?;
        send.set_recv_buffer_size(0)?;
        match key.local {
            IpAddr::V4(local) => {
                receive.set_freebind_v4(true)?;
                if local.is_multicast() {
                    receive.set_multicast_all_v4(false)?;
                    let index = InterfaceIndexOrAddress::Index(ifindex);
                    receive.join_multicast_v4_n(&local, &index)?;
                }
                receive.bind(&SocketAddr::new(local.into(), 0).into())?;
                send.set_header_included_v4(true)?;
                send.set_multicast_loop_v4(false)?;
                if local.is_multicast() {
                    // The device is bound; this says which address the kernel would choose, and it writes none.
                    let _ = send.set_multicast_if_v4(&Ipv4Addr::UNSPECIFIED);
                }
            }
            IpAddr::V6(local) => {
                receive.set_recv_hoplimit_v6(true)?;
                if local.is_multicast() {
                    receive.set_multicast_all_v6(false)?;
                    receive.join_multicast_v6(&local, ifindex)?;
                }
                receive.bind(&SocketAddrV6::new(local, 0, 0, ifindex).into())?;
                send.set_multicast_loop_v6(false)?;
                send.set_multicast_hops_v6(u32::from(wire::MULTICAST_TTL))?;
                send.set_multicast_if_v6(ifindex)?;
                send.set_tclass_v6(u32::from(wire::TRAFFIC_CLASS))?;
            }
        }
        Ok(Self {
            ifindex,
            receive,
            send,
            bound: None,
        })
    }

    /// An IPv6 socket sends from what it is bound to; a bound one must be made anew.
    fn bind(&mut self, key: &Key, transmit: &Transmit) -> io::Result<()> {
        if self.bound.is_some() {
            *self = Self::open(key, self.ifindex)?;
        }
        if let IpAddr::V6(source) = transmit.source {
            let source = SocketAddrV6::new(source, 0, 0, self.ifindex);
            self.send.bind(&source.into())?;
            self.bound = Some(transmit.source);
        }
        if let Some(limit) = transmit.hop_limit {
            self.send.set_unicast_hops_v6(u32::from(limit))?;
        }
        Ok(())
    }
}

fn raw(key: &Key) -> io::Result<Socket> {
    let domain = match key.family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let protocol = Protocol::from(i32::from(key.protocol));
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    if !key.interface.as_str().is_empty() {
        socket.bind_device(Some(key.interface.as_str().as_bytes()))?;
    }
    Ok(socket)
}

/// Longer than any advertisement: 255 IPv6 addresses and headers.
const LARGEST: usize = 8192;

/// Datagrams of one socket in one round, so that a flood does not keep the timers waiting for ever.
const BUDGET: usize = 256;

/// An advertisement that waited for longer says nothing any more; more likely the clock was set.
const OLDEST: std::time::Duration = std::time::Duration::from_secs(3600);
