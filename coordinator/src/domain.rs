//! What the coordinator knows about runs, jobs and agents: states, steps between them, durable records. Pure.

pub mod alert;
pub mod build;
pub mod fleet;
pub mod history;
pub mod job;
pub mod limits;
pub mod notice;
pub mod record;
pub mod run;
pub mod schedule;
pub mod short_id;
pub mod time;
