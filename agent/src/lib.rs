//! The agent: takes jobs from a coordinator and runs each in a process of its own.
//!
//! Floors, lowest first: `config` · `folder` (the job's folder: the only thing that daemon and runner share) · `probe`
//! (/proc, contexts), `spool` · `capabilities`, `tree`, `cluster`, `tools`, `workers` · `runner` · `link` · `app`.

pub mod config;
