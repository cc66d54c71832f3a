//! `pgsoak runs`: past and present runs by filter, a table or JSON; one of them whole; notes and pins.

use crate::args::{self, Where};
use crate::connect;
use crate::exit;
use crate::show::runs as show;
use crate::verbs;
use clap::{Args, Subcommand, ValueEnum};
use pgsoak_proto::wire;

mod prune;
mod signatures;

/// `runs`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  pgsoak runs                                        the newest 20\n  pgsoak runs --verdict fail --since 7d\n  pgsoak runs --workload 'tview_*' --release 0.1.0-beta.34 --agent west-1\n  pgsoak runs --label branch=main --sort took --limit 5\n  pgsoak runs --text 'CachedPlan' --json             one line of JSON a run\n  pgsoak runs show latest\n  pgsoak runs note 3f2a 'the host was being backed up'\n  pgsoak runs pin 3f2a --reason 'before the rewrite of the cache'\n\nA filter that is given several times takes any of its words; `*` stands for any characters."
)]
pub struct RunsArgs {
    /// What to do with one run.
    #[command(subcommand)]
    pub inner: Option<RunsInner>,
    /// Which runs.
    #[command(flatten)]
    pub list: ListArgs,
}

/// Which runs, and in which order.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Submitted then or later: so long ago (36h, 7d), a date, or a date and time.
    #[arg(long, value_name = "TIME", value_parser = args::moment)]
    pub since: Option<u64>,
    /// Submitted before.
    #[arg(long, value_name = "TIME", value_parser = args::moment)]
    pub until: Option<u64>,
    /// Of this plan.
    #[arg(long = "plan", value_name = "NAME")]
    pub plans: Vec<String>,
    /// With a job of this workload.
    #[arg(long = "workload", value_name = "NAME")]
    pub workloads: Vec<String>,
    /// With a job under this tool.
    #[arg(long = "tool", value_name = "TOOL")]
    pub tools: Vec<String>,
    /// With this build as candidate or baseline.
    #[arg(long = "build", value_name = "NAME@RELEASE")]
    pub builds: Vec<String>,
    /// With this release as candidate.
    #[arg(long = "release", value_name = "RELEASE")]
    pub releases: Vec<String>,
    /// With a job on this agent.
    #[arg(long = "agent", value_name = "NAME")]
    pub agents: Vec<String>,
    /// With this verdict (pass, fail, inconclusive, invalid), or in this state (queued, running, stopping, judging).
    #[arg(long = "verdict", value_name = "WORD")]
    pub verdicts: Vec<String>,
    /// With this label; all of those that are given must be there.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = args::label)]
    pub labels: Vec<(String, String)>,
    /// With this text in the id, plan, sentence, notes, labels, workloads, builds or agents.
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
    /// Pinned ones only.
    #[arg(long)]
    pub pinned: bool,
    /// By what they are sorted.
    #[arg(long, value_enum, default_value_t = SortBy::Submitted)]
    pub sort: SortBy,
    /// Oldest, shortest, best first.
    #[arg(long)]
    pub ascending: bool,
    /// How many.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Those after this run: the last one of the page before.
    #[arg(long, value_name = "RUN")]
    pub after: Option<String>,
    /// For programs: a line a run.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// By what runs are sorted.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SortBy {
    /// When they were submitted.
    Submitted,
    /// When they were over.
    Finished,
    /// How long they took.
    Took,
    /// The plan's name.
    Plan,
    /// From fail to pass.
    Verdict,
}

/// What to do with one run.
#[derive(Debug, Subcommand)]
pub enum RunsInner {
    /// Show a run with its jobs, notes and labels.
    Show(OneArgs),
    /// Write a note to a run.
    Note(NoteArgs),
    /// Keep a run, whatever retention says.
    Pin(PinArgs),
    /// Let retention have a run again.
    Unpin(OneArgs),
    /// Remove finished runs that are over an age, a number or a size.
    Prune(prune::PruneArgs),
    /// List leak signatures: which stacks lost memory, in which releases, first and last, on which hosts.
    Signatures(signatures::SignaturesArgs),
}

/// One run.
#[derive(Debug, Args)]
pub struct OneArgs {
    /// A run's id, or a part of it that is unique; `latest` is the newest.
    pub run: String,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// `runs note`
#[derive(Debug, Args)]
pub struct NoteArgs {
    /// A run's id, or a part of it that is unique; `latest` is the newest.
    pub run: String,
    /// What to write.
    pub text: String,
    /// For programs: the run as it is now.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// `runs pin`
#[derive(Debug, Args)]
pub struct PinArgs {
    /// A run's id, or a part of it that is unique; `latest` is the newest.
    pub run: String,
    /// Why.
    #[arg(long, default_value = "")]
    pub reason: String,
    /// For programs: the run as it is now.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

pub async fn run(args: RunsArgs) -> anyhow::Result<u8> {
    match args.inner {
        None => list(args.list).await,
        Some(RunsInner::Prune(args)) => prune::run(args).await,
        Some(RunsInner::Signatures(args)) => signatures::run(args).await,
        Some(RunsInner::Show(args)) => {
            let request = wire::GetRunRequest { run_id: args.run };
            let detail = verbs::with_channel(&args.at, async |channel| {
                let answer = connect::history(channel).show_run(request).await;
                Ok(answer.map_err(|status| connect::explain(&status))?.into_inner())
            })
            .await?;
            print(&detail, args.json)
        }
        Some(RunsInner::Note(args)) => {
            let request = wire::AddNoteRequest { run_id: args.run, text: args.text };
            let detail = verbs::with_channel(&args.at, async |channel| {
                let answer = connect::history(channel).add_note(request).await;
                Ok(answer.map_err(|status| connect::explain(&status))?.into_inner())
            })
            .await?;
            print(&detail, args.json)
        }
        Some(RunsInner::Pin(args)) => pin(args.run, true, args.reason, &args.at, args.json).await,
        Some(RunsInner::Unpin(args)) => {
            pin(args.run, false, String::new(), &args.at, args.json).await
        }
    }
}

async fn pin(
    run_id: String,
    pinned: bool,
    reason: String,
    at: &Where,
    is_json: bool,
) -> anyhow::Result<u8> {
    let request = wire::SetPinRequest { run_id, pinned, reason };
    let detail = verbs::with_channel(at, async |channel| {
        let answer = connect::history(channel).set_pin(request).await;
        Ok(answer.map_err(|status| connect::explain(&status))?.into_inner())
    })
    .await?;
    print(&detail, is_json)
}

fn print(detail: &wire::RunDetail, is_json: bool) -> anyhow::Result<u8> {
    if is_json {
        verbs::print_json(&show::detail_json(detail))?;
    } else {
        verbs::print(&show::detail(detail))?;
    }
    Ok(exit::PASS)
}

async fn list(args: ListArgs) -> anyhow::Result<u8> {
    let sort = match args.sort {
        SortBy::Submitted => wire::RunSort::Submitted,
        SortBy::Finished => wire::RunSort::Finished,
        SortBy::Took => wire::RunSort::Took,
        SortBy::Plan => wire::RunSort::Plan,
        SortBy::Verdict => wire::RunSort::Verdict,
    };
    let filter = wire::RunFilter {
        since_unix_us: args.since.unwrap_or(0),
        until_unix_us: args.until.unwrap_or(0),
        plans: args.plans,
        workloads: args.workloads,
        tools: args.tools,
        builds: args.builds,
        releases: args.releases,
        agents: args.agents,
        verdicts: args.verdicts,
        labels: args.labels.into_iter().collect(),
        text: args.text.unwrap_or_default(),
        pinned: args.pinned,
    };
    let is_filtered = filter != wire::RunFilter::default();
    let request = wire::FindRunsRequest {
        filter: Some(filter),
        sort: sort.into(),
        ascending: args.ascending,
        limit: args.limit,
        after: args.after.unwrap_or_default(),
    };
    let found = verbs::with_channel(&args.at, async |channel| {
        let answer = connect::history(channel).find_runs(request).await;
        Ok(answer.map_err(|status| connect::explain(&status))?.into_inner())
    })
    .await?;
    if args.json {
        for line in &found.runs {
            verbs::print_json(&show::line_json(line))?;
        }
        return Ok(exit::PASS);
    }
    if found.runs.is_empty() {
        verbs::print(match is_filtered {
            true => "no run fits; `pgsoak runs` lists the newest of all\n",
            false => "no runs yet; start one with `pgsoak submit PLAN`\n",
        })?;
        return Ok(exit::PASS);
    }
    verbs::print(&format!("{}\n", show::table(&found.runs)))?;
    if found.has_more
        && let Some(last) = found.runs.last().and_then(|line| line.run.as_ref())
    {
        verbs::print(&format!(
            "{} of {} runs; the next page: --after {}\n",
            found.runs.len(),
            found.total,
            last.run_id
        ))?;
    }
    Ok(exit::PASS)
}
