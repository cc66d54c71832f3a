//! memcheck: what is lost, what is kept, whose it is.

use crate::made::*;
use pgsoak_analysis::result::{EvidenceKind, Owner, Verdict};
use pgsoak_proto::evidence::{LeakKind, MemcheckError, MemcheckErrors};
use pgsoak_proto::job::{Arm, Tool};

fn memcheck(records: &[Held]) -> pgsoak_analysis::evidence::JobEvidence {
    with_leaks(job(Tool::Memcheck, Arm::Candidate, 1, 6, flat), 7, records)
}

/// 100 bytes per call and some that starting up lost through the same stack.
fn every_call(check: u32) -> u64 {
    300 + u64::from(check) * OPERATIONS * 100
}

fn once(_check: u32) -> u64 {
    1_500
}

/// Filled and emptied.
fn sawtooth(check: u32) -> u64 {
    u64::from(check % 3) * 100_000 + 100
}

#[test]
fn dropped_malloc_fails_with_its_stack_and_exactly_100_bytes() {
    let result = judged(vec![memcheck(&[
        (LeakKind::Definite, stack("hx_lost", "pg_x.so"), every_call),
        (LeakKind::Definite, stack("save_ps_display_args", "postgres"), once),
    ])]);
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!(finding.evidence, EvidenceKind::LeakRecord);
    assert_eq!(finding.bytes_per_operation, Some(100.0));
    assert_eq!((finding.subject.as_str(), finding.owner), ("hx_lost", Owner::Extension));
    assert_eq!(finding.stack[1], "hx_lost (pg_x.so)");
    assert!(finding.message.contains("hx.c:17"), "{}", finding.message);
}

#[test]
fn losses_of_postgres_itself_and_losses_that_do_not_grow_are_listed() {
    let result = judged(vec![memcheck(&[
        (LeakKind::Definite, stack("internal", "postgres"), every_call),
        (LeakKind::Definite, stack("hx_init", "pg_x.so"), once),
        (LeakKind::Reachable, stack("hx_cache", "pg_x.so"), sawtooth),
    ])]);
    assert_eq!(result.verdict, Verdict::Pass, "{}", result.sentence);
    assert!(result.findings.iter().any(|f| f.subject == "internal" && f.owner == Owner::Postgres));
}

#[test]
fn possibly_lost_is_inconclusive_and_fails_when_the_rounds_grow_too() {
    let job_ = || memcheck(&[(LeakKind::Possible, stack("hx_rust", "pg_x.so"), every_call)]);
    assert_eq!(judged(vec![job_()]).verdict, Verdict::Inconclusive);
    let both = judged(vec![job_(), job(Tool::Plain, Arm::Candidate, 1, 20, outside(112))]);
    let [finding] = failing(&both)[..] else { panic!("{:#?}", both.findings) };
    assert_eq!(
        (finding.evidence, &finding.agreeing[..]),
        (EvidenceKind::LeakRecord, &[EvidenceKind::Rounds][..])
    );
}

#[test]
fn kept_memory_fails_only_with_rounds_that_grow_and_both_become_one_finding() {
    let job_ = || memcheck(&[(LeakKind::Reachable, stack("hx_keep", "pg_x.so"), every_call)]);
    assert_eq!(judged(vec![job_()]).verdict, Verdict::Pass);
    let flat_rounds = judged(vec![job_(), job(Tool::Plain, Arm::Candidate, 1, 20, flat)]);
    assert_eq!(flat_rounds.verdict, Verdict::Pass, "{}", flat_rounds.sentence);
    let both = judged(vec![job_(), job(Tool::Plain, Arm::Candidate, 1, 20, outside(112))]);
    let [finding] = failing(&both)[..] else { panic!("{:#?}", both.findings) };
    assert_eq!(finding.subject, "malloc outside contexts");
    assert_eq!((finding.owner, finding.bytes_per_operation), (Owner::Extension, Some(100.0)));
    assert_eq!(finding.agreeing, [EvidenceKind::LeakRecord]);
    assert_eq!(finding.stack[1], "hx_keep (pg_x.so)");
}

/// Blocks of contexts that the extension asked for, as plans that are kept hold them: of many sizes, at many places of the server.
#[test]
fn all_that_is_kept_in_blocks_of_contexts_is_one_finding() {
    let in_context = |function: &str, through: &str| {
        let mut frames = stack(function, "pg_x.so");
        frames.insert(1, stack("AllocSetAllocFromNewBlock", "postgres")[1].clone());
        frames.insert(2, stack(through, "postgres")[1].clone());
        frames
    };
    let twice = |check: u32| 2 * every_call(check);
    let records = [
        (
            LeakKind::Reachable,
            in_context("hx_plan", "copyObjectImpl"),
            every_call as fn(u32) -> u64,
        ),
        (LeakKind::Reachable, in_context("hx_plan", "_copyQuery"), twice),
        (LeakKind::Reachable, in_context("hx_other", "new_list"), every_call),
    ];
    let grown = |_worker: u32, round: u32| {
        let kept = u64::from(round) * OPERATIONS * 400;
        (pages(BASE + kept), vec![("CachedPlanQuery", 100_000 + kept, 100_000 + kept)])
    };
    let result = judged(vec![memcheck(&records), job(Tool::Plain, Arm::Candidate, 1, 20, grown)]);
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!(
        (finding.subject.as_str(), finding.owner),
        ("context CachedPlanQuery", Owner::Extension)
    );
    let told = "2 more stacks of the extension keep blocks of contexts, 200.0 B per operation: hx_other 100.0 B, hx_plan 100.0 B.";
    assert!(finding.message.contains(told), "{}", finding.message);
    assert!(finding.message.contains("hx_plan (hx.c:17) keeps 200.0 B"), "{}", finding.message);
}

#[test]
fn growth_that_malloc_does_not_see_is_mmap() {
    let quiet = memcheck(&[(LeakKind::Definite, stack("x", "postgres"), once)]);
    let result = judged(vec![quiet, job(Tool::Plain, Arm::Candidate, 1, 20, outside(4096))]);
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!(finding.subject, "outside malloc");
    assert!(finding.message.contains("mmap"), "{}", finding.message);
}

#[test]
fn an_invalid_read_in_the_extension_fails_and_one_in_postgres_does_not() {
    let with = |module: &str| {
        let mut made = memcheck(&[]);
        made.attempt.memcheck_errors.push(MemcheckErrors {
            process: 1,
            errors: vec![MemcheckError {
                what: "Invalid read of size 8".to_owned(),
                count: 3,
                stack: stack("hx_read", module),
            }],
        });
        judged(vec![made])
    };
    let result = with("pg_x.so");
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!(finding.subject, "Invalid read of size 8");
    assert!(finding.message.contains("3 times"), "{}", finding.message);
    assert_eq!(with("postgres").verdict, Verdict::Pass);
}

#[test]
fn padding_that_the_server_writes_below_the_extension_is_not_its_error() {
    let syscall = |function: &str, module: &str| {
        let mut made = memcheck(&[]);
        let mut frames = stack(function, module);
        frames.push(stack("hx_trigger", "pg_x.so")[1].clone());
        made.attempt.memcheck_errors.push(MemcheckErrors {
            process: 1,
            errors: vec![MemcheckError {
                what: "Syscall param pwrite64(buf) points to uninitialised byte(s)".to_owned(),
                count: 1,
                stack: frames,
            }],
        });
        judged(vec![made]).verdict
    };
    assert_eq!(syscall("XLogWrite", "postgres"), Verdict::Pass);
    assert_eq!(syscall("hx_write", "pg_x.so"), Verdict::Fail);
}

#[test]
fn too_few_checks_and_too_little_coverage_never_pass() {
    let few = with_leaks(job(Tool::Memcheck, Arm::Candidate, 1, 6, flat), 2, &[]);
    assert_eq!(judged(vec![few]).verdict, Verdict::Inconclusive);
    let mut blind = memcheck(&[]);
    blind.attempt.coverage.as_mut().unwrap().backend_us_seen = 900;
    assert_eq!(judged(vec![blind]).verdict, Verdict::Inconclusive);
    let mut unknown = memcheck(&[]);
    unknown.attempt.coverage = None;
    assert_eq!(judged(vec![unknown]).verdict, Verdict::Inconclusive);
    assert_eq!(judged(vec![memcheck(&[])]).verdict, Verdict::Pass);
}

/// Three checks of a real backend of PostgreSQL 15 under valgrind 3.19, 50 calls of `hx_lost` and `hx_keep` (100 bytes each) between them.
#[test]
fn real_checks_of_a_real_backend_give_exactly_100_bytes_per_operation() {
    use pgsoak_analysis::valgrind::{AddressMap, parse_leak_check, parse_log};
    use pgsoak_proto::evidence::LeakCheck;
    let maps = AddressMap::from_maps(include_str!("../golden/valgrind/postgres/maps.txt"));
    let checks = [
        include_str!("../golden/valgrind/postgres/leak_check_1.txt"),
        include_str!("../golden/valgrind/postgres/leak_check_2.txt"),
        include_str!("../golden/valgrind/postgres/leak_check_3.txt"),
    ];
    let mut made = job(Tool::Memcheck, Arm::Candidate, 1, 6, flat);
    made.workload.extension = Some("hx".to_owned());
    for (text, round) in checks.iter().zip(1_u32..) {
        let answer = parse_leak_check(text, &maps);
        assert!(answer.complete);
        made.attempt.leak_checks.push(LeakCheck {
            session: 1,
            process: 1,
            phase: 1,
            round,
            operations: u64::from(round) * 50,
            records: answer.records,
            at_exit: false,
            took_us: 1,
        });
    }
    let log = parse_log(include_str!("../golden/valgrind/postgres/process.log"), &maps);
    assert!(log.complete);
    let result = judged(vec![made]);
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!((finding.subject.as_str(), finding.owner), ("hx_lost", Owner::Extension));
    assert_eq!(finding.bytes_per_operation, Some(100.0));
    assert_eq!(finding.stack[1], "hx_lost (hx.so)");
    let kept = result.findings.iter().find(|finding| finding.subject == "hx_keep").unwrap();
    assert_eq!((kept.verdict, kept.bytes_per_operation), (Verdict::Pass, Some(100.0)));
}
