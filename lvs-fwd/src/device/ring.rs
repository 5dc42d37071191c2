//! AF_PACKET: a mapped TPACKET_V2 receive ring, and batched sends straight from its slots.
//!
//! **Receive.** The ring is bound to ETH_P_ALL, so it sees frames before the claim's ingress hook takes them
//! away (bound to one EtherType it would sit behind the hook). The virtio header is on: super-packets and
//! unfinished checksums arrive whole. V2 and not V3, because V3 hands over whole blocks and a quiet link would wait
//! for the block timeout. Slots are large enough for a frame of the usual MTU. What is longer, super-packets above
//! all, waits in the socket's queue, where the kernel keeps it without copying (PACKET_COPY_THRESH), and its slot
//! says so. Reading it is a system call for each, but slots for 64 KiB would be few, so that bursts of
//! small packets overrun them, and would send every copy through memory instead of the cache.
//!
//! **Send.** `sendmmsg`, with the virtio header put in front of the frame, which is still in the receive slot that
//! it arrived in. The kernel copies once, into its socket buffer. A TX ring would not save that copy for large
//! frames without pinning the slot until the device is done, would need a copy by us from RX to TX slot, and
//! limits a frame to its slot. The queueing discipline is not bypassed: it is what gives back-pressure and shapes, and the
//! way through it (with none, as on veth) is 2 % of a worker's time, of which a bypass takes its own part.

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use super::{Capabilities, Device, DeviceCounters, is_gone, virtio};
use crate::frame::{ChecksumState, Frame, FrameMeta, HEADROOM, VlanTag};
use crate::steer;
use crate::sys::ring::{BLOCK_SIZE, Ring as Socket, RingOptions, SLOT_HEADERS, SlotHeader};

/// How a ring is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingConfig {
    /// Interface index.
    pub ifindex: u32,
    /// Receive slots, one for each frame that waits; rounded up to whole blocks of 128 KiB (75 slots). 2048 by
    /// default, which takes 3.5 MiB. Frames longer than 1,522 bytes take up to 16 MiB beside it while they wait. With 0
    /// the ring only sends.
    pub slots: u32,
    /// Frames that wait for sending at most. 1024 by default.
    pub queue: usize,
    /// Set when several workers share the interface.
    pub fanout: Option<Fanout>,
}

impl RingConfig {
    /// The defaults, for one worker.
    pub fn new(ifindex: u32) -> Self {
        Self {
            ifindex,
            slots: 2048,
            queue: 1024,
            fanout: None,
        }
    }
}

/// One of several rings that share an interface. The kernel gives rings numbers in the order in which they
/// are opened: open them in the workers' order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fanout {
    /// Number of the group: unique in the network namespace, the same for all rings of one interface.
    pub group: u16,
    /// Rings in the group.
    pub workers: u32,
    /// The virtual addresses; see [`steer::program`].
    pub vips: Vec<IpAddr>,
}

/// An AF_PACKET ring.
#[derive(Debug)]
pub struct Ring {
    socket: Socket,
    workers: u32,
    /// With the virtio header in front.
    queue: Vec<Frame>,
    limit: usize,
    counters: DeviceCounters,
    /// Looks in a row that found nothing.
    vain: u32,
}

impl Ring {
    /// Opens a ring. Needs CAP_NET_RAW in the user namespace that owns the network namespace.
    ///
    /// # Errors
    ///
    /// What the system reports, with the call that failed.
    pub fn open(config: &RingConfig) -> io::Result<Self> {
        let slots_per_block = BLOCK_SIZE / SLOT_SIZE;
        let program = match &config.fanout {
            Some(fanout) => steer::program(&fanout.vips, fanout.workers),
            None => Vec::new(),
        };
        let socket = Socket::open(&RingOptions {
            ifindex: config.ifindex,
            slot_size: SLOT_SIZE,
            blocks: config.slots.div_ceil(slots_per_block).min(MAX_BLOCKS),
            reserve: HEADROOM as u32,
            fanout: config
                .fanout
                .as_ref()
                .map(|fanout| (fanout.group, &program[..])),
        })?;
        Ok(Self {
            socket,
            workers: config.fanout.as_ref().map_or(1, |fanout| fanout.workers),
            queue: Vec::with_capacity(config.queue),
            limit: config.queue,
            counters: DeviceCounters::default(),
            vain: 0,
        })
    }

    /// The frame that belongs to a slot which it was too long for.
    fn receive_long(&mut self, header: &SlotHeader) -> Option<Frame> {
        let mut buffer = SPARE
            .with_borrow_mut(Vec::pop)
            .unwrap_or_else(|| Vec::with_capacity(HEADROOM + LONGEST));
        let at = HEADROOM - virtio::LEN;
        let Ok(got) = self.socket.receive_long(&mut buffer, at) else {
            self.counters.overruns += 1;
            give_back(buffer);
            return None;
        };
        if at + got > buffer.len() {
            self.counters.truncated += 1;
            give_back(buffer);
            return None;
        }
        let meta = buffer
            .get(at..HEADROOM)
            .filter(|_| got == virtio::LEN + header.length)
            .and_then(|bytes| meta(header, bytes.try_into().ok()?));
        let Some(meta) = meta else {
            self.counters.malformed += 1;
            give_back(buffer);
            return None;
        };
        let mut frame = Frame::from_buffer(buffer, HEADROOM);
        frame.meta = meta;
        Some(frame)
    }

    /// Bytes of memory that the receive ring takes; worth telling the operator.
    pub fn memory(&self) -> usize {
        self.socket.memory()
    }
}

impl Device for Ring {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            link_header: true,
            offloads: true,
            exclusive: false,
            steering: true,
            longest: LONGEST,
        }
    }

    fn receive(&mut self, frames: &mut Vec<Frame>, limit: usize) -> io::Result<usize> {
        let (mut count, mut long) = (0, 0);
        while count < limit {
            let Some((header, slot)) = self.socket.receive() else {
                break;
            };
            if header.status & libc::TP_STATUS_COPY != 0 {
                drop(slot);
                long += 1;
                if let Some(frame) = self.receive_long(&header) {
                    frames.push(frame);
                    count += 1;
                }
                if long >= LONG_BATCH {
                    break;
                }
                continue;
            }
            if header.captured < header.length {
                // The kernel had no room left for long frames.
                self.counters.overruns += 1;
                continue;
            }
            // Offsets in the header count from the slot's first byte, those of its bytes from behind the headers.
            let start = header.mac.wrapping_sub(SLOT_HEADERS);
            let meta = start
                .checked_sub(virtio::LEN)
                .and_then(|at| slot.bytes().get(at..start))
                .and_then(|bytes| meta(&header, bytes.try_into().ok()?));
            let frame =
                meta.and_then(|meta| Frame::from_slot(slot, start, start + header.captured, meta));
            match frame {
                Some(frame) => frames.push(frame),
                None => {
                    self.counters.malformed += 1;
                    continue;
                }
            }
            count += 1;
        }
        self.counters.received += count as u64;
        if count > 0 {
            self.vain = 0;
            return Ok(count);
        }
        // An interface that went down leaves an error, which keeps the descriptor readable until taken. To ask is
        // a system call, and most empty looks have other reasons: traffic at another interface, for one.
        self.vain += 1;
        if self.vain >= VAIN_LOOKS {
            self.vain = 0;
            self.socket.take_error()?;
        }
        Ok(0)
    }

    fn transmit(&mut self, mut frame: Frame) {
        if self.queue.len() >= self.limit {
            self.counters.no_buffers += 1;
            return;
        }
        // In front of the frame, so that the kernel has one part to copy. Ring slots and heap frames have room there.
        let header = virtio::encode(&frame.meta);
        frame.grow_front(virtio::LEN);
        frame.bytes_mut()[..virtio::LEN].copy_from_slice(&header);
        self.queue.push(frame);
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut done = 0;
        let mut outcome = Ok(());
        while done < self.queue.len() {
            let (sent, refusal) = self.socket.send(&self.queue[done..]);
            done += sent;
            self.counters.transmitted += sent as u64;
            let Some(error) = refusal else {
                continue;
            };
            match error.raw_os_error() {
                // The socket's buffer is full: the frames stay until it drains.
                Some(libc::EAGAIN) => break,
                Some(libc::EINTR) => continue,
                _ if is_gone(&error) => {
                    self.counters.refused += (self.queue.len() - done) as u64;
                    done = self.queue.len();
                    outcome = Err(error);
                    break;
                }
                _ => self.counters.count_refusal(&error),
            }
            done += 1;
        }
        for frame in self.queue.drain(..done) {
            if let Some(buffer) = frame.into_buffer() {
                give_back(buffer);
            }
        }
        // What stays must not keep slots: the kernel calls a ring with a slot out readable, and the worker
        // would spin instead of waiting for the socket to drain.
        for frame in &mut self.queue {
            frame.make_owned();
        }
        outcome
    }

    fn pending(&self) -> usize {
        self.queue.len()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn set_steering(&mut self, vips: &[IpAddr]) -> io::Result<()> {
        if self.workers > 1 {
            self.socket
                .set_fanout_program(&steer::program(vips, self.workers))?;
        }
        Ok(())
    }

    fn counters(&mut self) -> DeviceCounters {
        // Reading resets the kernel's figure; a failure leaves it for the next time.
        self.counters.overruns += self.socket.take_drops().unwrap_or(0);
        self.counters
    }
}

fn meta(header: &SlotHeader, virtio: &[u8; virtio::LEN]) -> Option<FrameMeta> {
    let (mut checksum, gso) = virtio::decode(virtio)?;
    if checksum == ChecksumState::Complete && header.status & libc::TP_STATUS_CSUM_VALID != 0 {
        checksum = ChecksumState::Verified;
    }
    let vlan = (header.status & libc::TP_STATUS_VLAN_VALID != 0).then_some(VlanTag {
        tci: header.vlan_tci,
        tpid: if header.status & libc::TP_STATUS_VLAN_TPID_VALID != 0 {
            header.vlan_tpid
        } else {
            ETHERTYPE_VLAN
        },
    });
    Some(FrameMeta {
        checksum,
        gso,
        kind: header.kind,
        vlan,
        longest_part: None,
        exclusive: false,
    })
}

/// Keeps a buffer for the next long frame of this thread's rings.
fn give_back(buffer: Vec<u8>) {
    if buffer.capacity() >= HEADROOM + LONGEST {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_BUFFERS {
                spare.push(buffer);
            }
        });
    }
}

thread_local! {
    /// Buffers for long frames. A frame comes in at one ring and leaves by another, so the rings of a thread share them. The
    /// last one used is the next one taken: its bytes are still in the cache.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A frame of the usual 1,514 bytes with its tag, the kernel's headers and the reserve. An odd number of cache lines, so
/// that the beginnings of the slots, which are all that short frames touch, spread over all of the cache.
const SLOT_SIZE: u32 = 27 * 64;
/// 65,535 bytes of IP and a link header with two tags, behind the virtio header.
const LONGEST: usize = 65_535 + 22;
/// Long frames in one batch at most: what is read should still be in the cache when it is sent.
const LONG_BATCH: usize = 8;
const SPARE_BUFFERS: usize = 32;
const MAX_BLOCKS: u32 = 8192;
/// After how many looks in vain the socket is asked for an error.
const VAIN_LOOKS: u32 = 16;
const ETHERTYPE_VLAN: u16 = 0x8100;

const _: () =
    assert!(SLOT_SIZE as usize >= 1_500 + 22 + SLOT_HEADERS + 2 * 16 + virtio::LEN + HEADROOM);
