//! Wall time as it is stored and sent: microseconds since 1970.

use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// A moment, in microseconds since 1970. Durable, so it is wall time.
///
/// Inside one process the engine derives it from the monotonic clock, so it never steps back while a coordinator runs.
#[derive(
    Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixUs(pub u64);

// === impl UnixUs ===

impl UnixUs {
    /// Microseconds since 1970; a time before that is 0.
    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// Time passed since `earlier`; zero when it lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// So much later.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl std::fmt::Display for UnixUs {
    /// `2026-11-21T23:05:07Z`; what people read in reasons.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0 / 1_000_000;
        let (days, of_day) = (seconds / 86_400, seconds % 86_400);
        // Civil date from days since 1970 (Howard Hinnant's algorithm, for dates from 1970 on).
        let z = days + 719_468;
        let era = z / 146_097;
        let doe = z % 146_097;
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (of_day / 3_600, of_day % 3_600 / 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_as_a_date() {
        assert_eq!(UnixUs(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(UnixUs(951_782_400_000_000).to_string(), "2000-02-29T00:00:00Z");
        assert_eq!(UnixUs(1_795_302_307_000_000).to_string(), "2026-11-21T23:05:07Z");
    }

    #[test]
    fn time_that_ran_backwards_is_no_time() {
        assert_eq!(UnixUs(5).since(UnixUs(9)), Duration::ZERO);
        assert_eq!(UnixUs(u64::MAX).plus(Duration::from_secs(1)), UnixUs(u64::MAX));
    }
}
