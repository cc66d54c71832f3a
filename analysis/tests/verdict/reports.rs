//! Reports of one run that has everything, as goldens.

use crate::made::*;
use pgsoak_analysis::report::{to_html, to_json, to_junit, to_markdown};
use pgsoak_analysis::result::RunResult;
use pgsoak_proto::evidence::LeakKind;
use pgsoak_proto::job::{Arm, Outcome, Tool};

fn everything() -> RunResult {
    let mut candidate = job(Tool::Plain, Arm::Candidate, 2, 20, outside(112));
    candidate.workload.phases[1].budget.growth = Some(5_000_000);
    candidate.workload.phases[1].budget.peak = Some(1_000_000);
    let mut broken = job(Tool::Plain, Arm::Control, 1, 20, flat);
    broken.outcome = Outcome::Failed;
    broken.reason = "ERROR: <no> | such *thing*".to_owned();
    broken.attempt.ended.as_mut().unwrap().server_log_tail =
        "LOG: ready\nPANIC: ``` & gone".to_owned();
    broken.workload.name = "other".to_owned();
    judged(vec![
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
    let page = to_html(&everything());
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    for outside in ["http://", "https://", "<script", "src="] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("&lt;no&gt; | such *thing*"));
}

#[test]
fn json_reads_back_as_it_was() {
    let result = everything();
    let back: RunResult = serde_json::from_str(&to_json(&result)).unwrap();
    assert_eq!(back, result);
}
