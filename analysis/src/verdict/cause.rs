//! Findings with one cause become one: over replicas, and over lines of evidence that agree.
//!
//! | rounds (`plain`) | memcheck, same workload, build and phase | becomes |
//! | --- | --- | --- |
//! | malloc outside contexts | the extension keeps about that much | the rounds' finding, with memcheck's stack and exact figure |
//! | malloc outside contexts | the extension loses about that much | memcheck's finding, the rounds agree |
//! | malloc outside contexts | malloc sees none of it | the rounds' finding, as "outside malloc": look for mmap |
//! | a context | blocks of contexts, asked for by the extension, are kept | the rounds' finding, with memcheck's stack |

use crate::facts::Facts;
use crate::figures::rate_text;
use crate::result::{EvidenceKind, Finding, Owner, Verdict};
use crate::rounds::OUTSIDE_CONTEXTS;
use crate::verdict::findings::Found;
use pgsoak_proto::evidence::LeakKind;
use std::collections::BTreeMap;

/// Name of growth that no malloc tool sees.
pub(crate) const OUTSIDE_MALLOC: &str = "outside malloc";

/// Merges replicas first, then lines of evidence.
pub(crate) fn combined(found: Vec<Found>, all: &[Facts<'_>]) -> Vec<Finding> {
    agreed(replicas(found), all).into_iter().map(|found| found.finding).collect()
}

/// What several hosts saw alike. Figures are averaged; sentences without a figure must be the same.
fn replicas(found: Vec<Found>) -> Vec<Found> {
    let mut merged: Vec<Found> = Vec::new();
    for next in found {
        match merged.iter_mut().find(|known| is_replica(known, &next)) {
            Some(known) => add_replica(&mut known.finding, next.finding),
            None => merged.push(next),
        }
    }
    for found in &mut merged {
        found.finding.hosts.sort();
        found.finding.hosts.dedup();
    }
    merged
}

fn is_replica(known: &Found, next: &Found) -> bool {
    let (a, b) = (&known.finding, &next.finding);
    let has_figures = a.bytes_per_operation.is_some() && b.bytes_per_operation.is_some();
    is_one_subject(a, b)
        && known.kind == next.kind
        && a.evidence == b.evidence
        && a.verdict == b.verdict
        && a.tool == b.tool
        && a.subject == b.subject
        && a.stack == b.stack
        && (has_figures || a.message == b.message)
}

fn add_replica(known: &mut Finding, next: Finding) {
    let n = crate::stats::count(known.hosts.len().max(1));
    known.bytes_per_operation = known
        .bytes_per_operation
        .zip(next.bytes_per_operation)
        .map(|(mean, figure)| mean + (figure - mean) / (n + 1.0));
    known.low = known.low.zip(next.low).map(|(a, b)| a.min(b));
    known.high = known.high.zip(next.high).map(|(a, b)| a.max(b));
    known.hosts.extend(next.hosts);
}

fn is_one_subject(a: &Finding, b: &Finding) -> bool {
    a.workload == b.workload && a.phase == b.phase && a.build == b.build && a.arm == b.arm
}

fn agreed(mut found: Vec<Found>, all: &[Facts<'_>]) -> Vec<Found> {
    let (mut rounds, mut records, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for found in found.drain(..) {
        let finding = &found.finding;
        let fails = finding.verdict == Verdict::Fail;
        match finding.evidence {
            EvidenceKind::Rounds if fails => rounds.push(found),
            EvidenceKind::LeakRecord if fails && found.kind.is_some() => records.push(found),
            _ => rest.push(found),
        }
    }
    for mut grown in rounds {
        if !agree(&mut grown.finding, &mut records, all) {
            rest.push(grown);
        }
    }
    rest.append(&mut records);
    rest
}

/// Joins a finding of rounds with the leak records of its cause; true: it went into one of them.
fn agree(grown: &mut Finding, records: &mut Vec<Found>, all: &[Facts<'_>]) -> bool {
    let is_outside = grown.subject == OUTSIDE_CONTEXTS;
    if !is_outside && !grown.subject.starts_with("context ") {
        return false;
    }
    let same: Vec<usize> = records
        .iter()
        .enumerate()
        .filter(|(_, record)| {
            is_one_subject(&record.finding, grown) && is_of_contexts(&record.finding) != is_outside
        })
        .map(|(at, _)| at)
        .collect();
    let slope = grown.bytes_per_operation.unwrap_or(0.0);
    let explained: f64 =
        same.iter().filter_map(|at| records.get(*at)?.finding.bytes_per_operation).sum();
    if is_outside && explained < 0.5 * slope {
        if let Some(seen) = malloc_sees(grown, all)
            && seen < 0.1 * slope
        {
            grown.subject = OUTSIDE_MALLOC.to_owned();
            grown.message.push_str(&format!(
                " memcheck of the same workload sees {} per operation: this is not malloc's, look for mmap.",
                rate_text(seen)
            ));
        }
        return false;
    }
    let largest = same.iter().copied().max_by(|a, b| {
        let rate = |at: &usize| {
            records.get(*at).and_then(|record| record.finding.bytes_per_operation).unwrap_or(0.0)
        };
        rate(a).total_cmp(&rate(b)).then(b.cmp(a))
    });
    let Some(largest) = largest else { return false };
    let Some(record) = records.get_mut(largest) else { return false };
    if record.kind != Some(LeakKind::Reachable) {
        if is_outside {
            join(&mut record.finding, grown);
        }
        return is_outside;
    }
    let record = records.remove(largest).finding;
    join(grown, &record);
    grown.owner = Owner::Extension;
    if is_outside && same.len() == 1 {
        // malloc's own headers are in RssAnon and not in memcheck's count, which is exact.
        grown.bytes_per_operation = record.bytes_per_operation;
        grown.low = record.low;
        grown.high = record.high;
    }
    grown.stack = record.stack;
    false
}

fn join(into: &mut Finding, other: &Finding) {
    into.agreeing.push(other.evidence);
    into.hosts.extend(other.hosts.iter().cloned());
    into.hosts.sort();
    into.hosts.dedup();
    into.message = format!("{} {}: {}", into.message, other.tool, other.message);
}

/// Whether a stack ends in PostgreSQL's own allocation of context blocks.
fn is_of_contexts(finding: &Finding) -> bool {
    finding.stack.iter().take(4).any(|line| {
        ["AllocSet", "Slab", "Generation", "Bump", "MemoryContext", "palloc", "repalloc"]
            .iter()
            .any(|prefix| line.starts_with(prefix))
    })
}

/// What memcheck of the same workload, build and phase sees grow per operation, over all kinds and owners; `None`: it did not look.
fn malloc_sees(grown: &Finding, all: &[Facts<'_>]) -> Option<f64> {
    let mut by_job: BTreeMap<usize, f64> = BTreeMap::new();
    for (at, facts) in all.iter().enumerate() {
        let spec = &facts.job.spec;
        if facts.job.workload.name != grown.workload
            || spec.build.to_string() != grown.build
            || spec.arm != grown.arm
            || !facts.is_sound()
        {
            continue;
        }
        for leaks in
            facts.leaks.iter().filter(|leaks| leaks.phase == grown.phase && leaks.intervals >= 2)
        {
            by_job.insert(at, leaks.all_bytes_per_operation);
        }
    }
    by_job.into_values().max_by(f64::total_cmp)
}
