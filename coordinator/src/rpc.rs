//! The services on the wire: sessions of agents, what people ask, health, reflection.
//!
//! Only translates: wire to checked types, errors to status codes (`status`), streams to channels. Decides nothing.

pub mod server;

mod auth;
mod backup;
mod builds;
mod bundles;
pub(crate) mod compare;
pub(crate) mod control;
pub(crate) mod evidence;
mod fleet;
mod fleet_admin;
mod history;
mod notify;
pub(crate) mod report;
pub(crate) mod schedules;
mod session;
mod signatures;
pub(crate) mod status;
mod submit;
pub(crate) mod trend;
pub(crate) mod view;
