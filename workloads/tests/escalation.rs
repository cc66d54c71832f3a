//! Which jobs may be followed by others, and what those look like.

#![allow(clippy::unwrap_used, clippy::panic)] // a test may

use pgsoak_proto::{
    id::{JobId, RunId},
    job::{Arm, JobSpec, Tool},
};
use pgsoak_workloads::{
    escalate::{LONGEST_LOOP, asked, follow_up, missing_tools, subjects},
    expand::{WorkloadText, expand},
    plan::Plan,
    workload::Workload,
};
use std::{collections::BTreeMap, time::Duration};

const LOOP: &str = "[[phase]]\nkind = 'loop'\noperations = 1000\nsql = 'SELECT 1'\n";

fn expanded(plan: &str) -> (Plan, Vec<JobSpec>) {
    let plan = Plan::parse("p.toml", plan).unwrap();
    let texts: BTreeMap<String, WorkloadText> = ["a", "b"]
        .into_iter()
        .map(|name| {
            (name.to_owned(), WorkloadText { file: format!("{name}.toml"), toml: LOOP.to_owned() })
        })
        .collect();
    let specs = expand(&plan, &texts, RunId::issue(), JobId::issue).unwrap();
    (plan, specs)
}

#[test]
fn plain_candidates_are_escalated_once_whatever_their_number() {
    let (plan, specs) = expanded(
        "[defaults]\nbuild = 'x@2'\nbaseline = 'x@1'\ncontrol = true\n\
         [[job]]\nworkload = ['a', 'b']\ntool = ['plain', 'massif']\nreplicas = 2\nescalate = true\n\
         [[job]]\nworkload = 'a'\nbuild = 'x@3'\n",
    );
    assert_eq!(asked(&plan).len(), specs.len());
    let found: Vec<String> = subjects(&plan, &specs)
        .into_iter()
        .map(|subject| format!("{} {}", subject.workload, subject.build))
        .collect();
    assert_eq!(found, ["a x@2", "b x@2"]);
    let (plan, specs) = expanded("[[job]]\nworkload = 'a'\nbuild = 'x@2'\n");
    assert!(subjects(&plan, &specs).is_empty(), "nobody asked");
}

#[test]
fn a_tool_that_the_plan_runs_anyway_is_not_added() {
    let (plan, specs) = expanded(
        "[[job]]\nworkload = 'a'\nbuild = 'x@2'\ntool = ['plain', 'memcheck']\nescalate = true\n",
    );
    let subject = subjects(&plan, &specs).remove(0);
    assert_eq!(missing_tools(&subject, &specs), [Tool::Heaptrack]);
    assert_eq!(missing_tools(&subject, []), [Tool::Memcheck, Tool::Heaptrack]);
}

#[test]
fn what_follows_is_short_and_has_an_end() {
    let (_, specs) =
        expanded("[[job]]\nworkload = 'a'\nbuild = 'x@2'\nfor = '24h'\nescalate = true\n");
    let workload = Workload::parse("a.toml", LOOP).unwrap();
    for tool in [Tool::Memcheck, Tool::Heaptrack] {
        let job = JobId::issue();
        let next = follow_up(&specs[0], &workload, tool, job);
        assert_eq!((next.job, next.tool, next.arm), (job, tool, Arm::Candidate));
        assert_eq!(next.loop_for, Some(LONGEST_LOOP));
        assert!(next.scale < 0.5 && next.hard_end < Duration::from_secs(4 * 3_600), "{next:?}");
    }
    let (_, specs) = expanded("[[job]]\nworkload = 'a'\nbuild = 'x@2'\nescalate = true\n");
    let next = follow_up(&specs[0], &workload, Tool::Memcheck, JobId::issue());
    assert_eq!(next.loop_for, None, "rounds that are counted stay counted");
}

#[test]
fn the_floor_of_coverage_is_a_share() {
    let read = |value: &str| {
        Plan::parse("p.toml", &format!("[floor]\ncoverage = {value}\n[[job]]\nworkload = 'a'\n"))
    };
    assert_eq!(read("0.95").unwrap().floor.coverage, Some(0.95));
    for wrong in ["0", "1.01", "-1", "\"99 %\""] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}
