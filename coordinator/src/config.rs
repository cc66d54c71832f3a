//! What a coordinator needs to know to start.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Checked settings of one coordinator.
#[derive(Clone, Debug)]
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
}
