//! A plan: which workloads, under which tools, with which builds, how long.

mod parse;

use crate::file_error::FileError;
use pgsoak_proto::job::{BuildRef, OnLost, PostgresRef, Tool, ToolOptions};
use std::{collections::BTreeMap, time::Duration};

/// A checked plan file.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Its name, `[A-Za-z0-9._-]{1,100}`.
    pub name: String,
    /// One line for people.
    pub about: String,
    /// At least one.
    pub jobs: Vec<PlanJob>,
    /// Among waiting runs the higher comes first; 1 to 100.
    pub priority: u32,
    /// Smallest growth the run must be able to find; a run that could not is inconclusive.
    pub floor: Floor,
    /// Whether loops end early once a leak is proven.
    pub stop_when_proven: bool,
    /// Planted faults test every agent before and after the jobs.
    pub canary: bool,
}

/// What a run must be able to find.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Floor {
    /// `[floor] bytes_per_operation`.
    pub bytes_per_operation: Option<f64>,
    /// `[floor] bytes_per_second`.
    pub bytes_per_second: Option<f64>,
    /// `[floor] coverage`: share of the backends' seconds that a tool must have seen, in (0, 1]; `None`: 0.99.
    pub coverage: Option<f64>,
}

/// One `[[job]]`, with the defaults filled in. Lists expand to a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanJob {
    /// Names in the library, or paths beside the plan; at least one.
    pub workloads: Vec<String>,
    /// At least one.
    pub tools: Vec<Tool>,
    /// The server.
    pub postgres: PostgresRef,
    /// The candidate.
    pub build: BuildRef,
    /// Adds arms with this build.
    pub baseline: Option<BuildRef>,
    /// Adds arms with vanilla.
    pub control: bool,
    /// Overrides the loops' length (`for`).
    pub loop_for: Option<Duration>,
    /// Copies on different agents where there are that many; at least 1.
    pub replicas: u32,
    /// Between two readings of a process.
    pub sample_every: Duration,
    /// Share of the operations of loop phases.
    pub scale: f64,
    /// The host alone.
    pub exclusive: bool,
    /// Labels asked for.
    pub agents: BTreeMap<String, String>,
    /// After this the runner ends by itself; `None`: from the length (see `expand`).
    pub hard_end: Option<Duration>,
    /// `${seed}`.
    pub seed: u64,
    /// Whether a job whose attempt is lost with its host is tried again.
    pub on_lost: OnLost,
    /// Suppressions for memcheck, and how massif counts.
    pub options: ToolOptions,
    /// Where the candidate grows under `plain`, memcheck and heaptrack are added.
    pub escalate: bool,
}

// === impl Plan ===

impl Plan {
    /// Reads and checks a plan's file. `file_name` is how messages call it; its stem is the default of `name`.
    ///
    /// Every key of a job but `workload` may stand in `[defaults]`; `seed` and `hard_end` at the top as well. A job takes a
    /// default back with `baseline = "none"`.
    /// Defaults: PostgreSQL 18, the installed build, no baseline, no control, tool plain, one replica, a reading every
    /// second, all operations, seed 1, lost jobs waited for and not tried again.
    ///
    /// # Errors
    ///
    /// Every problem of the file, by line, each with the way out. Whether the workloads exist is not asked here.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, Vec<FileError>> {
        parse::plan(file_name, text)
    }
}
