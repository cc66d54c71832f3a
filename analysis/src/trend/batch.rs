//! Windows become ten or twenty batches, and lines through them: least squares with its error, with the load beside time where
//! asked, and Theil–Sen.

use super::window::Curve;
use super::window::Edges;
use crate::stats::count;

/// Batches of a fit.
pub(super) const BATCHES: usize = 10;

/// Batches of a closer look; also the most that [`Batches`] holds.
const MOST: usize = 2 * BATCHES;

/// Up to twenty points, time rising. On the stack, as thousands are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batches {
    x: [f64; MOST],
    y: [f64; MOST],
    n: usize,
}

/// A line through batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// Bytes per second.
    pub(super) slope: f64,
    /// Its standard error.
    pub(super) error: f64,
    /// Degrees of freedom.
    pub(super) degrees: usize,
}

impl Batches {
    /// `parts` equal batches of the part of a life from share `start` on; each the quantile `q` of its windows. A batch with fewer than
    /// two windows is left out.
    pub(super) fn of(
        mid: &[f64],
        values: &[f64],
        start: f64,
        parts: usize,
        q: f64,
        sorted: &mut Vec<f64>,
    ) -> Self {
        let mut batches = Self { x: [0.0; MOST], y: [0.0; MOST], n: 0 };
        let (Some(first), Some(last)) = (mid.first(), mid.last()) else { return batches };
        let edges = Edges::new(first + start * (last - first), last + 1e-9, parts);
        for part in 0..parts.min(MOST) {
            let (left, right) = (edges.at(part), edges.at(part + 1));
            let from = mid.partition_point(|time| *time < left);
            let to = mid.partition_point(|time| *time <= right);
            let (Some(times), Some(held)) = (mid.get(from..to), values.get(from..to)) else {
                continue;
            };
            sorted.clear();
            let mut time = 0.0;
            for (mid, value) in times.iter().zip(held).filter(|(_, value)| !value.is_nan()) {
                time += mid;
                sorted.push(*value);
            }
            if sorted.len() >= 2 {
                sorted.sort_unstable_by(f64::total_cmp);
                batches.push(time / count(sorted.len()), quantile(sorted, q));
            }
        }
        batches
    }

    /// Of the lower envelope.
    pub(super) fn low(
        curve: &Curve,
        start: f64,
        parts: usize,
        q: f64,
        sorted: &mut Vec<f64>,
    ) -> Self {
        Self::of(&curve.mid, &curve.low, start, parts, q, sorted)
    }

    fn push(&mut self, x: f64, y: f64) {
        if let (Some(to_x), Some(to_y)) = (self.x.get_mut(self.n), self.y.get_mut(self.n)) {
            (*to_x, *to_y) = (x, y);
            self.n += 1;
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.n
    }

    pub(super) fn x(&self) -> &[f64] {
        self.x.get(..self.n).unwrap_or(&[])
    }

    pub(super) fn y(&self) -> &[f64] {
        self.y.get(..self.n).unwrap_or(&[])
    }

    /// Last less first of x.
    pub(super) fn span(&self) -> f64 {
        ends(self.x())
    }

    /// Last less first of y.
    pub(super) fn growth(&self) -> f64 {
        ends(self.y())
    }

    /// Least squares. Without spread everything is NaN or infinite, which no bound passes.
    pub(super) fn line(&self) -> Line {
        let (x, y) = (centred(self.x()), centred(self.y()));
        let spread = dot(&x, &x);
        let slope = dot(&x, &y) / spread;
        let squares: f64 = x.iter().zip(&y).map(|(x, y)| (y - slope * x).powi(2)).sum();
        let degrees = self.n.saturating_sub(2);
        let error = (squares / count(degrees.max(1)) / spread).sqrt();
        Line { slope, error, degrees }
    }

    /// Least squares on time and `load` together, and the batches less what the load explains. `load` has as many values.
    pub(super) fn line_beside(&self, load: &[f64]) -> (Line, Self) {
        let width = |values: &[f64]| {
            let (low, high) = values
                .iter()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
            high - low
        };
        let (x_width, load_width) = (width(self.x()), width(load).max(1e-9));
        let x: Vec<f64> = centred(self.x()).iter().map(|x| x / x_width).collect();
        let z: Vec<f64> = centred(load).iter().map(|z| z / load_width).collect();
        let y = centred(self.y());
        let [xx, xz, zz] = inverse(dot(&x, &x), dot(&x, &z), dot(&z, &z), count(self.n));
        let (xy, zy) = (dot(&x, &y), dot(&z, &y));
        let (b, c) = (xx * xy + xz * zy, xz * xy + zz * zy);
        let squares: f64 =
            x.iter().zip(&z).zip(&y).map(|((x, z), y)| (y - b * x - c * z).powi(2)).sum();
        let degrees = self.n.saturating_sub(3);
        let error = (squares / count(degrees) * xx).sqrt() / x_width;
        let mut net = *self;
        for (value, z) in net.y.iter_mut().zip(&z) {
            *value -= c * z;
        }
        (Line { slope: b / x_width, error, degrees }, net)
    }

    /// Median of all pairwise slopes of the last `most` batches.
    pub(super) fn theil_sen(&self, most: usize, sorted: &mut Vec<f64>) -> f64 {
        sorted.clear();
        let skip = self.n.saturating_sub(most);
        let points: &[f64] = self.x().get(skip..).unwrap_or(&[]);
        let values: &[f64] = self.y().get(skip..).unwrap_or(&[]);
        for (at, (x, y)) in points.iter().zip(values).enumerate() {
            for (later_x, later_y) in points.iter().zip(values).skip(at + 1) {
                sorted.push((later_y - y) / (later_x - x));
            }
        }
        median_of(sorted)
    }

    /// Differences of neighbours.
    pub(super) fn increments(&self) -> Vec<f64> {
        self.y().windows(2).map(ends).collect()
    }

    /// Largest fall below an earlier height.
    pub(super) fn drawdown(&self) -> f64 {
        let mut top = f64::NEG_INFINITY;
        let mut most = 0.0_f64;
        for y in self.y() {
            top = top.max(*y);
            most = most.max(top - y);
        }
        most
    }
}

fn ends(values: &[f64]) -> f64 {
    match (values.first(), values.last()) {
        (Some(first), Some(last)) => last - first,
        _ => 0.0,
    }
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / count(values.len())
}

pub(super) fn centred(values: &[f64]) -> Vec<f64> {
    let mean = mean(values);
    values.iter().map(|value| value - mean).collect()
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Standard deviation of all (not of a sample).
pub(super) fn deviation(values: &[f64]) -> f64 {
    let centred = centred(values);
    (dot(&centred, &centred) / count(values.len())).sqrt()
}

/// The median; sorts. NaN: no values.
pub(super) fn median_of(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        at(middle)
    } else {
        f64::midpoint(at(middle.saturating_sub(1)), at(middle))
    }
}

/// Linear interpolation between ranks. `sorted` is not empty.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * count(sorted.len().saturating_sub(1));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let below = place.floor() as usize;
    let low = sorted.get(below).copied().unwrap_or(f64::NAN);
    let high = sorted.get(below + 1).copied().unwrap_or(low);
    let share = place - place.floor();
    if share >= 0.5 { high - (high - low) * (1.0 - share) } else { low + (high - low) * share }
}

/// Inverse of the symmetric [[a, b], [b, d]]; where load and time are one and the same, the pseudo-inverse. `largest` is the largest other
/// eigenvalue of the whole system.
fn inverse(a: f64, b: f64, d: f64, largest: f64) -> [f64; 3] {
    let half = f64::midpoint(a, d);
    let root = (0.25 * (a - d).powi(2) + b * b).sqrt();
    let (high, low) = (half + root, half - root);
    if low > 1e-15 * high.max(largest) {
        let determinant = a * d - b * b;
        return [d / determinant, -b / determinant, a / determinant];
    }
    // Only the direction of the larger eigenvalue is left.
    let (u, v) = if b == 0.0 {
        if a >= d { (1.0, 0.0) } else { (0.0, 1.0) }
    } else {
        let length = (b * b + (high - a).powi(2)).sqrt();
        (b / length, (high - a) / length)
    };
    [u * u / high, u * v / high, v * v / high]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(y: impl Fn(f64) -> f64) -> Batches {
        let mut batches = Batches { x: [0.0; MOST], y: [0.0; MOST], n: 0 };
        for k in 0..10 {
            batches.push(f64::from(k), y(f64::from(k)));
        }
        batches
    }

    #[test]
    fn load_is_taken_out_of_the_slope() {
        let load: Vec<f64> = (0..10).map(|k| f64::from(k % 3)).collect();
        let batches = batches(|x| 5.0 + 2.0 * x + 100.0 * (x % 3.0));
        let (line, net) = batches.line_beside(&load);
        assert!((line.slope - 2.0).abs() < 1e-9 && line.error < 1e-6, "{line:?}");
        assert!(net.increments().iter().all(|step| (step - 2.0).abs() < 1e-9));
        assert_eq!(line.degrees, 7);
    }

    #[test]
    fn a_load_that_is_time_itself_shares_the_slope() {
        let load: Vec<f64> = (0..10).map(f64::from).collect();
        let (line, _) = batches(|x| 4.0 * x).line_beside(&load);
        assert!((line.slope - 2.0).abs() < 1e-9, "{line:?}");
    }

    #[test]
    fn quantiles_lie_between_ranks() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.25), 1.5);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.0), 1.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0, 9.0], 0.5), 3.0);
    }
}
