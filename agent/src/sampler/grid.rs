//! When ticks are due, and which were missed. Pure: the clock comes in.
//!
//! The grid lies on the monotonic clock, which stands still while the host is suspended. What the boot clock gained meanwhile is
//! counted as missed ticks as well, so that the numbers of ticks go with the time that passed.

use pgsoak_proto::evidence::Gap;
use std::time::Duration;

/// Why ticks were missed: the host slept.
pub(super) const SUSPENDED: &str = "suspended";
/// Why ticks were missed: the thread got no CPU, or the tick before took too long.
pub(super) const LATE: &str = "sampler late";

/// Where the clock stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Now {
    /// Monotonic, since the attempt started.
    pub(super) elapsed: Duration,
    /// How long the host was suspended since it booted.
    pub(super) suspended: Duration,
}

/// The ticks.
#[derive(Debug)]
pub(super) struct Grid {
    every: Duration,
    due_at: Duration,
    next_tick: u64,
    /// Time of suspension that is accounted for.
    suspended: Duration,
}

/// A tick to take, and the ticks before it that were missed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Due {
    pub(super) tick: u64,
    pub(super) suspended: Option<Gap>,
    pub(super) late: Option<Gap>,
}

// === impl Grid ===

impl Grid {
    /// The first tick is due at once.
    pub(super) fn new(every: Duration, now: Now) -> Self {
        Self { every: clamp(every), due_at: now.elapsed, next_tick: 0, suspended: now.suspended }
    }

    /// When the next tick is due, since the attempt started.
    pub(super) fn due_at(&self) -> Duration {
        self.due_at
    }

    /// Time between ticks.
    pub(super) fn every(&self) -> Duration {
        self.every
    }

    /// Ticks that were due so far.
    pub(super) fn ticks(&self) -> u64 {
        self.next_tick
    }

    /// A new rate, from `now` on.
    pub(super) fn set_every(&mut self, every: Duration, now: Now) {
        self.every = clamp(every);
        self.due_at = now.elapsed + self.every;
    }

    /// The tick that is due at `now`, which is not before [`Self::due_at`].
    pub(super) fn take(&mut self, now: Now) -> Due {
        let slept = periods(now.suspended.saturating_sub(self.suspended), self.every);
        self.suspended += self.every.saturating_mul(u32::try_from(slept).unwrap_or(u32::MAX));
        let suspended = self.miss(slept, SUSPENDED);
        let behind = periods(now.elapsed.saturating_sub(self.due_at), self.every);
        let late = self.miss(behind, LATE);
        self.due_at +=
            self.every.saturating_mul(u32::try_from(behind.saturating_add(1)).unwrap_or(u32::MAX));
        Due { tick: self.number(), suspended, late }
    }

    /// The number of a tick beside the grid.
    pub(super) fn extra(&mut self) -> u64 {
        self.number()
    }

    fn number(&mut self) -> u64 {
        let tick = self.next_tick;
        self.next_tick = tick.saturating_add(1);
        tick
    }

    fn miss(&mut self, ticks: u64, cause: &str) -> Option<Gap> {
        let first_tick = self.next_tick;
        self.next_tick = first_tick.saturating_add(ticks);
        (ticks > 0).then(|| Gap { first_tick, ticks, cause: cause.to_owned() })
    }
}

fn clamp(every: Duration) -> Duration {
    every.max(super::SamplerConfig::MIN_EVERY)
}

/// Whole periods in `time`. `every` is never zero: it was clamped.
fn periods(time: Duration, every: Duration) -> u64 {
    u64::try_from(time.as_nanos().checked_div(every.as_nanos()).unwrap_or(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(elapsed_ms: u64) -> Now {
        Now { elapsed: Duration::from_millis(elapsed_ms), suspended: Duration::ZERO }
    }

    #[test]
    fn ticks_in_time_have_no_gaps_and_do_not_drift() {
        let mut grid = Grid::new(SECOND, at(500));
        for tick in 0..100 {
            // Each a little late: the next is due a whole second after it was due, not after it was taken.
            let due = grid.take(at(500 + tick * 1000 + 30));
            assert_eq!(due, Due { tick, suspended: None, late: None });
        }
        assert_eq!(grid.due_at(), Duration::from_millis(100_500));
    }

    #[test]
    fn missed_ticks_are_a_gap() {
        let mut grid = Grid::new(SECOND, at(0));
        grid.take(at(0));
        let due = grid.take(at(4200));
        assert_eq!(due.late, Some(Gap { first_tick: 1, ticks: 3, cause: LATE.to_owned() }));
        assert_eq!(due.tick, 4);
        assert_eq!(grid.due_at(), Duration::from_secs(5));
    }

    #[test]
    fn an_hour_of_sleep_is_an_hour_of_missed_ticks() {
        let mut grid = Grid::new(SECOND, at(0));
        grid.take(at(0));
        let now = Now { elapsed: SECOND, suspended: Duration::from_millis(3_600_400) };
        let due = grid.take(now);
        assert_eq!(
            due.suspended,
            Some(Gap { first_tick: 1, ticks: 3600, cause: SUSPENDED.to_owned() })
        );
        assert_eq!((due.late, due.tick), (None, 3601));
        // What was left of the sleep is not lost: with a little more it makes a period.
        let due =
            grid.take(Now { elapsed: 2 * SECOND, suspended: Duration::from_millis(3_601_000) });
        assert_eq!(due.suspended.map(|gap| gap.ticks), Some(1));
    }

    #[test]
    fn an_extra_tick_has_a_number_and_leaves_the_grid_alone() {
        let mut grid = Grid::new(SECOND, at(0));
        grid.take(at(0));
        assert_eq!(grid.extra(), 1);
        assert_eq!(grid.take(at(1000)).tick, 2);
    }

    proptest! {
        #[test]
        fn every_tick_is_taken_or_missed(steps in prop::collection::vec((0_u64..5000, 0_u64..5000), 1..50)) {
            let mut grid = Grid::new(SECOND, at(0));
            let (mut now, mut taken, mut missed) = (Now::default(), 0, 0);
            for (awake_ms, slept_ms) in steps {
                now.elapsed += Duration::from_millis(awake_ms);
                now.suspended += Duration::from_millis(slept_ms);
                if now.elapsed >= grid.due_at() {
                    let due = grid.take(now);
                    taken += 1;
                    missed += due.late.map_or(0, |gap| gap.ticks) + due.suspended.map_or(0, |gap| gap.ticks);
                }
                prop_assert_eq!(grid.ticks(), taken + missed);
            }
        }
    }
}
