//! What processes lose that no reading at rest can show: on a session's way out, and in processes that serve no session.
//!
//! Checks between rounds look at sessions at rest. A background worker, a parallel worker (it lives for one query) and the code that runs
//! when a backend leaves are seen only by what the tool writes when the process ends: memcheck's search at exit (lost blocks), heaptrack's
//! live blocks at the end. Blocks of memory contexts are left out under heaptrack: a process does not free those when it ends.
//!
//! | where | counts when | figure |
//! | --- | --- | --- |
//! | a session's way out (a frame is `proc_exit`'s) | at least three backends lose it, a block each or more | bytes per backend |
//! | a process without a session | at least ten blocks, three a process, one in a hundred operations | bytes per operation of all loops |
//!
//! Only stacks with a frame of the extension are judged: all of them fail.

use crate::evidence::JobEvidence;
use crate::leaks::image;
use crate::result::Owner;
use crate::sites::{is_of_contexts, named};
use crate::stack::{fingerprint, normal_stack, owner, telling_frame};
use crate::stats::bytes;
use pgsoak_proto::evidence::{LeakKind, PhaseKind, StackFrame};
use pgsoak_proto::job::Tool;
use std::collections::{BTreeMap, BTreeSet};

/// Functions that a process leaves through.
const WAYS_OUT: [&str; 5] =
    ["proc_exit", "proc_exit_prepare", "shmem_exit", "exit", "__run_exit_handlers"];

/// Backends that must lose something on their way out before it counts.
const FEWEST_BACKENDS: usize = 3;

/// Blocks that a process without a session must lose before it counts.
const FEWEST_BLOCKS: u64 = 10;

/// Where something is lost.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Where {
    /// On the way out of a session's backend.
    WayOut,
    /// In processes of this type.
    Process(String),
}

/// One stack that loses.
#[derive(Clone, Debug, PartialEq)]
pub struct ExitLoss {
    /// Where.
    pub place_of_loss: Where,
    /// Of the normalised stack.
    pub fingerprint: String,
    /// Innermost first, normalised.
    pub stack: Vec<String>,
    /// The function to look at.
    pub function: String,
    /// Where it is, "file.c:12"; empty: not known.
    pub place: String,
    /// Over all processes.
    pub bytes: u64,
    /// Over all processes.
    pub blocks: u64,
    /// Processes that lose it.
    pub processes: usize,
    /// Bytes per operation of all loops; on the way out: per backend.
    pub bytes_per_operation: f64,
    /// Some process has no report that was read: the rest is more.
    pub is_lower_bound: bool,
}

/// What is known of one stack.
struct Known<'a> {
    stack: &'a [StackFrame],
    bytes: u64,
    blocks: u64,
    processes: BTreeSet<u32>,
}

/// Reads a job's searches at exit and digests.
pub fn exits(job: &JobEvidence) -> Vec<ExitLoss> {
    let image = image(job);
    let type_of = |process: u32| {
        let known = job.attempt.processes.get(&process);
        known.map_or("unknown", |series| series.who.backend_type.as_str()).to_owned()
    };
    let mut seen: BTreeMap<(Where, String), Known<'_>> = BTreeMap::new();
    let mut take = |process: u32, has_session: bool, stack, bytes: u64, blocks: u64| {
        if blocks == 0 || owner(stack, &image) != Owner::Extension {
            return;
        }
        let place = match has_session {
            true if leaves(stack) => Where::WayOut,
            true => return,
            false => Where::Process(type_of(process)),
        };
        let known = seen.entry((place, fingerprint(stack))).or_insert_with(|| Known {
            stack,
            bytes: 0,
            blocks: 0,
            processes: BTreeSet::new(),
        });
        known.bytes = known.bytes.saturating_add(bytes);
        known.blocks = known.blocks.saturating_add(blocks);
        known.processes.insert(process);
    };
    for check in job.attempt.leak_checks.iter().filter(|check| check.at_exit) {
        for record in check.records.iter().filter(|record| is_lost(record.kind)) {
            take(check.process, true, &record.stack, record.bytes, record.blocks);
        }
    }
    for exit in &job.attempt.memcheck_exits {
        for record in exit.records.iter().filter(|record| is_lost(record.kind)) {
            take(exit.process, false, &record.stack, record.bytes, record.blocks);
        }
    }
    for digest in job.attempt.site_digests.iter().filter(|d| d.tool == Tool::Heaptrack) {
        for site in digest.sites.iter().filter(|site| !is_of_contexts(&site.stack)) {
            // heaptrack counts no live blocks: what is live of what was allocated, in whole blocks.
            let each = live_blocks(site.end_bytes, site.allocations);
            take(digest.process, digest.session.is_some(), &site.stack, site.end_bytes, each);
        }
    }
    let operations = operations(job);
    let is_lower_bound = has_unread(job);
    let mut losses: Vec<ExitLoss> = seen
        .into_iter()
        .filter(|((place, _), known)| counts(place, known, operations))
        .map(|((place_of_loss, fingerprint), known)| {
            let (function, place) = named(telling_frame(known.stack, &image));
            let over = match place_of_loss {
                Where::WayOut => u64::try_from(known.processes.len()).unwrap_or(u64::MAX),
                Where::Process(_) => operations,
            };
            ExitLoss {
                place_of_loss,
                fingerprint,
                stack: normal_stack(known.stack),
                function,
                place,
                bytes: known.bytes,
                blocks: known.blocks,
                processes: known.processes.len(),
                bytes_per_operation: bytes(known.bytes) / bytes(over.max(1)),
                is_lower_bound,
            }
        })
        .collect();
    losses.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.fingerprint.cmp(&b.fingerprint)));
    losses
}

const fn is_lost(kind: LeakKind) -> bool {
    matches!(kind, LeakKind::Definite | LeakKind::Indirect)
}

fn leaves(stack: &[StackFrame]) -> bool {
    stack.iter().any(|frame| WAYS_OUT.contains(&frame.function.as_str()))
}

fn live_blocks(end_bytes: u64, allocations: u64) -> u64 {
    if end_bytes == 0 { 0 } else { allocations }
}

/// A process of the server has no report, or none with its sites: more came and went than are read one by one.
fn has_unread(job: &JobEvidence) -> bool {
    let Some(coverage) = &job.attempt.coverage else { return false };
    let read = match job.spec.tool {
        Tool::Heaptrack => u32::try_from(job.attempt.site_digests.len()).unwrap_or(u32::MAX),
        _ => coverage.processes_seen,
    };
    read < coverage.processes_expected
}

/// Operations of all loops of the job. Of a loop that did not come to its end (the server died) the last sample tells how many were done.
fn operations(job: &JobEvidence) -> u64 {
    let loops = job.attempt.phases.iter().filter(|span| span.started.kind == PhaseKind::Loop);
    let is_cut = loops.clone().any(|span| span.ended.is_none());
    let ended = loops.filter_map(|span| span.ended.as_ref()).map(|ended| ended.operations).sum();
    let sampled = job.attempt.operations.last().copied().filter(|_| is_cut);
    sampled.map_or(ended, |sampled| sampled.max(ended))
}

fn counts(place: &Where, known: &Known<'_>, operations: u64) -> bool {
    let processes = u64::try_from(known.processes.len()).unwrap_or(u64::MAX);
    match place {
        Where::WayOut => known.processes.len() >= FEWEST_BACKENDS,
        Where::Process(_) => {
            known.blocks >= FEWEST_BLOCKS
                && known.blocks >= processes.saturating_mul(3)
                && known.blocks.saturating_mul(100) >= operations
        }
    }
}
