//! What was captured of processes while they worked: the difference between two captures of a suspect, and the last one before a server died.

use crate::evidence::{AttemptEvidence, JobEvidence};
use crate::figures::{bytes_text, count_text};
use crate::result::{Captured, ContextShare, EvidenceKind, Finding, Verdict};
use crate::stats::bytes;
use pgsoak_proto::evidence::{Capture, CaptureCause, ContextUse};
use pgsoak_proto::job::Outcome;
use std::collections::{BTreeMap, BTreeSet};

/// Contexts that are named.
const CONTEXTS: usize = 8;

/// Contexts in a sentence.
const TOLD: usize = 3;

/// Characters of a statement in a sentence.
const STATEMENT: usize = 160;

/// Contexts by how many bytes more they have at `last` than at `first`, largest first; those that did not change are left out.
pub(crate) fn changes(
    first: &[ContextUse],
    last: &[ContextUse],
    most: usize,
    of: fn(&ContextUse) -> u64,
) -> Vec<ContextShare> {
    let by_name = |contexts: &[ContextUse]| -> BTreeMap<String, u64> {
        contexts.iter().map(|context| (context.name.clone(), of(context))).collect()
    };
    let (first, last) = (by_name(first), by_name(last));
    let names: BTreeSet<&String> = first.keys().chain(last.keys()).collect();
    let mut all: Vec<ContextShare> = names
        .into_iter()
        .map(|name| ContextShare {
            name: name.clone(),
            first_bytes: first.get(name).copied().unwrap_or(0),
            last_bytes: last.get(name).copied().unwrap_or(0),
        })
        .filter(|share| share.first_bytes != share.last_bytes)
        .collect();
    all.sort_by(|a, b| {
        let grew = |share: &ContextShare| bytes(share.last_bytes) - bytes(share.first_bytes);
        grew(b).total_cmp(&grew(a)).then(a.name.cmp(&b.name))
    });
    all.truncate(most);
    all
}

/// Handed out: it grows smoothly, where blocks double.
fn used(context: &ContextUse) -> u64 {
    context.used_bytes
}

/// Suspects of a job with what they came to, and where the server died the last capture before that.
pub fn captures(job: &JobEvidence) -> Vec<Captured> {
    let attempt = &job.attempt;
    let mut by_process: BTreeMap<u32, Vec<&(u64, Capture)>> = BTreeMap::new();
    for taken in &attempt.captures {
        by_process.entry(taken.1.process).or_default().push(taken);
    }
    let mut all = Vec::new();
    for taken in by_process.values() {
        let suspect = taken.iter().position(|(_, c)| c.cause == CaptureCause::Suspect);
        let Some(of_suspect) = suspect.and_then(|at| taken.get(at..)) else { continue };
        // A capture that has contexts says more than one that has none.
        let told = |taken: &&&(u64, Capture)| !taken.1.contexts.is_empty();
        let first = of_suspect.iter().find(told).or(of_suspect.first());
        let last = of_suspect.iter().rev().find(told).or(of_suspect.last());
        if let (Some(first), Some(last)) = (first, last) {
            all.push(captured(job, first, last, None));
        }
    }
    if let Some((last, before_end_s)) = last_before_end(job) {
        all.push(captured(job, last, last, Some(before_end_s)));
    }
    all
}

/// The last capture of the process that took the server with it, or else of any, when the server died; and by how many seconds earlier.
fn last_before_end(job: &JobEvidence) -> Option<(&(u64, Capture), f64)> {
    let attempt = &job.attempt;
    let ended = attempt.ended.as_ref()?;
    if job.outcome != Outcome::Failed || !ended.sqlstate.is_empty() {
        return None;
    }
    let is_named = |pid: u32| {
        let named = format!("PID {pid})");
        pid > 0 && (ended.reason.contains(&named) || ended.server_log_tail.contains(&named))
    };
    let of_dead = attempt.captures.iter().rev().find(|(_, capture)| {
        !capture.contexts.is_empty()
            && attempt.processes.get(&capture.process).is_some_and(|p| is_named(p.who.pid))
    });
    let last = of_dead.or(attempt.captures.iter().rev().find(|(_, c)| !c.contexts.is_empty()))?;
    let end_us = attempt.ticks_elapsed_us.last().copied().unwrap_or(last.0).max(last.0);
    Some((last, bytes(end_us - last.0) / 1e6))
}

fn captured(
    job: &JobEvidence,
    first: &(u64, Capture),
    last: &(u64, Capture),
    before_end_s: Option<f64>,
) -> Captured {
    let is_one = first.0 == last.0;
    let contexts = if is_one {
        let mut all = changes(&[], &last.1.contexts, CONTEXTS, used);
        all.iter_mut().for_each(|share| share.first_bytes = share.last_bytes);
        all
    } else {
        changes(&first.1.contexts, &last.1.contexts, CONTEXTS, used)
    };
    let mut statements: Vec<String> = Vec::new();
    for statement in last.1.statements.iter().chain(&first.1.statements) {
        if !statements.contains(statement) {
            statements.push(statement.clone());
        }
    }
    let who = job.attempt.processes.get(&last.1.process).map(|series| &series.who);
    Captured {
        workload: job.workload.name.clone(),
        phase: phase_at(&job.attempt, first.0),
        build: job.spec.build.to_string(),
        arm: job.spec.arm,
        agent: job.agent.clone(),
        who: match last.1.session {
            Some(0) => "main session".to_owned(),
            Some(worker) => format!("worker {worker}"),
            None => who.map_or_else(|| "a process".to_owned(), |who| who.backend_type.clone()),
        },
        pid: who.map_or(0, |who| who.pid),
        reason: first.1.reason.clone(),
        first_s: bytes(first.0) / 1e6,
        last_s: bytes(last.0) / 1e6,
        operations: last.1.operations.saturating_sub(first.1.operations),
        first_rss_anon_bytes: first.1.rss_anon_bytes,
        last_rss_anon_bytes: last.1.rss_anon_bytes,
        contexts,
        statements,
        before_end_s,
        missing: last.1.missing.clone(),
    }
}

/// The phase that ran then; empty: none.
fn phase_at(attempt: &AttemptEvidence, elapsed_us: u64) -> String {
    attempt
        .phases
        .iter()
        .rev()
        .find(|span| span.started_elapsed_us <= elapsed_us)
        .map_or_else(String::new, |span| span.started.name.clone())
}

/// What a capture says, as sentences.
pub(crate) fn sentence(of: &Captured) -> String {
    let mut text = match of.before_end_s {
        Some(before) => format!(
            "The last capture before the end, {before:.0} s earlier: {} (pid {}) held {}",
            of.who,
            of.pid,
            bytes_text(bytes(of.last_rss_anon_bytes))
        ),
        None if of.first_s < of.last_s => format!(
            "Captured while it ran: from {:.0} s to {:.0} s ({} operations) {} (pid {}) went from {} to {}",
            of.first_s,
            of.last_s,
            count_text(bytes(of.operations)),
            of.who,
            of.pid,
            bytes_text(bytes(of.first_rss_anon_bytes)),
            bytes_text(bytes(of.last_rss_anon_bytes))
        ),
        None => format!(
            "Captured once, at {:.0} s: {} (pid {}) held {}",
            of.first_s,
            of.who,
            of.pid,
            bytes_text(bytes(of.last_rss_anon_bytes))
        ),
    };
    let is_difference = of.before_end_s.is_none() && of.first_s < of.last_s;
    let contexts: Vec<String> = of
        .contexts
        .iter()
        .take(TOLD)
        .map(|share| {
            let held = bytes(share.last_bytes);
            let sign = if share.last_bytes > share.first_bytes { "+" } else { "" };
            match is_difference {
                true => {
                    format!("{} {sign}{}", share.name, bytes_text(held - bytes(share.first_bytes)))
                }
                false => format!("{} {}", share.name, bytes_text(held)),
            }
        })
        .collect();
    match (contexts.is_empty(), of.missing.is_empty()) {
        (false, _) => text.push_str(&format!("; memory contexts: {}.", contexts.join(", "))),
        (true, true) => text.push_str("; no memory context changed."),
        (true, false) => text.push_str(&format!("; its contexts are not known: {}.", of.missing)),
    }
    if let Some(statement) = of.statements.first() {
        text.push_str(&format!(" It ran: {}", crate::ledger::one_line(statement, STATEMENT)));
    }
    text
}

/// Adds captures to the findings that they belong to: a suspect's to its loop's growth, the last one to the server's end.
pub(crate) fn attach(finding: &mut Finding, all: &[Captured]) {
    let is_here = |of: &&Captured| {
        of.workload == finding.workload
            && of.build == finding.build
            && of.arm == finding.arm
            && finding.hosts.contains(&of.agent)
    };
    let told = match finding.evidence {
        EvidenceKind::Rounds | EvidenceKind::Trend if finding.verdict != Verdict::Pass => all
            .iter()
            .filter(is_here)
            .filter(|of| of.before_end_s.is_none())
            .filter(|of| finding.phase.is_empty() || of.phase == finding.phase)
            .max_by_key(|of| of.last_rss_anon_bytes.saturating_sub(of.first_rss_anon_bytes)),
        EvidenceKind::Ledger if finding.verdict == Verdict::Fail => {
            all.iter().filter(is_here).find(|of| of.before_end_s.is_some())
        }
        _ => None,
    };
    if let Some(told) = told {
        finding.message.push_str(&format!(" {}", sentence(told)));
    }
}
