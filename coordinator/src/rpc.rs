//! The services on the wire: sessions of agents, what people ask, health, reflection.
//!
//! Only translates: wire to checked types, errors to status codes (`status`), streams to channels. Decides nothing.

pub mod server;

mod backup;
mod control;
mod evidence;
mod fleet;
mod history;
mod report;
mod schedules;
mod session;
mod status;
mod submit;
mod trend;
mod view;
