//! Unpacks what comes in tunnels, in user space: where the kernel has no tunnel devices, or not for all kinds.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use lvs_fwd::decap::{Carrier, inside};
use lvs_fwd::device::Device;
use lvs_fwd::device::raw::Raw;
use lvs_fwd::frame::Frame;
use lvs_fwd::tun::{Tun, TunError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::{debug, warn};

use crate::logging::chain;

/// Takes packets for the services' addresses out of IP-in-IP, GRE and GUE, and gives them to the host.
#[derive(Debug)]
pub(super) struct Decapsulator {
    shared: Arc<Shared>,
    into: String,
    kinds: Vec<&'static str>,
    thread: Option<JoinHandle<()>>,
}

impl Decapsulator {
    /// Starts one in the calling thread's network namespace, for all kinds but those that the kernel unpacks.
    ///
    /// # Errors
    ///
    /// None of the sockets can be had.
    pub(super) fn start(
        vips: &[IpAddr],
        gue_port: u16,
        by_kernel: &[&str],
        without_tun: bool,
    ) -> io::Result<Self> {
        let (outlet, into) = open_outlet(without_tun)?;
        let mut inlets = Vec::new();
        let mut kinds = Vec::new();
        for (kind, open) in INLETS {
            if by_kernel.contains(&kind) {
                continue;
            }
            match open(gue_port) {
                Ok(inlet) => {
                    inlets.push(inlet);
                    kinds.push(kind);
                }
                // IPv6 may be switched off altogether.
                Err(error) => debug!("no {kind}: {error}"),
            }
        }
        if inlets.is_empty() {
            return Err(io::Error::other("no raw sockets (CAP_NET_RAW is needed)"));
        }
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let vips = vips.iter().copied().collect();
        let thread = std::thread::Builder::new()
            .name("unpack".into())
            .spawn(move || own.run(outlet, &inlets, &vips))?;
        Ok(Self {
            shared,
            into,
            kinds,
            thread: Some(thread),
        })
    }

    /// What it does, for the log.
    pub(super) fn describe(&self) -> String {
        format!("{} into {}", self.kinds.join(", "), self.into)
    }

    /// Ends it. What it did.
    pub(super) fn stop(mut self) -> String {
        self.join();
        self.shared.to_string()
    }

    fn join(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the thread that unpacks tunnels had failed");
        }
    }
}

impl Drop for Decapsulator {
    fn drop(&mut self) {
        self.join();
    }
}

#[derive(Debug, Default)]
struct Shared {
    stopped: AtomicBool,
    unpacked: AtomicU64,
    /// Not for one of the addresses.
    strange: AtomicU64,
    malformed: AtomicU64,
}

impl Shared {
    fn run(&self, mut outlet: Box<dyn Device>, inlets: &[Inlet], vips: &HashSet<IpAddr>) {
        let mut buffer = vec![0; 0x1_0000];
        while !self.stopped.load(Ordering::Relaxed) {
            let mut readable: Vec<PollFd<'_>> = inlets
                .iter()
                .map(|inlet| PollFd::from_borrowed_fd(inlet.socket.as_fd(), PollFlags::IN))
                .collect();
            if poll(&mut readable, Some(&PATIENCE)).is_err() {
                continue;
            }
            for inlet in inlets {
                for _ in 0..BATCH {
                    let Ok(length) = rustix::io::read(&inlet.socket, &mut buffer[..]) else {
                        break;
                    };
                    self.unpack(inlet, &mut buffer[..length], vips, &mut *outlet);
                }
                // Full queues lose packets, as an interface does.
                let _ = outlet.flush();
            }
        }
    }

    fn unpack(
        &self,
        inlet: &Inlet,
        bytes: &mut [u8],
        vips: &HashSet<IpAddr>,
        outlet: &mut dyn Device,
    ) {
        // Only raw IPv4 sockets show the outer header. The kernel has put fragments together.
        let header = match bytes.first() {
            Some(first) if inlet.has_header => usize::from(first & 15) * 4,
            _ => 0,
        };
        let found = bytes
            .get_mut(header..)
            .map(|payload| inside(inlet.carrier, payload));
        let Some(Ok(packet)) = found else {
            count(&self.malformed);
            return;
        };
        // Nothing else may come into this host from wherever tunnels may come from.
        match destination(packet).filter(|addr| vips.contains(addr)) {
            Some(_) => {
                count(&self.unpacked);
                outlet.transmit(Frame::from_bytes(packet));
            }
            None => count(&self.strange),
        }
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        write!(
            f,
            "{} packets; dropped {} to other addresses and {} malformed ones",
            of(&self.unpacked),
            of(&self.strange),
            of(&self.malformed)
        )
    }
}

/// The way to the host, and its name: as if packets came by an interface; or, where there is no TUN device, as in many
/// containers, as if this host had sent them to itself.
fn open_outlet(without_tun: bool) -> io::Result<(Box<dyn Device>, String)> {
    if !without_tun {
        match Tun::open() {
            Ok(tun) => {
                let name = tun.name().to_owned();
                return Ok((Box::new(tun), name));
            }
            Err(error @ TunError::Open(_)) => debug!("{}", chain(&error)),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    let name = "raw sockets, without a TUN device".to_owned();
    Ok((Box::new(Raw::open(None)?), name))
}

#[derive(Debug)]
struct Inlet {
    socket: Socket,
    carrier: Carrier,
    has_header: bool,
}

fn raw(domain: Domain, number: u8, carrier: Carrier) -> io::Result<Inlet> {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(number))))?;
    Inlet::new(socket, carrier, domain == Domain::IPV4)
}

fn udp(addr: SocketAddr) -> io::Result<Inlet> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
        // Tunnels may do without a checksum (RFC 6935).
        crate::sys::accept_unsummed(socket.as_fd())?;
    }
    socket.bind(&addr.into())?;
    Inlet::new(socket, Carrier::Gue, false)
}

impl Inlet {
    fn new(socket: Socket, carrier: Carrier, has_header: bool) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // What the system's limit leaves of it does too, only slower.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
            .or_else(|_| {
                rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)
            });
        Ok(Self {
            socket,
            carrier,
            has_header,
        })
    }
}

fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => {
            let bytes: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            Some(Ipv4Addr::from(bytes).into())
        }
        6 => {
            let bytes: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

type Open = fn(u16) -> io::Result<Inlet>;

/// What can come in, by outer and inner family.
const INLETS: [(&str, Open); 8] = [
    ("ipip", |_| raw(Domain::IPV4, 4, Carrier::Ip(4))),
    ("6in4", |_| raw(Domain::IPV4, 41, Carrier::Ip(41))),
    ("gre", |_| raw(Domain::IPV4, 47, Carrier::Gre)),
    ("gue", |port| udp((Ipv4Addr::UNSPECIFIED, port).into())),
    ("4in6", |_| raw(Domain::IPV6, 4, Carrier::Ip(4))),
    ("6in6", |_| raw(Domain::IPV6, 41, Carrier::Ip(41))),
    ("gre over IPv6", |_| raw(Domain::IPV6, 47, Carrier::Gre)),
    ("gue over IPv6", |port| {
        udp((Ipv6Addr::UNSPECIFIED, port).into())
    }),
];

const BATCH: usize = 64;
const RECEIVE_BUFFER: usize = 8 << 20;
/// How often the thread looks whether it should stop.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};
