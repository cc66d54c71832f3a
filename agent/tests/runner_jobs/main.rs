//! The job runner against real servers: what it writes when all goes well, and when it does not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure here is the report"
)]

mod desk;
mod faults;
mod phases;
mod trouble;

use desk::{JOB, Job, spec};
use pgsoak_proto::evidence::Body;
use pgsoak_proto::job::Outcome;
use std::path::Path;

/// Not a test: the process that tests start as the runner.
#[test]
#[ignore = "the runner's process; other tests start it"]
fn the_runner() {
    tracing_subscriber::fmt().with_ansi(false).init();
    let dir = std::env::var_os(JOB).expect("started by a test");
    let code = pgsoak_agent::runner::run_job(Path::new(&dir));
    std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
}

const SMALL: &str = r#"
name = "small"
[cluster]
settings = { shared_buffers = "16MB", jit = "off" }
[[phase]]
name = "create"
kind = "once"
sql = "CREATE TABLE item (n bigint, worker int, seed bigint); INSERT INTO item SELECT g, 0, ${seed} FROM generate_series(1, 100) g"
check = "SELECT count(*) = 100 AND bool_and(seed = 7) FROM item"
rows = "SELECT count(*) FROM item"
[[phase]]
name = "steady"
kind = "loop"
workers = 2
operations = 50
rounds = 3
sql = "INSERT INTO item VALUES (${n}, ${worker}, ${round})"
check = "SELECT count(*) = 100 + 100 * ${round} AND max(n) = greatest(100, 50 * ${round}) FROM item"
rows = "SELECT count(*) FROM item"
[[phase]]
name = "drop"
kind = "once"
sql = "DROP TABLE item"
"#;

fn a_small_job_leaves_whole_evidence_on(major: u32) {
    let evidence = Job::run(&spec(SMALL, major));
    let ended = evidence.ended();
    assert_eq!((ended.outcome, ended.reason.as_str()), (Outcome::Finished, ""), "{ended:?}");
    // A host with other work misses a tick now and then; each is counted, none is passed over.
    let missed: u64 = evidence
        .bodies()
        .filter_map(|body| match body {
            Body::Gap(gap) => Some(gap.ticks),
            _ => None,
        })
        .sum();
    assert_eq!(ended.ticks_sampled + missed, ended.ticks, "{ended:?}");
    assert!(ended.ticks_sampled > 0, "{ended:?}");
    assert!(ended.process_samples > ended.ticks && ended.runner_cpu_us > 0, "{ended:?}");

    let phases: Vec<&str> = evidence
        .bodies()
        .filter_map(|body| match body {
            Body::PhaseStarted(phase) => Some(phase.name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(phases, ["create", "steady", "drop"]);

    let of_main: Vec<_> = evidence.at_rest(0).iter().map(|r| (r.phase, r.round, r.rows)).collect();
    assert_eq!(of_main, [(0, 0, 0), (0, 1, 100), (2, 0, 0), (2, 1, 0)]);
    for session in [1, 2] {
        let readings = evidence.at_rest(session);
        let places: Vec<_> = readings.iter().map(|r| (r.round, r.operations, r.rows)).collect();
        assert_eq!(places, [(0, 0, 100), (1, 50, 200), (2, 100, 300), (3, 150, 400)]);
        for reading in readings {
            assert!(reading.rss_anon_bytes > 500_000, "{reading:?}");
            let top = reading.contexts.iter().find(|c| c.name == "TopMemoryContext").unwrap();
            assert!(top.used_bytes > 10_000 && top.total_bytes >= top.used_bytes);
            assert!(reading.contexts.is_sorted_by(|a, b| a.name < b.name));
        }
    }
    let checks: Vec<_> = evidence
        .bodies()
        .filter_map(|body| match body {
            Body::Check(check) => Some((check.phase, check.round, check.holds)),
            _ => None,
        })
        .collect();
    assert_eq!(checks, [(0, 0, true), (1, 1, true), (1, 2, true), (1, 3, true)]);

    let samples = evidence.bodies().filter_map(|body| match body {
        Body::Samples(samples) => Some(samples),
        _ => None,
    });
    let peak = samples.flat_map(|s| &s.processes).flat_map(|p| &p.rss_anon_kib).max();
    assert!(peak.is_some_and(|kib| *kib > 500), "{peak:?}");
    let sessions = evidence.bodies().filter_map(|body| match body {
        Body::ProcessAppeared(who) => who.session,
        _ => None,
    });
    let sessions: std::collections::BTreeSet<u32> = sessions.collect();
    assert_eq!(sessions, [0, 1, 2].into());
    let Some(Body::Started(started)) = evidence.bodies().next() else { panic!("no start") };
    assert!(started.postgres_version.starts_with(&format!("PostgreSQL {major}")), "{started:?}");
    assert_eq!(started.settings.get("jit").map(String::as_str), Some("off"));
}

#[test]
fn a_small_job_leaves_whole_evidence_on_15() {
    a_small_job_leaves_whole_evidence_on(15);
}

#[test]
fn a_small_job_leaves_whole_evidence_on_18() {
    a_small_job_leaves_whole_evidence_on(18);
}
