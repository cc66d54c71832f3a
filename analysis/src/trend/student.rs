//! Upper quantiles of Student's t for whole degrees of freedom.
//!
//! From the finite sums for the two-sided probability (Abramowitz and Stegun 26.7.3 and 26.7.4), inverted by bisection of the angle:
//! exact to a few units in the last place, the same on every machine, and without a series that may not converge.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

/// Most degrees of freedom that a table holds; batches are few.
const MOST: usize = 24;

/// Upper quantiles of one `alpha` for 1 to 24 degrees of freedom, reckoned once.
#[derive(Clone, Debug)]
pub(super) struct Quantiles {
    of: [f64; MOST],
}

impl Quantiles {
    pub(super) fn new(alpha: f64) -> Self {
        let mut of = [f64::INFINITY; MOST];
        for (degrees, quantile) in (1_u32..).zip(of.iter_mut()) {
            *quantile = upper_quantile(alpha, degrees);
        }
        Self { of }
    }

    /// Infinite where there are no degrees of freedom, so that no bound can hold.
    pub(super) fn at(&self, degrees: usize) -> f64 {
        let last = degrees.min(MOST).checked_sub(1);
        last.and_then(|index| self.of.get(index)).copied().unwrap_or(f64::INFINITY)
    }
}

/// The t that a variable of `degrees` exceeds with probability `alpha`, 0 < alpha ≤ 0.5.
pub(super) fn upper_quantile(alpha: f64, degrees: u32) -> f64 {
    if !(alpha > 0.0 && alpha <= 0.5) || degrees == 0 {
        return f64::INFINITY;
    }
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        if 0.5 * (1.0 - within(middle, degrees)) > alpha {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::from(degrees).sqrt() * f64::midpoint(low, high).tan()
}

/// P(|T| < √ν tan θ).
fn within(theta: f64, degrees: u32) -> f64 {
    let (sin, cos) = theta.sin_cos();
    let odd = degrees % 2 == 1;
    let mut term = if odd { cos } else { 1.0 };
    let mut sum = if degrees == 1 { 0.0 } else { term };
    // Factors (k + 1) / (k + 2) from k = 1 (odd) or 0 (even), in steps of 2.
    let mut k = if odd { 1.0 } else { 0.0 };
    while k + 3.0 < f64::from(degrees) + 0.5 {
        term *= (k + 1.0) / (k + 2.0) * cos * cos;
        sum += term;
        k += 2.0;
    }
    if odd { FRAC_2_PI * (theta + sin * sum) } else { sin * sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (alpha, degrees, t) in [
            (0.025, 1, 12.706_204_736_174_7),
            (0.05, 2, 2.919_985_580_353_73),
            (0.005, 3, 5.840_909_309_733_36),
            (0.05, 7, 1.894_578_605_090_01),
            (0.005, 8, 3.355_387_331_333_40),
            (0.05, 16, 1.745_883_676_276_25),
            (0.005 / 18.0, 8, 5.527_352_440_326_04),
        ] {
            let found = upper_quantile(alpha, degrees);
            assert!((found - t).abs() < 1e-6, "{alpha} {degrees}: {found}");
        }
        assert_eq!(upper_quantile(0.0, 8), f64::INFINITY);
        assert_eq!(Quantiles::new(0.05).at(0), f64::INFINITY);
    }
}
