//! Runs that go: out of the catalogue first, so that nobody finds half of one; then their evidence and raw files.

use crate::store::catalogue::Batch;
use crate::store::{Store, StoreError, blocking};
use pgsoak_proto::id::RunId;
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use tracing::warn;

impl Store {
    /// Bytes of a run's evidence and raw files on the disk, also of what was set aside.
    ///
    /// # Errors
    ///
    /// When the store is going down.
    pub async fn bytes_of(&self, runs: Vec<RunId>) -> Result<Vec<u64>, StoreError> {
        let folders: Vec<Vec<PathBuf>> = runs.into_iter().map(|run| self.folders_of(run)).collect();
        blocking(move || {
            Ok(folders.iter().map(|of| of.iter().map(|path| bytes_below(path)).sum()).collect())
        })
        .await
    }

    /// Removes a finished run that nobody holds; false: there is none.
    ///
    /// # Errors
    ///
    /// When the disk does not take it. A run whose files could not be removed is gone from the catalogue all the same; its
    /// files go at the next start.
    pub async fn remove_run(&self, run: RunId) -> Result<bool, StoreError> {
        let catalogue = self.catalogue.clone();
        let Some(batch) = blocking(move || catalogue.removal(run)).await? else { return Ok(false) };
        self.evidence.close(run).await;
        self.commit(batch).await?;
        self.remove_folders(run).await?;
        self.remove_remote(run).await?;
        let mut batch = Batch::default();
        batch.no_grave(run);
        self.commit(batch).await?;
        Ok(true)
    }

    /// Removes evidence and raw files of a run that is in no catalogue: of an import that was cut off.
    ///
    /// # Errors
    ///
    /// When the disk does not take it.
    pub async fn discard(&self, run: RunId) -> Result<(), StoreError> {
        self.evidence.close(run).await;
        self.remove_folders(run).await
    }

    async fn remove_folders(&self, run: RunId) -> Result<(), StoreError> {
        let folders = self.folders_of(run);
        blocking(move || {
            for path in folders {
                if let Err(source) = fs::remove_dir_all(&path)
                    && source.kind() != io::ErrorKind::NotFound
                {
                    return Err(StoreError::Io { doing: "remove", path, source });
                }
            }
            Ok(())
        })
        .await
    }

    fn folders_of(&self, run: RunId) -> Vec<PathBuf> {
        let name = run.to_string();
        let aside = format!("{name}.damaged-");
        let runs = self.runs.folder();
        let mut folders = vec![runs.join(&name), self.artifacts.folder_of(run)];
        let beside = fs::read_dir(runs).into_iter().flatten().flatten();
        // Rare; a listing for each run would cost more than it finds.
        if runs.join(format!("{aside}1")).exists() {
            folders.extend(
                beside
                    .filter(|entry| entry.file_name().to_string_lossy().starts_with(&aside))
                    .map(|entry| entry.path()),
            );
        }
        folders
    }

    /// Removes what is left of runs whose removal a crash cut short. At the start, before anybody works.
    pub(crate) fn tidy(&self) {
        let graves = self.catalogue.graves().unwrap_or_else(|error| {
            warn!(%error, "half removed runs are not found");
            Vec::new()
        });
        for path in graves.into_iter().flat_map(|run| self.folders_of(run)) {
            if let Err(error) = fs::remove_dir_all(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                warn!(path = %path.display(), %error, "it stays");
            }
        }
    }
}

/// Bytes of all files below a folder.
pub(super) fn bytes_below(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(of) if of.is_dir() => bytes_below(&entry.path()),
            Ok(of) => of.len(),
            Err(_) => 0,
        })
        .sum()
}
