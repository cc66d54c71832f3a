//! Whether a curve levels off: a + bt + c(1 − e^(−t/τ)) against a line.
//!
//! A cache that fills grows like a leak for a while. Where the saturating curve beats the line, what counts is the linear rest beside
//! it: the best fit's, and the smallest among the fits that are nearly as good.

use super::batch::Batches;
use super::batch::centred;
use super::batch::dot;
use super::student::upper_quantile;
use crate::stats::count;

/// Time constants that are tried, as shares of the length, on a log grid from .03 to 1.5.
const TAUS: i32 = 16;

/// Whether the curve is significantly concave and what grows beside the saturation may be less than `threshold` bytes per second.
pub(super) fn saturates(batches: &Batches, threshold: f64) -> bool {
    let n = batches.len();
    let (Some(length), Some(degrees)) = (batches.x().last(), n.checked_sub(4)) else {
        return false;
    };
    let times: Vec<f64> = batches.x().iter().map(|x| x / length).collect();
    let (time, bytes) = (centred(&times), centred(batches.y()));
    let spread = dot(&time, &time);
    let line_slope = dot(&time, &bytes) / spread;
    let line: f64 =
        1e-9 + time.iter().zip(&bytes).map(|(t, y)| (y - line_slope * t).powi(2)).sum::<f64>();
    let mut fits = Vec::new();
    for k in 0..TAUS {
        let tau = 0.03 * (1.5_f64 / 0.03).powf(f64::from(k) / f64::from(TAUS - 1));
        let curve: Vec<f64> = times.iter().map(|u| 1.0 - (-u / tau).exp()).collect();
        let curve = centred(&curve);
        // The part of the curve that no line holds.
        let along = dot(&time, &curve) / spread;
        let bent: Vec<f64> = curve.iter().zip(&time).map(|(e, t)| e - along * t).collect();
        let height = dot(&bent, &bytes) / dot(&bent, &bent);
        let slope = line_slope - height * along;
        let squares: f64 = time
            .iter()
            .zip(&bent)
            .zip(&bytes)
            .map(|((t, e), y)| (y - line_slope * t - height * e).powi(2))
            .sum();
        if height > 0.0 {
            fits.push((squares + 1e-9, slope / length));
        }
    }
    let best = fits.iter().copied().min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let Some((squares, slope)) = best else { return false };
    let degrees_f = count(degrees);
    // F.95(2, d) has a closed form, and F.90(1, d) is the square of t.95(d).
    let two = degrees_f / 2.0 * (0.05_f64.powf(-2.0 / degrees_f) - 1.0);
    let one = upper_quantile(0.05, u32::try_from(degrees).unwrap_or(u32::MAX)).powi(2);
    if line < squares * (1.0 + 2.0 * two / degrees_f) {
        return false;
    }
    let nearly = squares * (1.0 + one / degrees_f);
    let smallest =
        fits.iter().filter(|fit| fit.0 <= nearly).map(|fit| fit.1).fold(f64::INFINITY, f64::min);
    slope < threshold || smallest < 0.5 * threshold
}
