//! The workload and plan files that come with pgsoak, inside the binary.
//!
//! Workloads are `library/*.toml` and `faults/*.toml` of this crate, plans are `plans/*.toml`; a file's name without its
//! ending is the name by which plans and people ask for it.

use crate::file_error::nearest;

mod files {
    include!(concat!(env!("OUT_DIR"), "/files.rs"));
}

/// The text of a workload's file.
pub fn workload(name: &str) -> Option<&'static str> {
    text(files::WORKLOADS, name)
}

/// Names of all workloads, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    files::WORKLOADS.iter().map(|(name, _)| *name)
}

/// All workloads: name and text, sorted by name.
pub fn workloads() -> &'static [(&'static str, &'static str)] {
    files::WORKLOADS
}

/// The name that comes closest to what somebody wrote; `None`: nothing is close.
pub fn nearest_workload(name: &str) -> Option<&'static str> {
    nearest(name, names())
}

/// The text of a plan's file.
pub fn plan(name: &str) -> Option<&'static str> {
    text(files::PLANS, name)
}

/// Names of all plans, sorted.
pub fn plan_names() -> impl Iterator<Item = &'static str> {
    files::PLANS.iter().map(|(name, _)| *name)
}

/// All plans: name and text, sorted by name.
pub fn plans() -> &'static [(&'static str, &'static str)] {
    files::PLANS
}

fn text(files: &[(&'static str, &'static str)], name: &str) -> Option<&'static str> {
    files.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
