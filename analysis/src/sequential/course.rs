//! When a job that goes on is looked at, and which of these looks may prove a leak.

/// Growth over time proves nothing before this many seconds.
pub const EARLIEST_PROOF_S: f64 = 6.0 * 3_600.0;

/// Declared warm-ups that must have passed before growth over time proves anything.
const WARM_UPS: f64 = 4.0;

/// The first look, at the earliest.
const FIRST_LOOK_S: f64 = 60.0;

/// A look later than this share of the planned time is left to the verdict at the end.
const LAST_LOOK: f64 = 0.95;

/// How long a job's loops are to run, and how long they warm up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Course {
    /// Seconds of all loops together.
    pub planned_s: f64,
    /// Declared warm-up, seconds.
    pub warm_up_s: f64,
}

impl Course {
    /// From when on growth over time may prove a leak, seconds.
    pub fn earliest_proof_s(&self) -> f64 {
        EARLIEST_PROOF_S.max(WARM_UPS * self.warm_up_s)
    }

    /// The moments of the looks, seconds of loop, rising: each 1.4 times as far as the one before, so that all of them together cost
    /// about three and a half times the last; one of them is the earliest that may prove.
    pub fn looks(&self) -> Vec<f64> {
        let anchor = self.earliest_proof_s();
        if !(self.planned_s.is_finite() && anchor.is_finite()) {
            return Vec::new();
        }
        let last = LAST_LOOK * self.planned_s;
        let mut looks = Vec::new();
        let mut before = anchor / std::f64::consts::SQRT_2;
        while before >= FIRST_LOOK_S {
            looks.push(before);
            before /= std::f64::consts::SQRT_2;
        }
        looks.reverse();
        let mut after = anchor;
        while after <= last {
            looks.push(after);
            after *= std::f64::consts::SQRT_2;
        }
        looks.retain(|at| *at <= last);
        looks
    }

    /// Whether growth over time may prove a leak at this moment.
    pub fn may_prove(&self, at_s: f64) -> bool {
        at_s >= self.earliest_proof_s() * (1.0 - 1e-9)
    }

    /// How many looks may prove a leak by growth over time; at least 1. They share the chance of a false alarm.
    pub fn proofs(&self) -> u32 {
        let proving = self.looks().into_iter().filter(|at| self.may_prove(*at)).count();
        u32::try_from(proving).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_looked_at_in_growing_steps_and_proven_from_six_hours_on() {
        let day = Course { planned_s: 86_400.0, warm_up_s: 0.0 };
        let looks = day.looks();
        assert!(looks.is_sorted_by(|a, b| a < b), "{looks:?}");
        assert!(looks.first().is_some_and(|at| (60.0..90.0).contains(at)), "{looks:?}");
        assert!(looks.iter().any(|at| (at - EARLIEST_PROOF_S).abs() < 1e-6));
        assert!(looks.last().is_some_and(|at| *at < 0.95 * 86_400.0));
        assert_eq!(day.proofs(), 4, "{looks:?}");
        // What all looks read, beside what the verdict reads in the end.
        assert!(looks.iter().sum::<f64>() < 3.5 * 86_400.0);
    }

    #[test]
    fn a_long_warm_up_puts_proofs_off() {
        let course = Course { planned_s: 86_400.0, warm_up_s: 3.0 * 3_600.0 };
        let at = course.looks().into_iter().find(|at| course.may_prove(*at)).unwrap();
        assert!((at - 12.0 * 3_600.0).abs() < 1e-6, "{at}");
    }

    #[test]
    fn short_and_endless_jobs_have_their_looks() {
        assert!(Course { planned_s: 30.0, warm_up_s: 0.0 }.looks().is_empty());
        assert!(Course { planned_s: f64::INFINITY, warm_up_s: 0.0 }.looks().is_empty());
        assert!(Course { planned_s: f64::NAN, warm_up_s: 0.0 }.looks().is_empty());
        let hour = Course { planned_s: 3_600.0, warm_up_s: 0.0 };
        assert!(!hour.looks().is_empty());
        assert!(hour.looks().iter().all(|at| !hour.may_prove(*at)));
        assert_eq!(hour.proofs(), 1);
    }
}
