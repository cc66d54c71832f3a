//! Raw files: `artifacts/<run>/<job>-<attempt>/<name>.zst`, written piece by piece, checked at the end.
//!
//! One thread writes. While a file is under way it is called `….part`; its length is what is stored, so a repeat or a
//! restart goes on from there. Files come compressed and stay so.

use crate::blocking;
use crate::store::open::{OpenStoreError, sync_folder};
use crate::store::{QUEUE, StoreError};
use pgsoak_packages::digest;
use pgsoak_proto::id::{JobId, RunId};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};
use tokio::sync::{mpsc, oneshot};

/// Largest file that is taken.
const MAX_BYTES: u64 = 8 << 30;

/// A piece of a raw file.
#[derive(Debug)]
pub struct ArtifactWrite {
    /// The run.
    pub run: RunId,
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
    /// As the agent calls it.
    pub name: String,
    /// Where the piece begins.
    pub offset: u64,
    /// The piece.
    pub data: Vec<u8>,
    /// Of the whole file.
    pub total_bytes: u64,
    /// Of the whole file, hex.
    pub sha256: String,
}

/// What is stored after a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Received {
    /// Without a hole from 0, synced.
    pub bytes: u64,
    /// All of it is there and its digest agrees.
    pub is_complete: bool,
}

/// Why a piece was not stored.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The whole file is not what was announced.
    #[error("artifact {name} has another digest than announced; it is not kept")]
    Digest {
        /// Which.
        name: String,
    },
    /// More than is taken.
    #[error("artifact {name} has {bytes} bytes; at most {MAX_BYTES} are taken")]
    TooLarge {
        /// Which.
        name: String,
        /// How much it has.
        bytes: u64,
    },
    /// The disk did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

enum Command {
    Write(ArtifactWrite, oneshot::Sender<Result<Received, ArtifactError>>),
    Stop,
}

/// Talks to the thread. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Artifacts {
    folder: Arc<PathBuf>,
    commands: mpsc::Sender<Command>,
    thread: Arc<Mutex<Option<thread::JoinHandle<()>>>>,
}

// === impl Artifacts ===

impl std::fmt::Debug for Artifacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Artifacts").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Artifacts {
    /// Where the raw files of a run lie.
    pub(crate) fn folder_of(&self, run: RunId) -> PathBuf {
        self.folder.join(run.to_string())
    }

    pub(crate) fn start(folder: PathBuf) -> Result<Self, OpenStoreError> {
        fs::create_dir_all(&folder)
            .map_err(|source| OpenStoreError::Io { path: folder.clone(), source })?;
        let folder = Arc::new(folder);
        let (commands, mut queue) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new()
            .name("artifacts".to_owned())
            .spawn({
                let folder = Arc::clone(&folder);
                move || {
                    while let Some(Command::Write(write, reply)) = queue.blocking_recv() {
                        // A caller that no longer waits is no error of ours.
                        let _ = reply.send(store(&folder, &write));
                    }
                }
            })
            .map_err(|error| OpenStoreError::Thread { problem: error.to_string() })?;
        Ok(Self { folder, commands, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    pub(crate) async fn write(
        &self,
        write: ArtifactWrite,
    ) -> Result<impl Future<Output = Result<Received, ArtifactError>> + Send + use<>, StoreError>
    {
        blocking::step().await;
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Write(write, reply)).await.map_err(|_| StoreError::Closed)?;
        let answer = blocking::answer(answer);
        Ok(async move { answer.await.unwrap_or(Err(ArtifactError::Store(StoreError::Closed))) })
    }

    pub(crate) async fn stop(&self) {
        let _ = self.commands.send(Command::Stop).await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = crate::blocking::spawn(move || thread.join()).await;
        }
    }

    /// The path of one of its files below the data folder.
    pub(crate) fn below_data(&self, file: &Path) -> PathBuf {
        let data = self.folder.parent().unwrap_or(&self.folder);
        file.strip_prefix(data).unwrap_or(file).to_owned()
    }

    /// The path of one of its files below its own folder.
    pub(crate) fn below_folder(&self, file: &Path) -> PathBuf {
        file.strip_prefix(self.folder.as_path()).unwrap_or(file).to_owned()
    }

    pub(crate) fn path(&self, run: RunId, job: JobId, attempt: u32, name: &str) -> PathBuf {
        path_of(&self.folder, run, job, attempt, name)
    }
}

/// Where a complete artifact lies.
pub(crate) fn path_of(folder: &Path, run: RunId, job: JobId, attempt: u32, name: &str) -> PathBuf {
    folder.join(run.to_string()).join(format!("{job}-{attempt}")).join(file_name(name))
}

/// A name that stays in its folder. Two names never share a file: what was changed carries a checksum of the original.
fn file_name(name: &str) -> String {
    let mut clean: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
        .collect();
    if clean.starts_with('.') {
        clean.replace_range(..1, "_");
    }
    let stem = clean.strip_suffix(".zst").unwrap_or(&clean);
    let is_changed = clean != name || stem.is_empty() || stem.len() > 180;
    let short: String = stem.chars().take(180).collect();
    if is_changed {
        format!("{short}-{:08x}.zst", crc32c::crc32c(name.as_bytes()))
    } else {
        format!("{short}.zst")
    }
}

fn store(folder: &Path, write: &ArtifactWrite) -> Result<Received, ArtifactError> {
    if write.total_bytes > MAX_BYTES {
        return Err(ArtifactError::TooLarge { name: write.name.clone(), bytes: write.total_bytes });
    }
    let whole = path_of(folder, write.run, write.job, write.attempt, &write.name);
    let failed =
        |source| StoreError::Io { doing: "write the artifact", path: whole.clone(), source };
    if fs::metadata(&whole).is_ok_and(|found| found.len() == write.total_bytes) {
        return Ok(Received { bytes: write.total_bytes, is_complete: true });
    }
    let part = whole.with_extension("zst.part");
    let stored = append(&part, write).map_err(failed)?;
    if stored < write.total_bytes {
        return Ok(Received { bytes: stored, is_complete: false });
    }
    if digest::of_file(&part).map_err(failed)? != write.sha256.to_ascii_lowercase() {
        fs::remove_file(&part).map_err(failed)?;
        return Err(ArtifactError::Digest { name: write.name.clone() });
    }
    fs::rename(&part, &whole).map_err(failed)?;
    if let Some(parent) = whole.parent() {
        sync_names(parent, folder).map_err(failed)?;
    }
    Ok(Received { bytes: stored, is_complete: true })
}

/// Adds what is new of the piece; the length that is stored and synced then.
fn append(part: &Path, write: &ArtifactWrite) -> io::Result<u64> {
    if let Some(parent) = part.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = OpenOptions::new().append(true).create(true).open(part)?;
    let mut stored = file.metadata()?.len();
    if stored > write.total_bytes {
        // Another file of the same name was begun before.
        file.set_len(0)?;
        stored = 0;
    }
    let end = write.offset.saturating_add(u64::try_from(write.data.len()).unwrap_or(u64::MAX));
    if write.offset <= stored && end > stored && end <= write.total_bytes {
        let skip = usize::try_from(stored - write.offset).unwrap_or(usize::MAX);
        let fresh = write.data.get(skip..).unwrap_or_default();
        file.write_all(fresh)?;
        stored += u64::try_from(fresh.len()).unwrap_or(0);
        file.sync_data()?;
    }
    Ok(stored)
}

/// Syncs the folders from `inner` up to `outer`, so that the names in them last.
fn sync_names(inner: &Path, outer: &Path) -> io::Result<()> {
    sync_folder(inner)?;
    let mut at = inner.parent();
    while let Some(folder) = at.filter(|folder| folder.starts_with(outer)) {
        File::open(folder)?.sync_all()?;
        at = folder.parent();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(run: RunId, job: JobId, whole: &[u8], from: usize, to: usize) -> ArtifactWrite {
        ArtifactWrite {
            run,
            job,
            attempt: 1,
            name: "server.log.zst".to_owned(),
            offset: from as u64,
            data: whole[from..to].to_vec(),
            total_bytes: whole.len() as u64,
            sha256: digest::of_bytes(whole),
        }
    }

    #[test]
    fn a_file_grows_piece_by_piece_and_repeats_do_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let (run, job) = (RunId::issue(), JobId::issue());
        let whole = b"0123456789";
        let write = |from, to| store(folder.path(), &piece(run, job, whole, from, to)).unwrap();
        assert_eq!(write(0, 4), Received { bytes: 4, is_complete: false });
        assert_eq!(write(6, 10).bytes, 4, "a hole is not filled with nothing");
        assert_eq!(write(2, 6).bytes, 6, "an overlap adds what is new");
        assert_eq!(write(6, 10), Received { bytes: 10, is_complete: true });
        assert_eq!(write(6, 10), Received { bytes: 10, is_complete: true });
        let path = path_of(folder.path(), run, job, 1, "server.log.zst");
        assert_eq!(fs::read(path).unwrap(), whole);
    }

    #[test]
    fn an_empty_file_is_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let write = piece(RunId::issue(), JobId::issue(), b"", 0, 0);
        assert!(store(folder.path(), &write).unwrap().is_complete);
    }

    #[test]
    fn a_wrong_digest_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (run, job) = (RunId::issue(), JobId::issue());
        let mut bad = piece(run, job, b"abc", 0, 3);
        bad.sha256 = digest::of_bytes(b"abd");
        assert!(matches!(store(folder.path(), &bad), Err(ArtifactError::Digest { .. })));
        let good = piece(run, job, b"abc", 0, 3);
        assert!(store(folder.path(), &good).unwrap().is_complete);
    }

    #[test]
    fn names_stay_in_their_folder_and_apart() {
        for name in ["../../etc/passwd", "/etc/passwd", "..", ".hidden", "a b", "", "ä"] {
            let file = file_name(name);
            assert!(!file.contains('/') && !file.starts_with('.'), "{name} -> {file}");
            assert_eq!(Path::new(&file).components().count(), 1);
        }
        assert_ne!(file_name("a/b"), file_name("a_b"));
        assert_eq!(file_name("server.log"), "server.log.zst");
        assert_eq!(file_name("server.log.zst"), "server.log.zst");
        assert!(file_name(&"x".repeat(200)).len() < 255);
    }
}
