//! Processes that live through the run: the data guard, each curve by itself, and their pool.

use super::Covariates;
use super::Part;
use super::Settings;
use super::Slot;
use super::SlotTrend;
use super::batch::{deviation, mean};
use super::curve;
use super::curve::Call;
use super::curve::Judged;
use super::curve::Rule;
use super::finite;
use super::pool;
use super::rising;
use super::student::Quantiles;
use super::window::Curve;
use super::window::Cut;
use super::window::Scratch;
use super::window::interpolate;
use super::window::windows;
use crate::result::Verdict;
use crate::stats::count;

/// Chance of a false alarm of the pool, and of all single series together.
pub(super) const ALPHA: f64 = 0.005;

/// For upper bounds.
pub(super) const ALPHA_PASS: f64 = 0.05;

/// Shares of the run after which a curve is looked at.
const STARTS: [f64; 3] = [0.15, 0.35, 0.55];

/// Fewest readings of a series that may pass.
pub(super) const LEAST_READINGS: usize = 180;

/// Fewest readings of a series that may fail. Between the two a leak can be proven and its absence cannot.
const LEAST_TO_FAIL: usize = 96;

/// Deviation of the load, as a share of its mean, beyond which so few readings tell nothing.
const SWING: f64 = 0.25;

/// How finely series are cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grain {
    windows: usize,
    /// Readings below which a window is empty.
    least: usize,
}

impl Grain {
    /// Readings of a window of a series that may pass.
    const FULL: usize = 3;

    /// For series of which the shortest has so many readings.
    pub(super) fn of(shortest: usize) -> Self {
        if shortest < LEAST_READINGS {
            Self { windows: (shortest / 2).clamp(45, 120), least: 2 }
        } else {
            Self { windows: (shortest / 4).clamp(45, 120), least: Self::FULL }
        }
    }
}

/// What is too little to judge a slot by, over all its processes.
pub(super) fn thin(slot: &Slot<'_>, grain: Grain, length: f64) -> Option<String> {
    let Grain { windows, least } = grain;
    let present = || {
        let readings = slot.t.iter().zip(slot.series.bytes);
        readings.filter(|(_, bytes)| !bytes.is_nan()).map(|(t, _)| *t)
    };
    let n = present().count();
    if n < LEAST_TO_FAIL {
        return Some(format!("{n} readings, at least {LEAST_READINGS} are needed"));
    }
    let last = present().next_back().unwrap_or(0.0);
    if length - last > 0.02 * length {
        return Some(format!(
            "its last reading is at {:.0} % of the run",
            (100.0 * last / length).floor()
        ));
    }
    // On the run's clock, so that a beginning without readings counts as well.
    let mut held = vec![0_usize; windows];
    for t in present() {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let window = (t / length * count(windows)) as usize;
        if let Some(held) = held.get_mut(window.min(windows.saturating_sub(1))) {
            *held += 1;
        }
    }
    let empty = held.iter().filter(|held| **held < least).count();
    (5 * empty > windows)
        .then(|| format!("{empty} of its {windows} windows hold fewer than {least} readings"))
}

/// Judges slots that one process fills all along.
pub(super) fn judge(
    slots: &[Slot<'_>],
    settings: &Settings,
    grain: Grain,
    length: f64,
    origin: f64,
) -> Part {
    let windows = grain.windows;
    let threshold = settings.threshold(length);
    let looks = f64::from(settings.looks.max(1));
    let mut rule = Rule {
        starts: &STARTS,
        threshold,
        fail: Quantiles::new(ALPHA / looks / count(slots.len().max(1))),
        pass: Quantiles::new(ALPHA_PASS),
    };
    let mut scratch = Scratch::default();
    let mut judged = Vec::with_capacity(slots.len());
    let (mut members, mut loads) = (Vec::new(), Vec::new());
    let mut detects = 0.0_f64;
    for slot in slots {
        let found = match &slot.refused {
            Some(why) => Err(why.clone()),
            None => curve_and_load(slot, settings, grain, origin, &mut scratch),
        };
        match found {
            Err(why) => judged.push(SlotTrend::unjudged(&slot.series, why)),
            Ok((curve, load)) => {
                let one = curve::judge(&curve, &rule, load.as_deref(), None, &mut scratch.sorted);
                detects = detects.max(one.detects);
                judged.push(slot_trend(slot, &one));
                members.push(pool::without_step(&curve));
                loads.extend(load);
            }
        }
    }
    // What was not judged could not have failed.
    if members.is_empty() {
        detects = f64::INFINITY;
    }
    rule.fail = Quantiles::new(ALPHA / looks);
    let load = mean_load(&loads, windows);
    let pool = pool::mean_growth(&members, windows, length).map(|mean| {
        curve::judge(&mean, &rule, load.as_deref(), Some(&members), &mut scratch.sorted)
    });
    let few = slots
        .iter()
        .filter(|slot| slot.refused.is_none())
        .map(|slot| slot.series.bytes.iter().filter(|bytes| !bytes.is_nan()).count())
        .min()
        .filter(|readings| *readings < LEAST_READINGS);
    let guilty = judged.iter().any(|slot| slot.call == Some(Call::Leak));
    let together = pool.as_ref().map(|pool| pool.call);
    let verdict = if guilty || (together == Some(Call::Leak) && rising(&judged) >= 0.7) {
        Verdict::Fail
    } else if few.is_none()
        && together == Some(Call::Level)
        && judged.iter().all(|slot| unsuspected(slot, threshold))
    {
        Verdict::Pass
    } else {
        Verdict::Inconclusive
    };
    Part { pool, threshold, slots: judged, verdict, detects, few }
}

/// A slot that passes, or could at most grow by little.
pub(super) fn unsuspected(slot: &SlotTrend, threshold: f64) -> bool {
    slot.call == Some(Call::Level)
        || (slot.call.is_some() && slot.high.is_some_and(|high| high < 4.0 * threshold))
}

fn slot_trend(slot: &Slot<'_>, judged: &Judged) -> SlotTrend {
    SlotTrend {
        host: slot.series.host.to_owned(),
        slot: slot.series.slot.to_owned(),
        call: Some(judged.call),
        bytes_per_second: finite(judged.slope),
        low: finite(judged.low),
        high: finite(judged.high),
        why: judged.held_back.last().map(|(_, guard)| guard.to_string()).unwrap_or_default(),
    }
}

/// The slot in windows less what it may hold for its rows, and the load in each window, smoothed over seven.
fn curve_and_load(
    slot: &Slot<'_>,
    settings: &Settings,
    grain: Grain,
    origin: f64,
    scratch: &mut Scratch,
) -> Result<(Curve, Option<Vec<f64>>), String> {
    let cut = Cut { windows: grain.windows, least: grain.least, span: None };
    let mut curve = windows(&slot.t, slot.series.bytes, cut, scratch);
    let at: Vec<f64> = curve.mid.iter().map(|mid| mid + origin).collect();
    let covariates = slot.series.covariates.filter(|covariates| covariates.rises());
    if settings.allow_bytes_per_row > 0.0 {
        let rows = covariates.filter(|covariates| known(&covariates.rows, &covariates.t_s));
        let Some(covariates) = rows else {
            return Err(
                "the workload may hold bytes per row, and its rows are not known".to_owned()
            );
        };
        let first = covariates.rows.first().copied().unwrap_or(0.0);
        let rows = interpolate(&at, &covariates.t_s, &covariates.rows);
        for values in [&mut curve.low, &mut curve.median] {
            for (value, rows) in values.iter_mut().zip(&rows) {
                *value -= settings.allow_bytes_per_row * (rows - first);
            }
        }
    }
    let load = covariates
        .filter(|covariates| known(&covariates.ops, &covariates.t_s))
        .map(|covariates| {
            smooth(&interpolate(&at, covariates.t_s.get(1..).unwrap_or(&[]), &rates(covariates)))
        })
        .filter(|load| load.iter().all(|load| load.is_finite()));
    // Measured: over an hour at 30 s, memory that follows half a swing of the load looks like a leak.
    let swings = |load: &Vec<f64>| deviation(load) > SWING * mean(load);
    if grain.least < Grain::FULL && load.as_ref().is_some_and(swings) {
        return Err(format!(
            "its load varies by more than a quarter, and {LEAST_READINGS} readings are needed to tell that from growth"
        ));
    }
    Ok((curve, load))
}

/// As many finite values as times, at least two.
fn known(values: &[f64], t: &[f64]) -> bool {
    values.len() == t.len() && values.len() >= 2 && values.iter().all(|value| value.is_finite())
}

/// Operations per second between neighbouring times.
fn rates(covariates: &Covariates) -> Vec<f64> {
    let steps = covariates.ops.windows(2).zip(covariates.t_s.windows(2));
    let step = |pair: &[f64]| match pair {
        [before, after] => after - before,
        _ => 0.0,
    };
    steps.map(|(ops, t)| step(ops) / step(t).max(1e-3)).collect()
}

/// Mean over seven neighbours; the ends are repeated.
fn smooth(values: &[f64]) -> Vec<f64> {
    let (Some(first), Some(last)) = (values.first(), values.last()) else { return Vec::new() };
    let mut padded = vec![*first; 3];
    padded.extend_from_slice(values);
    padded.extend([*last; 3]);
    padded.windows(7).map(|seven| seven.iter().map(|value| value * (1.0 / 7.0)).sum()).collect()
}

fn mean_load(loads: &[Vec<f64>], windows: usize) -> Option<Vec<f64>> {
    if loads.is_empty() {
        return None;
    }
    let mut mean = vec![0.0; windows];
    for load in loads {
        for (sum, value) in mean.iter_mut().zip(load) {
            *sum += value;
        }
    }
    mean.iter_mut().for_each(|sum| *sum /= count(loads.len()));
    Some(mean)
}
