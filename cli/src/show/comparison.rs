//! Before against after, as a table that ends in the answer.

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use pgsoak_analysis::{
    compare::{SetComparison, SetRow},
    result::Compared,
};
use std::io::IsTerminal;

/// Most notes that are shown; `--json` has all.
const MOST_NOTES: usize = 8;

/// Everything that a person wants to see, ending with the answer.
pub fn text(found: &SetComparison) -> String {
    let mut out = format!("Before: {}\nAfter:  {}\n", found.before.text(), found.after.text());
    let (shown, left_out) = found.shown();
    if !shown.is_empty() {
        out.push_str(&format!("\n{}\n", table(&shown)));
    }
    if !left_out.is_empty() {
        out.push_str(&format!("{left_out}\n"));
    }
    for note in found.notes.iter().take(MOST_NOTES) {
        out.push_str(&format!("Note: {note}.\n"));
    }
    if let Some(more @ 1..) = found.notes.len().checked_sub(MOST_NOTES) {
        out.push_str(&format!("… and {more} more notes.\n"));
    }
    out.push_str(&format!("\n{}{}\n", found.answer.label().to_uppercase(), found.reason()));
    out
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
        let color = match row.answer {
            Compared::Worse => Color::Red,
            Compared::Better => Color::Green,
            Compared::Same => Color::Reset,
            Compared::CantTell => Color::Yellow,
        };
        let (before, after) = row.amounts();
        table.add_row([
            Cell::new(row.place()),
            Cell::new(row.figure()),
            Cell::new(before),
            Cell::new(after),
            Cell::new(row.difference()),
            Cell::new(row.answer.label()).fg(color),
            Cell::new(&row.message),
        ]);
    }
    table
}
