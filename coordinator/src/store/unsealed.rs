//! The evidence of a run that goes on: a sled folder.
//!
//! `f ‖ job ‖ attempt ‖ sequence ‖ piece` holds a frame, `h ‖ job ‖ attempt` the high-water mark, written in the same batch as the
//! frames that it covers.

use crate::store::StoreError;
use crate::store::mark::Mark;
use crate::store::open::{OpenStoreError, SyncedDb};
use crate::store::value::{self, DamagedValue};
use pgsoak_proto::id::JobId;
use std::path::Path;

/// Cache of one run's database. Evidence is written once and read once.
const CACHE_BYTES: u64 = 8 << 20;
/// Written when a database is made: one that opens without it has lost its beginning.
const BORN: &[u8] = b"born";

/// An open sled folder of one run.
#[derive(Debug)]
pub(super) struct Unsealed {
    synced: SyncedDb,
}

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

/// The attempt of a mark's key.
fn attempt_of(key: &[u8]) -> Option<(JobId, u32)> {
    let (job, attempt) = key.get(1..)?.split_first_chunk::<16>()?;
    Some((JobId::from_bytes(*job), u32::from_be_bytes(*attempt.first_chunk::<4>()?)))
}

// === impl Unsealed ===

impl Unsealed {
    /// Opens or makes the folder.
    pub(super) fn open(path: &Path) -> Result<Self, OpenStoreError> {
        Ok(Self { synced: SyncedDb::open(path, CACHE_BYTES)? })
    }

    /// Begins an empty one: from now on, one that opens empty has lost something.
    pub(super) fn begin(&self, path: &Path) -> Result<(), OpenStoreError> {
        let mut batch = sled::Batch::default();
        let is_put = value::put(&mut batch, BORN, &[]);
        debug_assert!(is_put, "nothing fits");
        let written = self
            .synced
            .db
            .apply_batch(batch)
            .map_err(|source| self.synced.error("begin", source))
            .and_then(|()| self.synced.sync());
        written.map_err(|error| OpenStoreError::Damaged {
            path: path.to_owned(),
            problem: format!("it cannot be begun: {error}"),
        })
    }

    /// What is wrong with what is there, by its own word; `None`: nothing.
    pub(super) fn problem(&self) -> Result<Option<String>, sled::Error> {
        let db = &self.synced.db;
        if !matches!(value::get(db, BORN)?, Some(Ok(_))) {
            return Ok(Some("it has come up empty".to_owned()));
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
        Ok(problem)
    }

    /// Every attempt of which something is stored.
    pub(super) fn marks(&self) -> Result<Vec<Mark>, StoreError> {
        let mut marks = Vec::new();
        value::scan(&self.synced.db, b"h", |key, stored| {
            let bytes = stored.ok().and_then(|bytes| <[u8; 8]>::try_from(bytes.as_slice()).ok());
            if let (Some(bytes), Some((job, attempt))) = (bytes, attempt_of(key)) {
                marks.push(Mark { job, attempt, sequence: u64::from_be_bytes(bytes) });
            }
            true
        })
        .map_err(|source| self.synced.error("read", source))?;
        Ok(marks)
    }

    /// All entries as they lie there, consistent while others write: first the marks as they are now, then the frames that
    /// they cover. Until `each` returns false.
    pub(super) fn copy(
        &self,
        each: &mut impl FnMut(Vec<u8>, Vec<u8>) -> bool,
    ) -> Result<(), StoreError> {
        let db = &self.synced.db;
        let failed = |source| self.synced.error("copy", source);
        let covered = self.marks()?;
        for mark in &covered {
            if !put_mark(*mark, each) {
                return Ok(());
            }
        }
        for entry in db.scan_prefix(BORN) {
            let (key, stored) = entry.map_err(failed)?;
            if !each(key.to_vec(), stored.to_vec()) {
                return Ok(());
            }
        }
        for Mark { job, attempt, sequence } in covered {
            // The piece number follows the sequence.
            let first = frame_key(job, attempt, 0);
            let beyond = frame_key(job, attempt, sequence.saturating_add(1));
            for entry in db.range(first..beyond) {
                let (key, stored) = entry.map_err(failed)?;
                if !each(key.to_vec(), stored.to_vec()) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Everything up to and with this sequence is stored; 0: nothing.
    pub(super) fn high_water(&self, job: JobId, attempt: u32) -> Result<u64, StoreError> {
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

    /// One frame's bytes; `None`: it is not there, or not what was stored.
    pub(super) fn frame(
        &self,
        job: JobId,
        attempt: u32,
        sequence: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let found = value::get(&self.synced.db, &frame_key(job, attempt, sequence))
            .map_err(|source| self.synced.error("read", source))?;
        Ok(found.and_then(Result::ok))
    }

    /// Writes frames and the mark that covers them, at once. Not durable before [`Self::sync`].
    pub(super) fn write(
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

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.synced.sync()
    }

    /// The frames of one attempt in order, until `each` returns false.
    pub(super) fn frames(
        &self,
        job: JobId,
        attempt: u32,
        each: &mut impl FnMut(u64, Result<Vec<u8>, DamagedValue>) -> bool,
    ) -> Result<(), StoreError> {
        value::scan(&self.synced.db, &attempt_key(b'f', job, attempt), |key, stored| {
            sequence_of(key).is_none_or(|sequence| each(sequence, stored))
        })
        .map_err(|source| self.synced.error("read evidence", source))
    }
}

/// Entries of a mark, as they would lie in sled; false when `each` says so.
pub(super) fn put_mark(mark: Mark, each: &mut impl FnMut(Vec<u8>, Vec<u8>) -> bool) -> bool {
    let key = attempt_key(b'h', mark.job, mark.attempt);
    value::put_into(&key, &mark.sequence.to_be_bytes(), each)
}

/// Entries of the beginning, as they would lie in sled.
pub(super) fn put_born(each: &mut impl FnMut(Vec<u8>, Vec<u8>) -> bool) -> bool {
    value::put_into(BORN, &[], each)
}

/// Entries of a frame, as they would lie in sled.
pub(super) fn put_frame(
    of: Mark,
    bytes: &[u8],
    each: &mut impl FnMut(Vec<u8>, Vec<u8>) -> bool,
) -> bool {
    value::put_into(&frame_key(of.job, of.attempt, of.sequence), bytes, each)
}

fn damaged(job: JobId, attempt: u32, problem: &str) -> StoreError {
    StoreError::Damaged {
        what: format!("the evidence of job {job}, attempt {attempt}"),
        problem: problem.to_owned(),
    }
}
