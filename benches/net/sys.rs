//! The system calls that need `unsafe`: sending prepared frames in batches, and a program that redirects frames.
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

/// A program at an interface, for as long as it lives.
pub(crate) struct Redirect {
    _link: OwnedFd,
}

impl Redirect {
    /// Sends IPv4 frames that have this address at this place from one interface out of another, with these twelve bytes for a
    /// link header. In the calling thread's network namespace.
    pub(crate) fn attach(
        from: u32,
        to: u32,
        (place, addr): (i16, [u8; 4]),
        link: [u8; 12],
    ) -> io::Result<Self> {
        let word =
            |at: usize| i32::from_ne_bytes([link[at], link[at + 1], link[at + 2], link[at + 3]]);
        let half = i32::from(u16::from_ne_bytes([8, 0]));
        // Code, source and destination register, offset, immediate.
        let code: [(u8, u8, i16, i32); 18] = [
            (0x61, 0x17, 0, 0),                        // r7 = frame
            (0x61, 0x18, 4, 0),                        // r8 = its end
            (0xbf, 0x72, 0, 0),                        // r2 = r7
            (0x07, 0x02, 0, 34),                       // r2 += 34
            (0x2d, 0x82, 9, 0),                        // if r2 > r8 pass
            (0x69, 0x71, 12, 0),                       // r1 = ethertype
            (0x56, 0x01, 7, half),                     // if r1 != IPv4 pass
            (0x61, 0x71, place, 0),                    // r1 = address
            (0x56, 0x01, 5, i32::from_ne_bytes(addr)), // if r1 != addr pass
            (0x62, 0x07, 0, word(0)),
            (0x62, 0x07, 4, word(4)),
            (0x62, 0x07, 8, word(8)),
            (0xb7, 0x01, 0, to as i32), // r1 = interface
            (0x05, 0x00, 2, 0),         // goto redirect
            (0xb7, 0x00, 0, 2),         // pass: r0 = XDP_PASS
            (0x95, 0x00, 0, 0),         // exit
            (0xb7, 0x02, 0, 0),         // redirect: r2 = no flags
            (0x85, 0x00, 0, 23),        // r0 = bpf_redirect(r1, r2)
        ];
        let mut program = Vec::new();
        for (operation, registers, offset, immediate) in code.into_iter().chain([(0x95, 0, 0, 0)]) {
            program.extend_from_slice(&[operation, registers]);
            program.extend_from_slice(&offset.to_ne_bytes());
            program.extend_from_slice(&immediate.to_ne_bytes());
        }
        let license = b"MIT OR Apache-2.0\0";
        let mut load = [0u64; 9];
        // Kind XDP and the number of instructions, then where they and the licence are; as linux/bpf.h has it.
        load[0] = 6 | (program.len() as u64 / 8) << 32;
        load[1] = program.as_ptr() as u64;
        load[2] = license.as_ptr() as u64;
        load[8] = 37 << 32;
        let program = bpf(5, &load)?;
        // Attached in the driver.
        let attach = [
            program.as_raw_fd() as u64 | u64::from(from) << 32,
            37 | (1 << 2) << 32,
        ];
        Ok(Self {
            _link: bpf(28, &attach)?,
        })
    }
}

fn bpf<const N: usize>(command: i32, attributes: &[u64; N]) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are the beginning of what the command is defined with, and what they point to lives in the
    // caller.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(attributes),
        )
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just returned and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}
