//! The parts become one verdict with its figures and a sentence for people.

use super::Between;
use super::Part;
use super::Series;
use super::Settings;
use super::SlotTrend;
use super::Trend;
use super::curve::Call;
use super::finite;
use super::steady::LEAST_READINGS;
use super::steady::unsuspected;
use super::student::upper_quantile;
use crate::result::Verdict;
use crate::stats::count;
use std::collections::BTreeMap;

/// A run that cannot be judged at all.
pub(super) fn unjudged(series: &[Series<'_>], why: &str) -> Trend {
    let slots: Vec<_> =
        series.iter().map(|series| SlotTrend::unjudged(series, why.to_owned())).collect();
    let reason = if slots.is_empty() { "there is no series" } else { why };
    Trend {
        verdict: Verdict::Inconclusive,
        bytes_per_second: None,
        low: None,
        high: None,
        between: None,
        guilty: Vec::new(),
        threshold: f64::INFINITY,
        detects_bytes_per_second: None,
        bytes_per_operation: None,
        limit_in_s: None,
        length_s: 0.0,
        slots,
        reason: reason.to_owned(),
    }
}

/// `fail` where a part fails, `pass` where all pass.
pub(super) fn combine(
    mut parts: Vec<Part>,
    series: &[Series<'_>],
    settings: &Settings,
    length: f64,
) -> Trend {
    let rank = |part: &Part| match part.verdict {
        Verdict::Fail => 0,
        Verdict::Pass => 2,
        _ => 1,
    };
    parts.sort_by_key(rank);
    let verdict = parts.first().map_or(Verdict::Inconclusive, |part| part.verdict);
    let mut slots: Vec<SlotTrend> = parts.iter().flat_map(|part| part.slots.clone()).collect();
    slots.sort_by(|a, b| (&a.host, &a.slot).cmp(&(&b.host, &b.slot)));
    let guilty: Vec<SlotTrend> =
        slots.iter().filter(|slot| slot.call == Some(Call::Leak)).cloned().collect();
    let detects =
        parts.iter().map(|part| part.detects.max(2.0 * part.threshold)).fold(0.0, f64::max);
    let pool = parts.iter().find_map(|part| part.pool.as_ref());
    let slope = pool.and_then(|pool| finite(pool.slope));
    let threshold = parts.first().map_or(f64::INFINITY, |part| part.threshold);
    let mut trend = Trend {
        verdict,
        bytes_per_second: slope,
        low: pool.and_then(|pool| finite(pool.low)),
        high: pool.and_then(|pool| finite(pool.high)),
        between: between(&slots),
        guilty,
        threshold,
        detects_bytes_per_second: finite(detects),
        bytes_per_operation: slope
            .and_then(|slope| operations_per_second(series).map(|rate| slope / rate)),
        limit_in_s: slope.and_then(|slope| limit_in(slope, series, settings, length)),
        length_s: length,
        slots,
        reason: String::new(),
    };
    trend.reason = match verdict {
        Verdict::Fail => why_fail(&trend, parts.first()),
        Verdict::Pass => format!(
            "no growth above {} in {} over {}",
            rate(detects),
            match trend.slots.len() {
                1 => "the one process".to_owned(),
                n => format!("any of {n} processes"),
            },
            hours(length)
        ),
        _ => why_unclear(&trend, &parts),
    };
    trend
}

fn why_fail(trend: &Trend, part: Option<&Part>) -> String {
    let threshold = rate(trend.threshold);
    let steepest = trend.guilty.iter().max_by(|a, b| {
        let slope = |slot: &SlotTrend| slot.bytes_per_second.unwrap_or(f64::NEG_INFINITY);
        slope(a).total_cmp(&slope(b))
    });
    let pool = part.and_then(|part| part.pool.as_ref());
    let mut text = match (steepest, pool) {
        (Some(slot), _) => {
            let more = match trend.guilty.len() {
                1 => String::new(),
                n => format!(", and {} more grow", n - 1),
            };
            format!(
                "{} grows by {} (at least {}), above {threshold}{more}",
                slot.label(),
                rate(slot.bytes_per_second.unwrap_or(f64::NAN)),
                rate(slot.low.unwrap_or(f64::NAN))
            )
        }
        (None, Some(pool)) => format!(
            "{} grow together, by {} each on average (at least {}), above {threshold}",
            processes(trend.slots.len()),
            rate(pool.slope),
            rate(pool.low)
        ),
        (None, None) => "growth".to_owned(),
    };
    if let Some(limit) = trend.limit_in_s {
        text.push_str(&format!("; at this growth the memory limit is reached in {}", hours(limit)));
    }
    text
}

fn why_unclear(trend: &Trend, parts: &[Part]) -> String {
    let mut causes = Vec::new();
    let replaced = |slot: &&SlotTrend| slot.why.starts_with("its process was replaced");
    let unjudged: Vec<_> =
        trend.slots.iter().filter(|slot| slot.call.is_none() && !replaced(slot)).collect();
    if let Some(first) = unjudged.first() {
        causes.push(format!(
            "{} of {} could not be judged ({}: {})",
            unjudged.len(),
            processes(trend.slots.len()),
            first.label(),
            first.why
        ));
    }
    for part in parts.iter().filter(|part| part.verdict == Verdict::Inconclusive) {
        if let Some(few) = part.few {
            causes.push(format!(
                "{few} readings of a process can prove a leak and not its absence: {LEAST_READINGS} are needed to pass"
            ));
        }
        match &part.pool {
            None if unjudged.is_empty() => {
                causes.push("the processes lived too short for a mean life".to_owned());
            }
            None => {}
            Some(pool) => match (pool.call, pool.held_back.last()) {
                (Call::Level, _) => {}
                (Call::Leak, _) => causes.push("too few of the processes grow".to_owned()),
                (Call::Unclear, Some((_, guard))) => {
                    causes.push(format!("together they grow by {}, but {guard}", rate(pool.slope)));
                }
                (Call::Unclear, None) => causes.push(format!(
                    "together they may grow by up to {}, and {} counts as a leak",
                    rate(pool.high),
                    rate(part.threshold)
                )),
            },
        }
        let suspects: Vec<_> = part
            .slots
            .iter()
            .filter(|slot| slot.call.is_some() && !unsuspected(slot, part.threshold))
            .collect();
        if let Some(first) = suspects.first() {
            let why =
                if first.why.is_empty() { String::new() } else { format!(", but {}", first.why) };
            causes.push(format!(
                "{} may grow by up to {}{why}{}",
                first.label(),
                first.high.map_or_else(|| "any rate".to_owned(), rate),
                if suspects.len() > 1 {
                    format!(" (and {} more)", suspects.len() - 1)
                } else {
                    String::new()
                }
            ));
        }
    }
    let floor = trend.detects_bytes_per_second.map_or_else(
        || "this run could not have failed any growth".to_owned(),
        |detects| {
            format!("the smallest growth that this run could have failed is {}", rate(detects))
        },
    );
    format!(
        "{}; {floor}; a longer run, constant load, capped caches or a fixed number of rows would help",
        causes.join("; ")
    )
}

/// Mean slope between processes, between hosts where there are at least four.
fn between(slots: &[SlotTrend]) -> Option<Between> {
    let mut by_host: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for slot in slots {
        if let Some(slope) = slot.bytes_per_second {
            by_host.entry(&slot.host).or_default().push(slope);
        }
    }
    let hosts = by_host.len() >= 4;
    let units: Vec<f64> = if hosts {
        by_host.values().map(|slopes| slopes.iter().sum::<f64>() / count(slopes.len())).collect()
    } else {
        by_host.into_values().flatten().collect()
    };
    let n = count(units.len());
    let mean = units.iter().sum::<f64>() / n;
    let degrees = u32::try_from(units.len().checked_sub(1)?).ok().filter(|degrees| *degrees > 0)?;
    let variance =
        units.iter().map(|slope| (slope - mean).powi(2)).sum::<f64>() / f64::from(degrees);
    let half = upper_quantile(0.025, degrees) * (variance / n).sqrt();
    Some(Between { mean, low: mean - half, high: mean + half, units: units.len(), by_host: hosts })
}

/// Mean operations per second of a host.
fn operations_per_second(series: &[Series<'_>]) -> Option<f64> {
    let mut rates = BTreeMap::new();
    for series in series {
        let Some(covariates) = series.covariates else { continue };
        let ends = |values: &[f64]| Some(values.last()? - values.first()?);
        if let (Some(ops), Some(time)) = (ends(&covariates.ops), ends(&covariates.t_s))
            && ops > 0.0
            && time > 0.0
        {
            rates.insert(series.host, ops / time);
        }
    }
    (!rates.is_empty()).then(|| rates.values().sum::<f64>() / count(rates.len()))
}

/// Seconds until all processes together reach the limit, where that is at most ten times the run's length away.
fn limit_in(slope: f64, series: &[Series<'_>], settings: &Settings, length: f64) -> Option<f64> {
    let limit = settings.mem_limit_bytes?;
    let last =
        |series: &Series<'_>| series.bytes.iter().rev().copied().find(|bytes| !bytes.is_nan());
    let now: f64 = series.iter().filter_map(last).sum();
    let growth = slope * count(series.len());
    let left = (limit - now).max(0.0) / growth;
    (growth > 0.0 && left <= 10.0 * length).then_some(left)
}

fn processes(n: usize) -> String {
    if n == 1 { "1 process".to_owned() } else { format!("{n} processes") }
}

fn rate(bytes_per_second: f64) -> String {
    if !bytes_per_second.is_finite() {
        "any rate".to_owned()
    } else if bytes_per_second.abs() < 10.0 {
        format!("{bytes_per_second:.1} B/s")
    } else if bytes_per_second.abs() < 10_000.0 {
        format!("{bytes_per_second:.0} B/s")
    } else {
        format!("{:.1} kB/s", bytes_per_second / 1_000.0)
    }
}

fn hours(seconds: f64) -> String {
    if seconds < 5_400.0 {
        format!("{:.0} min", seconds / 60.0)
    } else if seconds < 172_800.0 {
        format!("{:.1} h", seconds / 3_600.0)
    } else {
        format!("{:.1} days", seconds / 86_400.0)
    }
}
