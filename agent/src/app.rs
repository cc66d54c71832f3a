//! The daemon from its start to its end: locks its data folder, says who it is, runs [`crate::link::Daemon`].

use crate::capabilities;
use crate::config::AgentConfig;
use crate::folder::FolderError;
use crate::link::{Daemon, FindCapabilities, Surroundings};
use crate::privilege;
use crate::privilege::User;
use pgsoak_proto::id::AgentId;
use rustix::fs::FlockOperation;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_util::sync::CancellationToken;

/// Why an agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The name is none that a fleet takes.
    #[error("the agent's name '{0}' is not 1 to 100 of A-Z a-z 0-9 . _ -; choose one with --name")]
    Name(String),
    /// A file of the data folder failed.
    #[error("{doing} {}", path.display())]
    DataDir {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Another agent has the data folder.
    #[error(
        "another agent (process {holder}) works in {}; stop it, or choose another --data-dir",
        path.display()
    )]
    Locked {
        /// The data folder.
        path: PathBuf,
        /// Its pid, as it wrote it; "unknown".
        holder: String,
    },
    /// The file with the agent's id is not what it should be.
    #[error("{} holds no agent's id; remove it to join the fleet as a new agent", path.display())]
    AgentId {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: pgsoak_proto::id::InvalidId,
    },
    /// The jobs' folders cannot be read.
    #[error("look for jobs of an earlier agent")]
    Jobs(#[from] FolderError),
}

/// Runs an agent until `shutdown`. Jobs go on without it, unless the settings say otherwise.
///
/// # Errors
/// When it cannot start. Once it runs, nothing ends it but `shutdown`.
pub async fn run(config: AgentConfig, shutdown: CancellationToken) -> Result<(), AgentError> {
    let settings = config.clone();
    let find = Arc::new(move || capabilities::find(&settings));
    run_on(config, find, shutdown).await
}

/// As [`run`], on a host of which something else says what it can do.
///
/// # Errors
/// As [`run`].
pub async fn run_on(
    config: AgentConfig,
    find: FindCapabilities,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    run_in(config, Surroundings::host(find), shutdown).await
}

/// As [`run`], in surroundings that need not be a host's own.
///
/// # Errors
/// As [`run`].
pub async fn run_in(
    config: AgentConfig,
    surroundings: Surroundings,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if !(1..=100).contains(&config.name.len()) || !config.name.bytes().all(is_plain) {
        return Err(AgentError::Name(config.name));
    }
    let mut config = config;
    let dir = &config.data_dir;
    fs::create_dir_all(dir).map_err(failed("make the data folder", dir))?;
    // Runners get it as an argument and work elsewhere.
    config.data_dir = fs::canonicalize(dir).map_err(failed("find the data folder", dir))?;
    let lock = lock(&config.data_dir)?;
    let agent = agent_id(&config.data_dir)?;
    if privilege::is_root()
        && let Some(user) = privilege::unprivileged_user()
        && let Err(error) = share_templates(&config.cache_dir, &user)
    {
        tracing::warn!(%error, cache = %config.cache_dir.display(), "each job runs initdb: no folder for templates");
    }
    tracing::info!(%agent, name = config.name, data = %config.data_dir.display(), "agent starts");
    Daemon::adopt(config, agent, surroundings)?.run(shutdown).await;
    tracing::info!("agent ends");
    drop(lock);
    Ok(())
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AgentError {
    let path = path.to_owned();
    move |source| AgentError::DataDir { doing, path, source }
}

/// Runners keep cluster templates in the cache; those of an agent that is root run as `user`, who may not write there otherwise.
fn share_templates(cache_dir: &Path, user: &User) -> io::Result<()> {
    let templates = cache_dir.join("templates");
    fs::create_dir_all(&templates)?;
    std::os::unix::fs::chown(&templates, Some(user.uid), Some(user.gid))
}

/// One agent at a time. The lock ends with the file, whatever ends the process.
fn lock(data_dir: &Path) -> Result<File, AgentError> {
    let path = data_dir.join("agent.lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed("open the lock", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // Best effort: for the message only.
            let _ = (&mut file).take(20).read_to_string(&mut holder);
            let holder = holder.trim();
            let holder = if holder.is_empty() { "unknown" } else { holder }.to_owned();
            return Err(AgentError::Locked { path: data_dir.to_owned(), holder });
        }
        Err(error) => return Err(failed("lock", &path)(error.into())),
    }
    let write = |file: &mut File| -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(failed("write the lock", &path))?;
    Ok(file)
}

/// Issued at the first start, and kept.
fn agent_id(data_dir: &Path) -> Result<AgentId, AgentError> {
    let path = data_dir.join("agent-id");
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|source| AgentError::AgentId { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let agent = AgentId::issue();
            let partial = data_dir.join(".agent-id.partial");
            let write = || -> io::Result<()> {
                let mut file = File::create(&partial)?;
                writeln!(file, "{agent}")?;
                file.sync_all()?;
                fs::rename(&partial, &path)?;
                File::open(data_dir)?.sync_all()
            };
            write().map_err(failed("write", &path))?;
            Ok(agent)
        }
        Err(error) => Err(failed("read", &path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_keeps_its_id() {
        let data = tempfile::tempdir().unwrap();
        let agent = agent_id(data.path()).unwrap();
        assert_eq!(agent_id(data.path()).unwrap(), agent);
        fs::write(data.path().join("agent-id"), "x").unwrap();
        let said = agent_id(data.path()).unwrap_err().to_string();
        assert!(said.ends_with("remove it to join the fleet as a new agent"), "{said}");
    }

    #[test]
    fn runners_of_another_user_can_write_templates() {
        use std::os::unix::fs::MetadataExt;
        let cache = tempfile::tempdir().unwrap();
        let own = rustix::process::geteuid().as_raw();
        // Root gives it to somebody else; anybody else can only give it to himself.
        let uid = if own == 0 { 65_533 } else { own };
        let gid = if own == 0 { 65_533 } else { rustix::process::getegid().as_raw() };
        let user = User { name: "jobs".to_owned(), uid, gid };
        for _ in 0..2 {
            share_templates(cache.path(), &user).unwrap();
            let templates = fs::metadata(cache.path().join("templates")).unwrap();
            assert_eq!((templates.uid(), templates.gid()), (uid, gid));
            assert_eq!(templates.mode() & 0o700, 0o700);
        }
    }

    #[test]
    fn a_data_folder_takes_one_agent_and_names_it() {
        let data = tempfile::tempdir().unwrap();
        let first = lock(data.path()).unwrap();
        let said = lock(data.path()).unwrap_err().to_string();
        assert!(said.contains(&format!("(process {})", std::process::id())), "{said}");
        drop(first);
        lock(data.path()).unwrap();
    }
}
