//! `pgsoak heap`: heaptrack files from anywhere, without any coordinator.

use crate::exit::{self, Coded};
use crate::show::words;
use crate::verbs;
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use pgsoak_analysis::heap::{
    self,
    diff::{self, HeapDiff, SiteDiff},
    digest::HeapDigest,
    flame::{self, HeapCost},
};
use pgsoak_proto::chain::chain;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

/// `heap`
#[derive(Debug, Args)]
pub struct HeapArgs {
    /// What to do with the file.
    #[command(subcommand)]
    pub verb: HeapVerb,
}

/// Verbs of `heap`. Files are raw or interpreted, plain, .gz or .zst; or digests as runs keep them beside raw files (ht.PID.json.zst).
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
    let digest = heap::read(path).map_err(|error| Coded::usage(chain(&error)))?;
    if let Some(note) = nameless(&digest, path) {
        writeln!(std::io::stderr(), "{note}")?;
    }
    Ok(digest)
}

/// Why functions have no names, and where they have: a raw file names modules by their paths, and those of a job are gone with it.
fn nameless(digest: &HeapDigest, path: &Path) -> Option<String> {
    let sites = || digest.sites.iter().filter(|site| site.function.starts_with("0x"));
    let gone: BTreeSet<&str> = sites()
        .map(|site| site.module.as_str())
        .filter(|module| module.starts_with('/') && !Path::new(module).is_file())
        .collect();
    let first = gone.first()?;
    let beside = path.to_str()?.strip_suffix(".raw.zst").map(|stem| format!("{stem}.json.zst"));
    let way_out = match beside {
        Some(digest) if Path::new(&digest).is_file() => format!("{digest} has the names"),
        _ => "the digest that its run keeps beside it (ht.PID.json.zst, see `pgsoak artifacts`) has the names".to_owned(),
    };
    Some(format!(
        "{}: {} of {} sites are addresses, since {first}{} is not on this machine (any more); {way_out}",
        path.display(),
        sites().count(),
        digest.sites.len(),
        if gone.len() > 1 { " and others" } else { "" },
    ))
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

/// Frames of a stack that a row shows.
const SHOWN_FRAMES: usize = 5;

/// Sites that would look alike as one: a caller far out that was renamed or added makes every stack above it another one. What then
/// differs by nothing is left out; the largest difference at the end, then at the peak, comes first.
fn shown_sites(found: &HeapDiff) -> Vec<(&[String], SiteDiff)> {
    let mut sums: BTreeMap<&[String], SiteDiff> = BTreeMap::new();
    for site in &found.sites {
        let shown = site.stack.get(..SHOWN_FRAMES).unwrap_or(&site.stack);
        let sum = sums.entry(shown).or_default();
        sum.allocations += site.allocations;
        sum.peak_bytes += site.peak_bytes;
        sum.leaked_bytes += site.leaked_bytes;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.retain(|(_, sum)| [sum.allocations, sum.peak_bytes, sum.leaked_bytes] != [0; 3]);
    sums.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.size()));
    sums
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
    for (stack, sum) in shown_sites(found).into_iter().take(limit) {
        table.add_row([
            signed(sum.leaked_bytes),
            signed(sum.peak_bytes),
            format!("{:+}", sum.allocations),
            stack.first().cloned().unwrap_or_default(),
            stack.get(1..).unwrap_or_default().join(" ← "),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn site(stack: &[&str], leaked_bytes: i64) -> SiteDiff {
        let stack = stack.iter().map(|&frame| frame.to_owned()).collect();
        SiteDiff { stack, leaked_bytes, ..SiteDiff::default() }
    }

    #[test]
    fn stacks_that_differ_far_out_are_one_row_and_what_cancels_is_none() {
        let found = HeapDiff {
            sites: vec![
                site(&["palloc", "a", "b", "c", "d", "main"], 1_000),
                site(&["palloc", "a", "b", "c", "d", "wrapped", "main"], -1_000),
                site(&["palloc", "keep"], 40),
                site(&["malloc", "x", "y", "z", "w", "one"], -30),
                site(&["malloc", "x", "y", "z", "w", "two"], 80),
            ],
            ..HeapDiff::default()
        };
        let rows: Vec<_> = shown_sites(&found)
            .iter()
            .map(|(stack, sum)| (stack[0].clone(), sum.leaked_bytes))
            .collect();
        assert_eq!(rows, [("malloc".to_owned(), 50), ("palloc".to_owned(), 40)]);
    }

    #[test]
    fn a_raw_file_whose_modules_are_gone_says_where_the_names_are() {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path().join("ht.7.raw.zst");
        let unnamed = |module: &str| heap::digest::HeapSite {
            function: "0x1234".into(),
            module: module.into(),
            ..Default::default()
        };
        let here = std::env::current_exe().unwrap();
        let known =
            HeapDigest { sites: vec![unnamed(here.to_str().unwrap())], ..Default::default() };
        assert_eq!(nameless(&known, &raw), None, "stripped is not gone");
        let sites = vec![unnamed("/nowhere/bin/postgres"), unnamed("/nowhere/lib/x.so")];
        let digest = HeapDigest { sites, ..Default::default() };
        let note = nameless(&digest, &raw).unwrap();
        assert!(
            note.contains("2 of 2 sites are addresses, since /nowhere/bin/postgres and others"),
            "{note}"
        );
        assert!(note.contains("pgsoak artifacts"), "{note}");
        fs::write(folder.path().join("ht.7.json.zst"), "").unwrap();
        assert!(nameless(&digest, &raw).unwrap().contains("ht.7.json.zst has the names"));
    }
}
