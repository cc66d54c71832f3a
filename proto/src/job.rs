//! A job as an agent is asked to do it, checked.

use crate::id::{JobId, RunId};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, time::Duration};

/// What the server runs under.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// Nothing: for time and memory as users have them.
    Plain,
    /// valgrind's leak and error checker.
    Memcheck,
    /// valgrind's heap snapshots.
    Massif,
    /// heaptrack in every backend.
    Heaptrack,
}

/// The part a job plays in a comparison.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// The build that is judged.
    Candidate,
    /// An earlier release.
    Baseline,
    /// Vanilla: the control SQL, without the extension.
    Control,
    /// Planted faults that test the agent: decide only whether the run is valid.
    Canary,
}

/// Which extension package a job loads.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum BuildRef {
    /// `NAME@RELEASE`: a package of the build cache.
    Release {
        /// The extension's name.
        name: String,
        /// Its release, as published.
        release: String,
    },
    /// `dir:PATH`: a package folder of the agent's host.
    Dir(PathBuf),
    /// What is installed beside the server.
    System,
    /// No extension.
    Vanilla,
}

/// A string that names no build.
#[derive(Debug, thiserror::Error)]
#[error("build '{0}' is none of NAME@RELEASE, dir:PATH, system, vanilla")]
pub struct InvalidBuild(String);

/// Which PostgreSQL a job needs.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum PostgresRef {
    /// Any server of this major that the agent has.
    Major(u32),
    /// The server of this `pg_config`.
    PgConfig(PathBuf),
}

/// A string that names no PostgreSQL.
#[derive(Debug, thiserror::Error)]
#[error("postgres '{0}' is neither a major such as \"18\" nor the absolute path of a pg_config")]
pub struct InvalidPostgres(String);

/// One job: workload × tool × build × arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Names the job.
    pub job: JobId,
    /// The run it belongs to.
    pub run: RunId,
    /// The workload's name as the plan writes it.
    pub workload_name: String,
    /// The workload's whole file.
    pub workload_toml: String,
    /// What the server runs under.
    pub tool: Tool,
    /// The part it plays.
    pub arm: Arm,
    /// The package it loads.
    pub build: BuildRef,
    /// The server it needs.
    pub postgres: PostgresRef,
    /// Overrides the length of every loop phase.
    pub loop_for: Option<Duration>,
    /// Share of the operations of loop phases; in (0, 1000].
    pub scale: f64,
    /// Between two readings of a process.
    pub sample_every: Duration,
    /// After this the runner ends by itself.
    pub hard_end: Duration,
    /// `${seed}` of the workload's SQL.
    pub seed: u64,
    /// 0-based number among the replicas of the same job.
    pub replica: u32,
    /// Wants the host alone.
    pub exclusive: bool,
    /// Labels that the agent must carry.
    pub agents: BTreeMap<String, String>,
    /// What becomes of it when its attempt is lost.
    #[serde(default)]
    pub on_lost: OnLost,
    /// What the plan says about its tool.
    #[serde(default)]
    pub options: Box<ToolOptions>,
}

/// What becomes of a job whose attempt is lost: its host does not come back, or comes back without it. Nothing was lost of an
/// assignment that never arrived: that is made again in any case.
#[derive(
    Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum OnLost {
    /// It is waited for as long as it may come back, and never tried again.
    #[default]
    Wait,
    /// It is tried again, once no live attempt can be left.
    Retry,
}

/// What the plan says about the tools of a job.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct ToolOptions {
    /// memcheck: suppressions in valgrind's own format; empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub suppressions: String,
    /// massif: pages (mmap, brk) instead of blocks of malloc.
    #[serde(default)]
    pub pages_as_heap: bool,
}

/// The right of one agent to run one attempt of a job.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    /// 1-based.
    pub attempt: u32,
    /// Grows with every lease that the coordinator gives; at least 1.
    pub fence: u64,
}

/// How an attempt ended. Product and infrastructure never share a value.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Ran to its end.
    Finished,
    /// The product failed: a statement, or the server.
    Failed,
    /// The harness or the host failed.
    Infrastructure,
    /// Cancelled by somebody.
    Cancelled,
    /// Reached its hard end.
    TimedOut,
}

// === impl OnLost ===

impl OnLost {
    /// The word for it in plans.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Retry => "retry",
        }
    }
}

// === impl Tool ===

impl Tool {
    /// Every one, in the order in which people are told of them.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Memcheck, Self::Massif, Self::Heaptrack];

    /// The word for it in files, on the wire's pages and in reports.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Memcheck => "memcheck",
            Self::Massif => "massif",
            Self::Heaptrack => "heaptrack",
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

// === impl Arm ===

impl Arm {
    /// The word for it in files and reports.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Baseline => "baseline",
            Self::Control => "control",
            Self::Canary => "canary",
        }
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

// === impl Outcome ===

impl Outcome {
    /// The word for it in results.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Infrastructure => "infrastructure",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

// === impl BuildRef ===

impl fmt::Display for BuildRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Release { name, release } => write!(f, "{name}@{release}"),
            Self::Dir(path) => write!(f, "dir:{}", path.display()),
            Self::System => f.write_str("system"),
            Self::Vanilla => f.write_str("vanilla"),
        }
    }
}

impl FromStr for BuildRef {
    type Err = InvalidBuild;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = |s: &str| {
            !s.is_empty()
                && s.len() <= 100
                && s.chars().all(|c| c.is_ascii_alphanumeric() || "._+-".contains(c))
                && !s.starts_with('.')
        };
        match text {
            "system" => return Ok(Self::System),
            "vanilla" => return Ok(Self::Vanilla),
            _ => {}
        }
        if let Some(path) = text.strip_prefix("dir:").filter(|path| !path.is_empty()) {
            return Ok(Self::Dir(path.into()));
        }
        match text.split_once('@') {
            Some((name, release)) if word(name) && word(release) => {
                Ok(Self::Release { name: name.to_owned(), release: release.to_owned() })
            }
            _ => Err(InvalidBuild(text.chars().take(200).collect())),
        }
    }
}

impl TryFrom<String> for BuildRef {
    type Error = InvalidBuild;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BuildRef> for String {
    fn from(build: BuildRef) -> Self {
        build.to_string()
    }
}

// === impl PostgresRef ===

impl fmt::Display for PostgresRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Major(major) => major.fmt(f),
            Self::PgConfig(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for PostgresRef {
    type Err = InvalidPostgres;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(major) = text.parse::<u32>()
            && (10..=99).contains(&major)
        {
            return Ok(Self::Major(major));
        }
        if text.starts_with('/') {
            return Ok(Self::PgConfig(text.into()));
        }
        Err(InvalidPostgres(text.chars().take(200).collect()))
    }
}

impl TryFrom<String> for PostgresRef {
    type Error = InvalidPostgres;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PostgresRef> for String {
    fn from(postgres: PostgresRef) -> Self {
        postgres.to_string()
    }
}
