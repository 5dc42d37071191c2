//! A device around another one, which loses, doubles, delays and damages frames.
//!
//! For tests of what stands on top of it. Chance comes from outside, so that a test that fails can be repeated.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use super::{Capabilities, Device, DeviceCounters};
use crate::frame::Frame;

/// How often each fault happens, both ways: of so many frames one on average, 0 for never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// The frame is lost.
    pub lose: u32,
    /// It comes twice.
    pub double: u32,
    /// It comes after the next one.
    pub swap: u32,
    /// One of its bits is changed.
    pub damage: u32,
}

/// A device with faults.
pub struct Fault<D, R> {
    device: D,
    faults: Faults,
    random: R,
    /// Received, and kept back until the next one.
    kept: Option<Frame>,
    /// Given to be sent, and kept back until the next one, or until nothing comes.
    kept_out: Option<Frame>,
}

impl<D: Device, R: FnMut() -> u64 + Send> Fault<D, R> {
    /// Stands around a device; `random` gives numbers of 64 random bits.
    pub fn new(device: D, faults: Faults, random: R) -> Self {
        Self {
            device,
            faults,
            random,
            kept: None,
            kept_out: None,
        }
    }

    /// The device inside.
    pub fn into_inner(self) -> D {
        self.device
    }

    fn happens(&mut self, one_in: u32) -> bool {
        one_in != 0 && (self.random)().is_multiple_of(u64::from(one_in))
    }

    /// What becomes of a frame.
    fn distort(&mut self, mut frame: Frame, kept: &mut Option<Frame>, mut pass: impl FnMut(Frame)) {
        if self.happens(self.faults.lose) {
            return;
        }
        if self.happens(self.faults.damage) && !frame.is_empty() {
            let bit = (self.random)() as usize % (frame.len() * 8);
            frame.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
        }
        let copy = self.happens(self.faults.double).then(|| frame.clone());
        if kept.is_none() && self.happens(self.faults.swap) {
            frame.make_owned();
            *kept = Some(frame);
        } else {
            pass(frame);
            kept.take().into_iter().for_each(&mut pass);
        }
        copy.into_iter().for_each(pass);
    }
}

impl<D: Device, R: FnMut() -> u64 + Send> Device for Fault<D, R> {
    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    /// May give more than `limit` where frames are doubled.
    fn receive(&mut self, frames: &mut Vec<Frame>, limit: usize) -> io::Result<usize> {
        let before = frames.len();
        let mut arrived = Vec::new();
        self.device.receive(&mut arrived, limit)?;
        let mut kept = self.kept.take();
        if arrived.is_empty() {
            // Nothing overtakes it.
            frames.extend(kept.take());
        }
        for frame in arrived {
            self.distort(frame, &mut kept, |frame| frames.push(frame));
        }
        self.kept = kept;
        Ok(frames.len() - before)
    }

    fn transmit(&mut self, frame: Frame) {
        let mut kept = self.kept_out.take();
        let mut out = Vec::new();
        self.distort(frame, &mut kept, |frame| out.push(frame));
        self.kept_out = kept;
        for frame in out {
            self.device.transmit(frame);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(frame) = self.kept_out.take() {
            self.device.transmit(frame);
        }
        self.device.flush()
    }

    fn pending(&self) -> usize {
        self.device.pending()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        // What is kept back would wait for the next frame otherwise.
        match self.kept {
            Some(_) => None,
            None => self.device.descriptor(),
        }
    }

    fn set_steering(&mut self, vips: &[IpAddr]) -> io::Result<()> {
        self.device.set_steering(vips)
    }

    fn counters(&mut self) -> DeviceCounters {
        self.device.counters()
    }
}

impl<D: fmt::Debug, R> fmt::Debug for Fault<D, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault")
            .field("device", &self.device)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::memory::Memory;

    /// Frames with the numbers 0 to 999 come in; which are received.
    fn numbers(faults: Faults) -> Vec<Vec<u8>> {
        let (memory, wire) = Memory::new(1000);
        let mut state = 1u64;
        let mut device = Fault::new(memory, faults, move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state >> 33
        });
        for n in 0..1000u32 {
            wire.send(Frame::from_bytes(&n.to_be_bytes())).unwrap();
        }
        let mut frames = Vec::new();
        for _ in 0..40 {
            device.receive(&mut frames, 32).unwrap();
        }
        frames.iter().map(|frame| frame.bytes().to_vec()).collect()
    }

    fn all() -> Vec<Vec<u8>> {
        (0..1000u32).map(|n| n.to_be_bytes().to_vec()).collect()
    }

    #[test]
    fn without_faults_everything_comes_in_order() {
        assert_eq!(numbers(Faults::default()), all());
    }

    #[test]
    fn each_fault_happens_about_as_often_as_it_should() {
        let lose = Faults {
            lose: 10,
            ..Faults::default()
        };
        assert!((850..950).contains(&numbers(lose).len()));
        let double = Faults {
            double: 10,
            ..Faults::default()
        };
        assert!((1050..1150).contains(&numbers(double).len()));
        let damage = Faults {
            damage: 10,
            ..Faults::default()
        };
        let got = numbers(damage);
        let whole = got.iter().zip(all()).filter(|(got, sent)| **got == *sent);
        assert!((850..950).contains(&whole.count()));
        let swap = Faults {
            swap: 10,
            ..Faults::default()
        };
        let mut got = numbers(swap);
        assert_ne!(got, all());
        got.sort();
        assert_eq!(got, all(), "none is lost");
    }
}
