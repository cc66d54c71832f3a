//! `/healthz`: the process answers. `/readyz`: the engine does too, and the data folder takes a durable write.
//!
//! The engine ends by itself when its catalogue cannot be written; the write here shows a full or read-only disk before it does.

use crate::web::Web;
use axum::{extract::State, http::StatusCode};
use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    time::{Duration, Instant},
};
use tokio::{sync::Mutex, time::timeout};

/// An engine or a disk that needs longer is not ready.
const PATIENCE: Duration = Duration::from_secs(5);
/// Probes that come faster get the last answer: nobody can make the disk busy by asking.
const FRESH: Duration = Duration::from_secs(1);

/// The last answer, and when it was found out.
pub(super) type LastReady = Mutex<Option<(Instant, Result<(), String>)>>;

/// Whether this process is worth keeping.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether it does its work; what it lacks otherwise, with 503.
pub(super) async fn readyz(State(web): State<Web>) -> (StatusCode, String) {
    let mut last = web.last_ready.lock().await;
    let fresh =
        last.as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, found)| found.clone());
    let found = match fresh {
        Some(found) => found,
        None => {
            let found = ready(&web).await;
            *last = Some((Instant::now(), found.clone()));
            found
        }
    };
    match found {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(lacks) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {lacks}\n")),
    }
}

async fn ready(web: &Web) -> Result<(), String> {
    match timeout(PATIENCE, web.services.engine.agents()).await {
        Ok(Ok(_)) => {}
        Ok(Err(gone)) => return Err(gone.to_string()),
        Err(_) => return Err(format!("the engine does not answer within {PATIENCE:?}")),
    }
    let data = web.data_dir.clone();
    let shown = data.display().to_string();
    let writing = tokio::task::spawn_blocking(move || write(&data));
    match timeout(PATIENCE, writing).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(format!("{shown} cannot be written: {error}")),
        Ok(Err(error)) => Err(format!("{shown} cannot be written: {error}")),
        Err(_) => Err(format!("{shown} takes no write within {PATIENCE:?}")),
    }
}

fn write(data: &Path) -> io::Result<()> {
    let mut file = File::create(data.join("ready-probe"))?;
    // A full disk takes a byte more readily than a block.
    file.write_all(&[b'.'; 4_096])?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_gone_is_not_ready() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        write(folder.path()).unwrap();
        assert!(write(&folder.path().join("no")).is_err());
    }
}
