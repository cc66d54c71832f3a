//! One series, judged: how much it grows per operation, and in what shape.

use crate::rounds::{Allowance, FEWEST_ROUNDS};
use crate::stats::{Point, count, saturation, theil_sen, thinned, warm_up};

/// Most points of which pairs are formed.
const MOST_POINTS: usize = 120;

/// Most points among which the end of the warm-up is looked for; longer series are thinned to means of neighbours first.
const MOST_READINGS: usize = 480;

/// Stretches on which growth is counted where single rounds are too fine.
const STRETCHES: usize = 12;

/// Pages over fewer operations than this are taken for a warm-up in page steps, which looks like a line then …
const FEW_OPERATIONS: f64 = 200.0;

/// … unless they come to so many bytes: no backend was seen to warm up by more once a third of its rounds was dropped.
const NO_WARM_UP: f64 = 131_072.0;

/// From which growth on a series counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Threshold {
    /// Bytes that somebody counts: 1 byte per operation.
    Books,
    /// Pages: 4 bytes per operation, or four pages over the operations of the fit, whichever is more.
    Pages,
}

impl Threshold {
    /// Bytes per operation, for a fit over so many operations.
    pub fn per_operation(self, operations: f64) -> f64 {
        match self {
            Self::Books => 1.0,
            Self::Pages => (16384.0 / operations.max(1.0)).max(4.0),
        }
    }
}

/// How a series behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// Grows steadily, above the threshold.
    Steady,
    /// No growth above the threshold.
    Level,
    /// Grew, and came to its end.
    Plateau,
    /// Grows and gives back.
    GivenBack,
    /// Above the threshold, but neither steady nor at an end.
    Unsteady,
}

/// A series' growth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// Bytes per operation, above the allowance.
    pub slope: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Operations in the fit.
    pub operations: f64,
    /// Rounds in the fit.
    pub rounds: usize,
    /// Rounds left out at the start.
    pub warm_up: usize,
    /// Bytes from first to last reading of the fit, above the allowance.
    pub bytes: f64,
    /// The threshold that it was held against, bytes per operation.
    pub threshold: f64,
    /// The smallest growth that would have failed here, bytes per operation.
    pub limit: f64,
    /// Pages, and so few of them over so few operations that a warm-up looks the same.
    pub is_few: bool,
    /// The verdict of it.
    pub shape: Shape,
}

impl Growth {
    /// Whether it is a leak.
    pub fn is_leak(&self) -> bool {
        self.shape == Shape::Steady
    }

    /// Half of the interval's width.
    pub fn half_width(&self) -> f64 {
        (self.high - self.low) / 2.0
    }
}

/// Judges a series with rising x; `None`: fewer than twelve rounds.
pub(crate) fn growth(
    points: &[Point],
    threshold: Threshold,
    allowance: Allowance,
    alpha: f64,
) -> Option<Growth> {
    let rounds = points.len().checked_sub(1)?;
    if rounds < FEWEST_ROUNDS {
        return None;
    }
    let excess: Vec<Point> = points
        .iter()
        .map(|point| Point { x: point.x, y: point.y - allowance.slope * point.x })
        .collect();
    let dense = thinned(&excess, MOST_READINGS);
    let size = points.len().div_ceil(dense.len().max(1));
    let dropped = warm_up(&dense, (dense.len() - 1) / 3);
    let fit = dense.get(dropped..)?;
    let (first, last) = (fit.first()?, fit.last()?);
    let operations = last.x - first.x;
    let is_paged = threshold == Threshold::Pages;
    let threshold = threshold.per_operation(operations);
    let is_short = is_paged && operations < FEW_OPERATIONS;
    let mut judged = Growth {
        slope: 0.0,
        low: 0.0,
        high: 0.0,
        operations,
        rounds: rounds.saturating_sub(dropped * size),
        warm_up: dropped * size,
        bytes: last.y - first.y,
        threshold,
        limit: threshold + allowance.half_width,
        is_few: is_short && last.y - first.y < NO_WARM_UP,
        shape: Shape::Level,
    };
    let floor = if is_short { NO_WARM_UP / operations.max(1.0) } else { 0.0 };
    judged.limit = judged.limit.max(floor);
    let (least, most) = range(fit);
    if most - least <= 0.0 {
        judged.low = -allowance.half_width;
        judged.high = allowance.half_width;
        return Some(judged);
    }
    let few = thinned(fit, MOST_POINTS);
    let slope = theil_sen(&few, alpha)?;
    judged.slope = slope.slope;
    judged.low = widened(slope.slope, slope.low, allowance.half_width, -1.0);
    judged.high = widened(slope.slope, slope.high, allowance.half_width, 1.0);
    judged.limit = (threshold + (judged.slope - judged.low)).max(floor);
    judged.shape = shape(&judged, fit, &few, alpha);
    if matches!(judged.shape, Shape::Plateau | Shape::GivenBack) {
        // What goes on after the plateau is judged by its last half.
        let late = late_slope(&few, alpha).unwrap_or(slope);
        judged.limit = (threshold + (late.slope - late.low).max(0.0)).max(floor);
    }
    Some(judged)
}

fn shape(judged: &Growth, fit: &[Point], few: &[Point], alpha: f64) -> Shape {
    let threshold = judged.threshold;
    if judged.high <= threshold {
        return Shape::Level;
    }
    let curve = saturation(few).filter(|curve| curve.beats_line && curve.rise > 0.0);
    let comes_to_an_end = curve.is_some_and(|curve| curve.slope < threshold);
    let late = late_slope(few, alpha);
    if judged.low > threshold
        && !judged.is_few
        && !comes_to_an_end
        && share_of_growth(fit) >= 2.0 / 3.0
        && late.is_some_and(|late| late.slope >= 0.6 * judged.slope)
    {
        return Shape::Steady;
    }
    if late.is_some_and(|late| late.high <= threshold) || comes_to_an_end {
        return Shape::Plateau;
    }
    if is_given_back(fit, threshold) {
        return Shape::GivenBack;
    }
    if judged.slope <= threshold { Shape::Level } else { Shape::Unsteady }
}

fn late_slope(points: &[Point], alpha: f64) -> Option<crate::stats::Slope> {
    theil_sen(points.get(points.len() / 2..)?, alpha.max(0.05))
}

/// The end of an interval, moved outwards by an independent half width.
fn widened(middle: f64, end: f64, half_width: f64, sign: f64) -> f64 {
    middle + sign * (end - middle).hypot(half_width)
}

/// Share of rounds, or of twelve equal stretches, in which it grew.
fn share_of_growth(points: &[Point]) -> f64 {
    let single = share_of_rises(points.iter().map(|point| point.y));
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return single };
    let length = (last.x - first.x) / count(STRETCHES);
    let ends = (0..=STRETCHES).filter_map(|stretch| {
        let until = first.x + length * count(stretch);
        let after = points.partition_point(|point| point.x <= until + length * 1e-9);
        points.get(after.checked_sub(1)?).map(|point| point.y)
    });
    single.max(share_of_rises(ends))
}

fn share_of_rises(values: impl Iterator<Item = f64>) -> f64 {
    let (mut rises, mut steps) = (0, 0);
    let mut before: Option<f64> = None;
    for value in values {
        if let Some(before) = before {
            steps += 1;
            rises += usize::from(value > before);
        }
        before = Some(value);
    }
    if steps == 0 { 0.0 } else { count(rises) / count(steps) }
}

/// Falls by more than half of its range, and its floor does not rise above the threshold.
fn is_given_back(points: &[Point], threshold: f64) -> bool {
    let (least, most) = range(points);
    let mut top = f64::NEG_INFINITY;
    let mut fall = 0.0_f64;
    for point in points {
        top = top.max(point.y);
        fall = fall.max(top - point.y);
    }
    let third = points.len() / 3;
    let (Some(early), Some(late)) = (points.get(..third), points.get(points.len() - third..))
    else {
        return false;
    };
    let lowest = |part: &[Point]| part.iter().copied().min_by(|a, b| a.y.total_cmp(&b.y));
    let (Some(early), Some(late)) = (lowest(early), lowest(late)) else { return false };
    fall > 0.5 * (most - least) && late.y - early.y <= threshold * (late.x - early.x)
}

fn range(points: &[Point]) -> (f64, f64) {
    points.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), point| {
        (least.min(point.y), most.max(point.y))
    })
}
