//! A small generator, seeded by the caller, that spreads probes and numbers them. Not for secrets.

use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Uniform in `[0, limit)`; zero for a zero limit.
    pub(crate) fn below(&mut self, limit: Duration) -> Duration {
        let nanos = limit.as_nanos().min(u128::from(u64::MAX));
        let scaled = (u128::from(self.number()) * nanos) >> 64;
        Duration::from_nanos(u64::try_from(scaled).expect("a product shifted by 64 fits"))
    }

    /// This duration, longer or shorter by up to so many percent.
    pub(crate) fn around(&mut self, duration: Duration, percent: u8) -> Duration {
        let part = (duration / 100).saturating_mul(u32::from(percent.min(50)));
        (duration - part).saturating_add(self.below(part.saturating_mul(2)))
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): any seed, zero included, gives a full-period sequence.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_the_limit_and_spread() {
        let mut random = Random::new(0);
        let limit = Duration::from_secs(10);
        let drawn: Vec<_> = (0..200).map(|_| random.below(limit)).collect();
        assert!(drawn.iter().all(|d| *d < limit));
        assert!(drawn.iter().any(|d| *d < limit / 10));
        assert!(drawn.iter().any(|d| *d > limit * 9 / 10));
        assert_eq!(random.below(Duration::ZERO), Duration::ZERO);
        assert!(random.below(Duration::MAX) < Duration::MAX);
    }

    #[test]
    fn jitter_goes_both_ways_and_no_further() {
        let mut random = Random::new(1);
        let middle = Duration::from_secs(10);
        let drawn: Vec<_> = (0..200).map(|_| random.around(middle, 5)).collect();
        let bounds = Duration::from_millis(9500)..Duration::from_millis(10_500);
        assert!(drawn.iter().all(|d| bounds.contains(d)));
        assert!(drawn.iter().any(|d| *d < middle) && drawn.iter().any(|d| *d > middle));
        assert_eq!(random.around(middle, 0), middle);
    }
}
