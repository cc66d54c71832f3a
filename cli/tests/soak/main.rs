//! Soaks with the real binary: real PostgreSQL, real tools, real gRPC between processes, real crashes.
//!
//! One test binary, one file per subject. What a test needs is built by `make builds`; what is missing fails, it is never skipped.

mod daemons;
mod faults;
mod support;
mod tools;
mod trouble;
mod tviews;
