//! Every file that comes with pgsoak can be used.

#![allow(clippy::unwrap_used, clippy::panic)] // a test may

use pgsoak_proto::{
    id::{JobId, RunId},
    job::Arm,
};
use pgsoak_workloads::{
    expand::{WorkloadText, expand},
    library,
    plan::Plan,
    workload::Workload,
};

fn shown(problems: &[impl ToString]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_workload_parses_and_is_called_as_its_file() {
    for (name, text) in library::workloads() {
        let workload = Workload::parse(&format!("{name}.toml"), text)
            .unwrap_or_else(|problems| panic!("\n{}", shown(&problems)));
        assert_eq!(workload.name, *name);
        assert!(!workload.about.is_empty(), "{name} does not say what it is about");
    }
}

#[test]
fn every_plan_parses_and_expands_with_workloads_of_the_library() {
    for (name, text) in library::plans() {
        let plan = Plan::parse(&format!("{name}.toml"), text)
            .unwrap_or_else(|problems| panic!("\n{}", shown(&problems)));
        assert_eq!(plan.name, *name);
        let texts = plan
            .jobs
            .iter()
            .flat_map(|job| &job.workloads)
            .map(|name| {
                let toml = library::workload(name)
                    .unwrap_or_else(|| panic!("plan {} names {name}", plan.name));
                (name.clone(), WorkloadText { file: format!("{name}.toml"), toml: toml.to_owned() })
            })
            .collect();
        let specs = expand(&plan, &texts, RunId::issue(), JobId::issue)
            .unwrap_or_else(|problems| panic!("\n{}", shown(&problems)));
        assert!(specs.iter().any(|spec| spec.arm == Arm::Candidate), "{name} judges nothing");
    }
}

#[test]
fn a_name_of_the_library_is_found_and_a_slip_is_mended() {
    for name in library::names() {
        assert!(library::workload(name).is_some(), "{name}");
        assert_eq!(library::nearest_workload(&format!("{name}_")), Some(name));
    }
    for name in library::plan_names() {
        assert!(library::plan(name).is_some(), "{name}");
    }
    assert_eq!(library::workload("no such workload"), None);
}
