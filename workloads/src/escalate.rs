//! What is added to a run where a plain job grows: short jobs of the same workload and build under tools that name stacks.
//!
//! Pure. Who decides that a job grows is the coordinator, from the job's evidence; here stands which jobs of a plan may be
//! followed by others, and what those look like. Once per workload, build and PostgreSQL, whatever the number of replicas.

use crate::expand::{hard_end, size};
use crate::plan::Plan;
use crate::workload::Kind;
use crate::workload::Length;
use crate::workload::Workload;
use pgsoak_proto::id::JobId;
use pgsoak_proto::job::{Arm, BuildRef, JobSpec, PostgresRef, Tool};
use std::{collections::BTreeMap, time::Duration};

/// The tools of added jobs, in their order.
pub const TOOLS: [Tool; 2] = [Tool::Memcheck, Tool::Heaptrack];

/// An added job's loops are no longer than this.
pub const LONGEST_LOOP: Duration = Duration::from_secs(600);

/// Share of the plain job's operations per round that an added job does. Under memcheck a server is some 40 times slower, under
/// heaptrack a few times; a handful of operations per round names a stack that leaks with each of them.
const fn share(tool: Tool) -> f64 {
    match tool {
        Tool::Plain => 1.0,
        Tool::Heaptrack => 0.2,
        Tool::Memcheck | Tool::Massif => 0.05,
    }
}

/// What is escalated once.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Subject {
    /// As the plan writes it.
    pub workload: String,
    /// The candidate.
    pub build: BuildRef,
    /// The server.
    pub postgres: PostgresRef,
}

impl Subject {
    /// Of a job.
    pub fn of(spec: &JobSpec) -> Self {
        Self {
            workload: spec.workload_name.clone(),
            build: spec.build.clone(),
            postgres: spec.postgres.clone(),
        }
    }
}

/// Whether each job of the plan's expansion, in its order and without the canary's, stands in a `[[job]]` with `escalate = true`.
pub fn asked(plan: &Plan) -> Vec<bool> {
    plan.jobs.iter().flat_map(|job| std::iter::repeat_n(job.escalate, size(job))).collect()
}

/// The subjects that may be escalated: candidates under `plain` in whose `[[job]]` it is asked for. `specs`: the plan's expansion.
pub fn subjects(plan: &Plan, specs: &[JobSpec]) -> Vec<Subject> {
    let mut subjects: Vec<Subject> = Vec::new();
    let planned = specs.iter().filter(|spec| spec.arm != Arm::Canary);
    for (spec, asked) in planned.zip(asked(plan)) {
        let subject = Subject::of(spec);
        if asked && may(spec) && !subjects.contains(&subject) {
            subjects.push(subject);
        }
    }
    subjects
}

/// Whether a job is of a kind that others may follow.
pub fn may(spec: &JobSpec) -> bool {
    spec.tool == Tool::Plain && spec.arm == Arm::Candidate
}

/// The tools that a subject lacks among `specs`: what the plan runs anyway is not run twice.
pub fn missing_tools<'a>(
    subject: &Subject,
    specs: impl IntoIterator<Item = &'a JobSpec>,
) -> Vec<Tool> {
    let there: Vec<Tool> = specs
        .into_iter()
        .filter(|spec| spec.arm == Arm::Candidate && Subject::of(spec) == *subject)
        .map(|spec| spec.tool)
        .collect();
    TOOLS.into_iter().filter(|tool| !there.contains(tool)).collect()
}

/// The short job under `tool` that follows the plain job `of`; `job` is its id.
pub fn follow_up(of: &JobSpec, workload: &Workload, tool: Tool, job: JobId) -> JobSpec {
    let scale = of.scale * share(tool);
    let by_time = workload.phases.iter().filter_map(|phase| match &phase.kind {
        Kind::Loop(shape) => match shape.length {
            Length::For(time) => Some(time),
            Length::Rounds(_) => None,
        },
        Kind::Once => None,
    });
    let loop_for = of.loop_for.or_else(|| by_time.max()).map(|time| time.min(LONGEST_LOOP));
    JobSpec {
        job,
        run: of.run,
        workload_name: of.workload_name.clone(),
        workload_toml: of.workload_toml.clone(),
        tool,
        arm: Arm::Candidate,
        build: of.build.clone(),
        postgres: of.postgres.clone(),
        loop_for,
        scale,
        sample_every: of.sample_every,
        hard_end: hard_end(workload, tool, loop_for, scale),
        seed: of.seed,
        replica: 0,
        exclusive: of.exclusive,
        agents: BTreeMap::clone(&of.agents),
        on_lost: of.on_lost,
        options: of.options.clone(),
    }
}
