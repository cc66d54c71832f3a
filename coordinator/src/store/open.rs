//! Opening a sled folder, and making what it was told durable.

use crate::store::StoreError;
use std::{
    any::Any,
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// How often the lock of a folder that was just closed is tried again: sled lets go of it in the background.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Why the store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// The disk said no.
    #[error("open {}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The database is damaged.
    #[error(
        "the database {} is damaged ({problem}); move it aside to start with an empty one, or put a copy in its place",
        path.display()
    )]
    Damaged {
        /// Where.
        path: PathBuf,
        /// How it shows.
        problem: String,
    },
    /// Somebody has it open.
    #[error("the database {} is in use", path.display())]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// A thread of the store does not start.
    #[error("start the store's threads: {problem}")]
    Thread {
        /// What the system said.
        problem: String,
    },
}

/// A sled folder that can be made durable.
#[derive(Debug)]
pub(crate) struct SyncedDb {
    pub(crate) db: sled::Db,
    /// Of our own, on sled's log: what sled calls a flush leaves the data in the page cache.
    log: File,
    path: PathBuf,
}

impl SyncedDb {
    /// Opens or makes `path`. sled can panic over damage; that is caught here.
    pub(crate) fn open(path: &Path, cache_bytes: u64) -> Result<Self, OpenStoreError> {
        let is_new = !path.join("db").exists();
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .map_err(|source| OpenStoreError::Io { path: parent.to_owned(), source })?;
        }
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            // This program flushes by itself; a timer would only add a thread for every run.
            .flush_every_ms(None);
        let mut tries = 0;
        let db = loop {
            match catch_unwind(AssertUnwindSafe(|| config.open())) {
                Ok(Ok(db)) => break db,
                Ok(Err(error)) if is_lock(&error) => {
                    tries += 1;
                    if tries > LOCK_TRIES {
                        return Err(OpenStoreError::InUse { path: path.to_owned() });
                    }
                    thread::sleep(LOCK_PAUSE);
                }
                Ok(Err(error)) => return Err(refused(path, error)),
                Err(panic) => {
                    return Err(OpenStoreError::Damaged {
                        path: path.to_owned(),
                        problem: panic_text(panic.as_ref()),
                    });
                }
            }
        };
        let failed = |source| OpenStoreError::Io { path: path.to_owned(), source };
        if is_new {
            sync_folder(path).map_err(failed)?;
        }
        let log = File::open(path.join("db")).map_err(failed)?;
        Ok(Self { db, log, path: path.to_owned() })
    }

    /// Everything written before is on the disk when this returns.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(|source| self.error("flush", source))?;
        self.log.sync_data().map_err(|source| StoreError::Io {
            doing: "sync",
            path: self.path.clone(),
            source,
        })
    }

    pub(crate) fn error(&self, doing: &'static str, source: sled::Error) -> StoreError {
        StoreError::Sled { doing, path: self.path.clone(), source }
    }
}

fn is_lock(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("lock"))
}

fn refused(path: &Path, error: sled::Error) -> OpenStoreError {
    let path = path.to_owned();
    match error {
        // A full disk, a missing right or too many open files say nothing about the data.
        sled::Error::Io(source)
            if source.raw_os_error().is_some() && source.kind() != io::ErrorKind::UnexpectedEof =>
        {
            OpenStoreError::Io { path, source }
        }
        other => OpenStoreError::Damaged { path, problem: other.to_string() },
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "sled gave up on it".to_owned())
}

/// Makes a new folder, its files and its entry in the folder above durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(path)?.sync_all()?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
