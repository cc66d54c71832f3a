//! Sends a job's raw files, one after the other, a chunk at a time: the coordinator's answer to each says where to go on.

use crate::blocking;
use crate::folder::JobFolder;
use crate::link::connect::Outbox;
use pgsoak_packages::digest;
use pgsoak_proto::MAX_CHUNK_BYTES;
use pgsoak_proto::job::Lease;
use pgsoak_proto::session::ArtifactChunk;
use pgsoak_proto::wire;
use pgsoak_proto::wire::agent_message::Body;
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};
use tokio::task::JoinHandle;

/// How often a file whose digest did not match is sent in all.
const TRIES: u32 = 3;

/// Longest name that the coordinator takes.
const NAME_BYTES: usize = 200;

#[derive(Default)]
pub(super) struct Artifacts {
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    Unknown,
    Listing(JoinHandle<VecDeque<Artifact>>),
    /// The first is the one under way.
    Known(VecDeque<Artifact>),
}

struct Artifact {
    name: String,
    path: PathBuf,
    bytes: u64,
    sha256: String,
    /// Where the next chunk begins.
    offset: u64,
    /// A chunk is on its way.
    is_awaited: bool,
    tries: u32,
}

// === impl Artifacts ===

impl Artifacts {
    /// A new session: the file under way begins again, and the coordinator says how much of it it has.
    pub fn restart(&mut self) {
        if let State::Known(files) = &mut self.state {
            for file in files {
                file.offset = 0;
                file.is_awaited = false;
            }
        }
    }

    /// The coordinator has so much of a file, without a hole.
    pub fn received(&mut self, name: &str, received_bytes: u64) {
        let State::Known(files) = &mut self.state else { return };
        let Some(file) = files.front_mut().filter(|file| file.name == name) else { return };
        file.is_awaited = false;
        if received_bytes >= file.bytes {
            files.pop_front();
            return;
        }
        if received_bytes == 0 {
            file.tries = file.tries.saturating_add(1);
            if file.tries >= TRIES {
                tracing::error!(name, "the coordinator cannot store this artifact: it is left out");
                files.pop_front();
                return;
            }
        }
        file.offset = received_bytes;
    }

    /// Waits for the list of files, if it is being made.
    pub async fn prepared(&mut self) {
        match &mut self.state {
            State::Listing(work) => {
                let files = work.await.unwrap_or_default();
                self.state = State::Known(files);
            }
            _ => std::future::pending().await,
        }
    }

    /// Sends the next chunk if none is on its way. True: every file is stored.
    pub async fn pump(&mut self, outbox: &Outbox, lease: Lease, folder: &JobFolder) -> bool {
        if let State::Unknown = self.state {
            let dir = folder.artifacts();
            self.state = State::Listing(blocking::spawn(move || list(&dir)));
        }
        let State::Known(files) = &mut self.state else { return false };
        let Some(file) = files.front_mut() else { return true };
        if file.is_awaited {
            return false;
        }
        let Some(room) = outbox.room() else { return false };
        let (path, offset, bytes) = (file.path.clone(), file.offset, file.bytes);
        let chunk = blocking::spawn(move || chunk(&path, offset, bytes)).await;
        match chunk {
            Ok(Ok(data)) => {
                let chunk = ArtifactChunk {
                    lease,
                    name: file.name.clone(),
                    offset,
                    data,
                    total_bytes: file.bytes,
                    sha256: file.sha256.clone(),
                };
                file.is_awaited = true;
                room.send(wire::AgentMessage { body: Some(Body::Artifact(chunk.into())) });
            }
            Ok(Err(error)) => {
                tracing::error!(path = %file.path.display(), %error, "an artifact cannot be read: it is left out");
                files.pop_front();
            }
            Err(_) => {}
        }
        false
    }
}

fn chunk(path: &Path, offset: u64, total: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let wanted = total.saturating_sub(offset).min(u64::try_from(MAX_CHUNK_BYTES).unwrap_or(0));
    let mut data = Vec::new();
    file.take(wanted).read_to_end(&mut data)?;
    if u64::try_from(data.len()).unwrap_or(0) < wanted {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than it was"));
    }
    Ok(data)
}

/// The files of the folder by name, with their digests. What cannot be read is left out, with a line in the log.
fn list(dir: &Path) -> VecDeque<Artifact> {
    let Ok(entries) = fs::read_dir(dir) else { return VecDeque::new() };
    let mut files: Vec<Artifact> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            if name.starts_with('.') || name.len() > NAME_BYTES || name.contains('\\') {
                return None;
            }
            let path = entry.path();
            match digest::measured(&path) {
                Ok((bytes, sha256)) => Some(Artifact {
                    name,
                    path,
                    bytes,
                    sha256,
                    offset: 0,
                    is_awaited: false,
                    tries: 0,
                }),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "an artifact cannot be read: it is left out");
                    None
                }
            }
        })
        .collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files.into()
}
