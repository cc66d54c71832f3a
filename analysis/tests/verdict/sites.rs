//! heaptrack and massif: what grows by site between marks, and who holds most at the peak.

use crate::made::*;
use pgsoak_analysis::evidence::JobEvidence;
use pgsoak_analysis::result::{EvidenceKind, Owner, Verdict};
use pgsoak_proto::evidence::{AllocationSite, LeakKind, SiteDigest, SiteMark, StackFrame};
use pgsoak_proto::job::{Arm, Tool};

const MARKS: u32 = 10;

/// Bytes live at each mark.
type Live = fn(u32) -> u64;

fn with_sites(mut job: JobEvidence, sites: &[(Vec<StackFrame>, Live)]) -> JobEvidence {
    let sites: Vec<AllocationSite> = sites
        .iter()
        .map(|(stack, live)| AllocationSite {
            stack: stack.clone(),
            allocations: 10,
            peak_bytes: live(MARKS - 1),
            marked_bytes: (0..MARKS).map(live).collect(),
            ..AllocationSite::default()
        })
        .collect();
    let marks = (0..MARKS).map(|round| SiteMark {
        phase: 1,
        round,
        operations: u64::from(round) * OPERATIONS,
        live_bytes: sites.iter().map(|site| site.marked_bytes[round as usize]).sum(),
    });
    job.attempt.site_digests.push(SiteDigest {
        process: 1,
        session: Some(1),
        tool: job.spec.tool,
        allocations: 100,
        temporary: 3,
        peak_bytes: sites.iter().map(|site| site.peak_bytes).sum(),
        peak_at: 10,
        end_bytes: 0,
        duration: 20,
        time_unit: "ms".into(),
        truncated: false,
        sites_in_all: 100,
        marks: marks.collect(),
        sites,
        series: Vec::new(),
    });
    job
}

fn heaptrack(sites: &[(Vec<StackFrame>, Live)]) -> JobEvidence {
    with_sites(job(Tool::Heaptrack, Arm::Candidate, 1, 20, flat), sites)
}

/// As heaptrack tells it: without its own frames.
fn site(function: &str, module: &str) -> Vec<StackFrame> {
    stack(function, module).split_off(1)
}

fn block_of(function: &str, module: &str) -> Vec<StackFrame> {
    let mut stack = vec![StackFrame {
        function: "AllocSetAlloc".into(),
        module: "postgres".into(),
        ..StackFrame::default()
    }];
    stack.extend(site(function, module));
    stack
}

fn every_call(mark: u32) -> u64 {
    5_000 + u64::from(mark) * OPERATIONS * 100
}

fn sawtooth(mark: u32) -> u64 {
    u64::from(mark % 4) * 300_000 + u64::from(mark) * 3_000
}

fn plateau(mark: u32) -> u64 {
    u64::from(mark.min(4)) * 400_000
}

fn one_step(mark: u32) -> u64 {
    if mark < 7 { 1 << 20 } else { 2 << 20 }
}

fn level(_mark: u32) -> u64 {
    3 << 20
}

#[test]
fn a_site_that_grows_with_the_operations_fails_with_its_function_and_exact_bytes() {
    let result = judged(vec![heaptrack(&[
        (site("hx_keep", "pg_x.so"), every_call),
        (site("save_ps_display_args", "postgres"), every_call),
        (site("hx_init", "pg_x.so"), level),
    ])]);
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!((finding.evidence, finding.owner), (EvidenceKind::Site, Owner::Extension));
    assert_eq!(finding.subject, "hx_keep");
    assert_eq!(finding.bytes_per_operation, Some(100.0));
    assert_eq!((finding.low, finding.high), (Some(100.0), Some(100.0)));
    assert_eq!(finding.stack[0], "hx_keep (pg_x.so)");
    assert!(finding.message.contains("hx.c:17"), "{}", finding.message);
}

#[test]
fn steps_teeth_plateaus_and_postgres_itself_do_not_fail() {
    for live in [sawtooth as Live, plateau, one_step, level] {
        let result = judged(vec![heaptrack(&[(site("hx_cache", "pg_x.so"), live)])]);
        assert_eq!(result.verdict, Verdict::Pass, "{}", result.sentence);
        assert!(result.findings.iter().any(|found| found.evidence == EvidenceKind::Site));
    }
    let result = judged(vec![heaptrack(&[(site("internal", "postgres"), every_call)])]);
    assert_eq!(result.verdict, Verdict::Pass, "{}", result.sentence);
}

#[test]
fn rounds_and_sites_that_agree_are_one_finding() {
    let result = judged(vec![
        job(Tool::Plain, Arm::Candidate, 1, 20, outside(112)),
        heaptrack(&[(site("hx_keep", "pg_x.so"), every_call)]),
    ]);
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!(finding.evidence, EvidenceKind::Rounds);
    assert_eq!(finding.agreeing, [EvidenceKind::Site]);
    assert_eq!(finding.bytes_per_operation, Some(100.0));
    assert_eq!(finding.stack[0], "hx_keep (pg_x.so)");
    assert_eq!(finding.owner, Owner::Extension);
}

#[test]
fn a_leak_record_of_the_same_function_takes_the_site_in() {
    let lost: Held = (LeakKind::Definite, stack("hx_lost", "pg_x.so"), every_call);
    let memcheck = with_leaks(job(Tool::Memcheck, Arm::Candidate, 1, 6, flat), 7, &[lost]);
    let result = judged(vec![memcheck, heaptrack(&[(site("hx_lost", "pg_x.so"), every_call)])]);
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!(finding.evidence, EvidenceKind::LeakRecord);
    assert_eq!(finding.agreeing, [EvidenceKind::Site]);
}

#[test]
fn blocks_of_contexts_name_the_stack_of_a_context_that_grows() {
    let block = heaptrack(&[(block_of("hx_remember", "pg_x.so"), every_call)]);
    let alone = judged(vec![block.clone()]);
    assert_eq!(alone.verdict, Verdict::Pass, "{}", alone.sentence);
    let grows = |_: u32, round: u32| {
        let more = u64::from(round) * OPERATIONS * 104;
        let top = ("TopMemoryContext", 100_000 + more, 131_072 + more);
        (pages(BASE + more), vec![("CacheMemoryContext", 500_000, 524_288), top])
    };
    let both = judged(vec![job(Tool::Plain, Arm::Candidate, 1, 20, grows), block]);
    let [finding] = failing(&both)[..] else { panic!("{:#?}", both.findings) };
    assert_eq!(finding.subject, "context TopMemoryContext");
    assert_eq!(finding.agreeing, [EvidenceKind::Site]);
    assert!(finding.stack.contains(&"hx_remember (pg_x.so)".to_owned()), "{finding:#?}");
}

#[test]
fn growth_that_no_site_shows_is_outside_malloc() {
    let result = judged(vec![
        job(Tool::Plain, Arm::Candidate, 1, 20, outside(4096)),
        heaptrack(&[(site("hx_init", "pg_x.so"), level)]),
    ]);
    let [finding] = failing(&result)[..] else { panic!("{:#?}", result.findings) };
    assert_eq!(finding.subject, "outside malloc");
    assert!(finding.message.contains("mmap"), "{}", finding.message);
}

#[test]
fn what_heaptrack_did_not_see_is_not_judged() {
    let mut unseen = heaptrack(&[(site("hx_keep", "pg_x.so"), every_call)]);
    unseen.attempt.coverage.as_mut().unwrap().backend_us_seen = 980;
    let result = judged(vec![unseen]);
    assert_eq!(result.verdict, Verdict::Inconclusive, "{}", result.sentence);
    let mut cut = heaptrack(&[(site("hx_init", "pg_x.so"), level)]);
    cut.attempt.site_digests[0].truncated = true;
    assert_eq!(judged(vec![cut]).verdict, Verdict::Inconclusive);
    let mut unmarked = heaptrack(&[(site("hx_init", "pg_x.so"), level)]);
    unmarked.attempt.site_digests[0].marks.truncate(2);
    assert_eq!(judged(vec![unmarked]).verdict, Verdict::Inconclusive);
}

#[test]
fn odd_digests_never_panic_and_never_pass() {
    let mut odd = heaptrack(&[(Vec::new(), every_call), (site("f", ""), every_call)]);
    for mark in &mut odd.attempt.site_digests[0].marks {
        mark.operations = u64::MAX - mark.operations;
    }
    odd.attempt.site_digests[0].sites[1].marked_bytes = vec![u64::MAX, 0];
    assert_ne!(judged(vec![odd]).verdict, Verdict::Pass);
}

#[test]
fn who_holds_most_is_told_with_the_extension_first() {
    let own: Live = |_| 1_000;
    let large: Live = |_| 9_000_000;
    let massif = with_sites(
        job(Tool::Massif, Arm::Candidate, 1, 20, flat),
        &[
            (site("InitCatCache", "postgres"), large),
            (block_of("RelationBuildDesc", "postgres"), level),
            (site("hx_cache", "pg_x.so"), own),
        ],
    );
    let result = judged(vec![massif]);
    let [holders] = &result.holders[..] else { panic!("{:#?}", result.holders) };
    let named: Vec<_> = holders.sites.iter().map(|site| site.function.as_str()).collect();
    assert_eq!(named, ["hx_cache", "InitCatCache", "RelationBuildDesc"]);
    assert_eq!(holders.sites[0].owner, Owner::Extension);
    assert_eq!((holders.session, holders.tool), (1, Tool::Massif));
    let text = pgsoak_analysis::report::to_markdown(&result);
    assert!(text.contains("hx_cache") && text.contains("hold most at the peak"), "{text}");
}
