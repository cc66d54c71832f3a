//! Wall time that never steps back while the process lives.

use crate::domain::time::UnixUs;
use std::time::SystemTime;
use tokio::time::Instant;

/// Turns this process's instants into wall time. Both clocks are read once.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    monotonic: Instant,
    wall: UnixUs,
    /// The host's wall clock does not count.
    is_shown: bool,
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
            is_shown: false,
            #[cfg(test)]
            simulated: None,
        }
    }

    /// Shows `wall` now.
    pub fn showing(wall: UnixUs) -> Self {
        Self { wall, is_shown: true, ..Self::read() }
    }

    /// A clock that somebody else moves.
    #[cfg(test)]
    pub(crate) fn simulated(us: &'static std::sync::atomic::AtomicU64) -> Self {
        Self { simulated: Some(us), ..Self::read() }
    }

    /// The wall clock as it is now: it may step both ways. For calendars alone.
    pub fn wall(&self) -> UnixUs {
        #[cfg(test)]
        if let Some(us) = self.simulated {
            return UnixUs(us.load(std::sync::atomic::Ordering::SeqCst));
        }
        if self.is_shown { self.now() } else { UnixUs::of(SystemTime::now()) }
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
