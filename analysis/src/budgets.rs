//! Memory budgets of phases: growth, growth per operation, peak, and what is left after a drop.
//!
//! Measured under `plain` only: a tool's own memory would be counted too. Nothing is taken off for the control arm; what vanilla used stands
//! beside the figure. RssAnon comes in pages and malloc's top chunk, so growth per operation is held to its budget with a grace of
//! four pages (16 KiB) over all operations of the fit.

use crate::evidence::{AttemptEvidence, JobEvidence, PhaseSpan};
use crate::figures::bytes_text;
use crate::result::Verdict;
use crate::rounds::{PhaseRounds, Shape, Subject};
use crate::stats::bytes;
use pgsoak_proto::evidence::AtRest;
use pgsoak_proto::job::Tool;
use pgsoak_workloads::workload::Phase;
use std::collections::BTreeMap;

/// Four pages.
const GRACE_BYTES: f64 = 16384.0;

/// What is measured.
#[derive(
    Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// At rest after the phase, less before; loop phases: the largest of their sessions.
    Growth,
    /// At rest, per operation.
    GrowthPerOperation,
    /// Largest reading of a session in the phase, less the main session at rest before the first phase.
    Peak,
    /// Main session at rest after the phase, less before an earlier one.
    Residual,
}

impl What {
    /// The word in results.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Growth => "growth",
            Self::GrowthPerOperation => "growth_per_operation",
            Self::Peak => "peak",
            Self::Residual => "residual",
        }
    }
}

/// One figure of a phase, with its budget where there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The phase's name.
    pub phase: String,
    /// What.
    pub what: What,
    /// Bytes (per operation); `None`: the workload sets none, it is measured to be compared.
    pub budget: Option<f64>,
    /// Bytes (per operation); `None`: not measured.
    pub measured: Option<f64>,
    /// Of `Residual`: the part that contexts hold.
    pub held_by_contexts: Option<f64>,
    /// Of `Residual`: what is left after `malloc_trim`; `None`: not done.
    pub after_trim: Option<f64>,
    /// Whether the budget holds; `Pass` without a budget.
    pub verdict: Verdict,
    /// Why it was not measured, or what is worth knowing.
    pub message: String,
}

/// Measures every phase of a job; empty for tools other than `plain`.
pub fn budgets(job: &JobEvidence, rounds: &[PhaseRounds]) -> Vec<Measured> {
    if job.spec.tool != Tool::Plain {
        return Vec::new();
    }
    let attempt = &job.attempt;
    let mut all = Vec::new();
    for phase in &job.workload.phases {
        let span = attempt.phases.iter().find(|span| span.started.name == phase.name);
        let budget = &phase.budget;
        let growth = span.map(|span| growth(attempt, span)).unwrap_or_else(not_run);
        all.push(judged(phase, What::Growth, budget.growth.map(bytes), growth));
        if span.is_some_and(|span| span.started.workers > 0)
            || budget.growth_per_operation.is_some()
        {
            let of_phase = rounds.iter().find(|rounds| rounds.phase == phase.name);
            all.push(per_operation(phase, span, attempt, of_phase));
        }
        let peak =
            span.map(|span| peak(attempt, span, budget.peak.map(bytes))).unwrap_or_else(not_run);
        all.push(judged(phase, What::Peak, budget.peak.map(bytes), peak));
        if let Some(wanted) = &budget.residual {
            all.push(residual(attempt, phase, span, bytes(wanted.bytes), &wanted.since));
        }
    }
    all
}

/// Why a phase that never began has no figure.
const NOT_RUN: &str = "the phase did not run";

/// A figure, or why there is none.
type Figure = Result<f64, String>;

fn not_run() -> Figure {
    Err(NOT_RUN.to_owned())
}

fn judged(phase: &Phase, what: What, budget: Option<f64>, figure: Figure) -> Measured {
    let (measured, message) = match figure {
        Ok(measured) => (Some(measured), String::new()),
        Err(why) => (None, why),
    };
    let verdict = match (budget, measured) {
        (None, _) => Verdict::Pass,
        (Some(_), None) => Verdict::Inconclusive,
        (Some(budget), Some(measured)) if measured > budget => Verdict::Fail,
        _ => Verdict::Pass,
    };
    Measured {
        phase: phase.name.clone(),
        what,
        budget,
        measured,
        held_by_contexts: None,
        after_trim: None,
        verdict,
        message,
    }
}

/// First and last reading at rest of each session of a phase.
fn ends<'a>(
    attempt: &'a AttemptEvidence,
    span: &PhaseSpan,
) -> BTreeMap<u32, (&'a AtRest, &'a AtRest)> {
    let mut ends: BTreeMap<u32, (&AtRest, &AtRest)> = BTreeMap::new();
    for reading in attempt.at_rest.iter().filter(|reading| reading.phase == span.started.phase) {
        let is_loop = span.started.workers > 0;
        if is_loop == (reading.session == 0) {
            continue;
        }
        ends.entry(reading.session)
            .and_modify(|(first, last)| {
                if reading.round < first.round {
                    *first = reading;
                }
                if reading.round >= last.round {
                    *last = reading;
                }
            })
            .or_insert((reading, reading));
    }
    ends
}

fn growth(attempt: &AttemptEvidence, span: &PhaseSpan) -> Figure {
    ends(attempt, span)
        .values()
        .filter(|(first, last)| last.round > first.round && first.process == last.process)
        .map(|(first, last)| bytes(last.rss_anon_bytes) - bytes(first.rss_anon_bytes))
        .max_by(f64::total_cmp)
        .ok_or_else(|| {
            "no backend was read at rest both before and after (sessions that reconnect have no growth of their own)"
                .to_owned()
        })
}

/// Samples see what is used while the work runs, readings at rest what is left of it. The latter alone are no peak, but they prove a
/// budget broken.
fn peak(attempt: &AttemptEvidence, span: &PhaseSpan, budget: Option<f64>) -> Figure {
    let ground = attempt
        .at_rest
        .iter()
        .filter(|reading| reading.session == 0)
        .min_by_key(|reading| (reading.phase, reading.round))
        .ok_or("the main session was not read at rest before the first phase")?;
    let until = span.ended_elapsed_us.unwrap_or(u64::MAX);
    let is_loop = span.started.workers > 0;
    let mut largest: Option<u64> = None;
    for series in attempt.processes.values() {
        if series.who.session.is_none_or(|session| is_loop == (session == 0)) {
            continue;
        }
        let from = series.elapsed_us.partition_point(|at| *at < span.started_elapsed_us);
        let to = series.elapsed_us.partition_point(|at| *at <= until);
        largest = largest.max(
            series.rss_anon_bytes.get(from..to).and_then(|readings| readings.iter().max().copied()),
        );
    }
    let at_rest = attempt
        .at_rest
        .iter()
        .filter(|reading| reading.phase == span.started.phase && is_loop == (reading.session != 0))
        .filter(|reading| reading.round >= 1)
        .map(|reading| reading.rss_anon_bytes)
        .max();
    let above = |reading: u64| bytes(reading) - bytes(ground.rss_anon_bytes);
    match (largest, at_rest) {
        (Some(_), _) => Ok(above(largest.max(at_rest).unwrap_or(0))),
        (None, Some(reading)) if budget.is_some_and(|budget| above(reading) > budget) => {
            Ok(above(reading))
        }
        _ => Err("no sample fell into the phase: a shorter sample_every would see it".to_owned()),
    }
}

fn residual(
    attempt: &AttemptEvidence,
    phase: &Phase,
    span: Option<&PhaseSpan>,
    budget: f64,
    since: &str,
) -> Measured {
    let left = span.map_or_else(|| Err(NOT_RUN.to_owned()), |span| left(attempt, span, since));
    let (figure, held, after_trim) = match left {
        Ok(left) => (Ok(left.bytes), left.held, left.after_trim),
        Err(why) => (Err(why), None, None),
    };
    let mut line = judged(phase, What::Residual, Some(budget), figure);
    (line.held_by_contexts, line.after_trim) = (held, after_trim);
    if let Some(value) = line.measured.filter(|value| *value > 0.0) {
        line.message = kept_by(value, held, after_trim);
    }
    line
}

/// Who keeps what is left: contexts, the allocator, and how much of the allocator's is slack that it gives back when told to.
fn kept_by(value: f64, held: Option<f64>, after_trim: Option<f64>) -> String {
    let given_back = after_trim.map(|after| (value - after).max(0.0));
    match (held, given_back) {
        (Some(held), given_back) => {
            let kept = (value - held).max(0.0);
            let slack = match given_back {
                // Memory that was free before counts too, so it can be more than what was kept.
                Some(back) if kept > 0.0 && back >= kept => {
                    ", all of which malloc_trim gives back".to_owned()
                }
                Some(back) => format!(", of which malloc_trim gives back {}", bytes_text(back)),
                None => String::new(),
            };
            format!(
                "memory contexts hold {} of it; the allocator kept {}{slack}",
                bytes_text(held),
                bytes_text(kept)
            )
        }
        (None, Some(back)) => format!("malloc_trim gives back {} of it", bytes_text(back)),
        (None, None) => String::new(),
    }
}

/// What a main session still has, in bytes more than before.
struct Left {
    bytes: f64,
    held: Option<f64>,
    after_trim: Option<f64>,
}

fn left(attempt: &AttemptEvidence, span: &PhaseSpan, since: &str) -> Result<Left, String> {
    let main = |phase: u32| {
        attempt.at_rest.iter().filter(move |reading| reading.session == 0 && reading.phase == phase)
    };
    let before = attempt
        .phases
        .iter()
        .find(|span| span.started.name == since)
        .and_then(|span| main(span.started.phase).min_by_key(|reading| reading.round));
    let after = main(span.started.phase).max_by_key(|reading| reading.round);
    let (Some(before), Some(after)) = (before, after) else {
        return Err(format!("the main session was not read at rest before '{since}' and after"));
    };
    if before.process != after.process {
        return Err("the main session has another backend than before".to_owned());
    }
    let total = |reading: &AtRest| {
        reading.contexts.iter().fold(0, |sum: u64, context| sum.saturating_add(context.total_bytes))
    };
    let held = (!before.contexts.is_empty() && !after.contexts.is_empty())
        .then(|| bytes(total(after)) - bytes(total(before)));
    let above = |reading: u64| bytes(reading) - bytes(before.rss_anon_bytes);
    let after_trim =
        (after.trimmed_rss_anon_bytes > 0).then(|| above(after.trimmed_rss_anon_bytes));
    Ok(Left { bytes: above(after.rss_anon_bytes), held, after_trim })
}

fn per_operation(
    phase: &Phase,
    span: Option<&PhaseSpan>,
    attempt: &AttemptEvidence,
    rounds: Option<&PhaseRounds>,
) -> Measured {
    let budget = phase.budget.growth_per_operation;
    let Some(growth) = rounds.and_then(|rounds| rounds.raw.get(&Subject::Anonymous)) else {
        // Too few rounds for an interval: the plain quotient, for people only.
        let quotient = span.and_then(|span| {
            ends(attempt, span)
                .values()
                .filter(|(first, last)| {
                    first.process == last.process && last.operations > first.operations
                })
                .map(|(first, last)| {
                    (bytes(last.rss_anon_bytes) - bytes(first.rss_anon_bytes))
                        / bytes(last.operations - first.operations)
                })
                .max_by(f64::total_cmp)
        });
        let mut line =
            judged(phase, What::GrowthPerOperation, budget, quotient.ok_or_else(String::new));
        if budget.is_some() {
            line.verdict = Verdict::Inconclusive;
        }
        line.message = "fewer than twelve rounds of one backend".to_owned();
        return line;
    };
    let mut line = judged(phase, What::GrowthPerOperation, budget, Ok(growth.slope));
    let Some(budget) = budget else { return line };
    let grace = GRACE_BYTES / growth.operations.max(1.0);
    line.verdict = if growth.low > budget + grace
        && !matches!(growth.shape, Shape::Plateau | Shape::GivenBack)
    {
        if growth.is_few { Verdict::Inconclusive } else { Verdict::Fail }
    } else if growth.high <= budget + grace
        || matches!(growth.shape, Shape::Plateau | Shape::GivenBack | Shape::Level)
    {
        Verdict::Pass
    } else {
        Verdict::Inconclusive
    };
    line.message = match (line.verdict, growth.shape) {
        (Verdict::Inconclusive, _) if growth.is_few => format!(
            "{:.1} bytes, but a warm-up of single pages looks the same over {:.0} operations: more would tell",
            growth.slope, growth.operations
        ),
        (Verdict::Inconclusive, _) => format!(
            "the interval {:.1} to {:.1} holds the budget: more operations would narrow it",
            growth.low, growth.high
        ),
        (Verdict::Pass, Shape::Plateau) => "it came to a plateau".to_owned(),
        (Verdict::Pass, Shape::GivenBack) => "it is given back in between".to_owned(),
        _ => String::new(),
    };
    line
}
