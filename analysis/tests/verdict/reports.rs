//! Reports of one run that has everything, as goldens.

use crate::made::*;
use pgsoak_analysis::evidence::RunEvidence;
use pgsoak_analysis::report::{to_html, to_json, to_junit, to_markdown};
use pgsoak_analysis::result::RunResult;
use pgsoak_proto::evidence::LeakKind;
use pgsoak_proto::job::{Arm, Outcome, Tool};

fn everything() -> RunResult {
    pgsoak_analysis::verdict::judge(&all_evidence())
}

fn all_evidence() -> RunEvidence {
    let mut candidate = job(Tool::Plain, Arm::Candidate, 2, 20, outside(112));
    candidate.workload.phases[1].budget.growth = Some(5_000_000);
    candidate.workload.phases[1].budget.peak = Some(1_000_000);
    let mut broken = job(Tool::Plain, Arm::Control, 1, 20, flat);
    broken.outcome = Outcome::Failed;
    broken.reason = "ERROR: <no> | such *thing*".to_owned();
    broken.attempt.ended.as_mut().unwrap().server_log_tail =
        "LOG: ready\nPANIC: ``` & gone".to_owned();
    broken.workload.name = "other".to_owned();
    run(vec![
        candidate,
        with_leaks(
            job(Tool::Memcheck, Arm::Candidate, 1, 6, flat),
            7,
            &[(LeakKind::Definite, stack("hx_lost", "pg_x.so"), |check| {
                u64::from(check) * OPERATIONS * 100
            })],
        ),
        job(Tool::Plain, Arm::Baseline, 2, 20, flat),
        broken,
    ])
}

#[test]
fn markdown() {
    insta::assert_snapshot!(to_markdown(&everything()));
}

#[test]
fn junit() {
    insta::assert_snapshot!(to_junit(&everything()));
}

#[test]
fn html_is_one_page_with_nothing_from_elsewhere() {
    let evidence = all_evidence();
    let plain = to_html(&everything(), None);
    let page = to_html(&everything(), Some(&evidence));
    for page in [&plain, &page] {
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        for outside in ["http://", "https://", "<script", "src=", "url(", "NaN", "inf,"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("&lt;no&gt; | such *thing*"));
        assert!(page.len() < 2_000_000);
    }
    assert!(!plain.contains("<figure"));
    for part in [
        "class=\"line candidate\"",
        "class=\"line baseline\"",
        "class=\"line fit\"",
        "class=\"area interval\"",
        "Memory over time",
        "worker 2",
        "Parameters",
    ] {
        assert!(page.contains(part), "{part}");
    }
    // The verdict stands first, the charts before the tables.
    let at = |part: &str| page.find(part).unwrap();
    assert!(at("<h1>") < at("What matters") && at("What matters") < at("<figure"));
    assert!(at("<figure") < at("<h2>Budgets"));
    assert_eq!(page, to_html(&everything(), Some(&all_evidence())));
}

#[test]
fn json_reads_back_as_it_was() {
    let result = everything();
    let back: RunResult = serde_json::from_str(&to_json(&result)).unwrap();
    assert_eq!(back, result);
}
