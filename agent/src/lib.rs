//! The agent: takes jobs from a coordinator and runs each in a process of its own.
//!
//! Floors, lowest first: `blocking`, `config`, `privilege`, `environment` · `folder` (the job's folder: the only thing that daemon and
//! runner share) · `probe` (/proc, cgroup), `spool` · `sampler`, `package` · `tree` · `tools` ·
//! `cluster`, `workers`, `capabilities` · `runner` · `link` · `app`.

pub mod app;
pub mod blocking;
pub mod capabilities;
pub mod cluster;
pub mod config;
pub mod environment;
pub mod folder;
pub mod link;
pub mod package;
pub mod privilege;
pub mod probe;
pub mod runner;
pub mod sampler;
pub mod spool;
pub mod tools;
pub mod tree;
pub mod workers;
