//! Compares stored runs by their kept figures; what was not kept is made again from the evidence, once.

use crate::decide::baseline::{self, Chosen};
use crate::domain::history::{Against, BaselineOf, RunLine};
use crate::domain::run::RunState;
use crate::engine::handle::RunSnapshot;
use crate::engine::judging::{JudgeError, evidence_of};
use crate::engine::stored;
use crate::store::catalogue::Batch;
use crate::store::{Store, StoreError};
use pgsoak_analysis::compare::{JobFigures, Set, SetComparison, compare_sets};
use pgsoak_proto::id::RunId;
use pgsoak_proto::job::{Arm, BuildRef};
use std::{collections::BTreeSet, sync::Arc};
use tracing::warn;

/// Runs of a build that a comparison with a baseline takes, newest first.
pub(super) const BASELINE_RUNS: usize = 20;

/// Why there is nothing to compare.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// The run goes on.
    #[error("run {0} is not finished; follow it with `pgsoak watch {0}`")]
    Unfinished(RunId),
    /// There is no such run.
    #[error("there is no run {0}; `pgsoak runs` lists those there are")]
    Unknown(RunId),
    /// Nobody ran it.
    #[error(
        "no stored run has a job of {0} as candidate or baseline; `pgsoak runs` lists what there is"
    )]
    NoRuns(BuildRef),
    /// A defect of the comparison.
    #[error("the comparison broke off: {0}")]
    Broke(String),
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be made from the evidence.
    #[error(transparent)]
    Judge(#[from] JudgeError),
}

/// The candidate's jobs of a run.
///
/// # Errors
///
/// When it is not finished, or cannot be read.
pub async fn set_of_run(store: &Store, run: RunId) -> Result<Set, SetError> {
    let line = store.line(run).ok_or(SetError::Unknown(run))?;
    if !matches!(line.record.state, RunState::Finished { .. }) {
        return Err(SetError::Unfinished(run));
    }
    let mut jobs = figures(store, run).await?;
    jobs.retain(|job| job.arm == Arm::Candidate);
    Ok(Set { label: format!("run {run}"), jobs })
}

/// The jobs of the newest runs that ran a build as candidate or baseline; of one plan, or (empty) of all.
///
/// # Errors
///
/// When there are none, or they cannot be read.
pub async fn set_of_build(
    store: &Store,
    build: &BuildRef,
    plan: &str,
    most_runs: usize,
) -> Result<Set, SetError> {
    let name = build.to_string();
    let is_mine = |line: &Arc<RunLine>| {
        matches!(line.record.state, RunState::Finished { .. })
            && (plan.is_empty() || line.record.plan == plan)
            && line.facts.builds.iter().any(|(arm, of)| *arm != Arm::Control && *of == name)
    };
    let lines = store.lines();
    let runs: Vec<RunId> = lines
        .iter()
        .rev()
        .filter(|line| is_mine(line))
        .take(most_runs)
        .map(|line| line.record.run)
        .collect();
    if runs.is_empty() {
        return Err(SetError::NoRuns(build.clone()));
    }
    let mut jobs = Vec::new();
    for run in runs {
        let found = figures(store, run).await?;
        jobs.extend(found.into_iter().filter(|job| job.arm != Arm::Control && job.build == name));
    }
    Ok(Set { label: name, jobs })
}

/// The figures of a finished run's jobs.
///
/// # Errors
///
/// When neither they nor the evidence can be read.
pub async fn figures(store: &Store, run: RunId) -> Result<Vec<JobFigures>, SetError> {
    if let Some(kept) = store.figures(run).await? {
        return Ok(kept);
    }
    let snapshot = stored::snapshot(store, run).await?.ok_or(SetError::Unknown(run))?;
    let input = store.input(run).await?.unwrap_or_default();
    let evidence = evidence_of(store, &snapshot, &input).await?;
    let made = crate::blocking::spawn(move || {
        evidence.jobs.iter().map(JobFigures::of).collect::<Vec<_>>()
    });
    let made = made.await.map_err(|error| JudgeError::Broke(error.to_string()))?;
    let mut batch = Batch::default();
    batch.figures(run, snapshot.record.submitted_at.0, &made);
    store.commit(batch).await?;
    Ok(made)
}

/// Runs that are looked at for what equal builds differ by, newest first.
const EARLIER_RUNS: usize = 60;

/// Compares two sets, with what other stored runs of the same workloads tell of how runs of equal builds differ.
///
/// # Errors
///
/// When kept figures cannot be read.
pub async fn compare(store: &Store, before: Set, after: Set) -> Result<SetComparison, SetError> {
    let jobs = || before.jobs.iter().chain(&after.jobs);
    let names: BTreeSet<&str> = jobs().map(JobFigures::workload).collect();
    let compared: BTreeSet<RunId> = jobs().map(|job| job.run).collect();
    let lines: Vec<Arc<RunLine>> = compared.iter().filter_map(|run| store.line(*run)).collect();
    // As plans write them: a name, or a file.
    let workloads: BTreeSet<&String> =
        lines.iter().flat_map(|line| &line.facts.workloads).collect();
    let is_like = |line: &&Arc<RunLine>| {
        matches!(line.record.state, RunState::Finished { .. })
            && !compared.contains(&line.record.run)
            && line.facts.workloads.iter().any(|name| workloads.contains(name))
    };
    let mut earlier = Vec::new();
    for line in store.lines().iter().rev().filter(is_like).take(EARLIER_RUNS) {
        // Only what is kept: evidence is not read again for this.
        let kept = store.figures(line.record.run).await?.unwrap_or_default();
        earlier.extend(
            kept.into_iter()
                .filter(|job| job.arm != Arm::Control && names.contains(job.workload())),
        );
    }
    let compared = crate::blocking::spawn(move || compare_sets(&before, &after, &earlier)).await;
    compared.map_err(|error| SetError::Broke(error.to_string()))
}

/// The baseline of a run, as it would be chosen now.
///
/// # Errors
///
/// When what was set cannot be read.
pub async fn baseline_of(store: &Store, line: &RunLine) -> Result<Option<Chosen>, StoreError> {
    let set = store.baselines().await?;
    Ok(baseline::choose(line, &store.lines(), &set))
}

/// Compares a run that is being judged with its baseline, where its plan has no arm for that. What goes wrong here is
/// logged and holds nothing up: the verdict does not rest on it.
pub(super) async fn against(
    store: &Store,
    run: &RunSnapshot,
    figures: &[JobFigures],
) -> Option<Against> {
    let line = store.line(run.record.run)?;
    if !baseline::is_needed(&line) {
        return None;
    }
    let chosen = baseline_of(store, &line)
        .await
        .inspect_err(|error| warn!(%error, "the run has no baseline"))
        .ok()??;
    let before = match &chosen.of {
        BaselineOf::Run(of) => set_of_run(store, *of).await,
        BaselineOf::Build(build) => set_of_build(store, build, &chosen.plan, BASELINE_RUNS).await,
    };
    let before =
        before.inspect_err(|error| warn!(%error, "the run's baseline cannot be read")).ok()?;
    let jobs = figures.iter().filter(|job| job.arm == Arm::Candidate).cloned().collect();
    let after = Set { label: format!("run {}", run.record.run), jobs };
    compare(store, before, after)
        .await
        .inspect_err(|error| warn!(%error, "the run is not compared with its baseline"))
        .ok()
        .map(|comparison| Against { why: chosen.why, comparison })
}
