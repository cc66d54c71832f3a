//! What people see: tables of a result, live progress.

pub mod comparison;
pub mod progress;
pub mod releases;
pub mod result;
pub mod runs;
pub mod schedules;
pub mod screen;
pub mod words;
