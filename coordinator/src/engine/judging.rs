//! Judges a run from its stored evidence: reads frames on blocking threads, folds them as they come, asks `analysis`.
//!
//! A pure function of what is stored, so it can be done again (`replay`) and gives the same bytes.

use crate::domain::history::{Against, Signature};
use crate::domain::job::JobState;
use crate::domain::record::RunInput;
use crate::engine::comparing;
use crate::engine::escalation::Plain;
use crate::engine::handle::{JobSnapshot, RunSnapshot};
use crate::store::Store;
use crate::store::run_db::StoredFrame;
use pgsoak_analysis::compare::JobFigures;
use pgsoak_analysis::evidence::{AttemptEvidence, Fold, JobEvidence, RunEvidence};
use pgsoak_analysis::result::{Detects, RunResult, Verdict};
use pgsoak_analysis::{report, verdict};
use pgsoak_proto::evidence::Frame;
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::job::{JobSpec, Outcome};
use pgsoak_workloads::{plan::Plan, workload::Workload};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::{error, warn};

/// What messages call the plan: the wire carries its text alone.
pub const PLAN_FILE: &str = "plan.toml";

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The run.
    pub run: RunId,
    /// The combined verdict.
    pub verdict: Verdict,
    /// One line for people.
    pub sentence: String,
    /// The whole result, as it is stored and printed.
    pub json: String,
    /// What the history keeps of its jobs.
    pub figures: Vec<JobFigures>,
    /// Leak signatures that it showed.
    pub signatures: Vec<Signature>,
    /// What it was compared with, where its plan has no arm for that.
    pub against: Option<Against>,
}

/// Why a run cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// Its plan no longer parses.
    #[error("the stored plan does not parse: {0}")]
    Plan(String),
    /// The judging itself broke.
    #[error("the judging broke off: {0}")]
    Broke(String),
}

/// Judges a run. One that cannot be judged is `invalid`, and says why: it is over all the same.
pub async fn judge_run(store: &Store, run: &RunSnapshot, input: &RunInput) -> Judgement {
    let (result, figures) = match result_and_figures(store, run, input).await {
        Ok(judged) => judged,
        Err(error) => {
            error!(run = %run.record.run, %error, "the run cannot be judged");
            (unjudged(run, &error), Vec::new())
        }
    };
    Judgement {
        run: run.record.run,
        verdict: result.verdict,
        sentence: result.sentence.clone(),
        json: report::to_json(&result),
        signatures: Signature::of(&result, run.record.submitted_at),
        against: comparing::against(store, run, &figures).await,
        figures,
    }
}

async fn result_and_figures(
    store: &Store,
    run: &RunSnapshot,
    input: &RunInput,
) -> Result<(RunResult, Vec<JobFigures>), JudgeError> {
    let evidence = evidence_of(store, run, input).await?;
    let judged = crate::blocking::spawn(move || {
        (verdict::judge(&evidence), evidence.jobs.iter().map(JobFigures::of).collect())
    });
    judged.await.map_err(|error| JudgeError::Broke(error.to_string()))
}

/// The result of a run, from its stored evidence.
///
/// # Errors
///
/// When its plan cannot be read, or `analysis` panics.
pub async fn result_of(
    store: &Store,
    run: &RunSnapshot,
    input: &RunInput,
) -> Result<RunResult, JudgeError> {
    let evidence = evidence_of(store, run, input).await?;
    crate::blocking::spawn(move || verdict::judge(&evidence))
        .await
        .map_err(|error| JudgeError::Broke(error.to_string()))
}

/// What a run's verdict rests on, folded from its stored frames.
///
/// # Errors
///
/// When its plan or a workload cannot be read.
pub async fn evidence_of(
    store: &Store,
    run: &RunSnapshot,
    input: &RunInput,
) -> Result<RunEvidence, JudgeError> {
    let plan = Plan::parse(PLAN_FILE, &input.plan_toml).map_err(|problems| {
        JudgeError::Plan(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    })?;
    let mut jobs = Vec::with_capacity(run.jobs.len());
    for job in &run.jobs {
        jobs.push(job_evidence(store, run.record.run, job, input).await?);
    }
    Ok(RunEvidence { run: run.record.run, plan, jobs })
}

async fn job_evidence(
    store: &Store,
    run: RunId,
    job: &JobSnapshot,
    input: &RunInput,
) -> Result<JobEvidence, JudgeError> {
    let mut spec: JobSpec = job.spec.clone();
    spec.workload_toml = input.workloads.get(&spec.workload_name).cloned().unwrap_or_default();
    let workload =
        Workload::parse(&spec.workload_name, &spec.workload_toml).map_err(|problems| {
            JudgeError::Plan(
                problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            )
        })?;
    let (outcome, reason) = match &job.record.state {
        JobState::Over { outcome, reason, .. } => (*outcome, reason.clone()),
        other => (Outcome::Infrastructure, format!("the job is {}", other.label())),
    };
    let attempt = match job.record.state.tenure() {
        Some(tenure) => fold(store, run, spec.job, tenure.lease.attempt).await,
        None => AttemptEvidence::default(),
    };
    Ok(JobEvidence {
        spec,
        workload,
        agent: job.agent.clone(),
        attempts: job.record.state.attempts(),
        outcome,
        reason,
        attempt,
    })
}

/// Folds the frames of one attempt while they are being read.
async fn fold(store: &Store, run: RunId, job: JobId, attempt: u32) -> AttemptEvidence {
    let fold = Arc::new(Mutex::new(Fold::default()));
    let to = Arc::clone(&fold);
    let reading = store
        .read_frames(run, job, attempt, move |found| {
            if let Some(frame) = checked(job, found) {
                to.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
            }
            true
        })
        .await;
    if let Err(error) = reading {
        // What was read counts; what was not is missing, and missing evidence never passes.
        error!(%run, %job, attempt, %error, "evidence cannot be read to its end");
    }
    std::mem::take(&mut *fold.lock().unwrap_or_else(PoisonError::into_inner)).finish()
}

/// Whether the jobs of a look grow, from their stored evidence; empty: they do not. What cannot be read does not grow: the run's own
/// judgement says what is wrong with it.
pub(crate) async fn growth_of(
    store: &Store,
    run: &RunSnapshot,
    input: &RunInput,
    look: &Plain,
) -> String {
    let mut part = run.clone();
    part.jobs.retain(|job| look.jobs.contains(&job.record.job));
    match result_of(store, &part, input).await {
        Ok(result) => verdict::growth(&result).unwrap_or_default(),
        Err(error) => {
            error!(run = %run.record.run, %error, "evidence cannot be looked at for growth");
            String::new()
        }
    }
}

/// A stored frame, checked; `None` when it is damaged: its sequence is then missing from the evidence.
pub fn checked(job: JobId, found: StoredFrame) -> Option<Frame> {
    match found {
        StoredFrame::Whole(frame) => {
            let sequence = frame.sequence;
            Frame::try_from(*frame)
                .inspect_err(|error| warn!(%job, sequence, %error, "a stored frame is left out"))
                .ok()
        }
        StoredFrame::Damaged { sequence, problem } => {
            error!(%job, sequence, problem, "a stored frame is damaged; it is left out");
            None
        }
    }
}

fn unjudged(run: &RunSnapshot, error: &JudgeError) -> RunResult {
    RunResult {
        run: run.record.run,
        plan: run.record.plan.clone(),
        verdict: Verdict::Invalid,
        sentence: format!("Invalid: the run could not be judged: {error}"),
        detects: Detects::default(),
        findings: Vec::new(),
        budgets: Vec::new(),
        comparisons: Vec::new(),
        holders: Vec::new(),
        suppressed: Vec::new(),
        attributions: Vec::new(),
        captures: Vec::new(),
        horizon: Vec::new(),
        jobs: Vec::new(),
        engine: verdict::ENGINE,
    }
}
