//! Everything random of a world comes from here, and all of it from the seed (splitmix64).

use std::time::Duration;

/// A source of chance. The same seed, the same throws.
#[derive(Clone, Debug)]
pub struct Dice(u64);

// === impl Dice ===

impl Dice {
    /// Of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x5851_f42d_4c95_7f2d)
    }

    /// Another source, for a part whose throws are its own.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`; 0 for 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// Once in so many throws.
    pub fn one_in(&mut self, throws: u64) -> bool {
        self.below(throws) == 0
    }

    /// Seconds from `least` up to `most`.
    pub fn seconds(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_secs(least + self.below(most - least + 1))
    }

    /// From `least` to `most` seconds, each order of magnitude as likely as the next: many short ones, some that last hours.
    pub fn spread(&mut self, least: u64, most: u64) -> Duration {
        let doublings = (most / least.max(1)).max(1).ilog2();
        let floor = least << self.below(u64::from(doublings) + 1);
        self.seconds(floor, (floor * 2).min(most).max(floor))
    }

    /// Sixteen bytes.
    pub fn id(&mut self) -> [u8; 16] {
        (u128::from(self.next()) << 64 | u128::from(self.next())).to_be_bytes()
    }
}
