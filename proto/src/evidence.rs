//! Evidence, checked: what an attempt leaves behind, frame by frame.
//!
//! Mirrors `evidence.proto`; units are in the names. Sample columns are decoded here (absolute values, not differences).

mod captured;
mod sites;
mod thinned;

pub use captured::{AllocatorUse, Capture, CaptureCause, ProofOfLife};
pub use sites::{
    AllocationSite, MAX_SITE_MARKS, MAX_SITE_POINTS, MAX_SITES, SiteDigest, SiteMark, SitePoint,
};

use crate::job::Outcome;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// One entry of an attempt's evidence.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// 1, 2, 3 … without a hole within an attempt.
    pub sequence: u64,
    /// Since the attempt started.
    pub elapsed: Duration,
    /// What it says.
    pub body: Body,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Always sequence 1.
    Started(AttemptStarted),
    /// A server process was seen for the first time, or its type or role was learnt.
    ProcessAppeared(ProcessAppeared),
    /// The process with this number is gone.
    ProcessEnded(u32),
    /// Readings over consecutive ticks.
    Samples(Samples),
    /// A phase begins.
    PhaseStarted(PhaseStarted),
    /// A phase is over.
    PhaseEnded(PhaseEnded),
    /// Memory of one session between two pieces of work.
    AtRest(AtRest),
    /// A check of the workload.
    Check(CheckResult),
    /// A leak check of one backend.
    LeakCheck(LeakCheck),
    /// What memcheck says beside leaks.
    MemcheckErrors(MemcheckErrors),
    /// How much of the server the tool saw.
    Coverage(ToolCoverage),
    /// Samples that were due and are not there.
    Gap(Gap),
    /// Always the last.
    Ended(AttemptEnded),
    /// What heaptrack or massif saw of a process.
    SiteDigest(SiteDigest),
    /// What memcheck says when a process ends.
    MemcheckExit(MemcheckExit),
    /// What a process held while it worked.
    Capture(Capture),
}

/// The ground on which the attempt stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AttemptStarted {
    /// Wall clock of the host, microseconds since 1970.
    pub started_at_unix_us: u64,
    /// The host's name.
    pub host: String,
    /// As in `uname -r`.
    pub kernel: String,
    /// As in /proc/cpuinfo; may be empty.
    pub cpu_model: String,
    /// Usable, at least 1.
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
    /// Settings that differ from their boot value.
    pub settings: BTreeMap<String, String>,
    /// Milliseconds between ticks.
    pub sample_every_ms: u64,
}

/// A server process, keyed by pid and start time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessAppeared {
    /// Its number within the attempt: 0, 1, 2 …; the same number again updates type and role.
    pub process: u32,
    /// At least 1.
    pub pid: u32,
    /// Clock ticks since boot, field 22 of /proc/PID/stat.
    pub start_time_ticks: u64,
    /// As in pg_stat_activity; "postmaster"; "unknown" until learnt.
    pub backend_type: String,
    /// The workload's session that it serves: 0 main, N worker N.
    pub session: Option<u32>,
}

/// Readings of all processes over ticks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Numbers of the ticks, rising; one per row.
    pub ticks: Vec<u64>,
    /// Microseconds since the attempt started; one per row.
    pub elapsed_us: Vec<u64>,
    /// One per process that was read.
    pub processes: Vec<ProcessSamples>,
    /// The host; each column has one value per row or is empty.
    pub host: HostSamples,
    /// Ticks that a full spool took out again: known to be missing.
    pub left_out: u64,
}

/// One process over rows `first_row ..`. Every column has the same length or is empty (not read).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessSamples {
    /// Its number within the attempt.
    pub process: u32,
    /// Row of its first value.
    pub first_row: u32,
    /// Anonymous resident memory.
    pub rss_anon_kib: Vec<u64>,
    /// File-backed resident memory.
    pub rss_file_kib: Vec<u64>,
    /// Shared resident memory.
    pub rss_shmem_kib: Vec<u64>,
    /// Swapped out.
    pub swap_kib: Vec<u64>,
    /// VmData.
    pub data_kib: Vec<u64>,
    /// User and system time since the process started.
    pub cpu_us: Vec<u64>,
    /// Since the process started.
    pub minor_faults: Vec<u64>,
    /// Since the process started.
    pub major_faults: Vec<u64>,
    /// Threads.
    pub threads: Vec<u64>,
    /// From smaps_rollup; 0 in rows where it was not read.
    pub pss_anon_kib: Vec<u64>,
}

/// The host over all rows of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostSamples {
    /// MemAvailable.
    pub available_kib: Vec<u64>,
    /// Total of memory pressure "some"; empty: no PSI.
    pub pressure_some_us: Vec<u64>,
    /// 1 minute load average, hundredths.
    pub load_centi: Vec<u64>,
    /// Memory of the job's cgroup; empty: none.
    pub cgroup_kib: Vec<u64>,
    /// Operations done by all loop workers so far.
    pub operations: Vec<u64>,
    /// The host's wall clock, milliseconds since 1970; empty: of an older agent.
    pub clock_ms: Vec<u64>,
}

/// How a phase works.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhaseKind {
    /// Each statement once, in the main session.
    Once,
    /// Operations in rounds, in workers.
    Loop,
}

/// A phase begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseStarted {
    /// 0-based place among the phases that run.
    pub phase: u32,
    /// Its name; the measured `CREATE EXTENSION` is the phase `extension`.
    pub name: String,
    /// How it works.
    pub kind: PhaseKind,
    /// Sessions of a loop phase; 0 for once.
    pub workers: u32,
}

/// A phase is over.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseEnded {
    /// Its place.
    pub phase: u32,
    /// Done by all workers.
    pub operations: u64,
    /// Begun more than a period after their time (open loop only).
    pub late_operations: u64,
    /// Microseconds.
    pub max_lateness_us: u64,
    /// A loop that ended before its time, as the coordinator asked.
    pub concluded: bool,
}

/// Memory of one session between two pieces of work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AtRest {
    /// 0: main, 1 and up: worker.
    pub session: u32,
    /// Number of its backend.
    pub process: u32,
    /// Place of the phase.
    pub phase: u32,
    /// 0: before the phase's first operation; once phases have 0 and 1.
    pub round: u32,
    /// Done by this session in this phase so far.
    pub operations: u64,
    /// RssAnon plus swap.
    pub rss_anon_bytes: u64,
    /// By name, sorted; empty when the server has no such view.
    pub contexts: Vec<ContextUse>,
    /// 0: not read.
    pub pss_anon_bytes: u64,
    /// Rows the workload declares it holds; 0: not declared.
    pub rows: u64,
    /// After malloc_trim; 0: not done.
    pub trimmed_rss_anon_bytes: u64,
    /// Malloc's own books; `None`: not asked, or not possible here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocator: Option<AllocatorUse>,
}

/// All memory contexts of one name in a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextUse {
    /// Name, as PostgreSQL gives it.
    pub name: String,
    /// Bytes handed out.
    pub used_bytes: u64,
    /// Bytes taken from malloc.
    pub total_bytes: u64,
    /// How many contexts carry the name; at least 1.
    pub count: u32,
}

/// A check of the workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// Place of the phase.
    pub phase: u32,
    /// 0 for once phases.
    pub round: u32,
    /// Whether it was true.
    pub holds: bool,
    /// What was asked.
    pub sql: String,
    /// What the server said when it does not hold.
    pub answer: String,
}

/// How memcheck counts a block.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeakKind {
    /// No pointer to it is left.
    Definite,
    /// Reached only through lost blocks.
    Indirect,
    /// Only interior pointers are left; Rust's losses often come as these.
    Possible,
    /// Still reachable.
    Reachable,
}

/// One leak check of one backend, at rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeakCheck {
    /// 0: main, 1 and up: worker.
    pub session: u32,
    /// Number of its backend.
    pub process: u32,
    /// Place of the phase.
    pub phase: u32,
    /// 0: before the phase's first operation.
    pub round: u32,
    /// Done by this session in this phase so far.
    pub operations: u64,
    /// Those that grew since the check before; with `at_exit` all.
    pub records: Vec<LeakRecord>,
    /// valgrind's own summary when the process ended.
    pub at_exit: bool,
    /// How long the check lasted.
    pub took_us: u64,
}

/// Blocks of one kind that share a stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeakRecord {
    /// How memcheck counts them.
    pub kind: LeakKind,
    /// All of them.
    pub bytes: u64,
    /// All of them.
    pub blocks: u64,
    /// Since the check before.
    pub bytes_delta: i64,
    /// Since the check before.
    pub blocks_delta: i64,
    /// Innermost first.
    pub stack: Vec<StackFrame>,
}

/// One frame of a stack.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct StackFrame {
    /// Demangled, without address; empty: unknown.
    pub function: String,
    /// File name of the object, without folder; empty: unknown.
    pub module: String,
    /// Source file as the tool says; empty: unknown.
    pub file: String,
    /// 0: unknown.
    pub line: u32,
}

/// What memcheck says beside leaks, over the life of one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemcheckErrors {
    /// Number of the process.
    pub process: u32,
    /// One per kind and stack.
    pub errors: Vec<MemcheckError>,
}

/// What memcheck says when a process ends, beside a session's own search at exit (a [`LeakCheck`]) and its errors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemcheckExit {
    /// Number of the process.
    pub process: u32,
    /// Of the search at exit, of a process that serves no session; increases are 0.
    pub records: Vec<LeakRecord>,
    /// Those that hid something.
    pub suppressions: Vec<SuppressionUse>,
}

/// What one suppression hid in one process.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct SuppressionUse {
    /// As in its file.
    pub name: String,
    /// `pgsoak`, `postgresql` or `plan`; empty: valgrind's own.
    pub source: String,
    /// Errors or loss records, at least 1.
    pub count: u64,
    /// Of loss records.
    pub bytes: u64,
    /// Of loss records.
    pub blocks: u64,
}

/// One error of memcheck.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemcheckError {
    /// As memcheck says it, e.g. "Invalid read of size 8".
    pub what: String,
    /// How often.
    pub count: u64,
    /// Innermost first.
    pub stack: Vec<StackFrame>,
}

/// How much of the server the tool saw.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCoverage {
    /// Processes that lived.
    pub processes_expected: u32,
    /// Of these, under the tool.
    pub processes_seen: u32,
    /// Microseconds that client backends of the workload lived.
    pub backend_us: u64,
    /// Of these, under the tool.
    pub backend_us_seen: u64,
    /// Whether the tool shows a known allocation of each session; `None`: not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ProofOfLife>,
}

/// Samples that were due and are not there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// Number of the first.
    pub first_tick: u64,
    /// How many, at least 1.
    pub ticks: u64,
    /// "suspended", "sampler late", "spool full" …
    pub cause: String,
}

/// The end of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptEnded {
    /// How.
    pub outcome: Outcome,
    /// One sentence; empty for finished.
    pub reason: String,
    /// Last lines of the server's log when something went wrong.
    pub server_log_tail: String,
    /// Ticks that were due.
    pub ticks: u64,
    /// Of these, taken.
    pub ticks_sampled: u64,
    /// CPU of the sampler's thread, microseconds.
    pub sampler_cpu_us: u64,
    /// Readings of one process once, in all.
    pub process_samples: u64,
    /// CPU of the whole runner, microseconds.
    pub runner_cpu_us: u64,
    /// Of the runner itself.
    pub runner_peak_rss_bytes: u64,
    /// The statement that failed; empty: none did.
    pub statement: String,
    /// Its SQLSTATE; empty: none.
    pub sqlstate: String,
}

// === impl AttemptEnded ===

impl AttemptEnded {
    /// An end of which nothing else is known: no ticks, no costs, no statement.
    pub fn bare(outcome: Outcome, reason: String) -> Self {
        Self {
            outcome,
            reason,
            server_log_tail: String::new(),
            ticks: 0,
            ticks_sampled: 0,
            sampler_cpu_us: 0,
            process_samples: 0,
            runner_cpu_us: 0,
            runner_peak_rss_bytes: 0,
            statement: String::new(),
            sqlstate: String::new(),
        }
    }
}
