//! A device made of two queues: the other end is held by a test or an example.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Capabilities, Device, DeviceCounters};
use crate::frame::Frame;

/// A [`Device`] whose frames come from and go to a [`Peer`].
#[derive(Debug)]
pub struct Memory {
    wire: Arc<Mutex<Wire>>,
    queue: VecDeque<Frame>,
    counters: DeviceCounters,
}

impl Memory {
    /// A device and its other end. Each direction holds at most `capacity` frames.
    pub fn new(capacity: usize) -> (Self, Peer) {
        let wire = Arc::new(Mutex::new(Wire {
            to_device: VecDeque::new(),
            to_peer: VecDeque::new(),
            capacity,
        }));
        let device = Self {
            wire: Arc::clone(&wire),
            queue: VecDeque::new(),
            counters: DeviceCounters::default(),
        };
        (device, Peer(wire))
    }
}

impl Device for Memory {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            link_header: true,
            offloads: true,
            exclusive: false,
            steering: false,
            longest: usize::MAX,
        }
    }

    fn receive(&mut self, frames: &mut Vec<Frame>, limit: usize) -> io::Result<usize> {
        let mut wire = lock(&self.wire);
        let count = limit.min(wire.to_device.len());
        frames.extend(wire.to_device.drain(..count));
        self.counters.received += count as u64;
        Ok(count)
    }

    fn transmit(&mut self, frame: Frame) {
        if self.queue.len() < lock(&self.wire).capacity {
            self.queue.push_back(frame);
        } else {
            self.counters.no_buffers += 1;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut wire = lock(&self.wire);
        while wire.to_peer.len() < wire.capacity {
            let Some(frame) = self.queue.pop_front() else {
                break;
            };
            wire.to_peer.push_back(frame.into_owned());
            self.counters.transmitted += 1;
        }
        Ok(())
    }

    fn pending(&self) -> usize {
        self.queue.len()
    }

    fn counters(&mut self) -> DeviceCounters {
        self.counters
    }
}

/// The other end of a [`Memory`] device.
#[derive(Debug, Clone)]
pub struct Peer(Arc<Mutex<Wire>>);

impl Peer {
    /// Sends a frame to the device; gives it back if the queue is full.
    ///
    /// # Errors
    ///
    /// The frame itself, if the device already has as many frames waiting as it may.
    pub fn send(&self, frame: Frame) -> Result<(), Frame> {
        let mut wire = lock(&self.0);
        if wire.to_device.len() >= wire.capacity {
            return Err(frame);
        }
        wire.to_device.push_back(frame);
        Ok(())
    }

    /// The next frame that the device has sent.
    pub fn receive(&self) -> Option<Frame> {
        lock(&self.0).to_peer.pop_front()
    }
}

#[derive(Debug)]
struct Wire {
    to_device: VecDeque<Frame>,
    to_peer: VecDeque<Frame>,
    capacity: usize,
}

/// A panic elsewhere leaves the queues whole, so the lock is taken all the same.
fn lock(wire: &Mutex<Wire>) -> MutexGuard<'_, Wire> {
    wire.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_pass_both_ways_and_back_pressure_keeps_them() {
        let (mut device, peer) = Memory::new(2);
        peer.send(Frame::from_bytes(b"a")).unwrap();
        peer.send(Frame::from_bytes(b"b")).unwrap();
        assert!(peer.send(Frame::from_bytes(b"c")).is_err());
        let mut frames = Vec::new();
        assert_eq!(device.receive(&mut frames, 1).unwrap(), 1);
        assert_eq!(device.receive(&mut frames, 9).unwrap(), 1);
        assert_eq!(frames[1].bytes(), b"b");

        for frame in frames {
            device.transmit(frame);
        }
        device.transmit(Frame::from_bytes(b"d"));
        device.flush().unwrap();
        device.transmit(Frame::from_bytes(b"e"));
        device.flush().unwrap();
        assert_eq!(device.pending(), 1);
        assert_eq!(peer.receive().unwrap().bytes(), b"a");
        device.flush().unwrap();
        assert_eq!(device.pending(), 0);
        let counters = device.counters();
        assert_eq!(
            (counters.received, counters.transmitted, counters.no_buffers),
            (2, 3, 1)
        );
    }
}
