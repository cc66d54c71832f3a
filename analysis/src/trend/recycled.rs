//! Slots whose process is replaced now and then: no process lives long enough to be judged, their mean life does.

use super::Part;
use super::Settings;
use super::Slot;
use super::SlotTrend;
use super::curve;
use super::curve::Call;
use super::curve::Rule;
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

/// Fewest readings of a life.
const LEAST_LIFE: usize = 24;

/// Shortest life, as a share of the run.
const SHORTEST_LIFE: f64 = 0.04;

/// Judges slots by the mean life of their processes.
pub(super) fn judge(slots: &[Slot<'_>], settings: &Settings, length: f64, origin: f64) -> Part {
    let mut refused = false;
    let mut lives = Vec::new();
    let mut judged = Vec::with_capacity(slots.len());
    for slot in slots {
        let why = match (&slot.refused, bytes(slot, settings, origin)) {
            (None, Ok(bytes)) => {
                lives.extend(lives_of(slot, &bytes, length));
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
    let readings: usize = lives.iter().map(|life| life.age.len()).sum();
    let mut scratch = Scratch::default();
    let mean =
        (readings >= LEAST_READINGS).then(|| pool::mean_life(&lives, &mut scratch)).flatten();
    let Some((mean, age)) = mean else {
        let threshold = settings.threshold(length);
        let verdict = Verdict::Inconclusive;
        return Part { pool: None, threshold, slots: judged, verdict, detects: f64::INFINITY, few };
    };
    let threshold = (settings.least_growth_bytes / 4.0 / age).max(64.0);
    let rule = Rule {
        starts: &STARTS,
        threshold,
        fail: Quantiles::new(ALPHA / f64::from(settings.looks.max(1))),
        pass: Quantiles::new(ALPHA_PASS),
    };
    let pool = curve::judge(&mean, &rule, None, None, &mut scratch.sorted);
    let verdict = match pool.call {
        Call::Leak => Verdict::Fail,
        Call::Level if !refused && few.is_none() => Verdict::Pass,
        _ => Verdict::Inconclusive,
    };
    let detects = pool.detects;
    Part { pool: Some(pool), threshold, slots: judged, verdict, detects, few }
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

/// The lives of a slot that are long enough, by age.
fn lives_of(slot: &Slot<'_>, bytes: &[f64], length: f64) -> Vec<Life> {
    let mut lives = Vec::new();
    let mut start = 0;
    for run in slot.series.pid.chunk_by(|a, b| a == b) {
        let end = start + run.len();
        let (times, held) = (slot.t.get(start..end), bytes.get(start..end));
        start = end;
        let (Some(times), Some(held)) = (times, held) else { continue };
        let (Some(first), Some(last)) = (times.first(), times.last()) else { continue };
        if times.len() >= LEAST_LIFE && last - first >= SHORTEST_LIFE * length {
            let age = times.iter().map(|t| t - first).collect();
            lives.push(Life { age, bytes: held.to_vec() });
        }
    }
    lives
}
