//! `pgsoak runs`: newest first.

use crate::args::Where;
use crate::connect;
use crate::exit;
use crate::show::words;
use crate::verbs;
use clap::Args;
use comfy_table::{Table, presets};
use pgsoak_proto::wire;
use std::time::Duration;

/// `runs`
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// How many.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Only runs of this plan.
    #[arg(long, value_name = "NAME")]
    pub plan: Option<String>,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

pub async fn run(args: RunsArgs) -> anyhow::Result<u8> {
    let request = wire::ListRunsRequest {
        limit: args.limit,
        before: String::new(),
        plan: args.plan.unwrap_or_default(),
    };
    let runs = verbs::with_control(&args.at, async |control| {
        let answer =
            control.list_runs(request).await.map_err(|status| connect::explain(&status))?;
        Ok(answer.into_inner().runs)
    })
    .await?;
    if args.json {
        for run in &runs {
            verbs::print_json(&json(run))?;
        }
        return Ok(exit::PASS);
    }
    if runs.is_empty() {
        verbs::print("no runs yet; start one with `pgsoak submit PLAN`\n")?;
        return Ok(exit::PASS);
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "Run",
        "Plan",
        "Submitted",
        "Took",
        "Jobs",
        "State",
        "Says",
    ]);
    for run in &runs {
        let took = run
            .finished_at_unix_us
            .checked_sub(run.started_at_unix_us)
            .filter(|_| run.started_at_unix_us > 0)
            .map_or_else(String::new, |us| words::duration(Duration::from_micros(us)));
        table.add_row([
            run.run_id.clone(),
            run.plan.clone(),
            words::time(run.submitted_at_unix_us),
            took,
            format!("{}/{}", run.jobs_over, run.jobs_total),
            state(run).to_owned(),
            run.sentence.clone(),
        ]);
    }
    verbs::print(&format!("{table}\n"))?;
    Ok(exit::PASS)
}

/// The verdict, or where the run stands.
pub fn state(run: &wire::RunView) -> &str {
    match run.stage() {
        wire::RunStage::Queued => "queued",
        wire::RunStage::Running => "running",
        wire::RunStage::Cancelling => "stopping",
        wire::RunStage::Judging => "judging",
        wire::RunStage::Finished => &run.verdict,
        wire::RunStage::Unspecified => "?",
    }
}

/// A run for programs.
pub fn json(run: &wire::RunView) -> serde_json::Value {
    let jobs: Vec<_> = run
        .jobs
        .iter()
        .map(|job| {
            let spec = job.spec.clone().unwrap_or_default();
            serde_json::json!({
                "job": spec.job_id,
                "workload": spec.workload_name,
                "tool": pgsoak_proto::job::Tool::try_from(spec.tool()).map_or("?", pgsoak_proto::job::Tool::label),
                "build": spec.build,
                "place": job.place().as_str_name().trim_start_matches("JOB_PLACE_").to_lowercase(),
                "agent": job.agent,
                "attempts": job.attempts,
                "outcome": pgsoak_proto::job::Outcome::try_from(job.outcome()).map(pgsoak_proto::job::Outcome::label).ok(),
                "reason": job.reason,
                "phase": job.progress.as_ref().map(|p| p.phase.clone()),
                "round": job.progress.as_ref().map(|p| p.round),
                "done": job.progress.as_ref().map(|p| p.done),
                "left_ms": job.progress.as_ref().map(|p| p.left_ms),
                "stored_sequence": job.stored_sequence,
            })
        })
        .collect();
    serde_json::json!({
        "run": run.run_id,
        "plan": run.plan,
        "state": state(run),
        "submitted_at_unix_us": run.submitted_at_unix_us,
        "started_at_unix_us": run.started_at_unix_us,
        "finished_at_unix_us": run.finished_at_unix_us,
        "verdict": if run.verdict.is_empty() { None } else { Some(&run.verdict) },
        "sentence": run.sentence,
        "jobs_total": run.jobs_total,
        "jobs_over": run.jobs_over,
        "is_cancelled": run.is_cancelled,
        "jobs": jobs,
    })
}
