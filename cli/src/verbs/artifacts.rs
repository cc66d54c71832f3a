//! `pgsoak artifacts`: the raw files of a run, listed or fetched.

use crate::args::Where;
use crate::connect::{self, Control};
use crate::exit;
use crate::show::words;
use crate::verbs;
use anyhow::Context;
use clap::Args;
use comfy_table::{Table, presets};
use pgsoak_proto::wire;
use std::path::PathBuf;
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

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

pub async fn run(args: ArtifactsArgs) -> anyhow::Result<u8> {
    verbs::with_control(&args.at, async |control| {
        let run = verbs::run_named(control, &args.run).await?;
        let request = wire::GetRunRequest { run_id: run.clone() };
        let answer =
            control.list_artifacts(request).await.map_err(|status| connect::explain(&status))?;
        let artifacts = answer.into_inner().artifacts;
        if let Some(to) = &args.to {
            for artifact in &artifacts {
                fetch(control, &run, artifact, to).await?;
            }
        }
        if args.json {
            for artifact in &artifacts {
                verbs::print_json(&serde_json::json!({
                    "job": artifact.job_id, "attempt": artifact.attempt, "name": artifact.name,
                    "bytes": artifact.bytes, "is_complete": artifact.is_complete,
                }))?;
            }
            return Ok(exit::PASS);
        }
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_FULL_CONDENSED)
            .set_header(["Job", "Attempt", "File", "Size", ""]);
        for artifact in &artifacts {
            #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
            let size = words::bytes(artifact.bytes as f64);
            table.add_row([
                artifact.job_id.clone(),
                artifact.attempt.to_string(),
                artifact.name.clone(),
                size,
                if artifact.is_complete { "" } else { "incomplete" }.to_owned(),
            ]);
        }
        verbs::print(&format!("{table}\n"))?;
        Ok(exit::PASS)
    })
    .await
}

async fn fetch(
    control: &mut Control,
    run: &str,
    artifact: &wire::ArtifactView,
    to: &Path,
) -> anyhow::Result<()> {
    let dir = to.join(format!("{}-{}", artifact.job_id, artifact.attempt));
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    // The coordinator keeps names without folders; a name from the wire is held to it all the same.
    let name = Path::new(&artifact.name)
        .file_name()
        .with_context(|| format!("'{}' is no file name", artifact.name))?;
    let path = dir.join(name);
    let mut file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    let request = wire::ReadArtifactRequest {
        run_id: run.to_owned(),
        job_id: artifact.job_id.clone(),
        attempt: artifact.attempt,
        name: artifact.name.clone(),
    };
    let answer =
        control.read_artifact(request).await.map_err(|status| connect::explain(&status))?;
    let mut pieces = answer.into_inner();
    while let Some(piece) = pieces.message().await.map_err(|status| connect::explain(&status))? {
        file.write_all(&piece.data).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
