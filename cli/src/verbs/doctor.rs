//! `pgsoak doctor`: can this host run jobs, and what is missing.

mod canary;

use crate::embedded::{self, AgentOptions};
use crate::exit;
use crate::folders;
use crate::show::words;
use crate::verbs;
use clap::Args;
use comfy_table::{Cell, Color, Table, presets};
use pgsoak_agent::{
    capabilities::{self, Missing, Survey},
    config::Endpoint,
    privilege,
};
use pgsoak_proto::job::Tool;
use std::path::PathBuf;

/// `doctor`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak doctor\n  pgsoak doctor --canary                does every tool find a leak that was planted\n  pgsoak doctor --canary --postgres 15"
)]
pub struct DoctorArgs {
    /// The data folder that would be used.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// A further pg_config to look at (may be given again).
    #[arg(long, value_name = "PATH")]
    pub pg_config: Vec<PathBuf>,
    /// Run the planted faults under each tool that is here, and say what each found. Takes some minutes, so it is asked for; without it
    /// this verb answers at once.
    #[arg(long)]
    pub canary: bool,
    /// The server of the canary. Default: the newest that the planted faults are built for.
    #[arg(long, value_name = "MAJOR", requires = "canary")]
    pub postgres: Option<u32>,
    /// For programs.
    #[arg(long)]
    pub json: bool,
}

pub async fn run(args: DoctorArgs) -> anyhow::Result<u8> {
    let DoctorArgs { data_dir, pg_config, canary, postgres, json } = args;
    let data = data_dir.unwrap_or_else(folders::default_data_dir);
    std::fs::create_dir_all(folders::agent_dir(&data))?;
    let options = AgentOptions { pg_configs: pg_config.clone(), ..AgentOptions::default() };
    let nowhere = Endpoint::Unix(folders::socket_of(&folders::coordinator_dir(&data)));
    let config = embedded::agent_config(&folders::agent_dir(&data), nowhere, options)?;
    let survey = tokio::task::spawn_blocking(move || capabilities::survey(&config)).await?;
    let can_soak = !survey.capabilities.postgres.is_empty()
        && survey.capabilities.tools.iter().any(|found| found.tool == Tool::Plain);
    if !json {
        verbs::print(&as_text(&survey, can_soak))?;
    }
    let mut value = as_json(&survey, can_soak);
    let mut is_well = can_soak;
    if canary && can_soak {
        let words = canary::run(&survey, &data, postgres, pg_config, json).await?;
        is_well = words.iter().all(|word| word.is_well);
        if json {
            value["canary"] = serde_json::to_value(&words)?;
        } else {
            verbs::print(&canary::as_text(&words))?;
        }
    }
    if json {
        verbs::print_json(&value)?;
    }
    Ok(if is_well { exit::PASS } else { exit::INVALID })
}

fn as_text(survey: &Survey, can_soak: bool) -> String {
    let Survey { capabilities: can, missing } = survey;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["", "What", "Found"]);
    let mut row = |good: bool, what: &str, found: String| {
        let mark =
            if good { Cell::new("✓").fg(Color::Green) } else { Cell::new("✗").fg(Color::Red) };
        table.add_row(vec![mark, Cell::new(what), Cell::new(found)]);
    };
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let memory = words::bytes(can.memory_bytes as f64);
    row(
        true,
        "host",
        format!("{}, kernel {}, {} cores, {memory}", can.host, can.kernel, can.cores),
    );
    let user = if privilege::is_root() {
        privilege::unprivileged_user()
            .map_or_else(|| "none".to_owned(), |user| format!("{} (this is root)", user.name))
    } else {
        "this one".to_owned()
    };
    row(user != "none", "user that runs PostgreSQL", user);
    for postgres in &can.postgres {
        row(true, "PostgreSQL", format!("{} ({})", postgres.version, postgres.pg_config.display()));
    }
    for tool in &can.tools {
        row(true, tool.tool.label(), tool.version.clone());
    }
    for build in &can.builds {
        row(true, "build", format!("{} for PostgreSQL {}", build.build, build.postgres_major));
    }
    for Missing { what, why } in missing {
        row(false, what, why.clone());
    }
    let verdict = match (can_soak, missing.is_empty()) {
        (true, true) => "This host can run every kind of job.",
        (true, false) => "This host can run jobs; what is missing is listed above.",
        (false, _) => {
            "This host cannot run jobs: run deploy/setup.sh, which installs what is missing."
        }
    };
    format!("{table}\n{verdict}\n")
}

fn as_json(survey: &Survey, can_soak: bool) -> serde_json::Value {
    let Survey { capabilities: can, missing } = survey;
    serde_json::json!({
        "can_soak": can_soak,
        "host": can.host, "kernel": can.kernel, "cores": can.cores, "memory_bytes": can.memory_bytes,
        "user": privilege::unprivileged_user().map(|user| user.name),
        "postgres": can.postgres.iter().map(|f| serde_json::json!({"major": f.major, "version": f.version, "pg_config": f.pg_config})).collect::<Vec<_>>(),
        "tools": can.tools.iter().map(|f| serde_json::json!({"tool": f.tool, "version": f.version})).collect::<Vec<_>>(),
        "builds": can.builds.iter().map(|f| serde_json::json!({"build": f.build, "postgres_major": f.postgres_major})).collect::<Vec<_>>(),
        "missing": missing.iter().map(|m| serde_json::json!({"what": m.what, "why": m.why})).collect::<Vec<_>>(),
    })
}
