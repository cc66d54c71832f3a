//! Decides what to do about the fleet and the queue. Decides only: `engine` carries it out.
//!
//! No clock and no I/O: a whole snapshot and a time come in, steps go out. The first look after a restart and the
//! thousandth in a quiet week run the same code.

pub mod arms;
pub mod baseline;
pub mod calendar;
pub mod estimate;
pub mod find;
pub mod fitness;
pub mod forecast;
pub mod held;
pub mod liveness;
pub mod place;
pub mod retention;
pub mod retry;
pub mod schedule;
pub mod stages;
pub mod standing;
