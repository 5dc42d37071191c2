//! What routers have said of the way to tunnels' far ends.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ahash::RandomState;

use crate::wire::ipv6;

/// Path MTUs that are less than the link's, each for ten minutes.
#[derive(Debug)]
pub(super) struct PathMtus {
    known: HashMap<IpAddr, (usize, Instant), RandomState>,
}

impl PathMtus {
    pub(super) fn new() -> Self {
        Self {
            known: HashMap::with_hasher(RandomState::new()),
        }
    }

    /// A router can't send on a packet of `length` bytes to this address; `mtu` is what it says would fit, 0 if it does
    /// not say.
    pub(super) fn learn(&mut self, now: Instant, addr: IpAddr, mtu: u32, length: usize) {
        let said = match usize::try_from(mtu).unwrap_or(usize::MAX) {
            0 => plateau_below(length),
            mtu => mtu,
        };
        let mtu = said.max(if addr.is_ipv6() { ipv6::MIN_MTU } else { LEAST });
        if self.known.len() >= MAX_KNOWN && !self.known.contains_key(&addr) {
            self.known.retain(|_, (_, until)| now < *until);
            if self.known.len() >= MAX_KNOWN {
                return;
            }
        }
        // What others say can shorten the path, and only time makes it long again.
        let present = self.of(now, &addr).unwrap_or(usize::MAX);
        self.known.insert(addr, (mtu.min(present), now + MEMORY));
    }

    /// The path MTU to this address, if it is known.
    #[inline]
    pub(super) fn of(&self, now: Instant, addr: &IpAddr) -> Option<usize> {
        if self.known.is_empty() {
            return None;
        }
        self.known
            .get(addr)
            .filter(|(_, until)| now < *until)
            .map(|(mtu, _)| *mtu)
    }
}

/// The next usual MTU that is less (RFC 1191, section 7).
fn plateau_below(length: usize) -> usize {
    PLATEAUS
        .into_iter()
        .find(|plateau| *plateau < length)
        .unwrap_or(LEAST)
}

const MEMORY: Duration = Duration::from_secs(600);
const MAX_KNOWN: usize = 4096;
/// Less is not believed: everybody can say so, and it would cost more than it helps.
const LEAST: usize = 552;
const PLATEAUS: [usize; 7] = [32000, 17914, 8166, 4352, 2002, 1492, 1006];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_that_was_said_holds_for_ten_minutes() {
        let (mut mtus, now) = (PathMtus::new(), Instant::now());
        let (far, far6): (IpAddr, IpAddr) =
            ([10, 0, 0, 31].into(), "2001:db8::31".parse().unwrap());
        assert_eq!(mtus.of(now, &far), None);
        mtus.learn(now, far, 1400, 1500);
        mtus.learn(now, far, 1450, 1500);
        assert_eq!(mtus.of(now, &far), Some(1400));
        assert_eq!(mtus.of(now + MEMORY, &far), None);
        mtus.learn(now + MEMORY, far, 0, 1500);
        assert_eq!(mtus.of(now + MEMORY, &far), Some(1492));
        mtus.learn(now + MEMORY, far, 68, 1500);
        assert_eq!(mtus.of(now + MEMORY, &far), Some(LEAST));
        mtus.learn(now, far6, 100, 1500);
        assert_eq!(mtus.of(now, &far6), Some(1280));
    }

    #[test]
    fn a_flood_of_addresses_is_bounded() {
        let (mut mtus, now) = (PathMtus::new(), Instant::now());
        for n in 0..2 * MAX_KNOWN as u32 {
            mtus.learn(now, IpAddr::from(n.to_be_bytes()), 1400, 1500);
        }
        assert_eq!(mtus.known.len(), MAX_KNOWN);
        mtus.learn(now + MEMORY, [255, 0, 0, 1].into(), 1400, 1500);
        assert_eq!(mtus.known.len(), 1);
    }
}
