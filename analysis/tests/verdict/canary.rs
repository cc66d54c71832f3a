//! The canary decides whether a run is valid, and nothing else.

use crate::made::*;
use pgsoak_analysis::evidence::JobEvidence;
use pgsoak_analysis::result::{RunResult, Verdict};
use pgsoak_proto::evidence::LeakKind;
use pgsoak_proto::job::{Arm, Outcome, Tool};

fn canary(name: &str, mut job: JobEvidence) -> JobEvidence {
    job.spec.workload_name = name.to_owned();
    job.workload.name = name.to_owned();
    job.workload.extension = Some("pgsoak_faults".to_owned());
    job
}

fn leak(per_operation: u64) -> JobEvidence {
    canary("fault_malloc_lost", job(Tool::Plain, Arm::Canary, 1, 20, outside(per_operation)))
}

fn plateau(per_operation: u64) -> JobEvidence {
    canary("fault_cache_bounded", job(Tool::Plain, Arm::Canary, 1, 20, outside(per_operation)))
}

fn healthy() -> JobEvidence {
    job(Tool::Plain, Arm::Candidate, 1, 20, flat)
}

fn judged_with_canary(jobs: Vec<JobEvidence>) -> RunResult {
    let mut run = run(jobs);
    run.plan.canary = true;
    pgsoak_analysis::verdict::judge(&run)
}

#[test]
fn a_found_leak_and_a_plateau_left_alone_say_pass_and_fail_nothing() {
    let result = judged_with_canary(vec![leak(112), plateau(0), healthy(), leak(112), plateau(0)]);
    assert_eq!(result.verdict, Verdict::Pass, "{}", result.sentence);
    let words: Vec<_> = result.findings.iter().filter(|f| f.arm == Arm::Canary).collect();
    assert_eq!(words.len(), 4);
    assert!(words.iter().all(|f| f.verdict == Verdict::Pass), "{words:#?}");
}

#[test]
fn a_missed_leak_a_flagged_plateau_and_a_canary_that_died_make_the_run_invalid() {
    let missed = judged_with_canary(vec![leak(0), plateau(0), healthy()]);
    assert_eq!(missed.verdict, Verdict::Invalid);
    let word = missed.findings.iter().find(|f| f.verdict == Verdict::Invalid).unwrap();
    assert!(word.message.contains("missed the leak") && word.hosts == ["a"], "{}", word.message);
    let flagged = judged_with_canary(vec![leak(112), plateau(200), healthy()]);
    assert_eq!(flagged.verdict, Verdict::Invalid, "{}", flagged.sentence);
    let mut died = leak(112);
    died.outcome = Outcome::Infrastructure;
    died.reason = "no build".into();
    let result = judged_with_canary(vec![died, plateau(0), healthy()]);
    assert_eq!(result.verdict, Verdict::Invalid);
}

#[test]
fn a_product_that_fails_fails_also_where_the_canary_is_well() {
    let leaky = job(Tool::Plain, Arm::Candidate, 1, 20, outside(500));
    let result = judged_with_canary(vec![leak(112), plateau(0), leaky]);
    assert_eq!(result.verdict, Verdict::Fail);
}

#[test]
fn an_agent_that_no_canary_tried_is_not_trusted() {
    let mut elsewhere = healthy();
    elsewhere.agent = "b".to_owned();
    let result = judged_with_canary(vec![leak(112), plateau(0), healthy(), elsewhere]);
    assert_eq!(result.verdict, Verdict::Invalid, "{}", result.sentence);
    let word = result.findings.iter().find(|f| f.verdict == Verdict::Invalid).unwrap();
    assert!(word.message.contains("No canary ran under plain on b"), "{}", word.message);
}

#[test]
fn memcheck_must_name_the_function_and_the_bytes() {
    let of = |function: &str, grown: fn(u32) -> u64| {
        let job = job(Tool::Memcheck, Arm::Canary, 1, 6, flat);
        let records = [(LeakKind::Definite, stack(function, "pgsoak_faults.so"), grown)];
        let canary = canary("fault_malloc_lost", with_leaks(job, 7, &records));
        judged_with_canary(vec![leak(112), plateau(0), canary, healthy()]).verdict
    };
    assert_eq!(of("lose_block", |check| u64::from(check) * OPERATIONS * 100), Verdict::Pass);
    assert_eq!(of("lose_block", |check| u64::from(check) * OPERATIONS * 60), Verdict::Invalid);
    assert_eq!(of("other", |check| u64::from(check) * OPERATIONS * 100), Verdict::Invalid);
}
