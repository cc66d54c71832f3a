//! The ledger in full: readings of each process, missing ticks by cause, what the host went through.

use crate::evidence::{JobEvidence, ProcessSeries};
use crate::result::{GapLedger, HostLedger, JobLedger, ProcessLedger};
use crate::stats::bytes;
use std::collections::BTreeMap;

/// Processes that are listed.
const MOST_PROCESSES: usize = 100;

/// A step of the wall clock against the monotonic one that counts as a jump, milliseconds.
const JUMP_MS: i64 = 1_000;

/// Jumps that are listed.
const MOST_JUMPS: usize = 20;

/// What was expected of a job and what arrived.
pub(super) fn account(job: &JobEvidence) -> JobLedger {
    let attempt = &job.attempt;
    let mut processes: Vec<ProcessLedger> =
        attempt.processes.iter().map(|(number, series)| process(job, *number, series)).collect();
    // Those that lack most stay where not all can.
    processes.sort_by_key(|one| {
        (std::cmp::Reverse(one.expected.saturating_sub(one.stored)), one.process)
    });
    let more = processes.len().saturating_sub(MOST_PROCESSES);
    processes.truncate(MOST_PROCESSES);
    processes.sort_by_key(|one| one.process);
    JobLedger {
        gaps: gaps(job),
        processes,
        more_processes: u32::try_from(more).unwrap_or(u32::MAX),
        host: host(job),
    }
}

/// "main session", "worker 3", or the backend's type.
pub(super) fn who(series: &ProcessSeries) -> String {
    match series.who.session {
        Some(0) => "main session".to_owned(),
        Some(worker) => format!("worker {worker}"),
        None => series.who.backend_type.clone(),
    }
}

fn process(job: &JobEvidence, number: u32, series: &ProcessSeries) -> ProcessLedger {
    let ticks = &job.attempt.ticks_elapsed_us;
    let first = series.elapsed_us.first().copied();
    let due = first.map_or(0, |first| {
        let from = ticks.partition_point(|at| *at < first);
        // The tick at which it was seen to be gone has no reading of it.
        let to = series
            .ended_elapsed_us
            .map_or(ticks.len(), |ended| ticks.partition_point(|at| *at < ended));
        to.saturating_sub(from)
    });
    let stored = series.elapsed_us.len();
    let longest = series
        .elapsed_us
        .windows(2)
        .map(|pair| pair.iter().copied().reduce(|a, b| b.saturating_sub(a)).unwrap_or(0))
        .max();
    let whole = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    ProcessLedger {
        process: number,
        pid: series.who.pid,
        who: who(series),
        expected: whole(due.max(stored)),
        stored: whole(stored),
        longest_gap_s: bytes(longest.unwrap_or(0)) / 1e6,
        ended_s: series.ended_elapsed_us.map(|ended| bytes(ended) / 1e6),
        swapped_bytes: job.attempt.swapped_bytes.get(&number).copied().unwrap_or(0),
    }
}

fn gaps(job: &JobEvidence) -> Vec<GapLedger> {
    let mut by_cause: BTreeMap<&str, u64> = BTreeMap::new();
    for gap in &job.attempt.gaps {
        let cause = if gap.cause.is_empty() { "unknown" } else { gap.cause.as_str() };
        let ticks = by_cause.entry(cause).or_default();
        *ticks = ticks.saturating_add(gap.ticks);
    }
    let mut gaps: Vec<GapLedger> = by_cause
        .into_iter()
        .map(|(cause, ticks)| GapLedger { cause: cause.to_owned(), ticks })
        .collect();
    gaps.sort_by(|a, b| b.ticks.cmp(&a.ticks).then(a.cause.cmp(&b.cause)));
    gaps
}

fn host(job: &JobEvidence) -> HostLedger {
    let attempt = &job.attempt;
    let series = &attempt.host;
    let cores = attempt.started.as_ref().map_or(1, |started| started.cores.max(1));
    let span = |series: &[(u64, u64)]| {
        let (from, to) = (series.first()?, series.last()?);
        let time = to.0.checked_sub(from.0).filter(|time| *time > 0)?;
        Some((bytes(to.1.saturating_sub(from.1)), bytes(time)))
    };
    let load = series.load_centi.iter().map(|(_, load)| *load).max();
    let used: f64 = attempt
        .processes
        .values()
        .filter_map(|process| Some((process.cpu_us.first()?, process.cpu_us.last()?)))
        .map(|(first, last)| bytes(last.saturating_sub(*first)))
        .sum();
    let time = attempt.ticks_elapsed_us.first().zip(attempt.ticks_elapsed_us.last());
    let time = time.map(|(first, last)| bytes(last.saturating_sub(*first)));
    let (clock_jumps, clock_drift_s) = clock(&series.clock_ms);
    HostLedger {
        memory_pressure: span(&series.pressure_some_us)
            .map(|(waited, time)| (waited / time).clamp(0.0, 1.0)),
        least_available_bytes: attempt
            .available_kib
            .iter()
            .min()
            .map(|kib| kib.saturating_mul(1024)),
        highest_load_per_core: load.map(|load| bytes(load) / 100.0 / f64::from(cores)),
        server_cores: time.filter(|time| *time > 0.0).map(|time| used / time),
        swapped_bytes: attempt
            .swapped_bytes
            .values()
            .fold(0, |sum: u64, swapped| sum.saturating_add(*swapped)),
        clock_jumps,
        clock_drift_s,
    }
}

/// Jumps of the wall clock, and by how much it went another way than the monotonic one in all.
fn clock(read: &[(u64, u64)]) -> (Vec<(f64, f64)>, Option<f64>) {
    // Wall clock less monotonic clock, milliseconds: constant while nobody sets the clock.
    let offset = |(elapsed_us, clock_ms): (u64, u64)| {
        let clock = i64::try_from(clock_ms).unwrap_or(i64::MAX);
        clock.saturating_sub(i64::try_from(elapsed_us / 1_000).unwrap_or(i64::MAX))
    };
    let seconds = |ms: i64| {
        let size = bytes(ms.unsigned_abs()) / 1e3;
        if ms < 0 { -size } else { size }
    };
    let mut jumps: Vec<(u64, i64)> = read
        .windows(2)
        .filter_map(|pair| match pair {
            [before, after] => {
                let jump = offset(*after).saturating_sub(offset(*before));
                (jump.abs() > JUMP_MS).then_some((after.0, jump))
            }
            _ => None,
        })
        .collect();
    jumps.sort_by_key(|(at, jump)| (std::cmp::Reverse(jump.unsigned_abs()), *at));
    jumps.truncate(MOST_JUMPS);
    jumps.sort_unstable();
    let drift = read.first().zip(read.last());
    (
        jumps.into_iter().map(|(at, jump)| (bytes(at) / 1e6, seconds(jump))).collect(),
        drift.map(|(first, last)| seconds(offset(*last).saturating_sub(offset(*first)))),
    )
}
