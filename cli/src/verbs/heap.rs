//! `pgsoak heap`: heaptrack files from anywhere, without any coordinator.

use crate::exit::{self, Coded};
use crate::show::words;
use crate::verbs;
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use pgsoak_analysis::heap::{
    self,
    diff::{self, HeapDiff},
    digest::HeapDigest,
    flame::{self, HeapCost},
};
use pgsoak_proto::chain::chain;
use std::{
    fs,
    path::{Path, PathBuf},
};

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

pub async fn run(args: HeapArgs) -> anyhow::Result<u8> {
    // Reading is CPU work on one thread; nothing else runs in this process.
    tokio::task::spawn_blocking(move || verb(args.verb)).await?
}

fn verb(verb: HeapVerb) -> anyhow::Result<u8> {
    match verb {
        HeapVerb::Top { file, limit, json } => top(&file, limit, json)?,
        HeapVerb::Flame { files, cost, to } => draw(&files, cost, to)?,
        HeapVerb::Diff { before, after, limit, json } => {
            let found = diff::diff(&read(&before)?, &read(&after)?);
            if json { verbs::print_json(&found)? } else { verbs::print(&diff_text(&found, limit))? }
        }
        HeapVerb::Series { file, json } => {
            let digest = read(&file)?;
            if json {
                verbs::print_json(&digest.series)?;
            } else {
                let lines: Vec<_> =
                    digest.series.iter().map(|p| format!("{},{}\n", p.ms, p.bytes)).collect();
                verbs::print(&format!("ms,bytes\n{}", lines.concat()))?;
            }
        }
    }
    Ok(exit::PASS)
}

fn read(path: &Path) -> anyhow::Result<HeapDigest> {
    heap::read(path).map_err(|error| Coded::usage(chain(&error)).into())
}

fn top(file: &Path, limit: usize, json: bool) -> anyhow::Result<()> {
    let digest = read(file)?;
    if json {
        return verbs::print_json(&digest);
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "At peak",
        "At the end",
        "Calls",
        "Temporary",
        "Function",
        "Called from",
    ]);
    for site in digest.sites.iter().take(limit) {
        let from: Vec<_> = site.stack.iter().skip(1).take(4).cloned().collect();
        table.add_row([
            size(site.peak_bytes),
            size(site.leaked_bytes),
            site.allocations.to_string(),
            site.temporary.to_string(),
            site.stack.first().cloned().unwrap_or_default(),
            from.join(" ← "),
        ]);
    }
    let cut = if digest.truncated {
        "\nThe file ends in the middle; this is what is there.\n"
    } else {
        ""
    };
    verbs::print(&format!(
        "{table}\n{} allocations ({} temporary), peak {} after {} ms, {} live at the end, {} sites\n{cut}",
        digest.allocations,
        digest.temporary,
        size(digest.peak_bytes),
        digest.peak_ms,
        size(digest.leaked_bytes),
        digest.sites.len()
    ))
}

fn draw(files: &[PathBuf], cost: Cost, to: Option<PathBuf>) -> anyhow::Result<()> {
    let cost = match cost {
        Cost::Peak => HeapCost::Peak,
        Cost::Leaked => HeapCost::Leaked,
        Cost::Allocations => HeapCost::Allocations,
        Cost::Temporary => HeapCost::Temporary,
    };
    let svg = match files {
        [file] => flame::graph(&read(file)?, cost, &file.display().to_string()),
        [before, after] => {
            let title = format!("{} → {}", before.display(), after.display());
            flame::difference(&read(before)?, &read(after)?, cost, &title)
        }
        _ => return Err(Coded::usage("one file, or two for their difference").into()),
    }?;
    match to {
        None => verbs::print(&svg),
        Some(path) => fs::write(&path, svg).with_context(|| format!("write {}", path.display())),
    }
}

fn diff_text(found: &HeapDiff, limit: usize) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "At the end",
        "At peak",
        "Calls",
        "Function",
        "Called from",
    ]);
    for site in found.sites.iter().take(limit) {
        let from: Vec<_> = site.stack.iter().skip(1).take(4).cloned().collect();
        table.add_row([
            signed(site.leaked_bytes),
            signed(site.peak_bytes),
            format!("{:+}", site.allocations),
            site.stack.first().cloned().unwrap_or_default(),
            from.join(" ← "),
        ]);
    }
    format!(
        "{table}\nsecond less first: {:+} allocations, {} at the peak, {} at the end\n",
        found.allocations,
        signed(found.peak_bytes),
        signed(found.leaked_bytes)
    )
}

fn size(value: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    words::bytes(value as f64)
}

fn signed(value: i64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let text = words::bytes(value as f64);
    if value > 0 { format!("+{text}") } else { text }
}
