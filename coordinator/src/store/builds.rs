//! Package files of builds: `builds/<digest>` in the data folder, records in the catalogue.
//!
//! A file comes in under another name, is synced, checked to its end by its digest and as a package, and only then gets its name.
//! Files are never changed, so reads need no lock.

use crate::domain::build::{BuildRecord, Shelf};
use crate::domain::time::UnixUs;
use crate::store::catalogue::Batch;
use crate::store::open::sync_folder;
use crate::store::{Store, StoreError, blocking};
use pgsoak_packages::archive::{self, Inspected, MAX_PACKED_BYTES, Refused};
use pgsoak_packages::digest;
use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

/// Why a package is not kept.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Larger than any package.
    #[error("a package of {bytes} bytes is too large; at most {MAX_PACKED_BYTES} are kept")]
    TooLarge {
        /// As announced.
        bytes: u64,
    },
    /// What came is not what was announced.
    #[error("the package arrived damaged ({problem}); push it again")]
    Damaged {
        /// How it differs.
        problem: String,
    },
    /// It is no package that can be used.
    #[error("the package is not taken")]
    Refused(#[from] Refused),
    /// The disk did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A package file on its way in.
#[derive(Debug)]
pub struct Incoming {
    path: PathBuf,
    file: File,
    digest: String,
    bytes: u64,
    came: u64,
}

/// Where package files lie.
#[derive(Clone, Debug)]
pub(crate) struct BuildFiles {
    folder: PathBuf,
}

// === impl BuildFiles ===

impl BuildFiles {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(super) fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(digest)
    }

    fn failed(path: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> StoreError {
        let path = path.to_owned();
        move |source| StoreError::Io { doing, path, source }
    }

    fn begin(&self, digest: &str, bytes: u64) -> Result<Incoming, PushError> {
        if bytes > MAX_PACKED_BYTES {
            return Err(PushError::TooLarge { bytes });
        }
        if !digest::is_digest(digest) {
            return Err(PushError::Damaged { problem: "its digest is none".to_owned() });
        }
        fs::create_dir_all(&self.folder).map_err(Self::failed(&self.folder, "make"))?;
        // Two that push the same one at once do not write into one file.
        let path = self.folder.join(format!(".{}.partial", pgsoak_proto::id::JobId::issue()));
        let file = File::create(&path).map_err(Self::failed(&path, "make"))?;
        Ok(Incoming { path, file, digest: digest.to_owned(), bytes, came: 0 })
    }

    fn finish(&self, incoming: &Incoming) -> Result<Inspected, PushError> {
        let path = &incoming.path;
        if incoming.came != incoming.bytes {
            let (came, bytes) = (incoming.came, incoming.bytes);
            return Err(PushError::Damaged { problem: format!("{came} of {bytes} bytes came") });
        }
        incoming.file.sync_all().map_err(Self::failed(path, "write"))?;
        let is = digest::of_file(path).map_err(Self::failed(path, "read"))?;
        if is != incoming.digest {
            return Err(PushError::Damaged { problem: format!("its digest is {is}") });
        }
        let inspected = archive::inspect(File::open(path).map_err(Self::failed(path, "read"))?)?;
        let to = self.path(&is);
        fs::rename(path, &to)
            .and_then(|()| sync_folder(&self.folder))
            .map_err(Self::failed(&to, "write"))?;
        Ok(inspected)
    }

    /// Removes what came only in part when the last coordinator ended, and files that no record names.
    pub(crate) fn tidy(&self, known: &[BuildRecord]) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !known.iter().any(|record| record.digest == name) {
                // It is only in the way.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

// === impl Incoming ===

impl Incoming {
    /// Adds a piece. Blocks.
    ///
    /// # Errors
    ///
    /// When the disk does not take it, or more comes than was announced.
    pub fn add(&mut self, data: &[u8]) -> Result<(), PushError> {
        self.came = self.came.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        if self.came > self.bytes {
            let problem = format!("more than the announced {} bytes came", self.bytes);
            return Err(PushError::Damaged { problem });
        }
        self.file.write_all(data).map_err(BuildFiles::failed(&self.path, "write"))?;
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Renamed when it was taken; otherwise it is of no use.
        let _ = fs::remove_file(&self.path);
    }
}

// === impl Store ===

impl Store {
    /// Begins to take a package file.
    ///
    /// # Errors
    ///
    /// When it cannot be one, or the disk does not take it.
    pub async fn begin_build(&self, digest: String, bytes: u64) -> Result<Incoming, PushError> {
        let files = self.builds.clone();
        blocking(move || Ok(files.begin(&digest, bytes))).await?
    }

    /// Takes a package file that has come; its record, which is durable.
    ///
    /// # Errors
    ///
    /// When it is not what was announced, no usable package, or the disk does not take it.
    pub async fn finish_build(
        &self,
        incoming: Incoming,
        now: UnixUs,
    ) -> Result<BuildRecord, PushError> {
        let files = self.builds.clone();
        let taken = blocking(move || {
            let inspected = files.finish(&incoming);
            Ok(inspected.map(|inspected| (incoming.digest.clone(), incoming.bytes, inspected)))
        });
        let (digest, bytes, inspected) = taken.await??;
        let Inspected { manifest, files, magic_major } = inspected;
        let is_major_proven = magic_major.is_some();
        let record = BuildRecord {
            digest,
            bytes,
            manifest,
            files,
            is_major_proven,
            pushed_at: now,
            is_removed: false,
        };
        self.keep_builds(std::slice::from_ref(&record)).await?;
        Ok(record)
    }

    /// The builds that are kept, as runs are given them.
    pub fn shelf(&self) -> Shelf {
        self.shelf.clone()
    }

    /// Writes changed builds; durable, and what runs are given from now on, when this returns.
    ///
    /// # Errors
    ///
    /// When the disk does not take it.
    pub async fn keep_builds(&self, changed: &[BuildRecord]) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for build in changed {
            batch.build(build);
        }
        self.commit(batch).await?;
        self.shelf.set(self.builds().await?);
        Ok(())
    }

    /// All builds that are kept.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn builds(&self) -> Result<Vec<BuildRecord>, StoreError> {
        let catalogue = self.catalogue.clone();
        blocking(move || catalogue.builds()).await
    }

    /// Where a package file lies; `None`: `digest` is none.
    pub fn build_path(&self, digest: &str) -> Option<PathBuf> {
        digest::is_digest(digest).then(|| self.builds.path(digest))
    }

    /// Forgets builds; their files go with them.
    ///
    /// # Errors
    ///
    /// When the disk does not take it.
    pub async fn forget_builds(&self, digests: Vec<String>) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for digest in &digests {
            batch.no_build(digest);
        }
        self.commit(batch).await?;
        self.shelf.set(self.builds().await?);
        let files = self.builds.clone();
        blocking(move || {
            for digest in &digests {
                let path = files.path(digest);
                if let Err(source) = fs::remove_file(&path)
                    && source.kind() != std::io::ErrorKind::NotFound
                {
                    return Err(StoreError::Io { doing: "remove", path, source });
                }
            }
            Ok(())
        })
        .await
    }
}
