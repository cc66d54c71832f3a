//! A plan: which workloads, under which tools, with which builds, how long.

use pgsoak_proto::job::{BuildRef, PostgresRef, Tool};
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
    /// Smallest growth the run must be able to find; a run that could not is inconclusive.
    pub floor: Floor,
}

/// What a run must be able to find.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Floor {
    /// `[floor] bytes_per_operation`.
    pub bytes_per_operation: Option<f64>,
    /// `[floor] bytes_per_second`.
    pub bytes_per_second: Option<f64>,
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
}
