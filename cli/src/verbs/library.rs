//! `pgsoak library`: the workloads and plans that come with pgsoak.

use crate::exit::{self, Coded};
use crate::verbs;
use clap::Args;
use pgsoak_workloads::{library, plan::Plan, workload::Workload};

/// `library`
#[derive(Debug, Args)]
pub struct LibraryArgs {
    /// Print this workload or plan.
    pub name: Option<String>,
}

pub fn run(args: &LibraryArgs) -> anyhow::Result<u8> {
    if let Some(name) = &args.name {
        let text = library::workload(name).or_else(|| library::plan(name)).ok_or_else(|| {
            Coded::usage(format!("'{name}' is not in the library; `pgsoak library` lists it"))
        })?;
        verbs::print(text)?;
        return Ok(exit::PASS);
    }
    let mut out = String::from("Workloads\n");
    for name in library::names() {
        let about = library::workload(name)
            .and_then(|text| Workload::parse(name, text).ok())
            .map_or_else(String::new, |workload| workload.about);
        out.push_str(&format!("  {name:<24} {about}\n"));
    }
    out.push_str("Plans\n");
    for name in library::plan_names() {
        let about = library::plan(name)
            .and_then(|text| Plan::parse(name, text).ok())
            .map_or_else(String::new, |plan| plan.about);
        out.push_str(&format!("  {name:<24} {about}\n"));
    }
    verbs::print(&out)?;
    Ok(exit::PASS)
}
