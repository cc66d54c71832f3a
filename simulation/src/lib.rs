//! A fleet in virtual time: the real coordinator and real agents on a simulated network (turmoil), with scripted runners, and every
//! fault of network and hosts drawn from a seed. After every step the contracts are checked, at the end every sample.
//!
//! Real: the coordinator from its tonic server to sled; the agent's daemon from its session to its jobs' folders and spools; the
//! frames between them, byte for byte. Simulated: time, sockets, the runners' processes (a script writes the spool that a runner
//! would), people. What only a real machine has (disks that fill, sync, signals, `kill -9`) is in `make torture`.
//!
//! Floors, lowest first: `dice` · `shape` · `script` (what a runner does and writes) · `machine` (a host: runners that outlive the daemon) · `wire`
//! (turmoil's sockets under tonic) · `relay` (messages twice and out of order) · `people` (who submit and cancel) · `fleet` (everybody on the
//! network) · `faults` · `contracts` · `world`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a crate of tests: a failure here is the report"
)]

pub mod contracts;
pub mod dice;
pub mod faults;
pub mod fleet;
pub mod machine;
pub mod people;
pub mod relay;
pub mod script;
pub mod shape;
pub mod wire;
pub mod world;
