//! When smaps_rollup may be read: a budget of CPU, saved up over time and spent on one process at a time. Pure.
//!
//! A reading costs 150 µs and up to 20 µs per resident MB (42 ms at 2 GB) and holds the process's memory map meanwhile, so it is taken at birth,
//! then rarely, at most one per tick, and only while the budget lasts.

use std::time::Duration;

/// Largest share of a core that the budget may be.
const MAX_SHARE: f64 = 0.01;

/// Between two readings of one process, budget or not.
pub(super) const READ_EVERY: Duration = Duration::from_secs(60);

/// What may be saved up when the next reading is cheaper than that.
const SAVED_AT_MOST: Duration = Duration::from_millis(100);

/// There at the start, for the births of the server's first processes.
const AT_START: Duration = Duration::from_millis(20);

/// CPU time that may be spent.
#[derive(Debug)]
pub(super) struct PssBudget {
    share: f64,
    saved: Duration,
    counted_to: Duration,
}

// === impl PssBudget ===

impl PssBudget {
    pub(super) fn new(share: f64, now: Duration) -> Self {
        let share = if share.is_finite() { share.clamp(0.0, MAX_SHARE) } else { 0.0 };
        Self { share, saved: if share > 0.0 { AT_START } else { Duration::ZERO }, counted_to: now }
    }

    /// Whether readings are wanted at all.
    pub(super) fn is_on(&self) -> bool {
        self.share > 0.0
    }

    /// Whether a reading of this cost may be made now.
    pub(super) fn affords(&mut self, cost: Duration, now: Duration) -> bool {
        let passed = now.saturating_sub(self.counted_to);
        self.counted_to = self.counted_to.max(now);
        let saved = self.saved.saturating_add(passed.mul_f64(self.share));
        self.saved = saved.min(cost.max(SAVED_AT_MOST));
        self.is_on() && self.saved >= cost
    }

    /// A reading was made. One that cost more than was thought is paid off before the next.
    pub(super) fn spend(&mut self, cost: Duration, now: Duration) {
        if let Some(left) = self.saved.checked_sub(cost) {
            self.saved = left;
        } else {
            let debt = cost.saturating_sub(self.saved);
            self.saved = Duration::ZERO;
            // Time counts again only when the debt is paid.
            self.counted_to = now.saturating_add(debt.div_f64(self.share.max(1e-6)));
        }
    }
}

/// What a reading is thought to cost before one was made.
pub(super) fn guess(resident_kib: u64) -> Duration {
    Duration::from_micros(150_u64.saturating_add(resident_kib.saturating_mul(20) / 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads whenever it may over `time`; the CPU spent.
    fn spent_over(time: Duration, share: f64, cost: Duration) -> Duration {
        let mut budget = PssBudget::new(share, Duration::ZERO);
        let (mut now, mut spent) = (Duration::ZERO, Duration::ZERO);
        while now < time {
            now += Duration::from_millis(100);
            if budget.affords(cost, now) {
                budget.spend(cost, now);
                spent += cost;
            }
        }
        spent
    }

    #[test]
    fn the_budget_holds_over_an_hour_whatever_a_reading_costs() {
        let hour = Duration::from_secs(3600);
        for cost_us in [200, 1000, 42_000, 500_000] {
            let cost = Duration::from_micros(cost_us);
            let spent = spent_over(hour, 0.005, cost);
            assert!(spent <= hour.mul_f64(0.005) + AT_START + cost, "{cost:?}: {spent:?}");
            // And what costs much is read all the same.
            assert!(spent >= hour.mul_f64(0.0009).min(cost * 30), "{cost:?}: {spent:?}");
        }
    }

    #[test]
    fn a_dear_surprise_is_paid_off() {
        let mut budget = PssBudget::new(0.01, Duration::ZERO);
        let cheap = Duration::from_millis(1);
        assert!(budget.affords(cheap, Duration::ZERO));
        budget.spend(Duration::from_millis(220), Duration::ZERO);
        assert!(!budget.affords(cheap, Duration::from_secs(19)));
        assert!(budget.affords(cheap, Duration::from_millis(20_200)));
    }

    #[test]
    fn without_a_share_nothing_is_read() {
        for share in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(
                !PssBudget::new(share, Duration::ZERO)
                    .affords(Duration::ZERO, Duration::from_secs(100))
            );
        }
    }
}
