//! Maps, programs and links of the kernel's BPF, by plain `bpf(2)` calls.
//!
//! A program or map lives as long as somebody holds its descriptor, and a program stays attached as long as its link's is
//! held: everything is gone when the process is.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// One instruction, as the kernel reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    pub(crate) code: u8,
    /// Destination register in the low half, source register in the high one.
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

/// What a map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MapKind {
    /// Any keys; takes memory for what is in it only.
    Hash,
    /// As this, but found by the longest prefix: keys begin with the number of bits that count, four bytes.
    Prefixes,
    /// Numbers, and a value of its own for every processor.
    PerProcessor,
    /// Numbers of receive queues, to AF_XDP sockets.
    Sockets,
}

/// A map with keys and values of fixed sizes.
#[derive(Debug)]
pub(crate) struct Map {
    descriptor: OwnedFd,
    key: usize,
    value: usize,
    /// Values at each place.
    processors: usize,
}

impl Map {
    pub(crate) fn create(
        kind: MapKind,
        key: usize,
        value: usize,
        entries: u32,
    ) -> io::Result<Self> {
        let (number, flags) = match kind {
            MapKind::Hash => (1, NO_PREALLOCATION),
            MapKind::Prefixes => (11, NO_PREALLOCATION),
            MapKind::PerProcessor => (6, 0),
            MapKind::Sockets => (17, 0),
        };
        let attributes = CreateMap {
            kind: number,
            key_size: key as u32,
            value_size: value as u32,
            entries,
            flags,
        };
        Ok(Self {
            descriptor: new_descriptor(call(MAP_CREATE, &attributes)?),
            key,
            value,
            processors: match kind {
                MapKind::PerProcessor => possible_processors()?,
                _ => 1,
            },
        })
    }

    /// Adds an entry, or replaces the value of one.
    pub(crate) fn insert(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        assert!(key.len() == self.key && value.len() == self.value);
        let attributes = self.element(key, value.as_ptr());
        call(MAP_UPDATE, &attributes).map(drop)
    }

    /// Removes an entry; one that is not there is none of the caller's worries.
    pub(crate) fn remove(&self, key: &[u8]) -> io::Result<()> {
        assert!(key.len() == self.key);
        let attributes = self.element(key, std::ptr::null());
        match call(MAP_DELETE, &attributes) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// The sum over all processors of the number that a [`MapKind::PerProcessor`] map has at this place.
    pub(crate) fn total(&self, place: u32) -> io::Result<u64> {
        assert!(self.key == 4 && self.value == 8);
        let mut values = vec![0u64; self.processors];
        let key = place.to_ne_bytes();
        let attributes = Element {
            value: values.as_mut_ptr() as u64,
            ..self.element(&key, std::ptr::null())
        };
        call(MAP_LOOKUP, &attributes)?;
        Ok(values.iter().sum())
    }

    fn element(&self, key: &[u8], value: *const u8) -> Element {
        Element {
            map: self.descriptor.as_raw_fd() as u32,
            _gap: 0,
            key: key.as_ptr() as u64,
            value: value as u64,
            flags: 0,
        }
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

/// Loads an XDP program. What the kernel's verifier has to say about a refused one is in the error.
pub(crate) fn load_xdp(code: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = |log: &mut [u8]| LoadProgram {
        kind: PROGRAM_XDP,
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log: if log.is_empty() {
            0
        } else {
            log.as_mut_ptr() as u64
        },
        kernel_version: 0,
        flags: 0,
        name: *b"lvs_steer\0\0\0\0\0\0\0",
        ifindex: 0,
        attach_kind: ATTACH_XDP,
    };
    let refused = match call(PROGRAM_LOAD, &attributes(&mut [])) {
        Ok(descriptor) => return Ok(new_descriptor(descriptor)),
        Err(error) => error,
    };
    if refused.raw_os_error() == Some(libc::EPERM) {
        return Err(refused);
    }
    let mut log = vec![0; 1 << 16];
    let _ = call(PROGRAM_LOAD, &attributes(&mut log));
    let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(&log[..end]);
    let last: Vec<&str> = text.trim_end().lines().rev().take(6).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(io::Error::new(
        refused.kind(),
        format!("{refused}: {}", last.join(" | ")),
    ))
}

/// How a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attachment {
    /// In the driver, before the kernel makes a packet of its own of a frame.
    Driver,
    /// Behind it; works with every driver.
    Generic,
}

/// Attaches a program to the receive side of an interface, for as long as the descriptor is held.
pub(crate) fn attach(
    program: BorrowedFd<'_>,
    ifindex: u32,
    how: Attachment,
) -> io::Result<OwnedFd> {
    let attributes = CreateLink {
        program: program.as_raw_fd() as u32,
        ifindex,
        attach_kind: ATTACH_XDP,
        flags: match how {
            Attachment::Generic => 1 << 1,
            Attachment::Driver => 1 << 2,
        },
    };
    call(LINK_CREATE, &attributes).map(new_descriptor)
}

/// Processors that there may ever be: each has its value in a map.
fn possible_processors() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit([',', '-']).next().unwrap_or_default();
    let last: usize = last.parse().map_err(io::Error::other)?;
    Ok(last + 1)
}

/// The kernel's answer as it is: callers look at the number.
fn call<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    call_at(command, std::ptr::from_ref(attributes))
}

fn call_at<T>(command: libc::c_int, attributes: *const T) -> io::Result<libc::c_int> {
    // SAFETY: `attributes` is the part of `bpf_attr` that the command is defined with, of the length given; pointers
    // in it lead to memory of the sizes stated in it, which the callers keep alive, and mutable where the kernel writes.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as libc::c_int)
}

fn new_descriptor(descriptor: libc::c_int) -> OwnedFd {
    // SAFETY: the kernel has just returned it for this process, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

#[repr(C)]
struct CreateMap {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
}

#[repr(C)]
struct Element {
    map: u32,
    _gap: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct LoadProgram {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_kind: u32,
}

#[repr(C)]
struct CreateLink {
    program: u32,
    ifindex: u32,
    attach_kind: u32,
    flags: u32,
}

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP: libc::c_int = 1;
const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;
const PROGRAM_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const NO_PREALLOCATION: u32 = 1;
const PROGRAM_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// The program calls nothing that is kept for GPL programs.
const LICENSE: &[u8] = b"MIT OR Apache-2.0\0";

const _: () = {
    assert!(size_of::<Instruction>() == 8);
    assert!(size_of::<Element>() == 32);
    assert!(size_of::<LoadProgram>() == 72);
};

/// What a program answers for a frame.
#[cfg(test)]
pub(crate) fn run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<u32> {
    #[repr(C)]
    struct TestRun {
        program: u32,
        answer: u32,
        length: u32,
        _out_length: u32,
        data: u64,
        _out: u64,
        _repeat: u32,
        _duration: u32,
    }
    let mut attributes = TestRun {
        program: program.as_raw_fd() as u32,
        answer: 0,
        length: frame.len() as u32,
        _out_length: 0,
        data: frame.as_ptr() as u64,
        _out: 0,
        _repeat: 1,
        _duration: 0,
    };
    // The kernel writes the answer into it.
    call_at(10, &raw mut attributes)?;
    Ok(attributes.answer)
}
