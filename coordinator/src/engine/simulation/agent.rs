//! A scripted agent: holds attempts, spools frames, sends, resends, forgets what is acknowledged.

use crate::engine::simulation::world::HEARTBEAT;
use pgsoak_proto::evidence::{AttemptEnded, AttemptStarted, Body, Frame, Gap};
use pgsoak_proto::id::{AgentId, JobId};
use pgsoak_proto::job::{Lease, Outcome, Tool};
use pgsoak_proto::session::{
    AgentMessage, Capabilities, CoordinatorMessage, EvidenceBatch, Heartbeat, HeldJob, Hello,
    JobProgress, JobStage, PostgresFound, Refusal, ToolFound,
};
use std::{collections::BTreeMap, time::Duration};

/// Frames in one batch.
const BATCH: u64 = 40;
/// Frames on their way.
const WINDOW: u64 = 160;

/// An attempt with a folder.
#[derive(Debug)]
pub(super) struct Held {
    /// When the runner ends by itself.
    pub(super) ends_at: Duration,
    pub(super) outcome: Outcome,
    pub(super) is_running: bool,
    /// Frames that were made.
    pub(super) last: u64,
    pub(super) acked: u64,
    sent: u64,
    may_send: bool,
    owes_cancel: bool,
    is_delivered: bool,
    reason: String,
}

pub(super) struct Agent {
    pub(super) id: AgentId,
    pub(super) name: String,
    pub(super) slots: u32,
    /// The daemon is down until then.
    pub(super) down_until: Duration,
    /// Nothing gets through until then, by direction.
    pub(super) cut_to: Duration,
    pub(super) cut_from: Duration,
    pub(super) held: BTreeMap<Lease, Held>,
    /// The pipe of its session.
    pub(super) pipe: Option<u64>,
    pub(super) is_welcome: bool,
    pub(super) heard_at: Duration,
    pub(super) retry_at: Duration,
    /// Attempts that really ran, with the frames they made.
    pub(super) made: BTreeMap<(JobId, u32), (u64, Outcome)>,
    /// Attempts whose lease did not stand.
    pub(super) refused: Vec<(Lease, String)>,
}

/// Frame `sequence` of an attempt; the same bytes whenever it is asked for.
pub(super) fn frame(lease: Lease, sequence: u64, end: Option<(Outcome, &str)>) -> Frame {
    let body = match end {
        _ if sequence == 1 => Body::Started(AttemptStarted {
            started_at_unix_us: 1,
            host: "h".to_owned(),
            kernel: "k".to_owned(),
            cores: 1,
            memory_bytes: 1,
            postgres_version: "p".to_owned(),
            sample_every_ms: 1_000,
            ..AttemptStarted::default()
        }),
        Some((outcome, reason)) => Body::Ended(AttemptEnded {
            ticks: sequence,
            ..AttemptEnded::bare(outcome, reason.to_owned())
        }),
        None => {
            let cause = format!("{}-{}", lease.job, lease.attempt);
            Body::Gap(Gap { first_tick: sequence, ticks: 1, cause })
        }
    };
    Frame { sequence, elapsed: Duration::from_millis(sequence), body }
}

// === impl Held ===

impl Held {
    fn end(&mut self, outcome: Outcome, reason: &str) {
        if self.is_running {
            self.is_running = false;
            self.outcome = outcome;
            reason.clone_into(&mut self.reason);
            self.last += 1;
        }
    }

    fn restart(&mut self, mark: u64) {
        self.may_send = true;
        self.sent = mark;
        self.acked = self.acked.max(mark);
        self.is_delivered = false;
    }
}

// === impl Agent ===

impl Agent {
    pub(super) fn new(id: AgentId, number: usize, slots: u32) -> Self {
        Self {
            id,
            name: format!("a{number}"),
            slots,
            down_until: Duration::ZERO,
            cut_to: Duration::ZERO,
            cut_from: Duration::ZERO,
            held: BTreeMap::new(),
            pipe: None,
            is_welcome: false,
            heard_at: Duration::ZERO,
            retry_at: Duration::ZERO,
            made: BTreeMap::new(),
            refused: Vec::new(),
        }
    }

    pub(super) fn hello(&self) -> Hello {
        let held = self.held.iter().map(|(lease, held)| HeldJob {
            lease: *lease,
            last_sequence: held.last,
            is_running: held.is_running,
        });
        Hello {
            agent: self.id,
            name: self.name.clone(),
            protocol: pgsoak_proto::PROTOCOL,
            version: "0".to_owned(),
            capabilities: Capabilities {
                slots: self.slots,
                cores: 2,
                memory_bytes: 1 << 30,
                kernel: "k".to_owned(),
                tools: [Tool::Memcheck, Tool::Heaptrack]
                    .map(|tool| ToolFound { tool, version: "t".to_owned() })
                    .to_vec(),
                postgres: vec![PostgresFound {
                    major: 18,
                    version: "PostgreSQL 18.4".to_owned(),
                    pg_config: "/pg_config".into(),
                }],
                builds: Vec::new(),
                labels: BTreeMap::new(),
                host: "h".to_owned(),
            },
            held: held.collect(),
        }
    }

    /// The runners work, whether or not a daemon is there.
    pub(super) fn work(&mut self, now: Duration) {
        for (lease, held) in &mut self.held {
            if !held.is_running {
                continue;
            }
            if now >= held.ends_at {
                let outcome = held.outcome;
                held.end(outcome, "");
            } else {
                held.last += 1;
            }
            self.made.insert((lease.job, lease.attempt), (held.last, held.outcome));
        }
    }

    pub(super) fn lose_session(&mut self, now: Duration, pause: Duration) {
        self.pipe = None;
        self.is_welcome = false;
        self.retry_at = now + pause;
        for held in self.held.values_mut() {
            held.may_send = false;
        }
    }

    /// Obeys a message of the present session; how long a new attempt takes and how it ends is drawn by the caller.
    pub(super) fn obey(
        &mut self,
        now: Duration,
        message: CoordinatorMessage,
        draw: impl FnOnce() -> (Duration, Outcome),
    ) -> Option<AgentMessage> {
        self.heard_at = now;
        match message {
            CoordinatorMessage::Welcome(welcome) => {
                self.is_welcome = true;
                for mark in welcome.high_water {
                    let held = self.held.get_mut(&mark.lease).expect("only held leases are named");
                    assert!(
                        mark.sequence >= held.acked,
                        "frame {} of {:?} was acknowledged; the coordinator has {}",
                        held.acked,
                        mark.lease,
                        mark.sequence
                    );
                    held.restart(mark.sequence);
                }
            }
            CoordinatorMessage::Assignment(assignment) => {
                let lease = assignment.lease;
                if let Some(held) = self.held.get_mut(&lease) {
                    let acked = held.acked;
                    held.restart(acked);
                    return None;
                }
                let busy = self.held.values().filter(|held| held.is_running).count();
                if busy >= self.slots as usize {
                    let reason = "all slots are taken".to_owned();
                    return Some(AgentMessage::AssignmentRefused(Refusal { lease, reason }));
                }
                let (length, outcome) = draw();
                let held = Held {
                    ends_at: now + length,
                    outcome,
                    is_running: true,
                    last: 1,
                    acked: 0,
                    sent: 0,
                    may_send: true,
                    owes_cancel: false,
                    is_delivered: false,
                    reason: String::new(),
                };
                self.made.insert((lease.job, lease.attempt), (1, outcome));
                self.held.insert(lease, held);
            }
            CoordinatorMessage::EvidenceAcknowledged(mark) => {
                if let Some(held) = self.held.get_mut(&mark.lease) {
                    assert!(mark.sequence <= held.last, "more is acknowledged than was made");
                    held.acked = held.acked.max(mark.sequence);
                    held.sent = held.sent.max(mark.sequence);
                }
            }
            CoordinatorMessage::Cancel(Refusal { lease, reason }) => {
                if let Some(held) = self.held.get_mut(&lease) {
                    held.end(Outcome::Cancelled, &reason);
                    held.owes_cancel = true;
                    self.made.insert((lease.job, lease.attempt), (held.last, held.outcome));
                } else {
                    // Nothing of it is here.
                    return Some(AgentMessage::CancelAcknowledged(lease));
                }
            }
            // Scripted evidence proves nothing.
            CoordinatorMessage::Conclude(_) => {}
            CoordinatorMessage::Release(lease) => {
                if let Some(held) = self.held.remove(&lease) {
                    assert!(!held.is_running, "{lease:?} was released while it ran");
                    assert_eq!(
                        held.acked, held.last,
                        "{lease:?} was released before all was stored"
                    );
                }
            }
            CoordinatorMessage::LeaseRefused(Refusal { lease, reason }) => {
                if self.held.remove(&lease).is_some() {
                    self.refused.push((lease, reason));
                }
            }
            CoordinatorMessage::HeartbeatAnswer(_)
            | CoordinatorMessage::ArtifactAcknowledged(_) => {}
        }
        None
    }

    /// What it has to say now.
    pub(super) fn say(&mut self) -> Vec<AgentMessage> {
        let progress = |(lease, held): (&Lease, &Held)| JobProgress {
            lease: *lease,
            stage: if held.is_running { JobStage::Running } else { JobStage::Ended },
            phase: "a".to_owned(),
            round: 0,
            rounds: 0,
            operations: 0,
            done: 0.0,
            left_ms: u64::try_from(HEARTBEAT.as_millis()).unwrap(),
            rss_anon_bytes: 0,
        };
        let jobs = self.held.iter().map(progress).collect();
        let mut said = vec![AgentMessage::Heartbeat(Heartbeat {
            sent_at_unix_us: 0,
            jobs,
            busy: String::new(),
        })];
        for (lease, held) in &mut self.held {
            if !held.is_running && held.owes_cancel {
                held.owes_cancel = false;
                said.push(AgentMessage::CancelAcknowledged(*lease));
            }
            if !held.may_send {
                continue;
            }
            while held.sent < held.last && held.sent < held.acked + WINDOW {
                let last = held.last.min(held.sent + BATCH);
                let frames = (held.sent + 1..=last)
                    .map(|sequence| {
                        let is_end = !held.is_running && sequence == held.last;
                        let end = is_end.then_some((held.outcome, held.reason.as_str()));
                        frame(*lease, sequence, end)
                    })
                    .collect();
                held.sent = last;
                let batch = EvidenceBatch { lease: *lease, frames, lost_up_to: 0 };
                said.push(AgentMessage::Evidence(batch));
            }
            if !held.is_running && held.acked == held.last && !held.is_delivered {
                held.is_delivered = true;
                said.push(AgentMessage::Delivered(*lease));
            }
        }
        said
    }
}
