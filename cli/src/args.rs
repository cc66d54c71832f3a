//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{net::SocketAddr, path::PathBuf};

/// Soak tests for PostgreSQL extensions: does a build leak, does it keep its memory budgets, is it worse than the last one.
#[derive(Debug, Parser)]
#[command(
    name = "pgsoak",
    version,
    max_term_width = 110,
    after_help = "Examples:\n  pgsoak doctor                        can this host do it\n  pgsoak run demo                      soak here and now with a plan of the library\n  pgsoak run nightly.toml --json       … with a plan of your own, for a program\n  pgsoak submit nightly.toml --wait    the same on a fleet\n\nExit codes: 0 pass, 1 fail, 2 inconclusive, 3 invalid (infrastructure), 64 usage, 69 coordinator unreachable."
)]
pub struct Cli {
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
    /// What is logged on standard error, as in RUST_LOG ("info", "pgsoak_agent=debug").
    #[arg(long, global = true, env = "PGSOAK_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Soak here and now: coordinator and agent inside; the exit code is the verdict.
    Run(RunArgs),
    /// Run the coordinator daemon.
    Coordinator(CoordinatorArgs),
    /// Run the agent daemon.
    Agent(AgentArgs),
    /// Give a plan to a coordinator.
    Submit(SubmitArgs),
    /// List runs, newest first.
    Runs(RunsArgs),
    /// Follow a run live.
    Watch(OneRun),
    /// Show what a run came to.
    Report(ReportArgs),
    /// Print the stored samples of a run.
    Samples(SamplesArgs),
    /// Say whether a run or a release is worse than an earlier one.
    Compare(CompareArgs),
    /// Stop a run: no process of its jobs is left afterwards.
    Cancel(CancelArgs),
    /// List agents.
    Agents(Listing),
    /// List or fetch the raw files of a run.
    Artifacts(ArtifactsArgs),
    /// Copy everything that a coordinator has stored, while it works.
    Backup(BackupArgs),
    /// Check a plan and say where each job would go, and why not.
    Check(CheckArgs),
    /// Say whether this host can run jobs, and what is missing.
    Doctor(DoctorArgs),
    /// Read heaptrack files from anywhere: top sites, flame graphs, differences.
    Heap(HeapArgs),
    /// Read memcheck logs from anywhere: leaks and errors by stack and owner.
    Leaks(LeaksArgs),
    /// Read massif files from anywhere: the peak by stack.
    Massif(MassifArgs),
    /// Judge memory series from anywhere for growth over time.
    Judge(JudgeArgs),
    /// List the workloads and plans that come with pgsoak, or print one.
    Library(LibraryArgs),
}

/// Where the coordinator is.
#[derive(Clone, Debug, Args)]
pub struct Where {
    /// The coordinator: http://HOST:PORT or unix:PATH.
    #[arg(
        long,
        env = "PGSOAK_COORDINATOR",
        default_value = "http://127.0.0.1:7420",
        value_name = "URL"
    )]
    pub coordinator: String,
    /// Read the data folder of `pgsoak run` instead of asking a coordinator.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

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
}

/// `coordinator`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak coordinator --listen 127.0.0.1:7420 --data-dir /var/lib/pgsoak/coordinator\n  pgsoak coordinator --check --data-dir /srv/backups/monday    is everything there, as it was stored"
)]
pub struct CoordinatorArgs {
    /// TCP address to listen on. There is no authentication yet: keep it on loopback or a trusted network.
    #[arg(long, default_value = "127.0.0.1:7420", env = "PGSOAK_LISTEN", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Unix socket beside it. Default: `socket` in the data folder.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Catalogue, runs and artifacts. Default: /var/lib/pgsoak/coordinator for root, else ~/.local/share/pgsoak/coordinator.
    #[arg(long, env = "PGSOAK_COORDINATOR_DATA", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Start nothing: verify every record and frame of the data folder. Exit code 0: sound, 3: not.
    #[arg(long)]
    pub check: bool,
    /// With --check: for programs.
    #[arg(long, requires = "check")]
    pub json: bool,
}

/// `backup`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  pgsoak backup /srv/backups/monday\nRestore: stop the coordinator, put the copy in the place of its data folder, start it."
)]
pub struct BackupArgs {
    /// The copy: a data folder of a coordinator. Must not be there yet.
    pub to: PathBuf,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// `agent`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example:\n  pgsoak agent --coordinator http://127.0.0.1:7420 --data-dir /var/lib/pgsoak/agent --name a --label zone=lab"
)]
pub struct AgentArgs {
    /// The hidden verb of the runner.
    #[command(subcommand)]
    pub inner: Option<AgentInner>,
    /// The coordinator: http://HOST:PORT or unix:PATH.
    #[arg(
        long,
        env = "PGSOAK_COORDINATOR",
        default_value = "http://127.0.0.1:7420",
        value_name = "URL"
    )]
    pub coordinator: String,
    /// The agent's id and its jobs' folders. Default: /var/lib/pgsoak/agent for root, else ~/.local/share/pgsoak/agent.
    #[arg(long, env = "PGSOAK_AGENT_DATA", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Its name in the fleet. Default: the host's name.
    #[arg(long, env = "PGSOAK_AGENT_NAME")]
    pub name: Option<String>,
    /// Jobs at once. Default: the number of usable cores.
    #[arg(long, value_name = "N")]
    pub slots: Option<u32>,
    /// A label that plans may ask for (may be given again).
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// A further pg_config to offer (may be given again); those in the usual places are found.
    #[arg(long, value_name = "PATH")]
    pub pg_config: Vec<PathBuf>,
}

/// Verbs of `agent` that the daemon calls itself.
#[derive(Debug, Subcommand)]
pub enum AgentInner {
    /// Run the job of a folder. The daemon starts this; it is of no use by hand.
    #[command(hide = true)]
    RunJob {
        /// The job's folder.
        dir: PathBuf,
    },
}

/// `submit`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak submit nightly.toml\n  pgsoak submit nightly.toml --wait --json    exit code = verdict"
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
    /// Print the run (or, with --wait, its result) as JSON.
    #[arg(long)]
    pub json: bool,
    /// No progress on standard error.
    #[arg(long)]
    pub quiet: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

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

/// A run by its id.
#[derive(Debug, Args)]
pub struct OneRun {
    /// A run's id, or a part of it that is unique; `latest` is the newest.
    #[arg(default_value = "latest")]
    pub run: String,
    /// For programs: one line of JSON for each change.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

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

/// `samples`
#[derive(Debug, Args)]
pub struct SamplesArgs {
    /// A run's id, or a part of it that is unique; `latest` is the newest.
    #[arg(default_value = "latest")]
    pub run: String,
    /// As CSV, one line per process and tick (the default).
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// As JSON, one object a line.
    #[arg(long)]
    pub json: bool,
    /// Only this job.
    #[arg(long, value_name = "ID")]
    pub job: Option<String>,
    /// Readings of sessions at rest instead of samples.
    #[arg(long)]
    pub rounds: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

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
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// `cancel`
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// A run's id, or a part of it that is unique; `latest` is the newest.
    pub run: String,
    /// Why; kept with the run.
    #[arg(long, default_value = "cancelled by hand")]
    pub reason: String,
    /// Wait until no process of the run is left.
    #[arg(long)]
    pub wait: bool,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// A list.
#[derive(Debug, Args)]
pub struct Listing {
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

/// `artifacts`
#[derive(Debug, Args)]
pub struct ArtifactsArgs {
    /// A run's id, or a part of it that is unique; `latest` is the newest.
    #[arg(default_value = "latest")]
    pub run: String,
    /// Fetch all of them into this folder.
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub at: Where,
}

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

/// `doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The data folder that would be used.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// A further pg_config to look at (may be given again).
    #[arg(long, value_name = "PATH")]
    pub pg_config: Vec<PathBuf>,
    /// For programs.
    #[arg(long)]
    pub json: bool,
}

/// `library`
#[derive(Debug, Args)]
pub struct LibraryArgs {
    /// Print this workload or plan.
    pub name: Option<String>,
}

/// `heap`
#[derive(Debug, Args)]
pub struct HeapArgs {
    /// What to do with the file.
    #[command(subcommand)]
    pub verb: HeapVerb,
}

/// Verbs of `heap`. Files are raw or interpreted, plain, .gz or .zst.
#[derive(Debug, Subcommand)]
pub enum HeapVerb {
    /// Totals and the sites that hold most, by bytes at the peak.
    Top {
        /// A heaptrack file.
        file: PathBuf,
        /// Rows.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Everything, for programs.
        #[arg(long)]
        json: bool,
    },
    /// A flame graph (SVG); of two files, their difference.
    Flame {
        /// One heaptrack file, or two: before and after.
        #[arg(required = true, num_args = 1..=2)]
        files: Vec<PathBuf>,
        /// What the width means.
        #[arg(long, value_enum, default_value_t = Cost::Peak)]
        cost: Cost,
        /// Where to write it. Default: standard output.
        #[arg(long, short, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// What the second did that the first did not, site by site.
    Diff {
        /// Before.
        before: PathBuf,
        /// After.
        after: PathBuf,
        /// Rows.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Everything, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Bytes live over time, as CSV or JSON.
    Series {
        /// A heaptrack file.
        file: PathBuf,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
}

/// `leaks`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pgsoak leaks logs/*.log --extension pg_tviews")]
pub struct LeaksArgs {
    /// Logs of memcheck (text), one per process.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The extension whose code counts as its own (may be given again).
    #[arg(long, value_name = "NAME")]
    pub extension: Vec<String>,
    /// Still-reachable blocks as well.
    #[arg(long)]
    pub reachable: bool,
    /// Rows.
    #[arg(long, default_value_t = 20)]
    pub limit: usize,
    /// Everything, for programs.
    #[arg(long)]
    pub json: bool,
}

/// `massif`
#[derive(Debug, Args)]
pub struct MassifArgs {
    /// Files of massif (massif.out.PID).
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Rows.
    #[arg(long, default_value_t = 20)]
    pub limit: usize,
    /// One line of JSON for each file.
    #[arg(long)]
    pub json: bool,
}

/// `judge`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak judge runs/*/ --json\n  pgsoak judge memory-over-time.csv"
)]
pub struct JudgeArgs {
    /// Folders of host<k>.csv (t_s, ops, rows, bNN, bNN_pid …) with meta.json, or single CSV files (timestamp,rss_kb,vsz_kb,heap_mb).
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// One line of JSON for each, in order.
    #[arg(long)]
    pub json: bool,
}

/// What a flame graph measures.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Cost {
    /// Bytes live when the whole heap was at its peak.
    Peak,
    /// Bytes live at the end.
    Leaked,
    /// Calls.
    Allocations,
    /// Calls whose block was freed before the next allocation.
    Temporary,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
