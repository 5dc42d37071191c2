//! The packet socket of `pnet_datalink`: one frame for each system call, and nothing that only some kernels have.
//!
//! The socket tells nothing about checksums and super-packets. An unfinished checksum is recognised by being the bare sum of
//! the pseudo-header. A frame longer than the MTU is TCP that the kernel has merged or not yet cut: it is cut anew, into
//! segments for an MTU of 1,280 bytes, because how long they were is not known and longer ones may not pass. Better
//! switch that off: `ethtool -K DEVICE gro off lro off`, and `tso off gso off` at senders on the same machine.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use pnet_datalink::{
    Channel, Config, DataLinkReceiver, DataLinkSender, FanoutOption, FanoutType, MacAddr,
    NetworkInterface,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::finish::{checksum_state, finish_into};
use super::{Capabilities, Device, DeviceCounters, is_gone};
use crate::frame::{Frame, Gso, GsoKind, PacketKind};
use crate::wire::{Headers, ethernet, protocol, tcp};

/// How a device is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PnetConfig {
    /// Interface index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address: what goes to others is marked so.
    pub mac: [u8; 6],
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Number of the fan-out group, unique in the network namespace, where several workers share the interface. Flows are
    /// spread by the kernel's own rule.
    pub group: Option<u16>,
    /// Frames that wait for sending at most.
    pub queue: usize,
}

/// A packet socket.
pub struct Pnet {
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
    /// The same socket, to wait for.
    socket: OwnedFd,
    mac: [u8; 6],
    longest: usize,
    waiting: Vec<Frame>,
    limit: usize,
    counters: DeviceCounters,
}

impl Pnet {
    /// Opens a socket. Needs CAP_NET_RAW in the user namespace that owns the network namespace.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn open(config: &PnetConfig) -> io::Result<Self> {
        let [a, b, c, d, e, f] = config.mac;
        let interface = NetworkInterface {
            name: config.name.clone(),
            description: String::new(),
            index: config.ifindex,
            mac: Some(MacAddr::new(a, b, c, d, e, f)),
            ips: Vec::new(),
            flags: 0,
        };
        // Made here, so that it can be waited for, and does not receive what the host sends.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        let socket = OwnedFd::from(socket);
        crate::sys::ring::ignore_outgoing(&socket)?;
        // Where that is not permitted it stays smaller.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER);
        let options = Config {
            read_buffer_size: LONGEST,
            write_buffer_size: LONGEST,
            read_timeout: Some(Duration::ZERO),
            write_timeout: Some(Duration::ZERO),
            promiscuous: false,
            linux_fanout: config.group.map(|group_id| FanoutOption {
                group_id,
                fanout_type: FanoutType::HASH,
                defrag: false,
                rollover: false,
            }),
            socket_fd: Some(socket.try_clone()?.into_raw_fd()),
            ..Config::default()
        };
        let Channel::Ethernet(sender, receiver) = pnet_datalink::channel(&interface, options)?
        else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        Ok(Self {
            sender,
            receiver,
            socket,
            mac: config.mac,
            longest: config.mtu as usize + ethernet::HEADER_LEN,
            waiting: Vec::new(),
            limit: config.queue,
            counters: DeviceCounters::default(),
        })
    }
}

impl Device for Pnet {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            link_header: true,
            offloads: false,
            exclusive: false,
            steering: false,
            longest: self.longest,
        }
    }

    fn receive(&mut self, frames: &mut Vec<Frame>, limit: usize) -> io::Result<usize> {
        let mut count = 0;
        while count < limit {
            let bytes = match self.receiver.next() {
                Ok(bytes) => bytes,
                Err(error) if is_for_later(&error) => break,
                Err(error) => return Err(error),
            };
            if bytes.len() < ethernet::HEADER_LEN {
                self.counters.malformed += 1;
                continue;
            }
            let mut frame = Frame::from_bytes(bytes);
            frame.meta.kind = kind(bytes, &self.mac);
            frame.meta.checksum = checksum_state(frame.bytes());
            if frame.len() > self.longest && !describe_super_packet(&mut frame) {
                self.counters.truncated += 1;
                continue;
            }
            frames.push(frame);
            count += 1;
        }
        self.counters.received += count as u64;
        Ok(count)
    }

    fn transmit(&mut self, frame: Frame) {
        finish_into(
            frame,
            self.longest,
            &mut self.counters,
            &mut self.waiting,
            self.limit,
        );
    }

    fn flush(&mut self) -> io::Result<()> {
        let (mut done, mut outcome) = (0, Ok(()));
        for frame in &self.waiting {
            match self.sender.send_to(frame.bytes(), None) {
                Some(Ok(())) => self.counters.transmitted += 1,
                Some(Err(error)) if is_for_later(&error) => break,
                Some(Err(error)) if is_gone(&error) => {
                    self.counters.refused += (self.waiting.len() - done) as u64;
                    done = self.waiting.len();
                    outcome = Err(error);
                    break;
                }
                Some(Err(error)) => self.counters.count_refusal(&error),
                None => self.counters.refused += 1,
            }
            done += 1;
        }
        self.waiting.drain(..done);
        // What waits must not keep memory of the devices that it came from.
        for frame in &mut self.waiting {
            frame.make_owned();
        }
        outcome
    }

    fn pending(&self) -> usize {
        self.waiting.len()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn counters(&mut self) -> DeviceCounters {
        self.counters
    }
}

impl std::fmt::Debug for Pnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pnet")
            .field("socket", &self.socket)
            .field("waiting", &self.waiting.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// Says how to cut a TCP super-packet. `false` if it is none.
fn describe_super_packet(frame: &mut Frame) -> bool {
    let Ok(headers) = Headers::parse(frame.bytes()) else {
        return false;
    };
    let Some(Ok(segment)) = frame
        .bytes()
        .get(headers.transport..)
        .map(tcp::Packet::new_checked)
    else {
        return false;
    };
    if headers.protocol != protocol::TCP {
        return false;
    }
    let header_len = headers.transport + segment.header_len();
    let is_ipv4 = headers.source.is_ipv4();
    frame.meta.gso = Some(Gso {
        kind: if is_ipv4 {
            GsoKind::Tcp4
        } else {
            GsoKind::Tcp6
        },
        ecn: false,
        size: (SAFE_MTU + ethernet::HEADER_LEN).saturating_sub(header_len) as u16,
        header_len: header_len as u16,
    });
    true
}

/// Whom a frame is for, as the kernel would have said.
fn kind(bytes: &[u8], mac: &[u8; 6]) -> PacketKind {
    match &bytes[..6] {
        to if to == mac => PacketKind::Host,
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => PacketKind::Broadcast,
        [first, ..] if first & 1 != 0 => PacketKind::Multicast,
        _ => PacketKind::OtherHost,
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// The longest IP packet with its link header.
const LONGEST: usize = 65_535 + 22;
/// Bytes that wait to be received.
const BUFFER: usize = 8 << 20;
/// What every path takes that takes IPv6.
const SAFE_MTU: usize = 1280;
