//! One run's evidence: a sled folder of its own, so that damage stays in one run and retention removes a folder.
//!
//! `f ‖ job ‖ attempt ‖ sequence ‖ piece` holds a frame, `h ‖ job ‖ attempt` the high-water mark, written in the same
//! batch as the frames that it covers. A folder that does not open, that has come up empty, or whose marks promise frames
//! that are not there, is set aside as `<run>.damaged-<n>` and made afresh. One that lost its end (see `acknowledged`) is
//! kept. Either way the agents send again what their spools still keep, and the run carries a note.

use crate::store::StoreError;
use crate::store::acknowledged::Acknowledged;
use crate::store::open::{OpenStoreError, SyncedDb, sync_folder};
use crate::store::value;
use pgsoak_proto::evidence::{Body, Frame};
use pgsoak_proto::id::{JobId, RunId};
use pgsoak_proto::job::Outcome;
use pgsoak_proto::wire;
use prost::Message as _;
use std::{
    collections::HashMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};
use tracing::{error, warn};

/// Cache of one run's database. Evidence is written once and read once.
const CACHE_BYTES: u64 = 8 << 20;

/// A frame as it was found.
#[derive(Debug)]
pub enum StoredFrame {
    /// As it was stored.
    Whole(Box<wire::Frame>),
    /// Something is there, and it is not what was stored.
    Damaged {
        /// Its place in the attempt.
        sequence: u64,
        /// How it shows.
        problem: String,
    },
}

/// The last frame of an attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ended {
    /// Its place.
    pub sequence: u64,
    /// How the attempt ended.
    pub outcome: Outcome,
    /// Why.
    pub reason: String,
}

/// The open database of one run.
#[derive(Debug)]
pub(crate) struct RunDb {
    synced: SyncedDb,
    /// What was found wrong when it was opened; a sentence.
    damage: Option<String>,
    /// What was told to agents, beside the database.
    acknowledged: Mutex<Acknowledged>,
}

/// What a look at an opened database found.
enum Check {
    Sound,
    /// What is there is sound, and its end is missing.
    Shorter(String),
    Damaged(String),
}

/// The databases of all runs: opened when they are needed, closed when nobody holds them.
#[derive(Debug)]
pub(crate) struct RunDbs {
    folder: PathBuf,
    open: Mutex<HashMap<RunId, Weak<RunDb>>>,
}

/// Written when a database is made: one that opens without it has lost its beginning.
const BORN: &[u8] = b"born";

fn attempt_key(kind: u8, job: JobId, attempt: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(29);
    key.push(kind);
    key.extend_from_slice(job.as_bytes());
    key.extend_from_slice(&attempt.to_be_bytes());
    key
}

fn frame_key(job: JobId, attempt: u32, sequence: u64) -> Vec<u8> {
    let mut key = attempt_key(b'f', job, attempt);
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

fn sequence_of(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

// === impl RunDbs ===

impl RunDbs {
    pub(crate) fn new(folder: PathBuf) -> Result<Self, OpenStoreError> {
        fs::create_dir_all(&folder)
            .map_err(|source| OpenStoreError::Io { path: folder.clone(), source })?;
        Ok(Self { folder, open: Mutex::new(HashMap::new()) })
    }

    /// Where the databases lie, each under its run's id.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The run's database, made where there is none. Blocks.
    pub(crate) fn open(&self, run: RunId) -> Result<Arc<RunDb>, OpenStoreError> {
        // Held while it opens, so that no run is opened twice.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(db) = open.get(&run).and_then(Weak::upgrade) {
            return Ok(db);
        }
        open.retain(|_, db| db.strong_count() > 0);
        let db = Arc::new(RunDb::open(&self.folder.join(run.to_string()))?);
        open.insert(run, Arc::downgrade(&db));
        Ok(db)
    }

    /// As [`Self::open`], and nothing when there is no evidence of the run at all.
    pub(crate) fn open_existing(&self, run: RunId) -> Result<Option<Arc<RunDb>>, OpenStoreError> {
        if !self.folder.join(run.to_string()).exists() {
            return Ok(None);
        }
        self.open(run).map(Some)
    }
}

// === impl RunDb ===

impl RunDb {
    fn open(path: &Path) -> Result<Self, OpenStoreError> {
        if !path.join("db").exists() {
            return Self::make(path, set_aside_before(path));
        }
        let problem = match Self::open_there(path) {
            Ok(mut db) => {
                // sled can panic over damage while it reads, too.
                match catch_unwind(AssertUnwindSafe(|| db.check())) {
                    Ok(Ok(Check::Sound)) => {
                        db.damage = set_aside_before(path);
                        return Ok(db);
                    }
                    Ok(Ok(Check::Shorter(problem))) => {
                        error!(path = %path.display(), %problem, "a run's evidence has lost its end");
                        db.damage = Some(format!(
                            "its stored evidence has lost its end ({problem}); agents were asked for it again"
                        ));
                        return Ok(db);
                    }
                    Ok(Ok(Check::Damaged(problem))) => problem,
                    Ok(Err(error)) => error.to_string(),
                    Err(panic) => crate::store::open::panic_text(panic.as_ref()),
                }
            }
            Err(OpenStoreError::Damaged { problem, .. }) => problem,
            Err(other) => return Err(other),
        };
        let aside = set_aside(path)
            .map_err(|source| OpenStoreError::Io { path: path.to_owned(), source })?;
        error!(path = %path.display(), aside = %aside.display(), %problem, "a run's evidence is damaged; set aside and begun afresh");
        let sentence = format!(
            "its stored evidence was damaged ({problem}) and set aside as {}; agents were asked for it again",
            aside.display()
        );
        Self::make(path, Some(sentence))
    }

    fn open_there(path: &Path) -> Result<Self, OpenStoreError> {
        let synced = SyncedDb::open(path, CACHE_BYTES)?;
        let acknowledged = Acknowledged::open(path)
            .map_err(|source| OpenStoreError::Io { path: path.to_owned(), source })?;
        Ok(Self { synced, damage: None, acknowledged: Mutex::new(acknowledged) })
    }

    fn make(path: &Path, damage: Option<String>) -> Result<Self, OpenStoreError> {
        let db = Self { damage, ..Self::open_there(path)? };
        let mut batch = sled::Batch::default();
        let is_put = value::put(&mut batch, BORN, &[]);
        debug_assert!(is_put, "nothing fits");
        let written = db
            .synced
            .db
            .apply_batch(batch)
            .map_err(|source| db.synced.error("begin", source))
            .and_then(|()| db.synced.sync());
        written.map_err(|error| OpenStoreError::Damaged {
            path: path.to_owned(),
            problem: format!("it cannot be begun: {error}"),
        })?;
        Ok(db)
    }

    /// What was found wrong when the run's database was opened, now or earlier.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Whether what was promised is there.
    fn check(&self) -> Result<Check, sled::Error> {
        let db = &self.synced.db;
        if !matches!(value::get(db, BORN)?, Some(Ok(_))) {
            return Ok(Check::Damaged("it has come up empty".to_owned()));
        }
        let mut problem = None;
        let mut marks = Vec::new();
        value::scan(db, b"h", |key, stored| {
            match stored.map(|bytes| <[u8; 8]>::try_from(bytes.as_slice())) {
                Ok(Ok(bytes)) => marks.push((key.to_owned(), u64::from_be_bytes(bytes))),
                Ok(Err(_)) => problem = Some("a high-water mark has no number".to_owned()),
                Err(damage) => problem = Some(format!("a high-water mark: {damage}")),
            }
            problem.is_none()
        })?;
        for (key, mark) in &marks {
            let mut frame = vec![b'f'];
            frame.extend_from_slice(key.get(1..).unwrap_or_default());
            frame.extend_from_slice(&mark.to_be_bytes());
            match value::get(db, &frame)? {
                Some(Ok(_)) => {}
                Some(Err(damage)) => problem = Some(format!("frame {mark}: {damage}")),
                None => problem = Some(format!("frame {mark} was stored and is not there")),
            }
        }
        if let Some(problem) = problem {
            return Ok(Check::Damaged(problem));
        }
        let told = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        for ((job, attempt), sequence) in told.marks() {
            let key = attempt_key(b'h', job, attempt);
            let have = marks.iter().find(|(at, _)| *at == key).map_or(0, |(_, mark)| *mark);
            if have < sequence {
                return Ok(Check::Shorter(format!(
                    "of job {job} attempt {attempt}, frame {sequence} was acknowledged and {have} is the last there"
                )));
            }
        }
        Ok(Check::Sound)
    }

    /// Opens it as it is: nothing is set aside or begun. With what is wrong with it, if anything.
    pub(crate) fn inspect(path: &Path) -> Result<(Self, Option<String>), OpenStoreError> {
        let db = Self::open_there(path)?;
        let problem = match catch_unwind(AssertUnwindSafe(|| db.check())) {
            Ok(Ok(Check::Sound)) => None,
            Ok(Ok(Check::Shorter(problem) | Check::Damaged(problem))) => Some(problem),
            Ok(Err(error)) => Some(error.to_string()),
            Err(panic) => Some(crate::store::open::panic_text(panic.as_ref())),
        };
        Ok((db, problem))
    }

    /// Every attempt of which something is stored, with its high-water mark.
    pub(crate) fn marks(&self) -> Result<Vec<(JobId, u32, u64)>, StoreError> {
        let mut marks = Vec::new();
        value::scan(&self.synced.db, b"h", |key, stored| {
            let bytes = stored.ok().and_then(|bytes| <[u8; 8]>::try_from(bytes.as_slice()).ok());
            let attempt = key.get(1..).and_then(|key| key.split_first_chunk::<16>());
            if let (Some(bytes), Some((job, attempt))) = (bytes, attempt)
                && let Some(attempt) = attempt.first_chunk::<4>()
            {
                let (job, attempt) = (JobId::from_bytes(*job), u32::from_be_bytes(*attempt));
                marks.push((job, attempt, u64::from_be_bytes(bytes)));
            }
            true
        })
        .map_err(|source| self.synced.error("read", source))?;
        Ok(marks)
    }

    /// All entries as they lie there, consistent while others write: first the marks as they are now, then the frames that
    /// they cover. Until `each` returns false.
    pub(crate) fn copy(
        &self,
        each: &mut impl FnMut(Vec<u8>, Vec<u8>) -> bool,
    ) -> Result<(), StoreError> {
        let db = &self.synced.db;
        let failed = |source| self.synced.error("copy", source);
        let covered = self.marks()?;
        for (job, attempt, mark) in &covered {
            let is_put =
                value::put_into(&attempt_key(b'h', *job, *attempt), &mark.to_be_bytes(), each);
            if !is_put {
                return Ok(());
            }
        }
        for entry in db.scan_prefix(BORN) {
            let (key, stored) = entry.map_err(failed)?;
            if !each(key.to_vec(), stored.to_vec()) {
                return Ok(());
            }
        }
        for (job, attempt, mark) in covered {
            // The piece number follows the sequence.
            let first = frame_key(job, attempt, 0);
            let beyond = frame_key(job, attempt, mark.saturating_add(1));
            for entry in db.range(first..beyond) {
                let (key, stored) = entry.map_err(failed)?;
                if !each(key.to_vec(), stored.to_vec()) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Remembers, beside the database, what is about to be acknowledged. After [`Self::sync`].
    pub(crate) fn acknowledge(&self, job: JobId, attempt: u32, high_water: u64) {
        let mut told = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = told.write((job, attempt), high_water) {
            // It only serves to notice damage; what it is about is durable.
            warn!(%job, attempt, %error, "what was acknowledged cannot be written down");
        }
    }

    /// Everything up to and with this sequence is stored; 0: nothing.
    pub(crate) fn high_water(&self, job: JobId, attempt: u32) -> Result<u64, StoreError> {
        let found = value::get(&self.synced.db, &attempt_key(b'h', job, attempt))
            .map_err(|source| self.synced.error("read", source))?;
        match found {
            None => Ok(0),
            Some(Ok(bytes)) => match <[u8; 8]>::try_from(bytes.as_slice()) {
                Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
                Err(_) => Err(damaged(job, attempt, "it has no number")),
            },
            Some(Err(damage)) => Err(damaged(job, attempt, &damage.to_string())),
        }
    }

    /// How the attempt ended, if its last frame is stored.
    pub(crate) fn ended(&self, job: JobId, attempt: u32) -> Result<Option<Ended>, StoreError> {
        let sequence = self.high_water(job, attempt)?;
        let found = value::get(&self.synced.db, &frame_key(job, attempt, sequence))
            .map_err(|source| self.synced.error("read", source))?;
        let frame = found.and_then(Result::ok).and_then(|bytes| {
            let frame = wire::Frame::decode(bytes.as_slice()).ok()?;
            Frame::try_from(frame).ok()
        });
        Ok(match frame.map(|frame| frame.body) {
            Some(Body::Ended(ended)) => {
                Some(Ended { sequence, outcome: ended.outcome, reason: ended.reason })
            }
            _ => None,
        })
    }

    /// Writes frames and the mark that covers them, at once. Not durable before [`Self::sync`].
    pub(crate) fn write(
        &self,
        job: JobId,
        attempt: u32,
        frames: &[(u64, Vec<u8>)],
        high_water: u64,
    ) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (sequence, bytes) in frames {
            if !value::put(&mut batch, &frame_key(job, attempt, *sequence), bytes) {
                return Err(damaged(job, attempt, "a frame is too large"));
            }
        }
        let mark =
            value::put(&mut batch, &attempt_key(b'h', job, attempt), &high_water.to_be_bytes());
        debug_assert!(mark, "eight bytes fit");
        self.synced
            .db
            .apply_batch(batch)
            .map_err(|source| self.synced.error("write evidence", source))
    }

    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.synced.sync()
    }

    /// The frames of one attempt in order, until `each` returns false.
    pub(crate) fn frames(
        &self,
        job: JobId,
        attempt: u32,
        each: &mut impl FnMut(StoredFrame) -> bool,
    ) -> Result<(), StoreError> {
        value::scan(&self.synced.db, &attempt_key(b'f', job, attempt), |key, stored| {
            let Some(sequence) = sequence_of(key) else { return true };
            let frame = stored
                .map_err(|damage| damage.to_string())
                .and_then(|bytes| {
                    wire::Frame::decode(bytes.as_slice()).map_err(|error| error.to_string())
                })
                .and_then(|frame| match frame.sequence == sequence {
                    true => Ok(frame),
                    false => Err(format!("it says that it is frame {}", frame.sequence)),
                });
            match frame {
                Ok(frame) => each(StoredFrame::Whole(Box::new(frame))),
                Err(problem) => each(StoredFrame::Damaged { sequence, problem }),
            }
        })
        .map_err(|source| self.synced.error("read evidence", source))
    }
}

fn damaged(job: JobId, attempt: u32, problem: &str) -> StoreError {
    StoreError::Damaged {
        what: format!("the evidence of job {job}, attempt {attempt}"),
        problem: problem.to_owned(),
    }
}

/// Moves the folder out of the way, under a name that is free, durably.
fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut number = 1_u32;
    loop {
        let aside = path.with_file_name(format!("{name}.damaged-{number}"));
        if !aside.exists() {
            fs::rename(path, &aside)?;
            if let Some(parent) = path.parent() {
                sync_folder(parent)?;
            }
            return Ok(aside);
        }
        number += 1;
    }
}

/// A database that was begun afresh earlier stays one that lacks something.
fn set_aside_before(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let aside = path.with_file_name(format!("{name}.damaged-1"));
    aside.exists().then(|| {
        format!(
            "its stored evidence was damaged earlier and set aside as {}; agents were asked for it again",
            aside.display()
        )
    })
}
