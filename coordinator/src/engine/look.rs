//! One look at everything: takes a snapshot, has `decide` decide, carries it out.

use crate::decide::liveness::{self, LiveJob};
use crate::decide::place::{self, AgentSnapshot, Placement, Snapshot, WaitingJob, are_replicas};
use crate::domain::build::PinnedPackage;
use crate::domain::job::{JobEvent, JobState, Tenure};
use crate::domain::limits::Limits;
use crate::domain::run::{RunEvent, RunState};
use crate::domain::time::UnixUs;
use crate::engine::handle::{PlanPlaces, in_order};
use crate::engine::state::State;
use pgsoak_proto::id::{AgentId, JobId, RunId};
use pgsoak_proto::job::{Arm, JobSpec, Lease};
use std::collections::{BTreeMap, BTreeSet};

impl State {
    /// Brings the fleet nearer to what is wanted. Runs on a timer and after whatever changed something.
    pub(crate) fn look(&mut self) {
        self.is_dirty = false;
        let now = self.now();
        self.refusals.retain(|_, until| *until > now);
        self.check_liveness(now);
        self.keep_schedules();
        self.escalate();
        self.place(now);
        self.end_runs(now);
        self.tell_of_agents(now);
    }

    /// Agents that have a session now.
    pub(crate) fn connected(&self) -> u32 {
        let connected = self.agents.values().filter(|agent| agent.session.is_some()).count();
        u32::try_from(connected).unwrap_or(u32::MAX)
    }

    fn check_liveness(&mut self, now: UnixUs) {
        let mut steps: Vec<(JobId, JobEvent)> = Vec::new();
        for job in self.runs.values().flat_map(|run| run.jobs.values()) {
            let Some(tenure) = job.record.state.live() else { continue };
            let agent = self.agents.get(&tenure.agent);
            let name = agent.map_or_else(String::new, |agent| agent.record.name.clone());
            let live = LiveJob {
                state: &job.record.state,
                hard_end: job.spec.hard_end,
                on_lost: job.spec.on_lost,
                agent: &name,
                is_connected: agent.is_some_and(|agent| agent.session.is_some()),
                agent_seen_at: agent.map_or(UnixUs(0), |agent| agent.seen_at),
                job_heard_at: job.heard_at,
                listening_since: self.listening_since,
            };
            let Limits { grace, max_attempts, .. } = self.limits;
            if let Some(event) = liveness::step(&live, now, self.lease_ttl, grace, max_attempts) {
                steps.push((job.record.job, event));
            }
        }
        for (job, event) in steps {
            self.step(job, event);
        }
    }

    fn place(&mut self, now: UnixUs) {
        let mut waiting = Vec::new();
        // Ids of version 7: the map's order is the order of submission.
        for run in self.runs.values() {
            for job in in_order(&run.record.jobs, &run.jobs) {
                if let JobState::Waiting { lost, not_before, .. } = &job.record.state {
                    let mut replicas_at: BTreeMap<AgentId, usize> = BTreeMap::new();
                    for other in run.jobs.values() {
                        if let Some(tenure) = other.record.state.tenure()
                            && are_replicas(&other.spec, &job.spec)
                        {
                            *replicas_at.entry(tenure.agent).or_default() += 1;
                        }
                    }
                    let refused_by = self
                        .refusals
                        .keys()
                        .filter(|(refused, _)| *refused == job.record.job)
                        .map(|(_, agent)| *agent)
                        .collect();
                    waiting.push(WaitingJob {
                        spec: &job.spec,
                        not_before: *not_before,
                        lost,
                        replicas_at,
                        refused_by,
                        packages: &run.input.packages,
                    });
                }
            }
        }
        if waiting.is_empty() {
            return;
        }
        let placement = place::place(&self.snapshot(now, waiting));
        let Placement { assign, waits, unplaceable } = placement;
        let mut given_up = Vec::new();
        let patience = self.limits.unplaceable_after;
        for (job, why) in waits {
            let Some(entry) = self.job_mut(job) else { continue };
            let is_changed = entry.why != why;
            entry.why.clone_from(&why);
            entry.unplaceable_since = match entry.unplaceable_since {
                _ if !unplaceable.contains(&job) => None,
                Some(since) => Some(since),
                None => Some(now),
            };
            if entry.unplaceable_since.is_some_and(|since| now.since(since) >= patience) {
                given_up.push((job, why));
            }
            self.effects.is_visible |= is_changed;
        }
        for (job, why) in given_up {
            self.step(job, JobEvent::GivenUp { reason: format!("no agent can run it: {why}") });
        }
        for (job, agent) in assign {
            self.assign(job, agent, now);
        }
    }

    fn snapshot<'a>(&'a self, now: UnixUs, waiting: Vec<WaitingJob<'a>>) -> Snapshot<'a> {
        let mut busy: BTreeMap<AgentId, (usize, bool)> = BTreeMap::new();
        let mut live_jobs: BTreeMap<RunId, usize> = BTreeMap::new();
        let mut live_canaries: BTreeMap<RunId, usize> = BTreeMap::new();
        for (run, entry) in &self.runs {
            for job in entry.jobs.values() {
                if let Some(agent) = job.slot_of(now, self.lease_ttl, &self.limits) {
                    let (jobs, has_exclusive) = busy.entry(agent).or_default();
                    *jobs += 1;
                    *has_exclusive |= job.spec.exclusive;
                    *live_jobs.entry(*run).or_default() += 1;
                    if job.spec.arm == Arm::Canary {
                        *live_canaries.entry(*run).or_default() += 1;
                    }
                }
            }
        }
        let agents = self
            .agents
            .iter()
            .map(|(id, agent)| {
                let (jobs, has_exclusive) = busy.get(id).copied().unwrap_or_default();
                let is_heard = now.since(agent.seen_at) <= self.lease_ttl;
                let snapshot = AgentSnapshot {
                    name: &agent.record.name,
                    capabilities: &agent.record.capabilities,
                    is_connected: agent.session.is_some() && is_heard,
                    jobs,
                    has_exclusive,
                };
                (*id, snapshot)
            })
            .collect();
        Snapshot { now, agents, waiting, live_jobs, live_canaries }
    }

    /// Gives a job away. The lease and the fence are in the same batch, and the agent hears of it after that is durable.
    fn assign(&mut self, job: JobId, agent: AgentId, now: UnixUs) {
        let Some(entry) = self.job(job) else { return };
        let attempt = entry.record.state.attempts().saturating_add(1);
        let run = entry.record.run;
        self.fence = self.fence.saturating_add(1);
        let lease = Lease { job, attempt, fence: self.fence };
        if !self.step(job, JobEvent::Assign(Tenure { lease, agent, assigned_at: now })) {
            return;
        }
        self.effects.batch.fence(self.fence);
        if let Some(entry) = self.job_mut(job) {
            entry.why.clear();
        }
        self.step_run(run, RunEvent::JobAssigned);
        if let Some((agent, message)) = self.assignment(job) {
            self.send(agent, message);
        }
    }

    fn end_runs(&mut self, now: UnixUs) {
        let mut over = Vec::new();
        let mut judge = Vec::new();
        let mut forget = Vec::new();
        for (run, entry) in &self.runs {
            match &entry.record.state {
                RunState::Queued | RunState::Running { .. } | RunState::Cancelling { .. } => {
                    if entry.jobs.values().all(|job| job.is_settled(now, &self.limits))
                        && entry.subjects_to_look_at().is_empty()
                    {
                        over.push(*run);
                        judge.push(*run);
                    }
                }
                RunState::Judging { .. } if !entry.is_being_judged => judge.push(*run),
                RunState::Judging { .. } => {}
                RunState::Finished { finished_at, .. } => {
                    let is_done = entry
                        .jobs
                        .values()
                        .all(|job| job.record.is_released || job.record.state.tenure().is_none());
                    let heard = entry.jobs.values().map(|job| job.heard_at).max();
                    let quiet_since = heard.unwrap_or(*finished_at).max(*finished_at);
                    if is_done || now.since(quiet_since) > self.limits.linger {
                        forget.push(*run);
                    }
                }
            }
        }
        for run in over {
            self.step_run(run, RunEvent::AllOver);
        }
        for run in judge {
            if let Some(entry) = self.runs.get_mut(&run) {
                entry.is_being_judged = true;
                self.to_judge.push(run);
            }
        }
        for run in forget {
            self.forget_run(run);
        }
    }

    /// Where the jobs of a plan would go if they were alone in the queue.
    pub(crate) fn check(&self, specs: &[JobSpec], packages: &[PinnedPackage]) -> PlanPlaces {
        let waiting = specs
            .iter()
            .map(|spec| WaitingJob {
                spec,
                not_before: UnixUs(0),
                lost: "",
                replicas_at: BTreeMap::new(),
                refused_by: BTreeSet::new(),
                packages,
            })
            .collect();
        let mut snapshot = self.snapshot(self.now(), waiting);
        // Slots are a matter of time: the question is where a job could go, not when.
        for agent in snapshot.agents.values_mut() {
            agent.jobs = 0;
            agent.has_exclusive = false;
        }
        let jobs = snapshot
            .waiting
            .clone()
            .into_iter()
            .map(|job| {
                let alone = Snapshot { waiting: vec![job.clone()], ..snapshot.clone() };
                let placement = place::place(&alone);
                match placement.assign.first() {
                    Some((_, agent)) => Ok(self.name_of(*agent)),
                    None => Err(placement
                        .waits
                        .get(&job.spec.job)
                        .cloned()
                        .unwrap_or_else(|| "nowhere".to_owned())),
                }
            })
            .collect();
        PlanPlaces { jobs }
    }
}
