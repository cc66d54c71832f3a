//! What people see of runs and agents.

use crate::domain::job::JobState;
use crate::engine::handle::{AgentStatus, JobSnapshot, RunSnapshot, in_order};
use crate::engine::state::State;
use pgsoak_proto::id::RunId;

impl State {
    /// A run as it is now; `None`: memory does not have it.
    pub(crate) fn view(&self, run: RunId) -> Option<RunSnapshot> {
        let entry = self.runs.get(&run)?;
        let jobs = in_order(&entry.record.jobs, &entry.jobs)
            .map(|job| JobSnapshot {
                spec: job.spec.clone(),
                record: job.record.clone(),
                agent: job
                    .record
                    .state
                    .tenure()
                    .map(|tenure| self.name_of(tenure.agent))
                    .unwrap_or_default(),
                progress: job.progress.clone(),
                why: job.why.clone(),
                look: (job.watch.look.at_s > 0.0).then(|| job.watch.look.clone()),
                forecast: None,
            })
            .collect();
        Some(RunSnapshot { record: entry.record.clone(), jobs })
    }

    /// The same, with where and when what waits of it is likely to start.
    pub(crate) fn view_with_forecast(&mut self, run: RunId) -> Option<RunSnapshot> {
        let mut view = self.view(run)?;
        let is_waiting = |job: &JobSnapshot| matches!(job.record.state, JobState::Waiting { .. });
        if view.jobs.iter().any(is_waiting) {
            let starts = self.forecast().clone();
            for job in view.jobs.iter_mut().filter(|job| is_waiting(job)) {
                let start = starts.get(&job.record.job);
                job.forecast = start.map(|(agent, at)| (self.name_of(*agent), *at));
            }
        }
        Some(view)
    }

    /// All agents that were ever seen.
    pub(crate) fn agents(&self) -> Vec<AgentStatus> {
        self.agents
            .iter()
            .map(|(id, agent)| AgentStatus {
                record: agent.record.clone(),
                is_connected: agent.session.is_some(),
                seen_at: agent.seen_at,
                jobs: self.live_jobs_of(*id).count(),
            })
            .collect()
    }
}
