//! AF_PACKET sockets: the mapped receive ring and batched sending.
//!
//! Ownership of a slot passes between kernel and process through the status word in front of it. While a
//! [`Slot`] value exists its slot is the process's: the kernel does not write to it and the ring does not
//! hand it out again, whatever the order in which slots come back.
#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::frame::{Frame, PacketKind};
use crate::steer::Instruction;

/// What a ring is opened with.
#[derive(Debug)]
pub(crate) struct RingOptions<'a> {
    pub(crate) ifindex: u32,
    /// Bytes of a slot; a multiple of 16 and no more than [`BLOCK_SIZE`].
    pub(crate) slot_size: u32,
    /// None: the socket only sends.
    pub(crate) blocks: u32,
    /// Spare bytes in front of each frame.
    pub(crate) reserve: u32,
    /// Group number and program, when several sockets share an interface.
    pub(crate) fanout: Option<(u16, &'a [Instruction])>,
}

/// A packet socket with a TPACKET_V2 receive ring and the virtio header switched on.
#[derive(Debug)]
pub(crate) struct Ring {
    socket: OwnedFd,
    /// `None` for a socket that only sends.
    memory: Option<Arc<Memory>>,
    next: usize,
}

/// What the kernel wrote in front of a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotHeader {
    /// TP_STATUS bits.
    pub(crate) status: u32,
    /// Length of the frame on the wire.
    pub(crate) length: usize,
    /// Length of what is in the slot.
    pub(crate) captured: usize,
    /// The frame's first byte, from the slot's first.
    pub(crate) mac: usize,
    pub(crate) vlan_tci: u16,
    pub(crate) vlan_tpid: u16,
    pub(crate) kind: PacketKind,
}

impl Ring {
    pub(crate) fn open(options: &RingOptions<'_>) -> io::Result<Self> {
        // Protocol 0: nothing arrives before bind has named the interface.
        // SAFETY: no memory is involved.
        let socket = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                0,
            )
        };
        if socket < 0 {
            return Err(failed("socket(AF_PACKET)"));
        }
        // SAFETY: the descriptor was just returned and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };

        set_option(
            &socket,
            libc::PACKET_VERSION,
            &libc::tpacket_versions::TPACKET_V2,
            "PACKET_VERSION",
        )?;
        set_option(&socket, libc::PACKET_VNET_HDR, &1i32, "PACKET_VNET_HDR")?;
        set_option(
            &socket,
            libc::PACKET_RESERVE,
            &options.reserve,
            "PACKET_RESERVE",
        )?;
        // Frames that are too long for a slot wait, whole, in the socket's queue.
        set_option(&socket, PACKET_COPY_THRESH, &1i32, "PACKET_COPY_THRESH")?;
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err()
        {
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
        }
        set_option(
            &socket,
            PACKET_IGNORE_OUTGOING,
            &1i32,
            "PACKET_IGNORE_OUTGOING",
        )?;
        // The default holds three super-packets. What the system's limit leaves of it does too, only slower.
        if rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER).is_err() {
            let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER);
        }
        let memory = match options.blocks {
            0 => None,
            _ => Some(Arc::new(receive_ring(&socket, options)?)),
        };

        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        // Protocol 0: nothing arrives.
        address.sll_protocol = match memory {
            Some(_) => (libc::ETH_P_ALL as u16).to_be(),
            None => 0,
        };
        address.sll_ifindex =
            i32::try_from(options.ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the pointer and length describe `address`, which outlives the call.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if bound < 0 {
            return Err(failed("bind(AF_PACKET)"));
        }
        let mut ring = Self {
            socket,
            memory,
            next: 0,
        };
        if let Some((group, program)) = options.fanout {
            let mode = i32::from(group) | (PACKET_FANOUT_CBPF << 16);
            set_option(&ring.socket, libc::PACKET_FANOUT, &mode, "PACKET_FANOUT")?;
            ring.set_fanout_program(program)?;
            // Between bind and joining the group every socket got a copy of everything.
            while ring.receive().is_some() {}
            let mut buffer = Vec::new();
            while ring.receive_long(&mut buffer, 0).is_ok() {}
        }
        Ok(ring)
    }

    /// Replaces the program that chooses among the sockets of a fan-out group.
    pub(crate) fn set_fanout_program(&self, program: &[Instruction]) -> io::Result<()> {
        let filters: Vec<libc::sock_filter> = program
            .iter()
            .map(|instruction| libc::sock_filter {
                code: instruction.code,
                jt: instruction.jump_true,
                jf: instruction.jump_false,
                k: instruction.operand,
            })
            .collect();
        let program = libc::sock_fprog {
            len: u16::try_from(filters.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            // The kernel only reads it.
            filter: filters.as_ptr().cast_mut(),
        };
        set_option(
            &self.socket,
            PACKET_FANOUT_DATA,
            &program,
            "PACKET_FANOUT_DATA",
        )
    }

    /// Bytes of memory that the ring takes.
    pub(crate) fn memory(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| memory.len)
    }

    /// The next frame, if one has arrived and its slot is not still out from the round before.
    pub(crate) fn receive(&mut self) -> Option<(SlotHeader, Slot)> {
        let index = self.next;
        let memory = self.memory.as_ref()?;
        // Acquire pairs with the release in `Slot::drop`: who sees the slot returned also sees its status reset.
        if memory.held[index].load(Ordering::Acquire) {
            return None;
        }
        // Acquire pairs with the kernel's barrier before it sets the status.
        let status = memory.status(index).load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        memory.held[index].store(true, Ordering::Relaxed);
        self.next = if index + 1 == memory.held.len() {
            0
        } else {
            index + 1
        };
        let slot = Slot {
            memory: Arc::clone(memory),
            index,
        };
        let base = memory.slot(index);
        // SAFETY: the status says that the slot is ours; both headers lie inside it (see the assertions
        // below) and are aligned, as slots are multiples of 16 bytes from the page-aligned start.
        let (header, address) = unsafe {
            (
                base.cast::<libc::tpacket2_hdr>().read(),
                base.add(HEADER_LEN).cast::<libc::sockaddr_ll>().read(),
            )
        };
        let kind = match address.sll_pkttype {
            libc::PACKET_HOST => PacketKind::Host,
            libc::PACKET_BROADCAST => PacketKind::Broadcast,
            libc::PACKET_MULTICAST => PacketKind::Multicast,
            libc::PACKET_OUTGOING => PacketKind::Outgoing,
            _ => PacketKind::OtherHost,
        };
        let header = SlotHeader {
            status,
            length: header.tp_len as usize,
            captured: header.tp_snaplen as usize,
            mac: header.tp_mac.into(),
            vlan_tci: header.tp_vlan_tci,
            vlan_tpid: header.tp_vlan_tpid,
            kind,
        };
        Some((header, slot))
    }

    /// The first of the frames that were too long for their slots (those with TP_STATUS_COPY, in the same order),
    /// with the virtio header in front. It is put behind the first `at` bytes of the buffer, as far as the
    /// buffer's capacity goes. Returns its whole length, header included.
    pub(crate) fn receive_long(&self, buffer: &mut Vec<u8>, at: usize) -> io::Result<usize> {
        buffer.resize(at, 0);
        let room = buffer.spare_capacity_mut();
        // SAFETY: the pointer and length describe memory of the buffer, which the kernel may write to.
        let got = unsafe {
            libc::recv(
                self.socket.as_raw_fd(),
                room.as_mut_ptr().cast(),
                room.len(),
                libc::MSG_DONTWAIT | libc::MSG_TRUNC,
            )
        };
        let Ok(got) = usize::try_from(got) else {
            return Err(io::Error::last_os_error());
        };
        let written = got.min(room.len());
        // SAFETY: the first `at` bytes were set above, the kernel has written those behind them, and both lie within
        // the capacity.
        unsafe { buffer.set_len(at + written) };
        Ok(got)
    }

    /// Reports and forgets an error that happened at the socket, an interface that went down for example.
    pub(crate) fn take_error(&self) -> io::Result<()> {
        Ok(rustix::net::sockopt::socket_error(&self.socket)??)
    }

    /// Frames that the kernel dropped since the last call because the ring was full.
    pub(crate) fn take_drops(&self) -> io::Result<u64> {
        let mut stats = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the pointers describe `stats` and `len`, which outlive the call.
        let got = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut len,
            )
        };
        if got < 0 {
            return Err(failed("getsockopt(PACKET_STATISTICS)"));
        }
        Ok(stats.tp_drops.into())
    }

    /// Sends frames, each of which begins with a virtio header, until one is refused. Returns how many went, and
    /// the refusal of the one after them.
    pub(crate) fn send(&self, frames: &[Frame]) -> (usize, Option<io::Error>) {
        let count = frames.len().min(SEND_BATCH);
        // Not set beyond `count`: clearing them all would cost more than sending one frame's worth of entries.
        let mut parts = [const { MaybeUninit::<libc::iovec>::uninit() }; SEND_BATCH];
        let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; SEND_BATCH];
        for (at, frame) in frames[..count].iter().enumerate() {
            let bytes = frame.bytes();
            let part = parts[at].write(libc::iovec {
                // The kernel only reads through this pointer.
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            });
            // SAFETY: all-zero bytes are a valid mmsghdr: null pointers with zero lengths.
            let message = messages[at].write(unsafe { std::mem::zeroed() });
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: `count` messages are filled in; what they point to (`parts`, the frames) outlives the call.
        let sent = unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr().cast(),
                count as u32,
                libc::MSG_DONTWAIT,
            )
        };
        match usize::try_from(sent) {
            // A partial count hides the error; the next call for the rest brings it out.
            Ok(sent) => (sent, None),
            Err(_) => (0, Some(io::Error::last_os_error())),
        }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A slot that is out: readable and writable until it is dropped, which gives it back to the kernel.
#[derive(Debug)]
pub(crate) struct Slot {
    memory: Arc<Memory>,
    index: usize,
}

impl Slot {
    /// The bytes of the slot behind the kernel's headers. Offsets in a [`SlotHeader`] count from the slot's
    /// first byte, so they are [`SLOT_HEADERS`] larger.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: while the slot is out the kernel does not touch it, no second `Slot` for it exists
        // (`held`), and the mapping lives as long as `memory`. The status word in front is excluded, as the
        // ring may load it.
        unsafe {
            std::slice::from_raw_parts(
                self.memory.slot(self.index).add(SLOT_HEADERS),
                self.memory.slot_size - SLOT_HEADERS,
            )
        }
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` makes the borrow unique.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.memory.slot(self.index).add(SLOT_HEADERS),
                self.memory.slot_size - SLOT_HEADERS,
            )
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Release: what was read and written here is done before the kernel sees the slot as its own.
        self.memory
            .status(self.index)
            .store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.memory.held[self.index].store(false, Ordering::Release);
    }
}

/// The mapping, shared by the ring and the slots that are out. It may outlive the socket: the kernel keeps
/// mapped pages until they are unmapped.
#[derive(Debug)]
struct Memory {
    base: NonNull<u8>,
    len: usize,
    slot_size: usize,
    slots_per_block: usize,
    /// Which slots are out. The status word alone can't tell a slot that is out from one that was filled
    /// again.
    held: Box<[AtomicBool]>,
}

// SAFETY: the mapping is plain memory without thread affinity. Each slot's bytes are reached only through
// the one `Slot` that exists for it, status words and `held` flags only as atomics.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn map(
        socket: &OwnedFd,
        slot_size: usize,
        slots_per_block: usize,
        blocks: usize,
    ) -> io::Result<Self> {
        let len = BLOCK_SIZE as usize * blocks;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                socket,
                0,
            )
        }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let held = (0..slots_per_block * blocks)
            .map(|_| AtomicBool::new(false))
            .collect();
        Ok(Self {
            base,
            len,
            slot_size,
            slots_per_block,
            held,
        })
    }

    #[inline]
    fn slot(&self, index: usize) -> *mut u8 {
        debug_assert!(index < self.held.len());
        let offset = (index / self.slots_per_block) * BLOCK_SIZE as usize
            + (index % self.slots_per_block) * self.slot_size;
        // SAFETY: indexes come from `Ring::next`, which stays below the number of slots, so the slot lies
        // inside the mapping.
        unsafe { self.base.as_ptr().add(offset) }
    }

    #[inline]
    fn status(&self, index: usize) -> &AtomicU32 {
        // SAFETY: the status word is the first of the slot, aligned, inside the mapping, and used by both
        // sides only as an atomic after the ring was made.
        unsafe { AtomicU32::from_ptr(self.slot(index).cast()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length, and no slot is left to point into it.
        // Failure would mean a wrong range, which the line above excludes.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

fn receive_ring(socket: &OwnedFd, options: &RingOptions<'_>) -> io::Result<Memory> {
    let slots_per_block = BLOCK_SIZE / options.slot_size;
    let request = libc::tpacket_req {
        tp_block_size: BLOCK_SIZE,
        tp_block_nr: options.blocks,
        tp_frame_size: options.slot_size,
        tp_frame_nr: options.blocks * slots_per_block,
    };
    set_option(socket, libc::PACKET_RX_RING, &request, "PACKET_RX_RING")?;
    Memory::map(
        socket,
        options.slot_size as usize,
        slots_per_block as usize,
        options.blocks as usize,
    )
}

/// Keeps what this host sends from a packet socket.
#[cfg(feature = "pnet")]
pub(crate) fn ignore_outgoing(socket: &OwnedFd) -> io::Result<()> {
    set_option(
        socket,
        PACKET_IGNORE_OUTGOING,
        &1i32,
        "PACKET_IGNORE_OUTGOING",
    )
}

fn set_option<T>(socket: &OwnedFd, option: i32, value: &T, name: &'static str) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which outlives the call; callers pass the type that the
    // option is defined with.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if set < 0 { Err(failed(name)) } else { Ok(()) }
}

/// The last error, with the name of the call that failed.
fn failed(call: &'static str) -> io::Error {
    let error = io::Error::last_os_error();
    io::Error::new(error.kind(), format!("{call}: {error}"))
}

/// Bytes of a block of slots: what the kernel allocates at once.
pub(crate) const BLOCK_SIZE: u32 = 1 << 17;

/// Frames in one system call at most.
pub(crate) const SEND_BATCH: usize = 64;

/// Bytes that the kernel holds for a socket until the device has sent them.
const SEND_BUFFER: usize = 4 << 20;

/// Kernel headers at the start of a slot.
pub(crate) const SLOT_HEADERS: usize = HEADER_LEN + size_of::<libc::sockaddr_ll>();

/// Length of the ring header, rounded up to TPACKET_ALIGNMENT as the kernel does.
const HEADER_LEN: usize = size_of::<libc::tpacket2_hdr>().next_multiple_of(16);

/// Bytes that the kernel holds of frames that are too long for a slot; it doubles the number.
const RECEIVE_BUFFER: usize = 8 << 20;

const PACKET_COPY_THRESH: i32 = 7;
const PACKET_IGNORE_OUTGOING: i32 = 23;
const PACKET_FANOUT_DATA: i32 = 22;
const PACKET_FANOUT_CBPF: i32 = 6;

// The layouts that the code above relies on, as the kernel's ABI has them.
const _: () = {
    assert!(size_of::<libc::tpacket2_hdr>() == 32);
    assert!(offset_of!(libc::tpacket2_hdr, tp_status) == 0);
    assert!(offset_of!(libc::tpacket2_hdr, tp_len) == 4);
    assert!(offset_of!(libc::tpacket2_hdr, tp_snaplen) == 8);
    assert!(offset_of!(libc::tpacket2_hdr, tp_mac) == 12);
    assert!(offset_of!(libc::tpacket2_hdr, tp_vlan_tci) == 24);
    assert!(offset_of!(libc::tpacket2_hdr, tp_vlan_tpid) == 26);
    assert!(size_of::<libc::sockaddr_ll>() == 20);
    assert!(offset_of!(libc::sockaddr_ll, sll_pkttype) == 10);
    assert!(size_of::<libc::tpacket_req>() == 16);
    assert!(size_of::<libc::sock_filter>() == 8);
    assert!(size_of::<libc::tpacket_stats>() == 8);
};
