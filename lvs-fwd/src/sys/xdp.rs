//! AF_XDP sockets: memory that packets lie in, shared with the kernel in chunks, and the four rings of a socket through
//! which chunks change hands.
//!
//! A chunk is in one of three places: on the free list, lent to the kernel by one socket, or out as a [`Chunk`] value,
//! which may be read and written by whoever has it. Several sockets register the same memory, each for itself, so
//! that a chunk filled by one can be sent by another; which of them has lent it is noted there.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING,
    XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, XdpDesc, XdpDescOptions,
    XdpOptionsFlags, XdpRingFlags, XdpRingOffset, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

/// Memory for packets, in chunks of one size.
#[derive(Debug)]
pub(crate) struct Memory {
    base: NonNull<u8>,
    chunk: usize,
    count: usize,
    free: Mutex<Vec<u32>>,
}

// SAFETY: the mapping is plain memory without thread affinity. The bytes of a chunk are reached through the one `Chunk`
// that exists for it, and the free list through its lock.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// `count` chunks of `chunk` bytes, 2,048 or 4,096.
    pub(crate) fn new(chunk: usize, count: usize) -> io::Result<Arc<Self>> {
        assert!(chunk == 2048 || chunk == 4096, "chunks divide pages");
        let count = count.next_multiple_of(2).clamp(64, 1 << 20);
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                chunk * count,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Arc::new(Self {
            base,
            chunk,
            count,
            free: Mutex::new((0..count as u32).rev().collect()),
        }))
    }

    pub(crate) fn len(&self) -> usize {
        self.chunk * self.count
    }

    pub(crate) fn chunk_len(&self) -> usize {
        self.chunk
    }

    /// Chunks that nobody has.
    pub(crate) fn free(&self) -> usize {
        self.lock().len()
    }

    /// A chunk that nobody has.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Chunk> {
        let index = self.lock().pop()?;
        Some(Chunk {
            memory: Arc::clone(self),
            index,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u32>> {
        // A list of numbers is whole whatever happened elsewhere.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and no chunk is left to point into it. The kernel holds
        // the pages that it still uses by itself.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len()) };
    }
}

/// A chunk that is out: readable and writable until it is dropped, which makes it free, or sent.
#[derive(Debug)]
pub(crate) struct Chunk {
    memory: Arc<Memory>,
    index: u32,
}

impl Chunk {
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: see `start`; no second `Chunk` for it exists, and the kernel has it only while none does.
        unsafe { std::slice::from_raw_parts(self.start(), self.memory.chunk) }
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` makes the borrow unique.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.memory.chunk) }
    }

    /// Whether it lies in this memory.
    #[inline]
    pub(crate) fn is_of(&self, memory: &Arc<Memory>) -> bool {
        Arc::ptr_eq(&self.memory, memory)
    }

    #[inline]
    fn start(&self) -> *mut u8 {
        // SAFETY: indexes are below the number of chunks, so the chunk lies inside the mapping, which lives as long as
        // `memory`.
        unsafe {
            self.memory
                .base
                .as_ptr()
                .add(self.index as usize * self.memory.chunk)
        }
    }

    /// The chunk's number, which is the caller's to give back.
    fn into_index(self) -> u32 {
        let index = self.index;
        // The memory's count goes down; the free list must not learn of it.
        let mut this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never used again, so the field is dropped once.
        unsafe { std::ptr::drop_in_place(&raw mut this.memory) };
        index
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.memory.lock().push(self.index);
    }
}

/// A socket at one queue of an interface.
#[derive(Debug)]
pub(crate) struct Queue {
    // Closed before the chunks that the kernel had are given back: see `drop`.
    socket: Option<OwnedFd>,
    memory: Arc<Memory>,
    fill: Ring<u64>,
    completion: Ring<u64>,
    receive: Ring<XdpDesc>,
    transmit: Ring<XdpDesc>,
    /// Chunks that the kernel has by this socket.
    lent: Box<[bool]>,
    /// How many of them wait to be filled.
    filling: usize,
    target: usize,
    spare: Vec<u32>,
    is_zero_copy: bool,
}

impl Queue {
    /// Binds a socket to a queue. `slots` frames may wait in it, of which the kernel is given as many chunks.
    pub(crate) fn open(
        ifindex: u32,
        queue: u32,
        memory: &Arc<Memory>,
        slots: u32,
    ) -> Result<Self, (&'static str, io::Error)> {
        let failed = |call| move |error: Errno| (call, io::Error::from(error));
        let socket = rustix::net::socket_with(
            AddressFamily::XDP,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(failed("socket(AF_XDP)"))?;
        let registration = XdpUmemReg {
            addr: memory.base.as_ptr() as u64,
            len: memory.len() as u64,
            chunk_size: memory.chunk as u32,
            headroom: 0,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        };
        sockopt::set_xdp_umem_reg(&socket, registration).map_err(failed(REGISTER))?;
        let size = slots.clamp(64, 1 << 15).next_power_of_two();
        sockopt::set_xdp_umem_fill_ring_size(&socket, size).map_err(failed("XDP_FILL_RING"))?;
        sockopt::set_xdp_umem_completion_ring_size(&socket, size)
            .map_err(failed("XDP_COMPLETION_RING"))?;
        sockopt::set_xdp_rx_ring_size(&socket, size).map_err(failed("XDP_RX_RING"))?;
        sockopt::set_xdp_tx_ring_size(&socket, size).map_err(failed("XDP_TX_RING"))?;
        let offsets = sockopt::xdp_mmap_offsets(&socket).map_err(failed("XDP_MMAP_OFFSETS"))?;
        let unmapped = |error| ("mmap(AF_XDP)", error);
        let fill =
            Ring::map(&socket, &offsets.fr, XDP_UMEM_PGOFF_FILL_RING, size).map_err(unmapped)?;
        let completion = Ring::map(&socket, &offsets.cr, XDP_UMEM_PGOFF_COMPLETION_RING, size)
            .map_err(unmapped)?;
        let receive = Ring::map(&socket, &offsets.rx, XDP_PGOFF_RX_RING, size).map_err(unmapped)?;
        let transmit =
            Ring::map(&socket, &offsets.tx, XDP_PGOFF_TX_RING, size).map_err(unmapped)?;
        // Without a wish for either the kernel takes what the driver can: no copy, or one.
        let address = SocketAddrXdp::new(SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP, ifindex, queue);
        rustix::net::bind(&socket, &address).map_err(failed("bind(AF_XDP)"))?;
        let is_zero_copy = sockopt::xdp_options(&socket)
            .is_ok_and(|options| options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY));
        let mut this = Self {
            socket: Some(socket),
            fill,
            completion,
            receive,
            transmit,
            lent: vec![false; memory.count].into(),
            filling: 0,
            target: size as usize,
            spare: Vec::new(),
            memory: Arc::clone(memory),
            is_zero_copy,
        };
        this.refill();
        Ok(this)
    }

    pub(crate) fn is_zero_copy(&self) -> bool {
        self.is_zero_copy
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Takes up to `limit` frames: chunk, first byte in it, and length. Returns how many there were.
    pub(crate) fn receive(
        &mut self,
        limit: usize,
        mut pass: impl FnMut(Chunk, usize, usize),
    ) -> usize {
        let available = self.receive.available().min(limit);
        for _ in 0..available {
            let descriptor = self.receive.pop();
            self.filling = self.filling.saturating_sub(1);
            if let Some(chunk) = self.take_back(descriptor.addr) {
                let start = descriptor.addr as usize % self.memory.chunk;
                pass(chunk, start, descriptor.len as usize);
            }
        }
        if available > 0 {
            self.receive.release();
        }
        if self.filling + REFILL.min(self.target / 8) <= self.target {
            self.refill();
        }
        available
    }

    /// Gives the kernel chunks to fill, as far as there are free ones.
    fn refill(&mut self) {
        let wanted = self.target.saturating_sub(self.filling);
        let mut free = self.memory.lock();
        // Some are for sending.
        let count = wanted
            .min(free.len().saturating_sub(self.memory.count / RESERVE))
            .min(self.fill.room());
        let from = free.len() - count;
        self.spare.extend(free.drain(from..));
        drop(free);
        for index in self.spare.drain(..) {
            self.lent[index as usize] = true;
            self.fill.push(u64::from(index) * self.memory.chunk as u64);
        }
        if count > 0 {
            self.filling += count;
            self.fill.submit();
        }
        if self.fill.needs_wakeup() {
            // Also what makes a driver look for chunks that came late.
            let _ = rustix::net::recv(self.as_fd(), &mut [0u8; 0][..], RecvFlags::DONTWAIT);
        }
    }

    /// Whether another frame fits on the send ring.
    pub(crate) fn has_room(&mut self) -> bool {
        self.transmit.room() > 0
    }

    /// Puts a frame of the queue's own memory on the send ring, where there must be room. Nothing is sent before
    /// [`kick`](Self::kick).
    pub(crate) fn push(&mut self, chunk: Chunk, start: usize, len: usize) {
        assert!(
            chunk.is_of(&self.memory) && start + len <= self.memory.chunk && self.has_room(),
            "the caller has looked"
        );
        let index = chunk.into_index();
        self.lent[index as usize] = true;
        self.transmit.push(XdpDesc {
            addr: u64::from(index) * self.memory.chunk as u64 + start as u64,
            len: len as u32,
            options: XdpDescOptions::empty(),
        });
    }

    /// Lets the kernel send what is on the ring, as far as it does without waiting.
    pub(crate) fn kick(&self) -> io::Result<()> {
        self.transmit.submit();
        let mut waiting = self.transmit.waiting();
        while waiting > 0 && (self.transmit.needs_wakeup() || !self.is_zero_copy) {
            let outcome = rustix::net::send(self.as_fd(), &[], SendFlags::DONTWAIT);
            let before = waiting;
            waiting = self.transmit.waiting();
            match outcome {
                Ok(_) if self.is_zero_copy => break,
                Ok(_) => {}
                // A round of the kernel's is over, and there is more; or the device is full.
                Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if waiting == before {
                break;
            }
        }
        Ok(())
    }

    /// Takes back the chunks of frames that were sent. Returns how many.
    pub(crate) fn reap(&mut self) -> usize {
        let available = self.completion.available();
        for _ in 0..available {
            let addr = self.completion.pop();
            let index = (addr as usize / self.memory.chunk) as u32;
            if let Some(lent) = self.lent.get_mut(index as usize)
                && std::mem::take(lent)
            {
                self.spare.push(index);
            }
        }
        if available > 0 {
            self.completion.release();
            self.memory.lock().append(&mut self.spare);
        }
        available
    }

    /// Frames on the send ring that the kernel has not taken yet.
    pub(crate) fn waiting(&self) -> usize {
        self.transmit.waiting()
    }

    /// Frames that the kernel dropped, since the socket was opened, because it had no room for them.
    pub(crate) fn overruns(&self) -> u64 {
        sockopt::xdp_statistics(self.as_fd()).map_or(0, |statistics| {
            statistics.rx_dropped
                + statistics.rx_ring_full.unwrap_or(0)
                + statistics.rx_fill_ring_empty_descs.unwrap_or(0)
        })
    }

    /// Reports and forgets an error that happened at the socket.
    pub(crate) fn take_error(&self) -> io::Result<()> {
        Ok(sockopt::socket_error(self.as_fd())??)
    }

    fn take_back(&mut self, addr: u64) -> Option<Chunk> {
        let index = (addr as usize / self.memory.chunk) as u32;
        let lent = self.lent.get_mut(index as usize)?;
        std::mem::take(lent).then(|| Chunk {
            memory: Arc::clone(&self.memory),
            index,
        })
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket
            .as_ref()
            .expect("it is open until it is dropped")
            .as_fd()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // Closing waits until the kernel's receive side has let go of the socket.
        drop(self.socket.take());
        if self.is_zero_copy {
            // But not for the device, which may go on writing for a while: these chunks are lost to the others.
            return;
        }
        let lent = self.lent.iter().enumerate().filter(|(_, lent)| **lent);
        self.memory
            .lock()
            .extend(lent.map(|(index, _)| index as u32));
    }
}

/// One of a socket's rings. The process produces on fill and send rings, and consumes on the others.
#[derive(Debug)]
struct Ring<T> {
    base: NonNull<u8>,
    len: usize,
    producer: NonNull<u32>,
    consumer: NonNull<u32>,
    flags: Option<NonNull<u32>>,
    entries: NonNull<T>,
    size: u32,
    /// Up to where this side has come; the other side sees it after `submit` or `release`.
    here: u32,
    /// Up to where the other side had come when last looked at.
    there: u32,
}

// SAFETY: the mapping has no thread affinity, and each ring has one owner.
unsafe impl<T> Send for Ring<T> {}

impl<T: Copy> Ring<T> {
    fn map(socket: &OwnedFd, offset: &XdpRingOffset, at: u64, size: u32) -> io::Result<Self> {
        let len = offset.desc as usize + size as usize * size_of::<T>();
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
                socket,
                at,
            )
        }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the kernel's offsets lie inside the mapping.
        let at = |offset: u64| unsafe { base.add(offset as usize) };
        Ok(Self {
            base,
            len,
            producer: at(offset.producer).cast(),
            consumer: at(offset.consumer).cast(),
            flags: offset.flags.map(|offset| at(offset).cast()),
            entries: at(offset.desc).cast(),
            size,
            here: 0,
            there: 0,
        })
    }

    /// Entries that this side may consume.
    #[inline]
    fn available(&mut self) -> usize {
        if self.there == self.here {
            // Acquire pairs with the kernel's release after it has written the entries.
            self.there = word(self.producer).load(Ordering::Acquire);
        }
        self.there.wrapping_sub(self.here) as usize
    }

    /// Consumes an entry. There must be one available.
    #[inline]
    fn pop(&mut self) -> T {
        // SAFETY: the mask keeps the place within the ring, and the kernel does not write to an entry before it is
        // released.
        let entry = unsafe { self.entry(self.here).read() };
        self.here = self.here.wrapping_add(1);
        entry
    }

    /// The kernel may use the consumed entries again.
    #[inline]
    fn release(&self) {
        word(self.consumer).store(self.here, Ordering::Release);
    }

    /// Entries that this side may produce.
    #[inline]
    fn room(&mut self) -> usize {
        if self.here.wrapping_sub(self.there) >= self.size {
            self.there = word(self.consumer).load(Ordering::Acquire);
        }
        self.size.saturating_sub(self.here.wrapping_sub(self.there)) as usize
    }

    /// Produces an entry. There must be room.
    #[inline]
    fn push(&mut self, entry: T) {
        // SAFETY: the mask keeps the place within the ring, and the kernel does not read the entry before it is submitted.
        unsafe { self.entry(self.here).write(entry) };
        self.here = self.here.wrapping_add(1);
    }

    /// The kernel sees the produced entries.
    #[inline]
    fn submit(&self) {
        word(self.producer).store(self.here, Ordering::Release);
    }

    /// Produced entries that the kernel has not consumed.
    #[inline]
    fn waiting(&self) -> usize {
        self.here
            .wrapping_sub(word(self.consumer).load(Ordering::Acquire)) as usize
    }

    #[inline]
    fn needs_wakeup(&self) -> bool {
        self.flags.is_some_and(|flags| {
            word(flags).load(Ordering::Relaxed) & XdpRingFlags::XDP_RING_NEED_WAKEUP.bits() != 0
        })
    }

    #[inline]
    fn entry(&self, number: u32) -> *mut T {
        let place = (number & (self.size - 1)) as usize;
        // SAFETY: the size is a power of two, so the place is below it and inside the mapping.
        unsafe { self.entries.as_ptr().add(place) }
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length, and nothing points into it any more.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// A word that both sides use.
#[inline]
fn word<'a>(at: NonNull<u32>) -> &'a AtomicU32 {
    // SAFETY: the words of a ring are aligned, inside its mapping, and used by both sides as atomics only. The callers'
    // borrow of the ring keeps the mapping longer than the reference is used.
    unsafe { AtomicU32::from_ptr(at.as_ptr()) }
}

/// The call that fails when a process may not lock so much memory.
pub(crate) const REGISTER: &str = "XDP_UMEM_REG";

/// The part of the memory that is kept for sending, as a divisor.
const RESERVE: usize = 4;
/// Chunks are given to the kernel so many at a time.
const REFILL: usize = 32;

const _: () = assert!(size_of::<XdpDesc>() == 16);
