//! How much of what there is, for metrics: counted on demand.

use crate::decide::standing::{Health, Standing};
use crate::domain::job::JobState;
use crate::domain::time::UnixUs;
use crate::engine::state::State;
use std::{collections::BTreeMap, time::Duration};

/// Counts of the fleet and the queue.
#[derive(Clone, Debug)]
pub struct Census {
    /// Agents by where they stand.
    pub agents: BTreeMap<&'static str, u64>,
    /// Agents by health; a quarantined one is failing wherever it is.
    pub health: BTreeMap<&'static str, u64>,
    /// Agents of another version than the coordinator's.
    pub skewed: u64,
    /// Slots of connected agents by `busy` and `free`.
    pub slots: BTreeMap<&'static str, u64>,
    /// Runs that are not finished, by state.
    pub runs: BTreeMap<&'static str, u64>,
    /// Jobs of these runs, by state.
    pub jobs: BTreeMap<&'static str, u64>,
    /// How long the job that waits longest has waited.
    pub longest_wait: Duration,
}

// === impl Census ===

impl Default for Census {
    /// Nothing of anything; every state is there.
    fn default() -> Self {
        Self {
            agents: Standing::ALL.map(|standing| (standing.label(), 0)).into(),
            health: Health::ALL.map(|health| (health.label(), 0)).into(),
            skewed: 0,
            slots: BTreeMap::from([("busy", 0), ("free", 0)]),
            runs: ["queued", "running", "cancelling", "judging"].map(|state| (state, 0)).into(),
            jobs: ["waiting", "assigned", "running", "unreachable", "cancelling", "over"]
                .map(|state| (state, 0))
                .into(),
            longest_wait: Duration::ZERO,
        }
    }
}

impl State {
    /// Counts everything once.
    pub(crate) fn census(&self) -> Census {
        let now = self.now();
        let mut census = Census::default();
        for member in self.members() {
            add(&mut census.agents, member.standing.label(), 1);
            add(&mut census.health, member.health.label(), 1);
            census.skewed += u64::from(member.is_skewed());
            if member.status.is_connected {
                let slots = u64::from(member.status.record.capabilities.slots);
                let busy = u64::try_from(member.status.jobs).unwrap_or(u64::MAX);
                add(&mut census.slots, "busy", busy);
                add(&mut census.slots, "free", slots.saturating_sub(busy));
            }
        }
        for run in self.runs.values().filter(|run| !Self::is_finished(run)) {
            add(&mut census.runs, run.record.state.label(), 1);
            for job in run.jobs.values() {
                add(&mut census.jobs, job.record.state.label(), 1);
                if let JobState::Waiting { not_before, .. } = &job.record.state {
                    let since: UnixUs = run.record.submitted_at.max(*not_before);
                    census.longest_wait = census.longest_wait.max(now.since(since));
                }
            }
        }
        census
    }
}

fn add(counts: &mut BTreeMap<&'static str, u64>, label: &'static str, by: u64) {
    *counts.entry(label).or_default() += by;
}
