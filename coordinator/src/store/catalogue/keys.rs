//! The keys of the catalogue: a letter for the kind, then ids, whose bytes sort by time.

use crate::domain::notice::NoticeId;
use crate::domain::time::UnixUs;
use pgsoak_proto::id::{AgentId, JobId, RunId, ScheduleId};

/// Prefix of all runs.
pub(super) const RUNS: &[u8] = b"r";
/// Prefix of all agents.
pub(super) const AGENTS: &[u8] = b"a";
/// Prefix of all jobs.
pub(super) const JOBS: &[u8] = b"j";

/// Prefix of all baselines.
pub(super) const BASELINES: &[u8] = b"Hb";
/// Prefix of all signatures.
pub(super) const SIGNATURES: &[u8] = b"Hg";

/// Prefix of all schedules.
pub(super) const SCHEDULES: &[u8] = b"Sr";
/// Prefix of what was decided about agents.
pub(super) const FLEET: &[u8] = b"G";
/// Prefix of all alerts.
pub(super) const ALERTS: &[u8] = b"A";
/// Prefix of the points of all trends.
pub(super) const POINTS: &[u8] = b"Ht";
/// Prefix of all messages that wait.
pub(super) const NOTICES: &[u8] = b"Nm";
/// Prefix of all conditions that were said.
pub(super) const CONDITIONS: &[u8] = b"Nc";

/// The condition of a key under [`CONDITIONS`].
pub(super) fn condition_of(key: &[u8]) -> Option<String> {
    String::from_utf8(key.strip_prefix(CONDITIONS)?.to_vec()).ok()
}

/// Prefix of all builds.
pub(super) const BUILDS: &[u8] = b"B";

/// Prefix of all client keys.
pub(super) const CLIENTS: &[u8] = b"k";
/// Prefix of runs whose files are being removed.
pub(super) const GRAVES: &[u8] = b"Hr";

/// Names a record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Key<'a> {
    Run(RunId),
    Input(RunId),
    Spec(RunId, JobId),
    Job(RunId, JobId),
    RunOfJob(JobId),
    Agent(AgentId),
    Client(&'a str),
    Fence,
    Result(RunId),
    Artifact(RunId, JobId, u32, &'a str),
    Facts(RunId),
    Annotations(RunId),
    Baseline(&'a str),
    Signature(&'a str),
    Fleet(AgentId),
    Schedule(ScheduleId),
    ScheduleFiles(ScheduleId),
    /// By time; the number tells those of one moment apart.
    Alert(UnixUs, u32),
    Figures(RunId),
    Points(&'a str, RunId),
    Against(RunId),
    Notice(NoticeId),
    Condition(&'a str),
    Build(&'a str),
    Grave(RunId),
}

impl Key<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Run(run) => join(b'r', &[run.as_bytes()]),
            Self::Input(run) => join(b'i', &[run.as_bytes()]),
            Self::Spec(run, job) => join(b's', &[run.as_bytes(), job.as_bytes()]),
            Self::Job(run, job) => join(b'j', &[run.as_bytes(), job.as_bytes()]),
            Self::RunOfJob(job) => join(b'o', &[job.as_bytes()]),
            Self::Agent(agent) => join(b'a', &[agent.as_bytes()]),
            Self::Client(key) => join(b'k', &[key.as_bytes()]),
            Self::Fence => join(b'f', &[]),
            Self::Result(run) => join(b'v', &[run.as_bytes()]),
            Self::Artifact(run, job, attempt, name) => {
                let attempt = attempt.to_be_bytes();
                join(b'x', &[run.as_bytes(), job.as_bytes(), &attempt, name.as_bytes()])
            }
            // The history's: two letters each.
            Self::Facts(run) => join(b'H', &[b"f", run.as_bytes()]),
            Self::Annotations(run) => join(b'H', &[b"a", run.as_bytes()]),
            Self::Baseline(plan) => join(b'H', &[b"b", plan.as_bytes()]),
            Self::Figures(run) => join(b'H', &[b"s", run.as_bytes()]),
            Self::Points(workload, run) => {
                join(b'H', &[b"t", workload.as_bytes(), &[0], run.as_bytes()])
            }
            Self::Grave(run) => join(b'H', &[b"r", run.as_bytes()]),
            Self::Build(digest) => join(b'B', &[digest.as_bytes()]),
            Self::Against(run) => join(b'H', &[b"c", run.as_bytes()]),
            // Messages to people: two letters each.
            Self::Notice(id) => join(b'N', &[b"m", &id.0.to_be_bytes()]),
            Self::Condition(condition) => join(b'N', &[b"c", condition.as_bytes()]),
            Self::Signature(fingerprint) => join(b'H', &[b"g", fingerprint.as_bytes()]),
            Self::Fleet(agent) => join(b'G', &[agent.as_bytes()]),
            Self::Schedule(schedule) => join(b'S', &[b"r", schedule.as_bytes()]),
            Self::ScheduleFiles(schedule) => join(b'S', &[b"f", schedule.as_bytes()]),
            Self::Alert(at, number) => join(b'A', &[&at.0.to_be_bytes(), &number.to_be_bytes()]),
        }
    }
}

fn join(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![kind];
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// Prefix of the artifacts of a run.
pub(super) fn artifacts_of(run: RunId) -> Vec<u8> {
    join(b'x', &[run.as_bytes()])
}

/// Prefix of the points of a workload: of its runs, oldest first.
pub(super) fn points_of(workload: &str) -> Vec<u8> {
    join(b'H', &[b"t", workload.as_bytes(), &[0]])
}

/// The workload of a key under [`POINTS`], piece number included or not.
pub(super) fn workload_of(key: &[u8]) -> Option<String> {
    let name = key.strip_prefix(POINTS)?.split(|byte| *byte == 0).next()?;
    String::from_utf8(name.to_owned()).ok()
}

/// The run of a key under [`RUNS`], piece number included.
pub(super) fn run_of(key: &[u8]) -> Option<RunId> {
    key.get(1..)?.first_chunk::<16>().map(|bytes| RunId::from_bytes(*bytes))
}

/// For messages about records whose key is all that is known.
pub(super) fn describe(key: &[u8]) -> String {
    let kind = match key.first() {
        Some(b'r') => "run",
        Some(b'i') => "files of run",
        Some(b's') => "spec of a job of run",
        Some(b'j') => "state of a job of run",
        Some(b'a') => "agent",
        Some(b'o') => "run of job",
        Some(b'k') => "client key",
        Some(b'f') => "fence",
        Some(b'v') => "result of run",
        Some(b'x') => "artifact of run",
        Some(b'G') => "what was decided about agent",
        Some(b'S') => return "schedule".to_owned(),
        Some(b'A') => return "alert".to_owned(),
        Some(b'B') => return "build".to_owned(),
        Some(b'H') => return describe_history(key),
        Some(b'N') => return "message".to_owned(),
        _ => "record",
    };
    match run_of(key) {
        Some(id) => format!("{kind} {id}"),
        None => kind.to_owned(),
    }
}

fn describe_history(key: &[u8]) -> String {
    let kind = match key.get(1) {
        Some(b'f') => "facts of run",
        Some(b'a') => "notes and pin of run",
        Some(b'b') => return "baseline of a plan".to_owned(),
        Some(b'g') => return "leak signature".to_owned(),
        Some(b's') => "figures of run",
        Some(b'c') => "comparison of run",
        Some(b'r') => "removal of run",
        Some(b't') => {
            let workload = workload_of(key).unwrap_or_default();
            return format!("a point of workload {workload}");
        }
        _ => "history record",
    };
    match key.get(1..).and_then(run_of) {
        Some(id) => format!("{kind} {id}"),
        None => kind.to_owned(),
    }
}
