//! Real servers: private trees, clusters and tools against PostgreSQL 15, 16 and 18.
//!
//! Nothing is skipped: what is missing fails and says how to get it. Run as root, each test runs itself once more as the user
//! `postgres`, since PostgreSQL refuses root.

mod clusters;
mod memcheck;
mod profilers;
mod stage;
mod trees;
