//! What processes lose by their end: on the way out, in workers without a session; descriptors; and what suppressions hid.

use crate::made::*;
use pgsoak_analysis::evidence::{JobEvidence, ProcessSeries};
use pgsoak_analysis::result::{Owner, Verdict};
use pgsoak_proto::evidence::{
    LeakCheck, LeakKind, MemcheckError, MemcheckErrors, MemcheckExit, ProcessAppeared, StackFrame,
    SuppressionUse,
};
use pgsoak_proto::job::{Arm, Tool};

fn memcheck() -> JobEvidence {
    let mut job = job(Tool::Memcheck, Arm::Candidate, 1, 20, flat);
    job.attempt.phases[1].ended.as_mut().unwrap().operations = 2_000;
    job
}

/// A process that serves no session, and what it lost.
fn with_worker(job: &mut JobEvidence, process: u32, blocks: u64, stack: &[StackFrame]) {
    let who = ProcessAppeared {
        process,
        pid: 500 + process,
        start_time_ticks: 1,
        backend_type: "pg_x worker".into(),
        session: None,
    };
    let series = ProcessSeries {
        who,
        elapsed_us: Vec::new(),
        rss_anon_bytes: Vec::new(),
        cpu_us: Vec::new(),
        ended_elapsed_us: None,
    };
    job.attempt.processes.insert(process, series);
    let record = record(LeakKind::Definite, stack, 0, blocks * 100);
    job.attempt.memcheck_exits.push(MemcheckExit {
        process,
        records: vec![record],
        suppressions: Vec::new(),
    });
}

fn leaving(function: &str) -> Vec<StackFrame> {
    let mut stack = stack(function, "pg_x.so");
    let frame = |function: &str| StackFrame {
        function: function.into(),
        module: "postgres".into(),
        ..StackFrame::default()
    };
    stack.truncate(2);
    stack.extend([frame("proc_exit_prepare"), frame("proc_exit"), frame("PostgresMain")]);
    stack
}

#[test]
fn a_background_worker_that_loses_fails_with_bytes_per_operation() {
    let mut leaky = memcheck();
    with_worker(&mut leaky, 9, 2_000, &stack("hx_worker", "pg_x.so"));
    let result = judged(vec![leaky]);
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!((finding.subject.as_str(), finding.owner), ("hx_worker", Owner::Extension));
    assert_eq!(finding.bytes_per_operation, Some(100.0));
    assert_eq!(finding.fingerprint.len(), 16);
    assert!(finding.message.contains("'pg_x worker'"), "{}", finding.message);
}

#[test]
fn operations_of_a_loop_that_a_crash_cut_short_are_those_of_the_last_sample() {
    let mut cut = memcheck();
    let done = *cut.attempt.operations.last().unwrap();
    assert!(done > 0);
    for span in &mut cut.attempt.phases {
        span.ended = None;
    }
    with_worker(&mut cut, 9, done * 2, &stack("hx_worker", "pg_x.so"));
    let result = judged(vec![cut]);
    let found = failing(&result).into_iter().find(|f| f.subject == "hx_worker");
    assert_eq!(found.unwrap().bytes_per_operation, Some(200.0), "100 bytes a block");
}

#[test]
fn what_each_worker_loses_once_and_what_is_the_servers_own_does_not_fail() {
    let mut fine = memcheck();
    for process in 10..40 {
        with_worker(&mut fine, process, 1, &stack("hx_init", "pg_x.so"));
        with_worker(&mut fine, process, 100, &stack("save_ps_display_args", "postgres"));
    }
    let result = judged(vec![fine]);
    assert_eq!(failing(&result).len(), 0, "{:#?}", failing(&result));
}

#[test]
fn what_is_lost_on_the_way_out_fails_where_several_backends_lose_it() {
    let lost_by = |backends: u32, stack: &[StackFrame]| {
        let mut job = memcheck();
        for process in 1..=backends {
            job.attempt.leak_checks.push(LeakCheck {
                session: 1,
                process,
                phase: 1,
                round: process,
                operations: 0,
                records: vec![record(LeakKind::Definite, stack, 0, 100)],
                at_exit: true,
                took_us: 0,
            });
        }
        judged(vec![job])
    };
    let result = lost_by(3, &leaving("hx_bye"));
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!((finding.subject.as_str(), finding.bytes_per_operation), ("hx_bye", Some(100.0)));
    assert!(finding.message.contains("on the way out"), "{}", finding.message);
    assert_eq!(failing(&lost_by(2, &leaving("hx_bye"))).len(), 0, "two can be chance");
    let at_work = lost_by(5, &stack("hx_once", "pg_x.so"));
    assert_eq!(failing(&at_work).len(), 0, "lost once in a session: not on the way out");
}

#[test]
fn descriptors_fail_from_ten_on_and_only_the_extensions_own() {
    let open = |count: u64, stack: Vec<StackFrame>| {
        let mut job = memcheck();
        let what = "File descriptor left open".to_owned();
        job.attempt.memcheck_errors.push(MemcheckErrors {
            process: 1,
            errors: vec![MemcheckError { what, count, stack }],
        });
        failing(&judged(vec![job])).len()
    };
    assert_eq!(open(10, stack("hx_open", "pg_x.so")), 1);
    assert_eq!(open(9, stack("hx_open", "pg_x.so")), 0);
    // The server opens a table's file below a statement of the extension.
    let mut below = stack("PathNameOpenFilePerm", "postgres");
    below.extend(stack("hx_query", "pg_x.so"));
    assert_eq!(open(50, below), 0);
}

#[test]
fn suppressions_tell_what_they_hid_and_stale_ones_are_named() {
    let mut job = memcheck();
    job.spec.options.suppressions =
        "{\n used\n Memcheck:Leak\n fun:a\n}\n{\n stale\n Memcheck:Cond\n fun:b\n}\n".into();
    for process in 1..=2 {
        job.attempt.memcheck_exits.push(MemcheckExit {
            process,
            records: Vec::new(),
            suppressions: vec![SuppressionUse {
                name: "used".into(),
                source: "plan".into(),
                count: 1,
                bytes: 2_000,
                blocks: 20,
            }],
        });
    }
    let unfinished = {
        let mut job = job.clone();
        job.outcome = pgsoak_proto::job::Outcome::Cancelled;
        job
    };
    let result = judged(vec![job]);
    let told: Vec<_> = result
        .suppressed
        .iter()
        .map(|s| (s.name.as_str(), s.bytes, s.processes, s.is_stale))
        .collect();
    assert_eq!(told, [("stale", 0, 0, true), ("used", 4_000, 2, false)]);
    let report = pgsoak_analysis::report::to_markdown(&result);
    assert!(report.contains("stale, take it out of the plan"), "{report}");
    let result = judged(vec![unfinished]);
    assert!(
        result.suppressed.iter().all(|s| !s.is_stale),
        "who did not finish may still have used it"
    );
    assert_ne!(result.verdict, Verdict::Pass);
}
