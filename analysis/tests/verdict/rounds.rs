//! The rounds: planted growth, and what only looks like growth.

use crate::made::*;
use pgsoak_analysis::result::{Owner, RunResult, Verdict};
use pgsoak_proto::job::{Arm, Tool};

fn plain(memory: impl Fn(u32, u32) -> Memory) -> RunResult {
    judged(vec![job(Tool::Plain, Arm::Candidate, 1, 20, memory)])
}

/// A repeatable wobble in [0, 1).
fn wobble(worker: u32, round: u32) -> f64 {
    // splitmix64
    let mut state =
        (u64::from(worker) << 32 | u64::from(round)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^= state >> 31;
    f64::from(u32::try_from(state >> 40).unwrap()) / f64::from(1_u32 << 24)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small made-up figures"
)]
fn bytes(figure: f64) -> u64 {
    figure as u64
}

#[test]
fn nothing_passes_and_says_what_it_would_have_found() {
    let result = plain(flat);
    assert_eq!(result.verdict, Verdict::Pass, "{}", result.sentence);
    assert_eq!(result.detects.bytes_per_operation, Some(1.0));
    assert!(result.detects.bytes_per_operation_outside_contexts.unwrap() <= 4.0);
    assert!(result.sentence.contains("no growth above 1.0 B per operation"), "{}", result.sentence);
}

#[test]
fn malloc_kept_is_outside_contexts_with_its_size() {
    let result = plain(outside(112));
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!(finding.subject, "malloc outside contexts");
    assert!((finding.bytes_per_operation.unwrap() - 112.0).abs() < 1.0);
    assert!(finding.low.unwrap() <= 112.0 && finding.high.unwrap() >= 111.9);
    assert!(result.sentence.starts_with("Fail: pg_x@2.0 in dml/steady: malloc outside contexts"));
}

#[test]
fn planted_leaks_at_two_and_four_times_the_threshold_fail_and_are_never_passed_at_one() {
    for (per_operation, fails) in [(2, true), (4, true)] {
        let result = plain(|worker, round| {
            let (rss, mut contexts) = flat(worker, round);
            contexts[1].1 += u64::from(round) * OPERATIONS * per_operation;
            (rss, contexts)
        });
        assert_eq!(result.verdict == Verdict::Fail, fails, "{per_operation}: {}", result.sentence);
    }
    for per_operation in [8, 16] {
        assert_eq!(plain(outside(per_operation)).verdict, Verdict::Fail, "{per_operation}");
    }
}

/// 144 bytes per call in TopMemoryContext: used grows smoothly, total and RssAnon in doubled blocks.
fn palloc_in_top(_worker: u32, round: u32) -> Memory {
    let used = 100_000 + u64::from(round) * OPERATIONS * 144;
    let mut total = 131_072_u64;
    while total < used {
        total *= 2;
    }
    // Half of the untouched end of the last block is not resident.
    let resident = used + (total - used) / 2;
    (
        pages(BASE + resident),
        vec![("CacheMemoryContext", 500_000, 524_288), ("TopMemoryContext", used, total)],
    )
}

#[test]
fn palloc_in_a_long_lived_context_is_named_and_block_doubling_fools_nobody() {
    let result = plain(palloc_in_top);
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!(finding.subject, "context TopMemoryContext");
    assert_eq!(finding.bytes_per_operation, Some(144.0));
    assert_eq!((finding.low, finding.high), (Some(144.0), Some(144.0)));
}

#[test]
fn a_kept_plan_is_named_by_its_largest_context_with_the_others_beside() {
    let result = plain(|worker, round| {
        let (rss, mut contexts) = flat(worker, round);
        let kept = u64::from(round) * OPERATIONS;
        contexts.push(("CachedPlanQuery", kept * 7_000, kept * 8_192));
        contexts.push(("CachedPlanSource", kept * 3_000, kept * 4_096));
        (pages(rss + kept * 12_500), contexts)
    });
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!(finding.subject, "context CachedPlanQuery");
    assert!(finding.message.contains("CachedPlanSource 3.00 kB"), "{}", finding.message);
}

#[test]
fn both_causes_at_once_are_two_findings() {
    let result = plain(|worker, round| {
        let (rss, mut contexts) = flat(worker, round);
        let done = u64::from(round) * OPERATIONS;
        contexts[0].1 += done * 200;
        contexts[0].2 += done * 200;
        (pages(rss + done * 500), contexts)
    });
    let subjects: Vec<&str> = failing(&result).iter().map(|f| f.subject.as_str()).collect();
    assert_eq!(subjects, ["malloc outside contexts", "context CacheMemoryContext"]);
}

#[test]
fn warm_up_is_no_leak() {
    let result = plain(|worker, round| {
        let (rss, contexts) = flat(worker, round);
        let warm = [0, 268, 324, 330, 330].get(round as usize).copied().unwrap_or(330);
        (rss + warm * 1024, contexts)
    });
    assert_eq!(result.verdict, Verdict::Pass, "{}", result.sentence);
}

#[test]
fn a_bounded_cache_is_a_plateau_whenever_it_fills_up() {
    for full_after in [2, 5, 8, 12] {
        let result = plain(move |worker, round| {
            let (rss, mut contexts) = flat(worker, round);
            let held = u64::from(round.min(full_after)) * OPERATIONS * 300;
            contexts[0].1 += held;
            contexts[0].2 += held;
            (pages(rss + held), contexts)
        });
        assert_ne!(result.verdict, Verdict::Fail, "full after {full_after}: {}", result.sentence);
        if full_after <= 8 {
            assert_eq!(
                result.verdict,
                Verdict::Pass,
                "full after {full_after}: {}",
                result.sentence
            );
        }
    }
}

#[test]
fn a_settling_curve_is_a_plateau_and_a_leak_behind_it_is_not() {
    let settling = |leak: f64| {
        move |worker: u32, round: u32| {
            let (rss, mut contexts) = flat(worker, round);
            let k = f64::from(round);
            let held =
                2.0e6 * (1.0 - (-k / 3.0).exp()) + leak * 1000.0 * k + 50.0 * wobble(worker, round);
            contexts[0].1 += bytes(held);
            contexts[0].2 += bytes(held);
            (pages(rss + bytes(held)), contexts)
        }
    };
    let without = judged(vec![job(Tool::Plain, Arm::Candidate, 1, 40, settling(0.0))]);
    assert_ne!(without.verdict, Verdict::Fail, "{}", without.sentence);
    let with = judged(vec![job(Tool::Plain, Arm::Candidate, 1, 40, settling(50.0))]);
    assert_eq!(with.verdict, Verdict::Fail, "{}", with.sentence);
}

#[test]
fn sawtooths_noise_and_single_jumps_never_fail() {
    for period in [3_u32, 5, 7, 10] {
        let result = plain(move |worker, round| {
            let (rss, mut contexts) = flat(worker, round);
            let held = u64::from(round % period) * 400_000;
            contexts[0].1 += held;
            contexts[0].2 += held;
            (rss + held, contexts)
        });
        assert_ne!(result.verdict, Verdict::Fail, "period {period}: {}", result.sentence);
    }
    let noise = plain(|worker, round| {
        let (rss, contexts) = flat(worker, round);
        (pages(rss + bytes(200_000.0 * wobble(worker, round))), contexts)
    });
    assert_ne!(noise.verdict, Verdict::Fail, "{}", noise.sentence);
    for at in [3, 10, 17] {
        let jump = plain(move |worker, round| {
            let (rss, mut contexts) = flat(worker, round);
            let held = if round >= at { 3_000_000 } else { 0 };
            contexts[0].1 += held;
            (rss + held, contexts)
        });
        assert_ne!(jump.verdict, Verdict::Fail, "jump at {at}: {}", jump.sentence);
    }
}

#[test]
fn healthy_noise_fails_less_than_once_in_a_hundred_runs() {
    let mut failed = 0;
    for seed in 0..300_u32 {
        let result = plain(|_, round| {
            let (rss, contexts) = flat(1, round);
            let mut walk = 0.0;
            for step in 0..round {
                walk = 0.6 * walk + 60_000.0 * (wobble(seed + 1, step) - 0.5);
            }
            (pages(bytes(8.0e6 + walk) + rss), contexts)
        });
        failed += usize::from(result.verdict == Verdict::Fail);
    }
    assert!(failed <= 3, "{failed} of 300 healthy runs failed");
}

#[test]
fn leaks_of_four_thresholds_are_found_behind_noise() {
    let mut found = 0;
    for seed in 0..100_u32 {
        let result = plain(|_, round| {
            let (rss, contexts) = flat(1, round);
            let held = 16.0 * 1000.0 * f64::from(round) + 16_000.0 * wobble(seed + 1, round);
            (pages(rss + bytes(held)), contexts)
        });
        found += usize::from(result.verdict == Verdict::Fail);
        assert_ne!(result.verdict, Verdict::Pass, "seed {seed}: {}", result.sentence);
    }
    assert!(found >= 97, "{found} of 100");
}

#[test]
fn one_leaking_worker_of_four_is_found_and_named() {
    let result = judged(vec![job(Tool::Plain, Arm::Candidate, 4, 20, |worker, round| {
        let (rss, mut contexts) = flat(worker, round);
        if worker == 3 {
            contexts[0].1 += u64::from(round) * OPERATIONS * 500;
        } else {
            // The others give back as much, so that the mean does not move.
            contexts[0].1 += 20_000_000 - u64::from(round) * OPERATIONS * 170;
        }
        (rss, contexts)
    })]);
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert!(finding.message.contains("worker 3 alone"), "{}", finding.message);
    assert_eq!(finding.bytes_per_operation, Some(500.0));
}

#[test]
fn what_vanilla_grows_by_is_taken_off() {
    let ddl = |extra: u64| {
        move |worker: u32, round: u32| {
            let (rss, mut contexts) = flat(worker, round);
            let held = u64::from(round) * OPERATIONS * (5_100 + extra);
            contexts[0].1 += held;
            contexts[0].2 += held;
            (pages(rss + held), contexts)
        }
    };
    let control = || job(Tool::Plain, Arm::Control, 1, 20, ddl(0));
    let alone = judged(vec![job(Tool::Plain, Arm::Candidate, 1, 20, ddl(0))]);
    assert_eq!(alone.verdict, Verdict::Fail);
    let same = judged(vec![job(Tool::Plain, Arm::Candidate, 1, 20, ddl(0)), control()]);
    assert_eq!(same.verdict, Verdict::Pass, "{}", same.sentence);
    let more = judged(vec![job(Tool::Plain, Arm::Candidate, 1, 20, ddl(900)), control()]);
    let [finding] = failing(&more)
        .into_iter()
        .filter(|finding| finding.arm == Arm::Candidate)
        .collect::<Vec<_>>()[..]
    else {
        panic!("{:#?}", more.findings)
    };
    assert_eq!(finding.owner, Owner::Extension);
    assert!((finding.bytes_per_operation.unwrap() - 900.0).abs() < 1.0);
}

#[test]
fn without_a_usable_control_growth_is_a_suspicion_only() {
    let mut control = job(Tool::Plain, Arm::Control, 1, 20, flat);
    control.outcome = pgsoak_proto::job::Outcome::Cancelled;
    let result = judged(vec![job(Tool::Plain, Arm::Candidate, 1, 20, outside(112)), control]);
    assert_eq!(result.verdict, Verdict::Inconclusive, "{}", result.sentence);
}

#[test]
fn reconnects_and_too_few_rounds_are_said_and_never_pass() {
    let mut reconnecting = job(Tool::Plain, Arm::Candidate, 1, 20, flat);
    for reading in &mut reconnecting.attempt.at_rest {
        reading.process += reading.round * 10;
    }
    let result = judged(vec![reconnecting]);
    assert_eq!(result.verdict, Verdict::Inconclusive);
    assert!(result.findings[0].message.contains("reconnect"), "{}", result.findings[0].message);
    let short = judged(vec![job(Tool::Plain, Arm::Candidate, 1, 11, flat)]);
    assert_eq!(short.verdict, Verdict::Inconclusive);
    assert!(short.findings[0].message.contains("11 rounds"), "{}", short.findings[0].message);
}

#[test]
fn rows_that_the_workload_allows_are_taken_off() {
    let mut allowed = job(Tool::Plain, Arm::Candidate, 1, 20, outside(200));
    allowed.workload.allow_bytes_per_row = 200.0;
    for reading in &mut allowed.attempt.at_rest {
        reading.rows = reading.operations;
    }
    assert_ne!(judged(vec![allowed]).verdict, Verdict::Fail);
}

#[test]
fn a_server_without_the_contexts_view_is_judged_by_its_pages() {
    let result = plain(|_, round| (pages(BASE + u64::from(round) * OPERATIONS * 50), Vec::new()));
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!(finding.subject, "RssAnon");
}

#[test]
fn under_a_tool_only_contexts_count() {
    let quiet = judged(vec![job(Tool::Massif, Arm::Candidate, 1, 20, outside(500))]);
    assert_eq!(quiet.verdict, Verdict::Pass, "{}", quiet.sentence);
    let loud = judged(vec![job(Tool::Massif, Arm::Candidate, 1, 20, palloc_in_top)]);
    assert_eq!(loud.verdict, Verdict::Fail);
}

/// Twenty-four rounds of five operations: what a small workload at a quarter of its scale comes to.
fn few_operations(per_round: u64) -> pgsoak_analysis::evidence::JobEvidence {
    let mut small = job(Tool::Plain, Arm::Candidate, 1, 24, |worker, round| {
        let (rss, contexts) = flat(worker, round);
        (pages(rss + u64::from(round) * per_round), contexts)
    });
    for reading in &mut small.attempt.at_rest {
        reading.operations = u64::from(reading.round) * 5;
    }
    small
}

#[test]
fn a_warm_up_of_single_pages_over_few_operations_is_no_leak_and_no_pass_either() {
    // 546 bytes per operation, as a real backend showed: 65 KB in all.
    let result = judged(vec![few_operations(2_730)]);
    assert_eq!(result.verdict, Verdict::Inconclusive, "{:#?}", result.findings);
    let said = &result.findings[0].message;
    assert!(said.contains("a warm-up of single pages looks the same"), "{said}");
    assert!(
        result.detects.bytes_per_operation_outside_contexts.is_none_or(|limit| limit > 1_000.0)
    );
    // As few operations, and more than any warm-up.
    let result = judged(vec![few_operations(60_000)]);
    assert_eq!(result.verdict, Verdict::Fail, "{:#?}", result.findings);
}
