//! Wall time that never steps back while the process lives.

use crate::domain::time::UnixUs;
use serde::{Deserialize, Serialize};
use std::{fs, io, path::Path, time::SystemTime};
use tokio::time::Instant;
use tracing::warn;

/// A difference of the two clocks that counts as set. Far below every grace.
const SET_US: u64 = 60_000_000;

/// Turns this process's instants into wall time. Both clocks are read once.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    monotonic: Instant,
    wall: UnixUs,
    /// The host's wall clock does not count.
    is_shown: bool,
    /// It goes on where the last one on the same data folder stopped.
    is_continuous: bool,
    /// In microseconds since 1970; instead of the two.
    #[cfg(test)]
    simulated: Option<&'static std::sync::atomic::AtomicU64>,
}

/// Both clocks at one moment, of one start of the host.
#[derive(Debug, Deserialize, Serialize)]
struct Stamp {
    boot_id: String,
    since_boot_us: u64,
    wall_us: u64,
}

// === impl Stamp ===

impl Stamp {
    fn read(wall: UnixUs) -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let us = |seconds: i64, nanos: i64| {
            u64::try_from(seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000))
        };
        Self {
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .map(|id| id.trim().to_owned())
                .unwrap_or_default(),
            since_boot_us: us(time.tv_sec, time.tv_nsec).unwrap_or_default(),
            wall_us: wall.0,
        }
    }

    /// Whether nobody has set the wall clock between the two.
    fn leads_to(&self, later: &Self) -> bool {
        let Some(between) = later.since_boot_us.checked_sub(self.since_boot_us) else {
            return false;
        };
        self.boot_id == later.boot_id
            && !self.boot_id.is_empty()
            && self.wall_us.saturating_add(between).abs_diff(later.wall_us) < SET_US
    }
}

// === impl Clock ===

impl Clock {
    /// Reads both clocks.
    pub fn read() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: UnixUs::of(SystemTime::now()),
            is_shown: false,
            is_continuous: false,
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
        Self { simulated: Some(us), is_continuous: true, ..Self::read() }
    }

    /// Looks whether the wall clock was set since the last coordinator began on this data folder (on a host that has not restarted since),
    /// and notes how it stands now. Blocks.
    #[must_use]
    pub fn continuing(mut self, data_dir: &Path) -> Self {
        let path = data_dir.join("clock.json");
        let now = Stamp::read(self.wall);
        let before = fs::read(&path).ok().and_then(|json| serde_json::from_slice(&json).ok());
        self.is_continuous = before.is_some_and(|before: Stamp| before.leads_to(&now));
        let written = serde_json::to_vec(&now)
            .map_err(io::Error::other)
            .and_then(|json| fs::write(&path, json));
        if let Err(error) = written {
            // The next start then waits longer for hosts that are silent.
            warn!(path = %path.display(), %error, "how the clock stands cannot be noted");
        }
        self
    }

    /// Whether times from before this process can be compared with those of now.
    pub fn is_continuous(&self) -> bool {
        self.is_continuous
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_between_two_starts_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!Clock::read().continuing(folder.path()).is_continuous(), "nobody was here before");
        assert!(Clock::read().continuing(folder.path()).is_continuous());
        let hours_off = UnixUs(Clock::read().wall.0 + 3 * 3_600 * 1_000_000);
        assert!(!Clock::showing(hours_off).continuing(folder.path()).is_continuous());
        assert!(!Clock::read().continuing(folder.path()).is_continuous(), "and set back");
        assert!(Clock::read().continuing(folder.path()).is_continuous());
        fs::write(folder.path().join("clock.json"), "{").unwrap();
        assert!(!Clock::read().continuing(folder.path()).is_continuous());
    }

    #[test]
    fn another_start_of_the_host_tells_nothing() {
        let now = Stamp::read(UnixUs(5));
        let other = Stamp { boot_id: "another".to_owned(), ..Stamp::read(UnixUs(5)) };
        assert!(now.leads_to(&Stamp::read(UnixUs(6))) && !other.leads_to(&now));
    }
}
