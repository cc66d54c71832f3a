//! The thread that writes evidence: gathers what waits, writes each run's share, syncs each run once, then answers.
//!
//! It alone decides what is new: frames at or below the high-water mark are a repeat and are left as they are; frames
//! that do not follow it are refused, unless the agent said that the ones between are lost for good.

use crate::blocking;
use crate::store::open::OpenStoreError;
use crate::store::run_db::RunDb;
use crate::store::run_dbs::RunDbs;
use crate::store::{QUEUE, StoreError};
use pgsoak_proto::id::{JobId, RunId};
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

/// Appends that share one sync.
const GROUP: usize = 128;
/// Bytes after which a group is closed: keeps what is in memory, and the time to the first answer, in bounds.
const GROUP_BYTES: usize = 8 << 20;
/// A run's database that nothing was written to for so long is closed until it is.
const IDLE: Duration = Duration::from_secs(600);

/// Frames to store.
#[derive(Debug)]
pub struct Append {
    /// The run.
    pub run: RunId,
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
    /// Sequence and encoded frame; sequences rise by one.
    pub frames: Vec<(u64, Vec<u8>)>,
    /// Frames up to and with this one that are not stored are lost for good; 0: none.
    pub lost_up_to: u64,
}

/// What an append came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Appended {
    /// Everything up to and with this one is durable.
    pub high_water: u64,
    /// Frames that were stored already.
    pub repeated: u64,
    /// Frames that were skipped for good, before the first of this append.
    pub skipped: u64,
}

/// Why frames were not stored.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Frames between are missing.
    #[error("evidence jumps from frame {have} to frame {got}")]
    Hole {
        /// Stored up to here.
        have: u64,
        /// The first that was offered.
        got: u64,
    },
    /// The disk did not take them.
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Reply = oneshot::Sender<Result<Appended, AppendError>>;

enum Command {
    Append(Append, Reply),
    Close(RunId),
    Stop,
}

/// Talks to the thread. Cheap to clone.
#[derive(Clone)]
pub(crate) struct EvidenceWriter {
    commands: mpsc::Sender<Command>,
    thread: Arc<Mutex<Option<thread::JoinHandle<()>>>>,
    syncs: Arc<AtomicU64>,
}

/// A run that is being written.
struct OpenRun {
    db: Arc<RunDb>,
    marks: HashMap<(JobId, u32), u64>,
    used_at: Instant,
}

struct Thread {
    runs: Arc<RunDbs>,
    open: HashMap<RunId, OpenRun>,
    syncs: Arc<AtomicU64>,
}

// === impl EvidenceWriter ===

impl std::fmt::Debug for EvidenceWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EvidenceWriter").finish_non_exhaustive()
    }
}

impl EvidenceWriter {
    pub(crate) fn start(runs: Arc<RunDbs>) -> Result<Self, OpenStoreError> {
        let (commands, queue) = mpsc::channel(QUEUE);
        let syncs = Arc::new(AtomicU64::new(0));
        let thread = Thread { runs, open: HashMap::new(), syncs: Arc::clone(&syncs) };
        let thread = thread::Builder::new()
            .name("evidence".to_owned())
            .spawn(move || thread.run(queue))
            .map_err(|error| OpenStoreError::Thread { problem: error.to_string() })?;
        Ok(Self { commands, thread: Arc::new(Mutex::new(Some(thread))), syncs })
    }

    pub(crate) async fn append(
        &self,
        append: Append,
    ) -> Result<impl Future<Output = Result<Appended, AppendError>> + Send + use<>, StoreError>
    {
        blocking::step().await;
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Append(append, reply)).await.map_err(|_| StoreError::Closed)?;
        let answer = blocking::answer(answer);
        Ok(async move { answer.await.unwrap_or(Err(AppendError::Store(StoreError::Closed))) })
    }

    pub(crate) async fn close(&self, run: RunId) {
        // A closed thread has closed every run.
        let _ = self.commands.send(Command::Close(run)).await;
    }

    pub(crate) async fn stop(&self) {
        let _ = self.commands.send(Command::Stop).await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = crate::blocking::spawn(move || thread.join()).await;
        }
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::SeqCst)
    }
}

// === impl Thread ===

impl Thread {
    fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        loop {
            let mut group = Vec::new();
            let mut bytes = 0;
            let mut next = queue.blocking_recv();
            let is_over = loop {
                match next {
                    Some(Command::Append(append, reply)) => {
                        bytes += append.frames.iter().map(|(_, frame)| frame.len()).sum::<usize>();
                        group.push((append, reply));
                    }
                    Some(Command::Close(run)) => {
                        // What is in the group was queued before, and may be of this run: write it first.
                        self.write(std::mem::take(&mut group));
                        self.open.remove(&run);
                    }
                    Some(Command::Stop) | None => break true,
                }
                if group.len() >= GROUP || bytes >= GROUP_BYTES {
                    break false;
                }
                match queue.try_recv() {
                    Ok(command) => next = Some(command),
                    Err(_) => break false,
                }
            };
            self.write(group);
            if is_over {
                info!(runs = self.open.len(), "evidence is closed");
                return;
            }
            let now = Instant::now();
            self.open.retain(|_, run| now.duration_since(run.used_at) < IDLE);
        }
    }

    /// Writes a group, syncs each of its runs once, answers.
    fn write(&mut self, group: Vec<(Append, Reply)>) {
        let mut written: Vec<(RunId, JobId, u32, Appended, Reply)> = Vec::new();
        for (append, reply) in group {
            let run = append.run;
            // sled can panic over damage; that must not take the other runs along.
            let done = catch_unwind(AssertUnwindSafe(|| self.write_one(&append)));
            let done = done.unwrap_or_else(|panic| {
                Err(AppendError::Store(StoreError::Damaged {
                    what: format!("the evidence of run {run}"),
                    problem: crate::store::open::panic_text(panic.as_ref()),
                }))
            });
            match done {
                Ok(appended) => {
                    written.push((run, append.job, append.attempt, appended, reply));
                }
                Err(error) => {
                    if let AppendError::Store(error) = &error {
                        error!(%run, %error, "evidence cannot be written");
                        // Opened afresh next time: that is where damage is found and set aside.
                        self.open.remove(&run);
                    }
                    // A caller that no longer waits is no error of ours.
                    let _ = reply.send(Err(error));
                }
            }
        }
        let mut synced: HashMap<RunId, Result<(), String>> = HashMap::new();
        for (run, job, attempt, appended, reply) in written {
            let outcome = synced.entry(run).or_insert_with(|| self.sync(run)).clone();
            if let (Ok(()), Some(open)) = (&outcome, self.open.get(&run)) {
                open.db.acknowledge(job, attempt, appended.high_water);
            }
            let answer = outcome.map(|()| appended).map_err(|problem| {
                AppendError::Store(StoreError::Damaged {
                    what: format!("the evidence of run {run}"),
                    problem,
                })
            });
            let _ = reply.send(answer);
        }
    }

    fn sync(&mut self, run: RunId) -> Result<(), String> {
        let Some(open) = self.open.get(&run) else {
            // A later append of the group failed and took the database with it: nothing is promised.
            return Err("it was closed before it was synced".to_owned());
        };
        match open.db.sync() {
            Ok(()) => {
                self.syncs.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            Err(error) => {
                error!(%run, %error, "evidence cannot be synced");
                // The marks in memory may be ahead of the disk now.
                self.open.remove(&run);
                Err(error.to_string())
            }
        }
    }

    fn write_one(&mut self, append: &Append) -> Result<Appended, AppendError> {
        let open = match self.open.entry(append.run) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let db = self.runs.open(append.run).map_err(StoreError::from)?;
                entry.insert(OpenRun { db, marks: HashMap::new(), used_at: Instant::now() })
            }
        };
        open.used_at = Instant::now();
        let key = (append.job, append.attempt);
        let have = match open.marks.get(&key) {
            Some(mark) => *mark,
            None => open.db.high_water(append.job, append.attempt)?,
        };
        let fresh: Vec<(u64, Vec<u8>)> =
            append.frames.iter().filter(|(sequence, _)| *sequence > have).cloned().collect();
        let repeated =
            u64::try_from(append.frames.len().saturating_sub(fresh.len())).unwrap_or(u64::MAX);
        let (Some((first, _)), Some((last, _))) = (fresh.first(), fresh.last()) else {
            return Ok(Appended { high_water: have, repeated, skipped: 0 });
        };
        let skipped = first.saturating_sub(have).saturating_sub(1);
        if skipped > 0 && *first > append.lost_up_to.saturating_add(1) {
            return Err(AppendError::Hole { have, got: *first });
        }
        let high_water = *last;
        open.db.write(append.job, append.attempt, &fresh, high_water)?;
        open.marks.insert(key, high_water);
        Ok(Appended { high_water, repeated, skipped })
    }
}

/// For simulations: what the thread decides about an append, without the thread and without the disk's time.
#[cfg(test)]
pub(crate) struct Unsynced(Thread);

#[cfg(test)]
impl Unsynced {
    pub(crate) fn new(runs: Arc<RunDbs>) -> Self {
        Self(Thread { runs, open: HashMap::new(), syncs: Arc::default() })
    }

    pub(crate) fn append(&mut self, append: &Append) -> Result<Appended, AppendError> {
        self.0.write_one(append)
    }

    pub(crate) fn close(&mut self, run: RunId) {
        self.0.open.remove(&run);
    }
}
