//! Plans as they come over the wire: parsed, checked, expanded.

use crate::domain::history::MAX_LABELS;
use crate::domain::limits::Limits;
use crate::domain::record::RunInput;
use crate::engine::handle::Submission;
use crate::engine::judging::PLAN_FILE;
use crate::rpc::status::{OrStatus, cut};
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::wire;
use pgsoak_workloads::{
    expand::{WorkloadText, expand},
    plan::Plan,
};
use std::collections::BTreeMap;
use tonic::Status;

/// Largest plan or workload file, in bytes.
const MAX_FILE: usize = 1 << 20;
/// Longest client key, in bytes.
const MAX_KEY: usize = 100;

/// A run to begin, from a plan and its workloads.
pub(super) fn submission(
    plan_toml: String,
    workloads: Vec<wire::WorkloadFile>,
    client_key: String,
    limits: &Limits,
) -> Result<Submission, Status> {
    let too_long = |what: &str, bytes: usize| {
        Status::invalid_argument(format!("{what} has {bytes} bytes; at most 1 MiB is taken"))
    };
    if plan_toml.len() > MAX_FILE {
        return Err(too_long("the plan", plan_toml.len()));
    }
    let plan = Plan::parse(PLAN_FILE, &plan_toml).or_status()?;
    let mut texts = BTreeMap::new();
    for wire::WorkloadFile { name, toml } in workloads {
        if toml.len() > MAX_FILE {
            return Err(too_long(&format!("workload {name}"), toml.len()));
        }
        let file = if name.ends_with(".toml") { name.clone() } else { format!("{name}.toml") };
        texts.insert(name, WorkloadText { file, toml });
    }
    let run = RunId::issue();
    let specs = expand(&plan, &texts, run, JobId::issue).or_status()?;
    if specs.is_empty() {
        return Err(Status::invalid_argument("the plan comes to no jobs"));
    }
    if specs.len() > limits.max_jobs {
        return Err(Status::invalid_argument(format!(
            "the plan comes to {} jobs; at most {} are taken",
            specs.len(),
            limits.max_jobs
        )));
    }
    let workloads = texts.into_iter().map(|(name, text)| (name, text.toml)).collect();
    Ok(Submission {
        run,
        plan: plan.name,
        input: RunInput { plan_toml, workloads },
        specs,
        client_key,
        labels: BTreeMap::new(),
    })
}

/// Labels of a run, checked.
pub(super) fn labels(labels: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Status> {
    let is_word = |text: &str, least: usize| {
        (least..=100).contains(&text.len()) && !text.chars().any(char::is_control)
    };
    if labels.len() > MAX_LABELS {
        let n = labels.len();
        return Err(Status::invalid_argument(format!(
            "{n} labels; at most {MAX_LABELS} are taken"
        )));
    }
    let bad = labels.iter().find(|(key, value)| {
        !is_word(key, 1) || key.contains(['=', '*', ' ']) || !is_word(value, 0)
    });
    match bad {
        None => Ok(labels),
        Some((key, value)) => Err(Status::invalid_argument(cut(&format!(
            "label '{key}={value}': a key has 1 to 100 bytes without '=', '*' and spaces, a value at most 100"
        )))),
    }
}

/// A client key, checked.
pub(super) fn client_key(key: &str) -> Result<(), Status> {
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(Status::invalid_argument(format!(
            "client_key has {} bytes; 1 to {MAX_KEY} are wanted",
            key.len()
        )));
    }
    Ok(())
}
