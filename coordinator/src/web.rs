//! The HTTP listener: health for supervisors and load balancers. Reads only: nothing that is asked here changes anything.
//!
//! A server of its own, so that neither browsers nor scrapers ever share a limit with agents.

mod health;

use crate::engine::handle::EngineHandle;
use axum::{Router, routing::get};
use std::{path::Path, sync::Arc};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// What the pages are made from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Web {
    pub(crate) engine: EngineHandle,
    /// For the probe of `/readyz`.
    pub(crate) data_dir: Arc<Path>,
    /// Ends streams.
    pub(crate) shutdown: CancellationToken,
    last_ready: Arc<health::LastReady>,
}

// === impl Web ===

impl Web {
    /// Over an engine, until the shutdown.
    pub fn new(engine: EngineHandle, data_dir: &Path, shutdown: CancellationToken) -> Self {
        Self { engine, data_dir: data_dir.into(), shutdown, last_ready: Arc::default() }
    }

    fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(health::healthz))
            .route("/readyz", get(health::readyz))
            .with_state(self)
    }
}

/// Serves until the shutdown, then until open requests are done.
pub async fn serve(web: Web, listener: TcpListener) {
    let shutdown = web.shutdown.clone();
    let served =
        axum::serve(listener, web.router()).with_graceful_shutdown(shutdown.cancelled_owned());
    if let Err(error) = served.await {
        warn!(%error, "the HTTP server ended badly");
    }
}
