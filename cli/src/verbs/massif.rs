//! `pgsoak massif`: massif files from anywhere.

use crate::exit::{self, Coded};
use crate::show::words;
use crate::verbs;
use clap::Args;
use comfy_table::{Table, presets};
use pgsoak_analysis::massif;
use std::fs;
use std::path::PathBuf;

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

pub async fn run(args: MassifArgs) -> anyhow::Result<u8> {
    for file in &args.files {
        let bytes = fs::read(file)
            .map_err(|error| Coded::usage(format!("cannot read {}: {error}", file.display())))?;
        let digest = massif::read(&String::from_utf8_lossy(&bytes))
            .map_err(|error| Coded::usage(format!("{}, {error}", file.display())))?;
        if args.json {
            let mut value = serde_json::to_value(&digest)?;
            if let Some(object) = value.as_object_mut() {
                object.insert("file_name".to_owned(), file.display().to_string().into());
            }
            verbs::print_json(&value)?;
            continue;
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
            "At peak",
            "Function",
            "Called from",
        ]);
        for site in digest.sites.iter().take(args.limit) {
            let from: Vec<_> = site.stack.iter().skip(1).take(4).cloned().collect();
            table.add_row([
                size(site.bytes),
                site.stack.first().cloned().unwrap_or_default(),
                from.join(" ← "),
            ]);
        }
        let cut = if digest.truncated { "; the file ends in the middle" } else { "" };
        verbs::print(&format!(
            "{}\n{table}\npeak {} heap, {} of the allocator's own, {} stacks, {} snapshots{cut}\n",
            file.display(),
            size(digest.peak_bytes),
            size(digest.peak_extra_bytes),
            size(digest.peak_stacks_bytes),
            digest.series.len()
        ))?;
    }
    Ok(exit::PASS)
}

fn size(value: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    words::bytes(value as f64)
}
