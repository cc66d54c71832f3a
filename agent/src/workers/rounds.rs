//! How many rounds a loop phase has, and how long one may be.
//!
//! Pure: given a phase, the job's override and the time gone by. A loop by time cuts its rounds at a twentieth of its
//! length, so that a slow tool still leaves enough readings at rest to judge; each reading carries its own count of
//! operations, so rounds need not be equal.

use pgsoak_workloads::workload::{Length, Loop};
use std::time::Duration;

/// Readings at rest that a judgement of rounds needs.
pub const ENOUGH_ROUNDS: u32 = 12;

/// Into how many rounds at least a loop by time is cut.
const ROUNDS_BY_TIME: u32 = 20;

/// The course of one loop phase.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundPlan {
    /// Per worker and round, at least 1.
    pub operations: u64,
    length: Length,
}

impl RoundPlan {
    /// From the phase, the job's own length for loops and its share of the operations.
    pub fn new(phase: &Loop, loop_for: Option<Duration>, scale: f64) -> Self {
        Self {
            operations: phase.scaled_operations(scale),
            length: loop_for.map_or(phase.length, Length::For),
        }
    }

    /// Whether another round begins, `ran` after the first one began.
    pub fn goes_on(&self, rounds_done: u32, ran: Duration) -> bool {
        match self.length {
            Length::Rounds(rounds) => rounds_done < rounds,
            // Readings at rest can take longer than the work: then up to twice the time for the rounds that are needed.
            Length::For(total) => {
                ran < total
                    || (rounds_done < ENOUGH_ROUNDS && ran < total.saturating_mul(2))
                    || rounds_done == 0
            }
        }
    }

    /// After this a round ends although operations are left.
    pub fn longest_round(&self) -> Option<Duration> {
        match self.length {
            Length::Rounds(_) => None,
            Length::For(total) => Some(total / ROUNDS_BY_TIME),
        }
    }

    /// How many rounds there will be; 0: as many as fit in the time.
    pub const fn rounds(&self) -> u32 {
        match self.length {
            Length::Rounds(rounds) => rounds,
            Length::For(_) => 0,
        }
    }

    /// Share of the phase that is done, in [0, 1]. `in_round`: share of the present round.
    pub fn share_done(&self, rounds_done: u32, in_round: f64, ran: Duration) -> f64 {
        let share = match self.length {
            Length::Rounds(0) => 1.0,
            Length::Rounds(rounds) => {
                (f64::from(rounds_done) + in_round.clamp(0.0, 1.0)) / f64::from(rounds)
            }
            Length::For(total) => ran.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE),
        };
        share.clamp(0.0, 1.0)
    }
}

/// When the workers of a loop are asked for malloc's books: before the first round, once a third of the loop is done, at its end, and in
/// between as often as asking stays below half a percent of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BooksPlan {
    asked_at: Option<Duration>,
    took: Duration,
    is_warm: bool,
}

/// Time between two questions, in times of what the last one took.
const BOOKS_PAUSE: u32 = 200;

impl BooksPlan {
    /// Whether to ask now, `ran` after the loop began, with this share of it done.
    pub fn are_due(&self, ran: Duration, share_done: f64, is_over: bool) -> bool {
        let Some(asked_at) = self.asked_at else { return true };
        is_over
            || (!self.is_warm && share_done >= 1.0 / 3.0)
            || ran.saturating_sub(asked_at) >= self.took.saturating_mul(BOOKS_PAUSE)
    }

    /// Notes that it was asked, and what that took.
    pub fn asked(&mut self, ran: Duration, share_done: f64, took: Duration) {
        self.asked_at = Some(ran);
        self.took = took;
        self.is_warm |= share_done >= 1.0 / 3.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgsoak_workloads::workload::Reconnect;

    fn plan(length: Length, loop_for: Option<Duration>, scale: f64) -> RoundPlan {
        let phase =
            Loop { workers: 1, operations: 1000, length, rate: None, reconnect: Reconnect::Never };
        RoundPlan::new(&phase, loop_for, scale)
    }

    #[test]
    fn a_scale_takes_its_share_and_leaves_at_least_one_operation() {
        assert_eq!(plan(Length::Rounds(3), None, 0.05).operations, 50);
        assert_eq!(plan(Length::Rounds(3), None, 1e-9).operations, 1);
        assert_eq!(plan(Length::Rounds(3), None, f64::NAN).operations, 1);
        assert_eq!(plan(Length::Rounds(3), None, 2.0).operations, 2000);
    }

    #[test]
    fn rounds_are_counted_unless_the_job_sets_a_time() {
        let counted = plan(Length::Rounds(3), None, 1.0);
        assert!(counted.goes_on(2, Duration::from_secs(9999)));
        assert!(!counted.goes_on(3, Duration::ZERO));
        assert_eq!(counted.longest_round(), None);
        let timed = plan(Length::Rounds(3), Some(Duration::from_secs(60)), 1.0);
        assert!(timed.goes_on(40, Duration::from_secs(59)));
        assert!(!timed.goes_on(12, Duration::from_secs(60)));
        assert_eq!(timed.longest_round(), Some(Duration::from_secs(3)));
        assert_eq!(timed.rounds(), 0);
    }

    #[test]
    fn books_are_asked_at_the_ends_after_a_third_and_rarely_in_between() {
        let second = Duration::from_secs(1);
        let (mut books, mut asked) = (BooksPlan::default(), Vec::new());
        for round in 0..=60_u32 {
            let share = f64::from(round) / 60.0;
            if books.are_due(second * round, share, round == 60) {
                books.asked(second * round, share, second / 10);
                asked.push(round);
            }
        }
        // A tenth of a second each: twenty seconds apart.
        assert_eq!(asked, [0, 20, 40, 60]);
        books.asked(second * 60, 1.0, second * 3);
        assert!(
            !books.are_due(second * 600, 1.0, false) && books.are_due(second * 660, 1.0, false)
        );
    }

    #[test]
    fn slow_readings_get_up_to_twice_the_time() {
        let timed = plan(Length::For(Duration::from_secs(10)), None, 1.0);
        assert!(timed.goes_on(5, Duration::from_secs(15)));
        assert!(!timed.goes_on(5, Duration::from_secs(20)));
        assert!(timed.goes_on(0, Duration::from_secs(99)), "one round at least");
    }

    #[test]
    fn the_share_done_stays_a_share() {
        let timed = plan(Length::For(Duration::ZERO), None, 1.0);
        assert!((0.0..=1.0).contains(&timed.share_done(0, 0.0, Duration::ZERO)));
        let counted = plan(Length::Rounds(4), None, 1.0);
        assert!((counted.share_done(1, 0.5, Duration::ZERO) - 0.375).abs() < 1e-9);
        assert!((counted.share_done(9, 9.0, Duration::ZERO) - 1.0).abs() < 1e-9);
    }
}
