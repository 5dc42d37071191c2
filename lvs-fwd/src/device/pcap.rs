//! Captures as a device: what was recorded is received, what is sent is recorded.
//!
//! The format is the classic one of libpcap (`tcpdump -w`), with times in micro- or nanoseconds, in either byte order, with
//! Ethernet frames or IP packets. So a capture from production can be replayed through an engine, and the result looked at
//! with the usual tools; the crate's example `replay` does.

use std::io::{self, Read, Write};
use std::time::Duration;

use super::{Capabilities, Device, DeviceCounters};
use crate::frame::{Frame, Gso};

/// A device over a capture that is read and one that is written.
#[derive(Debug)]
pub struct Pcap<R, W> {
    reader: Reader<R>,
    writer: Writer<W>,
    waiting: Vec<Frame>,
    counters: DeviceCounters,
}

impl<R: Read, W: Write> Pcap<R, W> {
    /// Both captures with the same link type. What is sent gets the time of the frame that was received last.
    ///
    /// # Errors
    ///
    /// What the reader or writer says, or `InvalidData` if this is no capture of a known kind.
    pub fn new(reader: R, writer: W) -> io::Result<Self> {
        let reader = Reader::new(reader)?;
        let writer = Writer::new(writer, reader.has_link_header())?;
        Ok(Self {
            reader,
            writer,
            waiting: Vec::new(),
            counters: DeviceCounters::default(),
        })
    }

    /// When the frame that was received last had been captured, since 1970.
    pub fn time(&self) -> Duration {
        self.reader.time
    }
}

impl<R: Read + Send + std::fmt::Debug, W: Write + Send + std::fmt::Debug> Device for Pcap<R, W> {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            link_header: self.reader.has_link_header(),
            offloads: false,
            exclusive: false,
            steering: false,
            longest: MAX_LEN,
        }
    }

    /// # Errors
    ///
    /// `InvalidData` where the capture is damaged, and what the reader says. The end of the capture is none.
    fn receive(&mut self, frames: &mut Vec<Frame>, limit: usize) -> io::Result<usize> {
        let mut count = 0;
        while count < limit {
            let Some(record) = self.reader.read()? else {
                break;
            };
            if record.is_cut {
                self.counters.truncated += 1;
                continue;
            }
            frames.push(record.frame);
            self.counters.received += 1;
            count += 1;
        }
        Ok(count)
    }

    fn transmit(&mut self, mut frame: Frame) {
        // A capture may hold super-packets, as captures do.
        frame.meta.gso = None::<Gso>;
        frame.complete_checksum();
        if frame.len() > MAX_LEN {
            self.counters.too_long += 1;
        } else if self.waiting.len() >= QUEUE {
            self.counters.no_buffers += 1;
        } else {
            self.waiting.push(frame);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let time = self.reader.time;
        for frame in self.waiting.drain(..) {
            self.writer.write(time, frame.bytes())?;
            self.counters.transmitted += 1;
        }
        self.writer.flush()
    }

    fn pending(&self) -> usize {
        self.waiting.len()
    }

    fn counters(&mut self) -> DeviceCounters {
        self.counters
    }
}

/// Reads a capture.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    is_swapped: bool,
    /// Nanoseconds of a unit of the fraction of a second.
    unit: u32,
    has_link_header: bool,
    /// Length of another link header than Ethernet's, which is taken off.
    cooked: usize,
    time: Duration,
}

/// One frame of a capture.
#[derive(Debug)]
pub struct Record {
    /// When it was captured, since 1970.
    pub time: Duration,
    /// The frame, as far as it was captured.
    pub frame: Frame,
    /// Whether it was longer than that.
    pub is_cut: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the capture's header.
    ///
    /// # Errors
    ///
    /// What the reader says, or `InvalidData` if this is no capture, or none of Ethernet frames, IP packets or packets of all
    /// interfaces (`tcpdump -i any`).
    pub fn new(mut source: R) -> io::Result<Self> {
        let mut header = [0; 24];
        source.read_exact(&mut header)?;
        let [a, b, c, d, ..] = header;
        let (is_swapped, unit) = match u32::from_le_bytes([a, b, c, d]) {
            MICROSECONDS => (false, 1000),
            NANOSECONDS => (false, 1),
            other if other.swap_bytes() == MICROSECONDS => (true, 1000),
            other if other.swap_bytes() == NANOSECONDS => (true, 1),
            _ => return Err(invalid("this is no capture in pcap format")),
        };
        let mut this = Self {
            source,
            is_swapped,
            unit,
            has_link_header: true,
            cooked: 0,
            time: Duration::ZERO,
        };
        (this.has_link_header, this.cooked) = match this.word(&header, 20) & 0xffff {
            ETHERNET => (true, 0),
            IP => (false, 0),
            COOKED => (false, 16),
            COOKED_2 => (false, 20),
            _ => {
                return Err(invalid(
                    "neither Ethernet frames nor IP packets were captured",
                ));
            }
        };
        Ok(this)
    }

    /// Whether frames begin with an Ethernet header; else with an IP header.
    pub fn has_link_header(&self) -> bool {
        self.has_link_header
    }

    /// The next frame, or `None` at the end.
    ///
    /// # Errors
    ///
    /// What the reader says, also where the capture ends in the middle of a frame, or `InvalidData` where its lengths can't
    /// be.
    pub fn read(&mut self) -> io::Result<Option<Record>> {
        let mut header = [0; 16];
        loop {
            match self.source.read(&mut header[..1]) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.source.read_exact(&mut header[1..])?;
        let [seconds, fraction, captured, length] = [0, 4, 8, 12].map(|at| self.word(&header, at));
        if captured as usize > MAX_LEN || captured > length {
            return Err(invalid("the capture is damaged"));
        }
        let mut frame = Frame::zeroed(captured as usize);
        self.source.read_exact(frame.bytes_mut())?;
        frame.trim_front(self.cooked.min(frame.len()));
        self.time = Duration::from_secs(seconds.into())
            + Duration::from_nanos(u64::from(fraction) * u64::from(self.unit));
        Ok(Some(Record {
            time: self.time,
            frame,
            is_cut: captured < length,
        }))
    }

    fn word(&self, bytes: &[u8], at: usize) -> u32 {
        let word = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        match self.is_swapped {
            true => word.swap_bytes(),
            false => word,
        }
    }
}

/// Writes a capture with times in nanoseconds.
#[derive(Debug)]
pub struct Writer<W>(W);

impl<W: Write> Writer<W> {
    /// Begins a capture of Ethernet frames, or of IP packets.
    ///
    /// # Errors
    ///
    /// What the writer says.
    pub fn new(mut sink: W, has_link_header: bool) -> io::Result<Self> {
        let kind = if has_link_header { ETHERNET } else { IP };
        // Version 2.4; the two zeros are what nobody uses.
        for word in [NANOSECONDS, 2 | 4 << 16, 0, 0, MAX_LEN as u32, kind] {
            sink.write_all(&word.to_le_bytes())?;
        }
        Ok(Self(sink))
    }

    /// Adds a frame.
    ///
    /// # Errors
    ///
    /// What the writer says.
    pub fn write(&mut self, time: Duration, frame: &[u8]) -> io::Result<()> {
        let length = u32::try_from(frame.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // The format's seconds end in the year 2106.
        for word in [time.as_secs() as u32, time.subsec_nanos(), length, length] {
            self.0.write_all(&word.to_le_bytes())?;
        }
        self.0.write_all(frame)
    }

    /// Passes on what is buffered.
    ///
    /// # Errors
    ///
    /// What the writer says.
    pub fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
const ETHERNET: u32 = 1;
/// Packets of all interfaces, with a header of Linux's own in two versions.
const COOKED: u32 = 113;
const COOKED_2: u32 = 276;
const IP: u32 = 101;
/// What programs that capture take for the most.
const MAX_LEN: usize = 262_144;
const QUEUE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(frames: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, true).unwrap();
        for (n, frame) in frames.iter().enumerate() {
            writer
                .write(Duration::from_millis(n as u64 * 1500), frame)
                .unwrap();
        }
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = capture(&[b"a frame", b"", &[7; 1514]]);
        let mut reader = Reader::new(&bytes[..]).unwrap();
        let frames: Vec<Record> = std::iter::from_fn(|| reader.read().unwrap()).collect();
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[2].frame.bytes(), [7; 1514]);
        assert_eq!(frames[2].time, Duration::from_secs(3));
        assert!(!frames[2].is_cut);
    }

    #[test]
    fn captures_of_other_machines_are_read() {
        let bytes = capture(&[b"a frame", b"another"]);
        // Microseconds, and the other byte order.
        let mut other: Vec<u8> = MICROSECONDS.to_be_bytes().to_vec();
        other.extend([0, 2, 0, 4]);
        for at in (8..24).step_by(4) {
            other.extend(bytes[at..at + 4].iter().rev());
        }
        for (at, word) in [(24, 1u32), (28, 500_000), (32, 3), (36, 9)] {
            assert!(at < bytes.len());
            other.extend(word.to_be_bytes());
        }
        other.extend(b"abc");
        let mut reader = Reader::new(&other[..]).unwrap();
        let record = reader.read().unwrap().unwrap();
        assert_eq!(record.time, Duration::from_millis(1500));
        assert_eq!(record.frame.bytes(), b"abc");
        assert!(record.is_cut, "nine bytes were on the wire");
        assert!(reader.read().unwrap().is_none());
    }

    #[test]
    fn damaged_captures_are_refused() {
        let bytes = capture(&[b"a frame"]);
        assert!(Reader::new(&b"#!/bin/sh and what follows"[..]).is_err());
        for length in 25..bytes.len() {
            assert!(
                Reader::new(&bytes[..length]).unwrap().read().is_err(),
                "{length} bytes"
            );
        }
        let mut lying = bytes;
        lying[35] = 0xff;
        let error = Reader::new(&lying[..]).unwrap().read().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_device_replays_and_records() {
        let bytes = capture(&[b"0123456789abcdef", b"the second frame"]);
        let mut out = Vec::new();
        let mut device = Pcap::new(&bytes[..], &mut out).unwrap();
        let mut frames = Vec::new();
        assert_eq!(device.receive(&mut frames, 64).unwrap(), 2);
        for frame in frames {
            device.transmit(frame);
        }
        device.flush().unwrap();
        assert_eq!(device.counters().transmitted, 2);
        drop(device);
        let mut reader = Reader::new(&out[..]).unwrap();
        let last = std::iter::from_fn(|| reader.read().unwrap())
            .last()
            .unwrap();
        assert_eq!(last.frame.bytes(), b"the second frame");
        assert_eq!(last.time, Duration::from_millis(1500));
    }
}
