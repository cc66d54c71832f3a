//! The processes that run jobs, as the daemon sees them: started, watched, signalled, killed.
//!
//! On a host they are processes of its own ([`HostRunners`]). A simulation has scripted ones, which leave the same folders behind.

use crate::config::AgentConfig;
use crate::folder::{self, JobFolder, ProcessKey};
use crate::link::launch::{LaunchError, launch};
use pgsoak_proto::evidence::ClockOffset;
use pgsoak_proto::session::{Assignment, Capabilities};
use rustix::process::Signal;
use std::process::ExitStatus;
use std::{fmt, future::Future, os::unix::process::ExitStatusExt, path::Path, pin::Pin};

/// Runs jobs in processes that outlive the daemon.
pub trait Runners: Send + Sync + 'static {
    /// Makes the job's folder and starts its runner, which is told how the host's clock stands. Blocks, on the runtime.
    ///
    /// # Errors
    /// When the host cannot run the job; there is no folder then.
    fn launch(
        &self,
        config: &AgentConfig,
        capabilities: &Capabilities,
        assignment: Assignment,
        clock: Option<ClockOffset>,
    ) -> Result<(JobFolder, Started), LaunchError>;

    /// Whether the process runs.
    fn is_alive(&self, key: &ProcessKey) -> bool;

    /// Sends a signal to it and to nobody else; false: it is gone, or is not ours to signal.
    fn signal(&self, key: &ProcessKey, signal: Signal) -> bool;

    /// Every process that works in the folder.
    fn left_in(&self, folder: &Path) -> Vec<ProcessKey>;

    /// Kills every process that works in the folder, and waits until they are gone; gives those that will not go. Blocks.
    fn kill_left(&self, folder: &Path) -> Vec<ProcessKey>;
}

/// A runner that this daemon started.
pub struct Started {
    /// Who it is; `None`: it was gone at once.
    pub key: Option<ProcessKey>,
    /// Waits for its end, and says how it ended. Dropped, it leaves the runner alone.
    pub ended: Pin<Box<dyn Future<Output = String> + Send>>,
}

/// Real processes.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostRunners;

// === impl Started ===

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").field("key", &self.key).finish_non_exhaustive()
    }
}

// === impl HostRunners ===

impl Runners for HostRunners {
    fn launch(
        &self,
        config: &AgentConfig,
        capabilities: &Capabilities,
        assignment: Assignment,
        clock: Option<ClockOffset>,
    ) -> Result<(JobFolder, Started), LaunchError> {
        let (folder, mut child) = launch(config, capabilities, assignment, clock)?;
        let key = child.id().and_then(ProcessKey::of);
        let ended = Box::pin(async move {
            match child.wait().await {
                Ok(status) => said(status),
                Err(error) => format!("the runner cannot be waited for: {error}"),
            }
        });
        Ok((folder, Started { key, ended }))
    }

    fn is_alive(&self, key: &ProcessKey) -> bool {
        key.is_alive()
    }

    fn signal(&self, key: &ProcessKey, signal: Signal) -> bool {
        key.signal(signal)
    }

    fn left_in(&self, folder: &Path) -> Vec<ProcessKey> {
        folder::processes_left(folder)
    }

    fn kill_left(&self, folder: &Path) -> Vec<ProcessKey> {
        folder::kill_left(folder)
    }
}

fn said(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("the runner ended with exit code {code}"),
        (None, Some(signal)) => format!("the runner was killed by signal {signal}"),
        (None, None) => "the runner ended".to_owned(),
    }
}
