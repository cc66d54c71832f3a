//! Seals a finished run: its frames go into one packed file beside the database; that file is read back against the database, gets its
//! name, and only then does the database go. A crash at any point leaves one of the two whole.

use crate::store::open::sync_folder;
use crate::store::run_db::RunDb;
use crate::store::sealed::{self, Sealed, Sealer};
use crate::store::{Store, StoreError, blocking};
use pgsoak_proto::id::RunId;
use std::{fs, io, path::Path, sync::Arc};
use tracing::info;

/// What a run's evidence took, and takes now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SealedRun {
    /// Of the database.
    pub bytes_before: u64,
    /// Of the sealed file.
    pub bytes: u64,
    /// Frames in it.
    pub frames: u64,
}

impl Store {
    /// Packs the evidence of a run that is over; `None`: it has none, or it is packed already.
    ///
    /// # Errors
    ///
    /// When the disk does not take it, or when a frame is damaged: it stays as it is then.
    pub async fn seal(&self, run: RunId) -> Result<Option<SealedRun>, StoreError> {
        let runs = Arc::clone(&self.runs);
        self.evidence.close(run).await;
        crate::blocking::step().await;
        let done = blocking(move || {
            let folder = runs.folder_of(run);
            if !folder.join("db").exists() {
                return Ok(None);
            }
            let Some(db) = runs.open_existing(run)? else { return Ok(None) };
            if db.is_sealed() {
                // A crash came between the new file's name and the old one's end.
                remove_database(db.path())?;
                return Ok(None);
            }
            if let Some(problem) = db.damage() {
                return Err(StoreError::Damaged {
                    what: format!("the evidence of run {run}"),
                    problem: problem.to_owned(),
                });
            }
            db.freeze(true);
            let sealed = seal(&db);
            if sealed.is_err() {
                db.freeze(false);
            }
            sealed.map(Some)
        })
        .await;
        crate::blocking::step().await;
        if let Ok(Some(sealed)) = &done {
            info!(%run, before = sealed.bytes_before, after = sealed.bytes, "a run was sealed");
        }
        done
    }
}

fn seal(db: &RunDb) -> Result<SealedRun, StoreError> {
    let (path, new) = (db.path().join(sealed::NAME), db.path().join("sealed.new"));
    let bytes_before = crate::store::removal::bytes_below(db.path());
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Io { doing, path, source }
    };
    let (frames, bytes) = write(db, &new)?;
    verify(db, &new)?;
    fs::rename(&new, &path).map_err(failed("rename", &new))?;
    sync_folder(db.path()).map_err(failed("sync", db.path()))?;
    db.replace();
    remove_database(db.path())?;
    Ok(SealedRun { bytes_before, bytes, frames })
}

/// Frames and bytes.
fn write(db: &RunDb, new: &Path) -> Result<(u64, u64), StoreError> {
    let failed = |source| StoreError::Io { doing: "write", path: new.to_owned(), source };
    let mut sealer = Sealer::begin(new).map_err(failed)?;
    let mut frames = 0;
    for mark in db.marks()? {
        sealer.attempt(mark).map_err(failed)?;
        let mut outcome: Result<(), StoreError> = Ok(());
        db.raw_frames(mark.job, mark.attempt, &mut |sequence, bytes| {
            outcome = match bytes {
                Ok(bytes) => sealer.frame(sequence, bytes).map_err(failed),
                Err(problem) => Err(StoreError::Damaged {
                    what: format!("frame {sequence} of job {}, attempt {}", mark.job, mark.attempt),
                    problem,
                }),
            };
            frames += 1;
            outcome.is_ok()
        })?;
        outcome?;
    }
    let bytes = sealer.finish().map_err(failed)?;
    Ok((frames, bytes))
}

/// Whether the file gives back what the database holds, attempt by attempt: as digests, so that neither is held in memory.
fn verify(db: &RunDb, new: &Path) -> Result<(), StoreError> {
    let failed = |problem: String| StoreError::Damaged {
        what: format!("what was just written to {}", new.display()),
        problem,
    };
    let sealed = Sealed::open(new).map_err(|error| failed(error.to_string()))?;
    for mark in db.marks()? {
        let (mut there, mut here) = (Digest::default(), Digest::default());
        db.raw_frames(mark.job, mark.attempt, &mut |sequence, bytes| {
            there.add(sequence, bytes.ok());
            true
        })?;
        sealed.frames(mark.job, mark.attempt, 0, &mut |sequence, bytes| {
            here.add(sequence, bytes.ok());
            true
        });
        if there != here || there.is_damaged {
            return Err(failed(format!("job {} reads otherwise than it was stored", mark.job)));
        }
    }
    Ok(())
}

/// Of the frames of an attempt.
#[derive(Debug, Default, Eq, PartialEq)]
struct Digest {
    frames: u64,
    bytes: u64,
    crc: u32,
    is_damaged: bool,
}

// === impl Digest ===

impl Digest {
    fn add(&mut self, sequence: u64, bytes: Option<&[u8]>) {
        self.is_damaged |= bytes.is_none();
        let bytes = bytes.unwrap_or_default();
        self.frames += 1;
        self.bytes += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, &sequence.to_le_bytes());
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }
}

/// Everything in the folder but the sealed file and what was acknowledged.
fn remove_database(folder: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io { doing: "tidy", path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name() == sealed::NAME || entry.file_name() == "acknowledged" {
            continue;
        }
        let path = entry.path();
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::Io { doing: "remove", path, source });
            }
            _ => {}
        }
    }
    Ok(())
}
