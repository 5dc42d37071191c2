//! The system calls that need `unsafe`: sending prepared frames in batches.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Sends the same frames over and over, a batch for each system call.
pub(crate) struct Sender {
    socket: OwnedFd,
    /// What `messages` points to; never touched after it was made.
    _frames: Vec<Box<[u8]>>,
    _parts: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
    next: usize,
}

// SAFETY: all pointers lead to what the value itself owns.
unsafe impl Send for Sender {}

impl Sender {
    /// For an interface of the calling thread's network namespace. The frames have a virtio header in front.
    pub(crate) fn open(ifindex: u32, frames: Vec<Box<[u8]>>) -> io::Result<Self> {
        // Protocol 0: the socket receives nothing.
        // SAFETY: no memory is involved.
        let socket =
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just returned and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let on = 1i32;
        // SAFETY: the pointer and length describe `on`, which outlives the call.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_VNET_HDR,
                (&raw const on).cast(),
                size_of::<i32>() as libc::socklen_t,
            )
        };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: all-zero bytes are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = i32::try_from(ifindex).map_err(io::Error::other)?;
        // SAFETY: the pointer and length describe `address`, which outlives the call.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut parts: Vec<libc::iovec> = frames
            .iter()
            // The kernel only reads through this pointer.
            .map(|frame| libc::iovec {
                iov_base: frame.as_ptr().cast_mut().cast(),
                iov_len: frame.len(),
            })
            .collect();
        let messages = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: all-zero bytes are a valid mmsghdr: null pointers with zero lengths.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = part;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        Ok(Self {
            socket,
            _frames: frames,
            _parts: parts,
            messages,
            next: 0,
        })
    }

    /// Sends the next batch. What a full queue refuses is lost.
    pub(crate) fn send(&mut self) {
        let end = (self.next + BATCH).min(self.messages.len());
        let batch = &mut self.messages[self.next..end];
        // SAFETY: the messages, and the frames and parts that they point to, live as long as `self`, and moving the
        // vectors that own them moves none of them.
        let sent = unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                batch.as_mut_ptr(),
                batch.len() as u32,
                0,
            )
        };
        self.next += usize::try_from(sent).unwrap_or(1).max(1);
        if self.next >= self.messages.len() {
            self.next = 0;
        }
    }
}

const BATCH: usize = 1;
