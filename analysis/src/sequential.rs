//! A run that goes on: does it look healthy, is it suspect, is a leak proven?
//!
//! Looks are taken at fixed moments of the loop's time (`course`), each at what is stored up to then, as if the job had ended there; so the
//! answer is a function of the evidence, and a coordinator that was away takes the same looks later. The looks that may
//! prove share the chance of one false alarm.
//!
//! - *suspect*: what would fail if the job ended now. Reason enough to look closer (contexts, last statements), not to stop anything.
//! - *proven*: it failed, at its share of the chance, at this look and at the one before, which saw about 0.7 of the time, and its pace has not
//!   fallen meanwhile: prefixes of a run fire on warm-ups, and a warm-up slows down. By growth over time not before
//!   [`EARLIEST_PROOF_S`] or four times the declared warm-up, at readings ten seconds apart or slower (faster ones are thinned).
//!
//! Floors inside, lowest first: `course`, `cut` · `over` (series), this file (jobs).

mod course;
mod cut;
mod over;

pub use course::{Course, EARLIEST_PROOF_S};
pub use over::{SeriesLook, look_at_series};

use crate::evidence::RunEvidence;
use crate::facts::gather_for;
use crate::over_time::{OverTime, Whose, over_time_for};
use crate::result::Verdict;
use crate::rounds::{Leak, named};
use over::keeps_its_pace;
use pgsoak_proto::id::JobId;
use pgsoak_proto::job::{Arm, JobSpec};
use pgsoak_workloads::workload::{Kind, Length, Loop, WarmUp, Workload};
use serde::{Deserialize, Serialize};

/// Where something stands while it goes on. Ordered from good to bad.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Too little was seen to say anything.
    #[default]
    Early,
    /// Nothing that would fail.
    Healthy,
    /// It would fail if it ended now.
    Suspect,
    /// A leak is proven; the rest of the run will not change that.
    Proven,
}

impl Standing {
    /// The word for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::Healthy => "healthy",
            Self::Suspect => "suspect",
            Self::Proven => "proven",
        }
    }
}

/// One job, looked at while it goes on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobLook {
    /// Where it stands.
    pub standing: Standing,
    /// How far into its first loop the look was taken, seconds.
    pub at_s: f64,
    /// Seconds of loop until the next look is due; `None`: there is none.
    pub next_in_s: Option<f64>,
    /// Of what is suspect or proven.
    pub bytes_per_operation: Option<f64>,
    /// Of what is suspect or proven.
    pub bytes_per_second: Option<f64>,
    /// Sessions that grow, steepest first: 0 main, 1 and up: worker.
    pub sessions: Vec<u32>,
    /// One sentence for people; empty for early and healthy.
    pub reason: String,
}

/// What one moment shows of one job.
#[derive(Default)]
struct Seen {
    is_judged: bool,
    rounds: Vec<(String, Leak)>,
    over_time: Vec<OverTime>,
}

/// The length and the warm-up of a job's loops.
pub fn course_of(spec: &JobSpec, workload: &Workload) -> Course {
    let loops = workload.phases.iter().filter_map(|phase| match &phase.kind {
        Kind::Loop(shape) => Some(shape),
        Kind::Once => None,
    });
    let length = |shape: &Loop| match (spec.loop_for, shape.length) {
        (Some(asked), _) | (None, Length::For(asked)) => Some(asked),
        (None, Length::Rounds(_)) => None,
    };
    // Rounds take what they take; the hard end bounds them.
    let planned = loops.map(length).sum::<Option<_>>().unwrap_or(spec.hard_end);
    let warm_up_s = match workload.warm_up {
        Some(WarmUp::Time(time)) => time.as_secs_f64(),
        Some(WarmUp::Rounds(_)) | None => 0.0,
    };
    Course { planned_s: planned.as_secs_f64(), warm_up_s }
}

/// Looks at a job that goes on, among the run's jobs that belong to it (replicas, its control arm); evidence of others does no harm.
///
/// Judged is the last look that is due by what is stored of this job. A control arm is never suspect: it says what PostgreSQL does alone.
pub fn look(mut evidence: RunEvidence, job: JobId) -> JobLook {
    let Some(own) = evidence.jobs.iter().find(|known| known.spec.job == job) else {
        return JobLook::default();
    };
    if !matches!(own.spec.arm, Arm::Candidate | Arm::Baseline) {
        return JobLook::default();
    }
    let course = course_of(&own.spec, &own.workload);
    let Some(begun_us) = cut::loop_began(own) else {
        return JobLook { next_in_s: course.looks().first().copied(), ..JobLook::default() };
    };
    let elapsed_s = cut::elapsed_s(own, begun_us);
    let looks = course.looks();
    let next_in_s = looks.iter().find(|at| **at > elapsed_s).map(|at| at - elapsed_s);
    let nothing = JobLook { at_s: elapsed_s, next_in_s, ..JobLook::default() };
    let Some(due) = looks.iter().rposition(|at| *at <= elapsed_s) else { return nothing };
    let at_s = looks.get(due).copied().unwrap_or(elapsed_s);
    for known in &mut evidence.jobs {
        cut::until(known, at_s);
    }
    // The chance of one false alarm, unshared: a suspicion stops nothing.
    let now = seen(&evidence, job, 1, 1);
    let mut found = JobLook { at_s, ..nothing };
    if !now.is_judged {
        return found;
    }
    found.standing = Standing::Healthy;
    describe(&mut found, &now);
    if found.standing != Standing::Suspect {
        return found;
    }
    let Some(before_s) = due.checked_sub(1).and_then(|before| looks.get(before)).copied() else {
        return found;
    };
    let proofs = course.proofs();
    let all = u32::try_from(looks.len()).unwrap_or(u32::MAX);
    let now = seen(&evidence, job, all, proofs);
    for known in &mut evidence.jobs {
        cut::until(known, before_s);
    }
    let before = seen(&evidence, job, all, proofs);
    let by_rounds = now.rounds.iter().any(|(phase, leak)| {
        before.rounds.iter().any(|(other, earlier)| {
            phase == other
                && leak.of == earlier.of
                && over::kept(leak.growth.slope, earlier.growth.slope)
        })
    });
    let may_prove = course.may_prove(at_s);
    let by_trend = may_prove
        && now.over_time.iter().any(|group| {
            before.over_time.iter().any(|earlier| {
                earlier.whose == group.whose
                    && earlier.phase == group.phase
                    && keeps_its_pace(&group.trend, &earlier.trend)
            })
        });
    if by_rounds || by_trend {
        found.standing = Standing::Proven;
    }
    found
}

/// What would be found if all jobs had ended where the evidence ends.
fn seen(evidence: &RunEvidence, job: JobId, looks_at_rounds: u32, looks_over_time: u32) -> Seen {
    let all = gather_for(&evidence.jobs, looks_at_rounds);
    let Some(at) = all.iter().position(|facts| facts.job.spec.job == job) else {
        return Seen::default();
    };
    let Some(own) = all.get(at) else { return Seen::default() };
    if !own.is_sound() {
        return Seen::default();
    }
    let over_time: Vec<OverTime> = over_time_for(&all, looks_over_time)
        .into_iter()
        .filter(|group| group.jobs.contains(&at))
        .collect();
    let rounds = own
        .rounds
        .iter()
        .flat_map(|rounds| named(rounds).into_iter().map(|leak| (rounds.phase.clone(), leak)))
        .collect();
    let is_judged = own.rounds.iter().any(|rounds| rounds.judged > 0) || !over_time.is_empty();
    let failing = over_time.into_iter().filter(|group| group.trend.verdict == Verdict::Fail);
    Seen { is_judged, rounds, over_time: failing.collect() }
}

/// Makes a look suspect where something would fail, and says what.
fn describe(look: &mut JobLook, now: &Seen) {
    let steepest = now
        .rounds
        .iter()
        .max_by(|a, b| a.1.growth.slope.total_cmp(&b.1.growth.slope).then(b.0.cmp(&a.0)));
    let mut said = Vec::new();
    if let Some((phase, leak)) = steepest {
        look.standing = Standing::Suspect;
        look.bytes_per_operation = Some(leak.growth.slope);
        look.sessions.extend(leak.session);
        said.push(format!(
            "{} grows by {:.1} bytes per operation in phase {phase} (at least {:.1})",
            leak.subject, leak.growth.slope, leak.growth.low
        ));
    }
    for group in &now.over_time {
        look.standing = Standing::Suspect;
        look.bytes_per_second = look.bytes_per_second.or(group.trend.bytes_per_second);
        for session in sessions_of(group) {
            if !look.sessions.contains(&session) {
                look.sessions.push(session);
            }
        }
        said.push(group.trend.reason.clone());
    }
    look.reason = said.join("; ");
}

/// The sessions behind a growth, steepest first: the guilty ones, or all where only the pool grows.
fn sessions_of(group: &OverTime) -> Vec<u32> {
    let guilty = &group.trend.guilty;
    let mut slots: Vec<_> = if guilty.is_empty() { &group.trend.slots } else { guilty }
        .iter()
        .filter_map(|slot| {
            let session = match (group.whose, slot.slot.as_str()) {
                (Whose::Server, "main session") => 0,
                (Whose::Server, _) => return None,
                (Whose::Workers, name) => name.strip_prefix("worker ")?.parse().ok()?,
            };
            Some((slot.bytes_per_second.unwrap_or(0.0), session))
        })
        .collect();
    slots.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    slots.into_iter().map(|(_, session)| session).collect()
}
