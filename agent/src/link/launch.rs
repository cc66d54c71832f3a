//! Starts runners: in the job's folder, as an unprivileged user when the agent is root, in a session of their own, so that
//! they outlive the daemon.

use crate::config::AgentConfig;
use crate::folder::{Assignment, FolderError, JobFolder, MARK, group};
use crate::link::packages::PackageFetchError;
use crate::privilege::{self, User};
use pgsoak_proto::job::PostgresRef;
use pgsoak_proto::session::{self, Capabilities};
use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::{Child, Command};

/// Why an agent cannot take a job. The text goes to the coordinator.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The agent has no such server.
    #[error("this host has no PostgreSQL {0}; install it, or start the agent with --pg-config")]
    NoServer(PostgresRef),
    /// The agent is root, and there is nobody else.
    #[error(
        "the agent is root and the host has neither a user 'postgres' nor 'nobody' for the server; run the agent as another user"
    )]
    NoUser,
    /// The user of the jobs cannot enter the agent's folder.
    #[error(
        "the user '{user}' of the jobs cannot reach {}: allow others to enter it (chmod o+x), or choose another --data-dir",
        path.display()
    )]
    Unreachable {
        /// The user.
        user: String,
        /// The folder that blocks.
        path: PathBuf,
    },
    /// The job's folder could not be made.
    #[error("the job's folder cannot be made")]
    Folder(#[from] FolderError),
    /// The program could not be copied to where the user reaches it.
    #[error("copy the runner's program to {}", path.display())]
    Copy {
        /// Where to.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The program could not be started.
    #[error("start the runner {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The package of its build is not there.
    #[error(transparent)]
    Package(#[from] PackageFetchError),
    /// The agent's settings name no program.
    #[error("the agent's settings name no program that runs a job")]
    NoRunner,
}

/// Makes the job's folder and starts its runner. Blocking file access, but must be called on the runtime.
///
/// # Errors
/// When the host cannot run the job; the folder is gone then.
pub(super) fn launch(
    config: &AgentConfig,
    capabilities: &Capabilities,
    assignment: session::Assignment,
) -> Result<(JobFolder, Child), LaunchError> {
    let session::Assignment { lease, spec } = assignment;
    let pg_config = pg_config(&spec.postgres, capabilities)?;
    let user = user()?;
    if let Some(user) = &user {
        privilege::reachable_by(user, &config.data_dir)
            .map_err(|path| LaunchError::Unreachable { user: user.name.clone(), path })?;
    }
    let (program, arguments) = program(config, user.as_ref())?;
    let assignment = Assignment { lease, spec, cache_dir: config.cache_dir.clone(), pg_config };
    let owner = user.as_ref().map(|user| (user.uid, user.gid));
    let folder = JobFolder::make(&config.data_dir, &assignment, owner)?;
    match start(&folder, &program, &arguments, user.as_ref()) {
        Ok(child) => Ok((folder, child)),
        Err(source) => {
            folder.remove()?;
            Err(LaunchError::Start { program, source })
        }
    }
}

fn pg_config(wish: &PostgresRef, capabilities: &Capabilities) -> Result<PathBuf, LaunchError> {
    match wish {
        PostgresRef::PgConfig(path) => Ok(path.clone()),
        PostgresRef::Major(major) => capabilities
            .postgres
            .iter()
            .find(|found| found.major == *major)
            .map(|found| found.pg_config.clone())
            .ok_or_else(|| LaunchError::NoServer(wish.clone())),
    }
}

/// Who the runner is; `None`: who the agent is.
fn user() -> Result<Option<User>, LaunchError> {
    if privilege::is_root() {
        privilege::unprivileged_user().ok_or(LaunchError::NoUser).map(Some)
    } else {
        Ok(None)
    }
}

/// The program, at a place that the user reaches, and its arguments.
fn program(
    config: &AgentConfig,
    user: Option<&User>,
) -> Result<(PathBuf, Vec<OsString>), LaunchError> {
    let (program, arguments) = config.runner.split_first().ok_or(LaunchError::NoRunner)?;
    let program = PathBuf::from(program);
    let arguments = arguments.to_vec();
    // What `setsid` cannot start it does not say here.
    if program.is_absolute()
        && let Err(source) = fs::metadata(&program)
    {
        return Err(LaunchError::Start { program, source });
    }
    match user {
        Some(user) if privilege::reachable_by(user, &program).is_err() => {
            let copied = copy(&program, &config.data_dir.join("bin"))?;
            Ok((copied, arguments))
        }
        _ => Ok((program, arguments)),
    }
}

/// One folder for each version of the program, with the libraries of ours that lie beside it: its name holds size and time
/// of the original.
fn copy(program: &Path, dir: &Path) -> Result<PathBuf, LaunchError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| LaunchError::Copy { path, source }
    };
    let original = fs::metadata(program).map_err(failed(program))?;
    let name = program.file_name().unwrap_or_default();
    let stamp = format!("{}-{}-{}", original.len(), original.mtime(), original.mtime_nsec());
    let target = dir.join(&stamp);
    if target.exists() {
        return Ok(target.join(name));
    }
    let partial = dir.join(format!(".{stamp}.partial"));
    fs::create_dir_all(&partial).map_err(failed(&partial))?;
    let beside = program.parent().and_then(|parent| fs::read_dir(parent).ok());
    let libraries =
        beside.into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            name.starts_with(b"libpgsoak_") && name.ends_with(b".so")
        });
    for file in libraries.chain([program.to_owned()]) {
        let copy = partial.join(file.file_name().unwrap_or_default());
        fs::copy(&file, &copy).map_err(failed(&copy))?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).map_err(failed(&copy))?;
    }
    fs::rename(&partial, &target).map_err(failed(&target))?;
    Ok(target.join(name))
}

fn start(
    folder: &JobFolder,
    program: &Path,
    arguments: &[OsString],
    user: Option<&User>,
) -> io::Result<Child> {
    let log_path = folder.path().join("runner.log");
    let log = fs::File::create(&log_path)?;
    // util-linux's program calls setsid(2) and becomes the runner, under the same pid: the standard library has no safe
    // way to do it. Without it the runner has at least a process group of its own.
    let (mut command, has_session) = match setsid() {
        Some(setsid) => {
            let mut command = Command::new(setsid);
            command.arg(program);
            (command, true)
        }
        None => (Command::new(program), false),
    };
    command
        .args(arguments)
        .arg(folder.path())
        .current_dir(folder.path())
        .env(MARK, folder.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(false);
    if !has_session {
        command.process_group(0);
    }
    if let Some(user) = user {
        std::os::unix::fs::chown(&log_path, Some(user.uid), Some(user.gid))?;
        command
            .uid(user.uid)
            .gid(user.gid)
            .env("HOME", folder.path())
            .env("USER", &user.name)
            .env("LOGNAME", &user.name);
    }
    let child = command.spawn()?;
    // It has not started anything yet: what it starts is in the group with it.
    if let (Some(group), Some(pid)) = (group::make(folder.path()), child.id())
        && !group::enter(&group, pid)
    {
        tracing::debug!(group = %group.display(), pid, "the runner is not in the job's cgroup");
    }
    Ok(child)
}

fn setsid() -> Option<PathBuf> {
    ["/usr/bin/setsid", "/bin/setsid"].into_iter().map(PathBuf::from).find(|path| path.exists())
}
