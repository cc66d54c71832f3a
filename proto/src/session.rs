//! What an agent and its coordinator say to each other, checked.
//!
//! Mirrors `session.proto`. Says nothing about when a message may be sent: that is the business of the two sides.

use crate::evidence::Frame;
use crate::id::AgentId;
use crate::job::{BuildRef, JobSpec, Lease, Tool};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// What an agent says.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentMessage {
    /// Always the first.
    Hello(Hello),
    /// It lives, and its jobs stand so.
    Heartbeat(Heartbeat),
    /// Frames of one attempt.
    Evidence(EvidenceBatch),
    /// A piece of a raw file.
    Artifact(ArtifactChunk),
    /// No process of the attempt is left.
    CancelAcknowledged(Lease),
    /// It cannot take the job.
    AssignmentRefused(Refusal),
    /// Every frame and artifact of an attempt that is over is acknowledged; asks for its release.
    Delivered(Lease),
}

/// What a coordinator says.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a handful of messages is alive at a time")]
pub enum CoordinatorMessage {
    /// Always the first.
    Welcome(Welcome),
    /// The answer to a heartbeat.
    HeartbeatAnswer(HeartbeatAnswer),
    /// A job to run.
    Assignment(Assignment),
    /// Everything up to and with this is durable.
    EvidenceAcknowledged(HighWater),
    /// How much of a raw file is stored.
    ArtifactAcknowledged(ArtifactReceived),
    /// The attempt is to stop; the reason is for people.
    Cancel(Refusal),
    /// What the attempt is for is known: its loops end early; the reason is for people.
    Conclude(Refusal),
    /// Everything of the attempt is stored.
    Release(Lease),
    /// The lease does not stand (any more).
    LeaseRefused(Refusal),
}

/// Who the agent is, what it can do, what it still holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    /// Kept in the agent's data folder.
    pub agent: AgentId,
    /// Unique in the fleet; 1 to 100 of `[A-Za-z0-9._-]`.
    pub name: String,
    /// See [`crate::PROTOCOL`]; any number passes here, so that the coordinator can say what it expects.
    pub protocol: u32,
    /// Of the pgsoak binary.
    pub version: String,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Attempts whose folders are still there.
    pub held: Vec<HeldJob>,
}

/// What a host can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Jobs at once, at least 1.
    pub slots: u32,
    /// Usable; at least 1.
    pub cores: u32,
    /// MemTotal.
    pub memory_bytes: u64,
    /// As in `uname -r`.
    pub kernel: String,
    /// Tools that work here.
    pub tools: Vec<ToolFound>,
    /// Servers that are installed.
    pub postgres: Vec<PostgresFound>,
    /// Packages of the build cache.
    pub builds: Vec<BuildFound>,
    /// What plans may ask for.
    pub labels: BTreeMap<String, String>,
    /// The host's name.
    pub host: String,
}

/// A tool that works on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolFound {
    /// Which.
    pub tool: Tool,
    /// As it says of itself; empty for plain.
    pub version: String,
}

/// A server that is installed on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresFound {
    /// 10 to 99.
    pub major: u32,
    /// As in `pg_config --version`.
    pub version: String,
    /// Absolute path of its `pg_config`.
    pub pg_config: PathBuf,
}

/// A package in a host's build cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFound {
    /// Always a [`BuildRef::Release`].
    pub build: BuildRef,
    /// The server it was built for; 10 to 99.
    pub postgres_major: u32,
}

/// An attempt that an agent has a folder of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldJob {
    /// Its lease.
    pub lease: Lease,
    /// Of the evidence in its spool; 0: none.
    pub last_sequence: u64,
    /// Whether its runner lives.
    pub is_running: bool,
}

/// The coordinator's first answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Of the pgsoak binary.
    pub coordinator_version: String,
    /// 100 ms to 60 s.
    pub heartbeat_every: Duration,
    /// Silence after which the agent counts as unreachable.
    pub lease_ttl: Duration,
    /// One for each held job whose lease stands.
    pub high_water: Vec<HighWater>,
}

/// How far the evidence of an attempt is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HighWater {
    /// The attempt.
    pub lease: Lease,
    /// Everything up to and with this one is durable; 0: nothing.
    pub sequence: u64,
}

/// An agent lives, and its jobs stand so.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    /// Wall clock of the agent, microseconds since 1970.
    pub sent_at_unix_us: u64,
    /// One for each attempt that it holds.
    pub jobs: Vec<JobProgress>,
    /// Why the host takes no further job now; empty: it does.
    pub busy: String,
}

/// The answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    /// As the agent sent it, microseconds since 1970.
    pub sent_at_unix_us: u64,
    /// Wall clock of the coordinator, microseconds since 1970.
    pub answered_at_unix_us: u64,
}

/// Which part of its life an attempt is in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStage {
    /// Tree, cluster.
    Preparing,
    /// Phases.
    Running,
    /// The server stops, tools write their reports.
    Finishing,
    /// The runner is gone; evidence may still be on its way.
    Ended,
}

/// Where an attempt stands. For people; no verdict rests on it. The content of `progress.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobProgress {
    /// The attempt.
    pub lease: Lease,
    /// Which part of its life it is in.
    pub stage: JobStage,
    /// Name of the phase; empty: none yet.
    pub phase: String,
    /// Rounds done or under way in this phase.
    pub round: u32,
    /// 0: unknown (by time).
    pub rounds: u32,
    /// Done so far.
    pub operations: u64,
    /// Share in [0, 1].
    pub done: f64,
    /// Milliseconds left, estimated; 0: unknown.
    pub left_ms: u64,
    /// Of the largest session.
    pub rss_anon_bytes: u64,
}

/// Frames of one attempt: in the order of their sequences, without a hole, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct EvidenceBatch {
    /// The attempt.
    pub lease: Lease,
    /// Each sequence is one more than the one before.
    pub frames: Vec<Frame>,
    /// Frames up to and with this sequence that the coordinator does not have will never come; 0: none. Below the first
    /// frame of the batch.
    pub lost_up_to: u64,
}

/// A piece of a raw file, which is zstd-compressed as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactChunk {
    /// The attempt.
    pub lease: Lease,
    /// File name without folders, 1 to 200 bytes.
    pub name: String,
    /// Bytes.
    pub offset: u64,
    /// At most [`crate::MAX_CHUNK_BYTES`]; ends within `total_bytes`.
    pub data: Vec<u8>,
    /// Of the whole file.
    pub total_bytes: u64,
    /// 64 hex digits, of the whole file.
    pub sha256: String,
}

/// How much of a raw file is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactReceived {
    /// The attempt.
    pub lease: Lease,
    /// Its file name.
    pub name: String,
    /// Stored without a hole from 0.
    pub received_bytes: u64,
}

/// A job to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// The right to run it; of the same job as the spec.
    pub lease: Lease,
    /// The job.
    pub spec: JobSpec,
}

/// An attempt and a reason: of a refusal, a cancel, the end of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The attempt.
    pub lease: Lease,
    /// A sentence for people; may be empty.
    pub reason: String,
}
