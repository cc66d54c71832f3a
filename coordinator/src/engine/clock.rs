//! Wall time that never steps back while the process lives.

use crate::domain::time::UnixUs;
use std::time::SystemTime;
use tokio::time::Instant;

/// Turns this process's instants into wall time. Both clocks are read once.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    monotonic: Instant,
    wall: UnixUs,
}

impl Clock {
    /// Reads both clocks.
    pub fn read() -> Self {
        Self { monotonic: Instant::now(), wall: UnixUs::of(SystemTime::now()) }
    }

    /// Now.
    pub fn now(&self) -> UnixUs {
        self.wall.plus(self.monotonic.elapsed())
    }
}
