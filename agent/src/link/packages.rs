//! Packages that a coordinator hands out: fetched when a job needs one, resumed at the byte, verified, kept up to a size.
//!
//! `<agent data>/packages/<digest>/` holds the files of one. The daemon asks which package the job's run was given; a job's
//! folder then names the package's folder instead of the build, so the runner needs no network. What no coordinator has is
//! looked for in the build cache of the host, as ever.

use crate::config::{Endpoint, Token};
use crate::folder;
use crate::link::connect::{Bearer, connect};
use crate::link::surroundings::Dial;
use pgsoak_packages::archive::{self, Refused};
use pgsoak_packages::digest;
use pgsoak_proto::chain::chain;
use pgsoak_proto::job::{BuildRef, JobSpec, PostgresRef};
use pgsoak_proto::session::Capabilities;
use pgsoak_proto::wire;
use pgsoak_proto::wire::builds_client::BuildsClient;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use tokio::sync::Mutex;
use tonic::{Code, service::interceptor::InterceptedService, transport::Channel};

/// All packages together; the ones that were used last stay.
const MAX_BYTES: u64 = 8 << 30;
/// A transfer that breaks off is taken up again so often, if each time some bytes came.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);
/// Without a byte for so long, a transfer counts as broken off.
const SILENCE: Duration = Duration::from_secs(30);

/// Why a job's package is not there.
#[derive(Debug, thiserror::Error)]
pub enum PackageFetchError {
    /// No connection, or not the answer that was needed.
    #[error("fetch the package of {build}: {problem}")]
    Fetch {
        /// The build.
        build: String,
        /// What happened.
        problem: String,
    },
    /// What came is not what was asked for.
    #[error(
        "the package of {build} has digest {is} and not {wanted}; it is fetched again with the next attempt"
    )]
    Damaged {
        /// The build.
        build: String,
        /// Of what came.
        is: String,
        /// What the run was given.
        wanted: String,
    },
    /// It was pushed to the coordinator and yet cannot be used.
    #[error("the package of {build} cannot be unpacked")]
    Refused {
        /// The build.
        build: String,
        /// Why not.
        #[source]
        source: Refused,
    },
    /// The disk did not take it.
    #[error("keep packages in {}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The agent's packages. One transfer at a time: jobs that start together need the same one.
#[derive(Debug)]
pub(super) struct Packages {
    folder: PathBuf,
    jobs: PathBuf,
    bearer: Bearer,
    most_bytes: u64,
    transfer: Mutex<()>,
}

type Client = BuildsClient<InterceptedService<Channel, Bearer>>;

/// A package as the coordinator names it.
struct Wanted<'a> {
    build: &'a str,
    digest: String,
    bytes: u64,
}

// === impl Packages ===

impl Packages {
    pub fn new(data_dir: &Path, token: Option<&Token>) -> Self {
        Self {
            folder: data_dir.join("packages"),
            jobs: data_dir.to_owned(),
            bearer: Bearer::new(token),
            most_bytes: MAX_BYTES,
            transfer: Mutex::new(()),
        }
    }

    /// The job with its package in place; unchanged where its build is none that a coordinator hands out.
    ///
    /// # Errors
    ///
    /// When its run was given a package, and that cannot be had.
    pub async fn place(
        &self,
        endpoint: &Endpoint,
        dial: Option<Dial>,
        capabilities: &Capabilities,
        spec: JobSpec,
    ) -> Result<JobSpec, PackageFetchError> {
        let (BuildRef::Release { .. }, Some(major)) = (&spec.build, major(&spec, capabilities))
        else {
            return Ok(spec);
        };
        let build = spec.build.to_string();
        let fetch = |problem: String| PackageFetchError::Fetch { build: build.clone(), problem };
        let channel = connect(endpoint, dial).await.map_err(|error| fetch(chain(&error)))?;
        let mut client = BuildsClient::with_interceptor(channel, self.bearer.clone())
            .max_decoding_message_size(pgsoak_proto::MAX_MESSAGE_BYTES);
        let request = wire::PinnedBuildRequest {
            run_id: spec.run.to_string(),
            build: build.clone(),
            postgres: major,
        };
        let pinned = match client.pinned(request).await {
            Ok(pinned) => pinned.into_inner(),
            // A coordinator that knows nothing of builds is one that has none.
            Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => {
                return Ok(spec);
            }
            Err(status) => return Err(fetch(status.message().to_owned())),
        };
        let wire::PinnedBuild { digest, bytes } = pinned;
        if !digest::is_digest(&digest) || bytes > archive::MAX_PACKED_BYTES {
            return Err(fetch("the coordinator names no package".to_owned()));
        }
        let wanted = Wanted { build: &build, digest, bytes };
        let folder = self.have(&mut client, &wanted).await?;
        Ok(JobSpec { build: BuildRef::Dir(folder), ..spec })
    }

    /// The folder of a package, fetched if need be.
    async fn have(
        &self,
        client: &mut Client,
        wanted: &Wanted<'_>,
    ) -> Result<PathBuf, PackageFetchError> {
        let _one = self.transfer.lock().await;
        let folder = self.folder.join(&wanted.digest);
        if folder.is_dir() {
            used_now(&folder);
            return Ok(folder);
        }
        make(&self.folder).map_err(|source| self.failed(source))?;
        let packed = self.folder.join(format!("{}.partial", wanted.digest));
        self.transfer(client, wanted, &packed).await?;
        let is = digest::of_file(&packed).map_err(|source| self.failed(source))?;
        if is != wanted.digest {
            // Whatever it was, it is no beginning of what is wanted.
            fs::remove_file(&packed).map_err(|source| self.failed(source))?;
            let (build, wanted) = (wanted.build.to_owned(), wanted.digest.clone());
            return Err(PackageFetchError::Damaged { build, is, wanted });
        }
        let file = File::open(&packed).map_err(|source| self.failed(source))?;
        let to = folder.clone();
        let unpacked = crate::blocking::spawn(move || archive::unpack(file, &to));
        let unpacked = unpacked.await.map_err(|error| self.failed(io::Error::other(error)))?;
        // Needed no longer either way.
        let _ = fs::remove_file(&packed);
        unpacked.map_err(|source| PackageFetchError::Refused {
            build: wanted.build.to_owned(),
            source,
        })?;
        tracing::info!(build = wanted.build, digest = wanted.digest, "fetched a package");
        self.make_room(&folder);
        Ok(folder)
    }

    fn failed(&self, source: io::Error) -> PackageFetchError {
        PackageFetchError::Io { path: self.folder.clone(), source }
    }

    /// Brings the rest of a package file, from where an earlier transfer ended.
    async fn transfer(
        &self,
        client: &mut Client,
        wanted: &Wanted<'_>,
        packed: &Path,
    ) -> Result<(), PackageFetchError> {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(packed)
            .map_err(|source| self.failed(source))?;
        let mut have = file.metadata().map_err(|source| self.failed(source))?.len();
        let mut tries = 0;
        while have < wanted.bytes {
            let before = have;
            let request = wire::FetchBuildRequest { digest: wanted.digest.clone(), offset: have };
            let problem = match client.fetch(request).await {
                Ok(stream) => {
                    let mut pieces = stream.into_inner();
                    loop {
                        match tokio::time::timeout(SILENCE, pieces.message()).await {
                            Ok(Ok(Some(piece))) => {
                                file.write_all(&piece.data)
                                    .map_err(|source| self.failed(source))?;
                                have = have.saturating_add(
                                    u64::try_from(piece.data.len()).unwrap_or(u64::MAX),
                                );
                                if have > wanted.bytes {
                                    break "more came than there is".to_owned();
                                }
                            }
                            Ok(Ok(None)) => break "it broke off".to_owned(),
                            Ok(Err(status)) => break status.message().to_owned(),
                            Err(_) => break "nothing came for too long".to_owned(),
                        }
                    }
                }
                Err(status) => status.message().to_owned(),
            };
            if have >= wanted.bytes {
                break;
            }
            tries = if have > before { 0 } else { tries + 1 };
            if tries >= TRIES {
                return Err(PackageFetchError::Fetch { build: wanted.build.to_owned(), problem });
            }
            tracing::warn!(build = wanted.build, have, of = wanted.bytes, problem, "goes on");
            tokio::time::sleep(PAUSE).await;
        }
        file.sync_all().map_err(|source| self.failed(source))
    }

    /// Removes what was not used for longest, until the rest fits. Packages of jobs that are there stay.
    fn make_room(&self, newest: &Path) {
        let held = self.of_jobs();
        let mut kept: Vec<(SystemTime, u64, PathBuf)> = fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| {
                let used = entry.metadata().and_then(|of| of.modified());
                (used.unwrap_or(SystemTime::UNIX_EPOCH), size(&entry.path()), entry.path())
            })
            .collect();
        kept.sort();
        let mut total: u64 = kept.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in kept {
            if total <= self.most_bytes {
                return;
            }
            if path == newest || held.contains(&path) {
                continue;
            }
            match fs::remove_dir_all(&path) {
                Ok(()) => total = total.saturating_sub(bytes),
                Err(error) => tracing::warn!(%error, path = %path.display(), "it stays"),
            }
        }
    }

    fn of_jobs(&self) -> Vec<PathBuf> {
        let folders = folder::list(&self.jobs).unwrap_or_default();
        folders
            .iter()
            .filter_map(|folder| match folder.assignment().ok()?.spec.build {
                BuildRef::Dir(path) => Some(path),
                _ => None,
            })
            .collect()
    }
}

fn major(spec: &JobSpec, capabilities: &Capabilities) -> Option<u32> {
    match &spec.postgres {
        PostgresRef::Major(major) => Some(*major),
        PostgresRef::PgConfig(path) => capabilities
            .postgres
            .iter()
            .find(|found| found.pg_config == *path)
            .map(|found| found.major),
    }
}

/// A folder that the jobs' user can enter, whatever the umask says.
fn make(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}

fn used_now(folder: &Path) {
    // It only says in which order packages go.
    let _ = File::open(folder).and_then(|folder| folder.set_modified(SystemTime::now()));
}

fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|of| of.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let data = tempfile::tempdir().unwrap();
        let mut packages = Packages::new(data.path(), None);
        packages.most_bytes = 250;
        let mut folders = Vec::new();
        for (name, age) in [("a", 30), ("b", 20), ("c", 10)] {
            let folder = packages.folder.join(name);
            make(&folder).unwrap();
            fs::write(folder.join("e.so"), [0; 100]).unwrap();
            let at = SystemTime::now() - Duration::from_secs(age);
            File::open(&folder).unwrap().set_modified(at).unwrap();
            folders.push(folder);
        }
        used_now(&folders[0]);
        packages.make_room(&folders[2]);
        let left: Vec<bool> = folders.iter().map(|folder| folder.exists()).collect();
        assert_eq!(left, [true, false, true]);
    }
}
