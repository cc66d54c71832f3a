//! Plans as they come over the wire: parsed, checked, expanded.

use crate::domain::history::MAX_LABELS;
use crate::domain::limits::Limits;
use crate::domain::record::RunInput;
use crate::engine::expansion::{self, PlanRefused};
use crate::engine::handle::Submission;
use crate::rpc::status::{IntoStatus, OrStatus, cut};
use pgsoak_proto::wire;
use std::collections::BTreeMap;
use tonic::Status;

/// Largest plan or workload file, in bytes.
const MAX_FILE: usize = 1 << 20;
/// Longest client key, in bytes.
const MAX_KEY: usize = 100;

/// A run to begin, from a plan and its workloads. `agents`: so many are connected; each gets the canary, where the plan asks for it.
pub(super) fn submission(
    plan_toml: String,
    workloads: Vec<wire::WorkloadFile>,
    client_key: String,
    limits: &Limits,
    agents: u32,
) -> Result<Submission, Status> {
    expansion::submission(input(plan_toml, workloads)?, client_key, limits.max_jobs, agents)
        .or_status()
}

/// A plan and its workloads, by the name that the plan uses.
pub(super) fn input(
    plan_toml: String,
    workloads: Vec<wire::WorkloadFile>,
) -> Result<RunInput, Status> {
    let too_long = |what: &str, bytes: usize| {
        Status::invalid_argument(format!("{what} has {bytes} bytes; at most 1 MiB is taken"))
    };
    if plan_toml.len() > MAX_FILE {
        return Err(too_long("the plan", plan_toml.len()));
    }
    if let Some(file) = workloads.iter().find(|file| file.toml.len() > MAX_FILE) {
        return Err(too_long(&format!("workload {}", file.name), file.toml.len()));
    }
    let workloads = workloads.into_iter().map(|file| (file.name, file.toml)).collect();
    Ok(RunInput { plan_toml, workloads, ..RunInput::default() })
}

impl IntoStatus for PlanRefused {
    fn into_status(self) -> Status {
        match self {
            Self::Files(problems) => problems.into_status(),
            other => Status::invalid_argument(other.to_string()),
        }
    }
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

/// A priority, checked; `None`: the plan's own.
pub(super) fn priority(priority: u32) -> Result<Option<u32>, Status> {
    match priority {
        0 => Ok(None),
        1..=100 => Ok(Some(priority)),
        _ => Err(Status::invalid_argument(format!("priority {priority}: 1 to 100 are taken"))),
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
