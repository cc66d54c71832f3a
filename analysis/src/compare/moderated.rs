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

/// Between two runs, RssAnon per operation moves by the pages that are touched early or late (the threshold's worth), or by a twentieth.
const PAGES_SHARE: f64 = 0.05;
/// Bytes that contexts count move less.
const BOOKS_SHARE: f64 = 0.02;
/// And by this much at least, bytes per operation.
const BOOKS_LEAST: f64 = 0.5;

/// Deviation of a difference of two runs' growth per operation, until earlier pairs of equal builds say better. An interval from within a run
/// knows nothing of it: two runs of one build differed by eight of its widths.
pub(super) fn rate_deviation(is_pages: bool, threshold: f64, slope: f64) -> f64 {
    let one = match is_pages {
        true => threshold.max(PAGES_SHARE * slope.abs()),
        false => BOOKS_LEAST.max(BOOKS_SHARE * slope.abs()),
    };
    std::f64::consts::SQRT_2 * one
}

/// Growth per operation: `same` is told by the intervals of the runs alone, a difference must exceed what runs differ by as well.
/// Gives the answer and half the width of the interval that decided it.
pub(super) fn rate_answer(mean: f64, within: f64, between: f64, margin: f64) -> (Compared, f64) {
    let wide = within.max(between);
    match answer(mean - within, mean + within, margin) {
        Compared::Same => (Compared::Same, within),
        _ => match answer(mean - wide, mean + wide, margin) {
            Compared::Same => (Compared::CantTell, wide),
            answer => (answer, wide),
        },
    }
}

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
