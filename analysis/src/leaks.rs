//! memcheck's leak checks between rounds: bytes and blocks per operation, by stack.
//!
//! Per signature (normalised stack and kind) the increase between two checks is divided by the operations between them, from the second
//! check of a process in a phase on: what starting up lost is in the first. The figure is the median over the intervals, so that the one
//! block that a register still points to at a check does not blur it. *In proportion* means: at least one block per 1,000 operations in at least
//! two intervals and in half of them, and the net increase (increases less what went away in between) is at least 0.6 of the sum of increases.
//!
//! | kind | a frame is the extension's | verdict |
//! | --- | --- | --- |
//! | definite, indirect | yes | `fail` |
//! | possible | yes | `inconclusive`; `fail` when the rounds of the same workload grow |
//! | reachable | yes | `fail` as *kept* when the rounds of the same workload grow; else listed |
//! | any | no | listed |

use crate::evidence::JobEvidence;
use crate::result::{Owner, Verdict};
use crate::stack::{ExtensionImage, fingerprint, normal_stack, owner, telling_frame};
use crate::stats::{bytes, median};
use crate::valgrind::OPEN_DESCRIPTOR;
use pgsoak_proto::evidence::{LeakCheck, LeakKind, LeakRecord, MemcheckError, StackFrame};
use std::collections::{BTreeMap, BTreeSet};

/// Descriptors of one stack that a process must leave open.
const FEWEST_DESCRIPTORS: u64 = 10;

/// Growth of one stack in one phase.
#[derive(Clone, Debug, PartialEq)]
pub struct StackGrowth {
    /// The phase's name.
    pub phase: String,
    /// Of the normalised stack.
    pub fingerprint: String,
    /// How memcheck counts it.
    pub kind: LeakKind,
    /// Innermost first, normalised.
    pub stack: Vec<String>,
    /// The function to look at.
    pub function: String,
    /// Where it is, "file.c:12"; empty: not known.
    pub place: String,
    /// Whose.
    pub owner: Owner,
    /// Median over the intervals.
    pub bytes_per_operation: f64,
    /// Smallest and largest interval.
    pub range: (f64, f64),
    /// Median over the intervals.
    pub blocks_per_operation: f64,
    /// Bytes that all sessions have in it at their last check that lists it.
    pub bytes: u64,
    /// Intervals in which it grew, and all intervals of the backends that show it.
    pub grew_in: (usize, usize),
    /// Grows in proportion to the operations.
    pub proportional: bool,
}

/// What memcheck saw of a phase.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseLeaks {
    /// Its name.
    pub phase: String,
    /// Intervals between checks that have operations in them, over all sessions.
    pub intervals: usize,
    /// Worst first; only those that grew in some interval.
    pub stacks: Vec<StackGrowth>,
    /// Bytes per operation over all kinds and stacks: everything that malloc gave out and did not get back.
    pub all_bytes_per_operation: f64,
}

/// Images of the extension and of what is preloaded with it.
pub fn image(job: &JobEvidence) -> ExtensionImage {
    ExtensionImage::new(
        job.workload.extension.iter().chain(&job.workload.cluster.preload).map(String::as_str),
    )
}

/// Reads the leak checks of a job, phase by phase.
pub fn leaks(job: &JobEvidence) -> Vec<PhaseLeaks> {
    let image = image(job);
    let mut by_phase: BTreeMap<u32, Vec<&LeakCheck>> = BTreeMap::new();
    for check in job.attempt.leak_checks.iter().filter(|check| !check.at_exit) {
        by_phase.entry(check.phase).or_default().push(check);
    }
    by_phase
        .into_iter()
        .filter_map(|(number, checks)| {
            let span = job.attempt.phases.iter().find(|span| span.started.phase == number)?;
            Some(phase_leaks(&span.started.name, &checks, &image))
        })
        .filter(|phase| phase.intervals > 0)
        .collect()
}

/// The verdict of a stack that grows; `rounds_grow`: the rounds of the same workload and build found growth.
pub fn verdict(growth: &StackGrowth, rounds_grow: bool) -> Verdict {
    if !growth.proportional || growth.owner != Owner::Extension {
        return Verdict::Pass;
    }
    match (growth.kind, rounds_grow) {
        (LeakKind::Definite | LeakKind::Indirect, _)
        | (LeakKind::Possible | LeakKind::Reachable, true) => Verdict::Fail,
        (LeakKind::Possible, false) => Verdict::Inconclusive,
        (LeakKind::Reachable, false) => Verdict::Pass,
    }
}

/// Errors beside leaks with a frame of the extension, each stack once with its count over all processes.
///
/// Descriptors count from ten of one stack in one process on: an extension may well keep one open.
///
/// One kind is left out: uninitialised bytes in a system call of PostgreSQL's own code. It writes padding to its files, and does so wherever
/// a buffer happens to be full, below a statement of the extension as below any other.
pub fn errors(job: &JobEvidence) -> Vec<MemcheckError> {
    let image = image(job);
    let mut by_stack: BTreeMap<(String, String), MemcheckError> = BTreeMap::new();
    for error in job.attempt.memcheck_errors.iter().flat_map(|of_process| &of_process.errors) {
        let is_descriptor = error.what == OPEN_DESCRIPTOR;
        if owner(&error.stack, &image) != Owner::Extension
            || ((is_descriptor || error.what.starts_with("Syscall param"))
                && is_within_server(&error.stack, &image))
            || (is_descriptor && error.count < FEWEST_DESCRIPTORS)
        {
            continue;
        }
        by_stack
            .entry((error.what.clone(), fingerprint(&error.stack)))
            .and_modify(|known| known.count = known.count.saturating_add(error.count))
            .or_insert_with(|| error.clone());
    }
    by_stack.into_values().collect()
}

/// Whether the innermost frame of server or extension is the server's.
fn is_within_server(stack: &[StackFrame], image: &ExtensionImage) -> bool {
    stack
        .iter()
        .find(|frame| frame.module == "postgres" || image.owns(frame))
        .is_some_and(|frame| !image.owns(frame))
}

/// One interval between two checks of a process.
struct Interval {
    process: u32,
    operations: f64,
    /// Increase by (kind, fingerprint).
    grown: BTreeMap<(LeakKind, String), (i64, i64)>,
}

/// What is remembered of a stack.
struct Seen<'a> {
    stack: &'a [StackFrame],
    /// By process and whole stack: bytes at the first word, bytes at the last.
    held: BTreeMap<(u32, &'a [StackFrame]), (i128, u64)>,
    increases: i128,
}

fn phase_leaks(name: &str, checks: &[&LeakCheck], image: &ExtensionImage) -> PhaseLeaks {
    let mut by_process: BTreeMap<u32, Vec<&LeakCheck>> = BTreeMap::new();
    for check in checks {
        by_process.entry(check.process).or_default().push(check);
    }
    let mut intervals: Vec<Interval> = Vec::new();
    let mut seen: BTreeMap<(LeakKind, String), Seen<'_>> = BTreeMap::new();
    for (process, checks) in by_process {
        for pair in checks.windows(2) {
            let [before, check] = pair else { continue };
            let operations = bytes(check.operations.saturating_sub(before.operations));
            if operations <= 0.0 {
                continue;
            }
            let mut grown: BTreeMap<(LeakKind, String), (i64, i64)> = BTreeMap::new();
            for record in &check.records {
                let key = (record.kind, fingerprint(&record.stack));
                let sums = grown.entry(key.clone()).or_default();
                sums.0 = sums.0.saturating_add(record.bytes_delta);
                sums.1 = sums.1.saturating_add(record.blocks_delta);
                remember(&mut seen, key, process, record);
            }
            intervals.push(Interval { process, operations, grown });
        }
    }
    let all = |interval: &Interval| {
        interval.grown.values().map(|(grown, _)| signed(*grown)).sum::<f64>() / interval.operations
    };
    let all: Vec<f64> = intervals.iter().map(all).collect();
    let mut stacks: Vec<StackGrowth> = seen
        .into_iter()
        .map(|((kind, fingerprint), seen)| {
            stack_growth(name, kind, fingerprint, &seen, &intervals, image)
        })
        .collect();
    stacks.sort_by(|a, b| {
        (b.proportional, b.owner == Owner::Extension)
            .cmp(&(a.proportional, a.owner == Owner::Extension))
            .then(b.bytes_per_operation.total_cmp(&a.bytes_per_operation))
            .then(a.kind.cmp(&b.kind))
            .then(a.fingerprint.cmp(&b.fingerprint))
    });
    PhaseLeaks {
        phase: name.to_owned(),
        intervals: intervals.len(),
        stacks,
        all_bytes_per_operation: median(&all).unwrap_or(0.0),
    }
}

fn remember<'a>(
    seen: &mut BTreeMap<(LeakKind, String), Seen<'a>>,
    key: (LeakKind, String),
    process: u32,
    record: &'a LeakRecord,
) {
    let known = seen.entry(key).or_insert_with(|| Seen {
        stack: &record.stack,
        held: BTreeMap::new(),
        increases: 0,
    });
    known.increases += i128::from(record.bytes_delta);
    let at_start = i128::from(record.bytes) - i128::from(record.bytes_delta);
    known
        .held
        .entry((process, &record.stack))
        .and_modify(|held| held.1 = record.bytes)
        .or_insert((at_start, record.bytes));
}

fn stack_growth(
    phase: &str,
    kind: LeakKind,
    fingerprint: String,
    seen: &Seen<'_>,
    intervals: &[Interval],
    image: &ExtensionImage,
) -> StackGrowth {
    let key = (kind, fingerprint);
    // Backends that never showed the stack do not thin out one that leaks.
    let shows = |process| seen.held.keys().any(|(shown, _)| *shown == process);
    let per_operation: Vec<(f64, f64)> = intervals
        .iter()
        .filter(|interval| shows(interval.process))
        .map(|interval| {
            let (grown, blocks) = interval.grown.get(&key).copied().unwrap_or_default();
            (signed(grown) / interval.operations, signed(blocks) / interval.operations)
        })
        .collect();
    let by_bytes: Vec<f64> = per_operation.iter().map(|figures| figures.0).collect();
    let by_blocks: Vec<f64> = per_operation.iter().map(|figures| figures.1).collect();
    let grew = by_blocks.iter().filter(|blocks| **blocks >= 0.001).count();
    let net: i128 = seen.held.values().map(|(first, last)| i128::from(*last) - *first).sum();
    let is_net = net * 10 >= seen.increases * 6;
    let frame = telling_frame(seen.stack, image);
    StackGrowth {
        phase: phase.to_owned(),
        stack: normal_stack(seen.stack),
        function: frame
            .map(|frame| crate::stack::normal_function(&frame.function))
            .filter(|function| !function.is_empty())
            .unwrap_or_else(|| "???".to_owned()),
        place: frame
            .filter(|frame| !frame.file.is_empty())
            .map(|frame| format!("{}:{}", frame.file, frame.line))
            .unwrap_or_default(),
        owner: owner(seen.stack, image),
        bytes_per_operation: median(&by_bytes).unwrap_or(0.0),
        range: by_bytes.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(*value), high.max(*value))
        }),
        blocks_per_operation: median(&by_blocks).unwrap_or(0.0),
        bytes: seen.held.values().fold(0, |sum: u64, (_, last)| sum.saturating_add(*last)),
        grew_in: (grew, per_operation.len()),
        proportional: grew >= 2 && grew * 2 >= per_operation.len() && is_net,
        fingerprint: key.1,
        kind,
    }
}

fn signed(delta: i64) -> f64 {
    let size = bytes(delta.unsigned_abs());
    if delta < 0 { -size } else { size }
}

/// Fingerprints of the stacks that grow in proportion, lost or kept.
pub fn proportional(phases: &[PhaseLeaks]) -> BTreeSet<&str> {
    phases
        .iter()
        .flat_map(|phase| &phase.stacks)
        .filter(|growth| growth.proportional)
        .map(|growth| growth.fingerprint.as_str())
        .collect()
}
