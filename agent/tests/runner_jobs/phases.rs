//! What short phases leave: samples at their edges, and what trimming the allocator leaves of a residual.

use crate::desk::{Evidence, Job, spec};
use pgsoak_proto::evidence::Body;
use pgsoak_proto::job::Outcome;
use std::time::Duration;

const SHORT: &str = r#"
name = "short"
[cluster]
settings = { shared_buffers = "16MB", jit = "off" }
[[phase]]
name = "fill"
kind = "once"
sql = "CREATE TABLE item AS SELECT g FROM generate_series(1, 1000) g"
[[phase]]
name = "touch"
kind = "loop"
workers = 2
operations = 1
rounds = 12
sql = "SELECT count(*) FROM item"
[[phase]]
name = "drop"
kind = "once"
sql = "DROP TABLE item"
budget = { residual = "5 MB", since = "fill" }
[[phase]]
name = "after"
kind = "once"
sql = "SELECT 1"
"#;

/// Ticks between the frames that begin and end a phase, microseconds since the attempt started.
fn ticks_in(evidence: &Evidence, phase: u32) -> Vec<u64> {
    let at = |wanted: &dyn Fn(&Body) -> bool| {
        let frame = evidence.frames.iter().find(|frame| wanted(&frame.body)).unwrap();
        u64::try_from(frame.elapsed.as_micros()).unwrap()
    };
    let from = at(&|body| matches!(body, Body::PhaseStarted(started) if started.phase == phase));
    let to = at(&|body| matches!(body, Body::PhaseEnded(ended) if ended.phase == phase));
    ticks(evidence).into_iter().filter(|tick| (from..=to).contains(tick)).collect()
}

fn ticks(evidence: &Evidence) -> Vec<u64> {
    let samples = evidence.bodies().filter_map(|body| match body {
        Body::Samples(samples) => Some(samples),
        _ => None,
    });
    samples.flat_map(|samples| samples.elapsed_us.iter().copied()).collect()
}

#[test]
fn phases_too_short_for_the_clock_have_samples_all_the_same() {
    let mut spec = spec(SHORT, 15);
    spec.sample_every = Duration::from_secs(3600);
    let evidence = Job::run(&spec);
    let ended = evidence.ended();
    assert_eq!((ended.outcome, ended.reason.as_str()), (Outcome::Finished, ""), "{ended:?}");
    for once in [0, 2, 3] {
        assert!(ticks_in(&evidence, once).len() >= 2, "{once}: {:?}", ticks_in(&evidence, once));
    }
    // Before the first round, after each, and at the end.
    assert!(ticks_in(&evidence, 1).len() >= 14, "{:?}", ticks_in(&evidence, 1));
    // The ledger's sum: each tick that was due is there once.
    let stored = ticks(&evidence);
    assert!(stored.is_sorted_by(|a, b| a < b), "{stored:?}");
    let stored = u64::try_from(stored.len()).unwrap();
    assert_eq!((ended.ticks, ended.ticks_sampled), (stored, stored));
}

#[test]
fn a_residual_is_read_again_after_the_allocator_was_trimmed() {
    let evidence = Job::run(&spec(SHORT, 18));
    let trimmed: Vec<(u32, u32)> = evidence
        .at_rest(0)
        .iter()
        .filter(|reading| reading.trimmed_rss_anon_bytes > 0)
        .map(|reading| (reading.phase, reading.round))
        .collect();
    // The phase with the budget, and the last one as always.
    assert_eq!(trimmed, [(2, 1), (3, 1)]);
    for reading in evidence.at_rest(0) {
        assert!(reading.trimmed_rss_anon_bytes <= reading.rss_anon_bytes + 65_536, "{reading:?}");
    }
}
