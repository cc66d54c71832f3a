//! What an engine needs to go on after a restart.

use crate::domain::fleet::FleetRecord;
use crate::domain::job::JobState;
use crate::domain::record::{AgentRecord, JobRecord, RunInput, RunRecord};
use crate::domain::run::RunState;
use crate::domain::schedule::ScheduleRecord;
use crate::store::StoreError;
use crate::store::catalogue::Catalogue;
use crate::store::catalogue::keys::{self, Key};
use crate::store::catalogue::writing::FENCES_UNKNOWN;
use pgsoak_proto::id::RunId;
use pgsoak_proto::job::JobSpec;
use std::collections::BTreeSet;
use tracing::error;

/// A run that is not finished.
#[derive(Debug)]
pub struct OpenRun {
    /// The run.
    pub record: RunRecord,
    /// Its files.
    pub input: RunInput,
    /// In the order of its plan; `workload_toml` is empty.
    pub jobs: Vec<(JobSpec, JobRecord)>,
}

/// What an engine needs to go on after a restart.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Runs that are not finished, oldest first.
    pub open_runs: Vec<OpenRun>,
    /// Agents that were ever seen.
    pub agents: Vec<AgentRecord>,
    /// What was decided about agents.
    pub fleet: Vec<FleetRecord>,
    /// Schedules with their files.
    pub schedules: Vec<(ScheduleRecord, RunInput)>,
    /// The last fence that was given away; 0: none.
    pub fence: u64,
    /// Lasting things that people were told of.
    pub conditions: BTreeSet<String>,
    /// Damaged records that were left out, as sentences.
    pub damage: Vec<String>,
}

// === impl Catalogue ===

impl Catalogue {
    pub(crate) fn load(&self) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded { conditions: self.conditions()?, ..Loaded::default() };
        self.scan(keys::AGENTS, |record: Result<AgentRecord, _>| {
            match record {
                Ok(record) => loaded.agents.push(record),
                Err(error) => loaded.damage.push(error.to_string()),
            }
            true
        })?;
        for run in self.run_ids()? {
            match self.load_run(run) {
                Ok(Some(open)) => loaded.open_runs.push(open),
                Ok(None) => {}
                Err(error) => loaded.damage.push(format!("run {run}: {error}")),
            }
        }
        let (fleet, damage) = self.fleet()?;
        loaded.fleet = fleet;
        loaded.damage.extend(damage);
        let (schedules, damage) = self.schedules()?;
        loaded.schedules = schedules;
        loaded.damage.extend(damage);
        loaded.fence = match self.get::<u64>(&Key::Fence) {
            Ok(fence) => fence.unwrap_or(0),
            Err(error) => {
                loaded.damage.push(error.to_string());
                u64::MAX
            }
        };
        if loaded.fence == u64::MAX {
            // Far above whatever was given away, so that no old lease can ever look new.
            loaded.fence = self.highest_fence()?.saturating_add(FENCES_UNKNOWN);
        }
        for damage in &loaded.damage {
            error!(%damage, "the catalogue is damaged; the record is left out");
        }
        Ok(loaded)
    }

    fn load_run(&self, run: RunId) -> Result<Option<OpenRun>, StoreError> {
        let Some(record) = self.run(run)? else { return Ok(None) };
        if matches!(record.state, RunState::Finished { .. }) {
            return Ok(None);
        }
        let jobs = self.jobs(&record)?;
        let input = self.input(run)?.ok_or_else(|| StoreError::Damaged {
            what: format!("the catalogue's files of run {run}"),
            problem: "they are missing".to_owned(),
        })?;
        Ok(Some(OpenRun { record, input, jobs }))
    }

    fn highest_fence(&self) -> Result<u64, StoreError> {
        let mut highest = 0;
        self.scan(keys::JOBS, |record: Result<JobRecord, _>| {
            if let Some(tenure) = record.ok().as_ref().and_then(|job| JobState::tenure(&job.state))
            {
                highest = highest.max(tenure.lease.fence);
            }
            true
        })?;
        Ok(highest)
    }
}
