//! What suppressions hid over a run, and which of the plan's hid nothing.
//!
//! What is hidden is not judged, so it is told: every suppression that hid something, with its counts. One of the plan's own that hid nothing in
//! any job is *stale*: what it was written for is gone, and it can only hide what comes next.

use crate::evidence::JobEvidence;
use crate::result::Suppressed;
use pgsoak_proto::job::{Outcome, Tool};
use pgsoak_workloads::suppression::suppressions;
use std::collections::BTreeMap;

/// Source of suppressions that stand in the plan.
const PLAN: &str = "plan";

/// Over all jobs of memcheck: by source and name; the plan's stale ones only where every such job finished, since another may have used them.
pub fn suppressed(jobs: &[JobEvidence]) -> Vec<Suppressed> {
    let of_memcheck = || jobs.iter().filter(|job| job.spec.tool == Tool::Memcheck);
    let mut all: BTreeMap<(String, String), Suppressed> = BTreeMap::new();
    if of_memcheck().all(|job| job.outcome == Outcome::Finished) {
        for job in of_memcheck() {
            // The plan was checked: what cannot be read here was not in it.
            for one in suppressions(&job.spec.options.suppressions).unwrap_or_default() {
                entry(&mut all, PLAN, &one.name);
            }
        }
    }
    for used in
        of_memcheck().flat_map(|job| &job.attempt.memcheck_exits).flat_map(|e| &e.suppressions)
    {
        let sum = entry(&mut all, &used.source, &used.name);
        sum.count = sum.count.saturating_add(used.count);
        sum.bytes = sum.bytes.saturating_add(used.bytes);
        sum.blocks = sum.blocks.saturating_add(used.blocks);
        sum.processes = sum.processes.saturating_add(1);
        sum.is_stale = false;
    }
    all.into_values().collect()
}

fn entry<'a>(
    all: &'a mut BTreeMap<(String, String), Suppressed>,
    source: &str,
    name: &str,
) -> &'a mut Suppressed {
    all.entry((source.to_owned(), name.to_owned())).or_insert_with(|| Suppressed {
        source: source.to_owned(),
        name: name.to_owned(),
        count: 0,
        bytes: 0,
        blocks: 0,
        processes: 0,
        is_stale: true,
    })
}
