//! Soaks with the real binary: real PostgreSQL, real tools, real gRPC between processes, real crashes.
//!
//! One test binary, one file per subject. What a test needs is built by `make builds`; what is missing fails, it is never skipped.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; a failure here is the report"
)]

mod daemons;
mod escalation;
mod faults;
mod support;
mod tools;
mod trouble;
mod tviews;
