//! Figures over releases: a table a series, the change points under it.

use crate::show::words;
use comfy_table::{ContentArrangement, Table, presets};
use pgsoak_analysis::figures::bytes_text;
use pgsoak_analysis::releases::{NO_CHANGE, ReleaseTrend};
use std::io::IsTerminal;

/// Everything that a person wants to see.
pub fn text(trend: &ReleaseTrend) -> String {
    if let Some(lacks) = trend.lacks() {
        return format!("{lacks}\n");
    }
    let mut out = format!("{} over {} runs\n", trend.workload, trend.runs);
    let mut changes = String::new();
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["Figure", "Build", "Jobs", "Median", "Least", "Most", "Last run", "When"]);
    if !std::io::stdout().is_terminal() {
        table.set_width(180);
    }
    for series in &trend.series {
        let mut name = series.name(trend);
        for of in &series.releases {
            table.add_row([
                std::mem::take(&mut name),
                of.build.clone(),
                of.values.to_string(),
                bytes_text(of.median),
                bytes_text(of.least),
                bytes_text(of.most),
                of.last_run.to_string(),
                words::time(of.last_at_unix_us),
            ]);
        }
        for change in &series.changes {
            changes.push_str(&format!("{}: {}\n", series.name(trend), change.text()));
        }
    }
    out.push_str(&format!("{table}\n"));
    match changes.is_empty() {
        true => out.push_str(&format!("{NO_CHANGE}\n")),
        false => out.push_str(&format!("\nChanges of level\n{changes}")),
    }
    out
}
