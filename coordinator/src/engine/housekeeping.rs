//! In the background: seals runs that are over for a while, and removes what is over the limits that the settings name.
//!
//! A run that somebody still brings raw files to is left for the next look. One that cannot be sealed (a frame is damaged) stays as it is;
//! that is said once. Where an object store is set, raw files of sealed runs move there.

use crate::config::KeepConfig;
use crate::decide::retention::Limits;
use crate::domain::history::RunLine;
use crate::engine::handle::EngineHandle;
use crate::engine::retention;
use crate::store::{Store, StoreError};
use pgsoak_proto::id::RunId;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What looks after the store. Ends with `shutdown`.
pub async fn run(
    store: Store,
    engine: EngineHandle,
    keep: watch::Receiver<Arc<KeepConfig>>,
    every: Duration,
    shutdown: CancellationToken,
) {
    let mut settled = BTreeSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let keep = Arc::clone(&keep.borrow());
        for run in due(&store, &engine, keep.seal_after) {
            if shutdown.is_cancelled() {
                return;
            }
            if !settled.contains(&run) && is_settled(&store, &engine, run).await {
                settled.insert(run);
            }
        }
        remove(&store, &engine, &keep).await;
    }
}

/// Runs that are over for so long, oldest first.
fn due(store: &Store, engine: &EngineHandle, seal_after: Duration) -> Vec<RunId> {
    let now = engine.now();
    let lines = store.lines();
    let is_due = |line: &&Arc<RunLine>| {
        retention::finished_at(line).is_some_and(|at| now.since(at) >= seal_after)
    };
    let mut due: Vec<RunId> = lines.iter().filter(is_due).map(|line| line.record.run).collect();
    due.sort_unstable();
    due
}

/// Packs a run and moves its raw files. Whether that was the last try: it is done, or it cannot be.
async fn is_settled(store: &Store, engine: &EngineHandle, run: RunId) -> bool {
    match engine.view(run).await {
        // Somebody still brings raw files, or the engine is gone: another time.
        Ok(Some(_)) | Err(_) => return false,
        Ok(None) => {}
    }
    let done = match store.seal(run).await {
        Ok(_) => store.move_away(run).await,
        Err(error) => Err(error),
    };
    match done {
        Ok(_) => true,
        Err(error) => {
            warn!(%run, error = pgsoak_proto::chain::chain(&error), "it is not packed, or its raw files are not moved; nothing of it is lost");
            // A full disk and an absent bucket get better; a damaged frame does not.
            matches!(error, StoreError::Damaged { .. })
        }
    }
}

async fn remove(store: &Store, engine: &EngineHandle, keep: &KeepConfig) {
    let KeepConfig { max_age, max_runs, max_bytes, .. } = *keep;
    let limits = Limits { max_age, max_runs, max_bytes };
    if limits == Limits::default() {
        return;
    }
    match retention::retain(store, engine, limits, false).await {
        Ok(kept) if kept.goes.is_empty() => {}
        Ok(kept) => info!(
            removed = kept.goes.len(),
            bytes = kept.goes.iter().map(|of| of.bytes).sum::<u64>(),
            "runs beyond the settings' limits were removed"
        ),
        Err(error) => {
            warn!(error = pgsoak_proto::chain::chain(&error), "old runs cannot be removed");
        }
    }
}
