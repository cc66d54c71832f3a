//! The attribution ledger: a backend's RssAnon by double entry, over its readings at rest.
//!
//! `RssAnon = memory contexts + malloc outside contexts + the allocator's slack + unexplained`, where contexts are the blocks that PostgreSQL
//! counts, *malloc outside contexts* is what malloc's own books (`malloc_info`, asked by gdb) say is in use beyond them, *slack* what
//! they say is free, and *unexplained* the rest: mmap, and at all times the program's own data, relocations and stack. Memory that was
//! taken and not touched is in a book and not resident; it makes the last part smaller, and less than nothing where nothing else is in it.
//!
//! Where a reading lacks a book the parts that need it are not known, and no other part takes them in. Under `plain` only: a tool's own
//! memory is anonymous too. Growth is from the first reading with books after a third of the loop, since a session's first operations fill caches.

use crate::evidence::JobEvidence;
use crate::figures::rate_text;
use crate::result::{Attribution, ContextShare, Finding, Shares};
use crate::rounds::OUTSIDE_CONTEXTS;
use crate::stats::bytes;
use pgsoak_proto::evidence::{AtRest, PhaseKind};
use pgsoak_proto::job::Tool;
use std::collections::BTreeMap;

/// Contexts that are named.
const CONTEXTS: usize = 8;

/// Sessions of one phase that have a ledger.
const SESSIONS: usize = 16;

/// A part that takes so much of the growth is where it is.
const MOST: f64 = 0.7;

/// Name of growth that no book of malloc holds.
pub(crate) const OUTSIDE_MALLOC: &str = "outside malloc";

/// One backend of a loop at rest.
#[derive(Clone, Debug)]
pub struct Backend<'a> {
    /// The phase's name.
    pub phase: &'a str,
    /// 1 and up: worker.
    pub session: u32,
    /// In order, all of one process: the last one that the session had.
    pub readings: Vec<&'a AtRest>,
}

/// The double entry of one reading.
pub fn split(reading: &AtRest) -> Shares {
    let rss_anon_bytes = bytes(reading.rss_anon_bytes);
    let total = reading.contexts.iter().fold(0_u64, |sum, c| sum.saturating_add(c.total_bytes));
    let contexts_bytes = (!reading.contexts.is_empty()).then(|| bytes(total));
    let books = reading.allocator.map(|books| (bytes(books.in_use_bytes), bytes(books.free_bytes)));
    Shares {
        rss_anon_bytes,
        contexts_bytes,
        malloc_outside_contexts_bytes: books
            .zip(contexts_bytes)
            .map(|((in_use, _), contexts)| in_use - contexts),
        allocator_slack_bytes: books.map(|(_, free)| free),
        unexplained_bytes: books.map(|(in_use, free)| rss_anon_bytes - in_use - free),
    }
}

/// The backends of a job's loops whose memory can be attributed.
pub fn backends(job: &JobEvidence) -> Vec<Backend<'_>> {
    let mut all = Vec::new();
    if job.spec.tool != Tool::Plain {
        return all;
    }
    for span in job.attempt.phases.iter().filter(|s| s.started.kind == PhaseKind::Loop) {
        let mut by_session: BTreeMap<u32, Vec<&AtRest>> = BTreeMap::new();
        let of_phase = job
            .attempt
            .at_rest
            .iter()
            .filter(|reading| reading.phase == span.started.phase && reading.session > 0);
        for reading in of_phase {
            let readings = by_session.entry(reading.session).or_default();
            if readings.last().is_some_and(|last| last.process != reading.process) {
                readings.clear();
            }
            readings.push(reading);
        }
        for (session, readings) in by_session.into_iter().take(SESSIONS) {
            all.push(Backend { phase: &span.started.name, session, readings });
        }
    }
    all
}

/// The ledgers of a job's sessions, loop by loop.
pub fn attributions(job: &JobEvidence) -> Vec<Attribution> {
    backends(job).iter().filter_map(|backend| ledger(job, backend)).collect()
}

fn ledger(job: &JobEvidence, backend: &Backend<'_>) -> Option<Attribution> {
    let with_books: Vec<&AtRest> =
        backend.readings.iter().copied().filter(|reading| reading.allocator.is_some()).collect();
    let ends = ends(&with_books).or_else(|| ends(&backend.readings));
    let (first, last) = ends?;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let trimmed = backend.readings.last().filter(|reading| reading.trimmed_rss_anon_bytes > 0);
    Some(Attribution {
        workload: job.workload.name.clone(),
        phase: backend.phase.to_owned(),
        build: job.spec.build.to_string(),
        arm: job.spec.arm,
        agent: job.agent.clone(),
        session: backend.session,
        operations: last.operations.saturating_sub(first.operations),
        first: split(first),
        last: split(last),
        contexts: grown(first, last),
        trimmed_bytes: trimmed
            .map(|reading| bytes(reading.rss_anon_bytes) - bytes(reading.trimmed_rss_anon_bytes)),
        heaptrack_bytes_per_operation: None,
        readings: count(backend.readings.len()),
        readings_with_books: count(with_books.len()),
    })
}

/// The first reading after a third of the operations (or the first of all, when that is the last) and the last one.
fn ends<'a>(readings: &[&'a AtRest]) -> Option<(&'a AtRest, &'a AtRest)> {
    let (first, last) = (readings.first()?, readings.last()?);
    let from = first.operations + last.operations.saturating_sub(first.operations) / 3;
    let warm = readings.iter().find(|reading| reading.operations >= from)?;
    let first = if warm.operations < last.operations { warm } else { first };
    (first.operations < last.operations).then_some((*first, *last))
}

/// Contexts that took or gave back blocks, by how much.
fn grown(first: &AtRest, last: &AtRest) -> Vec<ContextShare> {
    crate::captures::changes(&first.contexts, &last.contexts, CONTEXTS, |context| {
        context.total_bytes
    })
}

/// What a ledger says of growth, as a sentence; empty: its parts are not known, or nothing grew.
pub fn sentence(of: &Attribution) -> String {
    let growth = of.first.growth_to(&of.last);
    let operations = bytes(of.operations);
    let (Some(outside), Some(slack), Some(unexplained)) = (
        growth.malloc_outside_contexts_bytes,
        growth.allocator_slack_bytes,
        growth.unexplained_bytes,
    ) else {
        return String::new();
    };
    if operations <= 0.0 {
        return String::new();
    }
    let rate = |part: f64| rate_text(part / operations);
    format!(
        "By malloc's own books worker {}'s RssAnon grew by {} per operation over {} operations: memory contexts {}, \
         malloc outside them {}, slack of the allocator {}, unexplained {}.",
        of.session,
        rate(growth.rss_anon_bytes),
        crate::figures::count_text(operations),
        growth.contexts_bytes.map_or_else(|| "unknown".to_owned(), rate),
        rate(outside),
        rate(slack),
        rate(unexplained)
    )
}

/// Adds what the ledger says to a finding of growth in the same loop, and names growth that no book of malloc holds.
pub(crate) fn explain(finding: &mut Finding, all: &[Attribution]) {
    let of_finding = |of: &&Attribution| {
        of.workload == finding.workload
            && of.phase == finding.phase
            && of.build == finding.build
            && of.arm == finding.arm
            && finding.hosts.contains(&of.agent)
    };
    // The worker that grew most by its pages: where one alone leaks it is that one.
    let told = all.iter().filter(of_finding).max_by(|a, b| {
        let grew = |of: &Attribution| of.first.growth_to(&of.last).rss_anon_bytes;
        grew(a).total_cmp(&grew(b)).then(b.session.cmp(&a.session))
    });
    let Some(told) = told else { return };
    let sentence = sentence(told);
    if sentence.is_empty() {
        return;
    }
    finding.message.push_str(&format!(" {sentence}"));
    let growth = told.first.growth_to(&told.last);
    let is_most = |part: Option<f64>| part.is_some_and(|part| part >= MOST * growth.rss_anon_bytes);
    if finding.subject == OUTSIDE_CONTEXTS
        && growth.rss_anon_bytes > 0.0
        && is_most(growth.unexplained_bytes)
        && !is_most(growth.malloc_outside_contexts_bytes)
    {
        finding.subject = OUTSIDE_MALLOC.to_owned();
        finding.message.push_str(" No book of malloc holds it: look for mmap.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgsoak_proto::evidence::{AllocatorUse, ContextUse};

    fn reading(rss: u64, contexts: Option<u64>, books: Option<(u64, u64)>) -> AtRest {
        AtRest {
            rss_anon_bytes: rss,
            contexts: contexts
                .map(|total_bytes| ContextUse {
                    name: "TopMemoryContext".into(),
                    used_bytes: total_bytes / 2,
                    total_bytes,
                    count: 1,
                })
                .into_iter()
                .collect(),
            allocator: books.map(|(in_use_bytes, free_bytes)| AllocatorUse {
                in_use_bytes,
                free_bytes,
                took_us: 1,
            }),
            ..AtRest::default()
        }
    }

    #[test]
    fn the_parts_come_to_the_whole() {
        let shares = split(&reading(5_000, Some(1_000), Some((1_500, 300))));
        assert_eq!(shares.malloc_outside_contexts_bytes, Some(500.0));
        assert_eq!(shares.allocator_slack_bytes, Some(300.0));
        assert_eq!(shares.unexplained_bytes, Some(3_200.0));
        let sum = [
            shares.contexts_bytes,
            shares.malloc_outside_contexts_bytes,
            shares.allocator_slack_bytes,
            shares.unexplained_bytes,
        ];
        assert!((sum.into_iter().flatten().sum::<f64>() - 5_000.0).abs() < 1e-9);
    }

    #[test]
    fn a_book_that_is_missing_leaves_its_parts_unknown() {
        let shares = split(&reading(5_000, Some(1_000), None));
        assert_eq!((shares.contexts_bytes, shares.unexplained_bytes), (Some(1_000.0), None));
        assert_eq!(shares.malloc_outside_contexts_bytes.or(shares.allocator_slack_bytes), None);
        // PostgreSQL 13 has no view of its contexts: malloc's books alone do not tell what is outside them.
        let shares = split(&reading(5_000, None, Some((1_500, 300))));
        assert_eq!((shares.contexts_bytes, shares.malloc_outside_contexts_bytes), (None, None));
        assert_eq!(
            (shares.allocator_slack_bytes, shares.unexplained_bytes),
            (Some(300.0), Some(3_200.0))
        );
        let growth = split(&reading(1, None, None)).growth_to(&shares);
        assert_eq!((growth.rss_anon_bytes, growth.allocator_slack_bytes), (4_999.0, None));
    }

    #[test]
    fn growth_begins_after_a_third_where_there_is_a_reading() {
        let at = |operations| AtRest { operations, ..reading(1, None, None) };
        let all: Vec<AtRest> = [0, 100, 400, 900, 1_200].map(at).to_vec();
        let readings: Vec<&AtRest> = all.iter().collect();
        let (first, last) = ends(&readings).unwrap();
        assert_eq!((first.operations, last.operations), (400, 1_200));
        let (first, last) = ends(&[readings[0], readings[4]]).unwrap();
        assert_eq!((first.operations, last.operations), (0, 1_200));
        assert!(ends(&readings[..1]).is_none() && ends(&[]).is_none());
    }
}
