//! What a coordinator needs to know to start.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Checked settings of one coordinator.
#[derive(Clone, Debug, PartialEq)]
pub struct CoordinatorConfig {
    /// Catalogue, runs and artifacts. One coordinator at a time: it is locked.
    pub data_dir: PathBuf,
    /// TCP address; port 0 takes a free one; `None`: no TCP.
    pub listen: Option<SocketAddr>,
    /// Unix socket beside it; `None`: none.
    pub socket: Option<PathBuf>,
    /// How often agents send a heartbeat.
    pub heartbeat_every: Duration,
    /// Silence after which an agent counts as unreachable.
    pub lease_ttl: Duration,
    /// Where pages, metrics and health are (HTTP).
    pub http: HttpListen,
}

/// Where the HTTP listener is; port 0 takes a free one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HttpListen {
    /// Nowhere: no pages, no metrics, no health.
    Off,
    /// Here, if the address is free: a second coordinator on a host starts without pages, and says so.
    IfFree(SocketAddr),
    /// Here, or the coordinator does not start.
    At(SocketAddr),
}

// === impl CoordinatorConfig ===

impl CoordinatorConfig {
    /// The usual settings on a data folder; listens nowhere.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen: None,
            socket: None,
            heartbeat_every: Duration::from_secs(5),
            lease_ttl: Duration::from_secs(30),
            http: HttpListen::Off,
        }
    }
}
