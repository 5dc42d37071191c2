//! The far end of tunnels.

use std::io;
use std::net::{Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use lvs_fwd::decap::{Carrier, inside};
use lvs_fwd::device::Device as _;
use lvs_fwd::frame::Frame;
use lvs_fwd::tun::Tun;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, Protocol, SocketFlags, SocketType, ipproto, socket_with, sockopt,
};

use crate::{Namespace, sys};

/// Unpacks tunnel packets that reach a namespace, in user space: what is inside arrives there through a TUN device, as
/// if by the kernel's `tunl0`. IP in IP and GRE are unpacked over IPv4 and IPv6, GUE at [`GUE_PORT`]. It stops when
/// dropped.
#[derive(Debug)]
pub struct Decapsulator {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// UDP port where Generic UDP Encapsulation is unpacked.
pub const GUE_PORT: u16 = 6080;

/// What a [`Decapsulator`] has unpacked so far, in packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpacked {
    /// IP in IP.
    pub ipip: u64,
    /// GRE without a checksum.
    pub gre: u64,
    /// GRE with a checksum, which was right.
    pub gre_checksum: u64,
    /// GUE. The kernel drops what has a wrong checksum.
    pub gue: u64,
    /// Thrown away: headers that say something else, or a wrong checksum.
    pub malformed: u64,
}

impl Decapsulator {
    /// Starts one. Reverse path filtering is switched off in the namespace: clients are elsewhere than the tunnel.
    ///
    /// # Errors
    ///
    /// What the system refused; not every container has TUN devices.
    pub fn start(namespace: &Namespace) -> io::Result<Self> {
        namespace.sysctl("net.ipv4.conf.all.rp_filter", "0")?;
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let (started, outcome) = sync_channel(1);
        let thread = namespace.spawn(move || match open() {
            Ok((tun, sockets)) => {
                let _ = started.send(Ok(()));
                own.run(tun, &sockets);
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        })?;
        let decapsulator = Self {
            shared,
            thread: Some(thread),
        };
        outcome
            .recv()
            .map_err(|_| io::Error::other("the decapsulator has failed"))??;
        Ok(decapsulator)
    }

    /// Packets unpacked so far.
    pub fn packets(&self) -> u64 {
        let all = self.unpacked();
        all.ipip + all.gre + all.gre_checksum + all.gue
    }

    /// Packets so far, by the kind of tunnel.
    pub fn unpacked(&self) -> Unpacked {
        let [ipip, gre, gre_checksum, gue, malformed] =
            Kind::ALL.map(|kind| self.shared.counts[kind as usize].load(Ordering::Relaxed));
        Unpacked {
            ipip,
            gre,
            gre_checksum,
            gue,
            malformed,
        }
    }
}

impl Drop for Decapsulator {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    stopped: AtomicBool,
    counts: [AtomicU64; Kind::ALL.len()],
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Ipip,
    Gre,
    GreChecksum,
    Gue,
    Malformed,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Ipip,
        Self::Gre,
        Self::GreChecksum,
        Self::Gue,
        Self::Malformed,
    ];
}

/// A socket, what arrives there, and whether the outer IPv4 header comes along.
type Source = (OwnedFd, Carrier, bool);

impl Shared {
    fn run(&self, mut tun: Tun, sockets: &[Source]) {
        let mut buffer = vec![0; 0x1_0000];
        while !self.stopped.load(Ordering::Relaxed) {
            let mut readable: Vec<PollFd<'_>> = sockets
                .iter()
                .map(|(socket, ..)| PollFd::new(socket, PollFlags::IN))
                .collect();
            let _ = poll(&mut readable, Some(&PATIENCE));
            for (socket, carrier, has_header) in sockets {
                self.drain(socket.as_fd(), *carrier, *has_header, &mut buffer, &mut tun);
            }
        }
    }

    fn drain(
        &self,
        socket: BorrowedFd<'_>,
        carrier: Carrier,
        has_header: bool,
        buffer: &mut [u8],
        tun: &mut Tun,
    ) {
        while let Ok(length) = rustix::io::read(socket, &mut *buffer) {
            // The kernel has put fragments together; IPv4's outer header is still there.
            let header = match has_header {
                true => buffer.first().map_or(0, |byte| usize::from(byte & 15) * 4),
                false => 0,
            };
            let payload = buffer[..length].get_mut(header..).unwrap_or_default();
            let kind = match (carrier, payload.first()) {
                (Carrier::Ip(_), _) => Kind::Ipip,
                (Carrier::Gre, Some(0)) => Kind::Gre,
                (Carrier::Gre, _) => Kind::GreChecksum,
                (Carrier::Gue, _) => Kind::Gue,
            };
            let Ok(packet) = inside(carrier, payload) else {
                self.counts[Kind::Malformed as usize].fetch_add(1, Ordering::Relaxed);
                continue;
            };
            self.counts[kind as usize].fetch_add(1, Ordering::Relaxed);
            tun.transmit(Frame::from_bytes(packet));
            let _ = tun.flush();
        }
    }
}

fn open() -> io::Result<(Tun, Vec<Source>)> {
    let tun = Tun::open().map_err(io::Error::other)?;
    let mut sockets = Vec::new();
    for (family, has_header) in [(AddressFamily::INET, true), (AddressFamily::INET6, false)] {
        for (protocol, carrier) in [
            (ipproto::IPIP, Carrier::Ip(4)),
            (ipproto::IPV6, Carrier::Ip(41)),
            (ipproto::GRE, Carrier::Gre),
        ] {
            sockets.push((raw(family, protocol)?, carrier, has_header));
        }
    }
    let gue = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, GUE_PORT))?;
    gue.set_nonblocking(true)?;
    sys::accept_zero_checksums(&gue)?;
    sockets.push((OwnedFd::from(gue), Carrier::Gue, false));
    for (socket, ..) in &sockets {
        // What the system's limit leaves of it does too, only slower.
        let _ = sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER));
    }
    Ok((tun, sockets))
}

fn raw(family: AddressFamily, protocol: Protocol) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(family, SocketType::RAW, flags, Some(protocol))?)
}

const RECEIVE_BUFFER: usize = 8 << 20;
/// How often the thread looks whether it should stop.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};
