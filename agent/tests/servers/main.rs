//! Real servers: private trees, clusters and tools against PostgreSQL 15, 16 and 18.
//!
//! Nothing is skipped: what is missing fails and says how to get it. Run as root, each test runs itself once more as the user
//! `postgres`, since PostgreSQL refuses root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests; a failure here is the report"
)]

mod clusters;
mod memcheck;
mod profilers;
mod stage;
mod trees;
