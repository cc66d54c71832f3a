//! Before against after, as a table that ends in the answer.

use crate::show::words;
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use pgsoak_analysis::{
    compare::{SetComparison, SetRow, Side},
    result::Compared,
};
use std::io::IsTerminal;

/// Most notes that are shown; `--json` has all.
const MOST_NOTES: usize = 8;

/// Everything that a person wants to see, ending with the answer.
pub fn text(found: &SetComparison) -> String {
    let mut out = format!("Before: {}\nAfter:  {}\n", side(&found.before), side(&found.after));
    let (shown, quiet): (Vec<&SetRow>, Vec<&SetRow>) =
        found.rows.iter().partition(|row| is_worth_a_line(row));
    if !shown.is_empty() {
        out.push_str(&format!("\n{}\n", table(&shown)));
    }
    if !quiet.is_empty() {
        out.push_str(&format!(
            "{} figures of one run on one host each differ by less than their margin and are left out (`--json` has them); \
             two runs or hosts on each side would tell.\n",
            quiet.len()
        ));
    }
    for note in found.notes.iter().take(MOST_NOTES) {
        out.push_str(&format!("Note: {note}.\n"));
    }
    if let Some(more @ 1..) = found.notes.len().checked_sub(MOST_NOTES) {
        out.push_str(&format!("… and {more} more notes.\n"));
    }
    let word = label(found.answer);
    let reason = found.sentence.strip_prefix(word).unwrap_or(&found.sentence);
    out.push_str(&format!("\n{}{reason}\n", word.to_uppercase()));
    out
}

/// Whether somebody wants to see it: what is decided, or lies beyond its margin, or is not for want of runs.
fn is_worth_a_line(row: &SetRow) -> bool {
    let middle = row.low.zip(row.high).map(|(low, high)| f64::midpoint(low, high));
    row.answer != Compared::CantTell
        || row.pairs != 1
        || row.what == "bytes_per_operation"
        || row.message.contains("budget")
        || middle.zip(row.margin).is_none_or(|(middle, margin)| middle.abs() > margin)
}

const fn label(answer: Compared) -> &'static str {
    match answer {
        Compared::Worse => "worse",
        Compared::Better => "better",
        Compared::Same => "same",
        Compared::CantTell => "can't tell",
    }
}

fn side(side: &Side) -> String {
    let runs = match side.runs.len() {
        1 => "1 run".to_owned(),
        n => format!("{n} runs"),
    };
    format!("{} ({}; {runs} on {})", side.label, side.builds.join(", "), side.hosts.join(", "))
}

fn table(rows: &[&SetRow]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header([
            "Workload / phase",
            "Figure",
            "Before",
            "After",
            "Difference",
            "Answer",
            "Note",
        ]);
    if !std::io::stdout().is_terminal() {
        table.set_width(160);
    }
    for row in rows {
        let place = match row.phase.as_str() {
            "" => format!("{} ({})", row.workload, row.tool),
            phase => format!("{} / {phase} ({})", row.workload, row.tool),
        };
        let color = match row.answer {
            Compared::Worse => Color::Red,
            Compared::Better => Color::Green,
            Compared::Same => Color::Reset,
            Compared::CantTell => Color::Yellow,
        };
        table.add_row([
            Cell::new(place),
            Cell::new(figure(row)),
            Cell::new(amount(row, row.before)),
            Cell::new(amount(row, row.after)),
            Cell::new(difference(row)),
            Cell::new(label(row.answer)).fg(color),
            Cell::new(&row.message),
        ]);
    }
    table
}

fn figure(row: &SetRow) -> String {
    let what = words::figure(&row.what);
    match row.subject.as_str() {
        "" => what.to_owned(),
        subject if row.what == "outcome" => subject.to_owned(),
        subject => format!("{subject}, {what}"),
    }
}

fn amount(row: &SetRow, figure: Option<f64>) -> String {
    match (figure, row.what.as_str()) {
        (None, _) => "–".to_owned(),
        (Some(share), "outcome") => format!("{:.0} %", 100.0 * share),
        (Some(bytes), _) => words::bytes(bytes),
    }
}

/// In percent for levels and amounts, else in bytes.
fn difference(row: &SetRow) -> String {
    let is_rate = row.what.contains("bytes_per");
    let text = |value: f64| match is_rate {
        true => words::bytes(value),
        false => format!("{value:+.1} %"),
    };
    match (row.low, row.high) {
        (Some(low), Some(high)) if (high - low).abs() < 0.05 => text(low),
        (Some(low), Some(high)) => format!("{} to {}", text(low), text(high)),
        _ => "–".to_owned(),
    }
}
