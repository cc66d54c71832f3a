//! `pgsoak run`: soaks here and now, with coordinator and agent inside. The exit code is the verdict.

use crate::args::ForCi;
use crate::connect;
use crate::embedded::{AgentOptions, Embedded};
use crate::exit::Coded;
use crate::folders;
use crate::plan_files;
use crate::show::progress::Progress;
use crate::verbs::coordinator::stop_asked;
use crate::verbs::submit;
use anyhow::Context;
use clap::Args;
use pgsoak_proto::{id::RunId, wire};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// `run`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak run demo\n  pgsoak run my-plan.toml --data-dir /tmp/soak --json > result.json"
)]
pub struct RunArgs {
    /// A plan file, or the name of a plan of the library (`pgsoak library`).
    pub plan: String,
    /// Where runs are kept. Default: /var/lib/pgsoak for root, else ~/.local/share/pgsoak.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Jobs at once. Default: the number of usable cores.
    #[arg(long, value_name = "N")]
    pub slots: Option<u32>,
    /// A further pg_config to offer (may be given again); those in the usual places are found.
    #[arg(long, value_name = "PATH")]
    pub pg_config: Vec<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    /// No progress on standard error.
    #[arg(long)]
    pub quiet: bool,
    /// For CI.
    #[command(flatten)]
    pub ci: ForCi,
}

pub async fn run(args: RunArgs) -> anyhow::Result<u8> {
    let RunArgs { plan, data_dir, slots, pg_config, json, quiet, ci } = args;
    if slots == Some(0) {
        return Err(Coded::usage("--slots 0: at least one job runs at once").into());
    }
    let files = plan_files::read(&plan)?;
    let data = data_dir.unwrap_or_else(folders::default_data_dir);
    fs::create_dir_all(&data)
        .with_context(|| format!("create the data folder {}", data.display()))?;
    let options = AgentOptions {
        slots,
        pg_configs: pg_config,
        stop_jobs_on_shutdown: true,
        ..AgentOptions::default()
    };
    let mut embedded = Embedded::with_agent(&data, options).await?;
    let code = soak(&mut embedded, files, &data, json, quiet, &ci).await;
    embedded.stop().await?;
    code
}

async fn soak(
    embedded: &mut Embedded,
    files: plan_files::PlanFiles,
    data: &Path,
    json: bool,
    quiet: bool,
    ci: &ForCi,
) -> anyhow::Result<u8> {
    let (mut control, run) = to_its_end(embedded, files, data, quiet).await?;
    let report = write_reports(&mut control, &run, data).await?;
    submit::finish(&mut control, &run, json, Some(&report), ci).await
}

/// Submits and follows until the run is over, or somebody has stopped it and it is cleaned up.
pub(super) async fn to_its_end(
    embedded: &mut Embedded,
    files: plan_files::PlanFiles,
    data: &Path,
    quiet: bool,
) -> anyhow::Result<(connect::Control, String)> {
    let mut control = embedded.control().await?;
    end_leftovers(&mut control).await?;
    let run =
        submit::submit(&mut control, files, RunId::issue().to_string(), BTreeMap::new(), None)
            .await?;
    if !quiet {
        writeln!(
            std::io::stderr(),
            "run {run}, kept in {} (Ctrl-C stops it and cleans up)",
            data.display()
        )?;
    }
    let mut progress = Progress::new(quiet);
    let mut watcher = control.clone();
    let followed = submit::follow(&mut watcher, &run, &mut progress);
    tokio::pin!(followed);
    tokio::select! {
        over = &mut followed => { over?; }
        failure = embedded.agent_failure() => return Err(failure),
        asked = stop_asked() => {
            asked?;
            writeln!(std::io::stderr(), "stopping the run (once more to leave at once) …")?;
            let request = wire::CancelRunRequest { run_id: run.clone(), reason: "interrupted".to_owned() };
            control.cancel_run(request).await.map_err(|status| connect::explain(&status))?;
            tokio::select! {
                over = &mut followed => { over?; }
                asked = stop_asked() => {
                    asked?;
                    anyhow::bail!("interrupted twice; the agent still ends its jobs");
                }
            }
        }
    }
    Ok((control, run.clone()))
}

/// Runs that a killed `pgsoak run` left unfinished in this folder would go on beside this one: they are ended.
async fn end_leftovers(control: &mut connect::Control) -> anyhow::Result<()> {
    let request = wire::ListRunsRequest { limit: 1000, ..Default::default() };
    let runs = control.list_runs(request).await.map_err(|status| connect::explain(&status))?;
    for run in runs.into_inner().runs {
        if run.stage() != wire::RunStage::Finished {
            writeln!(std::io::stderr(), "run {} was left unfinished; it is cancelled", run.run_id)?;
            let reason = "left unfinished by a `pgsoak run` that was killed".to_owned();
            let request = wire::CancelRunRequest { run_id: run.run_id, reason };
            control.cancel_run(request).await.map_err(|status| connect::explain(&status))?;
        }
    }
    Ok(())
}

/// Writes the report in every format; the answer is the path of the one for people.
async fn write_reports(
    control: &mut connect::Control,
    run: &str,
    data: &Path,
) -> anyhow::Result<PathBuf> {
    let dir = data.join("reports").join(run);
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let formats = [
        (wire::ReportFormat::Json, "result.json"),
        (wire::ReportFormat::Junit, "junit.xml"),
        (wire::ReportFormat::Html, "report.html"),
        (wire::ReportFormat::Markdown, "report.md"),
    ];
    let mut last = dir.clone();
    for (format, name) in formats {
        let text = submit::report_text(control, run, format).await?;
        last = dir.join(name);
        fs::write(&last, text).with_context(|| format!("write {}", last.display()))?;
    }
    Ok(last)
}
