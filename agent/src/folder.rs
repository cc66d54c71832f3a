//! The job's folder: the only thing that daemon and runner share. ARCHITECTURE.md lists what is in it and who writes what.
//!
//! Files that the other side reads are replaced atomically. Blocking file access of small files.

pub mod group;
mod processes;

pub use processes::{MARK, ProcessKey, kill_left, processes_left};

use pgsoak_proto::job::{JobSpec, Lease};
use pgsoak_proto::session::JobProgress;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// The runner's only input: the content of `assignment.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// The right to run it.
    pub lease: Lease,
    /// The job.
    pub spec: JobSpec,
    /// Holds builds, PostgreSQL trees and cluster templates.
    pub cache_dir: PathBuf,
    /// Of the server that the job runs on: the daemon's choice for the spec's wish.
    pub pg_config: PathBuf,
}

/// A job's folder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JobFolder {
    path: PathBuf,
}

/// A file of a job's folder that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The operation failed.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("read {}: it is damaged, or of another version of pgsoak", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
}

/// The folder, below an agent's data folder, that holds the jobs' folders.
pub fn jobs_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("jobs")
}

/// Every job's folder of an agent, by name. What a daemon left half made is not among them.
///
/// # Errors
/// When the folder cannot be read. One that is not there is empty.
pub fn list(data_dir: &Path) -> Result<Vec<JobFolder>, FolderError> {
    let mut found: Vec<JobFolder> = entries(&jobs_dir(data_dir))?
        .into_iter()
        .filter(|name| !name.as_encoded_bytes().starts_with(b"."))
        .map(|name| JobFolder { path: jobs_dir(data_dir).join(name) })
        .filter(|folder| folder.path.is_dir())
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Removes what a daemon that crashed left half made.
///
/// # Errors
/// When it cannot be read or removed.
pub fn remove_half_made(data_dir: &Path) -> Result<(), FolderError> {
    let dir = jobs_dir(data_dir);
    for name in entries(&dir)? {
        if name.as_encoded_bytes().starts_with(HALF_MADE.as_bytes()) {
            let path = dir.join(name);
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

const HALF_MADE: &str = ".making-";

fn entries(dir: &Path) -> Result<Vec<OsString>, FolderError> {
    let listed = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(failed("list", dir))?,
    };
    listed.map(|entry| entry.map(|e| e.file_name()).map_err(failed("list", dir))).collect()
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { doing, path, source }
}

// === impl JobFolder ===

impl JobFolder {
    /// The folder of an attempt: `jobs/<last 12 digits of the job id>-<attempt>`. Short, since sockets lie below it.
    pub fn of(data_dir: &Path, lease: &Lease) -> Self {
        Self { path: jobs_dir(data_dir).join(name_of(lease)) }
    }

    /// The folder at this path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes the folder with its `assignment.json`: it is there with all of it, or not at all. With `owner` (user and group),
    /// both belong to it.
    ///
    /// # Errors
    /// When the folder is there already, or cannot be made.
    pub fn make(
        data_dir: &Path,
        assignment: &Assignment,
        owner: Option<(u32, u32)>,
    ) -> Result<Self, FolderError> {
        let folder = Self::of(data_dir, &assignment.lease);
        let dir = jobs_dir(data_dir);
        fs::create_dir_all(&dir).map_err(failed("make", &dir))?;
        let half_made = dir.join(format!("{HALF_MADE}{}", name_of(&assignment.lease)));
        match fs::remove_dir_all(&half_made) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &half_made)(error));
            }
            _ => {}
        }
        if folder.path.exists() {
            return Err(failed("make", &folder.path)(io::ErrorKind::AlreadyExists.into()));
        }
        fs::create_dir(&half_made).map_err(failed("make", &half_made))?;
        let new = Self::at(&half_made);
        new.write("assignment.json", assignment)?;
        if let Some((user, group)) = owner {
            for path in [half_made.clone(), half_made.join("assignment.json")] {
                std::os::unix::fs::chown(&path, Some(user), Some(group))
                    .map_err(failed("change the owner of", &path))?;
            }
        }
        fs::rename(&half_made, &folder.path).map_err(failed("make", &folder.path))?;
        sync_dir(&dir)?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Evidence, in segments.
    pub fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }

    /// Raw files for keeping; complete once the last frame is in the spool.
    pub fn artifacts(&self) -> PathBuf {
        self.path.join("artifacts")
    }

    /// Asks the runner to stop; holds the reason.
    pub fn cancel_file(&self) -> PathBuf {
        self.path.join("cancel")
    }

    /// Asks the runner to end its loops early; holds the reason.
    pub fn conclude_file(&self) -> PathBuf {
        self.path.join("conclude")
    }

    /// What the runner is to do.
    ///
    /// # Errors
    /// When the file is missing or damaged.
    pub fn assignment(&self) -> Result<Assignment, FolderError> {
        let path = self.path.join("assignment.json");
        let missing = || failed("read", &path)(io::ErrorKind::NotFound.into());
        self.read("assignment.json")?.ok_or_else(missing)
    }

    /// By the runner, once, at its start: says that this process is it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_runner(&self) -> Result<(), FolderError> {
        let path = self.path.join("runner.json");
        let own = ProcessKey::of(std::process::id()).ok_or_else(|| {
            failed("find this process in /proc for", &path)(io::ErrorKind::NotFound.into())
        })?;
        self.write_runner_key(&own)
    }

    /// As [`Self::write_runner`], of a process that somebody else knows.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_runner_key(&self, key: &ProcessKey) -> Result<(), FolderError> {
        self.write("runner.json", key)
    }

    /// The runner as it said at its start; `None`: it has not.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn runner(&self) -> Result<Option<ProcessKey>, FolderError> {
        self.read("runner.json")
    }

    /// By the runner: where it stands. Replaced atomically.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_progress(&self, progress: &JobProgress) -> Result<(), FolderError> {
        self.write_unsynced("progress.json", progress)
    }

    /// Where the runner stands; `None`: it has not said so yet, or not so that it can be read.
    pub fn progress(&self) -> Option<JobProgress> {
        self.read("progress.json").ok().flatten()
    }

    /// Asks the runner to stop. The first reason stands.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn ask_cancel(&self, reason: &str) -> Result<(), FolderError> {
        let path = self.cancel_file();
        if path.exists() {
            return Ok(());
        }
        self.replace("cancel", reason.as_bytes(), true)
    }

    /// Asks the runner to end its loops after the round they are in. The first reason stands.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn ask_conclude(&self, reason: &str) -> Result<(), FolderError> {
        if self.conclude_file().exists() {
            return Ok(());
        }
        self.replace("conclude", reason.as_bytes(), true)
    }

    /// Why the runner was asked to stop; `None`: it was not.
    pub fn cancel_reason(&self) -> Option<String> {
        fs::read_to_string(self.cancel_file()).ok()
    }

    /// Every process of the job: see [`processes_left`].
    pub fn processes_left(&self) -> Vec<ProcessKey> {
        processes_left(&self.path)
    }

    /// Removes the folder with all that is in it. One that is not there is no error.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub fn remove(&self) -> Result<(), FolderError> {
        group::remove_of(&self.path);
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &self.path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Moves the folder to `<data>/refused/`, under a name that is free there; gives the new path.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn set_aside(&self, data_dir: &Path) -> Result<PathBuf, FolderError> {
        let dir = data_dir.join("refused");
        fs::create_dir_all(&dir).map_err(failed("make", &dir))?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut target = dir.join(&name);
        let mut number = 1_u32;
        while target.exists() {
            number = number.saturating_add(1);
            target = dir.join(format!("{name}.{number}"));
        }
        fs::rename(&self.path, &target).map_err(failed("set aside", &self.path))?;
        Ok(target)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, FolderError> {
        let path = self.path.join(name);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(failed("read", &path))?,
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| FolderError::Json { path, source })
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<(), FolderError> {
        self.replace(name, &self.json(name, value)?, true)
    }

    fn write_unsynced(&self, name: &str, value: &impl Serialize) -> Result<(), FolderError> {
        self.replace(name, &self.json(name, value)?, false)
    }

    fn json(&self, name: &str, value: &impl Serialize) -> Result<Vec<u8>, FolderError> {
        serde_json::to_vec(value)
            .map_err(|source| FolderError::Json { path: self.path.join(name), source })
    }

    /// The file has the old content or the new one, whatever happens.
    fn replace(&self, name: &str, content: &[u8], must_last: bool) -> Result<(), FolderError> {
        let path = self.path.join(name);
        let partial = self.path.join(format!(".{name}.partial"));
        let mut file = File::create(&partial).map_err(failed("write", &partial))?;
        file.write_all(content).map_err(failed("write", &partial))?;
        if must_last {
            file.sync_all().map_err(failed("sync", &partial))?;
        }
        fs::rename(&partial, &path).map_err(failed("write", &path))?;
        if must_last {
            sync_dir(&self.path)?;
        }
        Ok(())
    }
}

fn sync_dir(dir: &Path) -> Result<(), FolderError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))
}

fn name_of(lease: &Lease) -> String {
    let job = lease.job.to_string();
    let digits = job.get(job.len().saturating_sub(12)..).unwrap_or(&job);
    format!("{digits}-{}", lease.attempt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgsoak_proto::id::{JobId, RunId};
    use pgsoak_proto::job::{Arm, BuildRef, PostgresRef, Tool};
    use pgsoak_proto::session::JobStage;
    use std::{collections::BTreeMap, time::Duration};

    fn assignment() -> Assignment {
        let job = JobId::issue();
        let spec = JobSpec {
            job,
            run: RunId::issue(),
            workload_name: "w".into(),
            workload_toml: "name = \"w\"".into(),
            tool: Tool::Plain,
            arm: Arm::Candidate,
            build: BuildRef::Vanilla,
            postgres: PostgresRef::Major(15),
            loop_for: Some(Duration::from_millis(1500)),
            scale: 1.0,
            sample_every: Duration::from_secs(1),
            hard_end: Duration::from_secs(60),
            seed: 7,
            replica: 0,
            exclusive: false,
            agents: BTreeMap::new(),
            on_lost: pgsoak_proto::job::OnLost::Wait,
            options: Default::default(),
        };
        Assignment {
            lease: Lease { job, attempt: 2, fence: 9 },
            spec,
            cache_dir: "/cache".into(),
            pg_config: "/usr/bin/pg_config".into(),
        }
    }

    #[test]
    fn a_folder_is_made_once_and_read_back() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(list(data.path()).unwrap(), []);
        let assignment = assignment();
        let folder = JobFolder::make(data.path(), &assignment, None).unwrap();
        let name = folder.path().file_name().unwrap().to_str().unwrap();
        assert!(name.len() == 14 && name.ends_with("-2"), "{name}");
        assert_eq!(folder.assignment().unwrap(), assignment);
        assert_eq!(list(data.path()).unwrap(), std::slice::from_ref(&folder));
        let error = JobFolder::make(data.path(), &assignment, None).unwrap_err();
        assert!(error.to_string().starts_with("make "), "{error}");
        let aside = folder.set_aside(data.path()).unwrap();
        assert!(aside.join("assignment.json").exists());
        assert_eq!(list(data.path()).unwrap(), []);
        let again = JobFolder::make(data.path(), &assignment, None).unwrap();
        assert_ne!(again.set_aside(data.path()).unwrap(), aside);
        again.remove().unwrap();
    }

    #[test]
    fn what_a_crash_left_half_made_is_removed() {
        let data = tempfile::tempdir().unwrap();
        let half = jobs_dir(data.path()).join(".making-123-1");
        fs::create_dir_all(&half).unwrap();
        assert_eq!(list(data.path()).unwrap(), []);
        remove_half_made(data.path()).unwrap();
        assert!(!half.exists());
    }

    #[test]
    fn a_cancel_keeps_its_first_reason() {
        let data = tempfile::tempdir().unwrap();
        let folder = JobFolder::make(data.path(), &assignment(), None).unwrap();
        assert_eq!(folder.cancel_reason(), None);
        folder.ask_cancel("by hand").unwrap();
        folder.ask_cancel("again").unwrap();
        assert_eq!(folder.cancel_reason().unwrap(), "by hand");
    }

    #[test]
    fn progress_and_runner_are_read_as_written_and_damage_is_named() {
        let data = tempfile::tempdir().unwrap();
        let assignment = assignment();
        let folder = JobFolder::make(data.path(), &assignment, None).unwrap();
        assert_eq!(folder.runner().unwrap(), None);
        assert_eq!(folder.progress(), None);
        folder.write_runner().unwrap();
        assert!(folder.runner().unwrap().unwrap().is_alive());
        let progress = JobProgress {
            lease: assignment.lease,
            stage: JobStage::Running,
            phase: "steady".into(),
            round: 3,
            rounds: 20,
            operations: 3000,
            done: 0.15,
            left_ms: 9000,
            rss_anon_bytes: 1 << 20,
        };
        folder.write_progress(&progress).unwrap();
        assert_eq!(folder.progress(), Some(progress));
        fs::write(folder.path().join("runner.json"), "{").unwrap();
        let error = folder.runner().unwrap_err();
        assert!(error.to_string().contains("runner.json: it is damaged"), "{error}");
    }
}
