//! What the engine knows, in memory; and what a round of requests leaves to be written and said.

use crate::config::{CanaryPlan, CoordinatorConfig};
use crate::domain::alert::Alert;
use crate::domain::build::Shelf;
use crate::domain::fleet::FleetRecord;
use crate::domain::job::{JobEvent, JobState};
use crate::domain::limits::Limits;
use crate::domain::record::{AgentRecord, JobRecord, RunInput, RunRecord};
use crate::domain::run::{RunEvent, RunState};
use crate::domain::time::UnixUs;
use crate::engine::clock::Clock;
use crate::engine::escalation::{self, Plain};
use crate::engine::looking::Watch;
use crate::engine::notices::Notices;
use crate::engine::schedules::Schedules;
use crate::store::catalogue::Batch;
use pgsoak_proto::id::{AgentId, JobId, RunId};
use pgsoak_proto::job::{JobSpec, Lease};
use pgsoak_proto::session::{Assignment, CoordinatorMessage, JobProgress};
use pgsoak_workloads::escalate::Subject;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;
use tracing::{info, warn};

/// All of it.
pub(crate) struct State {
    pub(crate) limits: Limits,
    pub(crate) heartbeat_every: Duration,
    pub(crate) lease_ttl: Duration,
    pub(crate) clock: Clock,
    pub(crate) listening_since: UnixUs,
    pub(crate) runs: BTreeMap<RunId, RunEntry>,
    pub(crate) run_of_job: HashMap<JobId, RunId>,
    pub(crate) agents: BTreeMap<AgentId, AgentEntry>,
    pub(crate) client_keys: HashMap<String, RunId>,
    /// Until when an agent is not offered a job that it refused.
    pub(crate) refusals: HashMap<(JobId, AgentId), UnixUs>,
    /// What was decided about agents; one for each in `agents`.
    pub(crate) fleet: BTreeMap<AgentId, FleetRecord>,
    /// The health check of agents.
    pub(crate) canary: Option<CanaryPlan>,
    /// When it was made, and where and when what waits is likely to start.
    pub(crate) forecast: (UnixUs, BTreeMap<JobId, (AgentId, UnixUs)>),
    pub(crate) schedules: Schedules,
    /// Counts alerts.
    pub(crate) alerts_made: u32,
    pub(crate) fence: u64,
    pub(crate) sessions: u64,
    pub(crate) effects: Effects,
    /// Something changed that the next look must see.
    pub(crate) is_dirty: bool,
    /// Packages that runs are given.
    pub(crate) shelf: Shelf,
    /// Runs whose evidence is to be judged.
    pub(crate) to_judge: Vec<RunId>,
    /// Messages to people.
    pub(crate) notices: Notices,
    /// Jobs whose evidence is to be looked at for growth.
    pub(crate) to_escalate: Vec<Plain>,
}

/// A run in memory.
pub(crate) struct RunEntry {
    pub(crate) record: RunRecord,
    pub(crate) input: Arc<RunInput>,
    pub(crate) jobs: BTreeMap<JobId, JobEntry>,
    /// Its judgement is under way.
    pub(crate) is_being_judged: bool,
    /// Jobs whose plan asks for more where they grow.
    pub(crate) may_escalate: BTreeSet<JobId>,
    /// Subjects whose plain jobs are being looked at for growth.
    pub(crate) being_looked_at: Vec<Subject>,
}

/// A job in memory. What is beside the record is not kept over a restart.
pub(crate) struct JobEntry {
    pub(crate) spec: JobSpec,
    pub(crate) record: JobRecord,
    pub(crate) progress: Option<JobProgress>,
    /// Why it waits.
    pub(crate) why: String,
    /// Since when no agent could run it; `None`: one could, or nobody is there.
    pub(crate) unplaceable_since: Option<UnixUs>,
    /// Evidence, progress or a piece of an artifact.
    pub(crate) heard_at: UnixUs,
    /// When its agent last said that it holds it, or was last told of it.
    pub(crate) listed_at: UnixUs,
    /// When its agent was last told to stop it.
    pub(crate) cancel_sent_at: UnixUs,
    /// Looks at it while it goes on.
    pub(crate) watch: Watch,
}

/// An agent in memory.
pub(crate) struct AgentEntry {
    pub(crate) record: AgentRecord,
    pub(crate) session: Option<Session>,
    pub(crate) seen_at: UnixUs,
    /// Why its host takes no job now, as it says; empty: it does.
    pub(crate) busy: String,
}

/// A connection in memory.
pub(crate) struct Session {
    pub(crate) number: u64,
    pub(crate) outbound: mpsc::Sender<CoordinatorMessage>,
}

/// What a round of requests leaves: first written, then said.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) batch: Batch,
    pub(crate) sends: Vec<(AgentId, CoordinatorMessage)>,
    pub(crate) replies: Vec<Box<dyn FnOnce() + Send>>,
    pub(crate) alerts: Vec<Alert>,
    /// Runs that are over: their databases can be closed.
    pub(crate) close: Vec<RunId>,
    pub(crate) is_visible: bool,
    /// A message was queued.
    pub(crate) has_notices: bool,
}

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effects").field("sends", &self.sends).finish_non_exhaustive()
    }
}

// === impl JobEntry ===

impl JobEntry {
    pub(crate) fn new(spec: JobSpec, record: JobRecord, now: UnixUs) -> Self {
        Self {
            spec,
            record,
            progress: None,
            why: String::new(),
            unplaceable_since: None,
            heard_at: now,
            listed_at: now,
            cancel_sent_at: UnixUs(0),
            watch: Watch::begun(now),
        }
    }

    /// The agent whose slot it holds: while its attempt is live, and after that until nothing of it is left there, since
    /// the runner's last work (digests, raw files, tidying up) comes after the last frame.
    pub(crate) fn slot_of(
        &self,
        now: UnixUs,
        lease_ttl: Duration,
        limits: &Limits,
    ) -> Option<AgentId> {
        let tenure = self.record.state.tenure()?;
        let is_held = match &self.record.state {
            JobState::Over { over_at, .. } => {
                // Delivered frees it at once; otherwise the agent's word that its folder is there counts, for a while.
                let is_there = now.since(self.listed_at) <= lease_ttl;
                let is_late = now.since(*over_at) > limits.linger;
                !self.record.is_released
                    && ((is_there && !is_late) || !self.is_settled(now, limits))
            }
            _ => true,
        };
        is_held.then_some(tenure.agent)
    }

    /// Nothing more of this job is worth holding its run up for.
    pub(crate) fn is_settled(&self, now: UnixUs, limits: &Limits) -> bool {
        match &self.record.state {
            JobState::Over { tenure, over_at, .. } => {
                tenure.is_none()
                    || self.record.is_released
                    || now.since((*over_at).max(self.heard_at)) > limits.artifacts_wait
                    // Whatever it still brings or does.
                    || now.since(*over_at) > limits.linger
            }
            _ => false,
        }
    }
}

// === impl State ===

impl State {
    pub(crate) fn new(config: &CoordinatorConfig, limits: Limits, clock: Clock) -> Self {
        Self {
            limits,
            heartbeat_every: config.heartbeat_every,
            lease_ttl: config.lease_ttl,
            clock,
            listening_since: clock.now(),
            runs: BTreeMap::new(),
            run_of_job: HashMap::new(),
            agents: BTreeMap::new(),
            client_keys: HashMap::new(),
            refusals: HashMap::new(),
            fleet: BTreeMap::new(),
            canary: config.canary.clone(),
            forecast: (UnixUs(0), BTreeMap::new()),
            schedules: Schedules::default(),
            alerts_made: 0,
            fence: 0,
            sessions: 0,
            effects: Effects::default(),
            is_dirty: true,
            shelf: Shelf::default(),
            to_judge: Vec::new(),
            notices: Notices::new(config),
            to_escalate: Vec::new(),
        }
    }

    pub(crate) fn now(&self) -> UnixUs {
        self.clock.now()
    }

    pub(crate) fn job(&self, job: JobId) -> Option<&JobEntry> {
        self.runs.get(self.run_of_job.get(&job)?)?.jobs.get(&job)
    }

    pub(crate) fn job_mut(&mut self, job: JobId) -> Option<&mut JobEntry> {
        self.runs.get_mut(self.run_of_job.get(&job)?)?.jobs.get_mut(&job)
    }

    /// Says something to an agent once everything noted is durable. An agent that is away hears it in its next session.
    pub(crate) fn send(&mut self, agent: AgentId, message: CoordinatorMessage) {
        self.effects.sends.push((agent, message));
    }

    /// Answers a caller once everything noted is durable.
    pub(crate) fn reply<T: Send + 'static>(
        &mut self,
        reply: tokio::sync::oneshot::Sender<T>,
        answer: T,
    ) {
        self.effects.replies.push(Box::new(move || {
            // A caller that no longer waits is no error of ours.
            let _ = reply.send(answer);
        }));
    }

    /// Takes a job one step on; false when its state does not allow that (which is logged).
    pub(crate) fn step(&mut self, job: JobId, event: JobEvent) -> bool {
        let now = self.now();
        let Some(run) = self.run_of_job.get(&job).copied() else { return false };
        let Some(entry) = self.runs.get_mut(&run) else { return false };
        let Some(job_entry) = entry.jobs.get_mut(&job) else { return false };
        let ended = match &event {
            JobEvent::Ended { outcome, reason } => Some((*outcome, reason.clone())),
            _ => None,
        };
        let next = match job_entry.record.state.after(job, event, now) {
            Ok(next) => next,
            Err(refused) => {
                warn!(%run, %job, %refused, "ignored");
                return false;
            }
        };
        let was = job_entry.record.state.label();
        if job_entry.record.state == next {
            return true;
        }
        let ended = match (ended, next.tenure()) {
            (Some((outcome, reason)), Some(tenure)) => Some((tenure.agent, outcome, reason)),
            _ => None,
        };
        info!(%run, %job, was, is = next.label(), detail = detail(&next), "job");
        let is_over = next.is_over();
        if let Some(tenure) = next.live()
            && job_entry.record.state.live().is_none()
        {
            // A new attempt: nothing of the one before counts for it.
            job_entry.record.is_ended = false;
            job_entry.record.is_released = false;
            job_entry.record.stored_sequence = 0;
            job_entry.progress = None;
            job_entry.heard_at = tenure.assigned_at;
            job_entry.listed_at = tenure.assigned_at;
            job_entry.watch = Watch::begun(now);
        }
        job_entry.record.state = next;
        if is_over {
            job_entry.why.clear();
        }
        self.effects.batch.job(&job_entry.record);
        if is_over {
            entry.record.jobs_over =
                u32::try_from(entry.jobs.values().filter(|job| job.record.state.is_over()).count())
                    .unwrap_or(u32::MAX);
            self.effects.batch.run(&entry.record);
        }
        self.effects.is_visible = true;
        self.is_dirty = true;
        if let Some((agent, outcome, reason)) = ended {
            self.count_end(agent, run, outcome, &reason);
        }
        true
    }

    /// Takes a run one step on; false when its state does not allow that (which is logged).
    pub(crate) fn step_run(&mut self, run: RunId, event: RunEvent) -> bool {
        let now = self.now();
        let Some(entry) = self.runs.get_mut(&run) else { return false };
        let next = match entry.record.state.after(run, event, now) {
            Ok(next) => next,
            Err(refused) => {
                warn!(%run, %refused, "ignored");
                return false;
            }
        };
        if next != entry.record.state {
            info!(%run, was = entry.record.state.label(), is = next.label(), "run");
            entry.record.state = next;
            self.effects.batch.run(&entry.record);
            self.effects.is_visible = true;
            self.is_dirty = true;
        }
        true
    }

    /// Something that people should know of a run beside its verdict.
    pub(crate) fn note(&mut self, run: RunId, note: String) {
        warn!(%run, %note, "noted");
        if let Some(entry) = self.runs.get_mut(&run) {
            entry.record.note(note);
            self.effects.batch.run(&entry.record);
            self.effects.is_visible = true;
        }
    }

    /// The assignment of a job that has a live attempt, with its workload.
    pub(crate) fn assignment(&self, job: JobId) -> Option<(AgentId, CoordinatorMessage)> {
        let entry = self.runs.get(self.run_of_job.get(&job)?)?;
        let job_entry = entry.jobs.get(&job)?;
        let tenure = job_entry.record.state.live()?;
        let mut spec = job_entry.spec.clone();
        spec.workload_toml =
            entry.input.workloads.get(&spec.workload_name).cloned().unwrap_or_default();
        let assignment = Assignment { lease: tenure.lease, spec };
        Some((tenure.agent, CoordinatorMessage::Assignment(assignment)))
    }

    /// Jobs that hold a slot of the agent.
    pub(crate) fn live_jobs_of(&self, agent: AgentId) -> impl Iterator<Item = &JobEntry> {
        self.runs
            .values()
            .flat_map(|run| run.jobs.values())
            .filter(move |job| job.record.state.live().is_some_and(|tenure| tenure.agent == agent))
    }

    /// Whether the lease is the last one of its job, held by this agent.
    pub(crate) fn holds(&self, agent: AgentId, lease: Lease) -> bool {
        self.job(lease.job)
            .and_then(|job| job.record.state.tenure())
            .is_some_and(|tenure| tenure.lease == lease && tenure.agent == agent)
    }

    /// Puts a run into memory.
    pub(crate) fn insert_run(
        &mut self,
        record: RunRecord,
        input: RunInput,
        jobs: Vec<(JobSpec, JobRecord)>,
    ) {
        let now = self.now();
        let run = record.run;
        let jobs: BTreeMap<JobId, JobEntry> = jobs
            .into_iter()
            .map(|(spec, record)| {
                let record = JobRecord { state: record.state.by_clock(now), ..record };
                (record.job, JobEntry::new(spec, record, now))
            })
            .collect();
        for job in jobs.keys() {
            self.run_of_job.insert(*job, run);
        }
        let may_escalate = escalation::asked(&record, &input, &jobs);
        let entry = RunEntry {
            record,
            input: Arc::new(input),
            jobs,
            is_being_judged: false,
            may_escalate,
            being_looked_at: Vec::new(),
        };
        self.runs.insert(run, entry);
        self.is_dirty = true;
    }

    /// Forgets a finished run; what is stored of it stays.
    pub(crate) fn forget_run(&mut self, run: RunId) {
        if let Some(entry) = self.runs.remove(&run) {
            for job in entry.jobs.keys() {
                self.run_of_job.remove(job);
                self.refusals.retain(|(refused, _), _| refused != job);
            }
            self.effects.close.push(run);
        }
    }

    /// Whether a run is finished.
    pub(crate) fn is_finished(entry: &RunEntry) -> bool {
        matches!(entry.record.state, RunState::Finished { .. })
    }
}

fn detail(state: &JobState) -> String {
    match state {
        JobState::Waiting { lost, .. } => lost.clone(),
        JobState::Assigned { tenure } | JobState::Running { tenure, .. } => {
            format!("agent {} attempt {}", tenure.agent, tenure.lease.attempt)
        }
        JobState::Unreachable { silent_since, .. } => format!("silent since {silent_since}"),
        JobState::Cancelling { reason, .. } => reason.clone(),
        JobState::Over { outcome, reason, .. } => format!("{outcome}: {reason}"),
    }
}
