//! `pgsoak agent`: the daemon, until SIGINT or SIGTERM; SIGHUP reads its settings again. Its jobs go on; the next daemon on the folder takes them over.

use crate::exit;
use crate::settings::{Daemon, agent, resolve};
use crate::verbs;
use crate::verbs::coordinator::{begin_log, given, reloads, stop_asked};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// `agent`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example:\n  pgsoak agent --coordinator http://127.0.0.1:7420 --data-dir /var/lib/pgsoak/agent --name a --label zone=lab"
)]
pub struct AgentArgs {
    /// The hidden verb of the runner.
    #[command(subcommand)]
    pub inner: Option<AgentInner>,
    /// Settings, TOML (`pgsoak config example agent`). Default: /etc/pgsoak/agent.toml, where there is one.
    #[arg(long, env = "PGSOAK_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The coordinator: http://HOST:PORT or unix:PATH. Default: http://127.0.0.1:7420. [env: PGSOAK_COORDINATOR]
    #[arg(long, value_name = "URL")]
    pub coordinator: Option<String>,
    /// The agent's id and its jobs' folders. Default: /var/lib/pgsoak/agent for root, else ~/.local/share/pgsoak/agent. [env:
    /// PGSOAK_AGENT_DATA]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Its name in the fleet. Default: the host's name. [env: PGSOAK_AGENT_NAME]
    #[arg(long)]
    pub name: Option<String>,
    /// Jobs at once. Default: the number of usable cores. [env: PGSOAK_SLOTS]
    #[arg(long, value_name = "N")]
    pub slots: Option<String>,
    /// A label that plans may ask for (may be given again). [env: PGSOAK_LABELS]
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// A further pg_config to offer (may be given again); those in the usual places are found. [env: PGSOAK_PG_CONFIGS]
    #[arg(long, value_name = "PATH")]
    pub pg_config: Vec<String>,
}

/// Verbs of `agent` that the daemon calls itself.
#[derive(Debug, Subcommand)]
pub enum AgentInner {
    /// Run the job of a folder. The daemon starts this; it is of no use by hand.
    #[command(hide = true)]
    RunJob {
        /// The job's folder.
        dir: PathBuf,
    },
}

pub async fn run(args: AgentArgs, log: Option<String>) -> anyhow::Result<u8> {
    let AgentArgs { inner: _, config, coordinator, data_dir, name, slots, label, pg_config } = args;
    let joined = |list: Vec<String>| (!list.is_empty()).then(|| list.join(","));
    let flags = given([
        ("coordinator", "--coordinator", coordinator),
        ("data_dir", "--data-dir", data_dir),
        ("name", "--name", name),
        ("slots", "--slots", slots),
        ("labels", "--label", joined(label)),
        ("pg_configs", "--pg-config", joined(pg_config)),
        ("log", "--log", log),
    ]);
    let settings = resolve::settings(Daemon::Agent, config.as_deref(), flags)?;
    let config = agent::config(&settings)?;
    begin_log(&settings)?;
    verbs::print(&format!(
        "agent: '{}', {} slots, coordinator {}, data in {}\n",
        config.name,
        config.slots,
        settings.text("coordinator")?.unwrap_or_default(),
        config.data_dir.display()
    ))?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let daemon = pgsoak_agent::app::run(config, shutdown);
    tokio::pin!(daemon);
    tokio::select! {
        ended = &mut daemon => {
            ended?;
            return Ok(exit::PASS);
        }
        asked = stop_asked() => asked?,
        failed = reloads(settings, async |settings| agent::config(settings).map(drop)) => failed?,
    }
    stop.cancel();
    daemon.await?;
    Ok(exit::PASS)
}
