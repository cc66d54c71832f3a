//! Wall time that never steps back while the process lives.

use crate::domain::time::UnixUs;
use std::time::SystemTime;
use tokio::time::Instant;

/// Turns this process's instants into wall time. Both clocks are read once.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    monotonic: Instant,
    wall: UnixUs,
    /// In microseconds since 1970; instead of the two.
    #[cfg(test)]
    simulated: Option<&'static std::sync::atomic::AtomicU64>,
}

impl Clock {
    /// Reads both clocks.
    pub fn read() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: UnixUs::of(SystemTime::now()),
            #[cfg(test)]
            simulated: None,
        }
    }

    /// Shows `wall` now.
    pub fn showing(wall: UnixUs) -> Self {
        Self { wall, ..Self::read() }
    }

    /// A clock that somebody else moves.
    #[cfg(test)]
    pub(crate) fn simulated(us: &'static std::sync::atomic::AtomicU64) -> Self {
        Self { simulated: Some(us), ..Self::read() }
    }

    /// Now.
    pub fn now(&self) -> UnixUs {
        #[cfg(test)]
        if let Some(us) = self.simulated {
            return UnixUs(us.load(std::sync::atomic::Ordering::SeqCst));
        }
        self.wall.plus(self.monotonic.elapsed())
    }
}
