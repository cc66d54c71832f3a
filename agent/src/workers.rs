//! The workload engine's parts: sessions, workers that do operations, readings of contexts, pace and rounds.
//!
//! The runner drives them: it decides when a round begins, reads workers at rest between rounds and writes the evidence.
//! Nothing here knows of tools, frames or the job's folder.
//!
//! - `failure`: why work did not come to its end
//! - `pace`, `rounds`: when operations are due, how many rounds there are (no I/O)
//! - `session`, `rest`: a connection, and what its backend says of itself
//! - `worker`: a session that does the operations of a loop phase

pub mod failure;
pub mod pace;
pub mod rest;
pub mod rounds;
pub mod session;
pub mod worker;
