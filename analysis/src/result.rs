//! The result of a run, as `--json` prints it and as the store keeps it.
//!
//! The shape is a contract with programs: fields are added, not changed.

mod memory;

pub use memory::{Attribution, Captured, ContextShare, Shares};

use pgsoak_proto::{
    id::{JobId, RunId},
    job::{Arm, Outcome, Tool},
};
use serde::{Deserialize, Serialize};

/// What a run, or one finding of it, comes to. Ordered from best to worst.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Judged, and nothing above the stated limits.
    Pass,
    /// Too little evidence.
    Inconclusive,
    /// The harness or the host failed.
    Invalid,
    /// The product failed.
    Fail,
}

// === impl Verdict ===

impl Verdict {
    /// The word, as in JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Inconclusive => "inconclusive",
            Self::Invalid => "invalid",
            Self::Fail => "fail",
        }
    }
}

/// Which line of evidence a finding comes from.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize, Hash)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceKind {
    /// Growth per operation between rounds.
    Rounds,
    /// Growth per second of sampled processes.
    Trend,
    /// memcheck's leak checks and errors.
    LeakRecord,
    /// Allocation sites of heaptrack and massif.
    Site,
    /// A memory budget.
    Budget,
    /// A check of the workload.
    Check,
    /// What was expected and what arrived; outcomes of jobs.
    Ledger,
}

/// Who made the memory.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// The extension under test.
    Extension,
    /// PostgreSQL itself.
    Postgres,
    /// A library.
    Library,
    /// Not known.
    Unknown,
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// The run.
    pub run: RunId,
    /// The plan's name.
    pub plan: String,
    /// The combined verdict.
    pub verdict: Verdict,
    /// One line for people: the verdict and its reason.
    pub sentence: String,
    /// The smallest growth this run would have failed.
    pub detects: Detects,
    /// Worst first.
    pub findings: Vec<Finding>,
    /// In the order of the plan.
    pub budgets: Vec<BudgetResult>,
    /// Candidate against baseline, where the plan has both; in the order of the plan.
    #[serde(default)]
    pub comparisons: Vec<Comparison>,
    /// Who holds most at the peak, of jobs under heaptrack and massif; in the order of the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Holders>,
    /// What memcheck's suppressions hid, by source and name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressed: Vec<Suppressed>,
    /// Where the memory of each session's backend is, of plain jobs; in the order of the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributions: Vec<Attribution>,
    /// Suspects, captured while they worked, and the last captures before servers died; in the order of the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub captures: Vec<Captured>,
    /// What the growth comes to over days, where growth over time or rounds were judged; in the order of the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub horizon: Vec<Horizon>,
    /// In the order of the plan.
    pub jobs: Vec<JobResult>,
    /// Version of the judging engine.
    pub engine: u32,
}

/// The smallest growth a run would have failed; `None`: it judged none of that kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detects {
    /// Of one process, bytes per second.
    pub bytes_per_second: Option<f64>,
    /// Of one session's memory contexts, bytes per operation.
    pub bytes_per_operation: Option<f64>,
    /// Of one session outside memory contexts (malloc, mmap), bytes per operation: pages are coarser than contexts' own books.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_operation_outside_contexts: Option<f64>,
}

/// One judged fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What it comes to.
    pub verdict: Verdict,
    /// The line of evidence that judged it first.
    pub evidence: EvidenceKind,
    /// Further lines that agree on the cause.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agreeing: Vec<EvidenceKind>,
    /// The workload.
    pub workload: String,
    /// The phase; empty: the whole workload.
    pub phase: String,
    /// The tool.
    pub tool: Tool,
    /// The build.
    pub build: String,
    /// The arm.
    pub arm: Arm,
    /// Names of the agents that saw it.
    pub hosts: Vec<String>,
    /// What grew: "context CachedPlanSource", "malloc outside contexts", "outside malloc", a function.
    pub subject: String,
    /// Who made it.
    pub owner: Owner,
    /// Bytes per operation.
    pub bytes_per_operation: Option<f64>,
    /// Lower end of the 95 % interval, in the unit of the figure that is given.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Bytes per second.
    pub bytes_per_second: Option<f64>,
    /// Normalised stack, innermost first, where there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<String>,
    /// Names the stack over builds, releases, hosts and tools: 16 hex digits; empty where there is no stack.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
    /// Sentences for people.
    pub message: String,
}

/// A budget and what was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BudgetResult {
    /// The workload.
    pub workload: String,
    /// The phase.
    pub phase: String,
    /// The build.
    pub build: String,
    /// The arm.
    pub arm: Arm,
    /// `growth`, `growth_per_operation`, `peak` or `residual`.
    pub what: String,
    /// Bytes (per operation for `growth_per_operation`).
    pub budget_bytes: f64,
    /// Bytes; `None`: not measured.
    pub measured_bytes: Option<f64>,
    /// Of `residual`: the part still held by memory contexts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by_contexts_bytes: Option<f64>,
    /// Of `residual`: what is left of it after `malloc_trim`, where that was done. The budget is held against `measured_bytes`: users do not trim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_trim_bytes: Option<f64>,
    /// What the control arm used where it was measured; never subtracted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_bytes: Option<f64>,
    /// Whether it holds.
    pub verdict: Verdict,
    /// Why it could not be measured, or what is worth knowing; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// How one release compares with another.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compared {
    /// Above the margin.
    Worse,
    /// Below the negative margin.
    Better,
    /// Inside both margins.
    Same,
    /// Too little evidence.
    CantTell,
}

/// One figure of candidate against baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The workload.
    pub workload: String,
    /// The phase.
    pub phase: String,
    /// The tool.
    pub tool: Tool,
    /// `bytes_per_operation`, `peak`, `growth`, `lost_bytes_per_operation`, …
    pub what: String,
    /// The candidate's build.
    pub candidate_build: String,
    /// The baseline's build.
    pub baseline_build: String,
    /// Measured with the candidate.
    pub candidate: Option<f64>,
    /// Measured with the baseline.
    pub baseline: Option<f64>,
    /// 95 % interval of the difference; `None`: not known.
    pub low: Option<f64>,
    /// See `low`.
    pub high: Option<f64>,
    /// The answer.
    pub answer: Compared,
    /// Why, where it is not plain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Allocation sites that hold most when a session is at its peak.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holders {
    /// The workload.
    pub workload: String,
    /// `heaptrack` or `massif`.
    pub tool: Tool,
    /// The build.
    pub build: String,
    /// The arm.
    pub arm: Arm,
    /// The session with the highest peak: 0 main, 1 and up: worker.
    pub session: u32,
    /// Most bytes of malloc that it had at once.
    pub peak_bytes: u64,
    /// Calls over its life; 0 under massif.
    pub allocations: u64,
    /// Of these, freed before the next allocation.
    pub temporary: u64,
    /// The extension's first, then by bytes.
    pub sites: Vec<Holder>,
}

/// What one place in the code holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Who made it.
    pub owner: Owner,
    /// The function to look at.
    pub function: String,
    /// "file.c:12"; empty: not known.
    pub place: String,
    /// At the session's peak.
    pub peak_bytes: u64,
    /// Calls over the session's life; 0 under massif.
    pub allocations: u64,
    /// Of these, freed before the next allocation.
    pub temporary: u64,
}

/// What one suppression of memcheck hid over the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppressed {
    /// `pgsoak`, `postgresql` or `plan`; empty: valgrind's own.
    pub source: String,
    /// As in its file.
    pub name: String,
    /// Errors and loss records, over all processes.
    pub count: u64,
    /// Of loss records.
    pub bytes: u64,
    /// Of loss records.
    pub blocks: u64,
    /// Processes in which it hid something.
    pub processes: u64,
    /// It stands in the plan and hid nothing: take it out.
    pub is_stale: bool,
}

/// Memory ahead: what a growth comes to if it goes on as it was. An extrapolation, not a finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Horizon {
    /// The workload.
    pub workload: String,
    /// The phase; empty: all loops.
    pub phase: String,
    /// The build.
    pub build: String,
    /// The arm.
    pub arm: Arm,
    /// "worker backends", "server processes", "whole server".
    pub of: String,
    /// How many, on all hosts.
    pub processes: u32,
    /// `trend` or `rounds`: which line of evidence the growth is taken from.
    pub evidence: EvidenceKind,
    /// Whether the growth is proven; otherwise it is what was measured, noise and all.
    pub is_proven: bool,
    /// Of one process (of the whole server: of all on one host), bytes per second.
    pub bytes_per_second: f64,
    /// The same over a day, MiB.
    pub mib_per_day: f64,
    /// Of one worker's operation; `None`: not known, or not the workers'.
    pub bytes_per_operation: Option<f64>,
    /// Seconds from the run's end until the host's memory is full; `None`: more than a year, or it does not grow.
    pub limit_in_s: Option<f64>,
}

/// One job and its ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobResult {
    /// The job.
    pub job: JobId,
    /// The workload.
    pub workload: String,
    /// The tool.
    pub tool: Tool,
    /// The build.
    pub build: String,
    /// The arm.
    pub arm: Arm,
    /// Name of the agent that ran it; empty: none did.
    pub agent: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why; empty for finished.
    pub reason: String,
    /// How many attempts there were.
    pub attempts: u32,
    /// Ticks.
    pub samples: SampleLedger,
    /// The ledger in full; `None`: of an older engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<JobLedger>,
    /// Share of the backends' seconds that the tool saw; plain: share of the samples that are stored. `None`: not measured.
    pub coverage: Option<f64>,
    /// Processes that the tool saw and that there were; `None`: not measured, or plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes_seen: Option<(u32, u32)>,
    /// Sessions of which the tool shows an allocation that every backend makes, and all of them; `None`: not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_of_life: Option<(u32, u32)>,
    /// What the harness itself cost.
    pub harness: HarnessCost,
    /// The ground on which the last attempt stood; `None`: it never began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// Last lines of the server's log when something went wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server_log_tail: String,
}

/// Host, server and tool of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The host's name.
    pub host: String,
    /// As in `uname -r`.
    pub kernel: String,
    /// As in /proc/cpuinfo; may be empty.
    pub cpu_model: String,
    /// Usable.
    pub cores: u32,
    /// MemTotal.
    pub memory_bytes: u64,
    /// As in `pg_config --version`.
    pub postgres_version: String,
    /// Empty for plain.
    pub tool_version: String,
    /// SHA-256 (hex) over the package's files; empty for vanilla and system.
    pub build_digest: String,
    /// What the package says of itself; empty for vanilla.
    pub extension_version: String,
    /// Wall clock of the host at the attempt's start, microseconds since 1970.
    pub started_at_unix_us: u64,
    /// Milliseconds between ticks.
    pub sample_every_ms: u64,
}

/// Expected and stored samples. One sample is one tick over all processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleLedger {
    /// Ticks that were due.
    pub expected: u64,
    /// Ticks that are stored.
    pub stored: u64,
    /// Ticks that are known to be missing.
    pub gaps: u64,
}

/// What was expected of a job and what arrived, process by process, and what the host went through.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobLedger {
    /// Ticks that are missing, by cause; largest first.
    pub gaps: Vec<GapLedger>,
    /// Sessions of the workload and the server's own processes, in the order of their numbers; at most 100, those that lack most.
    pub processes: Vec<ProcessLedger>,
    /// Processes beyond these.
    pub more_processes: u32,
    /// The host meanwhile.
    pub host: HostLedger,
}

/// Missing ticks of one cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapLedger {
    /// "suspended", "sampler late", "spool full", …; "unknown": nobody said.
    pub cause: String,
    /// How many.
    pub ticks: u64,
}

/// Readings of one process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessLedger {
    /// Its number.
    pub process: u32,
    /// Its pid.
    pub pid: u32,
    /// "main session", "worker 3", or its backend type.
    pub who: String,
    /// Ticks from its first reading to its end.
    pub expected: u64,
    /// Readings of it.
    pub stored: u64,
    /// Longest time between two readings, seconds.
    pub longest_gap_s: f64,
    /// When it was seen to be gone, seconds since the attempt started; `None`: it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_s: Option<f64>,
    /// Most bytes that were swapped out.
    #[serde(default)]
    pub swapped_bytes: u64,
}

/// Trouble of the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostLedger {
    /// Share of the time in which some task waited for memory (PSI "some"); `None`: the host does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_pressure: Option<f64>,
    /// Least MemAvailable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_available_bytes: Option<u64>,
    /// Highest load average of a minute, per core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest_load_per_core: Option<f64>,
    /// Mean CPU that the server's processes used, cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_cores: Option<f64>,
    /// Most bytes that processes of the server had swapped out, all together.
    #[serde(default)]
    pub swapped_bytes: u64,
    /// Jumps of the wall clock by more than a second against the monotonic one: when (seconds since the attempt started) and by how much
    /// (seconds, forwards positive). At most 20, the largest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clock_jumps: Vec<(f64, f64)>,
    /// How far the wall clock drifted in all, jumps included, seconds; `None`: not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_drift_s: Option<f64>,
}

/// What the harness itself cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HarnessCost {
    /// CPU of the sampler's thread per tick, microseconds.
    pub sampler_us_per_tick: Option<f64>,
    /// CPU of the sampler per reading of one process, microseconds.
    pub sampler_us_per_process_sample: Option<f64>,
    /// Peak resident memory of the runner.
    pub runner_peak_rss_bytes: Option<u64>,
}
