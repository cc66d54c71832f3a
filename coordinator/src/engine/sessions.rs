//! What agents say, and what they are told.

use crate::decide::held::{self, HeldAnswer, Known};
use crate::decide::liveness;
use crate::domain::job::{JobEvent, JobState, Tenure};
use crate::domain::record::{AgentRecord, ArtifactRecord};
use crate::engine::fleet::{Join, NAME_LABEL};
use crate::engine::handle::{EvidenceStored, Greeting, HelloRefused, SessionId};
use crate::engine::state::{AgentEntry, Session, State};
use pgsoak_proto::id::{AgentId, JobId, RunId};
use pgsoak_proto::job::Lease;
use pgsoak_proto::session::{CoordinatorMessage, Hello, JobProgress, Refusal};
use std::{collections::BTreeSet, time::Duration};
use tokio::sync::mpsc;
use tracing::{info, warn};

/// Heartbeats in which a job may be missing before that means something.
const HEARTBEATS_MISSED: u32 = 3;
/// The pause after a refusal grows with the attempts, to this many times its beginning.
const LONGEST_PAUSE: u32 = 6;
/// Attempts of a job while none of them was ever heard to run.
const MOST_UNHEARD: u32 = 50;
/// Beside the missed heartbeats: time for an assignment to become a folder.
const SETTLING: Duration = Duration::from_secs(5);

impl State {
    /// An agent introduces itself. Held jobs that memory does not have must have been restored before (see `restore`).
    pub(crate) fn hello(
        &mut self,
        hello: Hello,
        join: Join,
        outbound: mpsc::Sender<CoordinatorMessage>,
    ) -> Result<Greeting, HelloRefused> {
        let Hello { agent, name, protocol, version, mut capabilities, held } = hello;
        if protocol != pgsoak_proto::PROTOCOL {
            return Err(HelloRefused::Protocol {
                name,
                theirs: protocol,
                ours: pgsoak_proto::PROTOCOL,
            });
        }
        let namesake = self
            .agents
            .values()
            .find(|other| other.record.agent != agent && other.record.name == name)
            .map(|other| (other.record.agent, other.session.is_some()));
        let mut before = None;
        if let Some((other, is_connected)) = namesake {
            let jobs = self.live_jobs_of(other).count();
            match (is_connected, jobs) {
                (true, _) => return Err(HelloRefused::NameTaken { name, other }),
                (false, 0) => {
                    // A host whose data folder was made anew: it never counts twice.
                    warn!(%agent, %other, name, "takes the place of an agent of its name with another id");
                    before = self.fleet.get(&other).cloned();
                    self.forget_agent(other);
                }
                (false, jobs) => return Err(HelloRefused::NameHeld { name, other, jobs }),
            }
        }
        let is_known = self.agents.contains_key(&agent);
        self.admit(agent, &name, join, is_known);
        if let Some(before) = before {
            self.inherit(agent, before);
        }
        capabilities.labels.insert(NAME_LABEL.to_owned(), name.clone());
        let now = self.now();
        self.sessions += 1;
        let session = SessionId { agent, number: self.sessions };
        let record = AgentRecord { agent, name, version, capabilities, last_seen_at: now };
        info!(%agent, name = record.name, held = held.len(), "an agent has connected");
        self.effects.batch.agent(&record);
        // A session that is still there is a dead connection of the same agent: it ends with its sender.
        let entry = AgentEntry {
            record,
            session: Some(Session { number: session.number, outbound }),
            seen_at: now,
            busy: String::new(),
        };
        self.agents.insert(agent, entry);
        self.effects.is_visible = true;
        self.is_dirty = true;

        let mut greeting = Greeting { session, continuing: Vec::new(), then: Vec::new() };
        for held in &held {
            self.greet_held(agent, held.lease, held.is_running, &mut greeting);
        }
        let leases: BTreeSet<Lease> = held.iter().map(|held| held.lease).collect();
        let missing: Vec<Tenure> = self
            .live_jobs_of(agent)
            .filter_map(|job| job.record.state.live().copied())
            .filter(|tenure| !leases.contains(&tenure.lease))
            .collect();
        for tenure in missing {
            self.lost(tenure, "came back without it");
        }
        Ok(greeting)
    }

    fn greet_held(&mut self, agent: AgentId, lease: Lease, is_running: bool, to: &mut Greeting) {
        let run = self.run_of_job.get(&lease.job).and_then(|run| self.runs.get(run));
        let known = run.and_then(|run| {
            run.jobs.get(&lease.job).map(|job| Known {
                state: &job.record.state,
                is_released: job.record.is_released,
                is_too_late: Self::is_finished(run) && !job.record.is_ended,
            })
        });
        let answer = held::answer(agent, lease, known);
        info!(%agent, job = %lease.job, attempt = lease.attempt, ?answer, "a held attempt");
        match answer {
            HeldAnswer::Continue => {
                self.continue_held(lease, is_running, to);
            }
            HeldAnswer::ContinueAndCancel { reason } => {
                self.continue_held(lease, is_running, to);
                to.then.push(CoordinatorMessage::Cancel(Refusal { lease, reason }));
            }
            HeldAnswer::Release => to.then.push(CoordinatorMessage::Release(lease)),
            HeldAnswer::Refuse { reason } => {
                to.then.push(CoordinatorMessage::LeaseRefused(Refusal { lease, reason }));
            }
        }
    }

    fn continue_held(&mut self, lease: Lease, is_running: bool, to: &mut Greeting) {
        let now = self.now();
        if let Some(run) = self.run_of_job.get(&lease.job) {
            to.continuing.push((*run, lease));
        }
        if let Some(job) = self.job_mut(lease.job) {
            job.heard_at = now;
            job.listed_at = now;
            if !job.record.state.is_over() {
                let event = match (&job.record.state, is_running) {
                    (JobState::Assigned { .. } | JobState::Unreachable { .. }, true) => {
                        JobEvent::Started
                    }
                    _ => JobEvent::AgentBack,
                };
                self.step(lease.job, event);
            }
        }
    }

    /// A live attempt is not where it should be.
    fn lost(&mut self, tenure: Tenure, how: &str) {
        let name = self.name_of(tenure.agent);
        let Lease { job, attempt, .. } = tenure.lease;
        if let Some(run) = self.run_of_job.get(&job).copied() {
            self.note(run, format!("attempt {attempt} of job {job} was lost: agent {name} {how}"));
        }
        let is_unheard = self.job(job).is_some_and(|entry| {
            matches!(
                entry.record.state,
                JobState::Assigned { .. } | JobState::Unreachable { started_at: None, .. }
            )
        });
        let reason = format!("agent {name} {how}");
        let now = self.now();
        let max_attempts = self.limits.max_attempts;
        let event = if is_unheard {
            // Nothing was run of an assignment that did not arrive: it is made again whatever the plan says, and the network
            // alone must not use a job's attempts up.
            let pause = self.limits.refusal_pause * attempt.clamp(1, LONGEST_PAUSE);
            let max_attempts = MOST_UNHEARD.max(max_attempts);
            JobEvent::Lost { reason, max_attempts, not_before: now.plus(pause) }
        } else {
            let on_lost = self.job(job).map_or_else(Default::default, |entry| entry.spec.on_lost);
            liveness::lost(on_lost, reason, max_attempts, now)
        };
        self.step(job, event);
    }

    pub(crate) fn name_of(&self, agent: AgentId) -> String {
        self.agents.get(&agent).map_or_else(|| agent.to_string(), |entry| entry.record.name.clone())
    }

    fn is_current(&self, session: SessionId) -> bool {
        self.agents
            .get(&session.agent)
            .and_then(|agent| agent.session.as_ref())
            .is_some_and(|current| current.number == session.number)
    }

    /// Anything from an agent is a sign of life; false when the session was replaced by a newer one.
    pub(crate) fn heard(&mut self, session: SessionId) -> bool {
        if !self.is_current(session) {
            return false;
        }
        let now = self.now();
        if let Some(agent) = self.agents.get_mut(&session.agent) {
            agent.seen_at = now;
        }
        true
    }

    /// A session has ended.
    pub(crate) fn gone(&mut self, session: SessionId) {
        if !self.is_current(session) {
            return;
        }
        if let Some(agent) = self.agents.get_mut(&session.agent) {
            info!(agent = %session.agent, name = agent.record.name, "an agent has gone");
            agent.session = None;
            agent.record.last_seen_at = agent.seen_at;
            self.effects.batch.agent(&agent.record);
            self.effects.is_visible = true;
            self.is_dirty = true;
        }
    }

    /// The agent lives, and its jobs stand so.
    pub(crate) fn heartbeat(&mut self, session: SessionId, jobs: Vec<JobProgress>, busy: String) {
        if !self.heard(session) {
            return;
        }
        if let Some(entry) = self.agents.get_mut(&session.agent)
            && entry.busy != busy
        {
            entry.busy = busy;
            self.is_dirty = true;
            self.effects.is_visible = true;
        }
        let now = self.now();
        let agent = session.agent;
        let mut listed = BTreeSet::new();
        for progress in jobs {
            let lease = progress.lease;
            listed.insert(lease);
            if !self.holds(agent, lease) {
                let reason = self.why_not(agent, lease);
                self.send(agent, CoordinatorMessage::LeaseRefused(Refusal { lease, reason }));
                continue;
            }
            let Some(job) = self.job_mut(lease.job) else { continue };
            if !job.record.state.is_over() {
                // One that is over is waited for as long as it brings something, not as long as it is there.
                job.heard_at = now;
            }
            job.listed_at = now;
            job.progress = Some(progress);
            let is_owed_a_cancel = matches!(job.record.state, JobState::Cancelling { .. })
                && now.since(job.cancel_sent_at) > SETTLING;
            let is_news = matches!(
                job.record.state,
                JobState::Assigned { .. } | JobState::Unreachable { .. }
            );
            if is_news {
                self.step(lease.job, JobEvent::Started);
            } else if is_owed_a_cancel {
                self.send_cancel(lease.job);
            }
            self.effects.is_visible = true;
        }
        let patience = self.heartbeat_every * HEARTBEATS_MISSED + SETTLING;
        let absent: Vec<(Tenure, bool)> = self
            .live_jobs_of(agent)
            .filter(|job| now.since(job.listed_at) > patience)
            .filter_map(|job| {
                let tenure = *job.record.state.live()?;
                let is_unheard = matches!(
                    job.record.state,
                    JobState::Assigned { .. } | JobState::Unreachable { started_at: None, .. }
                );
                Some((tenure, is_unheard))
            })
            .filter(|(tenure, _)| !listed.contains(&tenure.lease))
            .collect();
        for (tenure, is_unheard) in absent {
            let is_cancelling = self
                .job(tenure.lease.job)
                .is_some_and(|job| matches!(job.record.state, JobState::Cancelling { .. }));
            if is_cancelling {
                // Its assignment may still be on its way, and the cancel behind it: the agent's own word is waited for, which
                // it gives for what it does not hold as well.
                if let Some(job) = self.job_mut(tenure.lease.job) {
                    job.listed_at = now;
                }
                self.send_cancel(tenure.lease.job);
            } else if is_unheard {
                // Lost on the way: the same lease again, so there is still one attempt at most.
                warn!(%agent, job = %tenure.lease.job, "an assignment was not taken; sent again");
                if let Some(job) = self.job_mut(tenure.lease.job) {
                    job.listed_at = now;
                }
                if let Some((agent, message)) = self.assignment(tenure.lease.job) {
                    self.send(agent, message);
                }
            } else {
                self.lost(tenure, "does not hold it any more");
            }
        }
    }

    /// Why a lease does not stand; for people.
    fn why_not(&self, agent: AgentId, lease: Lease) -> String {
        let known = self.job(lease.job).map(|job| Known {
            state: &job.record.state,
            is_released: false,
            is_too_late: false,
        });
        match held::answer(agent, lease, known) {
            HeldAnswer::Refuse { reason } => reason,
            _ => "the lease does not stand".to_owned(),
        }
    }

    /// The run of a lease that stands.
    pub(crate) fn check_lease(&self, session: SessionId, lease: Lease) -> Result<RunId, String> {
        if !self.is_current(session) {
            return Err("a newer session of this agent took over".to_owned());
        }
        if !self.holds(session.agent, lease) {
            return Err(self.why_not(session.agent, lease));
        }
        let run = self.run_of_job.get(&lease.job).copied();
        let Some((run, entry)) = run.and_then(|run| Some((run, self.runs.get(&run)?))) else {
            return Err("this coordinator knows no such job".to_owned());
        };
        match entry.jobs.get(&lease.job) {
            Some(job) if Self::is_finished(entry) && !job.record.is_ended => {
                Err("the run was judged without the rest of this attempt".to_owned())
            }
            Some(job) if job.record.is_released => {
                Err("everything of this attempt is stored already".to_owned())
            }
            _ => Ok(run),
        }
    }

    /// Evidence has become durable.
    pub(crate) fn stored(&mut self, session: SessionId, stored: EvidenceStored) {
        self.heard(session);
        let EvidenceStored { lease, high_water, skipped, ended } = stored;
        if !self.holds(session.agent, lease) {
            return;
        }
        let now = self.now();
        let Some(run) = self.run_of_job.get(&lease.job).copied() else { return };
        if skipped > 0 {
            let note = format!(
                "{skipped} frame(s) of job {} attempt {} are lost: the agent no longer had them",
                lease.job, lease.attempt
            );
            self.note(run, note);
        }
        let Some(job) = self.job_mut(lease.job) else { return };
        job.heard_at = now;
        job.record.stored_sequence = job.record.stored_sequence.max(high_water);
        let is_over = job.record.state.is_over();
        if ended.is_some() {
            job.record.is_ended = true;
        }
        let is_news =
            matches!(job.record.state, JobState::Assigned { .. } | JobState::Unreachable { .. });
        let record = job.record.clone();
        if is_news {
            self.step(lease.job, JobEvent::Started);
        }
        match ended {
            Some((outcome, reason)) if !is_over => {
                self.step(lease.job, JobEvent::Ended { outcome, reason });
            }
            // The last frame of a job that is over already (cancelled, and said so first).
            Some(_) => self.effects.batch.job(&record),
            None => {}
        }
        self.effects.is_visible = true;
    }

    /// Evidence breaks the contract: sent again it would break it again, so the attempt ends here.
    pub(crate) fn unusable(&mut self, session: SessionId, lease: Lease, problem: &str) {
        if !self.holds(session.agent, lease) {
            return;
        }
        let name = self.name_of(session.agent);
        let reason = format!("agent {name} sent evidence that breaks the contract: {problem}");
        if self.job(lease.job).is_some_and(|job| !job.record.state.is_over()) {
            self.step(lease.job, JobEvent::GivenUp { reason: reason.clone() });
        }
        self.release_record(lease.job);
        self.send(session.agent, CoordinatorMessage::LeaseRefused(Refusal { lease, reason }));
    }

    /// A piece of an artifact was stored.
    pub(crate) fn artifact(
        &mut self,
        session: SessionId,
        run: RunId,
        lease: Lease,
        record: &ArtifactRecord,
    ) {
        self.job_heard(session, lease);
        self.effects.batch.artifact(run, record);
    }

    /// The agent is at work for the job.
    pub(crate) fn job_heard(&mut self, session: SessionId, lease: Lease) {
        self.heard(session);
        let now = self.now();
        if let Some(job) = self.job_mut(lease.job) {
            job.heard_at = now;
        }
    }

    /// The agent has nothing more of the attempt.
    pub(crate) fn delivered(&mut self, session: SessionId, lease: Lease) {
        self.heard(session);
        let agent = session.agent;
        if !self.holds(agent, lease) {
            let reason = self.why_not(agent, lease);
            self.send(agent, CoordinatorMessage::LeaseRefused(Refusal { lease, reason }));
            return;
        }
        let is_over = self.job(lease.job).is_some_and(|job| job.record.state.is_over());
        if is_over {
            self.release_record(lease.job);
            self.send(agent, CoordinatorMessage::Release(lease));
        } else {
            // Not over without a last frame: what it delivered is not all there was.
            warn!(%agent, job = %lease.job, "said to be delivered, and no last frame is stored");
            if let Some(tenure) =
                self.job(lease.job).and_then(|job| job.record.state.live()).copied()
            {
                self.lost(tenure, "delivered an attempt without an end");
            }
            let reason = "the attempt has no last frame".to_owned();
            self.send(agent, CoordinatorMessage::LeaseRefused(Refusal { lease, reason }));
        }
    }

    fn release_record(&mut self, job: JobId) {
        let Some(entry) = self.job_mut(job) else { return };
        entry.record.is_released = true;
        let record = entry.record.clone();
        self.effects.batch.job(&record);
        self.is_dirty = true;
    }

    /// No process of the job is left on the agent.
    pub(crate) fn cancel_acknowledged(&mut self, session: SessionId, lease: Lease) {
        self.heard(session);
        let is_cancelling = self
            .job(lease.job)
            .is_some_and(|job| matches!(job.record.state, JobState::Cancelling { .. }));
        if is_cancelling && self.holds(session.agent, lease) {
            self.step(lease.job, JobEvent::CancelAcknowledged);
        }
    }

    /// The agent does not take the job.
    pub(crate) fn assignment_refused(&mut self, session: SessionId, refusal: &Refusal) {
        self.heard(session);
        let Refusal { lease, reason } = refusal;
        if !self.holds(session.agent, *lease) {
            return;
        }
        let is_over = self.job(lease.job).is_none_or(|job| job.record.state.is_over());
        if is_over {
            return;
        }
        let name = self.name_of(session.agent);
        // An agent that is at work for other jobs may only be full: that is no reason to give a job up, but one to wait
        // longer each time.
        let is_busy = self
            .runs
            .values()
            .flat_map(|run| run.jobs.values())
            .filter(|job| job.record.job != lease.job)
            .any(|job| {
                job.slot_of(self.now(), self.lease_ttl, &self.limits) == Some(session.agent)
            });
        let pause = self.limits.refusal_pause * lease.attempt.clamp(1, LONGEST_PAUSE);
        self.refusals.insert((lease.job, session.agent), self.now().plus(pause));
        let event = JobEvent::Lost {
            reason: format!("agent {name} refused it: {reason}"),
            max_attempts: if is_busy { u32::MAX } else { self.limits.max_refused },
            not_before: self.now(),
        };
        self.step(lease.job, event);
    }
}
