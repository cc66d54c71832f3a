//! Differences of few pairs: a mean with an interval whose variance leans on what is known of runs of equal builds.
//!
//! s² = (ν₀τ₀² + Σ(d − d̄)²) / (ν₀ + H − 1) with ν₀ = 6, and d̄ ± t(.95, ν₀ + H − 1)·√(s²/H). A variance from two or three pairs alone would be wild.

use crate::result::Compared;
use crate::stats::count;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Prior degrees of freedom of the run-to-run deviation.
const PRIOR_FREEDOM: f64 = 6.0;

/// √2 × 2 %: the deviation of a difference of two runs on the log scale, until earlier pairs of equal builds say better.
pub(super) const LOG_DEVIATION: f64 = 0.028_284_271_247_461_9;

/// log 1.05.
pub(super) const LOG_MARGIN: f64 = 0.048_790_164_169_432;

/// Most pairs that are asked for.
const MOST_PAIRS: usize = 40;

/// Mean and half the width of its interval; `None`: no difference.
pub(super) fn moderated(differences: &[f64], deviation: f64) -> Option<(f64, f64)> {
    if differences.is_empty() {
        return None;
    }
    let mean = differences.iter().sum::<f64>() / count(differences.len());
    Some((mean, half_width(variance(differences, mean, deviation), differences.len())?))
}

fn variance(differences: &[f64], mean: f64, deviation: f64) -> f64 {
    let n = count(differences.len());
    let squares: f64 = differences.iter().map(|difference| (difference - mean).powi(2)).sum();
    (PRIOR_FREEDOM * deviation.powi(2) + squares) / (PRIOR_FREEDOM + n - 1.0)
}

fn half_width(variance: f64, pairs: usize) -> Option<f64> {
    let n = count(pairs);
    let t = StudentsT::new(0.0, 1.0, PRIOR_FREEDOM + n - 1.0).ok()?;
    Some(t.inverse_cdf(0.95) * (variance / n).sqrt())
}

/// How many pairs would tell if the difference stayed what it is; `None`: not even forty.
pub(super) fn pairs_needed(differences: &[f64], deviation: f64, margin: f64) -> Option<usize> {
    let (mean, _) = moderated(differences, deviation)?;
    let variance = variance(differences, mean, deviation);
    (2..=MOST_PAIRS).find(|pairs| {
        half_width(variance, *pairs)
            .is_some_and(|width| answer(mean - width, mean + width, margin) != Compared::CantTell)
    })
}

/// Where an interval lies.
pub(super) fn answer(low: f64, high: f64, margin: f64) -> Compared {
    if low > margin {
        Compared::Worse
    } else if high < -margin {
        Compared::Better
    } else if low >= -margin && high <= margin {
        Compared::Same
    } else {
        Compared::CantTell
    }
}
