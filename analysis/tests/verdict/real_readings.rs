//! Readings at rest of real backends of PostgreSQL 15, one session per planted fault: 24 rounds of so many operations each.
//!
//! The file: fault, operations, RssAnon, `context=used/total;…` (contexts that never moved are summed up as `others`).

use crate::made::*;
use pgsoak_analysis::evidence::JobEvidence;
use pgsoak_analysis::result::{Finding, RunResult, Verdict};
use pgsoak_proto::evidence::{AtRest, ContextUse};
use pgsoak_proto::job::{Arm, Tool};

const READINGS: &str = include_str!("../golden/rounds/postgres_15.tsv");

fn job_of(fault: &str, arm: Arm) -> JobEvidence {
    let mut made = job(Tool::Plain, arm, 1, 24, flat);
    made.attempt.at_rest.retain(|reading| reading.session == 0);
    for line in READINGS.lines().filter(|line| line.split('\t').next() == Some(fault)) {
        let cells: Vec<&str> = line.split('\t').collect();
        let contexts = cells[3].split(';').map(|part| {
            let (name, sizes) = part.rsplit_once('=').unwrap();
            let (used, total) = sizes.split_once('/').unwrap();
            ContextUse {
                name: name.to_owned(),
                used_bytes: used.parse().unwrap(),
                total_bytes: total.parse().unwrap(),
                count: 1,
            }
        });
        let round = made.attempt.at_rest.iter().filter(|reading| reading.session == 1).count();
        made.attempt.at_rest.push(AtRest {
            session: 1,
            process: 1,
            phase: 1,
            round: u32::try_from(round).unwrap(),
            operations: cells[1].parse().unwrap(),
            rss_anon_bytes: cells[2].parse().unwrap(),
            contexts: contexts.collect(),
            ..AtRest::default()
        });
    }
    made
}

fn alone(fault: &str) -> RunResult {
    judged(vec![job_of(fault, Arm::Candidate)])
}

fn only(fault: &str) -> Finding {
    let result = alone(fault);
    let [finding] = failing(&result)[..] else { panic!("{fault}: {:#?}", result.findings) };
    finding.clone()
}

#[test]
fn planted_leaks_are_named_with_their_size() {
    for (fault, subject, bytes, within) in [
        ("malloc_kept", "malloc outside contexts", 112.0, 0.05),
        ("mmap_kept", "malloc outside contexts", 4096.0, 0.05),
        ("malloc_rare", "malloc outside contexts", 101.0, 0.05),
        // 100 bytes take a chunk of 128 with a header of 16.
        ("palloc_top", "context TopMemoryContext", 144.0, 0.001),
    ] {
        let finding = only(fault);
        assert_eq!(finding.subject, subject, "{fault}");
        let figure = finding.bytes_per_operation.unwrap();
        assert!((figure / bytes - 1.0).abs() <= within, "{fault}: {figure}");
    }
}

#[test]
fn a_kept_plan_and_a_kept_context_are_named_by_their_contexts() {
    let plan = only("spi_plan_kept");
    assert!(plan.subject.starts_with("context CachedPlan"), "{}", plan.subject);
    let context = only("context_kept");
    assert!(context.subject.starts_with("context "), "{}", context.subject);
}

#[test]
fn what_is_no_leak_never_fails_and_mostly_passes() {
    for fault in ["vanilla", "nothing", "cache_bounded", "sawtooth", "fragment", "once"] {
        let result = alone(fault);
        assert_eq!(result.verdict, Verdict::Pass, "{fault}: {}", result.sentence);
    }
}

#[test]
fn temporary_tables_of_vanilla_grow_and_are_taken_off_by_a_control() {
    let result =
        judged(vec![job_of("vanilla_temp", Arm::Candidate), job_of("vanilla_temp", Arm::Control)]);
    assert_ne!(result.verdict, Verdict::Fail, "{}", result.sentence);
}

#[test]
fn a_control_changes_nothing_about_a_leak() {
    let result =
        judged(vec![job_of("malloc_kept", Arm::Candidate), job_of("vanilla", Arm::Control)]);
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!(finding.subject, "malloc outside contexts");
}
