//! Two sets of stored runs, before against after: is the later release worse.
//!
//! The unit is host × run, never the sample: tests on samples call identical releases different in a third of the cases. Units of one host are
//! paired in the order of their runs, those of hosts that only one side has with each other; of uneven sides the surplus is averaged
//! in. Levels, amounts and slopes over time need two pairs, or one and three earlier pairs of equal builds. Growth per operation and stacks
//! that lose memory are decided by one pair, since their interval comes from within the run; what grows more must be a leak by itself to be
//! worse.

use crate::compare::equals::{EqualPair, equal_pairs};
use crate::compare::figures::JobFigures;
use crate::compare::verdict_of_rows;
use crate::result::Compared;
use crate::stats::count;
use pgsoak_proto::id::RunId;
use pgsoak_proto::job::Tool;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What is compared: the jobs of some runs, and how people call them.
#[derive(Clone, Debug)]
pub struct Set {
    /// As it was asked for.
    pub label: String,
    /// In any order.
    pub jobs: Vec<JobFigures>,
}

/// One side of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// As it was asked for.
    pub label: String,
    /// Ids.
    pub runs: Vec<String>,
    /// Builds.
    pub builds: Vec<String>,
    /// Names of agents.
    pub hosts: Vec<String>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetComparison {
    /// What came first.
    pub before: Side,
    /// What came after.
    pub after: Side,
    /// The combined answer.
    pub answer: Compared,
    /// One line for people.
    pub sentence: String,
    /// By workload, tool and phase.
    pub rows: Vec<SetRow>,
    /// What was left out or differs, for people.
    pub notes: Vec<String>,
}

/// One figure, before against after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetRow {
    /// The workload.
    pub workload: String,
    /// The phase; empty: the whole workload.
    pub phase: String,
    /// The tool.
    pub tool: Tool,
    /// `outcome`, `level`, `growth`, `peak`, `residual`, `bytes_per_second`, `bytes_per_operation`, `lost_bytes_per_operation`, `kept_bytes_per_operation`.
    pub what: String,
    /// Of what: slots, a context, a function.
    pub subject: String,
    /// Median over the units before; bytes (per operation or second, as `what` says).
    pub before: Option<f64>,
    /// Median over the units after.
    pub after: Option<f64>,
    /// Lower end of the 90 % interval of the difference (one side: 95 %), in the unit of the figure; for levels and amounts in percent.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// What must be exceeded, in the unit of `low`.
    pub margin: Option<f64>,
    /// Pairs of host × run.
    pub pairs: usize,
    /// The answer.
    pub answer: Compared,
    /// Why, or what would tell.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Units of both sides that stand against each other.
pub(super) type Pair<'a> = (Vec<&'a JobFigures>, Vec<&'a JobFigures>);

/// One workload under one tool.
pub(super) struct Match<'a> {
    pub(super) workload: &'a str,
    pub(super) tool: Tool,
    pub(super) before: Vec<&'a JobFigures>,
    pub(super) after: Vec<&'a JobFigures>,
    pub(super) pairs: Vec<Pair<'a>>,
    /// Earlier pairs of equal builds.
    pub(super) equals: Vec<EqualPair<'a>>,
    pub(super) same_length: bool,
}

/// Compares two sets. `earlier`: other jobs of any builds, of which those of equal builds tell what runs differ by. The same jobs give the
/// same answer, whatever their order.
pub fn compare_sets(before: &Set, after: &Set, earlier: &[JobFigures]) -> SetComparison {
    let mut notes = Vec::new();
    for (set, side) in [(before, "before"), (after, "after")] {
        for job in &set.jobs {
            if let Some(why) = &job.unsound {
                notes.push(format!(
                    "left out {side}: {} ({}) of run {} on {}: {why}",
                    job.workload, job.tool, job.run, job.agent
                ));
            }
        }
    }
    let keys: BTreeSet<(&str, Tool)> = before
        .jobs
        .iter()
        .chain(&after.jobs)
        .map(|job| (job.workload.as_str(), job.tool))
        .collect();
    let runs = |set: &Set| set.jobs.iter().map(|job| job.run).collect::<BTreeSet<_>>();
    let compared: BTreeSet<RunId> = runs(before).union(&runs(after)).copied().collect();
    let others: Vec<&JobFigures> =
        earlier.iter().filter(|job| !compared.contains(&job.run)).collect();
    let mut rows = Vec::new();
    for (workload, tool) in keys {
        rows.extend(outcome(workload, tool, before, after));
        match Match::of(workload, tool, before, after, &others) {
            Ok(found) => {
                if !found.equals.is_empty() {
                    notes.push(format!(
                        "{workload} ({tool}): what runs of one build differ by is known from {} pairs",
                        found.equals.len()
                    ));
                }
                rows.extend(found.rows());
            }
            Err(why) => notes.push(format!("{workload} ({tool}) is not compared: {why}")),
        }
    }
    if !runs(before).is_disjoint(&runs(after))
        && before.jobs.iter().any(|job| after.jobs.iter().any(|other| job.build == other.build))
    {
        notes.push("both sides hold the same run: it is compared with itself".to_owned());
    }
    let versions = |set: &Set| -> BTreeSet<String> {
        set.jobs.iter().map(|job| job.postgres_version.clone()).collect()
    };
    if versions(before) != versions(after) {
        let text = |set: &Set| versions(set).into_iter().collect::<Vec<_>>().join(", ");
        notes.push(format!("the servers differ: {} before, {} after", text(before), text(after)));
    }
    notes.sort();
    notes.dedup();
    let (answer, sentence) = verdict_of_rows::verdict(&rows, before, after);
    SetComparison { before: before.side(), after: after.side(), answer, sentence, rows, notes }
}

/// A workload that failed on one side alone, in every job.
fn outcome(workload: &str, tool: Tool, before: &Set, after: &Set) -> Option<SetRow> {
    // Of all jobs that were the product's to finish: how many failed.
    let failed = |set: &Set| {
        let jobs = || {
            let mine = set.jobs.iter().filter(|job| job.workload == workload && job.tool == tool);
            mine.filter(|job| job.has_failed || job.unsound.is_none())
        };
        let all = jobs().count();
        (all > 0).then(|| count(jobs().filter(|job| job.has_failed).count()) / count(all))
    };
    let (was, is) = (failed(before)?, failed(after)?);
    let (answer, message) = match (was > 0.0, is > 0.0) {
        (false, false) => return None,
        (false, true) if is >= 1.0 => (Compared::Worse, "the workload now fails"),
        (true, false) if was >= 1.0 => (Compared::Better, "the workload no longer fails"),
        (true, true) if was >= 1.0 && is >= 1.0 => (Compared::Same, "the workload fails as before"),
        _ => (Compared::CantTell, "the workload fails in some of the jobs"),
    };
    Some(SetRow {
        workload: workload.to_owned(),
        phase: String::new(),
        tool,
        what: "outcome".to_owned(),
        subject: "share of failed jobs".to_owned(),
        before: Some(was),
        after: Some(is),
        low: None,
        high: None,
        margin: None,
        pairs: 0,
        answer,
        message: message.to_owned(),
    })
}

impl Set {
    fn side(&self) -> Side {
        let list = |of: fn(&JobFigures) -> String| -> Vec<String> {
            self.jobs.iter().map(of).collect::<BTreeSet<_>>().into_iter().collect()
        };
        Side {
            label: self.label.clone(),
            runs: list(|job| job.run.to_string()),
            builds: list(|job| job.build.clone()),
            hosts: list(|job| job.agent.clone()),
        }
    }
}

impl<'a> Match<'a> {
    fn of(
        workload: &'a str,
        tool: Tool,
        before: &'a Set,
        after: &'a Set,
        others: &[&'a JobFigures],
    ) -> Result<Self, &'static str> {
        let sound = |set: &'a Set| -> Vec<&'a JobFigures> {
            let mut jobs: Vec<&JobFigures> = set
                .jobs
                .iter()
                .filter(|job| job.workload == workload && job.tool == tool && job.unsound.is_none())
                .collect();
            jobs.sort_by(|a, b| {
                (a.started_at_unix_us, a.run, &a.agent).cmp(&(
                    b.started_at_unix_us,
                    b.run,
                    &b.agent,
                ))
            });
            jobs
        };
        let (mut before, after) = (sound(before), sound(after));
        let Some(last) = after.last().copied() else { return Err("no job after did it soundly") };
        if before.is_empty() {
            return Err("no job before did it soundly");
        }
        // The work as it is now; what was run when the workload's file was another one is no measure of it.
        before.retain(|job| job.work == last.work);
        let after: Vec<&JobFigures> =
            after.iter().copied().filter(|job| job.work == last.work).collect();
        if before.is_empty() {
            return Err("its phases, settings or SQL have changed in between");
        }
        let lengths: BTreeSet<&str> =
            before.iter().chain(&after).map(|job| job.length.as_str()).collect();
        let pairs = paired(&before, &after);
        let same_length = lengths.len() == 1;
        let mut equals = equal_pairs(others, last);
        if pairs.len() == 1 {
            // One side has many runs, the other one: how they differ among themselves says nothing of the difference of the sides, and
            // the mean of many moves less than one. (Of several pairs their own differences tell it already.)
            equals.extend([&before, &after].into_iter().flat_map(|side| equal_pairs(side, last)));
        }
        Ok(Self { workload, tool, before, after, pairs, equals, same_length })
    }
}

/// Units of one host in the order of their runs; what only one side has, with each other.
fn paired<'a>(before: &[&'a JobFigures], after: &[&'a JobFigures]) -> Vec<Pair<'a>> {
    let hosts = |jobs: &[&'a JobFigures]| -> BTreeSet<&'a str> {
        jobs.iter().map(|job| job.agent.as_str()).collect()
    };
    let common: BTreeSet<&str> = hosts(before).intersection(&hosts(after)).copied().collect();
    let of = |jobs: &[&'a JobFigures], host: &str| -> Vec<&'a JobFigures> {
        jobs.iter().copied().filter(|job| job.agent == host).collect()
    };
    let rest = |jobs: &[&'a JobFigures]| -> Vec<&'a JobFigures> {
        jobs.iter().copied().filter(|job| !common.contains(job.agent.as_str())).collect()
    };
    let mut pairs = Vec::new();
    for host in &common {
        pairs.extend(dealt(&of(before, host), &of(after, host)));
    }
    pairs.extend(dealt(&rest(before), &rest(after)));
    pairs
}

fn dealt<'a>(before: &[&'a JobFigures], after: &[&'a JobFigures]) -> Vec<Pair<'a>> {
    let most = before.len().min(after.len());
    let mut pairs: Vec<Pair<'a>> = vec![(Vec::new(), Vec::new()); most];
    for (at, job) in before.iter().enumerate() {
        if let Some(pair) = at.checked_rem(most).and_then(|at| pairs.get_mut(at)) {
            pair.0.push(*job);
        }
    }
    for (at, job) in after.iter().enumerate() {
        if let Some(pair) = at.checked_rem(most).and_then(|at| pairs.get_mut(at)) {
            pair.1.push(*job);
        }
    }
    pairs
}
