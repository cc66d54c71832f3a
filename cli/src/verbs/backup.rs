//! `pgsoak backup`: a copy of everything that a coordinator has stored, while it works. The copy is a data folder itself.

use crate::args::Where;
use crate::connect;
use crate::exit;
use crate::verbs;
use anyhow::Context as _;
use clap::Args;
use pgsoak_coordinator::store::copy::{CopyPart, CopyWriter};
use pgsoak_proto::wire::{self, backup_piece::Part};
use std::{path::PathBuf, time::Instant};

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

pub async fn run(args: BackupArgs) -> anyhow::Result<u8> {
    let began = Instant::now();
    let target = std::path::absolute(&args.to)?;
    let making = target.clone();
    let writer = tokio::task::spawn_blocking(move || CopyWriter::begin(&making)).await??;
    let summary = verbs::with_control(&args.at, async |control| {
        let answer = control
            .backup(wire::BackupRequest {})
            .await
            .map_err(|status| connect::explain(&status))?;
        let mut stream = answer.into_inner();
        let mut writer = writer;
        while let Some(piece) =
            stream.message().await.map_err(|status| connect::explain(&status))?
        {
            let part = match piece.part {
                Some(Part::Entries(found)) => entries(found)?,
                Some(Part::File(wire::StoredFile { path, offset, data })) => {
                    CopyPart::File { path: PathBuf::from(path), offset, data }
                }
                Some(Part::Whole(summary)) => {
                    tokio::task::spawn_blocking(move || writer.finish()).await??;
                    return Ok(summary);
                }
                None => {
                    anyhow::bail!("the coordinator sent a piece that this release does not know")
                }
            };
            writer =
                tokio::task::spawn_blocking(move || writer.add(part).map(|()| writer)).await??;
        }
        anyhow::bail!(
            "the coordinator ended before the copy was whole; {} is not made",
            target.display()
        )
    })
    .await?;
    let wire::BackupSummary { runs, entries, files, bytes } = summary;
    if args.json {
        let told = serde_json::json!({
            "to": target, "runs": runs, "entries": entries, "files": files, "bytes": bytes,
            "seconds": began.elapsed().as_secs_f64(),
        });
        verbs::print_json(&told)?;
    } else {
        verbs::print(&format!(
            "{}: {runs} runs, {entries} entries, {files} raw files, {bytes} bytes\n",
            target.display()
        ))?;
    }
    Ok(exit::PASS)
}

fn entries(found: wire::StoredEntries) -> anyhow::Result<CopyPart> {
    let entries = found.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
    Ok(match found.run_id.as_str() {
        "" => CopyPart::Catalogue(entries),
        run => {
            let run = run.parse().context("the coordinator sent entries of a run without an id")?;
            CopyPart::Run(run, entries)
        }
    })
}
