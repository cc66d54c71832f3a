//! The agent: takes jobs from a coordinator and runs each in a process of its own.
//!
//! Floors, lowest first: `config`, `privilege`, `environment` · `folder` (the job's folder: the only thing that daemon and
//! runner share) · `probe` (/proc, cgroup), `spool` · `sampler`, `capabilities`, `package` · `tree` · `tools` ·
//! `cluster`, `workers` · `runner` · `link` · `app`. `tests/shape.rs` reads the floors from here.

pub mod cluster;
pub mod config;
pub mod package;
pub mod probe;
pub mod sampler;
pub mod tools;
pub mod tree;
