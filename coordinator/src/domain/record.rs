//! What is kept of runs, jobs, agents and artifacts: the durable shapes. Fields are added with a default, not changed.

use crate::domain::build::PinnedPackage;
use crate::domain::job::JobState;
use crate::domain::run::RunState;
use crate::domain::time::UnixUs;
use pgsoak_proto::id::{AgentId, JobId, RunId};
use pgsoak_proto::job::{BuildRef, JobSpec, PostgresRef};
use pgsoak_proto::session::Capabilities;
use pgsoak_workloads::escalate::Subject;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its id.
    pub run: RunId,
    /// The plan's name.
    pub plan: String,
    /// When it was taken.
    pub submitted_at: UnixUs,
    /// Where it stands.
    pub state: RunState,
    /// In the order of the plan's expansion.
    pub jobs: Vec<JobId>,
    /// How many of them are over.
    pub jobs_over: u32,
    /// What people should know beside the verdict: damage that was found, evidence that was lost.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Subjects whose plain jobs were looked at for growth, in the order of the looks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub escalations: Vec<Escalation>,
    /// Given at submit, for filters.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Among waiting runs the higher comes first; 1 to 100.
    #[serde(default = "usual_priority")]
    pub priority: u32,
}

/// Of runs that were taken before there were priorities.
fn usual_priority() -> u32 {
    50
}

/// What a plain job's growth was followed by, or that it did not grow. Decided once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Escalation {
    /// As the plan writes it.
    pub workload: String,
    /// The candidate.
    pub build: BuildRef,
    /// The server.
    pub postgres: PostgresRef,
    /// What grew, one sentence; empty: nothing did.
    pub growth: String,
    /// The jobs that were added; they stand in the run's list as well.
    pub jobs: Vec<JobId>,
}

/// What a run was made from. Written once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunInput {
    /// The plan's whole file.
    pub plan_toml: String,
    /// The workloads' whole files, by the name that the plan uses.
    pub workloads: BTreeMap<String, String>,
    /// Packages of pushed builds that its jobs were given, so that a run is the same whoever pushes later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<PinnedPackage>,
    /// Names of agents that this coordinator has never met: of a run that was imported.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agents: BTreeMap<AgentId, String>,
}

/// A job: what was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpecRecord {
    /// `workload_toml` is empty here: it stands once in the [`RunInput`].
    pub spec: JobSpec,
}

/// A job: where it stands. Small, since it is written at every step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its id.
    pub job: JobId,
    /// Its run.
    pub run: RunId,
    /// Where it stands.
    pub state: JobState,
    /// Its last attempt needs nothing more from the agent: everything is stored, or was waited for long enough.
    pub is_released: bool,
    /// The last frame of the last attempt is stored.
    #[serde(default)]
    pub is_ended: bool,
    /// How far the evidence of the last attempt is stored, as of the last time this record was written.
    #[serde(default)]
    pub stored_sequence: u64,
}

/// An agent as it last introduced itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// Its id.
    pub agent: AgentId,
    /// Its name.
    pub name: String,
    /// Of its binary.
    pub version: String,
    /// What it can do.
    pub capabilities: Capabilities,
    /// When it was last heard, as far as that was written down.
    pub last_seen_at: UnixUs,
}

/// A raw file of an attempt.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ArtifactRecord {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
    /// As the agent calls it.
    pub name: String,
    /// Of the whole file.
    pub total_bytes: u64,
    /// Of the whole file, hex.
    pub sha256: String,
    /// All of it is stored, and its digest agrees.
    pub is_complete: bool,
    /// It lies in the object store, no longer in the data folder.
    #[serde(default)]
    pub is_away: bool,
}

// === impl JobRecord ===

impl JobRecord {
    /// Where a job begins: in the queue.
    pub fn waiting(run: RunId, job: JobId) -> Self {
        Self {
            job,
            run,
            state: JobState::new(),
            is_released: false,
            is_ended: false,
            stored_sequence: 0,
        }
    }
}

// === impl Escalation ===

impl Escalation {
    /// Whether it is the decision about this subject.
    pub fn is_of(&self, subject: &Subject) -> bool {
        self.workload == subject.workload
            && self.build == subject.build
            && self.postgres == subject.postgres
    }
}

// === impl RunRecord ===

impl RunRecord {
    /// Adds a note, once.
    pub fn note(&mut self, note: String) {
        /// More are counted in the log alone.
        const MOST: usize = 50;
        if self.notes.len() < MOST && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}
