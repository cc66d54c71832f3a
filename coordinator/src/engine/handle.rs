//! How the rest of the program talks to the engine.

use crate::config::CoordinatorConfig;
use crate::domain::alert::Alert;
use crate::domain::build::PinnedPackage;
use crate::domain::record::{AgentRecord, ArtifactRecord, JobRecord, RunInput, RunRecord};
use crate::domain::time::UnixUs;
use crate::engine::census::Census;
use crate::engine::clock::Clock;
use crate::engine::fleet::{FleetRequest, Join};
use crate::engine::notices::Audience;
use crate::engine::schedules::ScheduleRequest;
use crate::metrics::Metrics;
use pgsoak_analysis::sequential::JobLook;
use pgsoak_proto::id::{AgentId, RunId};
use pgsoak_proto::job::{JobSpec, Lease, Outcome};
use pgsoak_proto::session::{CoordinatorMessage, Hello, JobProgress, Refusal};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

/// Requests that may wait for the engine before a caller is held back.
pub(crate) const QUEUE: usize = 256;
/// Alerts that may wait for a listener.
const ALERTS: usize = 256;
/// Messages that may wait for a session. One that takes none for so long is cut: its agent comes back.
pub const SESSION_QUEUE: usize = 256;

/// Talks to the engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    pub(crate) requests: mpsc::Sender<Request>,
    /// Counts changes of anything that people can see.
    pub(crate) changes: watch::Receiver<u64>,
    pub(crate) alerts: broadcast::Sender<Alert>,
    pub(crate) clock: Clock,
    /// What is counted while it happens.
    pub(crate) metrics: Metrics,
    /// Woken when a message was queued.
    pub(crate) has_notices: Arc<Notify>,
    /// How often agents send a heartbeat.
    pub heartbeat_every: Duration,
    /// Silence after which an agent counts as unreachable.
    pub lease_ttl: Duration,
}

/// The engine has ended: the coordinator is shutting down.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the coordinator is shutting down")]
pub struct EngineGone;

/// A run to begin.
#[derive(Debug)]
pub struct Submission {
    /// Its id.
    pub run: RunId,
    /// The plan's name.
    pub plan: String,
    /// Its files.
    pub input: RunInput,
    /// Its jobs, in order.
    pub specs: Vec<JobSpec>,
    /// Chosen by the client; empty: none.
    pub client_key: String,
    /// For filters of the history.
    pub labels: BTreeMap<String, String>,
    /// Among waiting runs the higher comes first; 1 to 100.
    pub priority: u32,
}

/// What a submission came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Submitted {
    /// The run.
    pub run: RunId,
    /// False: the client key was known.
    pub is_new: bool,
}

/// One connection of one agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SessionId {
    /// Whose.
    pub agent: AgentId,
    /// Counts sessions.
    pub number: u64,
}

/// How a session begins.
#[derive(Debug)]
pub struct Greeting {
    /// The session.
    pub session: SessionId,
    /// Held attempts that go on, with their runs.
    pub continuing: Vec<(RunId, Lease)>,
    /// To say right after the welcome.
    pub then: Vec<CoordinatorMessage>,
}

/// Why an agent is not let in.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HelloRefused {
    /// Another protocol.
    #[error(
        "agent {name} speaks protocol {theirs}, this coordinator {ours}; run the same release of pgsoak on both"
    )]
    Protocol {
        /// The agent.
        name: String,
        /// Its protocol.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// The name is taken.
    #[error(
        "another agent is connected as '{name}' ({other}); names are unique, choose one with --name"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        other: AgentId,
    },
    /// The name belongs to an agent that is away and whose jobs are not over.
    #[error(
        "agent '{name}' is known by another id ({other}) and holds {jobs} job(s) that are not over; if its data folder is lost, cancel their runs and `pgsoak agents remove {name}`, else start this one with another --name"
    )]
    NameHeld {
        /// The name.
        name: String,
        /// Who has it.
        other: AgentId,
        /// Its jobs.
        jobs: usize,
    },
}

/// Evidence that has become durable.
#[derive(Debug)]
pub struct EvidenceStored {
    /// The attempt.
    pub lease: Lease,
    /// Everything up to and with this one.
    pub high_water: u64,
    /// Frames that will never come, before the first of this batch.
    pub skipped: u64,
    /// How the attempt ended, when its last frame was among them.
    pub ended: Option<(Outcome, String)>,
}

/// A run with its jobs as they are now.
#[derive(Clone, Debug)]
pub struct RunSnapshot {
    /// The run.
    pub record: RunRecord,
    /// In the order of its plan.
    pub jobs: Vec<JobSnapshot>,
}

/// A job as it is now.
#[derive(Clone, Debug)]
pub struct JobSnapshot {
    /// What was asked; `workload_toml` is empty.
    pub spec: JobSpec,
    /// Where it stands.
    pub record: JobRecord,
    /// Name of its agent; empty: none yet.
    pub agent: String,
    /// The last progress that was heard.
    pub progress: Option<JobProgress>,
    /// Why it waits; empty: it does not.
    pub why: String,
    /// Where it stands while it goes on; `None`: it was not looked at.
    pub look: Option<JobLook>,
    /// Where and when it is likely to start; `None`: it does not wait, or nobody knows.
    pub forecast: Option<(String, UnixUs)>,
}

impl JobSnapshot {
    /// What was seen of it so far; `None`: it is over, or was not looked at.
    pub fn looked_at(&self) -> Option<&JobLook> {
        self.look.as_ref().filter(|look| look.at_s > 0.0 && !self.record.state.is_over())
    }
}

/// An agent as it is now.
#[derive(Clone, Debug)]
pub struct AgentStatus {
    /// As it introduced itself.
    pub record: AgentRecord,
    /// Has a session.
    pub is_connected: bool,
    /// When it was last heard.
    pub seen_at: UnixUs,
    /// Jobs that hold a slot of it.
    pub jobs: usize,
}

/// Where the jobs of a plan would go.
#[derive(Clone, Debug, Default)]
pub struct PlanPlaces {
    /// In the order given: the agent's name and when it is likely to start there (`None`: nobody knows), or why there is none.
    pub jobs: Vec<Result<(String, Option<UnixUs>), String>>,
}

#[derive(Debug)]
pub(crate) enum Request {
    Submit(Box<Submission>, oneshot::Sender<Submitted>),
    Cancel {
        run: RunId,
        reason: String,
        reply: oneshot::Sender<Option<RunSnapshot>>,
    },
    View(RunId, oneshot::Sender<Option<RunSnapshot>>),
    Input(RunId, oneshot::Sender<Option<Arc<RunInput>>>),
    Agents(oneshot::Sender<Vec<AgentStatus>>),
    Census(oneshot::Sender<Census>),
    Audience(Audience),
    Check(Vec<JobSpec>, Vec<PinnedPackage>, u32, oneshot::Sender<PlanPlaces>),
    Hello(
        Box<Hello>,
        Join,
        mpsc::Sender<CoordinatorMessage>,
        oneshot::Sender<Result<Greeting, HelloRefused>>,
    ),
    Gone(SessionId),
    Heartbeat(SessionId, Vec<JobProgress>, String),
    CheckLease(SessionId, Lease, oneshot::Sender<Result<RunId, String>>),
    Stored(SessionId, EvidenceStored),
    Unusable(SessionId, Lease, String),
    Artifact(SessionId, RunId, Lease, ArtifactRecord),
    Heard(SessionId, Lease),
    Note(RunId, String),
    Delivered(SessionId, Lease),
    CancelAcknowledged(SessionId, Lease),
    AssignmentRefused(SessionId, Refusal),
    Schedule(ScheduleRequest),
    Fleet(FleetRequest),
}

// === impl EngineHandle ===

impl EngineHandle {
    pub(crate) fn new(
        config: &CoordinatorConfig,
        requests: mpsc::Sender<Request>,
        changes: watch::Receiver<u64>,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        let CoordinatorConfig { heartbeat_every, lease_ttl, .. } = config;
        let (heartbeat_every, lease_ttl) = (*heartbeat_every, *lease_ttl);
        let (alerts, _) = broadcast::channel(ALERTS);
        let has_notices = Arc::default();
        Self { requests, changes, alerts, clock, metrics, has_notices, heartbeat_every, lease_ttl }
    }

    pub(crate) async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, EngineGone> {
        let (reply, answer) = oneshot::channel();
        self.tell(request(reply)).await?;
        answer.await.map_err(|_| EngineGone)
    }

    pub(crate) async fn tell(&self, request: Request) -> Result<(), EngineGone> {
        self.requests.send(request).await.map_err(|_| EngineGone)
    }

    /// Now, as the engine counts time.
    pub fn now(&self) -> UnixUs {
        self.clock.now()
    }

    /// The wall clock: it may step both ways. For calendars alone.
    pub fn wall(&self) -> UnixUs {
        self.clock.wall()
    }

    /// Alerts from now on, each once it is durable. A listener that is too slow is told how many it missed.
    pub fn alerts(&self) -> broadcast::Receiver<Alert> {
        self.alerts.subscribe()
    }

    /// Changes whenever something that people can see did.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Begins a run; answered when it is durable.
    ///
    /// # Errors
    ///
    /// When the engine has ended.
    pub async fn submit(&self, submission: Submission) -> Result<Submitted, EngineGone> {
        self.ask(|reply| Request::Submit(Box::new(submission), reply)).await
    }

    /// Cancels a run; answered when that is durable. `None`: the engine does not have it (it is finished).
    ///
    /// # Errors
    ///
    /// When the engine has ended.
    pub async fn cancel(
        &self,
        run: RunId,
        reason: String,
    ) -> Result<Option<RunSnapshot>, EngineGone> {
        self.ask(|reply| Request::Cancel { run, reason, reply }).await
    }

    /// A run; `None`: the engine does not have it (it is finished).
    ///
    /// # Errors
    ///
    /// When the engine has ended.
    pub async fn view(&self, run: RunId) -> Result<Option<RunSnapshot>, EngineGone> {
        self.ask(|reply| Request::View(run, reply)).await
    }

    /// The files of a run; `None`: the engine does not have it.
    ///
    /// # Errors
    ///
    /// When the engine has ended.
    pub async fn input(&self, run: RunId) -> Result<Option<Arc<RunInput>>, EngineGone> {
        self.ask(|reply| Request::Input(run, reply)).await
    }

    /// All agents that were ever seen.
    ///
    /// # Errors
    ///
    /// When the engine has ended.
    pub async fn agents(&self) -> Result<Vec<AgentStatus>, EngineGone> {
        self.ask(Request::Agents).await
    }

    /// How much of what there is.
    ///
    /// # Errors
    ///
    /// When the engine has ended.
    pub async fn census(&self) -> Result<Census, EngineGone> {
        self.ask(Request::Census).await
    }

    /// From now on these are told.
    ///
    /// # Errors
    ///
    /// When the engine has ended.
    pub async fn set_audience(&self, audience: Audience) -> Result<(), EngineGone> {
        self.tell(Request::Audience(audience)).await
    }

    /// Where these jobs would go after everything that waits, with that priority and with packages that agents can fetch.
    /// Changes nothing.
    ///
    /// # Errors
    ///
    /// When the engine has ended.
    pub async fn check(
        &self,
        specs: Vec<JobSpec>,
        packages: Vec<PinnedPackage>,
        priority: u32,
    ) -> Result<PlanPlaces, EngineGone> {
        self.ask(|reply| Request::Check(specs, packages, priority, reply)).await
    }

    /// An agent introduces itself; `outbound` takes what the engine has to say to it from now on.
    ///
    /// # Errors
    ///
    /// When the engine has ended; the inner one when the agent is not let in.
    pub async fn hello(
        &self,
        hello: Hello,
        join: Join,
        outbound: mpsc::Sender<CoordinatorMessage>,
    ) -> Result<Result<Greeting, HelloRefused>, EngineGone> {
        self.ask(|reply| Request::Hello(Box::new(hello), join, outbound, reply)).await
    }

    /// The run of an attempt whose lease stands, or why it does not.
    ///
    /// # Errors
    ///
    /// When the engine has ended.
    pub async fn check_lease(
        &self,
        session: SessionId,
        lease: Lease,
    ) -> Result<Result<RunId, String>, EngineGone> {
        self.ask(|reply| Request::CheckLease(session, lease, reply)).await
    }
}

/// Jobs by id, in the order of the plan.
pub(crate) fn in_order<'a, T>(
    order: &'a [pgsoak_proto::id::JobId],
    jobs: &'a BTreeMap<pgsoak_proto::id::JobId, T>,
) -> impl Iterator<Item = &'a T> {
    order.iter().filter_map(|job| jobs.get(job))
}
