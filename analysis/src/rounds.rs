//! Growth per operation between rounds: the readings at rest of each worker's backend, judged one by one and pooled.
//!
//! Judged: *used* bytes of every memory context by name and their sum (no page noise, no block doubling), under any tool; RssAnon and what
//! of it no context holds, under `plain` only, because a tool's own memory is anonymous too. What a control arm of the same workload,
//! phase and tool grows by is taken off before anything is judged. A series whose readings come from different processes (reconnects)
//! is not judged here: only a life of at least twelve rounds is.
//!
//! Left open by the specification and decided here:
//! - *two thirds of the rounds*: counted on single rounds, or, where a round's growth is less than a page or block shows, on twelve equal
//!   stretches; the better counts. A single jump is one stretch of twelve.
//! - *one of many workers*: each worker's backend is judged by itself as well, with the error level divided by their number.
//! - what grows above the threshold and is no leak is a *plateau* (last half level, or the saturating curve), *given back* (falls by more
//!   than half of its range, and the minimum of the last third is no higher than that of the first), or *unsteady*, which is inconclusive.
//! - long series are thinned to 120 means of neighbours before pairs are formed.

mod growth;
mod naming;
mod series;
mod trimmed;

pub use growth::{Growth, Shape, Threshold};
pub use naming::{Leak, MEMORY_CONTEXTS, OUTSIDE_CONTEXTS, named};
pub use series::{PhaseSeries, Session, Subject, phase_series};
pub use trimmed::{Trimmed, trimmed};

use crate::evidence::JobEvidence;
use crate::stats::Point;
use std::collections::BTreeMap;

/// Rounds that a judgement needs.
pub const FEWEST_ROUNDS: usize = 12;

/// A control arm's slope and half the width of its interval, bytes per operation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Allowance {
    /// Taken off before judging; never negative: that a control shrinks is no reason to demand more.
    pub slope: f64,
    /// Widens the interval.
    pub half_width: f64,
}

/// Control slopes of one phase.
pub type Allowances = BTreeMap<Subject, Allowance>;

/// One loop phase of one job, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseRounds {
    /// The phase's name.
    pub phase: String,
    /// Sessions that were judged.
    pub judged: usize,
    /// Sessions that the phase had.
    pub sessions: usize,
    /// Sessions that were not judged, by reason.
    pub reasons: Vec<String>,
    /// Of these, those that had several backends.
    pub reconnecting: usize,
    /// Pooled over the sessions; empty: not judged.
    pub pooled: BTreeMap<Subject, Growth>,
    /// A session's own growth where it leaks by itself and the pool does not.
    pub alone: BTreeMap<Subject, (u32, Growth)>,
    /// Pooled, before the control was taken off.
    pub raw: BTreeMap<Subject, Growth>,
    /// What was taken off.
    pub allowances: Allowances,
}

impl PhaseRounds {
    /// The smallest growth of contexts that would have failed, bytes per operation.
    pub fn context_limit(&self) -> Option<f64> {
        self.pooled.get(&Subject::Used).map(|growth| growth.limit)
    }

    /// The smallest growth outside contexts that would have failed, bytes per operation.
    pub fn outside_limit(&self) -> Option<f64> {
        self.pooled.get(&Subject::Anonymous).map(|growth| growth.limit)
    }
}

/// Share outside the intervals that rounds are judged by, both sides together.
const ALPHA: f64 = 0.05;

/// Judges every loop phase of a job. `controls` by phase name; empty: nothing is taken off.
pub fn rounds(job: &JobEvidence, controls: &BTreeMap<String, Allowances>) -> Vec<PhaseRounds> {
    rounds_for(job, controls, 1)
}

/// The same where so many looks at the job share the chance of a false alarm.
pub fn rounds_for(
    job: &JobEvidence,
    controls: &BTreeMap<String, Allowances>,
    looks: u32,
) -> Vec<PhaseRounds> {
    let none = Allowances::new();
    phase_series(job)
        .into_iter()
        .map(|series| {
            let allowances = controls.get(&series.phase).unwrap_or(&none);
            phase(&series, allowances, ALPHA / f64::from(looks.max(1)))
        })
        .collect()
}

/// Mean slopes of a phase over the replicas of a control arm.
pub fn allowances<'a>(replicas: impl IntoIterator<Item = &'a PhaseRounds>) -> Allowances {
    let mut by_subject: BTreeMap<Subject, Vec<&Growth>> = BTreeMap::new();
    for replica in replicas {
        for (subject, growth) in &replica.raw {
            by_subject.entry(subject.clone()).or_default().push(growth);
        }
    }
    by_subject
        .into_iter()
        .map(|(subject, growths)| {
            let n = crate::stats::count(growths.len());
            let slope = growths.iter().map(|growth| growth.slope).sum::<f64>() / n;
            let squares: f64 = growths.iter().map(|growth| growth.half_width().powi(2)).sum();
            (subject, Allowance { slope: slope.max(0.0), half_width: squares.sqrt() / n })
        })
        .collect()
}

fn phase(series: &PhaseSeries, allowances: &Allowances, alpha: f64) -> PhaseRounds {
    let mut judged = PhaseRounds {
        phase: series.phase.clone(),
        judged: 0,
        sessions: series.sessions.len(),
        reasons: Vec::new(),
        reconnecting: 0,
        pooled: BTreeMap::new(),
        alone: BTreeMap::new(),
        raw: BTreeMap::new(),
        allowances: allowances.clone(),
    };
    let able: Vec<&Session> = series
        .sessions
        .iter()
        .filter(|session| match session.why_not() {
            None => true,
            Some(why) => {
                judged.reasons.push(why);
                judged.reconnecting += usize::from(session.lives > 1);
                false
            }
        })
        .collect();
    judged.judged = able.len();
    let subjects: std::collections::BTreeSet<&Subject> =
        able.iter().flat_map(|session| session.series.keys()).collect();
    for subject in subjects {
        let threshold = subject.threshold();
        let allowance = allowances.get(subject).copied().unwrap_or_default();
        let pool = pooled(&able, subject);
        let Some(raw) = growth::growth(&pool, threshold, Allowance::default(), alpha) else {
            continue;
        };
        let Some(growth) = growth::growth(&pool, threshold, allowance, alpha) else { continue };
        if !growth.is_leak() && able.len() > 1 {
            let alpha = alpha / crate::stats::count(able.len());
            let worst = able
                .iter()
                .filter_map(|session| {
                    let points = session.series.get(subject)?;
                    let own = growth::growth(points, threshold, allowance, alpha)?;
                    own.is_leak().then_some((session.session, own))
                })
                .max_by(|a, b| a.1.slope.total_cmp(&b.1.slope).then(b.0.cmp(&a.0)));
            if let Some(worst) = worst {
                judged.alone.insert(subject.clone(), worst);
            }
        }
        judged.raw.insert(subject.clone(), raw);
        judged.pooled.insert(subject.clone(), growth);
    }
    judged
}

/// Mean over the sessions of what they grew since their first reading, over the rounds that all of them have.
fn pooled(sessions: &[&Session], subject: &Subject) -> Vec<Point> {
    let all: Vec<&Vec<Point>> =
        sessions.iter().filter_map(|session| session.series.get(subject)).collect();
    let rounds = all.iter().map(|points| points.len()).min().unwrap_or(0);
    let n = crate::stats::count(all.len());
    (0..rounds)
        .filter_map(|round| {
            let mut mean = Point::default();
            for points in &all {
                let (first, here) = (points.first()?, points.get(round)?);
                mean.x += (here.x - first.x) / n;
                mean.y += (here.y - first.y) / n;
            }
            Some(mean)
        })
        .collect()
}
