//! Where a plain job grows and its plan asks for it, short jobs under memcheck and heaptrack are added to the run.
//!
//! When all plain jobs of a subject (workload, build, PostgreSQL) and their controls are over, their evidence is looked at once,
//! away from the engine's task. What was found, and the jobs that follow from it, are one write: a coordinator that dies before it
//! looks again, one that dies after it goes on with the jobs it finds. The run is not judged before every subject was looked at.

use crate::decide::fitness::{lacks, listed};
use crate::domain::job::JobState;
use crate::domain::record::{Escalation, JobRecord, RunInput, RunRecord};
use crate::domain::run::RunState;
use crate::engine::state::{JobEntry, RunEntry, State};
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::job::{Arm, JobSpec, Outcome, Tool};
use pgsoak_workloads::escalate::{self, Subject};
use pgsoak_workloads::{plan::Plan, workload::Workload};
use std::collections::{BTreeMap, BTreeSet};
use tracing::{info, warn};

/// Evidence that is to be looked at.
#[derive(Clone, Debug)]
pub(crate) struct Plain {
    /// The run.
    pub(crate) run: RunId,
    /// What it is about.
    pub(crate) subject: Subject,
    /// The plain jobs of the subject and their controls.
    pub(crate) jobs: BTreeSet<JobId>,
}

/// What a look came to.
#[derive(Clone, Debug)]
pub(crate) struct Grown {
    /// The run.
    pub(crate) run: RunId,
    /// What it was about.
    pub(crate) subject: Subject,
    /// What grows, one sentence; empty: nothing does.
    pub(crate) growth: String,
}

/// Jobs of a run for which its plan says `escalate = true`. The record lists the plan's jobs first, in the order of their expansion.
pub(crate) fn asked(
    record: &RunRecord,
    input: &RunInput,
    jobs: &BTreeMap<JobId, JobEntry>,
) -> BTreeSet<JobId> {
    // Most plans do not: that is told without reading them.
    if !input.plan_toml.contains("escalate") {
        return BTreeSet::new();
    }
    let Ok(plan) = Plan::parse("plan.toml", &input.plan_toml) else { return BTreeSet::new() };
    let asked = escalate::asked(&plan);
    let is_wanted = |job: &JobId| jobs.get(job).is_some_and(|entry| escalate::may(&entry.spec));
    let planned = record
        .jobs
        .iter()
        .filter(|job| jobs.get(job).is_none_or(|entry| entry.spec.arm != Arm::Canary));
    planned
        .zip(asked)
        .filter(|(job, asked)| *asked && is_wanted(job))
        .map(|(job, _)| *job)
        .collect()
}

// === impl RunEntry ===

impl RunEntry {
    /// Subjects that have a plain job which did its work, and about which nothing is decided yet; their jobs may still go on.
    pub(crate) fn subjects_to_look_at(&self) -> Vec<Subject> {
        let mut subjects: Vec<Subject> = Vec::new();
        if !matches!(self.record.state, RunState::Queued | RunState::Running { .. }) {
            return subjects;
        }
        for job in self.may_escalate.iter().filter_map(|job| self.jobs.get(job)) {
            let is_done =
                matches!(job.record.state, JobState::Over { outcome: Outcome::Finished, .. });
            let subject = Subject::of(&job.spec);
            let is_decided = self.record.escalations.iter().any(|known| known.is_of(&subject));
            if is_done && !is_decided && !subjects.contains(&subject) {
                subjects.push(subject);
            }
        }
        subjects
    }

    /// The plain jobs that tell whether a subject grows; `None`: one of them goes on.
    fn jobs_of(&self, subject: &Subject) -> Option<BTreeSet<JobId>> {
        let is_of = |spec: &JobSpec| {
            spec.tool == Tool::Plain
                && spec.workload_name == subject.workload
                && spec.postgres == subject.postgres
                && match spec.arm {
                    Arm::Candidate => spec.build == subject.build,
                    Arm::Control => true,
                    Arm::Baseline | Arm::Canary => false,
                }
        };
        let jobs = self.jobs.values().filter(|job| is_of(&job.spec));
        jobs.map(|job| job.record.state.is_over().then_some(job.record.job)).collect()
    }
}

// === impl State ===

impl State {
    /// Notes what is to be looked at now.
    pub(crate) fn escalate(&mut self) {
        for (run, entry) in &mut self.runs {
            for subject in entry.subjects_to_look_at() {
                if entry.being_looked_at.contains(&subject) {
                    continue;
                }
                let Some(jobs) = entry.jobs_of(&subject) else { continue };
                entry.being_looked_at.push(subject.clone());
                self.to_escalate.push(Plain { run: *run, subject, jobs });
            }
        }
    }

    /// Evidence was looked at: adds what follows. Said twice is said once.
    pub(crate) fn grown(&mut self, grown: Grown, mut job_id: impl FnMut() -> JobId) {
        let Grown { run, subject, growth } = grown;
        self.is_dirty = true;
        let Some(entry) = self.runs.get_mut(&run) else { return };
        entry.being_looked_at.retain(|known| *known != subject);
        // Cancelled meanwhile, or decided already.
        if !entry.subjects_to_look_at().contains(&subject) {
            return;
        }
        let (mut specs, mut notes) = (Vec::new(), Vec::new());
        if !growth.is_empty() {
            for spec in follow_ups(entry, &subject, &mut job_id) {
                let agents = self.agents.values();
                let lacking = agents
                    .map(|agent| lacks(&spec, &agent.record.capabilities, &entry.input.packages))
                    .min_by_key(Vec::len);
                if lacking.as_ref().is_some_and(Vec::is_empty) {
                    specs.push(spec);
                } else {
                    let lacking = lacking.unwrap_or_default();
                    notes.push(format!(
                        "{} grows and is not looked into under {}: no agent has {}",
                        subject.workload,
                        spec.tool,
                        listed(&lacking)
                    ));
                }
            }
        }
        info!(%run, workload = subject.workload, growth, added = specs.len(), "looked for growth");
        let Subject { workload, build, postgres } = subject;
        let jobs: Vec<JobId> = specs.iter().map(|spec| spec.job).collect();
        entry.record.jobs.extend(&jobs);
        entry.record.escalations.push(Escalation { workload, build, postgres, growth, jobs });
        let now = self.clock.now();
        for spec in specs {
            let spec = JobSpec { workload_toml: String::new(), ..spec };
            let record = JobRecord::waiting(run, spec.job);
            self.effects.batch.spec(&spec);
            self.effects.batch.job(&record);
            self.run_of_job.insert(spec.job, run);
            entry.jobs.insert(spec.job, JobEntry::new(spec, record, now));
        }
        self.effects.batch.run(&entry.record);
        self.effects.is_visible = true;
        for note in notes {
            self.note(run, note);
        }
    }
}

/// The jobs that follow from a subject's growth, for the tools that the run does not have anyway.
fn follow_ups(
    entry: &RunEntry,
    subject: &Subject,
    job_id: &mut impl FnMut() -> JobId,
) -> Vec<JobSpec> {
    let of = entry
        .may_escalate
        .iter()
        .filter_map(|job| entry.jobs.get(job))
        .map(|job| &job.spec)
        .find(|spec| Subject::of(spec) == *subject);
    let Some(of) = of else { return Vec::new() };
    let toml = entry.input.workloads.get(&of.workload_name).cloned().unwrap_or_default();
    let Ok(workload) = Workload::parse(&of.workload_name, &toml) else {
        warn!(
            workload = of.workload_name,
            "a stored workload does not parse; nothing follows its growth"
        );
        return Vec::new();
    };
    let tools = escalate::missing_tools(subject, entry.jobs.values().map(|job| &job.spec));
    tools.into_iter().map(|tool| escalate::follow_up(of, &workload, tool, job_id())).collect()
}
