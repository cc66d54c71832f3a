//! A plan's text and its workloads become a run to begin.

use crate::domain::record::RunInput;
use crate::engine::handle::Submission;
use crate::engine::judging::PLAN_FILE;
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_workloads::expand::{WorkloadText, expand_for};
use pgsoak_workloads::file_error::FileError;
use pgsoak_workloads::plan::Plan;
use std::collections::BTreeMap;

/// A plan that makes no run.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PlanRefused {
    /// A file has problems.
    #[error("{}", lines(.0))]
    Files(Vec<FileError>),
    /// It comes to nothing.
    #[error("the plan comes to no jobs")]
    Empty,
    /// It comes to too much.
    #[error("the plan comes to {jobs} jobs; at most {most} are taken")]
    TooMany {
        /// So many.
        jobs: usize,
        /// The limit.
        most: usize,
    },
}

fn lines(problems: &[FileError]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A fresh run of a plan; `workloads` by the name that the plan uses. `agents`: so many are connected; each gets the canary, where the plan asks
/// for it.
///
/// # Errors
///
/// Every problem of every file, or what is wrong with the whole.
pub fn submission(
    input: RunInput,
    client_key: String,
    max_jobs: usize,
    agents: u32,
) -> Result<Submission, PlanRefused> {
    let plan = Plan::parse(PLAN_FILE, &input.plan_toml).map_err(PlanRefused::Files)?;
    let texts: BTreeMap<String, WorkloadText> = input
        .workloads
        .iter()
        .map(|(name, toml)| {
            let file = if name.ends_with(".toml") { name.clone() } else { format!("{name}.toml") };
            (name.clone(), WorkloadText { file, toml: toml.clone() })
        })
        .collect();
    let run = RunId::issue();
    let specs = expand_for(&plan, &texts, run, agents, JobId::issue).map_err(PlanRefused::Files)?;
    if specs.is_empty() {
        return Err(PlanRefused::Empty);
    }
    if specs.len() > max_jobs {
        return Err(PlanRefused::TooMany { jobs: specs.len(), most: max_jobs });
    }
    let labels = BTreeMap::new();
    let Plan { name, priority, .. } = plan;
    Ok(Submission { run, plan: name, input, specs, client_key, labels, priority })
}
