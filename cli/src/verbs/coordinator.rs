//! `pgsoak coordinator`: the daemon, until SIGINT or SIGTERM; with `--check` a look at its data folder instead.
//! SIGHUP reads its settings again.

use crate::exit;
use crate::log;
use crate::settings::resolve::{self, Flag, Settings};
use crate::settings::{Daemon, Reload, coordinator};
use crate::verbs;
use clap::Args;
use std::path::PathBuf;
use std::{path::Path, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// `coordinator`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak coordinator --listen 127.0.0.1:7420 --data-dir /var/lib/pgsoak/coordinator\n  pgsoak coordinator --check --data-dir /srv/backups/monday    is everything there, as it was stored"
)]
pub struct CoordinatorArgs {
    /// Settings, TOML (`pgsoak config example coordinator`). Default: /etc/pgsoak/coordinator.toml, where there is one.
    #[arg(long, env = "PGSOAK_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// TCP address to listen on, or "off"; keep it on loopback or a trusted network. Default: 127.0.0.1:7420. [env: PGSOAK_LISTEN]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Address of web pages, metrics and health, or "off". Default: 127.0.0.1:7421. [env: PGSOAK_HTTP_LISTEN]
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<String>,
    /// Unix socket beside it. Default: `socket` in the data folder. [env: PGSOAK_SOCKET]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<String>,
    /// Catalogue, runs and artifacts. Default: /var/lib/pgsoak/coordinator for root, else ~/.local/share/pgsoak/coordinator. [env:
    /// PGSOAK_COORDINATOR_DATA]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Start nothing: verify every record and frame of the data folder. Exit code 0: sound, 3: not.
    #[arg(long)]
    pub check: bool,
    /// With --check: for programs.
    #[arg(long, requires = "check")]
    pub json: bool,
}

/// Connections may take so long to end.
const GRACE: Duration = Duration::from_secs(10);

pub async fn run(args: CoordinatorArgs, log: Option<String>) -> anyhow::Result<u8> {
    let CoordinatorArgs { config, listen, http, socket, data_dir, check: is_check, json } = args;
    let flags = given([
        ("listen", "--listen", listen),
        ("http.listen", "--http", http),
        ("socket", "--socket", socket),
        ("data_dir", "--data-dir", data_dir),
        ("log", "--log", log),
    ]);
    let settings = resolve::settings(Daemon::Coordinator, config.as_deref(), flags)?;
    let config = coordinator::config(&settings)?;
    let dir = config.data_dir.clone();
    if is_check {
        return check(&dir, json).await;
    }
    begin_log(&settings)?;
    let running = pgsoak_coordinator::app::start(config).await?;
    if let Some(address) = running.tcp {
        verbs::print(&format!("coordinator: listening on http://{address}\n"))?;
    }
    if let Some(socket) = &running.socket {
        verbs::print(&format!("coordinator: listening on unix:{}\n", socket.display()))?;
    }
    if let Some(address) = running.http {
        verbs::print(&format!("coordinator: pages and metrics on http://{address}\n"))?;
    }
    verbs::print(&format!("coordinator: data in {}\n", dir.display()))?;
    tokio::select! {
        asked = stop_asked() => asked?,
        failed = reloads(settings, async |settings| {
            running.reconfigure(&coordinator::config(settings)?).await;
            Ok(())
        }) => failed?,
        () = running.failed() => {
            anyhow::bail!("the coordinator cannot go on: its data in {} cannot be written (is the disk full?)", dir.display());
        }
    }
    if tokio::time::timeout(GRACE, running.shutdown()).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
    Ok(exit::PASS)
}

/// Every record and frame, counted and verified.
async fn check(dir: &Path, is_json: bool) -> anyhow::Result<u8> {
    let data = dir.to_owned();
    let looking = tokio::task::spawn_blocking(move || pgsoak_coordinator::app::check(&data));
    let checked = looking.await??;
    if is_json {
        verbs::print_json(&checked)?;
    } else {
        verbs::print(&format!(
            "catalogue: {} records ({} runs, {} jobs, {} results, {} agents)\nevidence: {} frames of {} attempts\nraw files: {}\n",
            checked.records,
            checked.runs,
            checked.jobs,
            checked.results,
            checked.agents,
            checked.frames,
            checked.attempts,
            checked.artifacts
        ))?;
        for note in &checked.notes {
            verbs::print(&format!("note: {note}\n"))?;
        }
        for problem in &checked.problems {
            verbs::print(&format!("problem: {problem}\n"))?;
        }
        let place = dir.display();
        verbs::print(&match checked.problems.len() {
            0 => format!("{place} is sound\n"),
            many => format!(
                "{place} has {many} problem(s): put a backup in its place, or start the coordinator on it: a damaged run is set aside and asked for again\n"
            ),
        })?;
    }
    Ok(if checked.problems.is_empty() { exit::PASS } else { exit::INVALID })
}

/// The flags that were given.
pub fn given<const N: usize>(
    flags: [(&'static str, &'static str, Option<String>); N],
) -> Vec<Flag> {
    flags.into_iter().filter_map(|(path, flag, text)| text.map(|text| (path, flag, text))).collect()
}

/// The log as the settings want it, and which file they come from.
pub fn begin_log(settings: &Settings) -> anyhow::Result<()> {
    if let Some(filter) = settings.text("log")? {
        log::change(filter)?;
    }
    match &settings.file {
        Some(file) => tracing::info!(file = %file.display(), "settings read"),
        None => tracing::info!("no settings file; defaults, environment and flags"),
    }
    Ok(())
}

/// Reads the settings again at each SIGHUP: `apply` gets new ones that are sound. Ends only when signals cannot be waited for.
pub async fn reloads(
    mut settings: Settings,
    mut apply: impl AsyncFnMut(&Settings) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    while hangup.recv().await.is_some() {
        let new = match settings.again() {
            Ok(new) => apply(&new).await.map(|()| new),
            Err(error) => Err(error),
        };
        let new = match new {
            Ok(new) => new,
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "settings not reloaded; the old ones stay in force"
                );
                continue;
            }
        };
        if let Some(filter) = new.text("log")? {
            log::change(filter)?;
        }
        let changes = settings.changes(&new);
        let paths = |reload| {
            let of = changes.iter().filter(|change| change.reload == reload);
            of.map(|change| change.path.as_str()).collect::<Vec<_>>().join(", ")
        };
        let (live, restart) = (paths(Reload::Live), paths(Reload::Restart));
        tracing::info!(applied = live, "settings reloaded");
        if !restart.is_empty() {
            tracing::warn!(settings = restart, "changed, and in force only after a restart");
        }
        // What needs a restart is compared with the start's value again, so that each reload says it.
        settings = settings.with_live_of(&new);
    }
    anyhow::bail!("SIGHUP cannot be waited for any more")
}

/// Until SIGINT or SIGTERM.
pub async fn stop_asked() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
