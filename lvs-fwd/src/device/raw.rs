//! Raw IP sockets: IP packets that the system routes, without a link header.
//!
//! The destination decides where a packet goes, so tunnels and translated packets leave well, and what is for the host
//! itself comes back to it as if from a network: a way to the host where there is no TUN device. Direct routing can't be done:
//! its packets keep the director's own address.
//!
//! What is received are copies of packets that the host takes for itself, of one IP protocol and behind its firewall.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::finish::{checksum_state_ip, finish_into};
use super::{Capabilities, Device, DeviceCounters};
use crate::frame::Frame;
use crate::wire::ethernet;

/// Raw sockets for IPv4 and, for sending, IPv6.
#[derive(Debug)]
pub struct Raw {
    v4: Socket,
    v6: Option<Socket>,
    receiver: Option<Socket>,
    buffer: Vec<u8>,
    waiting: Vec<Frame>,
    counters: DeviceCounters,
}

impl Raw {
    /// Opens sockets that send, and one that receives IPv4 packets of this IP protocol number if there is one. Needs
    /// CAP_NET_RAW in the user namespace that owns the network namespace.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn open(receive: Option<u8>) -> io::Result<Self> {
        // The protocol "raw" says that packets come with their IP headers.
        let open = |domain, protocol: i32| -> io::Result<Socket> {
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))?;
            socket.set_nonblocking(true)?;
            // Where that is not permitted it stays smaller.
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER);
            Ok(socket)
        };
        Ok(Self {
            v4: open(Domain::IPV4, libc::IPPROTO_RAW)?,
            // There may be none in this kernel.
            v6: open(Domain::IPV6, libc::IPPROTO_RAW).ok(),
            receiver: receive
                .map(|protocol| open(Domain::IPV4, protocol.into()))
                .transpose()?,
            buffer: vec![0; LONGEST],
            waiting: Vec::new(),
            counters: DeviceCounters::default(),
        })
    }

    fn send(&self, frame: &Frame) -> io::Result<()> {
        let bytes = frame.bytes();
        let (socket, to): (&Socket, IpAddr) = match bytes.first().map(|byte| byte >> 4) {
            Some(4) => match bytes.get(16..20) {
                Some(&[a, b, c, d]) => (&self.v4, Ipv4Addr::new(a, b, c, d).into()),
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            },
            Some(6) => match (bytes.get(24..40), &self.v6) {
                (Some(octets), Some(socket)) => {
                    let mut addr = [0; 16];
                    addr.copy_from_slice(octets);
                    (socket, Ipv6Addr::from(addr).into())
                }
                _ => return Err(io::ErrorKind::Unsupported.into()),
            },
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        socket
            .send_to(bytes, &SockAddr::from(SocketAddr::new(to, 0)))
            .map(drop)
    }
}

impl Device for Raw {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            link_header: false,
            offloads: false,
            exclusive: false,
            steering: false,
            longest: LONGEST,
        }
    }

    fn receive(&mut self, frames: &mut Vec<Frame>, limit: usize) -> io::Result<usize> {
        let Some(receiver) = &self.receiver else {
            return Ok(0);
        };
        let mut count = 0;
        while count < limit {
            let length = match rustix::io::read(receiver, &mut self.buffer[..]) {
                Ok(length) => length,
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let mut frame = Frame::from_bytes(&self.buffer[..length]);
            frame.meta.checksum = checksum_state_ip(frame.bytes());
            frames.push(frame);
            count += 1;
        }
        self.counters.received += count as u64;
        Ok(count)
    }

    fn transmit(&mut self, mut frame: Frame) {
        let ethertype = match frame.bytes().first().map(|byte| byte >> 4) {
            Some(6) => ethernet::IPV6,
            _ => ethernet::IPV4,
        };
        // With a link header, which is taken off again.
        frame.grow_front(ethernet::HEADER_LEN);
        let repr = ethernet::Repr {
            destination: [0; 6],
            source: [0; 6],
            ethertype,
        };
        repr.emit(frame.bytes_mut());
        let added = self.waiting.len();
        finish_into(
            frame,
            LONGEST + ethernet::HEADER_LEN,
            &mut self.counters,
            &mut self.waiting,
            QUEUE,
        );
        for part in &mut self.waiting[added..] {
            part.trim_front(ethernet::HEADER_LEN);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut done = 0;
        for frame in &self.waiting {
            match self.send(frame) {
                Ok(()) => self.counters.transmitted += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => self.counters.count_refusal(&error),
            }
            done += 1;
        }
        self.waiting.drain(..done);
        for frame in &mut self.waiting {
            frame.make_owned();
        }
        Ok(())
    }

    fn pending(&self) -> usize {
        self.waiting.len()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        // One that never has anything to read, where nothing is received.
        Some(self.receiver.as_ref().unwrap_or(&self.v4).as_fd())
    }

    fn counters(&mut self) -> DeviceCounters {
        self.counters
    }
}

/// The longest IP packet.
const LONGEST: usize = 65_535;
/// Bytes that wait to be received.
const BUFFER: usize = 4 << 20;
/// Packets that wait at most.
const QUEUE: usize = 1024;
