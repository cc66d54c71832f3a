//! Arbitrary evidence never panics, never passes for want of evidence, and gives the same bytes each time.

use crate::made::*;
use pgsoak_analysis::evidence::{AttemptEvidence, JobEvidence};
use pgsoak_analysis::report::{to_html, to_json, to_junit, to_markdown};
use pgsoak_analysis::result::Verdict;
use pgsoak_analysis::verdict::judge;
use pgsoak_proto::evidence::{
    AtRest, Body, ContextUse, Frame, HostSamples, ProcessSamples, Samples,
};
use pgsoak_proto::job::{Arm, Tool};
use proptest::prelude::*;
use std::time::Duration;

fn readings() -> impl Strategy<Value = Vec<AtRest>> {
    let context = ("[A-Z]{1,3}", any::<u64>(), any::<u64>()).prop_map(|(name, used, total)| {
        ContextUse { name, used_bytes: used, total_bytes: total, count: 1 }
    });
    let reading = (
        0..3_u32,
        0..3_u32,
        0..3_u32,
        0..40_u32,
        prop_oneof![0..100_000_u64, any::<u64>()],
        any::<u64>(),
        prop::collection::vec(context, 0..4),
        any::<u64>(),
    )
        .prop_map(|(session, process, phase, round, operations, rss, contexts, rows)| AtRest {
            session,
            process,
            phase,
            round,
            operations,
            rss_anon_bytes: rss,
            contexts,
            rows,
            ..AtRest::default()
        });
    prop::collection::vec(reading, 0..120)
}

fn all_reports(jobs: Vec<JobEvidence>) -> Verdict {
    let evidence = run(jobs);
    let result = judge(&evidence);
    let text = to_json(&result);
    assert_eq!(text, to_json(&judge(&evidence)));
    assert!(!text.is_empty() && !to_markdown(&result).contains("NaN") && !text.contains("NaN"));
    let page = to_html(&result, Some(&evidence));
    assert!(!page.contains("NaN") && !page.contains("\"inf") && page.len() < 2_000_000);
    let _ = to_junit(&result);
    result.verdict
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn no_readings_break_it(at_rest in readings(), tool in 0..3_usize, allow in -1.0e9..1.0e9) {
        let tool = [Tool::Plain, Tool::Memcheck, Tool::Heaptrack][tool];
        let mut made = job(tool, Arm::Candidate, 1, 14, flat);
        made.workload.allow_bytes_per_row = allow;
        made.attempt.at_rest_elapsed_us = vec![0; at_rest.len() / 2];
        made.attempt.at_rest = at_rest;
        let mut control = made.clone();
        control.spec.arm = Arm::Control;
        all_reports(vec![made, control]);
    }

    #[test]
    fn no_frames_break_the_fold(
        sequences in prop::collection::vec(any::<u64>(), 0..20),
        elapsed in prop::collection::vec(any::<u64>(), 0..10),
        columns in prop::collection::vec(any::<u64>(), 0..12),
        first_row in any::<u32>(),
    ) {
        let frames = sequences.iter().map(|sequence| Frame {
            sequence: *sequence,
            elapsed: Duration::from_micros(*sequence),
            body: Body::Samples(Samples {
                ticks: elapsed.clone(),
                elapsed_us: elapsed.clone(),
                processes: vec![ProcessSamples {
                    process: 1,
                    first_row: first_row % 12,
                    rss_anon_kib: columns.clone(),
                    swap_kib: columns.clone(),
                    ..ProcessSamples::default()
                }],
                host: HostSamples { operations: columns.clone(), ..HostSamples::default() },
                left_out: 0,
            }),
        });
        let folded = AttemptEvidence::from_frames(frames.collect::<Vec<_>>());
        prop_assert!(folded.ticks_elapsed_us.windows(2).all(|pair| pair[0] < pair[1]));
        let mut made = job(Tool::Plain, Arm::Candidate, 1, 14, flat);
        made.attempt = folded;
        prop_assert_ne!(all_reports(vec![made]), Verdict::Pass);
    }

    #[test]
    fn the_order_of_hosts_and_the_origin_of_time_change_nothing(shift in 0..1_u64 << 40, seed in any::<u64>()) {
        let host = |name: &str, per_operation: u64| {
            let mut made = job(Tool::Plain, Arm::Candidate, 2, 15, outside(per_operation + seed % 7));
            made.agent = name.to_owned();
            made
        };
        let (a, b) = (host("a", 0), host("b", 50));
        let one = judged(vec![a.clone(), b.clone()]);
        let other = judged(vec![b, a.clone()]);
        prop_assert_eq!(&one.findings, &other.findings);
        prop_assert_eq!(one.verdict, other.verdict);
        let mut later = a.clone();
        let attempt = &mut later.attempt;
        for at in attempt.ticks_elapsed_us.iter_mut().chain(&mut attempt.at_rest_elapsed_us) {
            *at += shift;
        }
        for series in attempt.processes.values_mut() {
            for at in &mut series.elapsed_us {
                *at += shift;
            }
        }
        for span in &mut attempt.phases {
            span.started_elapsed_us += shift;
            span.ended_elapsed_us = span.ended_elapsed_us.map(|at| at + shift);
        }
        prop_assert_eq!(to_json(&judged(vec![later])), to_json(&judged(vec![a])));
    }
}

#[test]
fn empty_constant_short_and_backwards_evidence_never_passes_for_want_of_evidence() {
    let mut empty = job(Tool::Plain, Arm::Candidate, 1, 14, flat);
    empty.attempt = AttemptEvidence::default();
    assert_ne!(all_reports(vec![empty]), Verdict::Pass);
    let mut backwards = job(Tool::Plain, Arm::Candidate, 1, 14, flat);
    backwards.attempt.at_rest.reverse();
    assert_ne!(all_reports(vec![backwards]), Verdict::Pass);
    let single = job(Tool::Plain, Arm::Candidate, 1, 0, flat);
    assert_ne!(all_reports(vec![single]), Verdict::Pass);
    let mut still = job(Tool::Plain, Arm::Candidate, 1, 14, flat);
    for reading in &mut still.attempt.at_rest {
        reading.operations = 7;
    }
    assert_ne!(all_reports(vec![still]), Verdict::Pass);
}

#[test]
fn a_day_of_rounds_is_judged_in_seconds_and_agrees_with_a_short_run() {
    let leaking = |worker: u32, round: u32| {
        let (rss, mut contexts) = flat(worker, round);
        contexts[0].1 += u64::from(round) * OPERATIONS * 3;
        (rss, contexts)
    };
    let began = std::time::Instant::now();
    let long = judged(vec![job(Tool::Plain, Arm::Candidate, 4, 8_640, leaking)]);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let short = judged(vec![job(Tool::Plain, Arm::Candidate, 4, 20, leaking)]);
    for result in [&long, &short] {
        assert_eq!(failing(result)[0].subject, "context CacheMemoryContext");
        assert!((failing(result)[0].bytes_per_operation.unwrap() - 3.0).abs() < 1e-6);
    }
}
