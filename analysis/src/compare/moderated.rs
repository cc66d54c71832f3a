//! Differences of few pairs: a mean with an interval whose variance leans on what is known of runs of equal builds.
//!
//! s² = (ν₀τ₀² + Σe² + Σ(d − d̄)²) / (ν₀ + E + H − 1) with ν₀ = 6, and d̄ ± t(.95, ν₀ + E + H − 1)·√(s²/H), where e are the differences of E earlier
//! pairs of equal builds, whose mean is zero. A variance from two or three pairs alone would be wild.

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

/// What two runs of one build differ by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    /// Where nothing else is known: deviation of the difference.
    prior: f64,
    /// Sum of squared differences of earlier pairs of equal builds.
    squares: f64,
    /// Their number.
    pairs: usize,
}

// === impl Spread ===

impl Spread {
    /// Earlier pairs of equal builds from which on one pair may decide: what runs differ by is no longer a guess.
    const KNOWN_FROM: usize = 3;

    pub(super) fn new(prior: f64, equals: impl IntoIterator<Item = f64>) -> Self {
        let mut spread = Self { prior, squares: 0.0, pairs: 0 };
        for difference in equals.into_iter().filter(|difference| difference.is_finite()) {
            spread.squares += difference.powi(2);
            spread.pairs = spread.pairs.saturating_add(1);
        }
        spread
    }

    pub(super) fn is_known(&self) -> bool {
        self.pairs >= Self::KNOWN_FROM
    }

    fn freedom(&self, pairs: usize) -> f64 {
        PRIOR_FREEDOM + count(self.pairs) + count(pairs) - 1.0
    }

    fn variance(&self, differences: &[f64], mean: f64) -> f64 {
        let squares: f64 = differences.iter().map(|difference| (difference - mean).powi(2)).sum();
        (PRIOR_FREEDOM * self.prior.powi(2) + self.squares + squares)
            / self.freedom(differences.len())
    }

    fn half_width(&self, variance: f64, pairs: usize) -> Option<f64> {
        let t = StudentsT::new(0.0, 1.0, self.freedom(pairs)).ok()?;
        Some(t.inverse_cdf(0.95) * (variance / count(pairs)).sqrt())
    }
}

/// Mean and half the width of its interval; `None`: no difference.
pub(super) fn moderated(differences: &[f64], spread: &Spread) -> Option<(f64, f64)> {
    if differences.is_empty() {
        return None;
    }
    let mean = differences.iter().sum::<f64>() / count(differences.len());
    Some((mean, spread.half_width(spread.variance(differences, mean), differences.len())?))
}

/// How many pairs would tell if the difference stayed what it is; `None`: not even forty.
pub(super) fn pairs_needed(differences: &[f64], spread: &Spread, margin: f64) -> Option<usize> {
    let (mean, _) = moderated(differences, spread)?;
    let variance = spread.variance(differences, mean);
    (2..=MOST_PAIRS).find(|pairs| {
        spread
            .half_width(variance, *pairs)
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
