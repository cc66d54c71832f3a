//! Workload and plan files: what people write, parsed, checked and expanded into jobs.
//!
//! Floors, lowest first: `quantity` (sizes, times) · `file_error` · `statement`, `template` (SQL) · `suppression` (of memcheck) ·
//! `table` (TOML with lines) · `workload`, `plan` · `library` (the files that come with pgsoak) · `canary` · `expand` (plan → jobs) ·
//! `escalate` (which jobs may follow). Pure: the only I/O is done by callers.

pub mod canary;
pub mod escalate;
pub mod expand;
pub mod file_error;
pub mod library;
pub mod plan;
pub mod quantity;
pub mod statement;
pub mod suppression;
mod table;
pub mod template;
pub mod workload;
