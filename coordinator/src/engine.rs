//! Carries decisions out: one task owns the state of all runs, jobs and agents; others talk to it through a handle.
//!
//! A request changes memory and notes what has to be written and said. Then everything noted is written at once, and
//! only when it is durable are messages sent and callers answered: nobody ever hears of a step that a crash could undo.

pub mod bundle;
pub mod census;
pub mod clock;
pub mod comparing;
pub mod expansion;
pub mod fleet;
pub mod handle;
pub mod housekeeping;
pub mod judging;
pub(crate) mod looking;
pub mod retention;
pub mod schedules;
pub mod stored;
pub mod task;

mod escalation;
mod look;
#[cfg(test)]
mod nights;
pub mod notices;
mod requests;
mod restore;
mod sessions;
#[cfg(test)]
mod simulation;
mod state;
mod views;
