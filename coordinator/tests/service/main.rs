//! The coordinator as agents and people meet it: real tonic on a Unix socket, a scripted agent.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of a test; a failure here is the report"
)]

mod builds;
mod bundles;
mod cancel;
mod crash;
mod fleet;
mod history;
mod history_pages;
mod leases;
mod looks;
mod notices;
mod pages;
mod people;
mod schedules;
mod scripted;
mod sealing;
mod way;
