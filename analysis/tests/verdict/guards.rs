//! Budgets, checks, the ledger, the floor: fails closed.

use crate::made::*;
use pgsoak_analysis::evidence::JobEvidence;
use pgsoak_analysis::result::{EvidenceKind, Verdict};
use pgsoak_proto::evidence::{CheckResult, Gap};
use pgsoak_proto::job::{Arm, Outcome, Tool};
use pgsoak_workloads::workload::{Budget, Residual};

fn quiet() -> JobEvidence {
    job(Tool::Plain, Arm::Candidate, 1, 20, flat)
}

fn verdict_of(change: impl FnOnce(&mut JobEvidence)) -> (Verdict, String) {
    let mut made = quiet();
    change(&mut made);
    let result = judged(vec![made]);
    (result.verdict, result.sentence)
}

#[test]
fn a_check_that_does_not_hold_makes_the_run_invalid() {
    let (verdict, sentence) = verdict_of(|job| {
        job.attempt.checks.push(CheckResult {
            phase: 1,
            round: 4,
            holds: false,
            sql: "SELECT count(*) = 3".to_owned(),
            answer: "f".to_owned(),
        });
    });
    assert_eq!(verdict, Verdict::Invalid, "{sentence}");
    assert!(sentence.contains("check"), "{sentence}");
}

#[test]
fn a_failed_statement_fails_with_statement_state_and_log() {
    let mut made = quiet();
    made.outcome = Outcome::Failed;
    made.reason = "ERROR: relation \"tv\" does not exist".to_owned();
    let ended = made.attempt.ended.as_mut().unwrap();
    ended.statement = "INSERT INTO tv VALUES (1)".to_owned();
    ended.sqlstate = "42P01".to_owned();
    ended.server_log_tail = "LOG: a\nERROR: b\n".to_owned();
    let result = judged(vec![made]);
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    for word in ["42P01", "INSERT INTO tv", "does not exist", "ERROR: b"] {
        assert!(finding.message.contains(word), "{word}: {}", finding.message);
    }
    assert_eq!(result.jobs[0].server_log_tail, "LOG: a\nERROR: b\n");
}

#[test]
fn infrastructure_is_invalid_unless_another_job_failed() {
    let mut broken = job(Tool::Memcheck, Arm::Candidate, 1, 6, flat);
    broken.outcome = Outcome::Infrastructure;
    broken.reason = "the disk is full".to_owned();
    let alone = judged(vec![quiet(), broken.clone()]);
    assert_eq!(alone.verdict, Verdict::Invalid, "{}", alone.sentence);
    let failed = judged(vec![job(Tool::Plain, Arm::Candidate, 1, 20, outside(112)), broken]);
    assert_eq!(failed.verdict, Verdict::Fail);
}

#[test]
fn cancelled_and_timed_out_never_pass() {
    for outcome in [Outcome::Cancelled, Outcome::TimedOut] {
        let (verdict, sentence) = verdict_of(|job| job.outcome = outcome);
        assert_eq!(verdict, Verdict::Inconclusive, "{sentence}");
    }
}

#[test]
fn holes_in_the_evidence_never_pass() {
    let invalid: [fn(&mut JobEvidence); 6] = [
        |job| job.attempt.started = None,
        |job| job.attempt.ended = None,
        |job| job.attempt.missing_frames = 1,
        |job| job.attempt.ended.as_mut().unwrap().ticks += 5,
        |job| job.attempt.phases.truncate(1),
        |job| job.attempt.phases[1].ended = None,
    ];
    for change in invalid {
        let (verdict, sentence) = verdict_of(change);
        assert_eq!(verdict, Verdict::Invalid, "{sentence}");
    }
    let (verdict, sentence) = verdict_of(|job| {
        let stored = u64::try_from(job.attempt.ticks_elapsed_us.len()).unwrap();
        job.attempt.gaps.push(Gap { first_tick: stored, ticks: 10, cause: "suspended".to_owned() });
        job.attempt.ended.as_mut().unwrap().ticks += 10;
    });
    assert_eq!(verdict, Verdict::Inconclusive, "{sentence}");
    assert_eq!(judged(Vec::new()).verdict, Verdict::Inconclusive);
}

#[test]
fn samples_that_the_spool_left_out_stand_in_their_gap() {
    // Taken, and then not stored for want of space: three ticks of 23, with the gap that says so.
    let left_out = |gap: u64| {
        verdict_of(move |job| {
            let attempt = &mut job.attempt;
            let kept = attempt.ticks_elapsed_us.len() - 3;
            attempt.ticks_elapsed_us.truncate(kept);
            attempt.operations.truncate(kept);
            let first_tick = u64::try_from(kept).unwrap();
            let cause = "spool full".to_owned();
            attempt.gaps.push(Gap { first_tick, ticks: gap, cause });
        })
    };
    assert_eq!(left_out(3).0, Verdict::Pass, "{}", left_out(3).1);
    let (verdict, sentence) = left_out(1);
    assert_eq!(verdict, Verdict::Invalid, "{sentence}");
}

#[test]
fn a_loop_shorter_than_asked_is_inconclusive() {
    let (verdict, sentence) =
        verdict_of(|job| job.spec.loop_for = Some(std::time::Duration::from_secs(3600)));
    assert_eq!(verdict, Verdict::Inconclusive, "{sentence}");
}

#[test]
fn budgets_hold_or_are_over_with_their_figures() {
    let with = |budget: Budget, phase: usize| {
        let mut made = job(Tool::Plain, Arm::Candidate, 1, 20, outside(112));
        made.workload.phases[phase].budget = budget;
        let mut control = job(Tool::Plain, Arm::Control, 1, 20, outside(3));
        control.workload = made.workload.clone();
        judged(vec![made, control]).budgets
    };
    let growth = |growth| Budget { growth: Some(growth), ..Budget::default() };
    let [line] = &with(growth(5_000_000), 1)[..] else { panic!() };
    assert_eq!((line.verdict, line.measured_bytes), (Verdict::Pass, Some(2_240_512.0)));
    assert!(line.control_bytes.is_some_and(|bytes| bytes < 100_000.0));
    assert_eq!(with(growth(1_000_000), 1)[0].verdict, Verdict::Fail);
    assert_eq!(with(growth(0), 0)[0].verdict, Verdict::Pass);
    let peak = |peak| Budget { peak: Some(peak), ..Budget::default() };
    assert_eq!(with(peak(3_000_000), 1)[0].verdict, Verdict::Pass);
    assert_eq!(with(peak(2_000_000), 1)[0].verdict, Verdict::Fail);
    let each = |bytes| Budget { growth_per_operation: Some(bytes), ..Budget::default() };
    assert_eq!(with(each(113.0), 1)[0].verdict, Verdict::Pass);
    assert_eq!(with(each(100.0), 1)[0].verdict, Verdict::Fail);
    let left = Budget {
        residual: Some(Residual { bytes: 10, since: "create".to_owned() }),
        ..Budget::default()
    };
    let lines = with(left, 0);
    assert_eq!((lines[0].what.as_str(), lines[0].verdict), ("residual", Verdict::Pass));
    assert_eq!(lines[0].held_by_contexts_bytes, Some(0.0));
}

#[test]
fn a_peak_that_no_sample_saw_is_not_within() {
    let mut made = quiet();
    made.workload.phases[0].budget.peak = Some(1 << 40);
    for series in made.attempt.processes.values_mut() {
        series.elapsed_us.clear();
        series.rss_anon_bytes.clear();
    }
    let result = judged(vec![made]);
    assert_eq!(result.budgets[0].verdict, Verdict::Inconclusive);
    assert_eq!(result.verdict, Verdict::Inconclusive);
}

#[test]
fn other_arms_are_listed_and_do_not_decide() {
    for arm in [Arm::Baseline, Arm::Control] {
        let result = judged(vec![quiet(), job(Tool::Plain, arm, 1, 20, outside(112))]);
        assert_eq!(result.verdict, Verdict::Pass, "{}", result.sentence);
        assert!(result.findings.iter().any(|f| f.arm == arm && f.verdict == Verdict::Fail));
    }
    let mut baseline = job(Tool::Plain, Arm::Baseline, 1, 20, flat);
    baseline.outcome = Outcome::Infrastructure;
    assert_eq!(judged(vec![quiet(), baseline]).verdict, Verdict::Invalid);
}

#[test]
fn a_floor_that_the_run_could_not_reach_is_inconclusive() {
    let mut evidence = run(vec![quiet()]);
    evidence.plan.floor.bytes_per_operation = Some(1.0);
    assert_eq!(pgsoak_analysis::verdict::judge(&evidence).verdict, Verdict::Pass);
    evidence.plan.floor.bytes_per_operation = Some(0.5);
    let result = pgsoak_analysis::verdict::judge(&evidence);
    assert_eq!(result.verdict, Verdict::Inconclusive);
    assert_eq!(
        (result.findings[0].evidence, result.findings[0].subject.as_str()),
        (EvidenceKind::Ledger, "floor")
    );
}
