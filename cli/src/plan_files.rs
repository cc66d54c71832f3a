//! Reads a plan and the workloads it names, from files or from the library.

use crate::exit::Coded;
use pgsoak_proto::wire;
use pgsoak_workloads::{file_error::FileError, library, plan::Plan};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A plan with everything it names.
#[derive(Debug)]
pub struct PlanFiles {
    /// The plan, checked.
    pub plan: Plan,
    /// Its text.
    pub plan_toml: String,
    /// Every workload that it names, once.
    pub workloads: Vec<wire::WorkloadFile>,
}

/// Reads `plan`: a path, or the name of a plan of the library.
///
/// # Errors
///
/// Names the file, the line and the way out.
pub fn read(plan: &str) -> anyhow::Result<PlanFiles> {
    let path = Path::new(plan);
    let (shown, text, beside) = if path.is_file() || plan.ends_with(".toml") {
        let text = fs::read_to_string(path)
            .map_err(|error| Coded::usage(format!("cannot read the plan {plan}: {error}")))?;
        (plan.to_owned(), text, path.parent().map_or_else(PathBuf::new, Path::to_owned))
    } else if let Some(text) = library::plan(plan) {
        (format!("library plan {plan}"), text.to_owned(), PathBuf::new())
    } else {
        return Err(Coded::usage(format!(
            "'{plan}' is neither a file nor a plan of the library ({})",
            library::plan_names().collect::<Vec<_>>().join(", ")
        ))
        .into());
    };
    of_text(&shown, text, &beside)
}

/// The same of a plan's text; its own workloads lie `beside` it.
///
/// # Errors
///
/// As [`read`]; `shown` is how messages call the plan.
pub fn of_text(shown: &str, text: String, beside: &Path) -> anyhow::Result<PlanFiles> {
    let parsed = Plan::parse(shown, &text).map_err(|problems| usage(&problems))?;
    let mut workloads = Vec::new();
    let mut seen = BTreeSet::new();
    for name in parsed.jobs.iter().flat_map(|job| &job.workloads) {
        if seen.insert(name.clone()) {
            workloads.push(wire::WorkloadFile {
                name: name.clone(),
                toml: workload_text(shown, &text, beside, name)?,
            });
        }
    }
    Ok(PlanFiles { plan: parsed, plan_toml: text, workloads })
}

/// All problems of a file, one a line, as wrong usage.
pub fn usage(problems: &[FileError]) -> anyhow::Error {
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    Coded::usage(lines.join("\n")).into()
}

fn workload_text(plan: &str, text: &str, beside: &Path, name: &str) -> anyhow::Result<String> {
    if let Some(found) = library::workload(name) {
        return Ok(found.to_owned());
    }
    let line = text.lines().position(|line| line.contains(name)).map_or(0, |index| index + 1);
    if name.ends_with(".toml") || name.contains('/') {
        let path = beside.join(name);
        return fs::read_to_string(&path).map_err(|error| {
            Coded::usage(format!(
                "{plan}:{line}: cannot read the workload {}: {error}",
                path.display()
            ))
            .into()
        });
    }
    let near = library::nearest_workload(name)
        .map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
    Err(Coded::usage(format!(
        "{plan}:{line}: no workload '{name}' in the library{near} (see `pgsoak library`; a file of your own is named by its path, with .toml)"
    ))
    .into())
}
