//! Findings with one cause become one: over replicas, and over lines of evidence that agree.
//!
//! | rounds (`plain`) | memcheck, same workload, build and phase | becomes |
//! | --- | --- | --- |
//! | malloc outside contexts | the extension keeps about that much | the rounds' finding, with memcheck's stack and exact figure |
//! | malloc outside contexts | the extension loses about that much | memcheck's finding, the rounds agree |
//! | malloc outside contexts | malloc sees none of it | the rounds' finding, as "outside malloc": look for mmap |
//! | malloc outside contexts | (heaptrack) a site of the extension holds about that much more | the rounds' finding, with the site's stack and exact figure |
//! | a context | blocks of contexts, asked for by the extension, are kept | the rounds' finding, with memcheck's largest stack and the others summed |

use crate::attribution::OUTSIDE_MALLOC;
use crate::facts::Facts;
use crate::figures::rate_text;
use crate::result::{EvidenceKind, Finding, Owner, Verdict};
use crate::rounds::OUTSIDE_CONTEXTS;
use crate::stack::allocates_in_contexts;
use crate::verdict::findings::Found;
use crate::verdict::sites;
use pgsoak_proto::evidence::LeakKind;
use std::collections::{BTreeMap, BTreeSet};

/// Functions that are named where many keep memory.
const MOST_FUNCTIONS: usize = 5;

/// Merges replicas first, then lines of evidence.
pub(crate) fn combined(found: Vec<Found>, all: &[Facts<'_>]) -> Vec<Finding> {
    agreed(replicas(found), all).into_iter().map(|found| found.finding).collect()
}

/// What several hosts saw alike. Figures are averaged; sentences without a figure must be the same.
fn replicas(found: Vec<Found>) -> Vec<Found> {
    let mut groups: Vec<Vec<Found>> = Vec::new();
    for next in found {
        let same = groups
            .iter_mut()
            .find(|group| group.first().is_some_and(|known| is_replica(known, &next)));
        match same {
            Some(group) => group.push(next),
            None => groups.push(vec![next]),
        }
    }
    groups.into_iter().filter_map(one).collect()
}

/// A group as one finding, whatever its order.
fn one(mut group: Vec<Found>) -> Option<Found> {
    group.sort_by(|a, b| {
        let (a, b) = (&a.finding, &b.finding);
        a.hosts.cmp(&b.hosts).then(a.message.cmp(&b.message))
    });
    let figures: Vec<f64> =
        group.iter().filter_map(|found| found.finding.bytes_per_operation).collect();
    let end = |of: fn(&Finding) -> Option<f64>, pick: fn(f64, f64) -> f64| {
        group.iter().filter_map(|found| of(&found.finding)).reduce(pick)
    };
    let (low, high) = (end(|f| f.low, f64::min), end(|f| f.high, f64::max));
    let each: Vec<String> = group
        .iter()
        .filter_map(|found| {
            let figure = rate_text(found.finding.bytes_per_operation?);
            Some(format!("{} {figure}", found.finding.hosts.first()?))
        })
        .collect();
    let mut hosts: Vec<String> =
        group.iter().flat_map(|found| found.finding.hosts.iter().cloned()).collect();
    hosts.sort();
    hosts.dedup();
    let count = group.len();
    let mut first = group.into_iter().next()?;
    if count > 1 && !figures.is_empty() {
        let mean = figures.iter().sum::<f64>() / crate::stats::count(figures.len());
        let finding = &mut first.finding;
        finding.bytes_per_operation = Some(mean);
        (finding.low, finding.high) = (low, high);
        finding.message = format!(
            "On average {} per operation over {count} jobs ({}). The first: {}",
            rate_text(mean),
            each.join(", "),
            finding.message
        );
    }
    first.finding.hosts = hosts;
    Some(first)
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
        && a.fingerprint == b.fingerprint
        && (!a.fingerprint.is_empty() || a.stack == b.stack)
        && (has_figures || a.message == b.message)
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
    let mut joined = BTreeSet::new();
    for mut grown in rounds {
        if !agree(&mut grown.finding, &mut records, &mut joined, all) {
            sites::agree(&mut grown.finding, &mut rest, all);
            rest.push(grown);
        }
    }
    let left = records.into_iter().enumerate().filter(|(at, _)| !joined.contains(at));
    let mut records: Vec<Found> = left.map(|(_, record)| record).collect();
    for record in &mut records {
        sites::confirm(&mut record.finding, &mut rest);
    }
    rest.append(&mut records);
    rest
}

/// Joins a finding of rounds with the leak records of its cause; true: it went into one of them. `joined`: places of the records that went into a
/// finding of rounds.
fn agree(
    grown: &mut Finding,
    records: &mut [Found],
    joined: &mut BTreeSet<usize>,
    all: &[Facts<'_>],
) -> bool {
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
                " The tools that watch malloc see {} per operation of it in the same workload: it is not malloc's, look for mmap.",
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
    let record = record.finding.clone();
    join(grown, &record);
    joined.insert(largest);
    if !is_outside {
        let is_kept = |at: &usize| {
            *at != largest
                && records.get(*at).is_some_and(|other| other.kind == Some(LeakKind::Reachable))
        };
        let kept: Vec<usize> = same.iter().copied().filter(is_kept).collect();
        let others = kept.iter().filter_map(|at| Some(&records.get(*at)?.finding));
        grown.message.push_str(&more_stacks(others));
        joined.extend(kept);
    }
    grown.owner = Owner::Extension;
    if is_outside && same.len() == 1 {
        // malloc's own headers are in RssAnon and not in memcheck's count, which is exact.
        grown.bytes_per_operation = record.bytes_per_operation;
        grown.low = record.low;
        grown.high = record.high;
    }
    grown.stack = record.stack;
    grown.fingerprint = record.fingerprint;
    false
}

/// What else the extension keeps in blocks of contexts: one cause asks for blocks of many sizes, at many places of the server.
fn more_stacks<'a>(kept: impl Iterator<Item = &'a Finding>) -> String {
    let mut count = 0_usize;
    let mut by_function: BTreeMap<&str, f64> = BTreeMap::new();
    for finding in kept {
        count += 1;
        *by_function.entry(&finding.subject).or_default() +=
            finding.bytes_per_operation.unwrap_or(0.0);
    }
    let mut largest: Vec<(&str, f64)> = by_function.into_iter().collect();
    largest.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
    let all: f64 = largest.iter().map(|(_, rate)| rate).sum();
    let names: Vec<String> = largest
        .iter()
        .take(MOST_FUNCTIONS)
        .map(|(function, rate)| format!("{function} {}", rate_text(*rate)))
        .collect();
    match count {
        0 => String::new(),
        1 => format!(
            " One more stack of the extension keeps blocks of contexts: {}.",
            names.concat()
        ),
        _ => format!(
            " {count} more stacks of the extension keep blocks of contexts, {} per operation: {}.",
            rate_text(all),
            names.join(", ")
        ),
    }
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
    finding.stack.iter().take(4).any(|line| allocates_in_contexts(line))
}

/// What memcheck and heaptrack of the same workload, build and phase see grow per operation, over all kinds and owners; `None`: neither
/// looked.
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
    let by_sites = sites::seen(grown, all).map(|sites| sites.all_bytes_per_operation);
    by_job.into_values().chain(by_sites).max_by(f64::total_cmp)
}
