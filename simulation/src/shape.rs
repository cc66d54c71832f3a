//! How large a world is, and how bad.

use std::time::Duration;

/// A world without its seed.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Hosts with an agent each.
    pub agents: u64,
    /// Runs that people submit while there are faults.
    pub runs: u64,
    /// Jobs of a run, at most.
    pub jobs: u64,
    /// How long there are faults; after that everything must come to its end.
    pub faults_for: Duration,
    /// Longest time that a runner works.
    pub longest: Duration,
    /// A fault of a kind for each host in so many looks (30 s); 0: none ever.
    pub rate: u64,
    /// Of virtual time: messages take at least one.
    pub tick: Duration,
    /// Between two readings of a scripted runner.
    pub sample_every: Duration,
    /// Between two heartbeats.
    pub heartbeat_every: Duration,
}

/// Between two looks of the world at itself: faults, runners, contracts.
pub const LOOK: Duration = Duration::from_secs(30);

impl Shape {
    /// Six hosts for three hours: many of these are quick.
    pub const SMALL: Self = Self {
        agents: 6,
        runs: 4,
        jobs: 10,
        faults_for: Duration::from_secs(3 * 3_600),
        longest: Duration::from_secs(5_400),
        rate: 120,
        tick: Duration::from_secs(1),
        sample_every: Duration::from_secs(5),
        heartbeat_every: Duration::from_secs(15),
    };

    /// Twenty hosts for a day, with jobs of up to 20 hours.
    pub const DAY: Self = Self {
        agents: 20,
        runs: 10,
        jobs: 20,
        faults_for: Duration::from_secs(24 * 3_600),
        longest: Duration::from_secs(20 * 3_600),
        rate: 400,
        tick: Duration::from_secs(5),
        sample_every: Duration::from_secs(10),
        heartbeat_every: Duration::from_secs(60),
    };

    /// The job's hard end: above every script but those that hang.
    pub fn hard_end(&self) -> Duration {
        self.longest + self.longest / 4
    }
}
