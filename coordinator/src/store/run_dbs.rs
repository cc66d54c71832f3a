//! The databases of all runs: opened when they are needed, closed when nobody holds them.

use crate::store::open::OpenStoreError;
use crate::store::run_db::RunDb;
use pgsoak_proto::id::RunId;
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Those that are open, and where all of them lie.
#[derive(Debug)]
pub(crate) struct RunDbs {
    folder: PathBuf,
    open: Mutex<HashMap<RunId, Weak<RunDb>>>,
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

    /// Where one lies.
    pub(crate) fn folder_of(&self, run: RunId) -> PathBuf {
        self.folder.join(run.to_string())
    }

    /// The run's database, made where there is none. Blocks.
    pub(crate) fn open(&self, run: RunId) -> Result<Arc<RunDb>, OpenStoreError> {
        // Held while it opens, so that no run is opened twice.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(db) = open.get(&run).and_then(Weak::upgrade).filter(|db| !db.is_replaced()) {
            return Ok(db);
        }
        open.retain(|_, db| db.strong_count() > 0);
        let db = Arc::new(RunDb::open(&self.folder_of(run))?);
        open.insert(run, Arc::downgrade(&db));
        Ok(db)
    }

    /// As [`Self::open`], and nothing when there is no evidence of the run at all.
    pub(crate) fn open_existing(&self, run: RunId) -> Result<Option<Arc<RunDb>>, OpenStoreError> {
        if !self.folder_of(run).exists() {
            return Ok(None);
        }
        self.open(run).map(Some)
    }
}
