//! A device around another one, which tells what passes.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use super::{Capabilities, Device, DeviceCounters};
use crate::frame::{ChecksumState, Frame};
use crate::wire::{Headers, ethernet, protocol};

/// One line for each frame that is received, and for each that is given to be sent.
///
/// ```text
/// < 74 203.0.113.5:50000 > 192.0.2.10:80 TCP [S]
/// > 74 203.0.113.5:50000 > 10.0.0.11:8080 TCP [S] unfinished
/// < 42 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff 0x0806
/// ```
pub struct Trace<D, F> {
    device: D,
    tell: F,
}

impl<D: Device, F: FnMut(fmt::Arguments<'_>) + Send> Trace<D, F> {
    /// Stands around a device. The function gets the lines.
    pub fn new(device: D, tell: F) -> Self {
        Self { device, tell }
    }
}

impl<D: Device, F: FnMut(fmt::Arguments<'_>) + Send> Device for Trace<D, F> {
    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn receive(&mut self, frames: &mut Vec<Frame>, limit: usize) -> io::Result<usize> {
        let before = frames.len();
        let outcome = self.device.receive(frames, limit);
        let link_header = self.device.capabilities().link_header;
        for frame in &frames[before..] {
            (self.tell)(format_args!("< {}", Line { frame, link_header }));
        }
        outcome
    }

    fn transmit(&mut self, frame: Frame) {
        let line = Line {
            frame: &frame,
            link_header: self.device.capabilities().link_header,
        };
        (self.tell)(format_args!("> {line}"));
        self.device.transmit(frame);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.device.flush()
    }

    fn pending(&self) -> usize {
        self.device.pending()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.device.descriptor()
    }

    fn set_steering(&mut self, vips: &[IpAddr]) -> io::Result<()> {
        self.device.set_steering(vips)
    }

    fn counters(&mut self) -> DeviceCounters {
        self.device.counters()
    }
}

impl<D: fmt::Debug, F> fmt::Debug for Trace<D, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

struct Line<'a> {
    frame: &'a Frame,
    link_header: bool,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.frame.bytes();
        write!(f, "{}", bytes.len())?;
        if !self.link_header {
            let version = bytes.first().map_or(0, |byte| byte >> 4);
            write!(f, " IPv{version} packet")?;
        } else if let Ok(headers) = Headers::parse(bytes) {
            write!(f, " {} > {}", headers.source, headers.destination)?;
            match headers.protocol {
                protocol::TCP => {
                    let flags = headers.tcp_flags(bytes);
                    let letters = FLAGS.into_iter().enumerate();
                    let set = letters.filter(|(bit, _)| flags >> bit & 1 != 0);
                    let set: String = set.map(|(_, letter)| letter).collect();
                    write!(f, " TCP [{set}]")?;
                }
                protocol::UDP => write!(f, " UDP")?,
                number => write!(f, " protocol {number}")?,
            }
        } else if let Ok(link) = ethernet::Packet::new_checked(bytes) {
            write!(f, " {} > {}", Mac(link.source()), Mac(link.destination()))?;
            write!(f, " {:#06x}", link.ethertype())?;
        }
        if matches!(self.frame.meta.checksum, ChecksumState::Partial { .. }) {
            write!(f, " unfinished")?;
        }
        if let Some(gso) = self.frame.meta.gso {
            write!(f, " segments of {}", gso.size)?;
        }
        Ok(())
    }
}

struct Mac([u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// From the lowest bit on, as tcpdump shows them.
const FLAGS: [char; 8] = ['F', 'S', 'R', 'P', '.', 'U', 'E', 'W'];

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::device::memory::Memory;

    #[test]
    fn a_line_says_what_passed() {
        let (memory, wire) = Memory::new(8);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&lines);
        let mut device = Trace::new(memory, move |line: fmt::Arguments<'_>| {
            log.lock().unwrap().push(line.to_string());
        });
        let mut bytes = Vec::new();
        etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([203, 0, 113, 5], [192, 0, 2, 10], 64)
            .tcp(50000, 80, 1, 2)
            .syn()
            .write(&mut bytes, b"")
            .unwrap();
        wire.send(Frame::from_bytes(&bytes)).unwrap();
        let mut frames = Vec::new();
        device.receive(&mut frames, 8).unwrap();
        let mut frame = frames.remove(0);
        frame.bytes_mut()[12..14].copy_from_slice(&[8, 6]);
        device.transmit(frame);
        assert_eq!(
            lines.lock().unwrap()[..],
            [
                "< 54 203.0.113.5:50000 > 192.0.2.10:80 TCP [S]",
                "> 54 02:02:02:02:02:02 > 04:04:04:04:04:04 0x0806"
            ]
        );
    }
}
