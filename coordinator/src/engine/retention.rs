//! Carries retention out: looks what runs take, has `decide` decide, removes.

use crate::decide::retention::{self, Goes, Kept, Limits};
use crate::domain::history::{BaselineOf, RunLine};
use crate::domain::run::RunState;
use crate::domain::time::UnixUs;
use crate::engine::comparing;
use crate::engine::handle::{EngineGone, EngineHandle};
use crate::store::{Store, StoreError};
use pgsoak_proto::id::RunId;
use pgsoak_proto::job::Arm;
use std::{collections::BTreeSet, sync::Arc};
use tracing::info;

/// What a look at retention found, and perhaps did.
#[derive(Debug)]
pub struct Retained {
    /// Runs that go, or went.
    pub goes: Vec<Goes>,
    /// Runs that there were.
    pub runs: usize,
    /// What all runs took.
    pub bytes: u64,
    /// Of these, finished ones that stay whatever the limits say.
    pub protected: usize,
}

/// Why retention broke off.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The coordinator ends.
    #[error(transparent)]
    Gone(#[from] EngineGone),
}

/// Removes what is over the limits; `is_dry`: only says what would go.
///
/// # Errors
///
/// When the store cannot be read or written; what went until then is gone.
pub async fn retain(
    store: &Store,
    engine: &EngineHandle,
    limits: Limits,
    is_dry: bool,
) -> Result<Retained, RetentionError> {
    let lines = store.lines();
    let baselines = baselines(store, &lines).await?;
    let bytes = store.bytes_of(lines.iter().map(|line| line.record.run).collect()).await?;
    let runs: Vec<Kept> = lines
        .iter()
        .zip(bytes)
        .map(|(line, bytes)| Kept {
            run: line.record.run,
            finished_at: finished_at(line),
            bytes,
            protected: if line.annotations.pin.is_some() {
                Some("pinned")
            } else {
                baselines.contains(&line.record.run).then_some("a baseline")
            },
        })
        .collect();
    let planned = retention::plan(&runs, limits, engine.now());
    let mut goes = Vec::with_capacity(planned.len());
    for of in planned {
        if !is_dry {
            // Somebody still brings raw files of it: it goes the next time.
            if engine.view(of.run).await?.is_some() {
                continue;
            }
            // Pinned while others were being removed.
            if store.line(of.run).is_some_and(|line| line.annotations.pin.is_some()) {
                continue;
            }
            store.remove_run(of.run).await?;
            info!(run = %of.run, why = of.why, bytes = of.bytes, "a run was removed");
        }
        goes.push(of);
    }
    Ok(Retained {
        goes,
        runs: runs.len(),
        bytes: runs.iter().map(|run| run.bytes).sum(),
        protected: runs.iter().filter(|run| run.protected.is_some()).count(),
    })
}

/// When the run was over; `None`: it is not.
pub(super) fn finished_at(line: &RunLine) -> Option<UnixUs> {
    match &line.record.state {
        RunState::Finished { finished_at, .. } => Some(*finished_at),
        _ => None,
    }
}

/// Runs that somebody set as a baseline, or that hold a build which somebody set.
async fn baselines(store: &Store, lines: &[Arc<RunLine>]) -> Result<BTreeSet<RunId>, StoreError> {
    let mut found = BTreeSet::new();
    for baseline in store.baselines().await? {
        match baseline.of {
            BaselineOf::Run(run) => {
                found.insert(run);
            }
            BaselineOf::Build(build) => {
                let name = build.to_string();
                let holds = |line: &&Arc<RunLine>| {
                    let mut builds = line.facts.builds.iter();
                    builds.any(|(arm, of)| *arm != Arm::Control && *of == name)
                };
                let newest = lines.iter().rev().filter(holds).take(comparing::BASELINE_RUNS);
                found.extend(newest.map(|line| line.record.run));
            }
        }
    }
    Ok(found)
}
