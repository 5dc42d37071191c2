//! Skew time and master-down time (RFC 3768, 6.1; RFC 9568, 6.1), in whole microseconds as keepalived computes them.

use crate::config::{Interval, Version};
use std::time::Duration;

/// What a Backup waits less the higher its priority. In version 2 it does not scale with the interval.
pub(crate) fn skew_time(version: Version, priority: u8, active_interval: Interval) -> Duration {
    let steps = 256 - u64::from(priority);
    let micros = match version {
        Version::V2 => steps * 1_000_000 / 256,
        Version::V3 => steps * u64::from(active_interval.centis()) * 10_000 / 256,
    };
    Duration::from_micros(micros)
}

/// How long nothing is heard from the Active router before a Backup takes over.
pub(crate) fn active_down_time(
    version: Version,
    priority: u8,
    active_interval: Interval,
    missed: u8,
) -> Duration {
    active_interval.duration() * u32::from(missed) + skew_time(version, priority, active_interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_keepalived_s_to_the_microsecond() {
        let cases = [
            (Version::V2, 100, 255, 3906, 3_003_906),
            (Version::V2, 100, 254, 7812, 3_007_812),
            (Version::V2, 100, 150, 414_062, 3_414_062),
            (Version::V2, 100, 100, 609_375, 3_609_375),
            (Version::V2, 100, 1, 996_093, 3_996_093),
            (Version::V2, 500, 100, 609_375, 15_609_375),
            (Version::V3, 100, 100, 609_375, 3_609_375),
            (Version::V3, 20, 100, 121_875, 721_875),
            (Version::V3, 5, 100, 30_468, 180_468),
            (Version::V3, 1, 100, 6_093, 36_093),
            (Version::V3, 4095, 100, 24_953_906, 147_803_906),
            (Version::V3, 500, 100, 3_046_875, 18_046_875),
        ];
        for (version, centis, priority, skew, down) in cases {
            let interval = Interval::from_centis(centis).unwrap();
            let name = format!("version {version}, {centis} cs, priority {priority}");
            assert_eq!(
                skew_time(version, priority, interval).as_micros(),
                skew,
                "{name}"
            );
            assert_eq!(
                active_down_time(version, priority, interval, 3).as_micros(),
                down,
                "{name}"
            );
        }
    }
}
