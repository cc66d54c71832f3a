//! One session of one agent: what it says goes to the engine and the store, what they say goes back.
//!
//! Evidence and artifacts are stored in a pipeline: the next message is read while those before it are being synced.
//! Acknowledgements leave in the order in which the messages came, and only for what is durable.

use crate::domain::record::ArtifactRecord;
use crate::engine::fleet::Join;
use crate::engine::handle::{EvidenceStored, Greeting, Request, SESSION_QUEUE, SessionId};
use crate::rpc::server::Services;
use crate::rpc::status::{IntoStatus, OrStatus};
use crate::store::artifacts::{ArtifactError, ArtifactWrite, Received};
use crate::store::evidence::{Append, AppendError, Appended};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use pgsoak_proto::chain::chain;
use pgsoak_proto::evidence::Body;
use pgsoak_proto::id::RunId;
use pgsoak_proto::job::{Lease, Outcome};
use pgsoak_proto::session::{
    AgentMessage, ArtifactChunk, ArtifactReceived, CoordinatorMessage, EvidenceBatch,
    HeartbeatAnswer, HighWater, Refusal, Welcome,
};
use pgsoak_proto::wire;
use prost::Message as _;
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};
use tonic::{Status, Streaming};
use tracing::{Span, debug, info, warn};

/// How long a fresh connection may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_secs(15);
/// Writes under way for one session: at most so many MiB of evidence in memory.
const WRITES: usize = 16;
/// How often a file whose digest does not agree is asked for in all.
const ARTIFACT_TRIES: u32 = 2;

type Outbound = mpsc::Sender<Result<wire::CoordinatorMessage, Status>>;

/// A write that has come to its end.
enum Done {
    Evidence {
        lease: Lease,
        run: RunId,
        ended: Option<(Outcome, String)>,
        result: Result<Appended, AppendError>,
    },
    Artifact {
        run: RunId,
        lease: Lease,
        record: ArtifactRecord,
        is_first: bool,
        result: Result<Received, ArtifactError>,
    },
}

struct Session<'a> {
    services: &'a Services,
    outbound: &'a Outbound,
    id: SessionId,
    /// Leases that the engine said stand, with their runs.
    standing: HashMap<Lease, RunId>,
    writes: FuturesOrdered<BoxFuture<'static, Done>>,
    /// Files whose digest did not agree, with how often.
    bad_digests: HashMap<(Lease, String), u32>,
}

/// Serves the session to its end.
pub(super) async fn run(
    services: &Services,
    mut inbound: Streaming<wire::AgentMessage>,
    join: Join,
    outbound: &Outbound,
) -> Result<(), Status> {
    let first = tokio::time::timeout(HELLO_WITHIN, inbound.message())
        .await
        .map_err(|_| Status::deadline_exceeded("the agent did not say hello"))??;
    let Some(first) = first else { return Ok(()) };
    let AgentMessage::Hello(hello) = AgentMessage::try_from(first).or_status()? else {
        return Err(Status::failed_precondition("the first message of a session is Hello"));
    };
    Span::current().record("agent", tracing::field::display(&hello.name));
    let (to_session, mut from_engine) = mpsc::channel(SESSION_QUEUE);
    let greeting = services.engine.hello(hello, join, to_session).await.or_status()?.or_status()?;
    let id = greeting.session;
    let mut session = Session {
        services,
        outbound,
        id,
        standing: HashMap::new(),
        writes: FuturesOrdered::new(),
        bad_digests: HashMap::new(),
    };
    let ended = match session.greet(greeting).await {
        Ok(()) => session.serve(&mut inbound, &mut from_engine).await,
        Err(status) => Err(status),
    };
    // An engine that is gone needs no telling.
    let _ = services.engine.tell(Request::Gone(id)).await;
    ended
}

// === impl Session ===

impl Session<'_> {
    async fn say(&mut self, message: CoordinatorMessage) -> Result<(), Status> {
        self.outbound
            .send(Ok(message.into()))
            .await
            .map_err(|_| Status::cancelled("the agent is gone"))
    }

    async fn tell(&mut self, request: Request) -> Result<(), Status> {
        self.services.engine.tell(request).await.or_status()
    }

    async fn greet(&mut self, greeting: Greeting) -> Result<(), Status> {
        let Greeting { continuing, then, .. } = greeting;
        let mut by_run: BTreeMap<RunId, Vec<Lease>> = BTreeMap::new();
        for (run, lease) in continuing {
            self.standing.insert(lease, run);
            by_run.entry(run).or_default().push(lease);
        }
        let mut high_water = Vec::new();
        for (run, leases) in by_run {
            let attempts = leases.iter().map(|lease| (lease.job, lease.attempt)).collect();
            let (marks, damage) =
                self.services.store.high_water(run, attempts).await.or_status()?;
            if let Some(damage) = damage {
                self.tell(Request::Note(run, damage)).await?;
            }
            high_water.extend(
                leases
                    .into_iter()
                    .zip(marks)
                    .map(|(lease, sequence)| HighWater { lease, sequence }),
            );
        }
        self.say(CoordinatorMessage::Welcome(Welcome {
            coordinator_version: env!("CARGO_PKG_VERSION").to_owned(),
            heartbeat_every: self.services.engine.heartbeat_every,
            lease_ttl: self.services.engine.lease_ttl,
            high_water,
        }))
        .await?;
        for message in then {
            self.say(message).await?;
        }
        Ok(())
    }

    async fn serve(
        &mut self,
        inbound: &mut Streaming<wire::AgentMessage>,
        from_engine: &mut mpsc::Receiver<CoordinatorMessage>,
    ) -> Result<(), Status> {
        loop {
            tokio::select! {
                biased;
                () = self.services.shutdown.cancelled() => {
                    return Err(Status::unavailable("the coordinator is shutting down"));
                }
                Some(done) = self.writes.next() => self.finish(done).await?,
                message = from_engine.recv() => match message {
                    Some(message) => {
                        if let CoordinatorMessage::Release(lease)
                        | CoordinatorMessage::LeaseRefused(Refusal { lease, .. }) = &message
                        {
                            self.standing.remove(lease);
                        }
                        self.say(message).await?;
                    }
                    None => return Err(Status::aborted("a newer session of this agent took over")),
                },
                message = inbound.message(), if self.writes.len() < WRITES => match message {
                    Ok(Some(message)) => self.take(message).await?,
                    Ok(None) => {
                        // What it sent before it closed is still stored.
                        while let Some(done) = self.writes.next().await {
                            self.finish(done).await?;
                        }
                        return Ok(());
                    }
                    Err(status) => {
                        info!(%status, "the connection broke");
                        return Ok(());
                    }
                },
            }
        }
    }

    async fn take(&mut self, message: wire::AgentMessage) -> Result<(), Status> {
        // Kept for the one error that has a consequence beyond the session.
        let evidence_of = match &message.body {
            Some(wire::agent_message::Body::Evidence(batch)) => batch.lease.clone(),
            _ => None,
        };
        let message = match AgentMessage::try_from(message) {
            Ok(message) => message,
            Err(error) => {
                let lease = evidence_of.and_then(|lease| Lease::try_from(lease).ok());
                let Some(lease) = lease else { return Err(error.into_status()) };
                warn!(job = %lease.job, attempt = lease.attempt, %error, "evidence breaks the contract");
                return self.tell(Request::Unusable(self.id, lease, error.to_string())).await;
            }
        };
        match message {
            AgentMessage::Hello(_) => {
                Err(Status::failed_precondition("Hello is the first message, and said once"))
            }
            AgentMessage::Heartbeat(heartbeat) => {
                let answer = HeartbeatAnswer {
                    sent_at_unix_us: heartbeat.sent_at_unix_us,
                    answered_at_unix_us: self.services.engine.now().0,
                };
                self.tell(Request::Heartbeat(self.id, heartbeat.jobs, heartbeat.busy)).await?;
                self.say(CoordinatorMessage::HeartbeatAnswer(answer)).await
            }
            AgentMessage::Evidence(batch) => self.evidence(batch).await,
            AgentMessage::Artifact(chunk) => self.artifact(chunk).await,
            AgentMessage::Delivered(lease) => self.tell(Request::Delivered(self.id, lease)).await,
            AgentMessage::CancelAcknowledged(lease) => {
                self.tell(Request::CancelAcknowledged(self.id, lease)).await
            }
            AgentMessage::AssignmentRefused(refusal) => {
                self.tell(Request::AssignmentRefused(self.id, refusal)).await
            }
        }
    }

    /// The run of a lease that stands; otherwise the agent has been told why it does not.
    async fn run_of(&mut self, lease: Lease) -> Result<Option<RunId>, Status> {
        if let Some(run) = self.standing.get(&lease) {
            return Ok(Some(*run));
        }
        match self.services.engine.check_lease(self.id, lease).await.or_status()? {
            Ok(run) => {
                self.standing.insert(lease, run);
                Ok(Some(run))
            }
            Err(reason) => {
                warn!(job = %lease.job, attempt = lease.attempt, reason, "a lease is refused");
                self.say(CoordinatorMessage::LeaseRefused(Refusal { lease, reason })).await?;
                Ok(None)
            }
        }
    }

    async fn evidence(&mut self, batch: EvidenceBatch) -> Result<(), Status> {
        let EvidenceBatch { lease, frames, lost_up_to } = batch;
        let Some(run) = self.run_of(lease).await? else { return Ok(()) };
        let mut ended = None;
        let frames = frames
            .into_iter()
            .map(|frame| {
                if let Body::Ended(end) = &frame.body {
                    ended = Some((end.outcome, end.reason.clone()));
                }
                (frame.sequence, wire::Frame::from(&frame).encode_to_vec())
            })
            .collect();
        let append = Append { run, job: lease.job, attempt: lease.attempt, frames, lost_up_to };
        let arrived = Instant::now();
        let frames = u64::try_from(append.frames.len()).unwrap_or(u64::MAX);
        let appending = self.services.store.append(append).await.or_status()?;
        let metrics = self.services.engine.metrics.clone();
        self.writes.push_back(Box::pin(async move {
            let result = appending.await;
            match &result {
                Ok(stored) => {
                    metrics.frames.inc_by(frames.saturating_sub(stored.repeated));
                    metrics.lag.observe(arrived.elapsed().as_secs_f64());
                }
                Err(_) => {
                    metrics.batches_failed.inc();
                }
            }
            Done::Evidence { lease, run, ended, result }
        }));
        Ok(())
    }

    async fn artifact(&mut self, chunk: ArtifactChunk) -> Result<(), Status> {
        let ArtifactChunk { lease, name, offset, data, total_bytes, sha256 } = chunk;
        let Some(run) = self.run_of(lease).await? else { return Ok(()) };
        let record = ArtifactRecord {
            is_away: false,
            job: lease.job,
            attempt: lease.attempt,
            name: name.clone(),
            total_bytes,
            sha256: sha256.clone(),
            is_complete: false,
        };
        let write = ArtifactWrite {
            run,
            job: lease.job,
            attempt: lease.attempt,
            name,
            offset,
            data,
            total_bytes,
            sha256,
        };
        let writing = self.services.store.write_artifact(write).await.or_status()?;
        self.writes.push_back(Box::pin(async move {
            let result = writing.await;
            Done::Artifact { run, lease, record, is_first: offset == 0, result }
        }));
        Ok(())
    }

    async fn finish(&mut self, done: Done) -> Result<(), Status> {
        match done {
            Done::Evidence { lease, run, ended, result } => {
                self.finish_evidence(lease, run, ended, result).await
            }
            Done::Artifact { run, lease, record, is_first, result } => {
                self.finish_artifact(run, lease, record, is_first, result).await
            }
        }
    }

    async fn finish_evidence(
        &mut self,
        lease: Lease,
        run: RunId,
        ended: Option<(Outcome, String)>,
        result: Result<Appended, AppendError>,
    ) -> Result<(), Status> {
        match result {
            Ok(Appended { high_water, repeated, skipped }) => {
                debug!(%run, job = %lease.job, high_water, repeated, "evidence is stored");
                // The engine hears of it before the agent does: whatever the agent says next comes after.
                let stored = EvidenceStored { lease, high_water, skipped, ended };
                self.tell(Request::Stored(self.id, stored)).await?;
                let mark = HighWater { lease, sequence: high_water };
                self.say(CoordinatorMessage::EvidenceAcknowledged(mark)).await
            }
            // The next session's welcome says where to go on.
            Err(error @ AppendError::Hole { .. }) => Err(Status::out_of_range(format!(
                "job {} attempt {}: {error}",
                lease.job, lease.attempt
            ))),
            Err(AppendError::Store(error)) => {
                Err(Status::unavailable(format!("evidence cannot be stored: {}", chain(&error))))
            }
        }
    }

    async fn finish_artifact(
        &mut self,
        run: RunId,
        lease: Lease,
        mut record: ArtifactRecord,
        is_first: bool,
        result: Result<Received, ArtifactError>,
    ) -> Result<(), Status> {
        let received_bytes = match result {
            Ok(Received { bytes, is_complete }) => {
                record.is_complete = is_complete;
                let request = if is_complete || is_first {
                    Request::Artifact(self.id, run, lease, record.clone())
                } else {
                    Request::Heard(self.id, lease)
                };
                self.tell(request).await?;
                bytes
            }
            Err(ArtifactError::Store(error)) => {
                return Err(Status::unavailable(format!(
                    "an artifact cannot be stored: {}",
                    chain(&error)
                )));
            }
            Err(error) => {
                let tries = self.bad_digests.entry((lease, record.name.clone())).or_default();
                *tries += 1;
                let is_last =
                    *tries >= ARTIFACT_TRIES || matches!(error, ArtifactError::TooLarge { .. });
                warn!(%run, job = %lease.job, %error, "an artifact is not kept");
                if is_last {
                    // A raw file that cannot be had must not hold its run up.
                    self.tell(Request::Note(run, format!("job {}: {error}", lease.job))).await?;
                    record.total_bytes
                } else {
                    0
                }
            }
        };
        let received = ArtifactReceived { lease, name: record.name, received_bytes };
        self.say(CoordinatorMessage::ArtifactAcknowledged(received)).await
    }
}
