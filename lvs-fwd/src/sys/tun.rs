//! System calls of the TUN device.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// Opens a TUN device that carries IP packets behind a virtio header and vanishes with the descriptor. A
/// name with `%d` gets a free number. Returns the descriptor, which does not block, and the name.
pub(crate) fn open(name: &str) -> io::Result<(OwnedFd, String)> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let device = rustix::fs::open(
        "/dev/net/tun",
        OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // SAFETY: ifreq is plain data, for which all bits zero is a value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags =
        (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which is valid for the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) })?;
    // SAFETY: TUNSETOFFLOAD takes a number, no memory is involved.
    check(unsafe { libc::ioctl(device.as_raw_fd(), TUNSETOFFLOAD as _, OFFLOADS) })?;
    let name = request
        .ifr_name
        .iter()
        .take_while(|byte| **byte != 0)
        .map(|byte| *byte as u8)
        .collect();
    Ok((device, String::from_utf8(name).map_err(io::Error::other)?))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// `_IOW('T', 208, unsigned int)`
const TUNSETOFFLOAD: u32 = 0x4004_54d0;
/// The kernel may hand over partial checksums and TCP super-packets: CSUM, TSO4, TSO6, TSO_ECN.
const OFFLOADS: libc::c_ulong = 1 | 2 | 4 | 8;

const _: () = assert!(size_of::<libc::ifreq>() == 40 || size_of::<usize>() != 8);
