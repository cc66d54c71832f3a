//! `pgsoak report`: what a run came to.

use crate::args::Where;
use crate::connect;
use crate::exit;
use crate::verbs;
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use pgsoak_proto::wire;
use std::io::Write;

/// How a report is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// Markdown.
    Md,
    /// One self-contained page.
    Html,
    /// The result of `run --json`.
    Json,
    /// For CI.
    Junit,
    /// For the summary of a GitHub step.
    Github,
}

/// `report`
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A run's id, or a part of it that is unique; `latest` is the newest.
    #[arg(default_value = "latest")]
    pub run: String,
    /// How it is written.
    #[arg(long, value_enum, default_value_t = Format::Md)]
    pub format: Format,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// Judge the stored evidence again.
    #[arg(long)]
    pub replay: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

pub async fn run(args: ReportArgs) -> anyhow::Result<u8> {
    let format = match (args.json, args.format) {
        (true, _) | (_, Format::Json) => wire::ReportFormat::Json,
        (_, Format::Md) => wire::ReportFormat::Markdown,
        (_, Format::Html) => wire::ReportFormat::Html,
        (_, Format::Junit) => wire::ReportFormat::Junit,
        // Made here, from the result.
        (_, Format::Github) => wire::ReportFormat::Json,
    };
    let report = verbs::with_control(&args.at, async |control| {
        let run = verbs::run_named(control, &args.run).await?;
        let request =
            wire::GetReportRequest { run_id: run, format: format.into(), replay: args.replay };
        let answer =
            control.get_report(request).await.map_err(|status| connect::explain(&status))?;
        Ok(answer.into_inner())
    })
    .await?;
    let text = match args.format {
        Format::Github => {
            let result = serde_json::from_str(&report.text).context("read the run's result")?;
            pgsoak_analysis::report::to_github(&result)
        }
        _ => report.text,
    };
    verbs::print(&format!("{}\n", text.trim_end()))?;
    if args.replay {
        let says = match report.replay.as_str() {
            "same" => "judged again: the same result, byte for byte".to_owned(),
            differs => format!("judged again, with a different result: {differs}"),
        };
        writeln!(std::io::stderr(), "{says}")?;
    }
    Ok(exit::PASS)
}
