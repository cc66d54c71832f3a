//! Many processes become one curve: the mean of processes that live through the run, and the mean life of those that are replaced.
//!
//! Single curves find one process that leaks; the pool finds a slow leak that all share.

use super::batch::median_of;
use super::window::Curve;
use super::window::Cut;
use super::window::Edges;
use super::window::Scratch;
use super::window::interpolate;
use super::window::present;
use super::window::windows;
use crate::stats::count;

/// Windows of a mean life.
const LIFE_WINDOWS: usize = 60;

/// A process of a slot that is recycled: its readings by age in seconds.
#[derive(Clone, Debug)]
pub(super) struct Life {
    /// Which slot.
    pub(super) slot: usize,
    pub(super) age: Vec<f64>,
    pub(super) bytes: Vec<f64>,
}

/// Takes one isolated step out of a curve: its largest jump, where that makes more than half of its growth.
pub(super) fn without_step(curve: &Curve) -> Curve {
    const NEAR: usize = 5;
    let (xs, ys) = present(&curve.mid, &curve.low);
    let filled = interpolate(&curve.mid, &xs, &ys);
    let n = filled.len();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let start = (0.15 * count(n)) as usize;
    let mut room = Vec::with_capacity(NEAR);
    let mut median = |from: usize, to: usize| {
        room.clear();
        room.extend_from_slice(filled.get(from..to.min(n)).unwrap_or(&[]));
        median_of(&mut room)
    };
    let (mut jump, mut place) = (0.0, None);
    for at in start.max(NEAR)..(n + 1).saturating_sub(NEAR) {
        let rise = median(at, at + NEAR) - median(at - NEAR, at);
        if rise > jump {
            (jump, place) = (rise, Some(at));
        }
    }
    let growth = median(n.saturating_sub(NEAR), n) - median(start, start + NEAR);
    let Some(place) = place.filter(|_| growth > 0.0 && jump > 0.5 * growth) else {
        return curve.clone();
    };
    let mut steepest = (f64::NEG_INFINITY, place);
    let from = place.saturating_sub(NEAR).max(1);
    for at in from..n.min(place + NEAR) {
        let rise = match (filled.get(at), filled.get(at - 1)) {
            (Some(here), Some(before)) => here - before,
            _ => f64::NEG_INFINITY,
        };
        if rise > steepest.0 {
            steepest = (rise, at);
        }
    }
    let mut level = curve.clone();
    for values in [&mut level.low, &mut level.median] {
        for value in values.iter_mut().skip(steepest.1) {
            *value -= jump;
        }
    }
    level
}

/// Mean growth of curves with equally many windows over a run of `length` seconds. `None`: no curves.
///
/// Its windows are spread from 0 to `length`, which stretches their middles by one window: slopes come out lower by one part in the number
/// of windows (1 % of them at 120), on the careful side. The constants were measured so.
pub(super) fn mean_growth(curves: &[Curve], windows: usize, length: f64) -> Option<Curve> {
    if curves.is_empty() {
        return None;
    }
    let edges = Edges::new(0.0, length, windows.saturating_sub(1));
    let mut mean = Curve {
        mid: (0..windows).map(|window| edges.at(window)).collect(),
        low: vec![0.0; windows],
        median: vec![0.0; windows],
    };
    for curve in curves {
        for (sum, values) in [(&mut mean.low, &curve.low), (&mut mean.median, &curve.median)] {
            let (xs, ys) = present(&curve.mid, values);
            let filled = interpolate(&curve.mid, &xs, &ys);
            let first = filled.first().copied().unwrap_or(f64::NAN);
            for (sum, value) in sum.iter_mut().zip(&filled) {
                *sum += value - first;
            }
        }
    }
    let n = count(curves.len());
    mean.low.iter_mut().chain(mean.median.iter_mut()).for_each(|sum| *sum /= n);
    Some(mean)
}

/// The mean life: lives aligned by age, mean first differences per bin of age, summed up. Also its length in seconds.
///
/// `None` when too many bins hold no difference of any life: what is missing is not level. Short lives get bins that one reading
/// fills, as the mean over many lives takes out its noise.
pub(super) fn mean_life(lives: &[&Life], scratch: &mut Scratch) -> Option<(Curve, f64)> {
    let mut ends: Vec<f64> = lives.iter().filter_map(|life| life.age.last().copied()).collect();
    if ends.is_empty() {
        return None;
    }
    let length = median_of(&mut ends);
    [2, 1].into_iter().find_map(|least| {
        let curve = aligned(lives, length, least, scratch)?;
        Some((curve, length))
    })
}

fn aligned(lives: &[&Life], length: f64, least: usize, scratch: &mut Scratch) -> Option<Curve> {
    let edges = Edges::new(0.0, length, LIFE_WINDOWS);
    let mut sums = [vec![0.0; LIFE_WINDOWS - 1], vec![0.0; LIFE_WINDOWS - 1]];
    let mut held = vec![0_usize; LIFE_WINDOWS - 1];
    for life in lives {
        let Some(end) = life.age.last() else { continue };
        // Bins that this life fills to their end.
        let bins = (1..=LIFE_WINDOWS).take_while(|edge| edges.at(*edge) <= *end).count();
        if bins < 3 {
            continue;
        }
        let cut = Cut { windows: bins, least, span: Some((0.0, edges.at(bins))) };
        let curve = windows(&life.age, &life.bytes, cut, scratch);
        for (sums, values) in sums.iter_mut().zip([&curve.low, &curve.median]) {
            for (sum, pair) in sums.iter_mut().zip(values.windows(2)) {
                if let [before, after] = pair
                    && !before.is_nan()
                    && !after.is_nan()
                {
                    *sum += after - before;
                }
            }
        }
        for (held, pair) in held.iter_mut().zip(curve.low.windows(2)) {
            *held += usize::from(pair.iter().all(|value| !value.is_nan()));
        }
    }
    let empty = held.iter().filter(|held| **held == 0).count();
    if 5 * empty > held.len() {
        return None;
    }
    let [low, median] = sums.map(|sums| {
        let mut level = 0.0;
        let steps = sums.iter().zip(&held).map(|(sum, held)| {
            level += if *held == 0 { 0.0 } else { sum / count(*held) };
            level
        });
        std::iter::once(0.0).chain(steps).collect()
    });
    let mid = (0..LIFE_WINDOWS).map(|bin| 0.5 * (edges.at(bin + 1) + edges.at(bin))).collect();
    Some(Curve { mid, low, median })
}
