//! `pgsoak config`: what settings are in force and from where; the example files.

use crate::exit;
use crate::settings::resolve::{self, Origin};
use crate::settings::{Daemon, Reload, agent, coordinator, example};
use crate::verbs;
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use std::path::{Path, PathBuf};

/// `config`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak config show                                  the coordinator's, as it would start here\n  pgsoak config show agent --config ./agent.toml\n  pgsoak config example agent > /etc/pgsoak/agent.toml"
)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub inner: ConfigInner,
}

/// Verbs of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigInner {
    /// Check a daemon's settings, and print what is in force and from where.
    Show {
        /// Whose.
        #[arg(value_enum, default_value = "coordinator")]
        daemon: Daemon,
        /// The file. Default: /etc/pgsoak/coordinator.toml or agent.toml, where there is one.
        #[arg(long, env = "PGSOAK_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
        /// Leave defaults out.
        #[arg(long)]
        changed: bool,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Print a file with every setting, documented.
    Example {
        /// Whose.
        #[arg(value_enum, default_value = "coordinator")]
        daemon: Daemon,
    },
}

pub async fn run(args: ConfigArgs) -> anyhow::Result<u8> {
    match args.inner {
        ConfigInner::Show { daemon, config, changed, json } => {
            show(daemon, config.as_deref(), changed, json)
        }
        ConfigInner::Example { daemon } => {
            verbs::print(&example::text(daemon))?;
            Ok(exit::PASS)
        }
    }
}

fn show(daemon: Daemon, file: Option<&Path>, changed: bool, is_json: bool) -> anyhow::Result<u8> {
    let settings = resolve::settings(daemon, file, Vec::new())?;
    // What does not go together is refused here as at a start.
    match daemon {
        Daemon::Coordinator => drop(coordinator::config(&settings)?),
        Daemon::Agent => drop(agent::config(&settings)?),
    }
    let shown =
        settings.iter().filter(|(_, setting)| !changed || setting.origin != Origin::Default);
    if is_json {
        let list: Vec<_> = shown
            .map(|(path, setting)| {
                serde_json::json!({
                    "key": path,
                    "value": setting.shown(),
                    "from": setting.origin.to_string(),
                    "reload": setting.key.reload == Reload::Live,
                })
            })
            .collect();
        let file = settings.file.as_ref().map(|file| file.display().to_string());
        verbs::print_json(
            &serde_json::json!({ "daemon": daemon.label(), "file": file, "settings": list }),
        )?;
        return Ok(exit::PASS);
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["Setting", "Value", "From"]);
    for (path, setting) in shown {
        table.add_row([path.to_owned(), setting.shown(), setting.origin.to_string()]);
    }
    let file = match &settings.file {
        Some(file) => format!("file: {}", file.display()),
        None => format!("no file ({} is not there)", resolve::default_file(daemon).display()),
    };
    verbs::print(&format!("{} settings, {file}\n{table}\n", daemon.label()))?;
    Ok(exit::PASS)
}
