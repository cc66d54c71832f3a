//! Slopes and their intervals, robustly: Theil–Sen with the exact Kendall interval, least squares, and the saturating curve.
//!
//! All functions take points with rising x and finite values, and give finite values back; too few points give `None`.

mod kendall;
mod saturation;

pub use kendall::kendall_cut;
pub use saturation::{Saturation, saturation};

/// One reading: x (operations, seconds), y (bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Operations or seconds.
    pub x: f64,
    /// Bytes.
    pub y: f64,
}

/// A slope and its interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slope {
    /// Bytes per unit of x.
    pub slope: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// A straight line by least squares.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Line {
    /// Bytes at x = 0.
    pub intercept: f64,
    /// Bytes per unit of x.
    pub slope: f64,
    /// Sum of squared residuals.
    pub squares: f64,
}

/// Median of all pairwise slopes, with the interval that inverts Kendall's test (Sen 1968; exact up to 40 points, normal beyond).
///
/// `alpha` is the share outside the interval, both sides together. `None`: fewer than 5 points, or so few that no interval of that
/// confidence exists.
pub fn theil_sen(points: &[Point], alpha: f64) -> Option<Slope> {
    if points.len() < 5 {
        return None;
    }
    let mut slopes = Vec::with_capacity(points.len() * (points.len() - 1) / 2);
    for (at, left) in points.iter().enumerate() {
        for right in points.iter().skip(at + 1) {
            let run = right.x - left.x;
            if run > 0.0 {
                slopes.push((right.y - left.y) / run);
            }
        }
    }
    slopes.sort_by(f64::total_cmp);
    let cut = kendall_cut(points.len(), alpha)?;
    let low = slopes.get(cut.checked_sub(1)?)?;
    let high = slopes.get(slopes.len().checked_sub(cut)?)?;
    Some(Slope { slope: median_of_sorted(&slopes)?, low: *low, high: *high })
}

/// Median; `None`: no values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    median_of_sorted(&sorted)
}

fn median_of_sorted(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(*upper);
    }
    let lower = sorted.get(middle.checked_sub(1)?)?;
    Some(f64::midpoint(*lower, *upper))
}

/// Least squares; `None`: fewer than 3 points or no spread in x.
pub fn least_squares(points: &[Point]) -> Option<Line> {
    if points.len() < 3 {
        return None;
    }
    let n = count(points.len());
    let mean_x = points.iter().map(|point| point.x).sum::<f64>() / n;
    let mean_y = points.iter().map(|point| point.y).sum::<f64>() / n;
    let spread: f64 = points.iter().map(|point| (point.x - mean_x).powi(2)).sum();
    if spread <= 0.0 {
        return None;
    }
    let together: f64 = points.iter().map(|point| (point.x - mean_x) * (point.y - mean_y)).sum();
    let slope = together / spread;
    let squares =
        points.iter().map(|point| (point.y - mean_y - slope * (point.x - mean_x)).powi(2)).sum();
    Some(Line { intercept: mean_y - slope * mean_x, slope, squares })
}

/// How many of the first points to drop: the k0 ≤ `most` whose removal leaves the smallest residual error of a line.
///
/// A further point is dropped only where that lowers the error by 2 % at least, so that a clean line keeps its beginning.
pub fn warm_up(points: &[Point], most: usize) -> usize {
    let mut best = (0, f64::INFINITY);
    for dropped in 0..=most {
        let Some(rest) = points.get(dropped..) else { break };
        let Some(line) = least_squares(rest) else { break };
        let error = (line.squares / count(rest.len().saturating_sub(2).max(1))).sqrt();
        if error < best.1 * 0.98 {
            best = (dropped, error);
        }
        if error == 0.0 {
            break;
        }
    }
    best.0
}

/// At most `most` points, each the mean of neighbours.
pub fn thinned(points: &[Point], most: usize) -> Vec<Point> {
    let size = points.len().div_ceil(most.max(1)).max(1);
    points
        .chunks(size)
        .map(|chunk| {
            let n = count(chunk.len());
            Point {
                x: chunk.iter().map(|point| point.x).sum::<f64>() / n,
                y: chunk.iter().map(|point| point.y).sum::<f64>() / n,
            }
        })
        .collect()
}

/// A count as a number to reckon with (exact up to 2⁵³).
pub fn count(n: usize) -> f64 {
    bytes(u64::try_from(n).unwrap_or(u64::MAX))
}

/// Bytes or operations as a number to reckon with (exact up to 2⁵³).
#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 2^53, and beyond that a rounding of 2^-53"
)]
pub fn bytes(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize, slope: f64) -> Vec<Point> {
        (0..n).map(|k| Point { x: count(k), y: 100.0 + slope * count(k) }).collect()
    }

    #[test]
    fn a_clean_line_has_no_width() {
        let slope = theil_sen(&line(13, 2.5), 0.05).unwrap();
        assert_eq!((slope.low, slope.slope, slope.high), (2.5, 2.5, 2.5));
        assert_eq!(warm_up(&line(30, 3.0), 10), 0);
    }

    #[test]
    fn one_wild_reading_does_not_move_the_slope() {
        let mut points = line(21, 1.0);
        points[20].y += 1.0e9;
        assert!((theil_sen(&points, 0.05).unwrap().slope - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_beginning_of_a_settling_series_is_dropped() {
        let points: Vec<Point> = (0..30)
            .map(|k| Point { x: count(k), y: if k < 4 { 1000.0 * count(k) } else { 4000.0 } })
            .collect();
        assert_eq!(warm_up(&points, 10), 4);
    }

    #[test]
    fn too_few_points_are_no_slope() {
        assert_eq!(theil_sen(&line(4, 1.0), 0.05), None);
        assert_eq!(theil_sen(&[], 0.05), None);
    }

    proptest::proptest! {
        #[test]
        fn the_interval_holds_the_slope(ys in proptest::collection::vec(-1.0e12..1.0e12, 5..80)) {
            let points: Vec<Point> =
                ys.iter().enumerate().map(|(k, y)| Point { x: count(k), y: *y }).collect();
            if let Some(slope) = theil_sen(&points, 0.05) {
                proptest::prop_assert!(slope.low <= slope.slope && slope.slope <= slope.high);
            }
        }
    }
}
