//! A bare coordinator on a Unix socket, for tests that kill one: `coordinator DATA_DIR SOCKET`.
//!
//! Says `ready` on its output when it listens; ends at SIGTERM.

use pgsoak_coordinator::app;
use pgsoak_coordinator::config::CoordinatorConfig;
use std::{error::Error, io::Write as _, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(data_dir), Some(socket)) = (arguments.next(), arguments.next()) else {
        return Err("usage: coordinator DATA_DIR SOCKET".into());
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let running = app::start(CoordinatorConfig {
        socket: Some(socket.into()),
        heartbeat_every: Duration::from_millis(500),
        lease_ttl: Duration::from_secs(2),
        ..CoordinatorConfig::new(data_dir)
    })
    .await?;
    writeln!(std::io::stdout(), "ready")?;
    tokio::select! {
        _ = terminate.recv() => {}
        () = running.failed() => {}
    }
    running.shutdown().await;
    Ok(())
}
