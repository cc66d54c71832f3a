//! What a daemon stands on beside its settings: a host's own, or a simulation's.

use crate::link::runners::{HostRunners, Runners};
use pgsoak_proto::session::Capabilities;
use std::{fmt, future::Future, io, pin::Pin, sync::Arc, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};

/// Finds out what the host can do. Blocking.
pub type FindCapabilities = Arc<dyn Fn() -> Capabilities + Send + Sync>;

/// A connection to the coordinator.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// A connection that is being made.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Connection>>> + Send>>;

/// Makes a connection to the coordinator.
pub type Dial = Arc<dyn Fn() -> Connecting + Send + Sync>;

/// Between two looks at a runner, its progress and its spool.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// All of it. Cheap to clone.
#[derive(Clone)]
pub struct Surroundings {
    /// What the host can do.
    pub find: FindCapabilities,
    /// Who runs jobs.
    pub runners: Arc<dyn Runners>,
    /// The way to the coordinator; `None`: the one that the settings name.
    pub dial: Option<Dial>,
    /// Between two looks at a runner, its progress and its spool.
    pub look_every: Duration,
}

// === impl Surroundings ===

impl Surroundings {
    /// A host of which something says what it can do.
    pub fn host(find: FindCapabilities) -> Self {
        Self { find, runners: Arc::new(HostRunners), dial: None, look_every: LOOK_EVERY }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("look_every", &self.look_every).finish_non_exhaustive()
    }
}
