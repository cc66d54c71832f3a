//! The HTTP listener: pages, metrics, health. Reads only: nothing that is asked here changes anything.
//!
//! A server of its own, so that neither browsers nor scrapers share a limit with agents. Pages are made here, by maud, which
//! escapes; styles and the one script come from this binary, and the policy of every answer allows nothing from elsewhere.

mod agents;
mod compare;
mod files;
mod health;
mod metrics;
mod page;
mod run;
mod runs;
mod schedules;
mod trend;

use crate::rpc::server::Services;
use axum::{
    Router,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Redirect},
    routing::get,
};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tracing::warn;

/// Requests in work at once; more wait.
const REQUESTS: usize = 64;
/// After the shutdown began, streams end by themselves; what is still open after this is cut off.
const DRAIN: Duration = Duration::from_secs(2);

/// In every answer that does not say otherwise.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// What the pages are made from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Web {
    pub(crate) services: Services,
    /// For the probe of `/readyz`.
    pub(crate) data_dir: Arc<Path>,
    last_ready: Arc<health::LastReady>,
}

// === impl Web ===

impl Web {
    /// Over the same engine and store as the services.
    pub fn new(services: Services, data_dir: &Path) -> Self {
        Self { services, data_dir: data_dir.into(), last_ready: Arc::default() }
    }

    fn router(self) -> Router {
        let mut router = Router::new()
            .route("/", get(|| async { Redirect::to("/runs") }))
            .route("/runs", get(runs::runs))
            .route("/runs/{run}", get(run::run))
            .route("/runs/{run}/live", get(run::live))
            .route("/runs/{run}/{report}", get(files::report))
            .route("/runs/{run}/artifacts/{job}/{attempt}/{name}", get(files::artifact))
            .route("/agents", get(agents::agents))
            .route("/schedules", get(schedules::schedules))
            .route("/trend", get(trend::trend))
            .route("/compare", get(compare::compare))
            .route("/metrics", get(metrics::metrics))
            .route("/healthz", get(health::healthz))
            .route("/readyz", get(health::readyz))
            .route(
                "/assets/style.css",
                get(|| asset("text/css", include_str!("web/assets/style.css"))),
            )
            .route(
                "/assets/live.js",
                get(|| asset("text/javascript", include_str!("web/assets/live.js"))),
            )
            .fallback(|| async { page::Trouble::nowhere() })
            .with_state(self)
            .layer(GlobalConcurrencyLimitLayer::new(REQUESTS));
        for (name, value) in HEADERS {
            let value = HeaderValue::from_static(value);
            router = router.layer(SetResponseHeaderLayer::if_not_present(name, value));
        }
        router
    }
}

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=300")], text)
}

/// Serves until the shutdown, then for a moment, until open requests are done.
pub async fn serve(web: Web, listener: TcpListener) {
    let shutdown = web.services.shutdown.clone();
    let served = axum::serve(listener, web.router())
        .with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let late = async {
        shutdown.cancelled().await;
        // Browsers keep connections open that nothing is asked on.
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        ended = served => if let Err(error) = ended {
            warn!(%error, "the HTTP server ended badly");
        },
        () = late => {}
    }
}
