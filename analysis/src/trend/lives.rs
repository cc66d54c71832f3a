//! Lives too short for a mean curve: each life is one measurement, and many of them tell what a process grows by while it lives.
//!
//! An hour at 30 s leaves a process of ten minutes twenty readings. Of each life the median of all pairwise slopes is taken once its warm-up
//! is over, and of its earlier and later half by themselves. Lives are independent of each other; what the processes of one slot share is
//! seen between slots, and the wider of the two intervals counts.

use super::batch::mean;
use super::batch::median_of;
use super::curve::Call;
use super::curve::Guard;
use super::curve::Judged;
use super::pool::Life;
use super::steady::ALPHA;
use super::steady::ALPHA_PASS;
use super::student::upper_quantile;
use crate::stats::count;
use std::collections::BTreeMap;

/// Share of the median life that a new process has for filling its caches.
const START: f64 = 0.3;

/// Where the later half of the rest begins.
const MIDDLE: f64 = 0.65;

/// Share of the median life that a life must reach.
const REACHES: f64 = 0.8;

/// Fewest readings of a half.
const LEAST_OF_HALF: usize = 3;

/// Points of a life that pairs are formed of.
const MOST_POINTS: usize = 40;

/// Fewest lives.
const LEAST_LIVES: usize = 12;

/// Fewest lives of a slot that may be called level.
const LEAST_OF_SLOT: usize = 3;

/// By what lives are judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// Bytes that a process may grow by in its life.
    pub(super) least_growth: f64,
    /// Bytes per second that count as a leak of processes that live through the run: what grows by more is never level.
    pub(super) steady: f64,
    /// How many looks share the chance of a false alarm.
    pub(super) looks: f64,
    /// Slots, each of which must have shown that it is level.
    pub(super) slots: usize,
}

/// Slopes of one life, bytes per second.
#[derive(Clone, Copy, Debug)]
struct Measured {
    slot: usize,
    whole: f64,
    early: f64,
    late: f64,
}

/// Judges lives as measurements of one growth; also the threshold. `None`: too few of them are long enough.
pub(super) fn judge(lives: &[Life], rule: Rule) -> Option<(Judged, f64)> {
    let ends = lives.iter().filter_map(|life| life.age.last().copied());
    let mut ends: Vec<f64> = ends.filter(|end| *end > 0.0).collect();
    let length = median_of(&mut ends);
    let measured: Vec<Measured> = lives.iter().filter_map(|life| measure(life, length)).collect();
    if measured.len() < LEAST_LIVES {
        return None;
    }
    let threshold = (rule.least_growth / length).max(64.0);
    // A page is the least that can be told apart.
    let least_error = 4096.0 / (length * (1.0 - START));
    let alpha = ALPHA / rule.looks;
    let slope = mean(&of(&measured, |life| life.whole));
    let half = half_width(&measured, |life| life.whole, alpha, least_error);
    let above = half_width(&measured, |life| life.whole, ALPHA_PASS, least_error);
    let mut judged = Judged {
        call: Call::Unclear,
        slope,
        low: slope - half,
        high: slope + above,
        held_back: Vec::new(),
        detects: threshold + half,
    };
    if judged.low > threshold {
        match guard(&measured, slope) {
            Some(guard) => judged.held_back.push((START, guard)),
            None => judged.call = Call::Leak,
        }
    } else {
        let late = mean(&of(&measured, |life| life.late))
            + half_width(&measured, |life| life.late, ALPHA_PASS, least_error);
        let most = threshold.min(rule.steady);
        let level = judged.high < most && late < 2.0 * most;
        if level && slots_level(&measured, rule.slots, 4.0 * most, least_error) {
            judged.call = Call::Level;
        }
    }
    Some((judged, threshold))
}

fn measure(life: &Life, length: f64) -> Option<Measured> {
    if *life.age.last()? < REACHES * length {
        return None;
    }
    let part = |from: f64, to: f64| -> Vec<(f64, f64)> {
        let readings = life.age.iter().copied().zip(life.bytes.iter().copied());
        let within = |age: f64| age >= from * length && age <= to * length;
        readings.filter(|(age, bytes)| within(*age) && !bytes.is_nan()).collect()
    };
    let (early, late) = (part(START, MIDDLE), part(MIDDLE, 1.0));
    if early.len().min(late.len()) < LEAST_OF_HALF {
        return None;
    }
    Some(Measured {
        slot: life.slot,
        whole: pairwise(&part(START, 1.0)),
        early: pairwise(&early),
        late: pairwise(&late),
    })
}

/// Median of all pairwise slopes, of at most forty means of neighbours: pairs are many.
fn pairwise(points: &[(f64, f64)]) -> f64 {
    let points: Vec<(f64, f64)> = points
        .chunks(points.len().div_ceil(MOST_POINTS).max(1))
        .map(|near| {
            let sum = near.iter().fold((0.0, 0.0), |sum, at| (sum.0 + at.0, sum.1 + at.1));
            (sum.0 / count(near.len()), sum.1 / count(near.len()))
        })
        .collect();
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (at, (age, bytes)) in points.iter().enumerate() {
        for (later, held) in points.iter().skip(at + 1) {
            slopes.push((held - bytes) / (later - age));
        }
    }
    median_of(&mut slopes)
}

fn of(measured: &[Measured], figure: impl Fn(&Measured) -> f64) -> Vec<f64> {
    measured.iter().map(figure).collect()
}

/// The figures of each slot.
fn by_slot(measured: &[Measured], figure: impl Fn(&Measured) -> f64) -> Vec<Vec<f64>> {
    let mut slots: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for life in measured {
        slots.entry(life.slot).or_default().push(figure(life));
    }
    slots.into_values().collect()
}

/// Half of the interval of the mean: between lives, or between slots where that is wider.
fn half_width(
    measured: &[Measured],
    figure: impl Fn(&Measured) -> f64 + Copy,
    alpha: f64,
    least_error: f64,
) -> f64 {
    let slots: Vec<f64> = by_slot(measured, figure).iter().map(|slot| mean(slot)).collect();
    let lives = interval(&of(measured, figure), alpha, least_error);
    // Two slots or three say little of what slots differ by.
    if slots.len() < 4 { lives } else { lives.max(interval(&slots, alpha, least_error)) }
}

/// t × the standard error of the mean; infinite: fewer than two values.
fn interval(values: &[f64], alpha: f64, least_error: f64) -> f64 {
    let Some(degrees) = values.len().checked_sub(1).filter(|degrees| *degrees > 0) else {
        return f64::INFINITY;
    };
    let middle = mean(values);
    let squares: f64 = values.iter().map(|value| (value - middle).powi(2)).sum();
    let error = (squares / count(degrees) / count(values.len())).sqrt();
    upper_quantile(alpha, u32::try_from(degrees).unwrap_or(u32::MAX)) * error.max(least_error)
}

/// Why a growth of the mean life is no leak.
fn guard(measured: &[Measured], slope: f64) -> Option<Guard> {
    let late = mean(&of(measured, |life| life.late));
    let early = mean(&of(measured, |life| life.early));
    let rising = measured.iter().filter(|life| life.whole > 0.0).count();
    let bends = of(measured, |life| life.late - life.early);
    if late < 0.6 * slope {
        Some(Guard::Slows)
    } else if 10 * rising < 7 * measured.len() {
        Some(Guard::Fickle)
    } else if late < 0.8 * early && mean(&bends) + interval(&bends, ALPHA_PASS, 0.0) < 0.0 {
        Some(Guard::Saturates)
    } else {
        None
    }
}

/// Whether each slot by itself can grow by little.
fn slots_level(measured: &[Measured], slots: usize, most: f64, least_error: f64) -> bool {
    let figures = by_slot(measured, |life| life.whole);
    figures.len() == slots
        && figures.iter().all(|slot| {
            slot.len() >= LEAST_OF_SLOT
                && mean(slot) + interval(slot, ALPHA_PASS, least_error) < most
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { least_growth: 1_048_576.0, steady: 1_165.0, looks: 1.0, slots: 6 };

    /// Six slots of five lives, twenty readings each, 30 s apart.
    fn lives(bytes: impl Fn(f64) -> f64) -> Vec<Life> {
        (0..30)
            .map(|life| {
                let age: Vec<f64> = (0..20).map(|k| 30.0 * f64::from(k)).collect();
                let wobble = |k: usize| ((k * 7 + life * 3) % 5) as f64 * 30_000.0;
                let bytes =
                    age.iter().enumerate().map(|(k, age)| bytes(*age) + wobble(k)).collect();
                Life { slot: life / 5, age, bytes }
            })
            .collect()
    }

    #[test]
    fn many_short_lives_show_what_each_grows_by() {
        let (judged, threshold) = judge(&lives(|age| 4_000.0 * age), RULE).expect("lives enough");
        assert_eq!(judged.call, Call::Leak);
        assert!(judged.low > threshold && judged.low < 4_000.0 && judged.high > 4_000.0);
        assert!((1_700.0..1_900.0).contains(&threshold), "{threshold}");
    }

    #[test]
    fn level_lives_are_level_only_where_every_slot_is() {
        let call = |lives: &[Life]| judge(lives, RULE).expect("lives enough").0.call;
        let level = lives(|_| 1e6);
        assert_eq!(call(&level), Call::Level);
        let one_grows: Vec<Life> = level
            .iter()
            .cloned()
            .map(|mut life| {
                if life.slot == 5 {
                    life.bytes.iter_mut().zip(&life.age).for_each(|(b, age)| *b += 9_000.0 * age);
                }
                life
            })
            .collect();
        assert_ne!(call(&one_grows), Call::Level);
        let missing: Vec<Life> = level.into_iter().filter(|life| life.slot != 3).collect();
        assert_eq!(call(&missing), Call::Unclear);
    }

    #[test]
    fn caches_that_fill_are_no_leak() {
        let (judged, _) =
            judge(&lives(|age| 8e6 * (1.0 - (-age / 400.0).exp())), RULE).expect("lives enough");
        assert_eq!(judged.call, Call::Unclear);
        assert!(!judged.held_back.is_empty(), "{judged:?}");
    }

    #[test]
    fn a_life_of_many_readings_is_thinned() {
        let many: Vec<Life> = (0..12)
            .map(|slot| {
                let age: Vec<f64> = (0..20_000).map(f64::from).collect();
                let bytes = age.iter().map(|age| 500.0 * age).collect();
                Life { slot, age, bytes }
            })
            .collect();
        let (judged, _) = judge(&many, Rule { slots: 12, ..RULE }).expect("lives enough");
        assert!((judged.slope - 500.0).abs() < 1e-6, "{judged:?}");
        assert_eq!(judged.call, Call::Leak);
    }

    #[test]
    fn few_or_short_lives_are_not_judged() {
        let all = lives(|age| 4_000.0 * age);
        assert!(judge(all.get(..11).unwrap_or(&[]), RULE).is_none());
        assert!(judge(&[], RULE).is_none());
        let short: Vec<Life> = all
            .into_iter()
            .map(|mut life| {
                life.age.truncate(5);
                life.bytes.truncate(5);
                life
            })
            .collect();
        assert!(judge(&short, RULE).is_none());
    }
}
