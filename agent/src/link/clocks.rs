//! The host's wall clock against the coordinator's, by heartbeats and their answers.
//!
//! The coordinator answered between sending and hearing: taken as the middle, the offset is wrong by half of the round trip at most. Nothing
//! is set by it; evidence says how the clocks stood.

use pgsoak_proto::evidence::ClockOffset;
use std::{
    collections::VecDeque,
    time::{SystemTime, UNIX_EPOCH},
};

/// Answers that are remembered.
const REMEMBERED: usize = 8;

/// A round trip that says too little, microseconds.
const SLOW_US: u64 = 60_000_000;

/// The last answers.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    compared: VecDeque<ClockOffset>,
}

impl Clocks {
    /// An answer: when the heartbeat was sent and the answer was heard by this host, when it was given by the coordinator, all in
    /// microseconds since 1970.
    pub(super) fn compare(&mut self, sent_us: u64, answered_us: u64, heard_us: u64) {
        // A clock that was set back in between tells nothing.
        let Some(trip) = heard_us.checked_sub(sent_us).filter(|trip| *trip <= SLOW_US) else {
            return;
        };
        let here = sent_us.saturating_add(trip / 2);
        let apart = i64::try_from(here.abs_diff(answered_us)).unwrap_or(i64::MAX);
        let now = ClockOffset {
            ahead_us: if here < answered_us { -apart } else { apart },
            within_us: trip.div_ceil(2),
        };
        // What cannot be true at the same time was true before one of the clocks was set.
        self.compared.retain(|before| {
            before.ahead_us.abs_diff(now.ahead_us) <= before.within_us.saturating_add(now.within_us)
        });
        self.compared.push_back(now);
        if self.compared.len() > REMEMBERED {
            self.compared.pop_front();
        }
    }

    /// The closest of the last comparisons; `None`: there was none.
    pub(super) fn offset(&self) -> Option<ClockOffset> {
        self.compared.iter().min_by_key(|compared| compared.within_us).copied()
    }
}

/// This host's wall clock, microseconds since 1970.
pub(super) fn wall_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quickest_answer_tells_the_offset() {
        let mut clocks = Clocks::default();
        assert_eq!(clocks.offset(), None);
        clocks.compare(10_000_000, 7_050_000, 10_200_000);
        clocks.compare(20_000_000, 17_001_000, 20_002_000);
        clocks.compare(30_000_000, 27_300_000, 30_400_000);
        assert_eq!(clocks.offset(), Some(ClockOffset { ahead_us: 3_000_000, within_us: 1_000 }));
    }

    #[test]
    fn a_clock_that_was_set_leaves_nothing_of_before() {
        let mut clocks = Clocks::default();
        clocks.compare(10_000_000, 10_001_000, 10_002_000);
        clocks.compare(90_000_000, 20_000_000, 90_500_000);
        assert_eq!(clocks.offset(), Some(ClockOffset { ahead_us: 70_250_000, within_us: 250_000 }));
    }

    #[test]
    fn what_comes_back_before_it_went_or_too_late_tells_nothing() {
        let mut clocks = Clocks::default();
        clocks.compare(10_000_000, 10_000_000, 9_000_000);
        clocks.compare(10_000_000, 10_000_000, 90_000_000);
        clocks.compare(0, u64::MAX, 0);
        let far = clocks.offset().expect("the third one counts");
        assert_eq!((far.ahead_us, far.within_us), (-i64::MAX, 0));
    }
}
