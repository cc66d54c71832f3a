//! What the engine and the store know, as the wire says it.

use crate::domain::job::JobState;
use crate::domain::record::{ArtifactRecord, RunRecord};
use crate::domain::run::RunState;
use crate::domain::time::UnixUs;
use crate::engine::handle::{AgentStatus, JobSnapshot, RunSnapshot};
use pgsoak_analysis::result::Verdict;
use pgsoak_proto::job::JobSpec;
use pgsoak_proto::wire;

fn moment(at: Option<UnixUs>) -> u64 {
    at.unwrap_or_default().0
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The word for a verdict.
pub(crate) const fn verdict(verdict: Verdict) -> &'static str {
    verdict.label()
}

/// A run without its jobs.
pub(super) fn run_line(record: &RunRecord) -> wire::RunView {
    let (stage, finished_at, word, sentence) = match &record.state {
        RunState::Queued => (wire::RunStage::Queued, None, "", ""),
        RunState::Running { .. } => (wire::RunStage::Running, None, "", ""),
        RunState::Cancelling { .. } => (wire::RunStage::Cancelling, None, "", ""),
        RunState::Judging { .. } => (wire::RunStage::Judging, None, "", ""),
        RunState::Finished { finished_at, verdict: judged, sentence, .. } => {
            (wire::RunStage::Finished, Some(*finished_at), verdict(*judged), sentence.as_str())
        }
    };
    let mut sentence = sentence.to_owned();
    for note in &record.notes {
        if !sentence.is_empty() {
            sentence.push_str("; ");
        }
        sentence.push_str(note);
    }
    wire::RunView {
        run_id: record.run.to_string(),
        plan: record.plan.clone(),
        stage: stage.into(),
        submitted_at_unix_us: record.submitted_at.0,
        started_at_unix_us: moment(record.state.started_at()),
        finished_at_unix_us: moment(finished_at),
        verdict: word.to_owned(),
        sentence,
        jobs: Vec::new(),
        jobs_total: count(record.jobs.len()),
        jobs_over: record.jobs_over,
        is_cancelled: record.state.cancelled().is_some(),
        priority: record.priority,
    }
}

/// A run with its jobs.
pub(super) fn run(snapshot: RunSnapshot) -> wire::RunView {
    let mut view = run_line(&snapshot.record);
    view.jobs = snapshot.jobs.into_iter().map(job).collect();
    view
}

fn job(snapshot: JobSnapshot) -> wire::JobView {
    let look = snapshot.looked_at().cloned();
    let JobSnapshot { spec, record, agent, progress, why, forecast, .. } = snapshot;
    let (would_go, starts_at) = forecast.unwrap_or_default();
    let (standing, standing_reason) =
        look.map(|look| (look.standing.label().to_owned(), look.reason)).unwrap_or_default();
    let (place, outcome, reason) = match &record.state {
        JobState::Waiting { .. } => (wire::JobPlace::Waiting, None, why),
        JobState::Assigned { .. } => (wire::JobPlace::Assigned, None, String::new()),
        JobState::Running { .. } => (wire::JobPlace::Running, None, String::new()),
        JobState::Unreachable { silent_since, .. } => (
            wire::JobPlace::Unreachable,
            None,
            format!("agent {agent} was last heard at {silent_since}; the job goes on by itself"),
        ),
        JobState::Cancelling { reason, .. } => (wire::JobPlace::Cancelling, None, reason.clone()),
        JobState::Over { outcome, reason, .. } => {
            (wire::JobPlace::Over, Some(wire::Outcome::from(*outcome)), reason.clone())
        }
    };
    let spec = JobSpec { workload_toml: String::new(), ..spec };
    wire::JobView {
        attempts: record.state.attempts(),
        spec: Some((&spec).into()),
        place: place.into(),
        agent,
        outcome: outcome.unwrap_or(wire::Outcome::Unspecified).into(),
        reason,
        progress: progress.as_ref().map(Into::into),
        stored_sequence: record.stored_sequence,
        standing,
        standing_reason,
        would_go,
        starts_at_unix_us: starts_at.0,
    }
}

/// An agent.
pub(super) fn agent(status: AgentStatus) -> wire::AgentView {
    let AgentStatus { record, is_connected, seen_at, jobs } = status;
    wire::AgentView {
        agent_id: record.agent.to_string(),
        name: record.name,
        is_connected,
        last_seen_at_unix_us: seen_at.0,
        version: record.version,
        capabilities: Some((&record.capabilities).into()),
        jobs: count(jobs),
    }
}

/// An artifact.
pub(super) fn artifact(record: ArtifactRecord) -> wire::ArtifactView {
    wire::ArtifactView {
        job_id: record.job.to_string(),
        attempt: record.attempt,
        name: record.name,
        bytes: record.total_bytes,
        is_complete: record.is_complete,
    }
}
