//! One curve is judged: lines through its batches from three starts, and the guards that keep warm-up, steps, sawteeth and plateaus from
//! being called leaks.

use super::batch::BATCHES;
use super::batch::Batches;
use super::batch::deviation;
use super::batch::mean;
use super::saturation::saturates;
use super::student::Quantiles;
use super::window::Curve;
use std::fmt;

/// By what one curve is judged.
#[derive(Clone, Debug)]
pub(super) struct Rule<'a> {
    /// Shares of the life after which it is looked at, rising.
    pub(super) starts: &'a [f64],
    /// Bytes per second that count as a leak.
    pub(super) threshold: f64,
    /// Bytes per second that a level curve stays below; at most the threshold.
    pub(super) level: f64,
    /// For the lower bound.
    pub(super) fail: Quantiles,
    /// For the upper bound.
    pub(super) pass: Quantiles,
}

/// What a curve comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// It grows, and no guard explains it away.
    Leak,
    /// It does not grow by the threshold.
    Level,
    /// Neither can be said.
    Unclear,
}

/// A curve, judged.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) call: Call,
    /// Bytes per second; NaN: too few batches.
    pub(super) slope: f64,
    /// Lower and upper bound, bytes per second.
    pub(super) low: f64,
    pub(super) high: f64,
    /// Guards that held a suspicion back, with the start it came from.
    pub(super) held_back: Vec<(f64, Guard)>,
    /// Smallest slope that would have shown, bytes per second.
    pub(super) detects: f64,
}

/// Why a growth is not called a leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Too little grew in all.
    Growth,
    /// The last half grows less.
    Slows,
    /// One or two steps make up most of it.
    Steps,
    /// It falls too often.
    Fickle,
    /// It fell back far from an earlier height.
    Drawdown,
    /// It levels off.
    Saturates,
    /// Only the lower envelope grows.
    MedianLevel,
    /// The processes step at different times.
    StepsApart,
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Growth => "too little grew in all",
            Self::Slows => "it grows less in its last half",
            Self::Steps => "single steps make up most of it",
            Self::Fickle => "it does not grow steadily",
            Self::Drawdown => "it fell back by more than half of its growth",
            Self::Saturates => "it levels off",
            Self::MedianLevel => "its median does not grow along",
            Self::StepsApart => "the processes grow at different times",
        })
    }
}

/// One look at the curve, from one start on.
struct Look {
    start: f64,
    slope: f64,
    low: f64,
    high: f64,
    batches: Batches,
    median_slope: f64,
}

/// Judges a curve. `load` has a value per window. `members` are the curves whose mean it is, where it is a pool.
pub(super) fn judge(
    curve: &Curve,
    rule: &Rule<'_>,
    load: Option<&[f64]>,
    members: Option<&[Curve]>,
    sorted: &mut Vec<f64>,
) -> Judged {
    let first = rule.starts.first().copied().unwrap_or(0.0);
    let last = rule.starts.last().copied().unwrap_or(0.0);
    let q = quietest_quantile(curve, first, sorted);
    let close = Batches::low(curve, first, 2 * BATCHES, q, sorted);
    let mut judged = Judged {
        call: Call::Unclear,
        slope: f64::NAN,
        low: f64::NEG_INFINITY,
        high: f64::INFINITY,
        held_back: Vec::new(),
        detects: f64::INFINITY,
    };
    if close.len() < BATCHES {
        return judged;
    }
    let looks: Vec<Look> =
        rule.starts.iter().filter_map(|start| look(curve, rule, *start, q, load, sorted)).collect();
    let (Some(earliest), Some(latest)) = (looks.first(), looks.last()) else { return judged };
    judged.detects = looks
        .iter()
        .map(|look| rule.threshold + (look.slope - look.low))
        .fold(f64::INFINITY, f64::min);
    let drawdown = close.drawdown();
    let mut saturating = None;
    for look in looks.iter().filter(|look| look.low > rule.threshold) {
        let guard = shape_guard(look, rule.threshold, drawdown, sorted).or_else(|| {
            let saturating = *saturating.get_or_insert_with(|| {
                let whole = Batches::low(curve, 0.08, 2 * BATCHES, q, sorted);
                whole.len() > 12 && saturates(&whole, rule.threshold)
            });
            if saturating {
                return Some(Guard::Saturates);
            }
            if look.median_slope < 0.4 * look.slope {
                return Some(Guard::MedianLevel);
            }
            let together = members.is_none_or(|members| {
                grow_together(members, look.start, look.slope, q, sorted)
                    && (look.start == last || grow_together(members, last, look.slope, q, sorted))
            });
            (!together).then_some(Guard::StepsApart)
        });
        match guard {
            Some(guard) => judged.held_back.push((look.start, guard)),
            None => {
                judged.call = Call::Leak;
                (judged.slope, judged.low, judged.high) = (look.slope, look.low, look.high);
                return judged;
            }
        }
    }
    (judged.slope, judged.low, judged.high) = (earliest.slope, earliest.low, earliest.high);
    // The latest look is the one from a start in the second half, where there are batches enough for it.
    let late_high = latest.high;
    let level = earliest.high < rule.level || second_steepest(&earliest.batches) < rule.level;
    if (level && late_high < 2.0 * rule.level) || late_high < rule.level {
        judged.call = Call::Level;
    }
    judged
}

/// Which quantile of the windows makes the batches: the one with the smallest residual error; a new one must be clearly better.
fn quietest_quantile(curve: &Curve, start: f64, sorted: &mut Vec<f64>) -> f64 {
    let mut best = (0.0, f64::INFINITY);
    for q in [0.0, 0.25, 0.5] {
        let batches = Batches::low(curve, start, BATCHES, q, sorted);
        if batches.len() >= BATCHES - 2 {
            let error = batches.line().error;
            if error < 0.8 * best.1 {
                best = (q, error);
            }
        }
    }
    best.0
}

fn look(
    curve: &Curve,
    rule: &Rule<'_>,
    start: f64,
    q: f64,
    load: Option<&[f64]>,
    sorted: &mut Vec<f64>,
) -> Option<Look> {
    let mut batches = Batches::low(curve, start, BATCHES, q, sorted);
    if batches.len() < BATCHES - 2 {
        return None;
    }
    let medians = Batches::of(&curve.mid, &curve.median, start, BATCHES, 0.5, sorted);
    let mut line = batches.line();
    let mut median_slope = medians.line().slope;
    if let Some(load) = load.filter(|_| batches.len() == BATCHES) {
        let load = Batches::of(&curve.mid, load, start, BATCHES, 0.5, sorted);
        if load.len() == BATCHES && deviation(load.y()) > 0.05 * mean(load.y()) {
            (line, batches) = batches.line_beside(load.y());
            if medians.len() == BATCHES {
                median_slope = medians.line_beside(load.y()).0.slope;
            }
        }
    }
    // A page is the least that can be told apart.
    let error = line.error.max(4096.0 / batches.span());
    Some(Look {
        start,
        slope: line.slope,
        low: line.slope - rule.fail.at(line.degrees) * error,
        high: line.slope + rule.pass.at(line.degrees) * error,
        batches,
        median_slope,
    })
}

/// The guards that look at the batches alone.
fn shape_guard(look: &Look, threshold: f64, drawdown: f64, sorted: &mut Vec<f64>) -> Option<Guard> {
    let growth = look.batches.growth();
    let mut steps = look.batches.increments();
    let rising = steps.iter().filter(|step| **step > 0.0).count();
    let all = steps.len();
    steps.sort_unstable_by(f64::total_cmp);
    let rest: f64 = steps.iter().take(all.saturating_sub(2)).sum();
    if growth < 0.7 * threshold * look.batches.span() {
        Some(Guard::Growth)
    } else if look.batches.theil_sen((look.batches.len() / 2).max(5), sorted) < 0.6 * look.slope {
        Some(Guard::Slows)
    } else if rest < 0.3 * growth {
        Some(Guard::Steps)
    } else if 9 * rising < 7 * all {
        Some(Guard::Fickle)
    } else if drawdown > 0.5 * growth {
        Some(Guard::Drawdown)
    } else {
        None
    }
}

/// Whether the members of a pool grow as it does: mean slope, and at least half of them.
fn grow_together(members: &[Curve], start: f64, slope: f64, q: f64, sorted: &mut Vec<f64>) -> bool {
    let (mut sum, mut growing, mut all) = (0.0, 0_usize, 0_usize);
    for member in members {
        let batches = Batches::low(member, start, BATCHES, q, sorted);
        if batches.len() >= BATCHES - 2 {
            let own = batches.theil_sen(BATCHES, sorted);
            sum += own;
            all += 1;
            growing += usize::from(own >= 0.3 * slope);
        }
    }
    all > 0 && sum / crate::stats::count(all) >= 0.4 * slope && 2 * growing >= all
}

/// The second largest slope between neighbours; infinite with fewer than eight.
fn second_steepest(batches: &Batches) -> f64 {
    let mut slopes: Vec<f64> = batches
        .x()
        .windows(2)
        .zip(batches.increments())
        .map(|(x, step)| {
            step / x.iter().rev().copied().reduce(|last, first| last - first).unwrap_or(f64::NAN)
        })
        .collect();
    if slopes.len() < 8 {
        return f64::INFINITY;
    }
    slopes.sort_unstable_by(f64::total_cmp);
    slopes.iter().rev().nth(1).copied().unwrap_or(f64::INFINITY)
}
