//! What people see of runs and agents.

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
            })
            .collect();
        Some(RunSnapshot { record: entry.record.clone(), jobs })
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
