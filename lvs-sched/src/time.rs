//! Time as nanoseconds since the first instant that a director was told: half the size of an
//! `Instant`, and atomics hold it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Nanoseconds since the epoch of a director.
pub(crate) type Nanos = u64;

/// "Never" among deadlines.
pub(crate) const NEVER: Nanos = Nanos::MAX;

/// The first instant seen. Earlier ones count as it.
#[derive(Debug, Default)]
pub(crate) struct Epoch(OnceLock<Instant>);

impl Epoch {
    pub(crate) fn nanos(&self, now: Instant) -> Nanos {
        nanos(now.saturating_duration_since(*self.0.get_or_init(|| now)))
    }

    /// The instant of a deadline; `None` for never, or if no time was told yet.
    pub(crate) fn instant(&self, at: Nanos) -> Option<Instant> {
        if at == NEVER {
            return None;
        }
        self.0.get()?.checked_add(Duration::from_nanos(at))
    }
}

/// A duration, at most half of the range so that sums with a time cannot overflow.
pub(crate) fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos())
        .unwrap_or(NEVER)
        .min(NEVER / 4)
}

pub(crate) const fn seconds(seconds: u64) -> Nanos {
    seconds * 1_000_000_000
}
