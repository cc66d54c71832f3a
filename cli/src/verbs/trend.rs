//! `pgsoak trend`: the figures of a workload over releases, and where they changed.

use crate::args::{self, Where};
use crate::connect;
use crate::exit;
use crate::show;
use crate::verbs;
use anyhow::Context;
use clap::Args;
use pgsoak_analysis::releases::ReleaseTrend;
use pgsoak_proto::wire;

/// `trend`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak trend tview_load\n  pgsoak trend tview_load --metric peak --metric bytes_per_operation\n  pgsoak trend tview_cascade --tool memcheck --postgres 18 --json\n\nFigures are those of `pgsoak compare`: level, growth, peak, residual, bytes_per_second, bytes_per_operation,\nlost_bytes_per_operation, kept_bytes_per_operation. They are kept when a run is judged; jobs whose memory means\nnothing (they failed, or evidence is missing) are not among them."
)]
pub struct TrendArgs {
    /// The workload, by the name in its file.
    pub workload: String,
    /// Only this figure; may be repeated.
    #[arg(long = "metric", value_name = "FIGURE")]
    pub metrics: Vec<String>,
    /// Only this phase; may be repeated.
    #[arg(long = "phase", value_name = "NAME")]
    pub phases: Vec<String>,
    /// Only under this tool.
    #[arg(long)]
    pub tool: Option<String>,
    /// Only on this agent; may be repeated.
    #[arg(long = "agent", value_name = "NAME")]
    pub agents: Vec<String>,
    /// Only builds of this extension.
    #[arg(long, value_name = "NAME")]
    pub extension: Option<String>,
    /// Only on this major of PostgreSQL.
    #[arg(long, value_name = "MAJOR")]
    pub postgres: Option<u32>,
    /// Only of runs submitted then or later: so long ago (36h, 90d), a date, or a date and time.
    #[arg(long, value_name = "TIME", value_parser = args::moment)]
    pub since: Option<u64>,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

pub async fn run(args: TrendArgs) -> anyhow::Result<u8> {
    let request = wire::GetTrendRequest {
        workload: args.workload,
        what: args.metrics,
        phases: args.phases,
        tool: args.tool.unwrap_or_default(),
        agents: args.agents,
        extension: args.extension.unwrap_or_default(),
        postgres: args.postgres.map(|major| major.to_string()).unwrap_or_default(),
        since_unix_us: args.since.unwrap_or(0),
    };
    let json = verbs::with_channel(&args.at, async |channel| {
        let answer = connect::history(channel).get_trend(request).await;
        Ok(answer.map_err(|status| connect::explain(&status))?.into_inner().json)
    })
    .await?;
    let trend: ReleaseTrend = serde_json::from_str(&json).context("read the trend")?;
    if args.json {
        verbs::print(&format!("{json}\n"))?;
    } else {
        verbs::print(&show::releases::text(&trend))?;
    }
    Ok(exit::PASS)
}
