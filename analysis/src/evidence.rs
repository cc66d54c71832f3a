//! What a verdict reads: the evidence of a run's jobs, folded from their frames.

mod fold;

pub use fold::Fold;

use pgsoak_proto::{
    evidence::{
        AtRest, AttemptEnded, AttemptStarted, Capture, CheckResult, Gap, LeakCheck, MemcheckErrors,
        MemcheckExit, PhaseEnded, PhaseStarted, ProcessAppeared, SiteDigest, ToolCoverage,
    },
    id::RunId,
    job::{JobSpec, Outcome},
};
use pgsoak_workloads::{plan::Plan, workload::Workload};
use std::collections::BTreeMap;

/// Everything a verdict rests on.
#[derive(Clone, Debug)]
pub struct RunEvidence {
    /// The run.
    pub run: RunId,
    /// Its plan.
    pub plan: Plan,
    /// In the order of the plan's expansion.
    pub jobs: Vec<JobEvidence>,
}

/// One job: the evidence of its last attempt.
#[derive(Clone, Debug)]
pub struct JobEvidence {
    /// What was asked.
    pub spec: JobSpec,
    /// The workload, parsed from the spec.
    pub workload: Workload,
    /// Name of the agent that ran it; empty: none did.
    pub agent: String,
    /// How many attempts there were.
    pub attempts: u32,
    /// How it ended, as the coordinator recorded it (an attempt without an end is infrastructure).
    pub outcome: Outcome,
    /// Why, one sentence; empty for finished.
    pub reason: String,
    /// Frames of the last attempt, folded.
    pub attempt: AttemptEvidence,
}

/// The frames of one attempt, folded. Missing frames leave their part empty; nothing is invented.
#[derive(Clone, Debug, Default)]
pub struct AttemptEvidence {
    /// The first frame.
    pub started: Option<AttemptStarted>,
    /// By number.
    pub processes: BTreeMap<u32, ProcessSeries>,
    /// Elapsed microseconds of every tick whose samples are stored, rising.
    pub ticks_elapsed_us: Vec<u64>,
    /// Operations done by all loop workers at each of these ticks.
    pub operations: Vec<u64>,
    /// MemAvailable at each of these ticks, KiB; may be empty.
    pub available_kib: Vec<u64>,
    /// The host at the ticks that said so.
    pub host: HostSeries,
    /// Most bytes that each process had swapped out, by its number; those that never had any are left out.
    pub swapped_bytes: BTreeMap<u32, u64>,
    /// In order.
    pub phases: Vec<PhaseSpan>,
    /// In order.
    pub at_rest: Vec<AtRest>,
    /// Microseconds since the attempt started; one per reading at rest.
    pub at_rest_elapsed_us: Vec<u64>,
    /// In order.
    pub checks: Vec<CheckResult>,
    /// In order.
    pub leak_checks: Vec<LeakCheck>,
    /// In order.
    pub memcheck_errors: Vec<MemcheckErrors>,
    /// In order; one for each process of which memcheck had more to say at its end.
    pub memcheck_exits: Vec<MemcheckExit>,
    /// In order; one for each process that heaptrack or massif saw.
    pub site_digests: Vec<SiteDigest>,
    /// In order, each with its microseconds since the attempt started.
    pub captures: Vec<(u64, Capture)>,
    /// Of the tool.
    pub coverage: Option<ToolCoverage>,
    /// In order.
    pub gaps: Vec<Gap>,
    /// The last frame.
    pub ended: Option<AttemptEnded>,
    /// Last sequence that is stored.
    pub last_sequence: u64,
    /// Sequences missing below `last_sequence`.
    pub missing_frames: u64,
}

/// The host over an attempt. Elapsed microseconds and the value, one for each tick that has it.
#[derive(Clone, Debug, Default)]
pub struct HostSeries {
    /// Time in which some task waited for memory, microseconds in all.
    pub pressure_some_us: Vec<(u64, u64)>,
    /// Load average of a minute, hundredths.
    pub load_centi: Vec<(u64, u64)>,
    /// Wall clock, milliseconds since 1970.
    pub clock_ms: Vec<(u64, u64)>,
}

/// One process over the attempt.
#[derive(Clone, Debug)]
pub struct ProcessSeries {
    /// Who it is (the last word on type and session).
    pub who: ProcessAppeared,
    /// Elapsed microseconds, rising; one per reading.
    pub elapsed_us: Vec<u64>,
    /// RssAnon plus swap, bytes; one per reading.
    pub rss_anon_bytes: Vec<u64>,
    /// User and system time since its start, microseconds; one per reading.
    pub cpu_us: Vec<u64>,
    /// Elapsed microseconds when it was seen to be gone.
    pub ended_elapsed_us: Option<u64>,
}

/// A phase and when it ran.
#[derive(Clone, Debug)]
pub struct PhaseSpan {
    /// What began.
    pub started: PhaseStarted,
    /// Microseconds since the attempt started.
    pub started_elapsed_us: u64,
    /// How it ended; `None`: it did not.
    pub ended: Option<PhaseEnded>,
    /// Microseconds since the attempt started.
    pub ended_elapsed_us: Option<u64>,
}
