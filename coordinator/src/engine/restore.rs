//! Back into memory: everything at a start, single finished runs when an agent still holds something of them.

use crate::domain::job::JobEvent;
use crate::domain::record::AgentRecord;
use crate::engine::fleet::Join;
use crate::engine::state::{AgentEntry, JobEntry, State};
use crate::store::catalogue::{Loaded, OpenRun};
use crate::store::run_db::Ended;
use crate::store::{Store, StoreError};
use pgsoak_proto::id::{AgentId, JobId, RunId};
use tracing::{info, warn};

impl State {
    /// Everything as it was when the last coordinator ended, however it ended. Attempts that were live count as
    /// unreachable until their agents say what they hold.
    pub(crate) fn restore(&mut self, loaded: Loaded) {
        let Loaded { open_runs, agents, fleet, schedules, fence, conditions, damage } = loaded;
        self.notices.conditions = conditions;
        self.fence = fence;
        for record in agents {
            self.restore_agent(record);
        }
        self.fleet = fleet.into_iter().map(|record| (record.agent, record)).collect();
        for (agent, name) in self.unadmitted() {
            self.admit(agent, &name, Join::Open, true);
        }
        self.restore_schedules(schedules);
        let runs = open_runs.len();
        for OpenRun { record, input, jobs } in open_runs {
            let highest = jobs
                .iter()
                .filter_map(|(_, job)| job.state.tenure())
                .map(|tenure| tenure.lease.fence)
                .max();
            self.fence = self.fence.max(highest.unwrap_or(0));
            self.insert_run(record, input, jobs);
        }
        info!(runs, agents = self.agents.len(), fence = self.fence, "state is restored");
        if !damage.is_empty() {
            warn!(records = damage.len(), "damaged records were left out");
        }
    }

    /// Attempts that the catalogue calls live.
    pub(crate) fn live_attempts(&self) -> Vec<(RunId, JobId, u32)> {
        let live = |job: &JobEntry| {
            let lease = job.record.state.live()?.lease;
            Some((job.record.run, lease.job, lease.attempt))
        };
        self.runs.values().flat_map(|run| run.jobs.values()).filter_map(live).collect()
    }

    /// The last frames of live attempts were found in the store: the coordinator ended between storing them and writing
    /// down that the jobs are over. Their agents need not have anything of them any more.
    pub(crate) fn restore_ends(&mut self, found: Vec<(JobId, Ended)>) {
        for (job, Ended { sequence, outcome, reason }) in found {
            let Some(entry) = self.job_mut(job) else { continue };
            entry.record.is_ended = true;
            entry.record.stored_sequence = entry.record.stored_sequence.max(sequence);
            info!(%job, %outcome, "its last frame was stored before the restart");
            self.step(job, JobEvent::Ended { outcome, reason });
        }
    }

    fn restore_agent(&mut self, record: AgentRecord) {
        // The clock may have been set back.
        let seen_at = record.last_seen_at.min(self.now());
        let entry = AgentEntry { record, session: None, seen_at, busy: String::new() };
        self.agents.insert(entry.record.agent, entry);
    }

    /// Agents that were here before anybody decided about agents.
    fn unadmitted(&self) -> Vec<(AgentId, String)> {
        let agents = self.agents.iter().filter(|(id, _)| !self.fleet.contains_key(id));
        agents.map(|(id, entry)| (*id, entry.record.name.clone())).collect()
    }

    /// Loads the finished runs of these jobs, where memory does not have them.
    pub(crate) async fn recall(&mut self, store: &Store, jobs: Vec<JobId>) {
        for job in jobs {
            if self.run_of_job.contains_key(&job) {
                continue;
            }
            match recall_one(store, job).await {
                Ok(Some(OpenRun { record, input, jobs })) => {
                    info!(run = %record.run, %job, "recalled: an agent holds something of it");
                    self.insert_run(record, input, jobs);
                }
                Ok(None) => {}
                Err(error) => warn!(%job, %error, "a held job cannot be looked up"),
            }
        }
    }
}

async fn recall_one(store: &Store, job: JobId) -> Result<Option<OpenRun>, StoreError> {
    let Some(run) = store.run_of_job(job).await? else { return Ok(None) };
    let Some(record) = store.run(run).await? else { return Ok(None) };
    let jobs = store.jobs(&record).await?;
    let input = store.input(run).await?.unwrap_or_default();
    Ok(Some(OpenRun { record, input, jobs }))
}
