//! The curve a + b·x + c·(1 − e^(−x/τ)): growth that comes to an end, with what goes on beside it.

use crate::stats::{Point, count, least_squares};

/// Rate constants tried, as shares of the length: a geometric grid.
const TAUS: u32 = 16;
const SHORTEST: f64 = 0.03;
const LONGEST: f64 = 1.5;

/// The best saturating curve of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Saturation {
    /// b: bytes per unit of x that go on when the rest has come to its end.
    pub slope: f64,
    /// c: bytes that the saturating part comes to; negative where growth speeds up.
    pub rise: f64,
    /// τ in units of x.
    pub tau: f64,
    /// Whether it beats the straight line (F test with 2 and n − 4 degrees of freedom at 5 %).
    pub beats_line: bool,
}

/// Fits the curve; `None`: fewer than 8 points or a series that a line fits already to the last byte.
pub fn saturation(points: &[Point]) -> Option<Saturation> {
    let first = points.first()?;
    let span = points.last()?.x - first.x;
    let line = least_squares(points)?;
    let freedom = count(points.len()) - 4.0;
    // Half a byte of residual per point is rounding, no shape.
    if points.len() < 8 || span <= 0.0 || line.squares <= 0.25 * count(points.len()) {
        return None;
    }
    let step = (LONGEST / SHORTEST).powf(1.0 / f64::from(TAUS - 1));
    let mut best: Option<(f64, Saturation)> = None;
    for index in 0..TAUS {
        let tau = span * SHORTEST * step.powf(f64::from(index));
        let Some((slope, rise, squares)) = fit(points, first.x, span, tau) else { continue };
        if best.is_none_or(|(smallest, _)| squares < smallest) {
            best = Some((squares, Saturation { slope, rise, tau, beats_line: false }));
        }
    }
    let (squares, curve) = best?;
    let gain = (line.squares - squares).max(0.0) / 2.0;
    let noise = (squares / freedom).max(f64::MIN_POSITIVE);
    // Upper 5 % point of F(2, d), in closed form.
    let critical = freedom / 2.0 * (0.05_f64.powf(-2.0 / freedom) - 1.0);
    Some(Saturation { beats_line: gain / noise > critical, ..curve })
}

/// Least squares of y on 1, u and e(u) with u = (x − x₀)/span: (b, c, squares) in the units of the points.
fn fit(points: &[Point], start: f64, span: f64, tau: f64) -> Option<(f64, f64, f64)> {
    let n = count(points.len());
    let rows = || {
        points.iter().map(|point| {
            let u = (point.x - start) / span;
            (u, 1.0 - (-u * span / tau).exp(), point.y)
        })
    };
    let (mut mean_u, mut mean_e, mut mean_y) = (0.0, 0.0, 0.0);
    for (u, e, y) in rows() {
        mean_u += u / n;
        mean_e += e / n;
        mean_y += y / n;
    }
    let (mut uu, mut ue, mut ee, mut uy, mut ey) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (u, e, y) in rows() {
        let (u, e, y) = (u - mean_u, e - mean_e, y - mean_y);
        uu += u * u;
        ue += u * e;
        ee += e * e;
        uy += u * y;
        ey += e * y;
    }
    let determinant = uu * ee - ue * ue;
    if determinant <= 1e-9 * uu * ee {
        return None;
    }
    let b = (uy * ee - ey * ue) / determinant;
    let c = (ey * uu - uy * ue) / determinant;
    let squares =
        rows().map(|(u, e, y)| (y - mean_y - b * (u - mean_u) - c * (e - mean_e)).powi(2)).sum();
    Some((b / span, c, squares))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(n: usize, y: impl Fn(f64) -> f64) -> Vec<Point> {
        (0..n).map(|k| Point { x: 1000.0 * count(k), y: y(count(k)) }).collect()
    }

    #[test]
    fn a_filling_cache_saturates_and_a_line_does_not() {
        let filling =
            saturation(&series(24, |k| 1.0e6 * (1.0 - (-k / 5.0).exp()) + (k * 7.0) % 11.0));
        let filling = filling.unwrap();
        assert!(filling.beats_line && filling.slope.abs() < 5.0, "{filling:?}");
        assert_eq!(saturation(&series(24, |k| 100.0 * k)), None);
    }

    #[test]
    fn a_leak_behind_a_settling_start_keeps_its_slope() {
        let both = saturation(&series(30, |k| {
            2.0e5 * (1.0 - (-k / 3.0).exp()) + 50_000.0 * k + (k * 13.0) % 97.0
        }));
        assert!((both.unwrap().slope - 50.0).abs() < 1.0, "{both:?}");
    }
}
