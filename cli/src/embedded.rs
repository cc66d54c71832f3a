//! A coordinator, and where asked an agent, inside this process. They talk gRPC over a Unix socket like any others.

use crate::connect::Channel;
use crate::connect::{self, Control};
use crate::folders;
use pgsoak_agent::config::{AgentConfig, Endpoint};
use pgsoak_coordinator::{config::CoordinatorConfig, domain::limits::Limits};
use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Parts that run inside this process until [`Embedded::stop`].
pub struct Embedded {
    coordinator: pgsoak_coordinator::app::Running,
    agent: Option<JoinHandle<Result<(), pgsoak_agent::app::AgentError>>>,
    shutdown: CancellationToken,
    url: String,
}

/// What an agent is told beside its folder and its coordinator.
#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    /// Its name; default: the host's.
    pub name: Option<String>,
    /// Jobs at once; default: usable cores.
    pub slots: Option<u32>,
    /// What plans may ask for.
    pub labels: BTreeMap<String, String>,
    /// Further `pg_config`s.
    pub pg_configs: Vec<PathBuf>,
    /// End all jobs when the daemon ends (`pgsoak run`), or leave them to the next one.
    pub stop_jobs_on_shutdown: bool,
}

/// The settings of an agent on `dir`.
///
/// # Errors
///
/// When this program's own path cannot be found out.
pub fn agent_config(
    dir: &Path,
    coordinator: Endpoint,
    options: AgentOptions,
) -> anyhow::Result<AgentConfig> {
    let AgentOptions { name, slots, labels, pg_configs, stop_jobs_on_shutdown } = options;
    let this = env::current_exe()?;
    Ok(AgentConfig {
        coordinator,
        data_dir: dir.to_owned(),
        cache_dir: folders::cache_dir(),
        name: name.unwrap_or_else(host_name),
        slots: slots.unwrap_or_else(cores),
        labels,
        runner: vec![this.into_os_string(), OsString::from("agent"), OsString::from("run-job")],
        pg_configs,
        stop_jobs_on_shutdown,
        token: None,
        max_load_percent: None,
    })
}

impl Embedded {
    /// A coordinator on the data folder, to read from it.
    ///
    /// # Errors
    ///
    /// As the coordinator says; names the folder.
    pub async fn reader(data: &Path) -> anyhow::Result<Self> {
        let dir = folders::coordinator_dir(data);
        anyhow::ensure!(
            dir.is_dir(),
            "{} holds no runs (there is no {})",
            data.display(),
            dir.display()
        );
        Self::coordinator(data).await
    }

    async fn coordinator(data: &Path) -> anyhow::Result<Self> {
        let dir = folders::coordinator_dir(data);
        let socket = folders::socket_of(&dir);
        let config =
            CoordinatorConfig { socket: Some(socket.clone()), ..CoordinatorConfig::new(&dir) };
        // The one agent is here or not at all: what it lacks will not come.
        let limits = Limits { unplaceable_after: Duration::ZERO, ..Limits::default() };
        let coordinator = pgsoak_coordinator::app::start_with(config, limits).await?;
        Ok(Self {
            coordinator,
            agent: None,
            shutdown: CancellationToken::new(),
            url: format!("unix:{}", socket.display()),
        })
    }

    /// A coordinator and an agent on the data folder.
    ///
    /// # Errors
    ///
    /// As they say; names the folder.
    pub async fn with_agent(data: &Path, options: AgentOptions) -> anyhow::Result<Self> {
        let mut embedded = Self::coordinator(data).await?;
        let dir = folders::coordinator_dir(data);
        let endpoint = Endpoint::Unix(folders::socket_of(&dir));
        let config = agent_config(&folders::agent_dir(data), endpoint, options)?;
        let shutdown = embedded.shutdown.clone();
        embedded.agent = Some(tokio::spawn(pgsoak_agent::app::run(config, shutdown)));
        Ok(embedded)
    }

    /// A client of the coordinator.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn control(&self) -> anyhow::Result<Control> {
        connect::connect(&self.url).await
    }

    /// A connection to the coordinator, for every service.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn channel(&self) -> anyhow::Result<Channel> {
        connect::channel(&self.url).await
    }

    /// Waits until the agent has ended by itself, which it does only when it cannot go on.
    pub async fn agent_failure(&mut self) -> anyhow::Error {
        match &mut self.agent {
            None => std::future::pending().await,
            Some(agent) => {
                let ended = agent.await;
                self.agent = None;
                match ended {
                    Ok(Ok(())) => anyhow::anyhow!("the agent has ended"),
                    Ok(Err(error)) => anyhow::Error::new(error).context("the agent cannot go on"),
                    Err(error) => anyhow::anyhow!("the agent has died: {error}"),
                }
            }
        }
    }

    /// Ends both, the agent first, and waits for them.
    ///
    /// # Errors
    ///
    /// As the parts say when they cannot end cleanly.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        let agent = match self.agent {
            Some(agent) => agent
                .await
                .map_err(anyhow::Error::new)
                .and_then(|end| end.map_err(anyhow::Error::new)),
            None => Ok(()),
        };
        self.coordinator.shutdown().await;
        agent
    }
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .take(100)
        .collect();
    if name.is_empty() { "agent".to_owned() } else { name }
}

fn cores() -> u32 {
    thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}
