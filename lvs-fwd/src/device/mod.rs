//! Where frames come from and go to.
//!
//! A [`Device`] is a queue of one worker at one interface: the worker receives a batch, queues what it sends,
//! and flushes once per batch. The engine knows no device; [`runner`](crate::runner) ties them together.
//!
//! * [`ring`] is an AF_PACKET ring, the device that works everywhere Linux runs.
//! * `xdp` (feature `af-xdp`) is an AF_XDP socket behind a program that takes claimed frames from the driver.
//! * `pnet` (feature `pnet`) is the portable packet socket of `pnet_datalink`.
//! * [`raw`] are raw IP sockets, for what the system is to route.
//! * [`memory`] is a pair of queues for tests and examples.
//! * [`pcap`] reads frames from a capture and writes what is sent to another one.
//! * [`trace`] and [`fault`] stand around another device: one logs its frames, the other loses and damages some.
//! * The TUN device to the host is a `Device` too; its frames are IP packets without a link header.

pub mod fault;
mod finish;
pub mod memory;
pub mod pcap;
#[cfg(feature = "pnet")]
pub mod pnet;
pub mod raw;
pub mod ring;
pub mod trace;
pub mod virtio;
#[cfg(feature = "af-xdp")]
pub mod xdp;

use std::fmt::Debug;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use crate::frame::Frame;

/// One worker's queue at one interface.
pub trait Device: Debug + Send {
    /// What the device can do; the same for as long as it is open.
    fn capabilities(&self) -> Capabilities;

    /// Appends up to `limit` received frames, without waiting. Returns how many.
    ///
    /// # Errors
    ///
    /// What the system reports, a device that went away included. Frames that are damaged or do not fit are
    /// no errors: they are dropped and counted.
    fn receive(&mut self, frames: &mut Vec<Frame>, limit: usize) -> io::Result<usize>;

    /// Queues a frame for sending.
    ///
    /// The device finishes what it can't ask the hardware for: it completes partial checksums if it carries
    /// no metadata. The queue is bounded; beyond it the frame is dropped and counted.
    fn transmit(&mut self, frame: Frame);

    /// Sends what is queued, as far as the device takes it without waiting. The rest stays queued; see
    /// [`pending`](Self::pending).
    ///
    /// # Errors
    ///
    /// What the system reports about the device. A refused frame is counted, not reported.
    fn flush(&mut self) -> io::Result<()>;

    /// Frames queued that a flush has not been able to send. While there are any, wait for the descriptor to
    /// become writable and flush again.
    fn pending(&self) -> usize;

    /// What to wait for with `poll(2)`. A device without one is polled by its user.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Tells the device which destinations are virtual addresses, so that it can bring both directions of a
    /// flow to the same worker. Only a hint: a frame at the wrong worker is handed over.
    ///
    /// # Errors
    ///
    /// What the system reports; the old steering stays.
    fn set_steering(&mut self, vips: &[IpAddr]) -> io::Result<()> {
        let _ = vips;
        Ok(())
    }

    /// What happened so far.
    fn counters(&mut self) -> DeviceCounters;
}

impl<D: Device + ?Sized> Device for Box<D> {
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    fn receive(&mut self, frames: &mut Vec<Frame>, limit: usize) -> io::Result<usize> {
        (**self).receive(frames, limit)
    }

    fn transmit(&mut self, frame: Frame) {
        (**self).transmit(frame);
    }

    fn flush(&mut self) -> io::Result<()> {
        (**self).flush()
    }

    fn pending(&self) -> usize {
        (**self).pending()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        (**self).descriptor()
    }

    fn set_steering(&mut self, vips: &[IpAddr]) -> io::Result<()> {
        (**self).set_steering(vips)
    }

    fn counters(&mut self) -> DeviceCounters {
        (**self).counters()
    }
}

/// What a device can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Frames begin with an Ethernet header, so that their sender chooses the next hop. Otherwise they begin with an IP
    /// header and the system routes them: direct routing is not possible, because the destination stays the
    /// director's own.
    pub link_header: bool,
    /// Unfinished checksums and super-packets are received and sent as such. A device without finishes and cuts
    /// them before it sends, and does not receive super-packets.
    pub offloads: bool,
    /// What is received is taken from the host; otherwise it is a copy, and somebody else has to take away the host's.
    pub exclusive: bool,
    /// [`set_steering`](Device::set_steering) brings a flow's frames to its owner. Otherwise they come as they come.
    pub steering: bool,
    /// The longest frame in bytes that can be sent, super-packets included where they can be.
    pub longest: usize,
}

/// What happened at a device since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceCounters {
    /// Frames received.
    pub received: u64,
    /// Frames sent.
    pub transmitted: u64,
    /// Frames lost because the ring was full.
    pub overruns: u64,
    /// Frames dropped because they were longer than a slot.
    pub truncated: u64,
    /// Frames dropped because their offload metadata could not be understood.
    pub malformed: u64,
    /// Frames refused because they exceed what the device sends.
    pub too_long: u64,
    /// Frames dropped because the device or its queue was full.
    pub no_buffers: u64,
    /// Frames refused for any other reason.
    pub refused: u64,
}

impl DeviceCounters {
    /// Counts a frame that the system did not take; the next may be taken.
    pub(crate) fn count_refusal(&mut self, error: &io::Error) {
        match error.raw_os_error() {
            Some(libc::EMSGSIZE) => self.too_long += 1,
            // The queueing discipline or the device had no room for it.
            Some(libc::ENOBUFS) => self.no_buffers += 1,
            // No route, for one.
            _ => self.refused += 1,
        }
    }
}

/// Whether no frame will be taken, as far as can be told now: the interface is down or was removed.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV | libc::EBADFD)
    )
}
