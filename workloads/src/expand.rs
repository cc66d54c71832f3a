//! A plan and its workloads become jobs: workloads × tools × replicas × arms.
//!
//! Arms are the innermost factor, so that the jobs that are compared with each other stand, and by default run, side by side. The
//! order depends on the plan alone.
//!
//! A job whose plan gives no `hard_end` gets one from its length (see [`hard_end`]): generous, since it only has to end what hangs.

use crate::canary;
use crate::file_error::FileError;
use crate::file_error::hint;
use crate::plan::Plan;
use crate::plan::PlanJob;
use crate::workload::Kind;
use crate::workload::Length;
use crate::workload::Workload;
use pgsoak_proto::{
    id::{JobId, RunId},
    job::{Arm, BuildRef, JobSpec, OnLost, Tool},
};
use std::{collections::BTreeMap, time::Duration};

/// A workload's file as somebody read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadText {
    /// How messages call the file.
    pub file: String,
    /// Its text.
    pub toml: String,
}

/// Most jobs of one run; a plan with more is a mistake.
pub const MAX_JOBS: usize = 10_000;

/// Share of a job's `hard_end` that no loop's `for` covers, under the tool `plain`.
const BASE: Duration = Duration::from_secs(30 * 60);

/// The jobs of a plan, in a stable order. `workloads` holds each file under the name that the plan writes.
///
/// # Errors
///
/// Every problem: a workload that is missing (the plan's name stands for its file), every problem of a workload's file, or too many jobs.
pub fn expand(
    plan: &Plan,
    workloads: &BTreeMap<String, WorkloadText>,
    run: RunId,
    job_ids: impl FnMut() -> JobId,
) -> Result<Vec<JobSpec>, Vec<FileError>> {
    expand_for(plan, workloads, run, 1, job_ids)
}

/// As [`expand`], for so many agents: where the plan asks for the canary, each of them gets it, before the plan's jobs and after them.
///
/// # Errors
///
/// As [`expand`].
pub fn expand_for(
    plan: &Plan,
    workloads: &BTreeMap<String, WorkloadText>,
    run: RunId,
    agents: u32,
    mut job_ids: impl FnMut() -> JobId,
) -> Result<Vec<JobSpec>, Vec<FileError>> {
    let mut problems = Vec::new();
    let mut parsed: BTreeMap<&str, (&WorkloadText, Workload)> = BTreeMap::new();
    for name in plan.jobs.iter().flat_map(|job| &job.workloads) {
        if parsed.contains_key(name.as_str()) {
            continue;
        }
        let Some(text) = workloads.get(name) else {
            let hint = hint(name, workloads.keys().map(String::as_str));
            let problem = format!("no workload '{name}' came with the plan{hint}");
            problems.push(FileError { file: plan.name.clone(), line: 0, problem });
            continue;
        };
        match Workload::parse(&text.file, &text.toml) {
            Ok(workload) => {
                parsed.insert(name, (text, workload));
            }
            Err(found) => problems.extend(found),
        }
    }
    let count: usize = plan.jobs.iter().map(size).fold(0, usize::saturating_add);
    if count > MAX_JOBS {
        let problem = format!("comes to {count} jobs; at most {MAX_JOBS} make a run");
        problems.push(FileError { file: plan.name.clone(), line: 0, problem });
    }
    problems.dedup();
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut specs = Vec::with_capacity(count);
    specs.extend(canaries(plan, run, agents, &mut job_ids));
    for job in &plan.jobs {
        for name in &job.workloads {
            let Some((text, workload)) = parsed.get(name.as_str()) else { continue };
            for tool in &job.tools {
                for replica in 0..job.replicas {
                    for (arm, build) in arms(job) {
                        specs.push(JobSpec {
                            job: job_ids(),
                            run,
                            workload_name: name.clone(),
                            workload_toml: text.toml.clone(),
                            tool: *tool,
                            arm,
                            build,
                            postgres: job.postgres.clone(),
                            loop_for: job.loop_for,
                            scale: job.scale,
                            sample_every: job.sample_every,
                            hard_end: job.hard_end.unwrap_or_else(|| {
                                hard_end(workload, *tool, job.loop_for, job.scale)
                            }),
                            seed: job.seed,
                            replica,
                            exclusive: job.exclusive,
                            agents: job.agents.clone(),
                            on_lost: job.on_lost,
                            options: Box::new(job.options.clone()),
                        });
                    }
                }
            }
        }
    }
    specs.extend(canaries(plan, run, agents, &mut job_ids));
    Ok(specs)
}

/// The canary's jobs, a replica of each for every agent: replicas go to different agents.
fn canaries(
    plan: &Plan,
    run: RunId,
    agents: u32,
    job_ids: &mut impl FnMut() -> JobId,
) -> Vec<JobSpec> {
    let jobs = if plan.canary { canary::jobs(plan) } else { Vec::new() };
    let build: Option<BuildRef> = canary::BUILD.parse().ok();
    let mut specs = Vec::new();
    for job in &jobs {
        for replica in 0..agents.max(1) {
            let Some(build) = build.clone() else { continue };
            specs.push(JobSpec {
                job: job_ids(),
                run,
                workload_name: job.workload.to_owned(),
                workload_toml: job.toml.to_owned(),
                tool: job.tool,
                arm: Arm::Canary,
                build,
                postgres: job.postgres.clone(),
                loop_for: None,
                scale: job.scale,
                sample_every: Duration::from_secs(1),
                hard_end: job.hard_end,
                seed: 1,
                replica,
                exclusive: false,
                agents: job.agents.clone(),
                on_lost: OnLost::Wait,
                options: Box::default(),
            });
        }
    }
    specs
}

/// Jobs that one `[[job]]` comes to.
pub(crate) fn size(job: &PlanJob) -> usize {
    let replicas = usize::try_from(job.replicas).unwrap_or(usize::MAX);
    job.workloads
        .len()
        .saturating_mul(job.tools.len())
        .saturating_mul(replicas)
        .saturating_mul(arms(job).count())
}

fn arms(job: &PlanJob) -> impl Iterator<Item = (Arm, BuildRef)> {
    [
        Some((Arm::Candidate, job.build.clone())),
        job.baseline.clone().map(|build| (Arm::Baseline, build)),
        job.control.then_some((Arm::Control, BuildRef::Vanilla)),
    ]
    .into_iter()
    .flatten()
}

/// When a runner ends by itself, where the plan does not say: what the loops are asked to take, and much room.
///
/// - 30 minutes for the cluster, the phases that run once, loops of a number of rounds (nobody knows how long these
///   take) and the tool's report; four times that under memcheck, massif and heaptrack, which slow a server down.
/// - A loop with `for` (or the plan's): its time, a tenth of it, and 5 minutes for the round that is under way (20 under such a tool).
/// - A loop of rounds with a `rate`: twice the time that its operations take at that rate.
pub fn hard_end(
    workload: &Workload,
    tool: Tool,
    loop_for: Option<Duration>,
    scale: f64,
) -> Duration {
    let slow = if tool == Tool::Plain { 1 } else { 4 };
    let mut end = BASE * slow;
    for phase in &workload.phases {
        let Kind::Loop(shape) = &phase.kind else { continue };
        let length = loop_for.map_or(shape.length, Length::For);
        let takes = match (length, shape.rate) {
            (Length::For(time), _) => {
                time.saturating_add(time / 10).saturating_add(Duration::from_secs(300) * slow)
            }
            (Length::Rounds(rounds), Some(rate)) => {
                #[allow(clippy::cast_precision_loss)]
                let operations = shape.scaled_operations(scale) as f64 * f64::from(rounds);
                Duration::try_from_secs_f64(2.0 * operations / rate).unwrap_or(LONGEST)
            }
            (Length::Rounds(_), None) => Duration::ZERO,
        };
        end = end.saturating_add(takes);
    }
    end.min(LONGEST)
}

/// Nothing runs longer.
const LONGEST: Duration = Duration::from_secs(3_660 * 86_400);
