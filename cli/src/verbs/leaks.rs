//! `pgsoak leaks`: memcheck logs from anywhere.

use crate::exit::{self, Coded};
use crate::show::words;
use crate::verbs;
use clap::Args;
use comfy_table::{Table, presets};
use pgsoak_analysis::{
    result::Owner,
    stack::{self, ExtensionImage},
    valgrind::{self, AddressMap},
};
use pgsoak_proto::evidence::{LeakKind, StackFrame};
use pgsoak_workloads::suppression::{Frame, Hides, written};
use serde::Serialize;
use std::path::PathBuf;
use std::{collections::BTreeMap, fs};

/// `leaks`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  pgsoak leaks logs/*.log --extension pg_tviews\n  pgsoak leaks logs/*.log --suppress 3f2a91c0 > known.supp"
)]
pub struct LeaksArgs {
    /// Logs of memcheck (text), one per process.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The extension whose code counts as its own (may be given again).
    #[arg(long, value_name = "NAME")]
    pub extension: Vec<String>,
    /// Still-reachable blocks as well.
    #[arg(long)]
    pub reachable: bool,
    /// Write a suppression for the stack with this fingerprint (or its beginning) to standard output, for a plan's `suppressions`.
    #[arg(long, value_name = "FINGERPRINT")]
    pub suppress: Option<String>,
    /// Rows.
    #[arg(long, default_value_t = 20)]
    pub limit: usize,
    /// Everything, for programs.
    #[arg(long)]
    pub json: bool,
}

/// One stack over all logs.
#[derive(Debug, Serialize)]
struct Row {
    fingerprint: String,
    /// `definite`, `indirect`, `possible`, `reachable`, or memcheck's words for an error.
    what: String,
    owner: Owner,
    bytes: u64,
    blocks: u64,
    count: u64,
    processes: u32,
    stack: Vec<String>,
    #[serde(skip)]
    frames: Vec<StackFrame>,
}

pub async fn run(args: LeaksArgs) -> anyhow::Result<u8> {
    let LeaksArgs { files, extension, reachable, suppress, limit, json } = args;
    let image = ExtensionImage::new(extension.iter().map(String::as_str));
    let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
    let mut incomplete = Vec::new();
    for file in &files {
        let bytes = fs::read(file)
            .map_err(|error| Coded::usage(format!("cannot read {}: {error}", file.display())))?;
        let text = String::from_utf8_lossy(&bytes);
        // Addresses mean nothing without the process: modules are known where valgrind printed them.
        let log = valgrind::parse_log(&text, &AddressMap::default());
        if log.pid == 0 {
            return Err(Coded::usage(format!(
                "{} is no log of valgrind: no line begins with ==PID==",
                file.display()
            ))
            .into());
        }
        if !log.complete {
            incomplete.push(format!("{} (process {})", file.display(), log.pid));
        }
        for record in
            log.leaks.iter().filter(|record| reachable || record.kind != LeakKind::Reachable)
        {
            let row = entry(&mut rows, kind(record.kind), &record.stack, &image);
            row.bytes += record.bytes;
            row.blocks += record.blocks;
            row.count += 1;
        }
        for error in &log.errors {
            entry(&mut rows, &error.what, &error.stack, &image).count += error.count;
        }
    }
    let mut rows: Vec<Row> = rows.into_values().collect();
    if let Some(fingerprint) = suppress {
        verbs::print(&suppression_of(&rows, &fingerprint)?)?;
        return Ok(exit::PASS);
    }
    rows.sort_by(|a, b| {
        (b.owner == Owner::Extension, b.bytes, b.count, &a.fingerprint).cmp(&(
            a.owner == Owner::Extension,
            a.bytes,
            a.count,
            &b.fingerprint,
        ))
    });
    if json {
        verbs::print_json(&serde_json::json!({ "records": rows, "incomplete": incomplete }))?;
        return Ok(exit::PASS);
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "What",
        "Owner",
        "Bytes",
        "Blocks",
        "Times",
        "Stack",
        "Fingerprint",
    ]);
    for row in rows.iter().take(limit) {
        #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
        let bytes = words::bytes(row.bytes as f64);
        let stack: Vec<_> = row.stack.iter().take(5).cloned().collect();
        table.add_row([
            row.what.clone(),
            format!("{:?}", row.owner).to_lowercase(),
            bytes,
            row.blocks.to_string(),
            row.count.to_string(),
            stack.join(" ← "),
            row.fingerprint.clone(),
        ]);
    }
    let mut out = format!("{table}\n{} stacks in {} logs\n", rows.len(), files.len());
    if !incomplete.is_empty() {
        out.push_str(&format!(
            "Without an end (the process was killed): {}\n",
            incomplete.join(", ")
        ));
    }
    verbs::print(&out)?;
    Ok(exit::PASS)
}

/// The suppressions of all rows that the fingerprint names: one stack can be lost in several kinds.
fn suppression_of(rows: &[Row], fingerprint: &str) -> anyhow::Result<String> {
    let named: Vec<&Row> =
        rows.iter().filter(|row| row.fingerprint.starts_with(fingerprint)).collect();
    let first = named.first().ok_or_else(|| {
        Coded::usage(format!(
            "no stack of these logs has a fingerprint that begins with '{fingerprint}'; `pgsoak leaks` lists them, `--reachable` those of blocks still reachable"
        ))
    })?;
    if named.iter().any(|row| row.fingerprint != first.fingerprint) {
        return Err(Coded::usage(format!(
            "'{fingerprint}' begins the fingerprints of several stacks; give more digits"
        ))
        .into());
    }
    let mut text = String::new();
    for row in &named {
        let frames: Vec<Frame> = row
            .frames
            .iter()
            .map(|frame| Frame { function: frame.function.clone(), object: frame.module.clone() })
            .collect();
        let hides = match row.what.as_str() {
            "definite" | "indirect" | "possible" | "reachable" => Hides::Leak(&row.what),
            error => Hides::Error(error),
        };
        let top = row.stack.iter().find(|line| !line.starts_with("malloc")).or(row.stack.first());
        let top = top.map_or("", |line| line.split(" (").next().unwrap_or_default());
        let name = format!("{top} {} {}", row.what, row.fingerprint);
        let written = written(&name, hides, &frames)
            .ok_or_else(|| Coded::usage(format!("memcheck cannot suppress '{}'", row.what)))?;
        text.push_str(&written);
    }
    Ok(text)
}

fn entry<'a>(
    rows: &'a mut BTreeMap<(String, String), Row>,
    what: &str,
    frames: &[StackFrame],
    image: &ExtensionImage,
) -> &'a mut Row {
    let fingerprint = stack::fingerprint(frames);
    let row = rows.entry((what.to_owned(), fingerprint.clone())).or_insert_with(|| Row {
        fingerprint,
        what: what.to_owned(),
        owner: stack::owner(frames, image),
        bytes: 0,
        blocks: 0,
        count: 0,
        processes: 0,
        stack: stack::normal_stack(frames),
        frames: frames.to_vec(),
    });
    row.processes += 1;
    row
}

const fn kind(kind: LeakKind) -> &'static str {
    match kind {
        LeakKind::Definite => "definite",
        LeakKind::Indirect => "indirect",
        LeakKind::Possible => "possible",
        LeakKind::Reachable => "reachable",
    }
}
