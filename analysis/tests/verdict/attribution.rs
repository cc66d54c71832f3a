//! The attribution ledger on planted waste: each kind ends in its own part, and what was not measured is unknown. Captures and proof of life.

use crate::made::*;
use pgsoak_analysis::evidence::JobEvidence;
use pgsoak_analysis::report;
use pgsoak_analysis::result::{Attribution, EvidenceKind, Shares, Verdict};
use pgsoak_proto::evidence::{
    AllocatorUse, Capture, CaptureCause, ContextUse, ProofOfLife, ToolCoverage,
};
use pgsoak_proto::job::{Arm, Outcome, Tool};

/// Per operation: RssAnon, contexts, and of malloc what is in use and what is free.
fn growing(rss: u64, contexts: u64, in_use: u64, free: u64) -> JobEvidence {
    let mut made = job(Tool::Plain, Arm::Candidate, 2, 24, move |_, round| {
        let done = u64::from(round) * OPERATIONS;
        let top = 131_072 + done * contexts;
        (pages(BASE + done * rss), vec![("TopMemoryContext", top - 31_072, top)])
    });
    for reading in &mut made.attempt.at_rest {
        reading.allocator = Some(AllocatorUse {
            in_use_bytes: 2_000_000 + reading.operations * in_use,
            free_bytes: 130_000 + reading.operations * free,
            took_us: 400_000,
        });
    }
    made
}

/// Growth of the first ledger, per operation.
fn per_operation(ledger: &Attribution) -> Shares {
    let growth = ledger.first.growth_to(&ledger.last);
    let each = |bytes: f64| (bytes / ledger.operations as f64).round();
    Shares {
        rss_anon_bytes: each(growth.rss_anon_bytes),
        contexts_bytes: growth.contexts_bytes.map(each),
        malloc_outside_contexts_bytes: growth.malloc_outside_contexts_bytes.map(each),
        allocator_slack_bytes: growth.allocator_slack_bytes.map(each),
        unexplained_bytes: growth.unexplained_bytes.map(each),
    }
}

fn shares(parts: [f64; 5]) -> Shares {
    let [rss, contexts, outside, slack, unexplained] = parts;
    Shares {
        rss_anon_bytes: rss,
        contexts_bytes: Some(contexts),
        malloc_outside_contexts_bytes: Some(outside),
        allocator_slack_bytes: Some(slack),
        unexplained_bytes: Some(unexplained),
    }
}

#[test]
fn each_kind_of_waste_ends_in_its_own_part() {
    for (name, made, parts) in [
        ("malloc kept", growing(112, 0, 112, 0), [112.0, 0.0, 112.0, 0.0, 0.0]),
        ("palloc", growing(136, 136, 136, 0), [136.0, 136.0, 0.0, 0.0, 0.0]),
        ("mmap", growing(4096, 0, 0, 0), [4096.0, 0.0, 0.0, 0.0, 4096.0]),
        ("fragmentation", growing(300, 0, 0, 300), [300.0, 0.0, 0.0, 300.0, 0.0]),
    ] {
        let result = judged(vec![made]);
        assert_eq!(result.attributions.len(), 2, "{name}: one a session");
        for ledger in &result.attributions {
            assert_eq!(per_operation(ledger), shares(parts), "{name}");
            assert_eq!((ledger.readings, ledger.readings_with_books), (25, 25));
        }
        let table = report::attributions(&result);
        assert_eq!(table.rows.len(), 2, "{name}");
        assert!(!table.rows.iter().flatten().any(|cell| cell == "unknown"), "{name}");
    }
}

#[test]
fn growth_that_no_book_holds_is_called_so_and_says_where_to_look() {
    let result = judged(vec![growing(4096, 0, 0, 0)]);
    let [found] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!(found.subject, "outside malloc");
    assert!(found.message.contains("look for mmap"), "{}", found.message);
    let result = judged(vec![growing(112, 0, 112, 0)]);
    let [found] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!(found.subject, "malloc outside contexts");
    assert!(found.message.contains("malloc outside them 112.0 B"), "{}", found.message);
}

#[test]
fn what_was_not_asked_is_unknown_and_in_no_other_part() {
    let mut made = growing(112, 0, 112, 0);
    made.attempt.at_rest.iter_mut().for_each(|reading| reading.allocator = None);
    let result = judged(vec![made]);
    let ledger = &result.attributions[0];
    assert_eq!(ledger.readings_with_books, 0);
    assert_eq!(ledger.last.contexts_bytes, Some(131_072.0));
    assert_eq!(ledger.last.malloc_outside_contexts_bytes, None);
    assert_eq!((ledger.last.allocator_slack_bytes, ledger.last.unexplained_bytes), (None, None));
    let text = report::to_markdown(&result);
    assert!(text.contains("unknown") && text.contains("needs gdb"), "{text}");
    // The name of what grew does not depend on the books.
    assert_eq!(failing(&result)[0].subject, "malloc outside contexts");
}

#[test]
fn the_page_stacks_the_parts() {
    let evidence = run(vec![growing(112, 16, 128, 0)]);
    let result = pgsoak_analysis::verdict::judge(&evidence);
    let page = report::to_html(&result, Some(&evidence));
    for part in ["area stack-malloc", "area stack-slack", "area stack-unknown", "area stack-0"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(page.contains("Where the memory is, by operations"));
    assert!(page.contains("What the tools of this run cannot see"));
}

fn capture(process: u32, cause: CaptureCause, used: u64, rss: u64) -> Capture {
    Capture {
        process,
        session: Some(process),
        cause,
        reason: "grew by 600 kB in 20 s".to_owned(),
        operations: used / 100,
        rss_anon_bytes: rss,
        contexts: vec![
            ContextUse {
                name: "CachedPlan".to_owned(),
                used_bytes: used,
                total_bytes: used,
                count: 1,
            },
            ContextUse {
                name: "TopMemoryContext".to_owned(),
                used_bytes: 9,
                total_bytes: 9,
                count: 1,
            },
        ],
        statements: vec!["SELECT leak()".to_owned()],
        missing: String::new(),
        took_us: 1,
    }
}

#[test]
fn a_suspects_difference_stands_in_its_finding_and_in_the_report() {
    let mut made = growing(112, 0, 112, 0);
    let at = |second: u64| second * 1_000_000;
    made.attempt.captures = vec![
        (at(3), capture(1, CaptureCause::Periodic, 50_000, BASE)),
        (at(8), capture(1, CaptureCause::Suspect, 100_000, BASE + 600_000)),
        (at(20), capture(1, CaptureCause::Later, 400_000, BASE + 2_000_000)),
    ];
    let result = judged(vec![made]);
    let [of] = &result.captures[..] else { panic!("{:#?}", result.captures) };
    assert_eq!((of.who.as_str(), of.pid, of.phase.as_str()), ("worker 1", 101, "steady"));
    assert_eq!((of.first_s, of.last_s, of.operations), (8.0, 20.0, 3_000));
    assert_eq!(of.contexts.len(), 1, "what did not change is left out");
    let said = &failing(&result)[0].message;
    assert!(
        said.contains("Captured while it ran") && said.contains("CachedPlan +300 kB"),
        "{said}"
    );
    assert!(said.contains("SELECT leak()"), "{said}");
    assert!(report::to_markdown(&result).contains("Captured while it ran"));
}

#[test]
fn the_last_capture_is_linked_where_the_server_died() {
    let mut made = growing(112, 0, 112, 0);
    made.outcome = Outcome::Failed;
    made.reason = "the server ended: client backend (PID 102) terminated by signal 9".to_owned();
    let ended = made.attempt.ended.as_mut().unwrap();
    ended.outcome = Outcome::Failed;
    ended.reason.clone_from(&made.reason);
    made.attempt.captures = vec![
        (5_000_000, capture(2, CaptureCause::Periodic, 9_000_000, BASE)),
        (9_000_000, capture(1, CaptureCause::Periodic, 1_000, BASE)),
    ];
    let result = judged(vec![made]);
    let [of] = &result.captures[..] else { panic!("{:#?}", result.captures) };
    // The one that died, though another was captured later.
    assert_eq!((of.pid, of.before_end_s), (102, Some(21.0)));
    let all = failing(&result);
    let said = &all.iter().find(|f| f.evidence == EvidenceKind::Ledger).unwrap().message;
    assert!(said.contains("The last capture before the end, 21 s earlier: worker 2"), "{said}");
    assert!(said.contains("CachedPlan 9.00 MB"), "{said}");
}

#[test]
fn without_a_sign_of_life_nothing_that_was_not_found_counts() {
    let coverage = |seen: u64, shown| ToolCoverage {
        processes_expected: 4,
        processes_seen: 4,
        backend_us: 1_000,
        backend_us_seen: seen,
        proof: Some(ProofOfLife { sessions: 3, shown }),
    };
    let verdict = |seen, shown, floor| {
        let mut made = job(Tool::Memcheck, Arm::Candidate, 1, 20, flat);
        made = with_leaks(made, 20, &[]);
        made.attempt.coverage = Some(coverage(seen, shown));
        let mut evidence = run(vec![made]);
        evidence.plan.floor.coverage = floor;
        pgsoak_analysis::verdict::judge(&evidence).verdict
    };
    assert_eq!(verdict(1_000, 3, None), Verdict::Pass);
    assert_eq!(verdict(1_000, 2, None), Verdict::Inconclusive);
    // The plan's floor holds for both.
    assert_eq!(verdict(960, 3, None), Verdict::Inconclusive);
    assert_eq!(verdict(960, 3, Some(0.95)), Verdict::Pass);
    assert_eq!(verdict(960, 2, Some(0.6)), Verdict::Pass);
    assert_eq!(verdict(1_000, 3, Some(1.0)), Verdict::Pass);
}
