//! Series that go on: the same looks on plain series, and when a growth has kept its pace from one look to the next.

use super::Standing;
use super::course::Course;
use super::cut::SPACING_US;
use crate::result::Verdict;
use crate::stats::bytes;
use crate::trend::{Covariates, Series, Settings, Trend, judge};

/// Share of its pace that a proven growth has kept since the look before.
const KEPT: f64 = 0.9;

/// One look at series that go on.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesLook {
    /// Where they stand.
    pub standing: Standing,
    /// When the look was due, seconds since the series began.
    pub at_s: f64,
    /// What it would be if the run ended there.
    pub trend: Trend,
}

/// Whether a pace is still what it was.
pub(super) fn kept(now: f64, before: f64) -> bool {
    now >= KEPT * before
}

/// Whether something that failed fails still, and as fast.
pub(super) fn keeps_its_pace(now: &Trend, before: &Trend) -> bool {
    if now.verdict != Verdict::Fail || before.verdict != Verdict::Fail {
        return false;
    }
    let alone = now.guilty.iter().any(|slot| {
        let earlier = before.guilty.iter().find(|other| other.label() == slot.label());
        match (slot.bytes_per_second, earlier.and_then(|earlier| earlier.bytes_per_second)) {
            (Some(slope), Some(earlier)) => kept(slope, earlier),
            _ => false,
        }
    });
    let together = match (now.bytes_per_second, before.bytes_per_second) {
        (Some(slope), Some(earlier)) if earlier > 0.0 => kept(slope, earlier),
        _ => false,
    };
    // One that leaks by itself need not move the pool, and a pool that grows need not have one that does so alone.
    alone || (together && now.guilty.is_empty())
}

/// The look that is due `elapsed_s` after the series began; `None`: none is yet. Settings' `looks` are the kinds of series that share a run.
pub fn look_at_series(
    series: &[Series<'_>],
    settings: &Settings,
    course: Course,
    elapsed_s: f64,
) -> Option<SeriesLook> {
    let looks = course.looks();
    let due = looks.iter().rposition(|at| *at <= elapsed_s)?;
    let at_s = looks.get(due).copied()?;
    let now = judged(series, settings, at_s, settings.looks);
    let standing = match now.verdict {
        Verdict::Fail => Standing::Suspect,
        _ if now.slots.iter().all(|slot| slot.call.is_none()) && now.bytes_per_second.is_none() => {
            Standing::Early
        }
        _ => Standing::Healthy,
    };
    let mut look = SeriesLook { standing, at_s, trend: now };
    if look.standing == Standing::Suspect
        && course.may_prove(at_s)
        && let Some(before_s) = due.checked_sub(1).and_then(|before| looks.get(before))
    {
        let sharing = settings.looks.saturating_mul(course.proofs());
        let now = judged(series, settings, at_s, sharing);
        if keeps_its_pace(&now, &judged(series, settings, *before_s, sharing)) {
            look.standing = Standing::Proven;
        }
    }
    Some(look)
}

/// A series up to a moment, thinned.
struct Prefix {
    t_s: Vec<f64>,
    bytes: Vec<f64>,
    pid: Vec<u64>,
}

fn judged(series: &[Series<'_>], settings: &Settings, at_s: f64, looks: u32) -> Trend {
    let first = series.iter().filter_map(|one| one.t_s.first()).copied();
    let until = first.fold(f64::INFINITY, f64::min) + at_s;
    let prefixes: Vec<Prefix> = series.iter().map(|one| prefix(one, until)).collect();
    let covariates: Vec<Option<Covariates>> =
        series.iter().map(|one| one.covariates.map(|known| known_until(known, until))).collect();
    let cut: Vec<Series<'_>> = series
        .iter()
        .zip(&prefixes)
        .zip(&covariates)
        .map(|((one, prefix), covariates)| Series {
            t_s: &prefix.t_s,
            bytes: &prefix.bytes,
            pid: &prefix.pid,
            covariates: covariates.as_ref(),
            ..*one
        })
        .collect();
    judge(&cut, &Settings { looks, ..settings.clone() })
}

fn prefix(series: &Series<'_>, until: f64) -> Prefix {
    let mut prefix = Prefix { t_s: Vec::new(), bytes: Vec::new(), pid: Vec::new() };
    let spacing = 0.98 * bytes(SPACING_US) / 1e6;
    let mut next = f64::NEG_INFINITY;
    for (at, t) in series.t_s.iter().enumerate() {
        // What is out of order stays: the trend refuses it.
        let rises = prefix.t_s.last().is_none_or(|last| t > last);
        if *t > until || (rises && *t < next) {
            continue;
        }
        next = t + spacing;
        prefix.t_s.push(*t);
        prefix.bytes.extend(series.bytes.get(at));
        prefix.pid.extend(series.pid.get(at));
    }
    prefix
}

fn known_until(covariates: &Covariates, until: f64) -> Covariates {
    let n = covariates.t_s.partition_point(|t| *t <= until);
    let part = |values: &[f64]| values.get(..n.min(values.len())).unwrap_or(&[]).to_vec();
    Covariates {
        t_s: part(&covariates.t_s),
        ops: part(&covariates.ops),
        rows: part(&covariates.rows),
    }
}
