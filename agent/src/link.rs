//! The daemon's work: the session with the coordinator, and one task for each attempt that the agent holds.
//!
//! Tasks: `daemon` owns the session and the list of attempts; each `job` owns one attempt from its folder to its release.
//! A job never waits for the coordinator: what cannot be sent stays in the spool.
//!
//! Channels: daemon → job, commands (bounded: a job that does not take them costs the session, which then starts again from
//! the spools); job → session, messages (bounded: evidence waits in the spool); job → daemon, a watched status.

mod clocks;
mod connect;
mod daemon;
mod guard;
mod job;
mod launch;
mod packages;
mod runners;
mod surroundings;

pub use daemon::Daemon;
pub use launch::LaunchError;
pub use packages::PackageFetchError;
pub use runners::{HostRunners, Runners, Started};
pub use surroundings::{Connecting, Connection, Dial, FindCapabilities, Surroundings};
