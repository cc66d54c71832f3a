//! `pgsoak compare`: is what came after worse than what came before; runs or releases, over all their stored runs.

use crate::args::Where;
use crate::connect;
use crate::exit;
use crate::show;
use crate::verbs;
use anyhow::Context;
use clap::Args;
use pgsoak_analysis::{compare::SetComparison, result::Compared};
use pgsoak_proto::wire;

/// `compare`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak compare pg_tviews@0.1.0-beta.20 pg_tviews@0.1.0-beta.34    over all their stored runs\n  pgsoak compare 019a latest --json\n\nOf a run its candidate's jobs count; of a build every job that ran it as candidate or baseline.\nExit codes: 0 same or better, 1 worse, 2 can't tell."
)]
pub struct CompareArgs {
    /// What came before: a run's id (or a unique part of it, or `latest`) or a build (NAME@RELEASE, dir:PATH, system, vanilla).
    pub before: String,
    /// What came after.
    pub after: String,
    /// Most runs of a build, newest first.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Of builds: only runs of this plan.
    #[arg(long, value_name = "NAME")]
    pub plan: Option<String>,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

pub async fn run(args: CompareArgs) -> anyhow::Result<u8> {
    let request = wire::CompareRunsRequest {
        before: args.before,
        after: args.after,
        limit: args.limit,
        plan: args.plan.unwrap_or_default(),
    };
    let json = verbs::with_channel(&args.at, async |channel| {
        let answer = connect::history(channel).compare_runs(request).await;
        Ok(answer.map_err(|status| connect::explain(&status))?.into_inner().json)
    })
    .await?;
    let found: SetComparison = serde_json::from_str(&json).context("read the comparison")?;
    if args.json {
        verbs::print(&format!("{json}\n"))?;
    } else {
        verbs::print(&show::comparison::text(&found))?;
    }
    Ok(match found.answer {
        Compared::Same | Compared::Better => exit::PASS,
        Compared::Worse => exit::FAIL,
        Compared::CantTell => exit::INCONCLUSIVE,
    })
}
