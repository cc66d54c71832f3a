//! Candidate against baseline.

use crate::made::*;
use pgsoak_analysis::result::{Compared, Comparison, RunResult};
use pgsoak_proto::evidence::LeakKind;
use pgsoak_proto::job::{Arm, Tool};

fn row<'a>(result: &'a RunResult, what: &str) -> &'a Comparison {
    result
        .comparisons
        .iter()
        .find(|row| row.what == what && row.phase == "steady")
        .unwrap_or_else(|| panic!("{what}: {:#?}", result.comparisons))
}

#[test]
fn per_operation_figures_decide_and_peaks_of_one_host_do_not() {
    let pair = |candidate: u64, baseline: u64| {
        judged(vec![
            job(Tool::Plain, Arm::Candidate, 1, 20, outside(candidate)),
            job(Tool::Plain, Arm::Baseline, 1, 20, outside(baseline)),
        ])
    };
    assert_eq!(row(&pair(200, 112), "bytes_per_operation").answer, Compared::Worse);
    assert_eq!(row(&pair(112, 200), "bytes_per_operation").answer, Compared::Better);
    assert_eq!(row(&pair(112, 112), "bytes_per_operation").answer, Compared::Same);
    assert_eq!(row(&pair(112, 112), "context_bytes_per_operation").answer, Compared::Same);
    assert_eq!(row(&pair(200, 112), "peak").answer, Compared::CantTell);
    let mut unsound = job(Tool::Plain, Arm::Baseline, 1, 20, flat);
    unsound.attempt.missing_frames = 3;
    let result = judged(vec![job(Tool::Plain, Arm::Candidate, 1, 20, flat), unsound]);
    assert!(result.comparisons.iter().all(|row| row.answer == Compared::CantTell));
}

#[test]
fn peaks_of_several_hosts_are_decided() {
    let arm = |arm: Arm, per_operation: u64| {
        (0..4_u64).map(move |host| {
            let mut made = job(Tool::Plain, arm, 1, 20, outside(per_operation + host));
            made.agent = format!("h{host}");
            made
        })
    };
    let worse = judged(arm(Arm::Candidate, 300).chain(arm(Arm::Baseline, 150)).collect());
    assert_eq!(row(&worse, "peak").answer, Compared::Worse);
    let same = judged(arm(Arm::Candidate, 150).chain(arm(Arm::Baseline, 150)).collect());
    assert_eq!(row(&same, "peak").answer, Compared::Same);
    let finding = worse.findings.iter().find(|f| f.arm == Arm::Candidate).unwrap();
    assert_eq!(finding.hosts, ["h0", "h1", "h2", "h3"]);
}

#[test]
fn new_and_gone_leaks_are_named() {
    let leaking = |arm, function| {
        with_leaks(
            job(Tool::Memcheck, arm, 1, 6, flat),
            7,
            &[(LeakKind::Definite, stack(function, "pg_x.so"), |check| {
                u64::from(check) * OPERATIONS * 100
            })],
        )
    };
    let result = judged(vec![leaking(Arm::Candidate, "hx_new"), leaking(Arm::Baseline, "hx_old")]);
    let rows: Vec<(&str, Compared)> = result
        .comparisons
        .iter()
        .filter(|row| row.what == "lost_bytes_per_operation")
        .map(|row| (row.message.split(" [").next().unwrap(), row.answer))
        .collect();
    assert!(rows.contains(&("new: hx_new", Compared::Worse)), "{rows:?}");
    assert!(rows.contains(&("gone: hx_old", Compared::Better)), "{rows:?}");
}
