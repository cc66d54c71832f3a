//! When each operation of an open-loop round is due.
//!
//! Owned by a worker, made anew for every round: the pause in which backends are read at rest is the harness's own and
//! must not turn into a burst of late operations. Within a round the schedule is absolute, so that a slow operation
//! delays none but itself and the lateness of those behind it is seen. No clock of its own.

use std::time::Duration;
use tokio::time::Instant;

/// The schedule of one worker's round.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    start: Instant,
    period: Duration,
    late: u64,
    max_lateness: Duration,
}

impl Pace {
    /// `rate` operations per second from `start` on; `None` when the rate is not a positive number of at most 10⁹.
    pub fn new(start: Instant, rate: f64) -> Option<Self> {
        let period = Duration::try_from_secs_f64(1.0 / rate).ok()?;
        (rate > 0.0 && !period.is_zero()).then_some(Self {
            start,
            period,
            late: 0,
            max_lateness: Duration::ZERO,
        })
    }

    /// When the operation with this 0-based number is due.
    pub fn due(&self, operation: u64) -> Instant {
        let nanos = self.period.as_nanos().saturating_mul(u128::from(operation));
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        // Beyond what the clock can say: never due in practice.
        self.start.checked_add(Duration::from_nanos(nanos)).unwrap_or(self.start)
    }

    /// Notes that an operation due at `due` began at `now`. It is late when that is more than a period after its time.
    pub fn began(&mut self, due: Instant, now: Instant) {
        let lateness = now.saturating_duration_since(due);
        if lateness > self.period {
            self.late += 1;
        }
        self.max_lateness = self.max_lateness.max(lateness);
    }

    /// How many operations were late.
    pub const fn late(&self) -> u64 {
        self.late
    }

    /// The largest lateness of any operation.
    pub const fn max_lateness(&self) -> Duration {
        self.max_lateness
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_operation_makes_those_behind_it_late_until_they_catch_up() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 100.0).unwrap();
        let ms = |n| start + Duration::from_millis(n);
        assert_eq!(pace.due(7), ms(70));
        pace.began(pace.due(0), ms(0));
        pace.began(pace.due(1), ms(35)); // 25 ms after its time
        pace.began(pace.due(2), ms(36)); // 16 ms
        pace.began(pace.due(3), ms(37)); // 7 ms: within a period
        assert_eq!(pace.late(), 2);
        assert_eq!(pace.max_lateness(), Duration::from_millis(25));
    }

    #[test]
    fn a_rate_that_is_no_rate_is_refused() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, 1e-300] {
            assert!(Pace::new(Instant::now(), rate).is_none(), "{rate}");
        }
    }

    #[test]
    fn the_far_future_does_not_overflow() {
        let pace = Pace::new(Instant::now(), 1e-9).unwrap();
        let _ = pace.due(u64::MAX);
    }
}
