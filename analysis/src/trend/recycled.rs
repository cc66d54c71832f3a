//! Slots whose process is replaced now and then: no process lives long enough to be judged, their mean life does, or
//! all lives together.

use super::Part;
use super::Settings;
use super::Slot;
use super::SlotTrend;
use super::curve;
use super::curve::Call;
use super::curve::Judged;
use super::curve::Rule;
use super::lives;
use super::pool;
use super::pool::Life;
use super::steady::ALPHA;
use super::steady::ALPHA_PASS;
use super::steady::LEAST_READINGS;
use super::student::Quantiles;
use super::window::Scratch;
use super::window::interpolate;
use crate::result::Verdict;

/// Shares of a life after which it is looked at: a new process fills its caches first.
const STARTS: [f64; 2] = [0.3, 0.5];

/// Fewest readings of a life that goes into the mean curve.
const LEAST_LIFE: usize = 24;

/// The shortest such life, as a share of the run.
const SHORTEST_LIFE: f64 = 0.04;

/// Judges slots by the mean life of their processes.
pub(super) fn judge(slots: &[Slot<'_>], settings: &Settings, length: f64, origin: f64) -> Part {
    let mut refused = false;
    let mut lives = Vec::new();
    let mut judged = Vec::with_capacity(slots.len());
    for (number, slot) in slots.iter().enumerate() {
        let why = match (&slot.refused, bytes(slot, settings, origin)) {
            (None, Ok(bytes)) => {
                lives.extend(lives_of(number, slot, &bytes));
                "its process was replaced; judged by the mean life of all".to_owned()
            }
            (Some(why), _) => {
                refused = true;
                why.clone()
            }
            (None, Err(why)) => {
                refused = true;
                why
            }
        };
        judged.push(SlotTrend::unjudged(&slot.series, why));
    }
    let few = slots
        .iter()
        .filter(|slot| slot.refused.is_none())
        .map(|slot| slot.t.len())
        .min()
        .filter(|readings| *readings < LEAST_READINGS);
    let looks = f64::from(settings.looks.max(1));
    let least_growth = settings.least_growth_bytes / 4.0;
    let steady = settings.threshold(length);
    let rule = lives::Rule { least_growth, steady, looks, slots: slots.len() };
    let (pool, threshold) = by_mean_life(&lives, rule, length)
        .or_else(|| lives::judge(&lives, rule))
        .map_or((None, steady), |(pool, threshold)| (Some(pool), threshold));
    let verdict = match pool.as_ref().map(|pool| pool.call) {
        Some(Call::Leak) => Verdict::Fail,
        Some(Call::Level) if !refused && few.is_none() => Verdict::Pass,
        _ => Verdict::Inconclusive,
    };
    let detects = pool.as_ref().map_or(f64::INFINITY, |pool| pool.detects);
    Part { pool, threshold, slots: judged, verdict, detects, few }
}

/// By the curve of the mean life, where lives are long enough for one; also its threshold.
fn by_mean_life(lives: &[Life], rule: lives::Rule, length: f64) -> Option<(Judged, f64)> {
    let long: Vec<&Life> = lives.iter().filter(|life| is_long(life, length)).collect();
    let readings: usize = long.iter().map(|life| life.age.len()).sum();
    let mut scratch = Scratch::default();
    let mean = (readings >= LEAST_READINGS).then(|| pool::mean_life(&long, &mut scratch));
    let (mean, age) = mean.flatten()?;
    let threshold = (rule.least_growth / age).max(64.0);
    let rule = Rule {
        starts: &STARTS,
        threshold,
        level: threshold.min(rule.steady),
        fail: Quantiles::new(ALPHA / rule.looks),
        pass: Quantiles::new(ALPHA_PASS),
    };
    Some((curve::judge(&mean, &rule, None, None, &mut scratch.sorted), threshold))
}

fn is_long(life: &Life, length: f64) -> bool {
    life.age.len() >= LEAST_LIFE
        && life.age.last().is_some_and(|age| *age >= SHORTEST_LIFE * length)
}

/// The readings less what the slot may hold for its rows.
fn bytes(slot: &Slot<'_>, settings: &Settings, origin: f64) -> Result<Vec<f64>, String> {
    let mut bytes = slot.series.bytes.to_vec();
    if settings.allow_bytes_per_row > 0.0 {
        let rows = slot.series.covariates.filter(|covariates| {
            covariates.rises() && covariates.rows.len() == covariates.t_s.len()
        });
        let Some(covariates) = rows.filter(|covariates| !covariates.rows.is_empty()) else {
            return Err(
                "the workload may hold bytes per row, and its rows are not known".to_owned()
            );
        };
        let at: Vec<f64> = slot.t.iter().map(|t| t + origin).collect();
        let rows = interpolate(&at, &covariates.t_s, &covariates.rows);
        let first = covariates.rows.first().copied().unwrap_or(0.0);
        for (bytes, rows) in bytes.iter_mut().zip(rows) {
            *bytes -= settings.allow_bytes_per_row * (rows - first);
        }
    }
    Ok(bytes)
}

/// The lives of a slot, by age.
fn lives_of(number: usize, slot: &Slot<'_>, bytes: &[f64]) -> Vec<Life> {
    let mut lives = Vec::new();
    let mut start = 0;
    for run in slot.series.pid.chunk_by(|a, b| a == b) {
        let end = start + run.len();
        let (times, held) = (slot.t.get(start..end), bytes.get(start..end));
        start = end;
        let (Some(times), Some(held)) = (times, held) else { continue };
        let Some(first) = times.first() else { continue };
        let age = times.iter().map(|t| t - first).collect();
        lives.push(Life { slot: number, age, bytes: held.to_vec() });
    }
    lives
}
