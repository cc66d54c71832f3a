//! The verdict on made-up evidence: planted leaks of every kind, and everything that only looks like one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "made-up evidence; a failure here is the report"
)]

mod attribution;
mod canary;
mod compared;
mod exits;
mod guards;
mod leak_records;
mod ledger;
mod made;
mod over_time;
mod real_readings;
mod reports;
mod robust;
mod rounds;
mod sequential;
mod sets;
mod sites;
mod trimmed;
