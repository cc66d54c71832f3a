//! The catalogue: one small sled database of runs, jobs, agents, keys, results and artifacts.
//!
//! One thread writes. What waits for it is merged into one atomic batch and synced once. Keys begin with a letter for
//! the kind; ids of version 7 make runs lie in the order of their submission.

use crate::blocking;
use crate::domain::record::{
    AgentRecord, ArtifactRecord, JobRecord, RunInput, RunRecord, SpecRecord,
};
use crate::store::StoreError;
use crate::store::index::RunIndex;
use crate::store::open::{OpenStoreError, SyncedDb};
use crate::store::value;
use crate::store::{
    QUEUE,
    catalogue::{
        keys::Key,
        writing::{Command, write_all},
    },
};
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::job::JobSpec;
use serde::de::DeserializeOwned;
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

mod batch;
mod builds;
pub(crate) mod check;
mod fleet;
mod history;
mod keys;
mod loading;
mod notices;
mod removal;
mod schedules;
mod summaries;
mod writing;

pub use batch::Batch;
pub use loading::{Loaded, OpenRun};
pub(crate) use writing::{Entries, raise_fence};

/// Cache of the catalogue. sled's default is 1 GB.
const CACHE_BYTES: u64 = 32 << 20;
/// The catalogue. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Catalogue {
    db: Arc<SyncedDb>,
    index: Arc<RunIndex>,
    commands: mpsc::Sender<Command>,
    thread: Arc<Mutex<Option<thread::JoinHandle<()>>>>,
}

// === impl Catalogue ===

impl std::fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalogue").finish_non_exhaustive()
    }
}

impl Catalogue {
    pub(crate) fn open(path: &Path) -> Result<Self, OpenStoreError> {
        let db = Arc::new(SyncedDb::open(path, CACHE_BYTES)?);
        let index = Arc::new(RunIndex::default());
        let (commands, queue) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new()
            .name("catalogue".to_owned())
            .spawn({
                let (db, index) = (Arc::clone(&db), Arc::clone(&index));
                move || write_all(&db, &index, queue)
            })
            .map_err(|error| OpenStoreError::Thread { problem: error.to_string() })?;
        let catalogue = Self { db, index, commands, thread: Arc::new(Mutex::new(Some(thread))) };
        let changes = catalogue.index_changes().map_err(|error| OpenStoreError::Damaged {
            path: path.to_owned(),
            problem: error.to_string(),
        })?;
        catalogue.index.apply(changes);
        Ok(catalogue)
    }

    pub(crate) async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        blocking::step().await;
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Command::Commit((batch, reply)))
            .await
            .map_err(|_| StoreError::Closed)?;
        blocking::answer(answer).await.ok_or(StoreError::Closed)?
    }

    /// For simulations, whose crashes leave the process alive: there it is as good as durable.
    #[cfg(test)]
    pub(crate) fn commit_unsynced(&self, mut batch: Batch) -> Result<(), StoreError> {
        let mut merged = sled::Batch::default();
        let changes = std::mem::take(&mut batch.changes);
        let edits = std::mem::take(&mut batch.edits);
        writing::add(&self.db, &mut merged, batch)?;
        let edited = history::add_edits(&self.db, &self.index, &mut merged, edits)?;
        self.db.db.apply_batch(merged).map_err(|source| self.db.error("write", source))?;
        self.index.apply(changes.into_iter().chain(edited));
        Ok(())
    }

    /// All entries, of one moment: the thread that writes reads them.
    pub(crate) async fn copy(&self) -> Result<Entries, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Copy(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    pub(crate) async fn stop(&self) {
        // Gone already is stopped.
        let _ = self.commands.send(Command::Stop).await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = crate::blocking::spawn(move || thread.join()).await;
        }
    }

    fn get<T: DeserializeOwned>(&self, key: &Key<'_>) -> Result<Option<T>, StoreError> {
        let found = value::get(&self.db.db, &key.encode())
            .map_err(|source| self.db.error("read", source))?;
        match found {
            None => Ok(None),
            Some(value) => match value.and_then(|bytes| parse(&bytes)) {
                Ok(record) => Ok(Some(record)),
                Err(damage) => Err(StoreError::Damaged {
                    what: format!("the catalogue's {key:?}"),
                    problem: damage.to_string(),
                }),
            },
        }
    }

    fn scan<T: DeserializeOwned>(
        &self,
        prefix: &[u8],
        mut each: impl FnMut(Result<T, StoreError>) -> bool,
    ) -> Result<(), StoreError> {
        value::scan(&self.db.db, prefix, |key, value| {
            each(value.and_then(|bytes| parse(&bytes)).map_err(|damage| StoreError::Damaged {
                what: format!("the catalogue's record {}", keys::describe(key)),
                problem: damage.to_string(),
            }))
        })
        .map_err(|source| self.db.error("read", source))
    }

    pub(crate) fn run(&self, run: RunId) -> Result<Option<RunRecord>, StoreError> {
        self.get(&Key::Run(run))
    }

    pub(crate) fn run_ids(&self) -> Result<Vec<RunId>, StoreError> {
        let mut runs = Vec::new();
        for key in self.db.db.scan_prefix(keys::RUNS).keys() {
            let key = key.map_err(|source| self.db.error("read", source))?;
            if let Some(run) = keys::run_of(&key)
                && runs.last() != Some(&run)
            {
                runs.push(run);
            }
        }
        Ok(runs)
    }

    pub(crate) fn list_runs(
        &self,
        before: Option<RunId>,
        plan: Option<&str>,
        limit: usize,
    ) -> Vec<RunRecord> {
        let lines = self.index.lines();
        let fits = lines.iter().rev().map(|line| &line.record).filter(|record| {
            before.is_none_or(|before| record.run < before)
                && plan.is_none_or(|plan| record.plan == plan)
        });
        fits.take(limit).cloned().collect()
    }

    pub(crate) fn run_of_key(&self, client_key: &str) -> Result<Option<RunId>, StoreError> {
        self.get(&Key::Client(client_key))
    }

    pub(crate) fn run_of_job(&self, job: JobId) -> Result<Option<RunId>, StoreError> {
        self.get(&Key::RunOfJob(job))
    }

    pub(crate) fn input(&self, run: RunId) -> Result<Option<RunInput>, StoreError> {
        self.get(&Key::Input(run))
    }

    pub(crate) fn result(&self, run: RunId) -> Result<Option<String>, StoreError> {
        self.get(&Key::Result(run))
    }

    pub(crate) fn jobs(&self, run: &RunRecord) -> Result<Vec<(JobSpec, JobRecord)>, StoreError> {
        run.jobs
            .iter()
            .map(|job| {
                let missing = |what: &str| StoreError::Damaged {
                    what: format!("the catalogue's {what} of job {job}"),
                    problem: "it is missing".to_owned(),
                };
                let spec: SpecRecord =
                    self.get(&Key::Spec(run.run, *job))?.ok_or_else(|| missing("spec"))?;
                let record: JobRecord =
                    self.get(&Key::Job(run.run, *job))?.ok_or_else(|| missing("state"))?;
                Ok((spec.spec, record))
            })
            .collect()
    }

    pub(crate) fn artifacts(&self, run: RunId) -> Result<Vec<ArtifactRecord>, StoreError> {
        let mut found = Vec::new();
        self.scan(&keys::artifacts_of(run), |record| {
            match record {
                Ok(record) => found.push(record),
                Err(error) => warn!(%run, %error, "left out of a list"),
            }
            true
        })?;
        Ok(found)
    }

    pub(crate) fn agents(&self) -> Result<Vec<AgentRecord>, StoreError> {
        self.all(keys::AGENTS)
    }

    /// Every record under a prefix; what is damaged is left out, and said.
    fn all<T: serde::de::DeserializeOwned>(&self, prefix: &[u8]) -> Result<Vec<T>, StoreError> {
        let mut found = Vec::new();
        self.scan(prefix, |record| {
            match record {
                Ok(record) => found.push(record),
                Err(error) => warn!(%error, "left out of a list"),
            }
            true
        })?;
        Ok(found)
    }
}

/// The run of an entry that is one of a run's record.
pub(crate) fn run_of(key: &[u8]) -> Option<RunId> {
    key.starts_with(keys::RUNS).then(|| keys::run_of(key)).flatten()
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, value::DamagedValue> {
    serde_json::from_slice(bytes).map_err(|error| value::DamagedValue::Content(error.to_string()))
}
