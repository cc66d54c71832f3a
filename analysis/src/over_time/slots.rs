//! Processes of a job → slots: a place that one process fills, or one after the other.
//!
//! A worker's slot is its session. A process without a session fills the first free place of its type, so that one that is restarted goes
//! on in the slot of the one before. What comes and goes by nature (autovacuum and parallel workers), or fills its slot for less
//! than four fifths of the time, has no growth over time and is left out; a process that was not seen to end counts as alive, with or
//! without readings: what is missing is not left out.

use crate::evidence::{JobEvidence, PhaseSpan, ProcessSeries};
use crate::stats::bytes;
use crate::trend::Covariates;
use pgsoak_proto::evidence::PhaseKind;
use pgsoak_workloads::workload::WarmUp;
use std::collections::BTreeMap;

/// Processes that are started for a piece of work and end with it.
const PASSING: [&str; 2] = ["autovacuum worker", "parallel worker"];

/// Share of the time that a slot without a session must be filled.
const FILLED: f64 = 0.8;

/// A piece of an attempt's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Microseconds since the attempt started.
    pub(super) from_us: u64,
    /// Microseconds since the attempt started.
    pub(super) to_us: u64,
}

/// One slot of one job, on a clock that begins with the window.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) t_s: Vec<f64>,
    pub(super) bytes: Vec<f64>,
    /// Number of the process, by reading.
    pub(super) pid: Vec<u64>,
    /// Whether a process of it used any CPU while it was read.
    pub(super) worked: bool,
}

impl Window {
    pub(super) fn seconds(self) -> f64 {
        bytes(self.to_us.saturating_sub(self.from_us)) / 1e6
    }
}

/// The time of a loop phase less the declared warm-up; `None`: it did not end, or is all warm-up.
pub(super) fn of_phase(job: &JobEvidence, span: &PhaseSpan) -> Option<Window> {
    let to_us = span.ended_elapsed_us?;
    let warm_us = match job.workload.warm_up {
        None => span.started_elapsed_us,
        Some(WarmUp::Time(time)) => span
            .started_elapsed_us
            .saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        Some(WarmUp::Rounds(rounds)) => {
            let readings = job.attempt.at_rest.iter().zip(&job.attempt.at_rest_elapsed_us);
            readings
                .filter(|(reading, _)| {
                    reading.phase == span.started.phase
                        && reading.session > 0
                        && reading.round >= rounds
                })
                .map(|(_, elapsed)| *elapsed)
                .min()
                .unwrap_or(span.started_elapsed_us)
        }
    };
    (warm_us < to_us).then_some(Window { from_us: warm_us, to_us })
}

/// From the first loop phase's start (less the warm-up) to the last one's end.
pub(super) fn of_loops(job: &JobEvidence) -> Option<Window> {
    let loops: Vec<Window> = job
        .attempt
        .phases
        .iter()
        .filter(|span| span.started.kind == PhaseKind::Loop)
        .filter_map(|span| of_phase(job, span))
        .collect();
    let from_us = loops.iter().map(|window| window.from_us).min()?;
    let to_us = loops.iter().map(|window| window.to_us).max()?;
    Some(Window { from_us, to_us })
}

/// The workers' slots of a loop phase. A worker of which there is no reading has an empty one.
pub(super) fn workers(job: &JobEvidence, workers: u32, window: Window) -> Vec<Slot> {
    let mut slots: BTreeMap<u32, Slot> =
        (1..=workers.min(1_000)).map(|worker| (worker, Slot::default())).collect();
    for (number, series) in &job.attempt.processes {
        if let Some(slot) = series.who.session.and_then(|session| slots.get_mut(&session)) {
            slot.take(*number, series, window);
        }
    }
    slots
        .into_iter()
        .map(|(worker, slot)| Slot { name: format!("worker {worker}"), ..slot.in_order() })
        .collect()
}

/// The slots of the main session and of the server's other processes.
pub(super) fn server(job: &JobEvidence, window: Window) -> Vec<Slot> {
    let mut by_start: Vec<(&u32, &ProcessSeries)> = job
        .attempt
        .processes
        .iter()
        .filter(|(_, series)| {
            series.who.session.is_none_or(|session| session == 0)
                && !PASSING.contains(&series.who.backend_type.as_str())
        })
        .collect();
    by_start.sort_by_key(|(number, series)| (series.elapsed_us.first().copied(), **number));
    // By type: of each place, until when it is taken and how long it was filled.
    let mut places: BTreeMap<(&str, usize), (u64, u64, Slot)> = BTreeMap::new();
    for (number, series) in by_start {
        let Some(begun) = series.elapsed_us.first().copied() else { continue };
        let ended = series.ended_elapsed_us.unwrap_or(u64::MAX);
        let kind = match series.who.session {
            Some(_) => "main session",
            None => series.who.backend_type.as_str(),
        };
        let mut place = 0;
        while places.get(&(kind, place)).is_some_and(|(taken, ..)| *taken > begun) {
            place += 1;
        }
        let (taken, filled, slot) = places.entry((kind, place)).or_default();
        *taken = ended;
        let inside = ended.min(window.to_us).saturating_sub(begun.max(window.from_us));
        *filled = filled.saturating_add(inside);
        slot.take(*number, series, window);
    }
    let crowd: BTreeMap<&str, usize> =
        places.keys().fold(BTreeMap::new(), |mut crowd, (kind, _)| {
            *crowd.entry(*kind).or_default() += 1;
            crowd
        });
    let length = bytes(window.to_us.saturating_sub(window.from_us));
    places
        .iter()
        .filter(|(_, (_, filled, _))| bytes(*filled) >= FILLED * length)
        .map(|((kind, place), (_, _, slot))| {
            let name = match crowd.get(kind) {
                Some(1) => (*kind).to_owned(),
                _ => format!("{kind} {}", place + 1),
            };
            Slot { name, ..slot.clone().in_order() }
        })
        .collect()
}

/// Operations, and rows where the workload declares how many bytes each may take.
pub(super) fn covariates(job: &JobEvidence, window: Window) -> Covariates {
    let attempt = &job.attempt;
    let from = attempt.ticks_elapsed_us.partition_point(|at| *at < window.from_us);
    let to = attempt.ticks_elapsed_us.partition_point(|at| *at <= window.to_us);
    let ticks = attempt.ticks_elapsed_us.get(from..to).unwrap_or(&[]);
    let t_s: Vec<f64> = ticks.iter().map(|at| seconds(*at, window)).collect();
    let ops: Vec<f64> = match attempt.operations.get(from..to) {
        Some(operations) if operations.iter().any(|done| *done > 0) => {
            operations.iter().map(|done| bytes(*done)).collect()
        }
        _ => Vec::new(),
    };
    let rows = if job.workload.allow_bytes_per_row > 0.0 { rows(job, ticks) } else { Vec::new() };
    Covariates { t_s, ops, rows }
}

/// Rows at these times, on straight lines between the readings at rest of phases that declare them; empty: none does.
fn rows(job: &JobEvidence, ticks: &[u64]) -> Vec<f64> {
    let declares = |phase: u32| {
        let span = job.attempt.phases.iter().find(|span| span.started.phase == phase);
        span.and_then(|span| job.workload.phase(&span.started.name))
            .is_some_and(|phase| phase.rows.is_some())
    };
    let mut known: Vec<(u64, f64)> = job
        .attempt
        .at_rest
        .iter()
        .zip(&job.attempt.at_rest_elapsed_us)
        .filter(|(reading, _)| declares(reading.phase))
        .map(|(reading, elapsed)| (*elapsed, bytes(reading.rows)))
        .collect();
    known.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    known.dedup_by_key(|(elapsed, _)| *elapsed);
    let (Some(first), Some(last)) = (known.first(), known.last()) else { return Vec::new() };
    ticks
        .iter()
        .map(|at| {
            let next = known.partition_point(|(elapsed, _)| elapsed < at);
            let after = known.get(next).unwrap_or(last);
            let before = next.checked_sub(1).and_then(|before| known.get(before)).unwrap_or(first);
            let run = bytes(after.0.saturating_sub(before.0));
            if run <= 0.0 || *at >= after.0 {
                return after.1;
            }
            before.1 + (after.1 - before.1) * bytes(at.saturating_sub(before.0)) / run
        })
        .collect()
}

fn seconds(elapsed_us: u64, window: Window) -> f64 {
    bytes(elapsed_us.saturating_sub(window.from_us)) / 1e6
}

impl Slot {
    fn take(&mut self, number: u32, series: &ProcessSeries, window: Window) {
        let from = series.elapsed_us.partition_point(|at| *at < window.from_us);
        let to = series.elapsed_us.partition_point(|at| *at <= window.to_us);
        let times = series.elapsed_us.get(from..to).unwrap_or(&[]);
        let held = series.rss_anon_bytes.get(from..to).unwrap_or(&[]);
        self.t_s.extend(times.iter().map(|at| seconds(*at, window)));
        self.bytes.extend(held.iter().map(|held| bytes(*held)));
        self.pid.extend(std::iter::repeat_n(u64::from(number), held.len()));
        let cpu = series.cpu_us.get(from..to).unwrap_or(&[]);
        self.worked |= cpu.first() < cpu.last();
    }

    /// By time: processes are numbered as they were found, which is not always the order of their readings. A process that is read
    /// while its forerunner still is (a reconnect within a tick) leaves the later reading.
    fn in_order(mut self) -> Self {
        if self.t_s.is_sorted_by(|a, b| a < b) {
            return self;
        }
        let mut readings: Vec<(f64, f64, u64)> = self
            .t_s
            .iter()
            .zip(&self.bytes)
            .zip(&self.pid)
            .map(|((t, held), pid)| (*t, *held, *pid))
            .collect();
        readings.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.2.cmp(&a.2)));
        readings.dedup_by(|next, kept| next.0.total_cmp(&kept.0).is_eq());
        self.t_s = readings.iter().map(|(t, ..)| *t).collect();
        self.bytes = readings.iter().map(|(_, held, _)| *held).collect();
        self.pid = readings.iter().map(|(.., pid)| *pid).collect();
        self
    }
}
