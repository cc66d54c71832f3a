//! `pgsoak check`: reads a plan, expands it, says where each job would go and why not. Changes nothing.

use crate::args::Where;
use crate::connect;
use crate::exit::{self, Coded};
use crate::plan_files;
use crate::show::words;
use crate::verbs;
use clap::Args;
use comfy_table::{Table, presets};
use pgsoak_proto::{
    id::{JobId, RunId},
    job::{Arm, JobSpec, Tool},
    wire,
};
use pgsoak_workloads::escalate::{self, Subject};
use pgsoak_workloads::expand;
use pgsoak_workloads::plan::Plan;
use std::collections::BTreeMap;

/// `check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// A plan file, or the name of a plan of the library.
    pub plan: String,
    /// Only read the files; ask no coordinator.
    #[arg(long)]
    pub offline: bool,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

pub async fn run(args: CheckArgs) -> anyhow::Result<u8> {
    let files = plan_files::read(&args.plan)?;
    let texts: BTreeMap<_, _> = files
        .workloads
        .iter()
        .map(|file| {
            let text = expand::WorkloadText { file: file.name.clone(), toml: file.toml.clone() };
            (file.name.clone(), text)
        })
        .collect();
    let specs = expand::expand(&files.plan, &texts, RunId::issue(), JobId::issue)
        .map_err(|problems| plan_files::usage(&problems))?;
    let placed = if args.offline {
        None
    } else {
        let request =
            wire::CheckPlanRequest { plan_toml: files.plan_toml, workloads: files.workloads };
        let asked = verbs::with_control(&args.at, async |control| {
            let answer =
                control.check_plan(request).await.map_err(|status| connect::explain(&status))?;
            Ok(answer.into_inner().jobs)
        })
        .await;
        match asked {
            Ok(jobs) => Some(jobs),
            // Without a coordinator the files can still be checked; say that this is all.
            Err(error) if error.downcast_ref::<Coded>().is_some() => {
                eprint(&format!(
                    "{error}\nonly the files are checked (--offline says so without asking)\n"
                ))?;
                None
            }
            Err(error) => return Err(error),
        }
    };
    let rows: Vec<_> = specs
        .iter()
        .enumerate()
        .map(|(index, spec)| {
            let place = placed.as_ref().and_then(|placed| placed.get(index));
            let starts_at = place.map_or(0, |place| place.starts_at_unix_us);
            (spec, place.map(|p| p.agent.clone()), place.map(|p| p.why_not.clone()), starts_at)
        })
        .collect();
    let follow = follow_ups(&files.plan, &specs);
    if args.json {
        for (subject, tool) in &follow {
            verbs::print_json(&serde_json::json!({
                "workload": subject.workload, "tool": tool, "build": subject.build, "arm": Arm::Candidate,
                "postgres": subject.postgres, "only_if_it_grows": true,
            }))?;
        }
        for (spec, agent, why_not, starts_at) in &rows {
            verbs::print_json(&serde_json::json!({
                "workload": spec.workload_name, "tool": spec.tool, "build": spec.build, "arm": spec.arm,
                "postgres": spec.postgres, "replica": spec.replica,
                "hard_end_s": spec.hard_end.as_secs(), "agent": agent, "why_not": why_not,
                "starts_at_unix_us": Some(starts_at).filter(|at| **at > 0),
            }))?;
        }
    } else {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
            "Workload",
            "Tool",
            "Build",
            "Arm",
            "PostgreSQL",
            "Goes to",
            "Starts about",
        ]);
        for (spec, agent, why_not, starts_at) in &rows {
            let goes = match (agent.as_deref(), why_not.as_deref()) {
                (Some(agent), _) if !agent.is_empty() => agent.to_owned(),
                (_, Some(why)) => format!("nowhere: {why}"),
                _ => "not asked".to_owned(),
            };
            table.add_row([
                spec.workload_name.clone(),
                spec.tool.to_string(),
                spec.build.to_string(),
                spec.arm.to_string(),
                spec.postgres.to_string(),
                goes,
                words::time(*starts_at),
            ]);
        }
        let jobs = if rows.len() == 1 { "job" } else { "jobs" };
        verbs::print(&format!("{table}\n{}: {} {jobs}\n", files.plan.name, rows.len()))?;
        if !follow.is_empty() {
            let told: Vec<String> = follow
                .iter()
                .map(|(subject, tool)| {
                    format!("{} of {} under {tool}", subject.workload, subject.build)
                })
                .collect();
            verbs::print(&format!(
                "Where a plain job grows, up to {} short jobs follow (escalate): {}\n",
                follow.len(),
                told.join(", ")
            ))?;
        }
    }
    Ok(exit::PASS)
}

/// Jobs that may follow those of the plan, in the order in which they would be added.
fn follow_ups(plan: &Plan, specs: &[JobSpec]) -> Vec<(Subject, Tool)> {
    escalate::subjects(plan, specs)
        .into_iter()
        .flat_map(|subject| {
            let tools = escalate::missing_tools(&subject, specs);
            tools.into_iter().map(move |tool| (subject.clone(), tool))
        })
        .collect()
}

fn eprint(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    std::io::stderr().write_all(text.as_bytes())?;
    Ok(())
}
