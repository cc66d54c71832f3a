//! What the nights' jobs would have measured, and what follows from it: the second release leaks 400 bytes per operation, and its level
//! is twice as high.

use crate::domain::history::{Sighted, Signature};
use crate::domain::job::JobState;
use crate::engine::handle::{JobSnapshot, RunSnapshot};
use crate::engine::nights::world::BUILDS;
use pgsoak_analysis::compare::JobFigures;
use pgsoak_analysis::result::{Owner, Verdict};
use pgsoak_proto::job::Outcome;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Survives rebuilds.
pub(super) const FINGERPRINT: &str = "00c0ffee00c0ffee";

fn is_done(job: &JobSnapshot) -> bool {
    matches!(job.record.state, JobState::Over { outcome: Outcome::Finished, .. })
}

fn leaks(job: &JobSnapshot) -> bool {
    job.spec.build.to_string() == BUILDS[1]
}

pub(super) fn verdict(run: &RunSnapshot) -> Verdict {
    match (run.jobs.iter().all(is_done), run.jobs.iter().any(leaks)) {
        (false, _) => Verdict::Invalid,
        (true, true) => Verdict::Fail,
        (true, false) => Verdict::Pass,
    }
}

/// As the store keeps them. Hosts and nights differ by about a per cent.
pub(super) fn figures(job: &JobSnapshot) -> JobFigures {
    let (slope, level) = if leaks(job) { (400.0, 200e6) } else { (0.1, 100e6) };
    let noise =
        f64::from(crc32c::crc32c(job.spec.job.to_string().as_bytes()) % 1_000) / 1e5 - 0.005;
    let host = f64::from(crc32c::crc32c(job.agent.as_bytes()) % 1_000) / 1e5;
    let unsound = (!is_done(job)).then_some("its job did not finish");
    let sound = |values: serde_json::Value| if unsound.is_some() { json!([]) } else { values };
    let started = job.record.state.tenure().map_or(0, |tenure| tenure.assigned_at.0);
    let figures = json!({
        "run": job.spec.run, "agent": job.agent, "started_at_unix_us": started,
        "build": job.spec.build.to_string(), "arm": job.spec.arm, "tool": job.spec.tool,
        "postgres_version": "PostgreSQL 18.4", "workload": "w", "work": "w", "length": "6 h",
        "unsound": unsound, "has_failed": false, "phases": ["a"],
        "levels": sound(json!([[["a", "worker 1"], level * (1.0 + noise + host)]])),
        "rates": sound(json!([[["a", "memory contexts"], {
            "slope": slope + 10.0 * noise, "half_width": 0.5, "threshold": 8.0, "is_leak": slope > 8.0,
        }]])),
        "drifts": [], "amounts": [], "stacks": [], "checked": [],
    });
    serde_json::from_value(figures).unwrap()
}

pub(super) fn signatures(run: &RunSnapshot) -> Vec<Signature> {
    if verdict(run) != Verdict::Fail {
        return Vec::new();
    }
    let seen = (run.record.submitted_at, run.record.run);
    let sighted = Sighted {
        first: seen,
        last: seen,
        runs: 1,
        hosts: run.jobs.iter().map(|job| job.agent.clone()).collect(),
        workloads: BTreeSet::from(["w".to_owned()]),
        worst: Verdict::Fail,
    };
    vec![Signature {
        fingerprint: FINGERPRINT.to_owned(),
        function: "tview_refresh".to_owned(),
        owner: Owner::Extension,
        stack: vec!["pg_tviews.so tview_refresh".to_owned()],
        builds: BTreeMap::from([(BUILDS[1].to_owned(), sighted)]),
    }]
}
