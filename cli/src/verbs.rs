//! One file per verb; this one picks it and turns its answer into an exit code.

mod agent;
mod agents;
mod artifacts;
mod backup;
mod baseline;
mod build;
mod bundle;
mod cancel;
mod check;
mod compare;
mod config;
mod coordinator;
mod doctor;
mod heap;
mod judge;
mod leaks;
mod library;
mod massif;
mod notify;
mod report;
mod run;
mod runs;
mod samples;
mod schedule;
mod submit;
mod trend;
mod watch;

use crate::args::{OneRun, Where};
use crate::connect::Channel;
use crate::connect::{self, Control};
use crate::embedded::Embedded;
use crate::exit;
use crate::log;
use clap::{Parser, Subcommand};
use std::{future::Future, io::Write};

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
    /// What is logged on standard error, as in RUST_LOG ("info", "pgsoak_agent=debug"). [env: PGSOAK_LOG]
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Soak here and now: coordinator and agent inside; the exit code is the verdict.
    Run(run::RunArgs),
    /// Run the coordinator daemon.
    Coordinator(coordinator::CoordinatorArgs),
    /// Run the agent daemon.
    Agent(agent::AgentArgs),
    /// Give a plan to a coordinator.
    Submit(submit::SubmitArgs),
    /// List runs by plan, workload, build, verdict and more; show one, write notes to it, pin it.
    Runs(Box<runs::RunsArgs>),
    /// Follow a run live.
    Watch(OneRun),
    /// Show what a run came to.
    Report(report::ReportArgs),
    /// Print the stored samples of a run.
    Samples(samples::SamplesArgs),
    /// Say whether a run or a release is worse than an earlier one.
    Compare(compare::CompareArgs),
    /// Show how the figures of a workload went over releases, and where they changed.
    Trend(trend::TrendArgs),
    /// Set what runs are compared with when their plan has no baseline arm.
    Baseline(baseline::BaselineArgs),
    /// Give builds of extensions to the coordinator, which hands them to agents; list, show and remove them.
    Build(build::BuildArgs),
    /// Write everything that is stored of a run into a file, or give such a file to a coordinator.
    Bundle(bundle::BundleArgs),
    /// Stop a run: no process of its jobs is left afterwards.
    Cancel(cancel::CancelArgs),
    /// Run plans by a calendar: nightly, weekly, only in windows, only new builds.
    Schedule(schedule::ScheduleArgs),
    /// List agents, with where each stands; approve, drain, resume, remove one.
    Agents(agents::AgentsArgs),
    /// List or fetch the raw files of a run.
    Artifacts(artifacts::ArtifactsArgs),
    /// Copy everything that a coordinator has stored, while it works.
    Backup(backup::BackupArgs),
    /// Check a plan and say where each job would go, and why not.
    Check(check::CheckArgs),
    /// Say whether this host can run jobs, and what is missing.
    Doctor(doctor::DoctorArgs),
    /// Read heaptrack files from anywhere: top sites, flame graphs, differences.
    Heap(heap::HeapArgs),
    /// Read memcheck logs from anywhere: leaks and errors by stack and owner.
    Leaks(leaks::LeaksArgs),
    /// Read massif files from anywhere: the peak by stack.
    Massif(massif::MassifArgs),
    /// Judge memory series from anywhere for growth over time.
    Judge(judge::JudgeArgs),
    /// Show the settings of the daemons: what is in force and from where, or an example file.
    Config(config::ConfigArgs),
    /// Try the coordinator's webhooks and mails, or show which messages wait.
    Notify(notify::NotifyArgs),
    /// List the workloads and plans that come with pgsoak, or print one.
    Library(library::LibraryArgs),
}

/// Runs the verb; the answer is the exit code.
pub fn dispatch(cli: Cli) -> u8 {
    if let Verb::Agent(args) = &cli.verb
        && let Some(agent::AgentInner::RunJob { dir }) = &args.inner
    {
        // The runner brings its own runtime.
        log::begin(cli.log.as_deref(), "info");
        return match pgsoak_agent::runner::run_job(dir) {
            code if code == std::process::ExitCode::SUCCESS => exit::PASS,
            _ => exit::INVALID,
        };
    }
    let default =
        if matches!(cli.verb, Verb::Coordinator(_) | Verb::Agent(_)) { "info" } else { "error" };
    log::begin(cli.log.as_deref(), default);
    let Cli { verb, log: filter } = cli;
    answer(async {
        match verb {
            Verb::Run(args) => run::run(args).await,
            Verb::Coordinator(args) => coordinator::run(args, filter).await,
            Verb::Agent(args) => agent::run(args, filter).await,
            Verb::Submit(args) => submit::run(args).await,
            Verb::Runs(args) => runs::run(*args).await,
            Verb::Watch(args) => watch::run(args).await,
            Verb::Report(args) => report::run(args).await,
            Verb::Samples(args) => samples::run(args).await,
            Verb::Compare(args) => compare::run(args).await,
            Verb::Trend(args) => trend::run(args).await,
            Verb::Baseline(args) => baseline::run(args).await,
            Verb::Build(args) => build::run(args).await,
            Verb::Bundle(args) => bundle::run(args).await,
            Verb::Cancel(args) => cancel::run(args).await,
            Verb::Schedule(args) => schedule::run(args).await,
            Verb::Agents(args) => agents::run(args).await,
            Verb::Artifacts(args) => artifacts::run(args).await,
            Verb::Backup(args) => backup::run(args).await,
            Verb::Check(args) => check::run(args).await,
            Verb::Doctor(args) => doctor::run(args).await,
            Verb::Heap(args) => heap::run(args).await,
            Verb::Leaks(args) => leaks::run(args).await,
            Verb::Massif(args) => massif::run(args).await,
            Verb::Judge(args) => judge::run(args).await,
            Verb::Notify(args) => notify::run(args).await,
            Verb::Config(args) => config::run(args).await,
            Verb::Library(args) => library::run(&args),
        }
    })
}

fn answer(verb: impl Future<Output = anyhow::Result<u8>>) -> u8 {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&anyhow::Error::new(error).context("start the runtime")),
    };
    match runtime.block_on(verb) {
        Ok(code) => code,
        Err(error) => complain(&error),
    }
}

/// The one place where an error is printed, with its causes.
fn complain(error: &anyhow::Error) -> u8 {
    let _ = writeln!(std::io::stderr(), "pgsoak: {error:#}");
    exit::of_error(error)
}

/// A coordinator to ask: one that listens, or one inside this process on a data folder.
struct Asked {
    channel: Channel,
    embedded: Option<Embedded>,
}

impl Asked {
    async fn open(at: &Where) -> anyhow::Result<Self> {
        match &at.data_dir {
            Some(data) => {
                let embedded = Embedded::reader(data).await?;
                Ok(Self { channel: embedded.channel().await?, embedded: Some(embedded) })
            }
            None => Ok(Self { channel: connect::channel(&at.coordinator).await?, embedded: None }),
        }
    }

    async fn close(self) -> anyhow::Result<()> {
        match self.embedded {
            Some(embedded) => embedded.stop().await,
            None => Ok(()),
        }
    }
}

/// Asks, does, and closes, whatever comes of it.
async fn with_control<T>(
    at: &Where,
    ask: impl AsyncFnOnce(&mut Control) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    with_channel(at, async |channel| ask(&mut connect::control(channel)).await).await
}

/// The same, for services beside `Control`.
async fn with_channel<T>(
    at: &Where,
    ask: impl AsyncFnOnce(Channel) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let asked = Asked::open(at).await?;
    let answer = ask(asked.channel.clone()).await;
    asked.close().await?;
    answer
}

/// Prints to standard output; a reader that has gone (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// One JSON value and a line end.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string(value)?))
}

/// The run that somebody means: an id or a unique part of one as it is; `latest` is looked up.
async fn run_named(control: &mut Control, name: &str) -> anyhow::Result<String> {
    if name != "latest" {
        return Ok(name.to_owned());
    }
    let request = pgsoak_proto::wire::ListRunsRequest { limit: 1, ..Default::default() };
    let answer = control.list_runs(request).await.map_err(|status| connect::explain(&status))?;
    let newest = answer.into_inner().runs.into_iter().next();
    newest.map(|run| run.run_id).ok_or_else(|| {
        exit::Coded::usage("there is no run yet; start one with `pgsoak submit PLAN`").into()
    })
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
