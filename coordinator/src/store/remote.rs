//! Raw files of runs that are over, in an object store: a bucket (S3 and its likes), or a folder on another disk.
//!
//! Files arrive in the data folder, where an upload goes on at its byte. Of a run that is over they move: copied, read back against their
//! digest, and only then removed here. Keys are `<prefix>/<run>/<job>-<attempt>/<name>.zst`, as the files lie in the folder.

use crate::domain::record::ArtifactRecord;
use crate::store::catalogue::Batch;
use crate::store::{Store, StoreError, blocking};
use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use object_store::{ObjectStore, ObjectStoreExt as _, buffered::BufWriter, path::Path as Key};
use pgsoak_packages::digest::hex;
use pgsoak_proto::id::RunId;
use sha2::{Digest as _, Sha256};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tracing::info;
use url::Url;

/// Of a file, read at once; parts of an upload have at least 5 MiB where a bucket asks for that.
const PIECE: usize = 1 << 20;

/// Why an address is none of an object store.
#[derive(Debug, thiserror::Error)]
#[error(
    "'{url}' is no place for raw files: {problem}; write s3://BUCKET/PREFIX (with AWS_* in the environment), or file:///FOLDER"
)]
pub struct RemoteError {
    url: String,
    problem: String,
}

/// Where raw files of runs that are over lie.
#[derive(Clone, Debug)]
pub struct Remote {
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    /// As people wrote it.
    url: Arc<str>,
}

/// The bytes of a raw file, from wherever they lie.
pub enum Source {
    /// In the data folder.
    File(PathBuf),
    /// In the object store.
    Stream(BoxStream<'static, Result<bytes::Bytes, StoreError>>),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

// === impl Remote ===

impl Remote {
    /// The place at this address. A folder is made; a bucket must be there. Keys and regions come from the environment (`AWS_*`).
    ///
    /// # Errors
    ///
    /// When the address is of no kind that is known, or the folder cannot be made.
    pub fn open(url: &str) -> Result<Self, RemoteError> {
        let failed = |problem: String| RemoteError { url: url.to_owned(), problem };
        let parsed = Url::parse(url).map_err(|error| failed(error.to_string()))?;
        if !["s3", "file"].contains(&parsed.scheme()) {
            return Err(failed(format!("nobody here speaks {}", parsed.scheme())));
        }
        if let Ok(folder) = parsed.to_file_path()
            && parsed.scheme() == "file"
        {
            fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
        }
        // A second call finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let aws = std::env::vars()
            .filter_map(|(name, value)| Some((name.strip_prefix("AWS_")?.to_owned(), value)))
            .map(|(name, value)| (format!("aws_{}", name.to_ascii_lowercase()), value));
        let (store, prefix) = object_store::parse_url_opts(&parsed, aws)
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { store: store.into(), prefix, url: url.into() })
    }

    fn key(&self, below: &Path) -> Key {
        let parts = below.iter().map(|part| part.to_string_lossy().into_owned());
        parts.fold(self.prefix.clone(), Key::join)
    }

    fn failed(&self, doing: &'static str) -> impl Fn(object_store::Error) -> StoreError + use<> {
        let url = Arc::clone(&self.url);
        move |source| StoreError::Remote {
            doing,
            url: url.to_string(),
            problem: source.to_string(),
        }
    }

    async fn put(&self, key: &Key, path: &Path) -> Result<(), StoreError> {
        let told = |source| StoreError::Io { doing: "read", path: path.to_owned(), source };
        let mut to = BufWriter::new(Arc::clone(&self.store), key.clone());
        let sent = |source: io::Error| StoreError::Remote {
            doing: "write to",
            url: self.url.to_string(),
            problem: source.to_string(),
        };
        let mut file = File::open(path).await.map_err(told)?;
        let mut piece = vec![0; PIECE];
        loop {
            let read = file.read(&mut piece).await.map_err(told)?;
            if read == 0 {
                break;
            }
            to.write_all(piece.get(..read).unwrap_or_default()).await.map_err(sent)?;
        }
        to.shutdown().await.map_err(sent)
    }

    async fn get(
        &self,
        key: &Key,
    ) -> Result<BoxStream<'static, Result<bytes::Bytes, StoreError>>, StoreError> {
        let found = self.store.get(key).await.map_err(self.failed("read from"))?;
        Ok(found.into_stream().map_err(self.failed("read from")).boxed())
    }

    async fn digest(&self, key: &Key) -> Result<String, StoreError> {
        let mut stream = self.get(key).await?;
        let mut hasher = Sha256::new();
        while let Some(bytes) = stream.try_next().await? {
            hasher.update(&bytes);
        }
        Ok(hex(&hasher.finalize()))
    }

    async fn remove(&self, below: &Path) -> Result<(), StoreError> {
        let failed = self.failed("remove from");
        let prefix = self.key(below);
        let mut found = self.store.list(Some(&prefix));
        while let Some(object) = found.try_next().await.map_err(&failed)? {
            self.store.delete(&object.location).await.map_err(&failed)?;
        }
        Ok(())
    }
}

// === impl Store ===

impl Store {
    /// Raw files of runs that are over move to this place.
    #[must_use]
    pub fn with_remote(mut self, remote: Option<Remote>) -> Self {
        self.remote = remote;
        self
    }

    /// Moves a finished run's complete raw files to the object store, if there is one; how many bytes went.
    ///
    /// # Errors
    ///
    /// When it does not take them, or gives back something else: the file here stays.
    pub async fn move_away(&self, run: RunId) -> Result<u64, StoreError> {
        let Some(remote) = &self.remote else { return Ok(0) };
        let mut moved = 0;
        for artifact in self.artifacts(run).await?.iter().filter(|of| of.is_complete) {
            let path = self.artifact_path(run, artifact);
            if artifact.is_away {
                continue;
            }
            let key = remote.key(&self.artifacts.below_folder(&path));
            remote.put(&key, &path).await?;
            if remote.digest(&key).await? != artifact.sha256.to_ascii_lowercase() {
                return Err(StoreError::Remote {
                    doing: "write to",
                    url: remote.url.to_string(),
                    problem: format!("{key} reads otherwise than it was written"),
                });
            }
            let mut batch = Batch::default();
            batch.artifact(run, &ArtifactRecord { is_away: true, ..artifact.clone() });
            self.commit(batch).await?;
            blocking(move || {
                let gone = fs::remove_file(&path);
                gone.map_err(|source| StoreError::Io { doing: "remove", path, source })
            })
            .await?;
            moved += artifact.total_bytes;
            info!(%run, name = artifact.name, bytes = artifact.total_bytes, url = %remote.url, "a raw file was moved");
        }
        Ok(moved)
    }

    /// Where the bytes of a complete raw file come from.
    ///
    /// # Errors
    ///
    /// When the object store does not have it.
    pub async fn read_artifact(
        &self,
        run: RunId,
        artifact: &ArtifactRecord,
    ) -> Result<Source, StoreError> {
        let path = self.artifact_path(run, artifact);
        if !artifact.is_away {
            return Ok(Source::File(path));
        }
        let Some(remote) = &self.remote else {
            return Err(StoreError::Remote {
                doing: "read from",
                url: "the object store".to_owned(),
                problem: format!(
                    "{} was moved there, and the setting `artifacts.url` names none",
                    artifact.name
                ),
            });
        };
        let key = remote.key(&self.artifacts.below_folder(&path));
        remote.get(&key).await.map(Source::Stream)
    }

    /// Removes what the object store has of a run.
    pub(super) async fn remove_remote(&self, run: RunId) -> Result<(), StoreError> {
        match &self.remote {
            Some(remote) => remote.remove(Path::new(&run.to_string())).await,
            None => Ok(()),
        }
    }
}
