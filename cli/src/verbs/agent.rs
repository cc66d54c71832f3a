//! `pgsoak agent`: the daemon, until SIGINT or SIGTERM. Its jobs go on; the next daemon on the folder takes them over.

use crate::embedded::{self, AgentOptions};
use crate::exit::{self, Coded};
use crate::folders;
use crate::verbs;
use crate::verbs::coordinator::stop_asked;
use clap::{Args, Subcommand};
use pgsoak_agent::config::Endpoint;
use std::collections::BTreeMap;
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
    /// The coordinator: http://HOST:PORT or unix:PATH.
    #[arg(
        long,
        env = "PGSOAK_COORDINATOR",
        default_value = "http://127.0.0.1:7420",
        value_name = "URL"
    )]
    pub coordinator: String,
    /// The agent's id and its jobs' folders. Default: /var/lib/pgsoak/agent for root, else ~/.local/share/pgsoak/agent.
    #[arg(long, env = "PGSOAK_AGENT_DATA", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Its name in the fleet. Default: the host's name.
    #[arg(long, env = "PGSOAK_AGENT_NAME")]
    pub name: Option<String>,
    /// Jobs at once. Default: the number of usable cores.
    #[arg(long, value_name = "N")]
    pub slots: Option<u32>,
    /// A label that plans may ask for (may be given again).
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// A further pg_config to offer (may be given again); those in the usual places are found.
    #[arg(long, value_name = "PATH")]
    pub pg_config: Vec<PathBuf>,
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

pub async fn run(args: AgentArgs) -> anyhow::Result<u8> {
    let AgentArgs { inner: _, coordinator, data_dir, name, slots, label, pg_config } = args;
    let dir = data_dir.unwrap_or_else(|| folders::agent_dir(&folders::default_data_dir()));
    if slots == Some(0) {
        return Err(Coded::usage("--slots 0: an agent takes at least one job at once").into());
    }
    let options = AgentOptions {
        name,
        slots,
        labels: labels(&label)?,
        pg_configs: pg_config,
        stop_jobs_on_shutdown: false,
    };
    let config = embedded::agent_config(&dir, endpoint(&coordinator)?, options)?;
    verbs::print(&format!(
        "agent: '{}', {} slots, coordinator {coordinator}, data in {}\n",
        config.name,
        config.slots,
        dir.display()
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
    }
    stop.cancel();
    daemon.await?;
    Ok(exit::PASS)
}

/// `http://HOST:PORT` or `unix:PATH`.
fn endpoint(url: &str) -> anyhow::Result<Endpoint> {
    if let Some(path) = url.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(Endpoint::Unix(path.into()));
    }
    if url.starts_with("http://") {
        return Ok(Endpoint::Tcp(url.to_owned()));
    }
    Err(Coded::usage(format!("coordinator '{url}' is neither http://HOST:PORT nor unix:PATH"))
        .into())
}

fn labels(given: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    given
        .iter()
        .map(|label| match label.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Coded::usage(format!("label '{label}' is not KEY=VALUE")).into()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_endpoints_are_checked() {
        assert_eq!(labels(&["zone=lab".to_owned()]).unwrap()["zone"], "lab");
        assert!(labels(&["zone".to_owned()]).is_err());
        assert!(endpoint("ftp://x").is_err());
        assert_eq!(endpoint("unix:/s").unwrap(), Endpoint::Unix("/s".into()));
    }
}
