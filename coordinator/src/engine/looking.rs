//! Looks at jobs that go on: reads what is stored of a job, asks `analysis` where it stands, and ends its loops early where a leak is proven
//! and the plan says so.
//!
//! When a look is due is decided by `analysis::sequential`: the looks of a job cost a few times its judgement at the end, whatever it lasts.
//! Where a job stands is kept in memory only; a coordinator that was away looks again.

use crate::domain::job::JobState;
use crate::domain::record::RunInput;
use crate::domain::time::UnixUs;
use crate::engine::handle::{JobSnapshot, RunSnapshot};
use crate::engine::judging;
use crate::engine::state::{JobEntry, State};
use crate::store::Store;
use pgsoak_analysis::sequential::{self, JobLook, Standing};
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::job::{Arm, Tool};
use pgsoak_proto::session::{CoordinatorMessage, Refusal};
use pgsoak_workloads::quantity::HumanDuration;
use std::time::Duration;
use tracing::{info, warn};

/// Shortest time between two looks at a job.
const LEAST_PAUSE: Duration = Duration::from_secs(5);

/// A job that has not come to its loop is looked at again after this part of its time so far (or `Limits::look_pause`).
const NOT_YET_PART: u32 = 4;

/// How often an agent is told that a job is to end its loops, until it has.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Looks at one job that goes on, kept beside it in memory.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// What the last look saw.
    pub(crate) look: JobLook,
    /// When the next is due; `None`: there is none.
    next_at: Option<UnixUs>,
    is_under_way: bool,
    /// When its agent was last told to end its loops.
    concluded_at: Option<UnixUs>,
}

/// A look that was taken.
#[derive(Debug)]
pub(crate) struct Looked {
    run: RunId,
    job: JobId,
    attempt: u32,
    /// `None`: the evidence could not be read.
    look: Option<JobLook>,
    stop_when_proven: bool,
}

impl Watch {
    /// For an attempt that begins now: looked at as soon as it runs, to learn when it is worth it.
    pub(crate) fn begun(now: UnixUs) -> Self {
        Self { next_at: Some(now), ..Self::default() }
    }
}

impl State {
    /// Jobs of which a look is due, marked as under way.
    pub(crate) fn looks_due(&mut self, now: UnixUs) -> Vec<(RunId, JobId)> {
        let mut due = Vec::new();
        for (run, entry) in &mut self.runs {
            for (job, entry) in &mut entry.jobs {
                if is_watched(entry) && entry.watch.next_at.is_some_and(|at| at <= now) {
                    entry.watch.is_under_way = true;
                    due.push((*run, *job));
                }
            }
        }
        due
    }

    /// Takes in what a look saw.
    pub(crate) fn looked(&mut self, looked: Looked) {
        let Looked { run, job, attempt, look, stop_when_proven } = looked;
        let (now, pause) = (self.now(), self.limits.look_pause);
        let Some(entry) = self.job_mut(job) else { return };
        entry.watch.is_under_way = false;
        let Some(tenure) =
            entry.record.state.live().filter(|t| t.lease.attempt == attempt).copied()
        else {
            return;
        };
        let Some(look) = look else {
            entry.watch.next_at = Some(now.plus(TELL_AGAIN));
            return;
        };
        entry.watch.next_at = look.next_in_s.map(|seconds| {
            let so_far = now.since(tenure.assigned_at) / NOT_YET_PART;
            let is_begun = look.at_s > 0.0;
            let due = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            now.plus(if is_begun { due.max(LEAST_PAUSE) } else { so_far.max(pause) })
        });
        let was = entry.watch.look.standing;
        // Proven stays proven: the looks share one chance to be wrong.
        if was == Standing::Proven {
            return;
        }
        let is = look.standing;
        let name = entry.spec.workload_name.clone();
        let after = Duration::try_from_secs_f64(look.at_s.round()).unwrap_or_default();
        let after = HumanDuration(after);
        let reason = look.reason.clone();
        entry.watch.look = look;
        if is == was {
            return;
        }
        info!(%run, %job, was = was.label(), is = is.label(), reason, "looked at");
        self.effects.is_visible = true;
        if is == Standing::Proven {
            let ends = if stop_when_proven { "; the job ends early" } else { "" };
            self.note(run, format!("{name}: a leak is proven after {after}: {reason}{ends}"));
            if stop_when_proven {
                self.conclude(job, now);
            }
        }
    }

    /// Tells agents again of jobs that are to end their loops: a session may have been lost between.
    pub(crate) fn conclude_again(&mut self, now: UnixUs) {
        let late: Vec<JobId> = self
            .runs
            .values()
            .flat_map(|run| run.jobs.values())
            .filter(|job| job.record.state.live().is_some())
            .filter(|job| job.watch.concluded_at.is_some_and(|at| now.since(at) >= TELL_AGAIN))
            .map(|job| job.record.job)
            .collect();
        for job in late {
            self.conclude(job, now);
        }
    }

    fn conclude(&mut self, job: JobId, now: UnixUs) {
        let Some(entry) = self.job_mut(job) else { return };
        let Some(tenure) = entry.record.state.live().copied() else { return };
        entry.watch.concluded_at = Some(now);
        let reason = format!("a leak is proven: {}", entry.watch.look.reason);
        let message = CoordinatorMessage::Conclude(Refusal { lease: tenure.lease, reason });
        self.send(tenure.agent, message);
    }
}

fn is_watched(job: &JobEntry) -> bool {
    job.spec.tool == Tool::Plain
        && matches!(job.spec.arm, Arm::Candidate | Arm::Baseline)
        && !job.watch.is_under_way
        && !job.record.is_ended
        && matches!(job.record.state, JobState::Running { .. } | JobState::Unreachable { .. })
}

/// Reads what is stored of a job, of its replicas and of its control arm, and looks at it.
pub(crate) async fn look_at(
    store: &Store,
    mut run: RunSnapshot,
    input: &RunInput,
    job: JobId,
) -> Looked {
    let own = run.jobs.iter().find(|known| known.record.job == job);
    let attempt = own.map_or(0, |known| known.record.state.attempts());
    let workload = own.map_or_else(String::new, |known| known.spec.workload_name.clone());
    let id = run.record.run;
    run.jobs.retain(|known| belongs(known, &workload));
    let (look, stop_when_proven) = match judging::evidence_of(store, &run, input).await {
        Ok(evidence) => {
            let stop = evidence.plan.stop_when_proven;
            let looked = crate::blocking::spawn(move || sequential::look(evidence, job)).await;
            if let Err(error) = &looked {
                warn!(run = %id, %job, %error, "a look broke off");
            }
            (looked.ok(), stop)
        }
        Err(error) => {
            warn!(run = %id, %job, %error, "a job that goes on cannot be looked at");
            (None, false)
        }
    };
    Looked { run: id, job, attempt, look, stop_when_proven }
}

fn belongs(job: &JobSnapshot, workload: &str) -> bool {
    job.spec.workload_name == workload
        && job.spec.tool == Tool::Plain
        && job.record.state.tenure().is_some()
}
