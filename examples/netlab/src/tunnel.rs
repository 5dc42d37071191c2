//! The far end of tunnels.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use lvs_fwd::device::Device as _;
use lvs_fwd::frame::Frame;
use lvs_fwd::tun::Tun;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};

use crate::Namespace;

/// Unpacks IP-in-IP packets that reach a namespace, in user space: what is inside arrives there through a TUN device, as
/// if by the kernel's `tunl0`. It stops when dropped.
#[derive(Debug)]
pub struct Decapsulator {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
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
            Ok((tun, socket)) => {
                let _ = started.send(Ok(()));
                own.run(tun, &socket);
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
        self.shared.packets.load(Ordering::Relaxed)
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
    packets: AtomicU64,
}

impl Shared {
    fn run(&self, mut tun: Tun, socket: &OwnedFd) {
        let mut buffer = vec![0; 0x1_0000];
        while !self.stopped.load(Ordering::Relaxed) {
            let mut readable = [PollFd::new(socket, PollFlags::IN)];
            let _ = poll(&mut readable, Some(&PATIENCE));
            while let Ok(length) = rustix::io::read(socket, &mut buffer[..]) {
                // The kernel has put fragments together; the outer header is still there.
                let header = buffer.first().map_or(0, |byte| usize::from(byte & 15) * 4);
                let Some(inside) = buffer[..length].get(header..) else {
                    continue;
                };
                self.packets.fetch_add(1, Ordering::Relaxed);
                tun.transmit(Frame::from_bytes(inside));
                let _ = tun.flush();
            }
        }
    }
}

fn open() -> io::Result<(Tun, OwnedFd)> {
    let tun = Tun::open().map_err(io::Error::other)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::RAW,
        flags,
        Some(ipproto::IPIP),
    )?;
    // What the system's limit leaves of it does too, only slower.
    let _ = sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER));
    Ok((tun, socket))
}

const RECEIVE_BUFFER: usize = 8 << 20;
/// How often the thread looks whether it should stop.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};
