//! What `malloc_trim` tells, and peaks of short phases: sentences and figures beside an unchanged verdict.

use crate::made::*;
use pgsoak_analysis::result::{BudgetResult, Finding, RunResult, Verdict};
use pgsoak_proto::evidence::ContextUse;
use pgsoak_proto::job::{Arm, Tool};
use pgsoak_workloads::workload::{Budget, Residual};

const MB: u64 = 1_000_000;

/// After the first phase the main session holds 50 MB more, 2 MB of it in contexts; trimmed to so much above the start.
fn left_after_a_drop(trimmed: Option<u64>) -> RunResult {
    let mut made = job(Tool::Plain, Arm::Candidate, 1, 20, flat);
    made.workload.phases[0].budget = Budget {
        residual: Some(Residual { bytes: 5 * MB, since: "create".to_owned() }),
        ..Budget::default()
    };
    let after = &mut made.attempt.at_rest[1];
    after.rss_anon_bytes += 50 * MB;
    after.contexts.push(ContextUse {
        name: "CacheMemoryContext".to_owned(),
        used_bytes: 2 * MB,
        total_bytes: 2 * MB,
        count: 1,
    });
    after.trimmed_rss_anon_bytes = trimmed.map_or(0, |above| BASE + above);
    judged(vec![made])
}

fn residual(result: &RunResult) -> (&BudgetResult, &Finding) {
    let line = result.budgets.iter().find(|line| line.what == "residual").unwrap();
    let finding = result.findings.iter().find(|finding| finding.subject == "residual").unwrap();
    (line, finding)
}

#[test]
fn a_residual_says_what_trimming_gives_back_and_stays_over_budget() {
    let result = left_after_a_drop(Some(3 * MB));
    let (line, finding) = residual(&result);
    assert_eq!((line.verdict, line.measured_bytes), (Verdict::Fail, Some(50e6)));
    assert_eq!(line.after_trim_bytes, Some(3e6));
    let says = "the allocator kept 48.0 MB, of which malloc_trim gives back 47.0 MB";
    assert!(line.message.contains(says), "{}", line.message);
    assert!(finding.message.contains(says), "{}", finding.message);
    assert!(finding.message.contains("Memory contexts hold 2.00 MB of it"), "{}", finding.message);
}

#[test]
fn trimming_never_gives_back_more_than_was_kept() {
    // Below where it stood before: memory that was free then went too.
    let mut made = left_after_a_drop(Some(0));
    let (line, _) = residual(&made);
    assert!(line.message.ends_with("kept 48.0 MB, all of which malloc_trim gives back"));
    made = left_after_a_drop(Some(2 * MB));
    assert!(residual(&made).0.message.ends_with("48.0 MB, all of which malloc_trim gives back"));
}

#[test]
fn a_residual_that_was_not_trimmed_says_nothing_of_it() {
    let result = left_after_a_drop(None);
    let (line, finding) = residual(&result);
    assert_eq!((line.verdict, line.after_trim_bytes), (Verdict::Fail, None));
    assert!(!finding.message.contains("malloc_trim"), "{}", finding.message);
    assert!(
        finding.message.contains("Memory contexts hold 2.00 MB of it; the allocator kept 48.0 MB.")
    );
}

/// The finding of a loop that grows outside contexts, and whose backend is then trimmed to so much above the first reading.
fn grown_and_trimmed(above: Option<u64>) -> String {
    let mut made = job(Tool::Plain, Arm::Candidate, 1, 20, outside(1000));
    let last = made.attempt.at_rest.last_mut().unwrap();
    last.trimmed_rss_anon_bytes = above.map_or(0, |above| BASE + above);
    let result = judged(vec![made]);
    assert_eq!(result.verdict, Verdict::Fail);
    failing(&result)[0].message.clone()
}

#[test]
fn growth_that_trimming_takes_back_is_called_slack_and_fails_all_the_same() {
    let slack = grown_and_trimmed(Some(60_000));
    assert!(slack.contains("not blocks that are still allocated"), "{slack}");
    // Ten per cent of the level at the start, which is 4 MiB.
    assert!(grown_and_trimmed(Some(400_000)).contains("not blocks that are still allocated"));
    let held = grown_and_trimmed(Some(19 * MB));
    assert!(held.contains("(4.19 MB before the first round)."), "{held}");
    assert!(!held.contains("still allocated"), "{held}");
    assert!(!grown_and_trimmed(None).contains("malloc_trim"));
}

/// Result of a peak budget on a once phase that no sample fell into, with so much at rest after it.
fn unsampled_peak(at_rest_above: u64) -> BudgetResult {
    let mut made = job(Tool::Plain, Arm::Candidate, 1, 20, flat);
    made.workload.phases[0].budget.peak = Some(5 * MB);
    for series in made.attempt.processes.values_mut() {
        series.elapsed_us.clear();
        series.rss_anon_bytes.clear();
    }
    made.attempt.at_rest[1].rss_anon_bytes += at_rest_above;
    judged(vec![made]).budgets.into_iter().find(|line| line.what == "peak").unwrap()
}

#[test]
fn what_is_at_rest_breaks_a_peak_budget_and_never_proves_it_kept() {
    let broken = unsampled_peak(6 * MB);
    assert_eq!((broken.verdict, broken.measured_bytes), (Verdict::Fail, Some(6e6)));
    let unknown = unsampled_peak(MB);
    assert_eq!((unknown.verdict, unknown.measured_bytes), (Verdict::Inconclusive, None));
}

#[test]
fn a_peak_counts_what_is_at_rest_after_the_work_beside_the_samples() {
    let mut made = job(Tool::Plain, Arm::Candidate, 1, 20, flat);
    made.workload.phases[0].budget.peak = Some(5 * MB);
    made.attempt.at_rest[1].rss_anon_bytes += 6 * MB;
    let line = judged(vec![made]).budgets.into_iter().find(|line| line.what == "peak").unwrap();
    assert_eq!((line.verdict, line.measured_bytes), (Verdict::Fail, Some(6e6)));
}

#[test]
fn contexts_grow_and_a_context_grows() {
    let sentences = |names: fn(u32) -> Memory| {
        let made = job(Tool::Plain, Arm::Candidate, 1, 20, move |_, round| names(round));
        let result = judged(vec![made]);
        (result.sentence.clone(), failing(&result)[0].message.clone())
    };
    let (sentence, message) = sentences(|round| {
        let used = 100_000 + u64::from(round) * OPERATIONS * 50;
        (pages(BASE + used), vec![("TopMemoryContext", used, pages(used))])
    });
    assert!(sentence.starts_with("Fail: "), "{sentence}");
    assert!(message.starts_with("Context TopMemoryContext grows by 50.0 B"), "{message}");
    // Two names that take turns: neither grows steadily, their sum does.
    let (sentence, message) = sentences(|round| {
        let used = u64::from(round) * OPERATIONS * 50;
        let (a, b) = if round % 2 == 0 { (used, 0) } else { (0, used) };
        (pages(BASE + used), vec![("A", 9_000 + a, 2_000_000), ("B", 9_000 + b, 2_000_000)])
    });
    assert!(message.starts_with("Memory contexts grow by 50.0 B"), "{message}");
    assert!(sentence.contains("memory contexts grow by"), "{sentence}");
}
