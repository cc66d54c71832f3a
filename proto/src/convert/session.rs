//! The session's messages.

use crate::convert::{
    InvalidMessage, Within, cut, each, in_range, invalid, milliseconds, parsed, required,
    same_words, sha256, text, word,
};
use crate::evidence::Frame;
use crate::job::{BuildRef, Lease};
use crate::session::{
    AgentMessage, ArtifactChunk, ArtifactReceived, Assignment, BuildFound, Capabilities,
    CoordinatorMessage, EvidenceBatch, Heartbeat, HeartbeatAnswer, HeldJob, Hello, HighWater,
    JobProgress, JobStage, PostgresFound, Refusal, ToolFound, Welcome,
};
use crate::wire;
use crate::wire::{agent_message, coordinator_message};
use std::{path::PathBuf, time::Duration};

const AGENT_NAME_BYTES: usize = 100;
const ARTIFACT_NAME_BYTES: usize = 200;
const HEARTBEAT_EVERY_MS: std::ops::RangeInclusive<u64> = 100..=60_000;
const MAJORS: std::ops::RangeInclusive<u32> = 10..=99;

same_words!(JobStage, wire::JobStage: Preparing, Running, Finishing, Ended);

fn lease_from(lease: Option<wire::Lease>) -> Result<Lease, InvalidMessage> {
    required(lease, "lease")?.try_into().within("lease")
}

/// A file name that cannot leave its folder.
fn artifact_name(name: String) -> Result<String, InvalidMessage> {
    let name = text(name, 1..=ARTIFACT_NAME_BYTES, "name")?;
    if name.contains(['/', '\0', '\\']) || matches!(name.as_str(), "." | "..") {
        return Err(invalid("name", "is not a plain file name"));
    }
    Ok(name)
}

impl TryFrom<wire::AgentMessage> for AgentMessage {
    type Error = InvalidMessage;

    fn try_from(wire: wire::AgentMessage) -> Result<Self, Self::Error> {
        let wire::AgentMessage { body } = wire;
        use agent_message::Body;
        Ok(match required(body, "body")? {
            Body::Hello(w) => Self::Hello(w.try_into().within("hello")?),
            Body::Heartbeat(w) => Self::Heartbeat(w.try_into().within("heartbeat")?),
            Body::Evidence(w) => Self::Evidence(w.try_into().within("evidence")?),
            Body::Artifact(w) => Self::Artifact(w.try_into().within("artifact")?),
            Body::CancelAcknowledged(wire::CancelAcknowledged { lease }) => {
                Self::CancelAcknowledged(lease_from(lease).within("cancel_acknowledged")?)
            }
            Body::AssignmentRefused(wire::AssignmentRefused { lease, reason }) => {
                let lease = lease_from(lease).within("assignment_refused")?;
                Self::AssignmentRefused(Refusal { lease, reason })
            }
            Body::Delivered(wire::Delivered { lease }) => {
                Self::Delivered(lease_from(lease).within("delivered")?)
            }
        })
    }
}

impl From<AgentMessage> for wire::AgentMessage {
    fn from(message: AgentMessage) -> Self {
        use agent_message::Body;
        let body = match message {
            AgentMessage::Hello(m) => Body::Hello((&m).into()),
            AgentMessage::Heartbeat(m) => Body::Heartbeat((&m).into()),
            AgentMessage::Evidence(EvidenceBatch { lease, frames, lost_up_to }) => {
                Body::Evidence(wire::EvidenceBatch {
                    lease: Some(lease.into()),
                    frames: frames.iter().map(Into::into).collect(),
                    lost_up_to,
                })
            }
            AgentMessage::Artifact(m) => Body::Artifact(m.into()),
            AgentMessage::CancelAcknowledged(lease) => {
                Body::CancelAcknowledged(wire::CancelAcknowledged { lease: Some(lease.into()) })
            }
            AgentMessage::AssignmentRefused(Refusal { lease, reason }) => {
                let lease = Some(lease.into());
                Body::AssignmentRefused(wire::AssignmentRefused { lease, reason })
            }
            AgentMessage::Delivered(lease) => {
                Body::Delivered(wire::Delivered { lease: Some(lease.into()) })
            }
        };
        Self { body: Some(body) }
    }
}

impl TryFrom<wire::CoordinatorMessage> for CoordinatorMessage {
    type Error = InvalidMessage;

    fn try_from(wire: wire::CoordinatorMessage) -> Result<Self, Self::Error> {
        let wire::CoordinatorMessage { body } = wire;
        use coordinator_message::Body;
        Ok(match required(body, "body")? {
            Body::Welcome(w) => Self::Welcome(w.try_into().within("welcome")?),
            Body::Heartbeat(wire::HeartbeatAnswer { sent_at_unix_us, answered_at_unix_us }) => {
                Self::HeartbeatAnswer(HeartbeatAnswer { sent_at_unix_us, answered_at_unix_us })
            }
            Body::Assignment(w) => Self::Assignment(w.try_into().within("assignment")?),
            Body::EvidenceAcknowledged(wire::EvidenceAcknowledged { lease, sequence }) => {
                let lease = lease_from(lease).within("evidence_acknowledged")?;
                Self::EvidenceAcknowledged(HighWater { lease, sequence })
            }
            Body::ArtifactAcknowledged(w) => {
                Self::ArtifactAcknowledged(w.try_into().within("artifact_acknowledged")?)
            }
            Body::Cancel(wire::CancelJob { lease, reason }) => {
                Self::Cancel(Refusal { lease: lease_from(lease).within("cancel")?, reason })
            }
            Body::Conclude(wire::ConcludeJob { lease, reason }) => {
                Self::Conclude(Refusal { lease: lease_from(lease).within("conclude")?, reason })
            }
            Body::Release(wire::ReleaseJob { lease }) => {
                Self::Release(lease_from(lease).within("release")?)
            }
            Body::LeaseRefused(wire::LeaseRefused { lease, reason }) => {
                let lease = lease_from(lease).within("lease_refused")?;
                Self::LeaseRefused(Refusal { lease, reason })
            }
        })
    }
}

impl From<CoordinatorMessage> for wire::CoordinatorMessage {
    fn from(message: CoordinatorMessage) -> Self {
        use coordinator_message::Body;
        let body = match message {
            CoordinatorMessage::Welcome(m) => Body::Welcome(m.into()),
            CoordinatorMessage::HeartbeatAnswer(m) => {
                let HeartbeatAnswer { sent_at_unix_us, answered_at_unix_us } = m;
                Body::Heartbeat(wire::HeartbeatAnswer { sent_at_unix_us, answered_at_unix_us })
            }
            CoordinatorMessage::Assignment(Assignment { lease, spec }) => {
                let (lease, spec) = (Some(lease.into()), Some((&spec).into()));
                Body::Assignment(wire::Assignment { lease, spec })
            }
            CoordinatorMessage::EvidenceAcknowledged(HighWater { lease, sequence }) => {
                let lease = Some(lease.into());
                Body::EvidenceAcknowledged(wire::EvidenceAcknowledged { lease, sequence })
            }
            CoordinatorMessage::ArtifactAcknowledged(m) => {
                let ArtifactReceived { lease, name, received_bytes } = m;
                let lease = Some(lease.into());
                Body::ArtifactAcknowledged(wire::ArtifactAcknowledged {
                    lease,
                    name,
                    received_bytes,
                })
            }
            CoordinatorMessage::Cancel(Refusal { lease, reason }) => {
                Body::Cancel(wire::CancelJob { lease: Some(lease.into()), reason })
            }
            CoordinatorMessage::Conclude(Refusal { lease, reason }) => {
                Body::Conclude(wire::ConcludeJob { lease: Some(lease.into()), reason })
            }
            CoordinatorMessage::Release(lease) => {
                Body::Release(wire::ReleaseJob { lease: Some(lease.into()) })
            }
            CoordinatorMessage::LeaseRefused(Refusal { lease, reason }) => {
                Body::LeaseRefused(wire::LeaseRefused { lease: Some(lease.into()), reason })
            }
        };
        Self { body: Some(body) }
    }
}

impl TryFrom<wire::Hello> for Hello {
    type Error = InvalidMessage;

    fn try_from(wire: wire::Hello) -> Result<Self, Self::Error> {
        let wire::Hello { agent_id, name, protocol, version, capabilities, held } = wire;
        let name = text(name, 1..=AGENT_NAME_BYTES, "name")?;
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            return Err(invalid("name", "has a character that is none of A-Z a-z 0-9 . _ -"));
        }
        Ok(Self {
            agent: parsed(&agent_id, "agent_id")?,
            name,
            protocol,
            version,
            capabilities: required(capabilities, "capabilities")?
                .try_into()
                .within("capabilities")?,
            held: each(held, "held")?,
        })
    }
}

impl From<&Hello> for wire::Hello {
    fn from(hello: &Hello) -> Self {
        let Hello { agent, name, protocol, version, capabilities, held } = hello;
        Self {
            agent_id: agent.to_string(),
            name: name.clone(),
            protocol: *protocol,
            version: version.clone(),
            capabilities: Some(capabilities.into()),
            held: held.iter().map(|held| (*held).into()).collect(),
        }
    }
}

impl TryFrom<wire::Capabilities> for Capabilities {
    type Error = InvalidMessage;

    fn try_from(wire: wire::Capabilities) -> Result<Self, Self::Error> {
        let wire::Capabilities {
            slots,
            cores,
            memory_bytes,
            kernel,
            tools,
            postgres,
            builds,
            labels,
            host,
        } = wire;
        Ok(Self {
            slots: in_range(slots, 1..=u32::MAX, "slots")?,
            cores: in_range(cores, 1..=u32::MAX, "cores")?,
            memory_bytes,
            kernel,
            tools: each(tools, "tools")?,
            postgres: each(postgres, "postgres")?,
            builds: each(builds, "builds")?,
            labels,
            host,
        })
    }
}

impl From<&Capabilities> for wire::Capabilities {
    fn from(capabilities: &Capabilities) -> Self {
        let Capabilities {
            slots,
            cores,
            memory_bytes,
            kernel,
            tools,
            postgres,
            builds,
            labels,
            host,
        } = capabilities;
        Self {
            slots: (*slots).max(1),
            cores: (*cores).max(1),
            memory_bytes: *memory_bytes,
            kernel: kernel.clone(),
            tools: tools.iter().map(Into::into).collect(),
            postgres: postgres.iter().map(Into::into).collect(),
            builds: builds.iter().map(Into::into).collect(),
            labels: labels.clone(),
            host: host.clone(),
        }
    }
}

impl TryFrom<wire::ToolFound> for ToolFound {
    type Error = InvalidMessage;

    fn try_from(wire: wire::ToolFound) -> Result<Self, Self::Error> {
        let wire::ToolFound { tool, version } = wire;
        Ok(Self { tool: word::<wire::Tool, _>(tool, "tool")?, version })
    }
}

impl From<&ToolFound> for wire::ToolFound {
    fn from(found: &ToolFound) -> Self {
        let ToolFound { tool, version } = found;
        Self { tool: wire::Tool::from(*tool).into(), version: version.clone() }
    }
}

impl TryFrom<wire::PostgresFound> for PostgresFound {
    type Error = InvalidMessage;

    fn try_from(wire: wire::PostgresFound) -> Result<Self, Self::Error> {
        let wire::PostgresFound { major, version, pg_config } = wire;
        let major = in_range(major, MAJORS, "major")?;
        let pg_config = PathBuf::from(pg_config);
        if !pg_config.is_absolute() {
            return Err(invalid("pg_config", "is not an absolute path"));
        }
        Ok(Self { major, version, pg_config })
    }
}

impl From<&PostgresFound> for wire::PostgresFound {
    fn from(found: &PostgresFound) -> Self {
        let PostgresFound { major, version, pg_config } = found;
        Self { major: *major, version: version.clone(), pg_config: pg_config.display().to_string() }
    }
}

impl TryFrom<wire::BuildFound> for BuildFound {
    type Error = InvalidMessage;

    fn try_from(wire: wire::BuildFound) -> Result<Self, Self::Error> {
        let wire::BuildFound { build, postgres_major } = wire;
        let build: BuildRef = parsed(&build, "build")?;
        if !matches!(build, BuildRef::Release { .. }) {
            return Err(invalid("build", "is not NAME@RELEASE"));
        }
        Ok(Self { build, postgres_major: in_range(postgres_major, MAJORS, "postgres_major")? })
    }
}

impl From<&BuildFound> for wire::BuildFound {
    fn from(found: &BuildFound) -> Self {
        let BuildFound { build, postgres_major } = found;
        Self { build: build.to_string(), postgres_major: *postgres_major }
    }
}

impl TryFrom<wire::HeldJob> for HeldJob {
    type Error = InvalidMessage;

    fn try_from(wire: wire::HeldJob) -> Result<Self, Self::Error> {
        let wire::HeldJob { lease, last_sequence, is_running } = wire;
        Ok(Self { lease: lease_from(lease)?, last_sequence, is_running })
    }
}

impl From<HeldJob> for wire::HeldJob {
    fn from(held: HeldJob) -> Self {
        let HeldJob { lease, last_sequence, is_running } = held;
        Self { lease: Some(lease.into()), last_sequence, is_running }
    }
}

impl TryFrom<wire::Welcome> for Welcome {
    type Error = InvalidMessage;

    fn try_from(wire: wire::Welcome) -> Result<Self, Self::Error> {
        let wire::Welcome { coordinator_version, heartbeat_every_ms, lease_ttl_ms, high_water } =
            wire;
        let every = in_range(heartbeat_every_ms, HEARTBEAT_EVERY_MS, "heartbeat_every_ms")?;
        Ok(Self {
            coordinator_version,
            heartbeat_every: Duration::from_millis(every),
            lease_ttl: Duration::from_millis(lease_ttl_ms),
            high_water: each(high_water, "high_water")?,
        })
    }
}

impl From<Welcome> for wire::Welcome {
    fn from(welcome: Welcome) -> Self {
        let Welcome { coordinator_version, heartbeat_every, lease_ttl, high_water } = welcome;
        Self {
            coordinator_version,
            heartbeat_every_ms: milliseconds(heartbeat_every)
                .clamp(*HEARTBEAT_EVERY_MS.start(), *HEARTBEAT_EVERY_MS.end()),
            lease_ttl_ms: milliseconds(lease_ttl),
            high_water: high_water.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::HighWater> for HighWater {
    type Error = InvalidMessage;

    fn try_from(wire: wire::HighWater) -> Result<Self, Self::Error> {
        let wire::HighWater { lease, sequence } = wire;
        Ok(Self { lease: lease_from(lease)?, sequence })
    }
}

impl From<HighWater> for wire::HighWater {
    fn from(high_water: HighWater) -> Self {
        let HighWater { lease, sequence } = high_water;
        Self { lease: Some(lease.into()), sequence }
    }
}

impl TryFrom<wire::Heartbeat> for Heartbeat {
    type Error = InvalidMessage;

    fn try_from(wire: wire::Heartbeat) -> Result<Self, Self::Error> {
        let wire::Heartbeat { sent_at_unix_us, jobs, busy } = wire;
        let busy = busy.chars().filter(|c| !c.is_control()).take(200).collect();
        Ok(Self { sent_at_unix_us, jobs: each(jobs, "jobs")?, busy })
    }
}

impl From<&Heartbeat> for wire::Heartbeat {
    fn from(heartbeat: &Heartbeat) -> Self {
        let Heartbeat { sent_at_unix_us, jobs, busy } = heartbeat;
        let jobs = jobs.iter().map(Into::into).collect();
        Self { sent_at_unix_us: *sent_at_unix_us, jobs, busy: busy.clone() }
    }
}

impl TryFrom<wire::JobProgress> for JobProgress {
    type Error = InvalidMessage;

    fn try_from(wire: wire::JobProgress) -> Result<Self, Self::Error> {
        let wire::JobProgress {
            lease,
            stage,
            phase,
            round,
            rounds,
            operations,
            done,
            left_ms,
            rss_anon_bytes,
        } = wire;
        Ok(Self {
            lease: lease_from(lease)?,
            stage: word::<wire::JobStage, _>(stage, "stage")?,
            phase,
            round,
            rounds,
            operations,
            done: in_range(done, 0.0..=1.0, "done")?,
            left_ms,
            rss_anon_bytes,
        })
    }
}

impl From<&JobProgress> for wire::JobProgress {
    fn from(progress: &JobProgress) -> Self {
        let JobProgress {
            lease,
            stage,
            phase,
            round,
            rounds,
            operations,
            done,
            left_ms,
            rss_anon_bytes,
        } = progress;
        Self {
            lease: Some((*lease).into()),
            stage: wire::JobStage::from(*stage).into(),
            phase: phase.clone(),
            round: *round,
            rounds: *rounds,
            operations: *operations,
            done: if done.is_nan() { 0.0 } else { done.clamp(0.0, 1.0) },
            left_ms: *left_ms,
            rss_anon_bytes: *rss_anon_bytes,
        }
    }
}

impl TryFrom<wire::EvidenceBatch> for EvidenceBatch {
    type Error = InvalidMessage;

    fn try_from(wire: wire::EvidenceBatch) -> Result<Self, Self::Error> {
        let wire::EvidenceBatch { lease, frames, lost_up_to } = wire;
        let lease = lease_from(lease)?;
        let frames: Vec<Frame> = each(frames, "frames")?;
        let Some(first) = frames.first() else {
            return Err(invalid("frames", "has no frame"));
        };
        if lost_up_to >= first.sequence {
            return Err(invalid("lost_up_to", "is not below the first frame"));
        }
        if !frames.is_sorted_by(|a, b| a.sequence.checked_add(1) == Some(b.sequence)) {
            return Err(invalid("frames", "has a hole in its sequences"));
        }
        Ok(Self { lease, frames, lost_up_to })
    }
}

impl TryFrom<wire::ArtifactChunk> for ArtifactChunk {
    type Error = InvalidMessage;

    fn try_from(wire: wire::ArtifactChunk) -> Result<Self, Self::Error> {
        let wire::ArtifactChunk { lease, name, offset, data, total_bytes, sha256: digest } = wire;
        in_range(data.len(), 0..=crate::MAX_CHUNK_BYTES, "data")?;
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        if offset.checked_add(length).is_none_or(|end| end > total_bytes) {
            return Err(invalid("offset", "and data reach past total_bytes"));
        }
        Ok(Self {
            lease: lease_from(lease)?,
            name: artifact_name(name)?,
            offset,
            data,
            total_bytes,
            sha256: sha256(digest, "sha256")?,
        })
    }
}

impl From<ArtifactChunk> for wire::ArtifactChunk {
    fn from(chunk: ArtifactChunk) -> Self {
        let ArtifactChunk { lease, name, offset, data, total_bytes, sha256 } = chunk;
        let name = cut(&name, ARTIFACT_NAME_BYTES);
        Self { lease: Some(lease.into()), name, offset, data, total_bytes, sha256 }
    }
}

impl TryFrom<wire::ArtifactAcknowledged> for ArtifactReceived {
    type Error = InvalidMessage;

    fn try_from(wire: wire::ArtifactAcknowledged) -> Result<Self, Self::Error> {
        let wire::ArtifactAcknowledged { lease, name, received_bytes } = wire;
        Ok(Self { lease: lease_from(lease)?, name: artifact_name(name)?, received_bytes })
    }
}

impl TryFrom<wire::Assignment> for Assignment {
    type Error = InvalidMessage;

    fn try_from(wire: wire::Assignment) -> Result<Self, Self::Error> {
        let wire::Assignment { lease, spec } = wire;
        let assignment = Self {
            lease: lease_from(lease)?,
            spec: required(spec, "spec")?.try_into().within("spec")?,
        };
        if assignment.lease.job != assignment.spec.job {
            return Err(invalid("lease.job_id", "is not that of the spec"));
        }
        Ok(assignment)
    }
}
