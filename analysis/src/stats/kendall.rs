//! Which order statistics of the pairwise slopes are the ends of the interval.

/// Up to so many points the null distribution of inversions is counted exactly.
const EXACT_UP_TO: usize = 40;

/// 1-based rank m of the lower end among the sorted pairwise slopes of n points; the upper end is the m-th from above.
///
/// The largest m with P(inversions ≤ m − 1) ≤ alpha / 2 under no trend. `None`: there is none.
pub fn kendall_cut(n: usize, alpha: f64) -> Option<usize> {
    let cut = if n <= EXACT_UP_TO { exact(n, alpha / 2.0) } else { normal(n, alpha / 2.0) };
    (cut > 0).then_some(cut)
}

/// By counting permutations with k inversions, each divided by n! on the way.
fn exact(n: usize, tail: f64) -> usize {
    let mut shares = vec![1.0_f64];
    for size in 2..=n {
        // A permutation of `size` is one of `size - 1` with the largest element put in at one of `size` places.
        let mut next = vec![0.0; shares.len() + size - 1];
        let mut window = 0.0;
        for at in 0..next.len() {
            window += shares.get(at).copied().unwrap_or(0.0);
            if let Some(gone) = at.checked_sub(size) {
                window -= shares.get(gone).copied().unwrap_or(0.0);
            }
            if let Some(slot) = next.get_mut(at) {
                *slot = (window / super::count(size)).max(0.0);
            }
        }
        shares = next;
    }
    let mut below = 0.0;
    let mut cut = 0;
    for share in shares {
        below += share;
        if below > tail {
            break;
        }
        cut += 1;
    }
    cut
}

fn normal(n: usize, tail: f64) -> usize {
    let n = super::count(n);
    let variance = n * (n - 1.0) * (2.0 * n + 5.0) / 18.0;
    let pairs = n * (n - 1.0) / 2.0;
    let cut = (pairs - normal_upper_quantile(tail) * variance.sqrt()) / 2.0;
    let mut whole = 0;
    // The number is at most some thousands; counting up avoids a lossy cast.
    while super::count(whole + 1) <= cut {
        whole += 1;
    }
    whole
}

/// Upper quantile of the standard normal distribution.
fn normal_upper_quantile(tail: f64) -> f64 {
    use statrs::distribution::{ContinuousCDF, Normal};
    Normal::standard().inverse_cdf(1.0 - tail.clamp(1e-12, 0.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hollander and Wolfe, table A.30: upper tail points of Kendall's K.
    #[test]
    fn agrees_with_the_printed_table() {
        // n = 10: P(K >= 23) = .023, so C = 21 and the ends are the 12th of 45 from each side.
        assert_eq!(kendall_cut(10, 0.05), Some(12));
        // n = 5: P(K >= 10) = .0083, P(K >= 8) = .042.
        assert_eq!(kendall_cut(5, 0.05), Some(1));
        assert_eq!(kendall_cut(4, 0.05), None);
    }

    #[test]
    fn exact_and_normal_meet() {
        let exact_cut = exact(40, 0.025);
        let normal_cut = normal(40, 0.025);
        assert!(exact_cut.abs_diff(normal_cut) <= 2, "{exact_cut} {normal_cut}");
    }
}
