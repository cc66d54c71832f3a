//! `pgsoak coordinator`: the daemon, until SIGINT or SIGTERM; with `--check` a look at its data folder instead.

use crate::embedded;
use crate::exit;
use crate::folders;
use crate::verbs;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::{path::Path, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// `coordinator`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak coordinator --listen 127.0.0.1:7420 --data-dir /var/lib/pgsoak/coordinator\n  pgsoak coordinator --check --data-dir /srv/backups/monday    is everything there, as it was stored"
)]
pub struct CoordinatorArgs {
    /// TCP address to listen on. There is no authentication yet: keep it on loopback or a trusted network.
    #[arg(long, default_value = "127.0.0.1:7420", env = "PGSOAK_LISTEN", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Unix socket beside it. Default: `socket` in the data folder.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Catalogue, runs and artifacts. Default: /var/lib/pgsoak/coordinator for root, else ~/.local/share/pgsoak/coordinator.
    #[arg(long, env = "PGSOAK_COORDINATOR_DATA", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Start nothing: verify every record and frame of the data folder. Exit code 0: sound, 3: not.
    #[arg(long)]
    pub check: bool,
    /// With --check: for programs.
    #[arg(long, requires = "check")]
    pub json: bool,
}

/// Connections may take so long to end.
const GRACE: Duration = Duration::from_secs(10);

pub async fn run(args: CoordinatorArgs) -> anyhow::Result<u8> {
    let dir =
        args.data_dir.unwrap_or_else(|| folders::coordinator_dir(&folders::default_data_dir()));
    if args.check {
        return check(&dir, args.json).await;
    }
    let config = embedded::coordinator_config(&dir, Some(args.listen), args.socket);
    let running = pgsoak_coordinator::app::start(config).await?;
    if let Some(address) = running.tcp {
        verbs::print(&format!("coordinator: listening on http://{address}\n"))?;
    }
    if let Some(socket) = &running.socket {
        verbs::print(&format!("coordinator: listening on unix:{}\n", socket.display()))?;
    }
    verbs::print(&format!("coordinator: data in {}\n", dir.display()))?;
    tokio::select! {
        asked = stop_asked() => asked?,
        () = running.failed() => {
            anyhow::bail!("the coordinator cannot go on: its data in {} cannot be written (is the disk full?)", dir.display());
        }
    }
    if tokio::time::timeout(GRACE, running.shutdown()).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
    Ok(exit::PASS)
}

/// Every record and frame, counted and verified.
async fn check(dir: &Path, is_json: bool) -> anyhow::Result<u8> {
    let data = dir.to_owned();
    let looking = tokio::task::spawn_blocking(move || pgsoak_coordinator::app::check(&data));
    let checked = looking.await??;
    if is_json {
        verbs::print_json(&checked)?;
    } else {
        verbs::print(&format!(
            "catalogue: {} records ({} runs, {} jobs, {} results, {} agents)\nevidence: {} frames of {} attempts\nraw files: {}\n",
            checked.records,
            checked.runs,
            checked.jobs,
            checked.results,
            checked.agents,
            checked.frames,
            checked.attempts,
            checked.artifacts
        ))?;
        for note in &checked.notes {
            verbs::print(&format!("note: {note}\n"))?;
        }
        for problem in &checked.problems {
            verbs::print(&format!("problem: {problem}\n"))?;
        }
        let place = dir.display();
        verbs::print(&match checked.problems.len() {
            0 => format!("{place} is sound\n"),
            many => format!(
                "{place} has {many} problem(s): put a backup in its place, or start the coordinator on it: a damaged run is set aside and asked for again\n"
            ),
        })?;
    }
    Ok(if checked.problems.is_empty() { exit::PASS } else { exit::INVALID })
}

/// Until SIGINT or SIGTERM.
pub async fn stop_asked() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
