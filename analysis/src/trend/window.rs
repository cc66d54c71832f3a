//! Readings become equal windows of time, each with its lower envelope and its median.
//!
//! True timestamps, never sample indexes: a gap leaves windows empty instead of pulling its ends together.

use crate::stats::count;

/// A series in windows. An empty window holds NaN.
#[derive(Clone, Debug, Default)]
pub(super) struct Curve {
    /// Middle of each window, seconds, rising.
    pub(super) mid: Vec<f64>,
    /// 10 % quantile of each window, bytes.
    pub(super) low: Vec<f64>,
    /// Median of each window, bytes.
    pub(super) median: Vec<f64>,
}

/// Room that is used again and again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    times: Vec<f64>,
    values: Vec<f64>,
    pub(super) sorted: Vec<f64>,
}

/// What of a series is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// Windows.
    pub(super) windows: usize,
    /// Readings below which a window is empty.
    pub(super) least: usize,
    /// From and to, seconds; `None`: from the first reading to the last.
    pub(super) span: Option<(f64, f64)>,
}

/// Cuts readings (times rising, NaN where one is missing) into windows; no reading gives windows that are all empty.
pub(super) fn windows(t: &[f64], y: &[f64], cut: Cut, scratch: &mut Scratch) -> Curve {
    scratch.times.clear();
    scratch.values.clear();
    for (time, value) in t.iter().zip(y).filter(|(_, value)| !value.is_nan()) {
        scratch.times.push(*time);
        scratch.values.push(*value);
    }
    let (times, values) = (&scratch.times, &scratch.values);
    let empty = vec![f64::NAN; cut.windows];
    let mut curve = Curve { mid: empty.clone(), low: empty.clone(), median: empty };
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return curve };
    let (from, to) = cut.span.unwrap_or((*first, *last));
    let edges = Edges::new(from, to, cut.windows);
    let mut start = times.partition_point(|time| *time < from);
    let slots = curve.mid.iter_mut().zip(curve.low.iter_mut()).zip(curve.median.iter_mut());
    for (window, ((mid, low), median)) in slots.enumerate() {
        let (left, right) = (edges.at(window), edges.at(window + 1));
        *mid = 0.5 * (right + left);
        let rest = times.get(start..).unwrap_or(&[]);
        let length = if window + 1 == cut.windows {
            rest.partition_point(|time| *time <= to)
        } else {
            rest.partition_point(|time| *time < right)
        };
        let held = values.get(start..start + length).unwrap_or(&[]);
        start += length;
        if held.len() >= cut.least.max(1) {
            scratch.sorted.clear();
            scratch.sorted.extend_from_slice(held);
            (*low, *median) = low_and_median(&mut scratch.sorted);
        }
    }
    curve
}

/// The values at ranks ⌊0.1 m⌋ and ⌊0.5 m⌋ of m ≥ 1 values.
fn low_and_median(values: &mut [f64]) -> (f64, f64) {
    let m = values.len();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rank = |p: f64| ((p * count(m)) as usize).min(m.saturating_sub(1));
    let (low, middle) = (rank(0.1), rank(0.5));
    let (_, low_value, above) = values.select_nth_unstable_by(low, f64::total_cmp);
    let low_value = *low_value;
    let median = match middle.checked_sub(low + 1) {
        Some(rank) if rank < above.len() => *above.select_nth_unstable_by(rank, f64::total_cmp).1,
        _ => low_value,
    };
    (low_value, median)
}

/// `parts` + 1 equally spaced edges; the last is exactly `to`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edges {
    from: f64,
    to: f64,
    step: f64,
    parts: usize,
}

impl Edges {
    pub(super) fn new(from: f64, to: f64, parts: usize) -> Self {
        Self { from, to, step: (to - from) / count(parts.max(1)), parts }
    }

    pub(super) fn at(&self, edge: usize) -> f64 {
        if edge >= self.parts { self.to } else { count(edge) * self.step + self.from }
    }
}

/// Linear interpolation at rising places; beyond the ends the end values hold. `xs` rises; no points give NaN.
pub(super) fn interpolate(at: &[f64], xs: &[f64], ys: &[f64]) -> Vec<f64> {
    at.iter().map(|x| interpolate_one(*x, xs, ys)).collect()
}

fn interpolate_one(x: f64, xs: &[f64], ys: &[f64]) -> f64 {
    let n = xs.len().min(ys.len());
    let after = xs.get(..n).unwrap_or(&[]).partition_point(|other| *other <= x);
    let value = |index: usize| ys.get(index).copied().unwrap_or(f64::NAN);
    let place = |index: usize| xs.get(index).copied().unwrap_or(f64::NAN);
    match after.checked_sub(1) {
        None => value(0),
        Some(before) if after == n || place(before) == x => value(before),
        Some(before) => {
            let slope = (value(after) - value(before)) / (place(after) - place(before));
            slope * (x - place(before)) + value(before)
        }
    }
}

/// The points that are not NaN.
pub(super) fn present(xs: &[f64], ys: &[f64]) -> (Vec<f64>, Vec<f64>) {
    xs.iter().zip(ys).filter(|(_, y)| !y.is_nan()).map(|(x, y)| (*x, *y)).unzip()
}
