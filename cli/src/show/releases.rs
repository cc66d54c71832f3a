//! Figures over releases: a table a series, the change points under it.

use crate::show::words;
use comfy_table::{ContentArrangement, Table, presets};
use pgsoak_analysis::releases::{ReleaseSeries, ReleaseTrend};
use std::io::IsTerminal;

/// Everything that a person wants to see.
pub fn text(trend: &ReleaseTrend) -> String {
    if trend.series.is_empty() {
        return format!(
            "{}: of {} runs none has such a figure; leave filters out to see what there is\n",
            trend.workload, trend.runs
        );
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
        let mut name = name(series, trend);
        for of in &series.releases {
            table.add_row([
                std::mem::take(&mut name),
                of.build.clone(),
                of.values.to_string(),
                words::bytes(of.median),
                words::bytes(of.least),
                words::bytes(of.most),
                of.last_run.to_string(),
                words::time(of.last_at_unix_us),
            ]);
        }
        for change in &series.changes {
            changes.push_str(&format!(
                "{}: {} before, {} from {} on (run {})\n",
                self::name(series, trend),
                words::bytes(change.before),
                words::bytes(change.after),
                change.build,
                change.run
            ));
        }
    }
    out.push_str(&format!("{table}\n"));
    match changes.is_empty() {
        true => out.push_str(
            "No change of level is seen (that takes ten runs, three of them at the new level).\n",
        ),
        false => out.push_str(&format!("\nChanges of level\n{changes}")),
    }
    out
}

/// The figure and the tool; with its length where there are several.
fn name(series: &ReleaseSeries, trend: &ReleaseTrend) -> String {
    let mut name = String::new();
    if !series.metric.phase.is_empty() {
        name.push_str(&format!("{} / ", series.metric.phase));
    }
    if !series.metric.subject.is_empty() {
        name.push_str(&format!("{}, ", series.metric.subject));
    }
    name.push_str(words::figure(&series.metric.what));
    if trend.series.iter().all(|other| other.length == series.length) {
        return format!("{name} ({})", series.tool);
    }
    // As figures are kept: `Some(60s) at scale 1`.
    let length = series.length.replace("Some(", "").replace(')', "");
    format!("{name} ({}, {})", series.tool, length.replace("None", "its own length"))
}
