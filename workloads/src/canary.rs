//! The canary: planted faults that test an agent and its tools, before a run's jobs and after them.
//!
//! Under each tool that the plan uses, on each server that it uses: a leak that the tool must find, and something that stays and that it must
//! not call a leak. What they show decides only whether the run is valid. Pure: which agents there are is the caller's word.

use crate::library;
use crate::plan::{Plan, PlanJob};
use pgsoak_proto::job::{PostgresRef, Tool};
use std::{collections::BTreeMap, time::Duration};

/// Build of the planted faults: `deploy/build-faults.sh`.
pub const BUILD: &str = "pgsoak_faults@1.0";

/// The leak: every tool can see it.
pub const LEAK: &str = "fault_malloc_lost";

/// The function in which the leak is planted, as every tool that has stacks must name it.
pub const LEAK_FUNCTION: &str = "lose_block";

/// Bytes that the leak loses with each operation.
pub const LEAK_BYTES: f64 = 100.0;

/// After this a canary that hangs is ended.
const HARD_END: Duration = Duration::from_secs(20 * 60);

/// One planted fault under one tool.
#[derive(Clone, Debug, PartialEq)]
pub struct CanaryJob {
    /// Its name in the library.
    pub workload: &'static str,
    /// Its file.
    pub toml: &'static str,
    /// The tool.
    pub tool: Tool,
    /// The server.
    pub postgres: PostgresRef,
    /// Share of the operations.
    pub scale: f64,
    /// After this the runner ends by itself.
    pub hard_end: Duration,
    /// Labels of the agents that the plan's jobs ask for.
    pub agents: BTreeMap<String, String>,
}

/// What stays and must not be flagged, by tool: the bounded cache is full only at its whole number of operations, which heavy tools do not get.
///
/// `None` for massif: it shows who holds the peak and calls nothing a leak.
pub const fn plateau(tool: Tool) -> Option<&'static str> {
    match tool {
        Tool::Plain => Some("fault_cache_bounded"),
        Tool::Memcheck | Tool::Heaptrack => Some("fault_once"),
        Tool::Massif => None,
    }
}

/// Share of the operations that a tool gets: a minute at most.
const fn scale(tool: Tool) -> f64 {
    match tool {
        Tool::Plain => 1.0,
        Tool::Memcheck => 0.04,
        Tool::Massif | Tool::Heaptrack => 0.2,
    }
}

/// The canaries of a plan: for each tool, server and set of labels that it uses, both faults.
pub fn jobs(plan: &Plan) -> Vec<CanaryJob> {
    let mut jobs: Vec<CanaryJob> = Vec::new();
    for PlanJob { tools, postgres, agents, .. } in &plan.jobs {
        for tool in tools {
            for workload in [Some(LEAK), plateau(*tool)].into_iter().flatten() {
                let Some(toml) = library::workload(workload) else { continue };
                let job = CanaryJob {
                    workload,
                    toml,
                    tool: *tool,
                    postgres: postgres.clone(),
                    scale: scale(*tool),
                    hard_end: HARD_END,
                    agents: agents.clone(),
                };
                if !jobs.contains(&job) {
                    jobs.push(job);
                }
            }
        }
    }
    jobs
}
