//! The catalogue: one small sled database of runs, jobs, agents, keys, results and artifacts.
//!
//! One thread writes. What waits for it is merged into one atomic batch and synced once. Keys begin with a letter for
//! the kind; ids of version 7 make runs lie in the order of their submission.

use crate::blocking;
use crate::domain::fleet::FleetRecord;
use crate::domain::job::JobState;
use crate::domain::record::{
    AgentRecord, ArtifactRecord, JobRecord, RunInput, RunRecord, SpecRecord,
};
use crate::domain::run::RunState;
use crate::domain::schedule::ScheduleRecord;
use crate::store::StoreError;
use crate::store::index::{Change, RunIndex};
use crate::store::open::{OpenStoreError, SyncedDb};
use crate::store::value;
use crate::store::{
    QUEUE,
    catalogue::{history::Edit, keys::Key},
};
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::job::JobSpec;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

mod builds;
pub(crate) mod check;
mod fleet;
mod history;
mod keys;
mod notices;
mod removal;
mod schedules;
mod summaries;

/// Added to the last fence when a copy is restored: leases that were given after the copy was made never look new.
const FENCES_UNKNOWN: u64 = 1 << 32;

/// Cache of the catalogue. sled's default is 1 GB.
const CACHE_BYTES: u64 = 32 << 20;
/// Batches that share one sync.
const GROUP: usize = 256;

/// Records to write together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    puts: Vec<(Vec<u8>, Vec<u8>)>,
    removes: Vec<Vec<u8>>,
    edits: Vec<Edit>,
    /// What readers of the index see once it is durable.
    changes: Vec<Change>,
    /// A record that cannot be written at all (too large); the whole batch is refused.
    refused: Option<String>,
}

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

type Waiting = (Batch, oneshot::Sender<Result<(), StoreError>>);

/// Keys and values as they lie in a database.
pub(crate) type Entries = Vec<(Vec<u8>, Vec<u8>)>;

enum Command {
    Commit(Waiting),
    /// Everything, as it is between two batches.
    Copy(oneshot::Sender<Result<Entries, StoreError>>),
    Stop,
}

/// The catalogue. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Catalogue {
    db: Arc<SyncedDb>,
    index: Arc<RunIndex>,
    commands: mpsc::Sender<Command>,
    thread: Arc<Mutex<Option<thread::JoinHandle<()>>>>,
}

// === impl Batch ===

impl Batch {
    fn put(&mut self, key: &Key<'_>, record: &impl Serialize) {
        match serde_json::to_vec(record) {
            Ok(bytes) if bytes.len() <= value::MAX_VALUE => {
                self.puts.push((key.encode(), bytes));
            }
            Ok(bytes) => self.refused = Some(format!("{key:?} has {} bytes", bytes.len())),
            Err(error) => self.refused = Some(format!("{key:?}: {error}")),
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty()
            && self.removes.is_empty()
            && self.edits.is_empty()
            && self.refused.is_none()
    }

    /// A run.
    pub fn run(&mut self, run: &RunRecord) {
        self.put(&Key::Run(run.run), run);
        self.changes.push(Change::Run(Box::new(run.clone())));
    }

    /// The files of a run.
    pub fn input(&mut self, run: RunId, input: &RunInput) {
        self.put(&Key::Input(run), input);
    }

    /// What a job was asked; its `workload_toml` is not kept here.
    pub fn spec(&mut self, spec: &JobSpec) {
        let record = SpecRecord { spec: JobSpec { workload_toml: String::new(), ..spec.clone() } };
        self.put(&Key::Spec(spec.run, spec.job), &record);
        self.put(&Key::RunOfJob(spec.job), &spec.run);
        self.changes.push(Change::Spec(Box::new(record.spec)));
    }

    /// Where a job stands.
    pub fn job(&mut self, job: &JobRecord) {
        self.put(&Key::Job(job.run, job.job), job);
        self.changes.push(Change::Job(Box::new(job.clone())));
    }

    /// An agent.
    pub fn agent(&mut self, agent: &AgentRecord) {
        self.put(&Key::Agent(agent.agent), agent);
        self.changes.push(Change::Agent(Box::new(agent.clone())));
    }

    /// The run that a client key stands for.
    pub fn client_key(&mut self, client_key: &str, run: RunId) {
        self.put(&Key::Client(client_key), &run);
    }

    /// The last fence that was given away.
    pub fn fence(&mut self, fence: u64) {
        self.put(&Key::Fence, &fence);
    }

    /// The result of a run, as JSON text.
    pub fn result(&mut self, run: RunId, json: &str) {
        self.put(&Key::Result(run), &json);
    }

    /// An artifact.
    pub fn artifact(&mut self, run: RunId, artifact: &ArtifactRecord) {
        self.put(&Key::Artifact(run, artifact.job, artifact.attempt, &artifact.name), artifact);
    }
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
    pub(crate) fn commit_unsynced(&self, batch: Batch) -> Result<(), StoreError> {
        let mut merged = sled::Batch::default();
        let changes = batch.changes.clone();
        add(&self.db, &mut merged, batch)?;
        self.db.db.apply_batch(merged).map_err(|source| self.db.error("write", source))?;
        self.index.apply(changes);
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
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
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

/// The run of an entry that is one of a run's record.
pub(crate) fn run_of(key: &[u8]) -> Option<RunId> {
    key.starts_with(keys::RUNS).then(|| keys::run_of(key)).flatten()
}

/// Makes a restored catalogue safe to go on with.
pub(crate) fn raise_fence(db: &SyncedDb) -> Result<(), StoreError> {
    let stored = value::get(&db.db, &Key::Fence.encode())
        .map_err(|source| db.error("read", source))?
        .and_then(Result::ok);
    let fence: u64 = stored.and_then(|bytes| parse(&bytes).ok()).unwrap_or(0);
    let mut batch = Batch::default();
    batch.fence(fence.saturating_add(FENCES_UNKNOWN));
    let mut merged = sled::Batch::default();
    add(db, &mut merged, batch)?;
    db.db.apply_batch(merged).map_err(|source| db.error("write", source))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, value::DamagedValue> {
    serde_json::from_slice(bytes).map_err(|error| value::DamagedValue::Content(error.to_string()))
}

/// The thread: merges what waits, writes it at once, syncs, answers.
fn write_all(db: &SyncedDb, index: &RunIndex, mut queue: mpsc::Receiver<Command>) {
    let mut group: Vec<Waiting> = Vec::new();
    loop {
        let mut copies = Vec::new();
        let mut next = queue.blocking_recv();
        let is_over = loop {
            match next {
                Some(Command::Commit(waiting)) => group.push(waiting),
                Some(Command::Copy(reply)) => copies.push(reply),
                Some(Command::Stop) | None => break true,
            }
            if group.len() >= GROUP {
                break false;
            }
            match queue.try_recv() {
                Ok(command) => next = Some(command),
                Err(_) => break false,
            }
        };
        write_group(db, index, &mut group);
        for reply in copies {
            // A caller that no longer waits is no error of ours.
            let _ = reply.send(entries(db));
        }
        if is_over {
            return;
        }
    }
}

fn entries(db: &SyncedDb) -> Result<Entries, StoreError> {
    db.db
        .iter()
        .map(|entry| match entry {
            Ok((key, value)) => Ok((key.to_vec(), value.to_vec())),
            Err(source) => Err(db.error("copy", source)),
        })
        .collect()
}

fn write_group(db: &SyncedDb, index: &RunIndex, group: &mut Vec<Waiting>) {
    let mut merged = sled::Batch::default();
    let (mut taken, mut changes, mut edits) = (Vec::new(), Vec::new(), Vec::new());
    for (mut batch, reply) in group.drain(..) {
        let changed = std::mem::take(&mut batch.changes);
        let edited = std::mem::take(&mut batch.edits);
        match add(db, &mut merged, batch) {
            Ok(()) => {
                taken.push(reply);
                changes.extend(changed);
                edits.extend(edited);
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }
    if taken.is_empty() {
        return;
    }
    let written = history::add_edits(db, index, &mut merged, edits).and_then(|edited| {
        db.db.apply_batch(merged).map_err(|source| db.error("write", source))?;
        db.sync()?;
        Ok(edited)
    });
    match written {
        Ok(edited) => {
            index.apply(changes.into_iter().chain(edited));
            for reply in taken {
                // A caller that no longer waits is no error of ours.
                let _ = reply.send(Ok(()));
            }
        }
        Err(error) => {
            error!(%error, "the catalogue cannot be written");
            let text = error.to_string();
            for reply in taken {
                let failed = StoreError::Damaged {
                    what: "the catalogue".to_owned(),
                    problem: format!("it cannot be written: {text}"),
                };
                let _ = reply.send(Err(failed));
            }
        }
    }
}

/// Adds a whole batch or nothing of it.
fn add(db: &SyncedDb, merged: &mut sled::Batch, batch: Batch) -> Result<(), StoreError> {
    if let Some(problem) = batch.refused {
        return Err(StoreError::Damaged { what: "a record".to_owned(), problem });
    }
    for key in batch.removes {
        value::remove(&db.db, merged, &key, 0).map_err(|source| db.error("read", source))?;
    }
    for (key, bytes) in batch.puts {
        value::remove(&db.db, merged, &key, value::pieces_of(bytes.len()))
            .map_err(|source| db.error("read", source))?;
        if !value::put(merged, &key, &bytes) {
            // Checked when the batch was made; a second look costs nothing.
            return Err(StoreError::Damaged {
                what: keys::describe(&key),
                problem: "it is too large".to_owned(),
            });
        }
    }
    Ok(())
}
