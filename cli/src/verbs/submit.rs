//! `pgsoak submit`: gives a plan to a coordinator; with `--wait`, follows it to its verdict.

use crate::args::{self, ForCi, Where};
use crate::connect::{self, Control};
use crate::exit;
use crate::plan_files::{self, PlanFiles};
use crate::show::progress::Progress;
use crate::show::result;
use crate::verbs;
use anyhow::Context;
use clap::Args;
use pgsoak_analysis::{report, result::RunResult};
use pgsoak_proto::{id::RunId, wire};
use std::{collections::BTreeMap, io::Write};

/// `submit`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak submit nightly.toml\n  pgsoak submit nightly.toml --wait --json               exit code = verdict\n  pgsoak submit nightly.toml --wait --junit soak.xml     and a report for CI"
)]
pub struct SubmitArgs {
    /// A plan file, or the name of a plan of the library.
    pub plan: String,
    /// Wait for the verdict; the exit code is the verdict.
    #[arg(long)]
    pub wait: bool,
    /// The same key gives the same run: for callers that retry.
    #[arg(long, value_name = "KEY")]
    pub client_key: Option<String>,
    /// A label for filters of the history; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = args::label)]
    pub labels: Vec<(String, String)>,
    /// Among waiting runs the higher comes first, 1 to 100. Default: the plan's (50 where it says nothing).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub priority: Option<u32>,
    /// Print the run (or, with --wait, its result) as JSON.
    #[arg(long)]
    pub json: bool,
    /// No progress on standard error.
    #[arg(long)]
    pub quiet: bool,
    /// With --wait: for CI.
    #[command(flatten)]
    pub ci: ForCi,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

pub async fn run(args: SubmitArgs) -> anyhow::Result<u8> {
    let files = plan_files::read(&args.plan)?;
    // A key of our own makes a retry of the call itself harmless.
    let key = args.client_key.clone().unwrap_or_else(|| RunId::issue().to_string());
    let mut control = connect::connect(&args.at.coordinator).await?;
    let labels = args.labels.into_iter().collect();
    let run = submit(&mut control, files, key, labels, args.priority).await?;
    if !args.wait && args.ci.junit.is_some() {
        return Err(exit::Coded::usage(
            "--junit needs --wait: there is no result before the run is over",
        )
        .into());
    }
    if !args.wait {
        if args.json {
            verbs::print_json(&serde_json::json!({ "run": run }))?;
        } else {
            verbs::print(&format!("{run}\n"))?;
        }
        return Ok(exit::PASS);
    }
    writeln!(std::io::stderr(), "run {run}")?;
    let mut progress = Progress::new(args.quiet);
    follow(&mut control, &run, &mut progress).await?;
    finish(&mut control, &run, args.json, None, &args.ci).await
}

/// Submits; the answer is the run's id.
pub async fn submit(
    control: &mut Control,
    files: PlanFiles,
    key: String,
    labels: BTreeMap<String, String>,
    priority: Option<u32>,
) -> anyhow::Result<String> {
    let request = wire::SubmitRunRequest {
        plan_toml: files.plan_toml,
        workloads: files.workloads,
        client_key: key,
        labels,
        priority: priority.unwrap_or(0),
    };
    let answer = control.submit_run(request).await.map_err(|status| connect::explain(&status))?;
    Ok(answer.into_inner().run_id)
}

/// Shows the run until it is over. A coordinator that restarts meanwhile is waited for.
pub async fn follow(
    control: &mut Control,
    run: &str,
    progress: &mut Progress,
) -> anyhow::Result<wire::RunView> {
    const PATIENCE: u32 = 120;
    let mut missed = 0;
    loop {
        let request = wire::GetRunRequest { run_id: run.to_owned() };
        match control.watch_run(request).await {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(view)) => {
                            missed = 0;
                            progress.show(&view);
                            if view.stage() == wire::RunStage::Finished {
                                progress.finish();
                                return Ok(view);
                            }
                        }
                        Ok(None) => break,
                        Err(status) => {
                            tracing::warn!(%status, "lost sight of the run");
                            break;
                        }
                    }
                }
            }
            Err(status) if status.code() == tonic::Code::NotFound => {
                return Err(connect::explain(&status));
            }
            Err(status) if missed >= PATIENCE => return Err(connect::explain(&status)),
            Err(_) => {}
        }
        missed += 1;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

/// Prints the result of a run that is over; the answer is the exit code of its verdict.
pub async fn finish(
    control: &mut Control,
    run: &str,
    json: bool,
    report: Option<&std::path::Path>,
    ci: &ForCi,
) -> anyhow::Result<u8> {
    let text = report_text(control, run, wire::ReportFormat::Json).await?;
    let parsed: RunResult = serde_json::from_str(&text).context("read the run's result")?;
    if json {
        verbs::print(&format!("{}\n", text.trim_end()))?;
    } else {
        verbs::print(&result::text(&parsed))?;
        match report {
            Some(path) => verbs::print(&format!("Report: {}\n", path.display()))?,
            None => verbs::print(&format!("Report: pgsoak report {run}\n"))?,
        }
    }
    leave_for_ci(&parsed, ci)?;
    Ok(exit::of_verdict(parsed.verdict))
}

/// The files that CI reads.
fn leave_for_ci(result: &RunResult, ci: &ForCi) -> anyhow::Result<()> {
    if let Some(path) = &ci.junit {
        std::fs::write(path, report::to_junit(result))
            .with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(path) = ci.step_summary.as_ref().filter(|path| !path.as_os_str().is_empty()) {
        let append = || -> std::io::Result<()> {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
            file.write_all(report::to_github(result).as_bytes())
        };
        append().with_context(|| format!("append to {}", path.display()))?;
    }
    Ok(())
}

/// A report as text.
pub async fn report_text(
    control: &mut Control,
    run: &str,
    format: wire::ReportFormat,
) -> anyhow::Result<String> {
    let request =
        wire::GetReportRequest { run_id: run.to_owned(), format: format.into(), replay: false };
    let answer = control.get_report(request).await.map_err(|status| connect::explain(&status))?;
    Ok(answer.into_inner().text)
}
