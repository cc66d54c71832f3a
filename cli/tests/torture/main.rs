//! Torture with real processes: `kill -9` at random times, cut networks, full and read-only disks, stopped processes, clocks
//! that jump, memory that runs out. Each fault has an outcome and a sentence, nothing is lost, nothing is left behind, nothing hangs.
//!
//! Needs root, iproute2, strace and PostgreSQL 15 (`make setup`). What is missing fails with a sentence; nothing is skipped.
//! `PGSOAK_KILLS` says how many kills (10), `PGSOAK_SEED` repeats a run's times.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "helpers of tests; a failure here is the report"
)]

mod backup;
mod clock;
mod disks;
mod durability;
mod evidence;
mod fleet;
mod hosts;
mod kills;
mod memory;
mod night;
mod stops;
#[path = "../soak/support.rs"]
#[allow(dead_code, reason = "the soak tests use the rest of it")]
mod support;
