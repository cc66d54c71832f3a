//! The ledger in full, and memory ahead.

use crate::made::*;
use crate::over_time::long;
use pgsoak_analysis::evidence::JobEvidence;
use pgsoak_analysis::result::{EvidenceKind, Verdict};
use pgsoak_proto::evidence::{ClockOffset, Gap};
use pgsoak_proto::job::{Arm, Tool};

const SECOND: u64 = 1_000_000;

fn quiet() -> JobEvidence {
    job(Tool::Plain, Arm::Candidate, 1, 200, flat)
}

#[test]
fn a_session_that_was_read_too_seldom_is_named_and_nothing_passes() {
    let mut job = quiet();
    let series = job.attempt.processes.get_mut(&1).unwrap();
    let kept: Vec<usize> = (0..series.elapsed_us.len()).filter(|at| at % 3 == 0).collect();
    let of = |values: &[u64]| kept.iter().map(|at| values[*at]).collect::<Vec<u64>>();
    series.rss_anon_bytes = of(&series.rss_anon_bytes);
    series.cpu_us = of(&series.cpu_us);
    series.elapsed_us = of(&series.elapsed_us);
    let result = judged(vec![job]);
    assert_eq!(result.verdict, Verdict::Inconclusive);
    let said = result.findings.iter().find(|finding| finding.subject == "samples").unwrap();
    assert!(said.message.contains("worker 1 (pid 101): 13"), "{}", said.message);
    let ledger = result.jobs[0].ledger.as_ref().unwrap();
    let worker = ledger.processes.iter().find(|one| one.who == "worker 1").unwrap();
    assert!(worker.stored < worker.expected && worker.longest_gap_s > 2.9, "{worker:?}");
    let main = ledger.processes.iter().find(|one| one.who == "main session").unwrap();
    assert_eq!(main.stored, main.expected);
}

#[test]
fn gaps_by_cause_and_the_hosts_trouble_stand_in_the_ledger() {
    let mut job = quiet();
    let gap = |ticks, cause: &str| Gap { first_tick: 0, ticks, cause: cause.to_owned() };
    job.attempt.gaps = vec![gap(2, "sampler late"), gap(5, "suspended"), gap(1, "sampler late")];
    if let Some(ended) = &mut job.attempt.ended {
        ended.ticks += 8;
    }
    let host = &mut job.attempt.host;
    // Waits for memory half of the time, and the clock is set back by an hour in the middle.
    host.pressure_some_us = (0..200).map(|at| (at * SECOND, at * SECOND / 2)).collect();
    host.load_centi = vec![(SECOND, 150), (2 * SECOND, 480)];
    host.clock_ms = (0..200)
        .map(|at| {
            (at * SECOND, 1_800_000_000_000 + at * 1_000 - if at >= 100 { 3_600_000 } else { 0 })
        })
        .collect();
    let clock = ClockOffset { ahead_us: -7_500_000, within_us: 20_000 };
    job.attempt.started.as_mut().unwrap().clock = Some(clock);
    job.attempt.swapped_bytes = [(1, 4096), (0, 8192)].into();
    let result = judged(vec![job]);
    let ledger = result.jobs[0].ledger.as_ref().unwrap();
    let gaps: Vec<(&str, u64)> =
        ledger.gaps.iter().map(|gap| (gap.cause.as_str(), gap.ticks)).collect();
    assert_eq!(gaps, [("suspended", 5), ("sampler late", 3)]);
    assert_eq!(ledger.host.clock_jumps, [(100.0, -3_600.0)]);
    assert_eq!(ledger.host.clock_drift_s, Some(-3_600.0));
    assert_eq!(ledger.host.clock_ahead_s, Some(-7.5));
    assert_eq!(ledger.host.clock_ahead_within_s, Some(0.02));
    assert!((ledger.host.memory_pressure.unwrap() - 0.5).abs() < 0.01);
    // Of two cores.
    assert_eq!(ledger.host.highest_load_per_core, Some(2.4));
    assert_eq!(ledger.host.swapped_bytes, 12_288);
    let text = pgsoak_analysis::report::to_markdown(&result);
    assert!(text.contains("## Ledger") && text.contains("suspended: 5; sampler late: 3"), "{text}");
    assert!(text.contains("-7.5 s (± 0.0) against the coordinator's"), "{text}");
    assert!(text.contains("jumped −3600 s") || text.contains("jumped -3600 s"), "{text}");
}

#[test]
fn a_machine_that_slept_is_told_by_its_clock() {
    let mut job = job(Tool::Plain, Arm::Candidate, 2, 20, outside(0));
    job.attempt.host.clock_ms = (0..200)
        .map(|at| {
            (at * SECOND, 1_800_000_000_000 + at * 1_000 + if at >= 120 { 3_600_000 } else { 0 })
        })
        .collect();
    let text = pgsoak_analysis::report::to_markdown(&judged(vec![job]));
    let sentence = "jumped +3600 s after 120 s: set, or the machine was suspended";
    assert!(text.contains(sentence), "{text}");
}

#[test]
fn memory_ahead_from_rounds_goes_at_their_pace() {
    let mut job = job(Tool::Plain, Arm::Candidate, 2, 20, outside(100));
    let span = job.attempt.phases.last_mut().unwrap();
    let time = (span.ended_elapsed_us.unwrap() - span.started_elapsed_us) / SECOND;
    span.ended.as_mut().unwrap().operations = 2 * 20 * OPERATIONS;
    job.attempt.available_kib = vec![8 << 20];
    let result = judged(vec![job]);
    let whole = result.horizon.iter().find(|line| line.of == "whole server").unwrap();
    let wanted = 100.0 * 40_000.0 / time as f64;
    assert!((whole.bytes_per_second / wanted - 1.0).abs() < 0.05, "{whole:?} {wanted}");
    assert!(whole.is_proven && whole.evidence == EvidenceKind::Rounds);
    let full = whole.limit_in_s.unwrap();
    assert!((full * whole.bytes_per_second / 8_589_934_592.0 - 1.0).abs() < 1e-6, "{full}");
    let each = result.horizon.iter().find(|line| line.of == "worker backends").unwrap();
    assert!((each.mib_per_day * 2.0 / whole.mib_per_day - 1.0).abs() < 1e-9);
}

#[test]
fn memory_ahead_over_time_counts_every_process_of_the_server() {
    let day = long(Arm::Candidate, 24.0, |_, t| 1_000.0 * t);
    let result = judged(vec![day]);
    let of = |name: &str| result.horizon.iter().find(|line| line.of == name).unwrap();
    let (workers, whole) = (of("worker backends"), of("whole server"));
    assert!(workers.is_proven && workers.processes == 2);
    // 82.4 MiB a day each.
    assert!((workers.mib_per_day - 82.4).abs() < 4.0, "{workers:?}");
    assert!((whole.mib_per_day - 164.8).abs() < 8.0, "{whole:?}");
    assert!(workers.bytes_per_operation.is_some_and(|bytes| bytes > 10.0));
    let quiet = judged(vec![long(Arm::Candidate, 24.0, |_, _| 0.0)]);
    assert!(quiet.horizon.iter().all(|line| !line.is_proven && line.mib_per_day.abs() < 2.0));
}
