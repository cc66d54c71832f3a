//! Figures of one workload over releases: the history of each figure, and where it changed. Pure, like everything here.
//!
//! Releases stand in the order of their numbers, not of the runs: an old release that is soaked again tomorrow stays where it was.
//!
//! Levels are looked at run by run (of several jobs the median), which tells a change after the third run of a new level; in a long history of
//! many releases, release by release.

use crate::change_points::{FEWEST, change_points};
use crate::compare::{JobPoint, MetricName};
use crate::stats::median;
use pgsoak_proto::id::RunId;
use pgsoak_proto::job::{Arm, Tool};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;

mod order;
mod shown;

pub use order::{release_of, release_order};
pub use shown::NO_CHANGE;

/// Runs that are looked at one by one; the time that takes grows with their square.
const MOST_RUNS: usize = 200;

/// Share of the level by which it must change to be worth a line, as in comparisons.
const LEAST_CHANGE: f64 = 0.05;

/// The same where the level is next to nothing, bytes.
const LEAST_BYTES: f64 = 1.0;

/// The jobs of a run in the history of one workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunPoints {
    /// The run.
    pub run: RunId,
    /// When it was submitted, microseconds since 1970.
    pub at_unix_us: u64,
    /// Its jobs with this workload that did it soundly.
    pub jobs: Vec<JobPoint>,
}

/// What is wanted of a history; empty: everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Figures (`peak`, `bytes_per_operation`, …).
    pub what: Vec<String>,
    /// Phases.
    pub phases: Vec<String>,
    /// The tool.
    pub tool: Option<Tool>,
    /// Names of agents.
    pub agents: Vec<String>,
    /// The extension's name.
    pub extension: String,
    /// Words that a build's PostgreSQL version must begin with ("PostgreSQL 18").
    pub postgres: String,
}

/// How the figures of a workload went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleaseTrend {
    /// The workload.
    pub workload: String,
    /// Runs that were looked at.
    pub runs: usize,
    /// One for each figure, tool and extension; in that order.
    pub series: Vec<ReleaseSeries>,
}

/// One figure over releases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleaseSeries {
    /// The figure.
    pub metric: MetricName,
    /// The tool.
    pub tool: Tool,
    /// The extension: what stands before the `@` of its builds.
    pub extension: String,
    /// How long and how much work.
    pub length: String,
    /// In the order of releases.
    pub releases: Vec<ReleaseFigure>,
    /// Where the level changed, in the order of releases.
    pub changes: Vec<LevelChange>,
}

/// A figure in one release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleaseFigure {
    /// The build.
    pub build: String,
    /// Values: one for each job.
    pub values: usize,
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
    /// The first run that had it.
    pub first_run: RunId,
    /// When that was submitted, microseconds since 1970.
    pub first_at_unix_us: u64,
    /// The last run that had it.
    pub last_run: RunId,
    /// When that was submitted, microseconds since 1970.
    pub last_at_unix_us: u64,
}

/// A level that changed for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LevelChange {
    /// The first build of the new level.
    pub build: String,
    /// The first run of the new level.
    pub run: RunId,
    /// The median since the change before (or the beginning).
    pub before: f64,
    /// The median from here to the next change (or the end).
    pub after: f64,
}

/// A value with its place.
struct Value<'a> {
    build: &'a str,
    at: u64,
    run: RunId,
    bytes: f64,
}

type Key<'a> = (&'a MetricName, Tool, &'a str, &'a str);

/// The history of a workload.
pub fn over_releases(workload: &str, runs: &[RunPoints], wanted: &Wanted) -> ReleaseTrend {
    let mut series: BTreeMap<Key<'_>, Vec<Value<'_>>> = BTreeMap::new();
    for run in runs {
        for job in run.jobs.iter().filter(|job| wanted.fits_job(job)) {
            let extension = job.build.split_once('@').map_or(job.build.as_str(), |(name, _)| name);
            for (name, bytes) in job.values.iter().filter(|(name, _)| wanted.fits(name)) {
                let value =
                    Value { build: &job.build, at: run.at_unix_us, run: run.run, bytes: *bytes };
                series.entry((name, job.tool, extension, &job.length)).or_default().push(value);
            }
        }
    }
    let series = series
        .into_iter()
        .map(|((metric, tool, extension, length), mut values)| {
            values.sort_by(|a, b| {
                build_order(a.build, b.build).then(a.at.cmp(&b.at)).then(a.run.cmp(&b.run))
            });
            ReleaseSeries {
                metric: metric.clone(),
                tool,
                extension: extension.to_owned(),
                length: length.to_owned(),
                releases: figures(&values),
                changes: changes(&values),
            }
        })
        .collect();
    ReleaseTrend { workload: workload.to_owned(), runs: runs.len(), series }
}

fn build_order(a: &str, b: &str) -> Ordering {
    match (a.split_once('@'), b.split_once('@')) {
        (Some((a_name, a)), Some((b_name, b))) => {
            a_name.cmp(b_name).then_with(|| release_order(a, b))
        }
        _ => a.cmp(b),
    }
}

fn figures(values: &[Value<'_>]) -> Vec<ReleaseFigure> {
    values
        .chunk_by(|a, b| a.build == b.build)
        .filter_map(|of| {
            let bytes: Vec<f64> = of.iter().map(|value| value.bytes).collect();
            let (first, last) = (of.first()?, of.last()?);
            Some(ReleaseFigure {
                build: first.build.to_owned(),
                values: of.len(),
                median: median(&bytes)?,
                least: bytes.iter().copied().fold(f64::INFINITY, f64::min),
                most: bytes.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                first_run: first.run,
                first_at_unix_us: first.at,
                last_run: last.run,
                last_at_unix_us: last.at,
            })
        })
        .collect()
}

fn changes(values: &[Value<'_>]) -> Vec<LevelChange> {
    let one = |of: &[Value<'_>]| {
        let bytes: Vec<f64> = of.iter().map(|value| value.bytes).collect();
        Some((of.first()?.build.to_owned(), of.first()?.run, median(&bytes)?))
    };
    let mut steps: Vec<_> =
        values.chunk_by(|a, b| a.build == b.build && a.run == b.run).filter_map(one).collect();
    if steps.len() > MOST_RUNS {
        let releases: Vec<_> = values.chunk_by(|a, b| a.build == b.build).filter_map(one).collect();
        match releases.len() {
            0..FEWEST => drop(steps.drain(..steps.len() - MOST_RUNS)),
            _ => steps = releases,
        }
    }
    let bytes: Vec<f64> = steps.iter().map(|(_, _, bytes)| *bytes).collect();
    let mut places: Vec<usize> = change_points(&bytes, LEAST_BYTES)
        .into_iter()
        .filter(|change| (change.after - change.before).abs() > LEAST_CHANGE * change.before.abs())
        .map(|change| change.at)
        .collect();
    places.push(bytes.len());
    let mut found = Vec::new();
    let mut from = 0;
    for pair in places.windows(2) {
        let [at, to] = pair else { continue };
        let level = |from: usize, to: usize| bytes.get(from..to).and_then(median);
        if let (Some((build, run, _)), Some(before), Some(after)) =
            (steps.get(*at), level(from, *at), level(*at, *to))
        {
            found.push(LevelChange { build: build.clone(), run: *run, before, after });
        }
        from = *at;
    }
    found
}

// === impl Wanted ===

impl Wanted {
    fn fits_job(&self, job: &JobPoint) -> bool {
        let extension = job.build.split_once('@').map_or(job.build.as_str(), |(name, _)| name);
        job.arm != Arm::Control
            && self.tool.is_none_or(|tool| tool == job.tool)
            && (self.agents.is_empty() || self.agents.contains(&job.agent))
            && (self.extension.is_empty() || self.extension == extension)
            && job.postgres_version.starts_with(&self.postgres)
    }

    fn fits(&self, name: &MetricName) -> bool {
        (self.what.is_empty() || self.what.contains(&name.what))
            && (self.phases.is_empty() || self.phases.contains(&name.phase))
    }
}

#[cfg(test)]
mod tests;
