//! One run's evidence, in a folder of its own, so that damage stays in one run and retention removes a folder: a sled database
//! (`unsealed`) while the run goes on, one packed file (`sealed`) when it is over for a while.
//!
//! A folder that does not open, that has come up empty, or whose marks promise frames that are not there, is set aside as
//! `<run>.damaged-<n>` and made afresh. One that lost its end (see `acknowledged`) is kept. Either way the agents send again what
//! their spools still keep, and the run carries a note.

use crate::store::StoreError;
use crate::store::acknowledged::Acknowledged;
use crate::store::aside::{set_aside, set_aside_before};
use crate::store::mark::Mark;
use crate::store::open::OpenStoreError;
use crate::store::sealed::{self, Sealed};
use crate::store::unsealed::{self, Unsealed};
use pgsoak_proto::evidence::{Body, Frame};
use pgsoak_proto::id::JobId;
use pgsoak_proto::job::Outcome;
use pgsoak_proto::wire;
use prost::Message as _;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tracing::{error, warn};

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

/// How it lies on the disk.
#[derive(Debug)]
enum Form {
    Unsealed(Unsealed),
    Sealed(Sealed),
}

/// The open evidence of one run.
#[derive(Debug)]
pub(crate) struct RunDb {
    path: PathBuf,
    form: Form,
    /// What was found wrong when it was opened; a sentence.
    damage: Option<String>,
    /// What was told to agents, beside the database.
    acknowledged: Mutex<Acknowledged>,
    /// Held while it is written; true: nothing is written any more.
    is_frozen: Mutex<bool>,
    /// Another one has taken its place.
    is_replaced: AtomicBool,
}

/// What a look at an opened database found.
enum Check {
    Sound,
    /// What is there is sound, and its end is missing.
    Shorter(String),
    Damaged(String),
}

// === impl RunDb ===

impl RunDb {
    /// Opens it, or makes it where there is none.
    pub(super) fn open(path: &Path) -> Result<Self, OpenStoreError> {
        if !path.join("db").exists() && !path.join(sealed::NAME).exists() {
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
        let sealed = path.join(sealed::NAME);
        let form = if sealed.exists() {
            let open = Sealed::open(&sealed).map_err(|error| match error {
                sealed::SealedError::Io(source) if source.raw_os_error().is_some() => {
                    OpenStoreError::Io { path: sealed, source }
                }
                error => {
                    OpenStoreError::Damaged { path: path.to_owned(), problem: error.to_string() }
                }
            })?;
            Form::Sealed(open)
        } else {
            Form::Unsealed(Unsealed::open(path)?)
        };
        let acknowledged = Acknowledged::open(path)
            .map_err(|source| OpenStoreError::Io { path: path.to_owned(), source })?;
        Ok(Self {
            path: path.to_owned(),
            form,
            damage: None,
            acknowledged: Mutex::new(acknowledged),
            is_frozen: Mutex::new(false),
            is_replaced: AtomicBool::new(false),
        })
    }

    fn make(path: &Path, damage: Option<String>) -> Result<Self, OpenStoreError> {
        let db = Self { damage, ..Self::open_there(path)? };
        if let Form::Unsealed(unsealed) = &db.form {
            unsealed.begin(path)?;
        }
        Ok(db)
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What was found wrong when the run's database was opened, now or earlier.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Whether it is packed already.
    pub(super) fn is_sealed(&self) -> bool {
        matches!(self.form, Form::Sealed(_))
    }

    /// Nothing is written to it from now on, until it is thawed.
    pub(super) fn freeze(&self, is_frozen: bool) {
        *self.is_frozen.lock().unwrap_or_else(PoisonError::into_inner) = is_frozen;
    }

    /// Another one has taken its place on the disk: whoever has it may read on, and nobody else is given it.
    pub(super) fn replace(&self) {
        self.is_replaced.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::SeqCst)
    }

    /// Whether what was promised is there.
    fn check(&self) -> Result<Check, sled::Error> {
        if let Form::Unsealed(unsealed) = &self.form
            && let Some(problem) = unsealed.problem()?
        {
            return Ok(Check::Damaged(problem));
        }
        let marks = match self.marks() {
            Ok(marks) => marks,
            Err(error) => return Ok(Check::Damaged(error.to_string())),
        };
        let told = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        for ((job, attempt), sequence) in told.marks() {
            let of = marks.iter().find(|mark| mark.job == job && mark.attempt == attempt);
            let have = of.map_or(0, |mark| mark.sequence);
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
    pub(crate) fn marks(&self) -> Result<Vec<Mark>, StoreError> {
        match &self.form {
            Form::Unsealed(unsealed) => unsealed.marks(),
            Form::Sealed(sealed) => Ok(sealed.marks().collect()),
        }
    }

    /// All entries as they lie in sled, or would, consistent while others write: first the marks as they are now, then the frames
    /// that they cover. Until `each` returns false.
    pub(crate) fn copy(
        &self,
        each: &mut impl FnMut(Vec<u8>, Vec<u8>) -> bool,
    ) -> Result<(), StoreError> {
        let sealed = match &self.form {
            Form::Unsealed(unsealed) => return unsealed.copy(each),
            Form::Sealed(sealed) => sealed,
        };
        let begins = sealed.marks().all(|mark| unsealed::put_mark(mark, each));
        let mut goes_on = begins && unsealed::put_born(each);
        let mut problem = None;
        for of in sealed.marks() {
            if !goes_on || problem.is_some() {
                break;
            }
            sealed.frames(of.job, of.attempt, 0, &mut |sequence, bytes| {
                match bytes {
                    Ok(bytes) => {
                        goes_on = unsealed::put_frame(Mark { sequence, ..of }, bytes, each);
                    }
                    Err(error) => problem = Some(error.to_string()),
                }
                goes_on && problem.is_none()
            });
        }
        problem.map_or(Ok(()), |problem| Err(self.damaged(problem)))
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
        match &self.form {
            Form::Unsealed(unsealed) => unsealed.high_water(job, attempt),
            Form::Sealed(sealed) => {
                let of = sealed.marks().find(|mark| mark.job == job && mark.attempt == attempt);
                Ok(of.map_or(0, |mark| mark.sequence))
            }
        }
    }

    /// How the attempt ended, if its last frame is stored.
    pub(crate) fn ended(&self, job: JobId, attempt: u32) -> Result<Option<Ended>, StoreError> {
        let sequence = self.high_water(job, attempt)?;
        let bytes = match &self.form {
            Form::Unsealed(unsealed) => unsealed.frame(job, attempt, sequence)?,
            Form::Sealed(sealed) => {
                let mut found = None;
                sealed.frames(job, attempt, sequence, &mut |_, bytes| {
                    found = bytes.ok().map(<[u8]>::to_vec);
                    false
                });
                found
            }
        };
        let frame = bytes.and_then(|bytes| {
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
        let is_frozen = self.is_frozen.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.form {
            Form::Unsealed(unsealed) if !*is_frozen => {
                unsealed.write(job, attempt, frames, high_water)
            }
            _ => Err(StoreError::Sealed { path: self.path.clone() }),
        }
    }

    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        match &self.form {
            Form::Unsealed(unsealed) => unsealed.sync(),
            // It was durable before it had its name.
            Form::Sealed(_) => Ok(()),
        }
    }

    /// The frames of one attempt as bytes, in order, until `each` returns false.
    pub(super) fn raw_frames(
        &self,
        job: JobId,
        attempt: u32,
        each: &mut impl FnMut(u64, Result<&[u8], String>) -> bool,
    ) -> Result<(), StoreError> {
        match &self.form {
            Form::Unsealed(unsealed) => unsealed.frames(job, attempt, &mut |sequence, bytes| {
                let bytes = bytes.as_deref().map_err(ToString::to_string);
                each(sequence, bytes)
            }),
            Form::Sealed(sealed) => {
                sealed.frames(job, attempt, 0, &mut |sequence, bytes| {
                    each(sequence, bytes.map_err(|error| error.to_string()))
                });
                Ok(())
            }
        }
    }

    /// The frames of one attempt in order, until `each` returns false.
    pub(crate) fn frames(
        &self,
        job: JobId,
        attempt: u32,
        each: &mut impl FnMut(StoredFrame) -> bool,
    ) -> Result<(), StoreError> {
        self.raw_frames(job, attempt, &mut |sequence, bytes| {
            let frame = bytes
                .and_then(|bytes| wire::Frame::decode(bytes).map_err(|error| error.to_string()))
                .and_then(|frame| match frame.sequence == sequence {
                    true => Ok(frame),
                    false => Err(format!("it says that it is frame {}", frame.sequence)),
                });
            match frame {
                Ok(frame) => each(StoredFrame::Whole(Box::new(frame))),
                Err(problem) => each(StoredFrame::Damaged { sequence, problem }),
            }
        })
    }

    fn damaged(&self, problem: String) -> StoreError {
        StoreError::Damaged { what: format!("the evidence {}", self.path.display()), problem }
    }
}
