//! `pgsoak agent`: the daemon, until SIGINT or SIGTERM. Its jobs go on; the next daemon on the folder takes them over.

use crate::args::AgentArgs;
use crate::embedded::{self, AgentOptions};
use crate::exit::{self, Coded};
use crate::folders;
use crate::verbs;
use crate::verbs::coordinator::stop_asked;
use pgsoak_agent::config::Endpoint;
use std::collections::BTreeMap;
use tokio_util::sync::CancellationToken;

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
