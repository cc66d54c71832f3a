//! What is durable: the catalogue, the evidence of runs, artifacts.
//!
//! Three threads of their own do all writing (`catalogue`, `evidence`, `artifacts`), each the only writer of its part.
//! They gather what waits, write it as one, sync once, and only then answer: **answered means durable**. Reads go past
//! them, on tokio's blocking threads. Nothing here blocks an async worker.
//!
//! sled's own `flush` is no fsync on Linux, so every answer waits for an `fdatasync` on a file of our own as well
//! (see `open`).

pub mod artifacts;
pub mod builds;
pub mod catalogue;
pub mod check;
pub mod copy;
pub mod evidence;
pub mod history;
pub mod open;
pub mod remote;
pub mod run_db;
pub mod sealing;
pub mod value;

mod acknowledged;
mod aside;
mod index;
mod mark;
mod notices;
mod removal;
pub(crate) mod run_dbs;
mod sealed;
mod unsealed;

use crate::blocking;
use crate::domain::build::Shelf;
use crate::domain::record::{AgentRecord, ArtifactRecord, JobRecord, RunInput, RunRecord};
use crate::store::artifacts::{ArtifactError, ArtifactWrite, Artifacts, Received};
use crate::store::builds::BuildFiles;
use crate::store::catalogue::{Batch, Catalogue, Loaded};
use crate::store::copy::{CopyPart, CopySummary};
use crate::store::evidence::{Append, AppendError, Appended, EvidenceWriter};
use crate::store::open::OpenStoreError;
use crate::store::remote::Remote;
use crate::store::run_db::{Ended, StoredFrame};
use crate::store::run_dbs::RunDbs;
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::job::JobSpec;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Writes that wait for a thread before their senders are held back. One agent has at most a few under way.
const QUEUE: usize = 1_024;

/// The store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading or writing failed.
    #[error("{doing} in {}", path.display())]
    Sled {
        /// What was being done.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What sled said.
        #[source]
        source: sled::Error,
    },
    /// The disk did not take it.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A database does not open.
    #[error(transparent)]
    Open(#[from] OpenStoreError),
    /// A stored value is not what was written.
    #[error("{what} is damaged: {problem}")]
    Damaged {
        /// Which.
        what: String,
        /// How it shows.
        problem: String,
    },
    /// Nothing is added to a run that is over for a while.
    #[error("{} is sealed: its run is over", path.display())]
    Sealed {
        /// The run's folder.
        path: PathBuf,
    },
    /// The object store does not do what was asked.
    #[error("{doing} {url}: {problem}")]
    Remote {
        /// What was being done.
        doing: &'static str,
        /// Where.
        url: String,
        /// What it said.
        problem: String,
    },
    /// The thread has ended: the coordinator is shutting down.
    #[error("the store is closed")]
    Closed,
}

/// The store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    catalogue: Catalogue,
    runs: Arc<RunDbs>,
    evidence: EvidenceWriter,
    artifacts: Artifacts,
    builds: BuildFiles,
    shelf: Shelf,
    /// Where raw files of runs that are over lie, if that is elsewhere.
    remote: Option<Remote>,
}

pub(crate) fn ends(
    runs: &RunDbs,
    attempts: &[(RunId, JobId, u32)],
) -> Result<Vec<(JobId, Ended)>, StoreError> {
    let mut found = Vec::new();
    for (run, job, attempt) in attempts {
        if let Some(db) = runs.open_existing(*run)?
            && let Some(ended) = db.ended(*job, *attempt)?
        {
            found.push((*job, ended));
        }
    }
    Ok(found)
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match blocking::spawn(work).await {
        Ok(done) => done,
        // The runtime is going down, or sled panicked over damage that it did not expect.
        Err(error) => Err(StoreError::Damaged {
            what: "the store".to_owned(),
            problem: format!("reading it failed: {error}"),
        }),
    }
}

// === impl Store ===

impl Store {
    /// Opens (or makes) the store in the data folder.
    ///
    /// # Errors
    ///
    /// When the catalogue does not open. A damaged run is no error: it is set aside when it is first touched.
    pub async fn open(data: &Path) -> Result<Self, OpenStoreError> {
        let data = data.to_owned();
        let opened = blocking::spawn(move || {
            let catalogue = Catalogue::open(&data.join("catalogue"))?;
            let runs = Arc::new(RunDbs::new(data.join("runs"))?);
            let evidence = EvidenceWriter::start(Arc::clone(&runs))?;
            let artifacts = Artifacts::start(data.join("artifacts"))?;
            let builds = BuildFiles::new(data.join("builds"));
            let shelf = Shelf::default();
            match catalogue.builds() {
                Ok(known) => {
                    builds.tidy(&known);
                    shelf.set(known);
                }
                Err(error) => tracing::warn!(%error, "the builds cannot be read"),
            }
            let remote = None;
            let store = Self { catalogue, runs, evidence, artifacts, builds, shelf, remote };
            store.tidy();
            Ok(store)
        });
        match opened.await {
            Ok(result) => result,
            Err(error) => Err(OpenStoreError::Thread { problem: error.to_string() }),
        }
    }

    /// Ends the writing threads after what is queued, and waits for them.
    pub async fn close(&self) {
        self.evidence.stop().await;
        self.artifacts.stop().await;
        self.catalogue.stop().await;
    }

    // --- catalogue ---

    /// Writes all of it, or nothing. Durable when this returns.
    ///
    /// # Errors
    ///
    /// When the disk does not take it.
    pub async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.catalogue.commit(batch).await
    }

    /// Everything that an engine needs to go on.
    ///
    /// # Errors
    ///
    /// When the catalogue cannot be read; single damaged records are left out and named in the answer.
    pub async fn load(&self) -> Result<Loaded, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || catalogue.load()).await
    }

    /// A run; `None`: there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn run(&self, run: RunId) -> Result<Option<RunRecord>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || catalogue.run(run)).await
    }

    /// Ids of all runs, oldest first.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn run_ids(&self) -> Result<Vec<RunId>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || catalogue.run_ids()).await
    }

    /// Runs before `before` (or the newest), newest first, of one plan or all.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn list_runs(
        &self,
        before: Option<RunId>,
        plan: Option<String>,
        limit: usize,
    ) -> Result<Vec<RunRecord>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || Ok(catalogue.list_runs(before, plan.as_deref(), limit))).await
    }

    /// The run that a client key stands for.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn run_of_key(&self, client_key: String) -> Result<Option<RunId>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || catalogue.run_of_key(&client_key)).await
    }

    /// The run that a job belongs to.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn run_of_job(&self, job: JobId) -> Result<Option<RunId>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || catalogue.run_of_job(job)).await
    }

    /// The files a run was made from.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn input(&self, run: RunId) -> Result<Option<RunInput>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || catalogue.input(run)).await
    }

    /// The jobs of a run in the order of its plan; `workload_toml` is left empty.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn jobs(&self, run: &RunRecord) -> Result<Vec<(JobSpec, JobRecord)>, StoreError> {
        let (catalogue, run) = (self.catalogue.clone(), run.clone());
        blocking(move || catalogue.jobs(&run)).await
    }

    /// The stored result of a run, JSON; `None`: not judged yet.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn result(&self, run: RunId) -> Result<Option<String>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || catalogue.result(run)).await
    }

    /// The artifacts of a run.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn artifacts(&self, run: RunId) -> Result<Vec<ArtifactRecord>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || catalogue.artifacts(run)).await
    }

    /// All agents that were ever seen.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn agents(&self) -> Result<Vec<AgentRecord>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || catalogue.agents()).await
    }

    // --- evidence ---

    /// Queues frames for writing and returns at once; the answer comes when they are durable. Appends of one attempt
    /// that are queued in order are written in order.
    ///
    /// # Errors
    ///
    /// When the store is closed.
    pub async fn append(
        &self,
        append: Append,
    ) -> Result<impl Future<Output = Result<Appended, AppendError>> + Send + use<>, StoreError>
    {
        self.evidence.append(append).await
    }

    /// How far each of these attempts of a run is stored, and what was found wrong when it was opened.
    ///
    /// # Errors
    ///
    /// When the run's database does not open even afresh.
    pub async fn high_water(
        &self,
        run: RunId,
        attempts: Vec<(JobId, u32)>,
    ) -> Result<(Vec<u64>, Option<String>), StoreError> {
        let runs = Arc::clone(&self.runs);
        blocking(move || {
            let db = runs.open(run)?;
            let marks = attempts
                .iter()
                .map(|(job, attempt)| db.high_water(*job, *attempt))
                .collect::<Result<_, _>>()?;
            Ok((marks, db.damage().map(str::to_owned)))
        })
        .await
    }

    /// How attempts ended of which the last frame is stored.
    ///
    /// # Errors
    ///
    /// When a run's database does not open even afresh, or cannot be read.
    pub async fn ends(
        &self,
        attempts: Vec<(RunId, JobId, u32)>,
    ) -> Result<Vec<(JobId, Ended)>, StoreError> {
        let runs = Arc::clone(&self.runs);
        blocking(move || ends(&runs, &attempts)).await
    }

    /// Reads the frames of one attempt in order, on a blocking thread, until `each` returns false.
    ///
    /// # Errors
    ///
    /// When the database cannot be read; a damaged frame is handed to `each` as such.
    pub async fn read_frames(
        &self,
        run: RunId,
        job: JobId,
        attempt: u32,
        mut each: impl FnMut(StoredFrame) -> bool + Send + 'static,
    ) -> Result<(), StoreError> {
        let runs = Arc::clone(&self.runs);
        blocking(move || {
            let Some(db) = runs.open_existing(run)? else { return Ok(()) };
            db.frames(job, attempt, &mut each)
        })
        .await
    }

    /// The run is over: its database is closed once nobody reads it.
    pub async fn close_run(&self, run: RunId) {
        self.evidence.close(run).await;
    }

    /// How often the evidence of open runs was synced, for tests of the order of things.
    pub fn evidence_syncs(&self) -> u64 {
        self.evidence.syncs()
    }

    // --- artifacts ---

    /// Stores a piece of a raw file. What the answer says is stored is synced.
    ///
    /// # Errors
    ///
    /// When the disk does not take it, or the file is not what was announced.
    pub async fn write_artifact(
        &self,
        write: ArtifactWrite,
    ) -> Result<impl Future<Output = Result<Received, ArtifactError>> + Send + use<>, StoreError>
    {
        self.artifacts.write(write).await
    }

    /// Reads a consistent copy of everything, on a blocking thread, until `each` returns false.
    ///
    /// The catalogue comes first, as of one moment; the evidence that follows holds at least what it speaks of. New
    /// evidence is written meanwhile.
    ///
    /// # Errors
    ///
    /// When something cannot be read: the copy is not whole then.
    pub async fn copy(
        &self,
        each: impl FnMut(CopyPart) -> bool + Send + 'static,
    ) -> Result<CopySummary, StoreError> {
        let entries = self.catalogue.copy().await?;
        let store = self.clone();
        blocking(move || {
            let Self { catalogue, runs, artifacts, builds, .. } = &store;
            copy::read(catalogue, runs, artifacts, builds, entries, each)
        })
        .await
    }

    /// The file that holds a complete artifact.
    pub fn artifact_path(&self, run: RunId, artifact: &ArtifactRecord) -> PathBuf {
        self.artifacts.path(run, artifact.job, artifact.attempt, &artifact.name)
    }
}
