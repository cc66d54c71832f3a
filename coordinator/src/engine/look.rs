//! One look at everything: takes a snapshot, has `decide` decide, carries it out.

use crate::decide::arms::{are_replicas, are_siblings};
use crate::decide::estimate::expected;
use crate::decide::forecast::{self, Running};
use crate::decide::liveness::{self, LiveJob};
use crate::decide::place::{self, AgentSnapshot, Placement, Snapshot, WaitingJob};
use crate::decide::standing;
use crate::domain::build::PinnedPackage;
use crate::domain::job::{JobEvent, JobState, Tenure};
use crate::domain::limits::Limits;
use crate::domain::run::{RunEvent, RunState};
use crate::domain::time::UnixUs;
use crate::engine::handle::{PlanPlaces, in_order};
use crate::engine::state::State;
use pgsoak_proto::id::{AgentId, JobId, RunId};
use pgsoak_proto::job::{Arm, JobSpec, Lease, Tool};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A forecast is made anew when it is older.
const FORECAST_FOR: Duration = Duration::from_secs(2);

impl State {
    /// Brings the fleet nearer to what is wanted. Runs on a timer and after whatever changed something.
    pub(crate) fn look(&mut self) {
        self.is_dirty = false;
        let now = self.now();
        self.refusals.retain(|_, until| *until > now);
        self.check_liveness(now);
        self.keep_schedules();
        self.escalate();
        self.check_health();
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
                is_time_known: self.clock.is_continuous(),
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
        let waiting = self.queue();
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

    /// Everything that waits, in the order of submission.
    fn queue(&self) -> Vec<WaitingJob<'_>> {
        let mut waiting = Vec::new();
        // Ids of version 7: the map's order is the order of submission.
        for (id, run) in &self.runs {
            let is_health_check = self.is_health_check(*id);
            let replicated: BTreeSet<(&str, Tool)> = run
                .jobs
                .values()
                .filter(|job| job.spec.replica > 0)
                .map(|job| (job.spec.workload_name.as_str(), job.spec.tool))
                .collect();
            let placed: Vec<(&JobSpec, AgentId)> = run
                .jobs
                .values()
                .filter_map(|job| Some((&job.spec, job.record.state.tenure()?.agent)))
                .collect();
            for job in in_order(&run.record.jobs, &run.jobs) {
                let JobState::Waiting { lost, not_before, .. } = &job.record.state else {
                    continue;
                };
                let mut item = WaitingJob {
                    spec: &job.spec,
                    not_before: *not_before,
                    lost,
                    replicas_at: BTreeMap::new(),
                    refused_by: BTreeSet::new(),
                    siblings_at: BTreeSet::new(),
                    has_replicas: replicated
                        .contains(&(job.spec.workload_name.as_str(), job.spec.tool)),
                    priority: run.record.priority,
                    is_health_check,
                    packages: &run.input.packages,
                };
                for (other, agent) in &placed {
                    if are_replicas(other, &job.spec) {
                        *item.replicas_at.entry(*agent).or_default() += 1;
                    } else if are_siblings(other, &job.spec) {
                        item.siblings_at.insert(*agent);
                    }
                }
                let refusals = self.refusals.keys();
                item.refused_by = refusals
                    .filter(|(refused, _)| *refused == job.record.job)
                    .map(|(_, agent)| *agent)
                    .collect();
                waiting.push(item);
            }
        }
        waiting
    }

    /// Jobs that hold a slot, with when they are likely to be over.
    fn running(&self, now: UnixUs) -> Vec<Running> {
        let jobs = self.runs.values().flat_map(|run| run.jobs.values());
        jobs.filter_map(|job| {
            let agent = job.slot_of(now, self.lease_ttl, &self.limits)?;
            let began = job.record.state.live().map_or(now, |tenure| tenure.assigned_at);
            let left =
                job.progress.as_ref().map(|progress| progress.left_ms).filter(|left| *left > 0);
            let ends_at = match left {
                Some(left) => now.plus(Duration::from_millis(left)),
                None => began.plus(expected(&job.spec)).max(now),
            };
            let (run, exclusive) = (job.record.run, job.spec.exclusive);
            let is_canary = job.spec.arm == Arm::Canary;
            Some(Running { run, agent, exclusive, is_canary, ends_at })
        })
        .collect()
    }

    /// Where and when what waits is likely to start. Not older than a few seconds.
    pub(crate) fn forecast(&mut self) -> &BTreeMap<JobId, (AgentId, UnixUs)> {
        let now = self.now();
        if self.forecast.0 == UnixUs(0) || now.since(self.forecast.0) > FORECAST_FOR {
            let starts = forecast::forecast(&self.snapshot(now, self.queue()), &self.running(now));
            self.forecast = (now, starts);
        }
        &self.forecast.1
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
                let seen = self.seen(*id, jobs);
                let closed = |is_check| seen.as_ref().and_then(|s| standing::closed(s, is_check));
                let snapshot = AgentSnapshot {
                    name: &agent.record.name,
                    capabilities: &agent.record.capabilities,
                    is_connected: agent.session.is_some() && is_heard,
                    jobs,
                    has_exclusive,
                    closed: closed(false),
                    closed_to_checks: closed(true),
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

    /// Where the jobs of a plan would go after everything that waits, and when; for a job that would not, what each agent lacks.
    pub(crate) fn check(
        &self,
        specs: &[JobSpec],
        packages: &[PinnedPackage],
        priority: u32,
    ) -> PlanPlaces {
        let now = self.now();
        let hypothetical = |spec| WaitingJob {
            spec,
            not_before: UnixUs(0),
            lost: "",
            replicas_at: BTreeMap::new(),
            refused_by: BTreeSet::new(),
            siblings_at: BTreeSet::new(),
            has_replicas: specs.iter().any(|other| are_replicas(other, spec)),
            priority,
            is_health_check: false,
            packages,
        };
        let mut queue = self.queue();
        queue.extend(specs.iter().map(hypothetical));
        let starts = forecast::forecast(&self.snapshot(now, queue), &self.running(now));
        // Slots are a matter of time: beyond the forecast the question is where a job could go, not when.
        let mut idle = self.snapshot(now, Vec::new());
        for agent in idle.agents.values_mut() {
            agent.jobs = 0;
            agent.has_exclusive = false;
        }
        let jobs = specs
            .iter()
            .map(|spec| {
                if let Some((agent, at)) = starts.get(&spec.job) {
                    return Ok((self.name_of(*agent), Some(*at)));
                }
                let alone = Snapshot { waiting: vec![hypothetical(spec)], ..idle.clone() };
                let placement = place::place(&alone);
                match placement.assign.first() {
                    Some((_, agent)) => Ok((self.name_of(*agent), None)),
                    None => Err(placement
                        .waits
                        .get(&spec.job)
                        .cloned()
                        .unwrap_or_else(|| "nowhere".to_owned())),
                }
            })
            .collect();
        PlanPlaces { jobs }
    }
}
