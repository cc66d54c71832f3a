//! Plans become jobs: how many, in which order, with which hard end.

#![allow(clippy::unwrap_used, clippy::panic)] // a test may

use pgsoak_proto::{
    id::{JobId, RunId},
    job::{Arm, BuildRef, Tool},
};
use pgsoak_workloads::{
    expand::{MAX_JOBS, WorkloadText, expand, expand_for, hard_end},
    plan::Plan,
    workload::Workload,
};
use std::{collections::BTreeMap, time::Duration};

const LOOP: &str = "[[phase]]\nkind = 'loop'\nsql = 'SELECT 1'\n";

fn texts(names: &[&str], toml: &str) -> BTreeMap<String, WorkloadText> {
    let text = |name: &str| WorkloadText { file: format!("{name}.toml"), toml: toml.to_owned() };
    names.iter().map(|name| ((*name).to_owned(), text(name))).collect()
}

/// The n-th id, so that a test sees the order of issue.
fn counted() -> impl FnMut() -> JobId {
    let mut next = 0_u8;
    move || {
        next += 1;
        JobId::from_bytes([0, 0, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, next])
    }
}

#[test]
fn lists_become_a_matrix_with_arms_side_by_side() {
    let plan = "[defaults]\nbuild = 'x@2'\nbaseline = 'x@1'\ncontrol = true\n\
        [[job]]\nworkload = ['a', 'b']\ntool = ['plain', 'massif']\nreplicas = 2\nscale = 0.5\n\
        [[job]]\nworkload = 'a'\nbuild = 'vanilla'\nbaseline = 'none'\ncontrol = false\n";
    let plan = Plan::parse("p.toml", plan).unwrap();
    let run = RunId::issue();
    let specs = expand(&plan, &texts(&["a", "b"], LOOP), run, counted()).unwrap();
    let shown: Vec<_> = specs
        .iter()
        .map(|s| format!("{} {} {} {} {}", s.workload_name, s.tool, s.replica, s.arm, s.build))
        .collect();
    assert_eq!(shown.len(), 2 * 2 * 2 * 3 + 1);
    assert_eq!(
        shown[..4],
        [
            "a plain 0 candidate x@2",
            "a plain 0 baseline x@1",
            "a plain 0 control vanilla",
            "a plain 1 candidate x@2"
        ]
    );
    assert_eq!(shown[6], "a massif 0 candidate x@2");
    assert_eq!(shown[12], "b plain 0 candidate x@2");
    assert_eq!(shown[24], "a plain 0 candidate vanilla");
    let mut ids: Vec<_> = specs.iter().map(|s| s.job).collect();
    assert!(ids.is_sorted() && specs.iter().all(|s| s.run == run));
    ids.dedup();
    assert_eq!(ids.len(), 25);
    assert_eq!((specs[24].arm, specs[24].build.clone()), (Arm::Candidate, BuildRef::Vanilla));
    assert_eq!((specs[0].scale, specs[24].scale), (0.5, 1.0));
    let again = expand(&plan, &texts(&["a", "b"], LOOP), run, counted()).unwrap();
    assert_eq!(again, specs);
}

#[test]
fn a_workload_that_is_missing_or_wrong_is_told() {
    let plan = Plan::parse("p.toml", "[[job]]\nworkload = ['tview_dm', 'my/x', 'b']\n").unwrap();
    let mut texts = texts(&["tview_dml", "my/x", "b"], LOOP);
    texts.get_mut("b").unwrap().toml = "[[phase]]\nsq = 'SELECT 1'".to_owned();
    let problems = expand(&plan, &texts, RunId::issue(), JobId::issue).unwrap_err();
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "p: no workload 'tview_dm' came with the plan; did you mean 'tview_dml'?",
            "b.toml:1: phase 'phase_1' has no `sql`",
            "b.toml:2: unknown key 'sq' in a phase; did you mean 'sql'?",
        ]
    );
}

#[test]
fn a_plan_of_too_many_jobs_is_refused_before_they_are_made() {
    let job = "[[job]]\nworkload = 'a'\nreplicas = 1000\n".repeat(11);
    let plan = Plan::parse("p.toml", &job).unwrap();
    let problems = expand(&plan, &texts(&["a"], LOOP), RunId::issue(), JobId::issue).unwrap_err();
    assert!(problems[0].problem.contains(&MAX_JOBS.to_string()), "{problems:?}");
}

#[test]
fn the_hard_end_leaves_room_for_what_was_asked() {
    let minutes = |toml: &str, tool, loop_for| {
        let workload = Workload::parse("w.toml", toml).unwrap();
        hard_end(&workload, tool, loop_for, 1.0).as_secs() / 60
    };
    let day = Duration::from_secs(86_400);
    assert_eq!(minutes(LOOP, Tool::Plain, None), 30);
    assert_eq!(minutes(LOOP, Tool::Memcheck, None), 120);
    assert_eq!(minutes(LOOP, Tool::Plain, Some(day)), 30 + 1_440 + 144 + 5);
    assert_eq!(minutes(&format!("{LOOP}for = '10h'"), Tool::Heaptrack, None), 120 + 600 + 60 + 20);
    // 20 rounds of 1,000 operations at 2 per second are 10,000 s.
    assert_eq!(minutes(&format!("{LOOP}rate = 2"), Tool::Plain, None), 30 + 333);
    let plan = Plan::parse("p.toml", "hard_end = '7m'\n[[job]]\nworkload = 'a'").unwrap();
    let specs = expand(&plan, &texts(&["a"], LOOP), RunId::issue(), JobId::issue).unwrap();
    assert_eq!(specs[0].hard_end, Duration::from_secs(420));
}

#[test]
fn the_canary_stands_before_and_after_the_jobs_for_every_agent_and_tool() {
    let plan = "canary = true\n[defaults]\npostgres = '15'\n\
        [[job]]\nworkload = 'a'\ntool = ['plain', 'memcheck']\n[[job]]\nworkload = 'a'\ntool = 'massif'\n";
    let plan = Plan::parse("p.toml", plan).unwrap();
    let specs = expand_for(&plan, &texts(&["a"], LOOP), RunId::issue(), 2, counted()).unwrap();
    let shown: Vec<_> = specs
        .iter()
        .map(|s| format!("{} {} {} {} {}", s.workload_name, s.tool, s.replica, s.arm, s.build))
        .collect();
    let canaries = [
        "fault_malloc_lost plain 0 canary pgsoak_faults@1.0",
        "fault_malloc_lost plain 1 canary pgsoak_faults@1.0",
        "fault_cache_bounded plain 0 canary pgsoak_faults@1.0",
        "fault_cache_bounded plain 1 canary pgsoak_faults@1.0",
        "fault_malloc_lost memcheck 0 canary pgsoak_faults@1.0",
        "fault_malloc_lost memcheck 1 canary pgsoak_faults@1.0",
        "fault_once memcheck 0 canary pgsoak_faults@1.0",
        "fault_once memcheck 1 canary pgsoak_faults@1.0",
        "fault_malloc_lost massif 0 canary pgsoak_faults@1.0",
        "fault_malloc_lost massif 1 canary pgsoak_faults@1.0",
    ];
    assert_eq!(shown[..10], canaries);
    assert_eq!(shown[13..], canaries);
    assert!(shown[10..13].iter().all(|job| job.starts_with("a ")), "{shown:?}");
    assert!(specs.iter().all(|spec| spec.postgres.to_string() == "15"));
    // Replicas of one canary differ in nothing but their number: they go to different agents.
    assert_eq!(specs[0].workload_toml, specs[1].workload_toml);
    let without = Plan::parse("p.toml", "[[job]]\nworkload = 'a'\n").unwrap();
    let specs = expand_for(&without, &texts(&["a"], LOOP), RunId::issue(), 5, counted()).unwrap();
    assert_eq!(specs.len(), 1);
}

#[test]
fn suppressions_and_pages_travel_with_the_job_and_bad_ones_are_told_with_their_line() {
    let plan = "[defaults]\nsuppressions = \"\"\"\n{\n known\n Memcheck:Leak\n fun:x\n}\n\"\"\"\n\
        [[job]]\nworkload = 'a'\ntool = 'memcheck'\n[[job]]\nworkload = 'a'\ntool = 'massif'\npages_as_heap = true\nsuppressions = ''\n";
    let plan = Plan::parse("p.toml", plan).unwrap();
    let specs = expand(&plan, &texts(&["a"], LOOP), RunId::issue(), counted()).unwrap();
    assert!(specs[0].options.suppressions.contains("fun:x") && !specs[0].options.pages_as_heap);
    assert!(specs[1].options.suppressions.is_empty() && specs[1].options.pages_as_heap);
    let bad = "[[job]]\nworkload = 'a'\nsuppressions = \"{ x\"\n";
    let problems = Plan::parse("p.toml", bad).unwrap_err();
    let told = problems[0].to_string();
    assert!(told.starts_with("p.toml:3:") && told.contains("begins with a line '{'"), "{told}");
}
