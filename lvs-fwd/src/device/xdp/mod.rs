//! AF_XDP: frames go from the driver straight to the process, and past the host's stack.
//!
//! **The claim** lives in a program at the interface: it sends claimed frames to the socket of their receive queue and lets
//! everything else pass to the host. See [`XdpClaim`]. It is attached as a link that vanishes with the process.
//!
//! **Sockets.** Each receive queue has a socket, and belongs to one worker; a worker may have several queues. Where there are
//! more workers than queues, the others only send, through a packet socket. The driver decides which queue a frame comes to:
//! it knows nothing of owners, so frames are handed over between workers.
//!
//! **Memory.** Frames lie in chunks of memory shared with the kernel ([`PacketMemory`]). With drivers that can, nothing is
//! copied; on others, veth for one, the kernel copies once into a chunk and once out of it. A frame that leaves by another
//! interface of the same worker is sent from the chunk that it came in, if the interfaces share their memory.
//!
//! **Checksums and super-packets.** AF_XDP tells nothing about them. An unfinished checksum is recognised because it
//! is the bare sum of the pseudo-header (TCP and UDP; SCTP's can't be recognised: senders on the same machine must finish it,
//! `ethtool -K DEVICE tx off` there). Super-packets do not come: with a program at a veth interface its other end cuts
//! what it sends, and drivers that merge segments refuse the program. What is sent is finished and cut before.

mod assembler;
mod claim;
mod marks;
mod program;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll;

pub use self::claim::XdpClaim;
use super::finish::{checksum_state, finish_into};
use super::ring::{Ring, RingConfig};
use super::{Capabilities, Device, DeviceCounters};
use crate::frame::Frame;
use crate::sys::bpf::{self, Attachment, Map, MapKind};
use crate::sys::xdp::{Memory, Queue, REGISTER};
use crate::wire::ethernet;

/// Memory for frames, to be shared by all AF_XDP devices of one worker.
#[derive(Debug, Clone)]
pub struct PacketMemory(Arc<Memory>);

impl PacketMemory {
    /// Room for at least so many frames of interfaces with this MTU, each in 2 KiB, or 4 KiB from 1,770 bytes of MTU on.
    ///
    /// # Errors
    ///
    /// If there is not so much memory, or no frame of that MTU fits.
    pub fn new(mtu: u32, frames: usize) -> Result<Self, XdpError> {
        let longest = mtu as usize + LINK_ROOM;
        let chunk = CHUNKS
            .into_iter()
            .find(|chunk| longest + KERNEL_HEADROOM <= *chunk)
            .ok_or(XdpError::Mtu { mtu })?;
        Ok(Self(Memory::new(chunk, frames).map_err(XdpError::Memory)?))
    }

    /// Whether frames of this MTU fit, and there is still room for a queue of so many frames beside what is to be sent.
    pub fn has_room(&self, mtu: u32, slots: u32) -> bool {
        mtu as usize + LINK_ROOM + KERNEL_HEADROOM <= self.0.chunk_len()
            && self.0.free() * self.0.chunk_len()
                >= self.0.len() / 4 + slots as usize * self.0.chunk_len()
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no room at all.
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }
}

/// An interface to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpConfig {
    /// Interface index.
    pub ifindex: u32,
    /// Its hardware address: frames to others are left to the host.
    pub mac: [u8; 6],
    /// Its MTU in bytes; 3,818 at most.
    pub mtu: u32,
    /// Frames that wait in each receive queue at most. 2048 by default; rounded up to a power of two.
    pub slots: u32,
    /// Frames that wait for sending at most. 1024 by default.
    pub queue: usize,
}

impl XdpConfig {
    /// The defaults.
    pub fn new(ifindex: u32, mac: [u8; 6], mtu: u32) -> Self {
        Self {
            ifindex,
            mac,
            mtu,
            slots: 2048,
            queue: 1024,
        }
    }
}

/// An opened interface.
#[derive(Debug)]
pub struct Opened {
    /// A device for each worker.
    pub devices: Vec<Xdp>,
    /// Receive queues.
    pub queues: usize,
    /// Whether the program runs in the driver; otherwise behind it, which is slower.
    pub in_driver: bool,
    /// Whether frames are not copied.
    pub zero_copy: bool,
}

/// Opens an interface for as many workers as there are memories; two may be the same.
///
/// From then on the frames that `claim` names are taken from the host.
///
/// # Errors
///
/// What was refused, and by what.
pub fn open(
    config: &XdpConfig,
    claim: &XdpClaim,
    memories: &[PacketMemory],
) -> Result<Opened, XdpError> {
    if config.mtu as usize + LINK_ROOM + KERNEL_HEADROOM > CHUNKS[1] {
        return Err(XdpError::Mtu { mtu: config.mtu });
    }
    let sockets = Map::create(MapKind::Sockets, 4, 4, MAX_QUEUES).map_err(XdpError::from_bpf)?;
    let code = program::steering(claim.maps(&sockets), config.mac);
    let program = bpf::load_xdp(&code).map_err(XdpError::from_bpf)?;
    // Some drivers want the program before they give a queue away.
    let (link, how) = attach(program.as_fd(), config.ifindex)?;
    let mut queues: Vec<Vec<Queue>> = memories.iter().map(|_| Vec::new()).collect();
    let mut number = 0;
    while number < MAX_QUEUES {
        let worker = number as usize % memories.len().max(1);
        let Some(PacketMemory(memory)) = memories.get(worker) else {
            break;
        };
        match open_queue(config.ifindex, number, memory, config.slots) {
            Ok(queue) => {
                let descriptor = std::os::fd::AsRawFd::as_raw_fd(&queue.as_fd());
                sockets
                    .insert(&number.to_ne_bytes(), &descriptor.to_ne_bytes())
                    .map_err(XdpError::Program)?;
                queues[worker].push(queue);
            }
            // There are no more queues.
            Err((_, error)) if number > 0 && error.kind() == io::ErrorKind::InvalidInput => break,
            Err((REGISTER, error)) => return Err(XdpError::Memory(error)),
            Err((call, source)) => return Err(XdpError::Socket { call, source }),
        }
        number += 1;
    }
    let zero_copy = queues.iter().flatten().all(Queue::is_zero_copy);
    let steering = Arc::new(Steering {
        _sockets: sockets,
        _link: link,
    });
    let devices = queues
        .into_iter()
        .map(|queues| Xdp::new(config, queues, Arc::clone(&steering)))
        .collect::<io::Result<Vec<Xdp>>>()
        .map_err(|source| XdpError::Socket {
            call: "AF_PACKET or epoll",
            source,
        })?;
    Ok(Opened {
        devices,
        queues: number as usize,
        in_driver: how == Attachment::Driver,
        zero_copy,
    })
}

/// One worker's part of an interface.
#[derive(Debug)]
pub struct Xdp {
    queues: Vec<Queue>,
    /// Waits for all of several queues.
    epoll: Option<OwnedFd>,
    /// For a worker without a queue.
    sender: Option<Ring>,
    waiting: Vec<Frame>,
    limit: usize,
    longest: usize,
    counters: DeviceCounters,
    /// The last attempt to send failed: what is on the send ring goes when the interface is up again, if ever.
    failed: bool,
    /// Looks in a row that found nothing.
    vain: u32,
    /// Last, so that sockets are closed before the program goes.
    _steering: Arc<Steering>,
}

/// What keeps frames coming: all workers' devices of an interface hold it together.
#[derive(Debug)]
struct Steering {
    _link: OwnedFd,
    _sockets: Map,
}

impl Xdp {
    fn new(config: &XdpConfig, queues: Vec<Queue>, steering: Arc<Steering>) -> io::Result<Self> {
        let sender = match queues.is_empty() {
            true => Some(Ring::open(&RingConfig {
                slots: 0,
                queue: config.queue,
                ..RingConfig::new(config.ifindex)
            })?),
            false => None,
        };
        let epoll = match queues.len() {
            0 | 1 => None,
            _ => {
                let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
                for (number, queue) in queues.iter().enumerate() {
                    let data = epoll::EventData::new_u64(number as u64);
                    epoll::add(&set, queue, data, epoll::EventFlags::IN)?;
                }
                Some(set)
            }
        };
        Ok(Self {
            queues,
            epoll,
            sender,
            waiting: Vec::with_capacity(config.queue),
            limit: config.queue,
            longest: config.mtu as usize + ethernet::HEADER_LEN,
            counters: DeviceCounters::default(),
            failed: false,
            vain: 0,
            _steering: steering,
        })
    }

    /// Frames that the kernel has not taken yet.
    fn on_ring(&self) -> usize {
        self.queues.iter().map(Queue::waiting).sum()
    }
}

impl Device for Xdp {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            link_header: true,
            offloads: false,
            exclusive: true,
            steering: false,
            longest: self.longest,
        }
    }

    fn receive(&mut self, frames: &mut Vec<Frame>, limit: usize) -> io::Result<usize> {
        let before = frames.len();
        let mut malformed = 0;
        for queue in &mut self.queues {
            let rest = limit.saturating_sub(frames.len() - before);
            if rest == 0 {
                break;
            }
            queue.receive(rest, |chunk, start, len| {
                match Frame::from_chunk(chunk, start, start + len) {
                    Some(mut frame) => {
                        frame.meta.exclusive = true;
                        frame.meta.checksum = checksum_state(frame.bytes());
                        frames.push(frame);
                    }
                    None => malformed += 1,
                }
            });
        }
        self.counters.malformed += malformed;
        let count = frames.len() - before;
        self.counters.received += count as u64;
        if count > 0 {
            self.vain = 0;
            return Ok(count);
        }
        // As at a ring: an interface that went down leaves an error, which keeps the descriptor readable.
        self.vain += 1;
        if self.vain >= VAIN_LOOKS {
            self.vain = 0;
            for queue in &self.queues {
                queue.take_error()?;
            }
        }
        Ok(0)
    }

    fn transmit(&mut self, frame: Frame) {
        if let Some(sender) = &mut self.sender {
            sender.transmit(frame);
            return;
        }
        finish_into(
            frame,
            self.longest,
            &mut self.counters,
            &mut self.waiting,
            self.limit,
        );
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(sender) = &mut self.sender {
            return sender.flush();
        }
        for queue in &mut self.queues {
            queue.reap();
        }
        let Some(queue) = self.queues.first_mut() else {
            return Ok(());
        };
        let (mut sent, mut outcome) = (0, Ok(()));
        loop {
            while let Some(frame) = self.waiting.get_mut(sent) {
                match put(queue, frame.take()) {
                    Ok(()) => sent += 1,
                    Err(back) => {
                        *frame = back;
                        break;
                    }
                }
            }
            if let Err(error) = queue.kick() {
                outcome = Err(error);
                break;
            }
            // What was sent makes room for the rest.
            if sent == self.waiting.len() || queue.reap() == 0 {
                break;
            }
        }
        self.counters.transmitted += sent as u64;
        self.waiting.drain(..sent);
        self.failed = outcome.is_err();
        if self.failed {
            self.counters.refused += self.waiting.len() as u64;
            self.waiting.clear();
        }
        for frame in &mut self.waiting {
            frame.make_owned();
        }
        outcome
    }

    fn pending(&self) -> usize {
        match &self.sender {
            Some(sender) => sender.pending(),
            None if self.failed => 0,
            None => self.waiting.len() + self.on_ring(),
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match (&self.sender, &self.epoll, &self.queues[..]) {
            (Some(sender), ..) => sender.descriptor(),
            // It can't tell when there is room to send.
            (None, Some(_), _) if self.pending() > 0 => None,
            (None, Some(epoll), _) => Some(epoll.as_fd()),
            (None, None, queues) => queues.first().map(AsFd::as_fd),
        }
    }

    fn counters(&mut self) -> DeviceCounters {
        let mut counters = self.counters;
        // What is on the ring has not left yet.
        counters.transmitted -= self.on_ring() as u64;
        if self.failed {
            counters.refused += self.on_ring() as u64;
        }
        counters.overruns = self.queues.iter().map(Queue::overruns).sum();
        if let Some(sender) = &mut self.sender {
            let sent = sender.counters();
            counters.transmitted += sent.transmitted;
            counters.too_long += sent.too_long;
            counters.no_buffers += sent.no_buffers;
            counters.refused += sent.refused;
        }
        counters
    }
}

/// Puts a frame on the queue's send ring; one from elsewhere is copied. Gives it back if there is no room.
fn put(queue: &mut Queue, frame: Frame) -> Result<(), Frame> {
    if !queue.has_room() {
        return Err(frame);
    }
    let length = frame.len();
    let (chunk, start) = match frame.into_chunk(queue.memory()) {
        Ok(own) => own,
        Err(frame) => {
            let Some(mut chunk) = queue.memory().take() else {
                return Err(frame);
            };
            let Some(room) = chunk.bytes_mut().get_mut(..length) else {
                // Longer than any frame that is let in.
                return Ok(());
            };
            room.copy_from_slice(frame.bytes());
            (chunk, 0)
        }
    };
    queue.push(chunk, start, length);
    Ok(())
}

/// Opens a queue. The kernel is not done with a socket that was there before when that is closed, but some time after.
fn open_queue(
    ifindex: u32,
    number: u32,
    memory: &Arc<Memory>,
    slots: u32,
) -> Result<Queue, (&'static str, io::Error)> {
    for _ in 0..BUSY_TRIES {
        match Queue::open(ifindex, number, memory, slots) {
            Err((_, error)) if is_errno(&error, &[libc::EBUSY]) => std::thread::sleep(BUSY_PAUSE),
            outcome => return outcome,
        }
    }
    Queue::open(ifindex, number, memory, slots)
}

/// In the driver if that can be, else behind it.
fn attach(program: BorrowedFd<'_>, ifindex: u32) -> Result<(OwnedFd, Attachment), XdpError> {
    let first = match bpf::attach(program, ifindex, Attachment::Driver) {
        Ok(link) => return Ok((link, Attachment::Driver)),
        Err(error) => error,
    };
    if is_errno(&first, &[libc::EPERM]) {
        return Err(XdpError::NotPermitted(first));
    }
    if is_errno(&first, &[libc::EBUSY, libc::EEXIST]) {
        return Err(XdpError::Busy(first));
    }
    match bpf::attach(program, ifindex, Attachment::Generic) {
        // Frames that were merged or not yet cut would come in one piece, too long for a chunk.
        Ok(link) if is_errno(&first, &[libc::EOPNOTSUPP]) => Ok((link, Attachment::Generic)),
        _ => Err(XdpError::Driver(first)),
    }
}

fn is_errno(error: &io::Error, any: &[i32]) -> bool {
    error
        .raw_os_error()
        .is_some_and(|number| any.contains(&number))
}

/// Why AF_XDP can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XdpError {
    /// The process may not use BPF.
    #[error(
        "BPF is not permitted (CAP_BPF and CAP_NET_ADMIN of the initial user namespace are needed)"
    )]
    NotPermitted(#[source] io::Error),
    /// The kernel does not take the program or its maps.
    #[error("the kernel refuses the steering program")]
    Program(#[source] io::Error),
    /// The interface has a program already.
    #[error("another XDP program is attached to the interface (see `ip link`)")]
    Busy(#[source] io::Error),
    /// The driver does not take a program in the interface's present state.
    #[error(
        "the driver refuses an XDP program (a smaller MTU, no merging of segments (`ethtool -K DEVICE lro off          rx-gro-hw off`) or fewer queues may help)"
    )]
    Driver(#[source] io::Error),
    /// A socket could not be opened.
    #[error("{call} failed")]
    Socket {
        /// What was called.
        call: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Memory can't be had, or not be locked.
    #[error("packet memory can't be locked (raise RLIMIT_MEMLOCK, or give CAP_IPC_LOCK)")]
    Memory(#[source] io::Error),
    /// Frames of the interface are too large.
    #[error("frames of an MTU of {mtu} bytes are too large, 3818 bytes fit")]
    Mtu {
        /// The interface's MTU in bytes.
        mtu: u32,
    },
}

impl XdpError {
    fn from_bpf(error: io::Error) -> Self {
        match is_errno(&error, &[libc::EPERM]) {
            true => Self::NotPermitted(error),
            false => Self::Program(error),
        }
    }
}

/// What the kernel keeps in front of a frame.
const KERNEL_HEADROOM: usize = 256;
/// Link header and two tags.
const LINK_ROOM: usize = 22;
/// Bytes of a chunk, the smaller the better.
const CHUNKS: [usize; 2] = [2048, 4096];
const MAX_QUEUES: u32 = 256;
/// How long a queue may be busy.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(4);
/// After how many looks in vain the socket is asked for an error.
const VAIN_LOOKS: u32 = 16;

const _: () = assert!(CHUNKS[1] - KERNEL_HEADROOM - LINK_ROOM == 3818);
