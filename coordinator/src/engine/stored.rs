//! A run as the store has it: what is left of one that memory no longer holds.

use crate::engine::handle::{JobSnapshot, RunSnapshot};
use crate::store::{Store, StoreError};
use pgsoak_proto::id::RunId;
use std::collections::HashMap;

/// The run with its jobs; `None`: there is none.
///
/// # Errors
///
/// When it cannot be read.
pub async fn snapshot(store: &Store, run: RunId) -> Result<Option<RunSnapshot>, StoreError> {
    let Some(record) = store.run(run).await? else { return Ok(None) };
    // Of a run that was imported they are those that it came with.
    let imported = store.input(run).await?.unwrap_or_default().agents;
    let agents = store.agents().await?;
    let mut names: HashMap<_, _> =
        agents.into_iter().map(|agent| (agent.agent, agent.name)).collect();
    names.extend(imported);
    let jobs = store
        .jobs(&record)
        .await?
        .into_iter()
        .map(|(spec, job)| JobSnapshot {
            agent: job
                .state
                .tenure()
                .and_then(|tenure| names.get(&tenure.agent).cloned())
                .unwrap_or_default(),
            spec,
            record: job,
            progress: None,
            why: String::new(),
            look: None,
            forecast: None,
        })
        .collect();
    Ok(Some(RunSnapshot { record, jobs }))
}
