//! `pgsoak coordinator`: the daemon, until SIGINT or SIGTERM.

use crate::args::CoordinatorArgs;
use crate::embedded;
use crate::exit;
use crate::folders;
use crate::verbs;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Connections may take so long to end.
const GRACE: Duration = Duration::from_secs(10);

pub async fn run(args: CoordinatorArgs) -> anyhow::Result<u8> {
    let dir =
        args.data_dir.unwrap_or_else(|| folders::coordinator_dir(&folders::default_data_dir()));
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
