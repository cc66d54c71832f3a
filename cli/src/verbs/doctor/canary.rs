//! The canary on this host: the planted faults under each tool, in a run of its own that leaves nothing behind.

use crate::embedded::{AgentOptions, Embedded};
use crate::exit::Coded;
use crate::plan_files;
use crate::show::result::label;
use crate::verbs::run::to_its_end;
use crate::verbs::submit;
use anyhow::Context;
use comfy_table::{Table, presets};
use pgsoak_agent::capabilities::Survey;
use pgsoak_analysis::report::blind_spots;
use pgsoak_analysis::result::{Finding, RunResult, Verdict};
use pgsoak_proto::job::{Arm, BuildRef, Tool};
use pgsoak_proto::wire;
use pgsoak_workloads::canary::BUILD;
use serde::Serialize;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What one planted fault showed under one tool.
#[derive(Debug, Serialize)]
pub struct Word {
    /// The tool.
    pub tool: Tool,
    /// The planted fault.
    pub workload: String,
    /// The leak was found, the plateau left alone.
    pub is_well: bool,
    /// For people.
    pub message: String,
    /// What the tool cannot see by its nature.
    pub cannot_see: &'static str,
}

/// Runs it; the answer has the words of the canaries before and after the run's one job.
///
/// # Errors
///
/// When no server has the planted faults, or the run itself does not come to a result.
pub async fn run(
    survey: &Survey,
    data: &Path,
    postgres: Option<u32>,
    pg_configs: Vec<PathBuf>,
    quiet: bool,
) -> anyhow::Result<Vec<Word>> {
    let major = server(survey, postgres)?;
    let plan = plan(survey, major);
    let files = plan_files::of_text("the canary's plan", plan, Path::new(""))?;
    let folder = data.join("doctor");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let options =
        AgentOptions { pg_configs, stop_jobs_on_shutdown: true, ..AgentOptions::default() };
    let mut embedded = Embedded::with_agent(&folder, options).await?;
    let result = judged(&mut embedded, files, &folder, quiet).await;
    embedded.stop().await?;
    let result = result?;
    fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    let mut words: Vec<Word> =
        result.findings.iter().filter(|finding| finding.arm == Arm::Canary).map(word).collect();
    words.sort_by(|a, b| (a.tool, &a.workload).cmp(&(b.tool, &b.workload)));
    words.dedup_by(|a, b| a.tool == b.tool && a.message == b.message);
    anyhow::ensure!(!words.is_empty(), "the canary's run has no result: {}", result.sentence);
    Ok(words)
}

async fn judged(
    embedded: &mut Embedded,
    files: plan_files::PlanFiles,
    folder: &Path,
    quiet: bool,
) -> anyhow::Result<RunResult> {
    let (mut control, run) = to_its_end(embedded, files, folder, quiet).await?;
    let text = submit::report_text(&mut control, &run, wire::ReportFormat::Json).await?;
    serde_json::from_str(&text).context("read the canary's result")
}

fn word(finding: &Finding) -> Word {
    Word {
        tool: finding.tool,
        workload: finding.workload.clone(),
        is_well: finding.verdict == Verdict::Pass,
        message: finding.message.clone(),
        cannot_see: blind_spots(finding.tool),
    }
}

/// The server with the planted faults.
fn server(survey: &Survey, asked: Option<u32>) -> anyhow::Result<u32> {
    let build: BuildRef = BUILD.parse()?;
    let can = &survey.capabilities;
    let majors = can.postgres.iter().map(|found| found.major).filter(|major| {
        can.builds.iter().any(|found| found.build == build && found.postgres_major == *major)
    });
    let majors: Vec<u32> = majors.collect();
    let found = match asked {
        Some(asked) => majors.iter().copied().find(|major| *major == asked),
        None => majors.iter().copied().max(),
    };
    found.ok_or_else(|| {
        let which = asked.map_or_else(|| "any server".to_owned(), |major| format!("PostgreSQL {major}"));
        let config = can.postgres.iter().find(|found| asked.is_none_or(|asked| asked == found.major));
        let config = config.map_or_else(
            || "PG_CONFIG".to_owned(),
            |found| found.pg_config.display().to_string(),
        );
        Coded::usage(format!(
            "{BUILD} is not built for {which} of this host, and the canary needs it; build it with: deploy/build-faults.sh {config}"
        ))
        .into()
    })
}

/// One job that does nothing, under every tool that is here, and the canary around it.
fn plan(survey: &Survey, major: u32) -> String {
    let tools: Vec<String> =
        survey.capabilities.tools.iter().map(|found| format!("\"{}\"", found.tool)).collect();
    format!(
        "name = \"canary\"\nabout = \"Does every tool find what was planted\"\ncanary = true\n\n\
         [[job]]\nworkload = \"fault_nothing\"\ntool = [{}]\nbuild = \"{BUILD}\"\npostgres = \"{major}\"\nscale = 0.02\n",
        tools.join(", ")
    )
}

/// For people.
pub fn as_text(words: &[Word]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "",
        "Planted",
        "What the tool says",
    ]);
    for word in words {
        let mark = if word.is_well { "✓" } else { "✗" };
        table.add_row([mark, word.workload.as_str(), word.message.as_str()]);
    }
    let verdict = match words.iter().find(|word| !word.is_well) {
        None => "Every tool found the planted leak and left the plateau alone.".to_owned(),
        Some(word) => {
            format!("{}: do not trust {} on this host.", label(Verdict::Invalid), word.tool)
        }
    };
    let mut tools: Vec<(Tool, &str)> =
        words.iter().map(|word| (word.tool, word.cannot_see)).collect();
    tools.dedup();
    let unseen: Vec<String> =
        tools.iter().map(|(tool, what)| format!("  {tool}: {what}\n")).collect();
    format!("{table}\n{verdict}\nWhat no such tool sees by its nature:\n{}", unseen.concat())
}
