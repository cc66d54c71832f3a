//! Readings at rest → series by session and subject.

use crate::evidence::JobEvidence;
use crate::rounds::{FEWEST_ROUNDS, Threshold};
use crate::stats::{Point, bytes};
use pgsoak_proto::evidence::{AtRest, PhaseKind};
use pgsoak_proto::job::Tool;
use pgsoak_workloads::workload::{Kind, WarmUp};
use std::collections::{BTreeMap, BTreeSet};

/// What a series is of.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Subject {
    /// Used bytes of all contexts of this name.
    Context(String),
    /// Total bytes (taken from malloc) of all contexts of this name.
    ContextTotal(String),
    /// Used bytes of all contexts.
    Used,
    /// Total bytes of all contexts.
    Total,
    /// RssAnon and swap.
    Anonymous,
    /// Anonymous less total: what no context took. Falls where contexts take a doubled block.
    OverTotal,
    /// Anonymous less used: what no context handed out.
    OverUsed,
}

impl Subject {
    /// The growth from which on it counts.
    pub fn threshold(&self) -> Threshold {
        match self {
            Self::Context(_) | Self::Used => Threshold::Books,
            _ => Threshold::Pages,
        }
    }
}

/// The loop phase of a job as series.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseSeries {
    /// Its name.
    pub phase: String,
    /// By session number.
    pub sessions: Vec<Session>,
}

/// One session of a loop phase: its longest life (readings of one process without a break).
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// 1 and up.
    pub session: u32,
    /// Lives that it had; more than one: it reconnected.
    pub lives: usize,
    /// By subject, x in operations. All of one length.
    pub series: BTreeMap<Subject, Vec<Point>>,
    /// Readings of the longest life, after the declared warm-up.
    pub readings: usize,
}

impl Session {
    /// Why it cannot be judged; `None`: it can.
    pub fn why_not(&self) -> Option<String> {
        let rounds = self.readings.saturating_sub(1);
        if rounds >= FEWEST_ROUNDS {
            return None;
        }
        Some(if self.lives > 1 {
            format!(
                "sessions reconnect: no backend lived for {FEWEST_ROUNDS} rounds (the longest: {rounds})"
            )
        } else {
            format!("{rounds} rounds at rest after the warm-up, {FEWEST_ROUNDS} are needed")
        })
    }
}

/// The loop phases of a job, in order.
pub fn phase_series(job: &JobEvidence) -> Vec<PhaseSeries> {
    let attempt = &job.attempt;
    let is_plain = job.spec.tool == Tool::Plain;
    let mut phases = Vec::new();
    for span in &attempt.phases {
        if span.started.kind != PhaseKind::Loop {
            continue;
        }
        let declared = declared_warm_up(job, &span.started.name);
        let mut by_session: BTreeMap<u32, Vec<(&AtRest, u64)>> = BTreeMap::new();
        for (at, reading) in attempt.at_rest.iter().enumerate() {
            if reading.phase == span.started.phase && reading.session > 0 {
                let elapsed = attempt.at_rest_elapsed_us.get(at).copied().unwrap_or(0);
                by_session.entry(reading.session).or_default().push((reading, elapsed));
            }
        }
        let sessions = by_session
            .into_iter()
            .map(|(session, readings)| {
                session_series(session, &readings, span.started_elapsed_us, declared, job, is_plain)
            })
            .collect();
        phases.push(PhaseSeries { phase: span.started.name.clone(), sessions });
    }
    phases
}

/// The workload's warm-up, for phases that are loops in the workload's file as well.
fn declared_warm_up(job: &JobEvidence, phase: &str) -> Option<WarmUp> {
    let known = job.workload.phases.iter().find(|known| known.name == phase)?;
    matches!(known.kind, Kind::Loop(_)).then_some(job.workload.warm_up)?
}

fn session_series(
    session: u32,
    readings: &[(&AtRest, u64)],
    phase_started_us: u64,
    declared: Option<WarmUp>,
    job: &JobEvidence,
    is_plain: bool,
) -> Session {
    let lives = lives(readings);
    let longest = lives.iter().max_by_key(|life| life.len()).cloned().unwrap_or_default();
    let warm: Vec<&AtRest> = longest
        .into_iter()
        .filter(|(reading, elapsed)| match declared {
            None => true,
            Some(WarmUp::Rounds(rounds)) => reading.round >= rounds,
            Some(WarmUp::Time(time)) => {
                u128::from(elapsed.saturating_sub(phase_started_us)) >= time.as_micros()
            }
        })
        .map(|(reading, _)| reading)
        .collect();
    let series = subjects(&warm, job.workload.allow_bytes_per_row, is_plain);
    Session { session, lives: lives.len(), series, readings: warm.len() }
}

/// Cuts where the process changes, and drops readings without a new operation.
fn lives<'a>(readings: &[(&'a AtRest, u64)]) -> Vec<Vec<(&'a AtRest, u64)>> {
    let mut lives: Vec<Vec<(&AtRest, u64)>> = Vec::new();
    for &(reading, elapsed) in readings {
        match lives.last_mut() {
            Some(life) if life.last().is_some_and(|(last, _)| last.process == reading.process) => {
                if life.last().is_some_and(|(last, _)| reading.operations > last.operations) {
                    life.push((reading, elapsed));
                }
            }
            _ => lives.push(vec![(reading, elapsed)]),
        }
    }
    lives
}

fn subjects(
    readings: &[&AtRest],
    allow_bytes_per_row: f64,
    is_plain: bool,
) -> BTreeMap<Subject, Vec<Point>> {
    let mut series: BTreeMap<Subject, Vec<Point>> = BTreeMap::new();
    let first_rows = readings.first().map_or(0.0, |reading| bytes(reading.rows));
    // One reading without contexts (no such view, a failed query) and contexts are not judged: their absence is no zero.
    let has_contexts = readings.iter().all(|reading| !reading.contexts.is_empty());
    let names: BTreeSet<&str> = readings
        .iter()
        .filter(|_| has_contexts)
        .flat_map(|reading| reading.contexts.iter().map(|context| context.name.as_str()))
        .collect();
    for reading in readings {
        let x = bytes(reading.operations);
        let allowed = allow_bytes_per_row * (bytes(reading.rows) - first_rows);
        let mut put = |subject: Subject, y: f64| {
            series.entry(subject).or_default().push(Point { x, y: y - allowed });
        };
        let anonymous = bytes(reading.rss_anon_bytes);
        if is_plain {
            put(Subject::Anonymous, anonymous);
        }
        if !has_contexts {
            continue;
        }
        let mut by_name: BTreeMap<&str, (u64, u64)> =
            names.iter().map(|name| (*name, (0, 0))).collect();
        for context in &reading.contexts {
            let sums = by_name.entry(&context.name).or_default();
            sums.0 = sums.0.saturating_add(context.used_bytes);
            sums.1 = sums.1.saturating_add(context.total_bytes);
        }
        let used = by_name.values().map(|sums| bytes(sums.0)).sum::<f64>();
        let total = by_name.values().map(|sums| bytes(sums.1)).sum::<f64>();
        for (name, (used, total)) in by_name {
            put(Subject::Context(name.to_owned()), bytes(used));
            put(Subject::ContextTotal(name.to_owned()), bytes(total));
        }
        put(Subject::Used, used);
        put(Subject::Total, total);
        if is_plain {
            put(Subject::OverTotal, anonymous - total);
            put(Subject::OverUsed, anonymous - used);
        }
    }
    series
}
