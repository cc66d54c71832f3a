//! The tables at the end of a run.

use crate::show::words;
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use pgsoak_analysis::result::{Compared, RunResult, Verdict};
use std::io::IsTerminal;

/// Most rows of findings that are shown; the report has all.
const MOST_FINDINGS: usize = 20;

/// Everything that a person wants to see of a result, ending with the line of verdict.
pub fn text(result: &RunResult) -> String {
    let mut out = String::new();
    for (title, table) in [
        ("Findings", findings(result)),
        ("Budgets", budgets(result)),
        ("Candidate against baseline", comparisons(result)),
        ("Jobs", jobs(result)),
    ] {
        if let Some(table) = table {
            out.push_str(&format!("\n{title}\n{table}\n"));
        }
    }
    let detects = [
        result.detects.bytes_per_operation.map(|b| format!("{} per operation", words::bytes(b))),
        result.detects.bytes_per_second.map(|b| format!("{} per second", words::bytes(b))),
    ];
    let detects: Vec<_> = detects.into_iter().flatten().collect();
    if !detects.is_empty() {
        out.push_str(&format!("\nWould have caught growth above {}.\n", detects.join(" or ")));
    }
    // The sentence begins with the verdict's word.
    let word = label(result.verdict);
    let reason = result.sentence.strip_prefix(word).unwrap_or(&result.sentence);
    out.push_str(&format!("\n{}{reason}\n", word.to_uppercase()));
    out
}

/// The word for a verdict.
pub const fn label(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Inconclusive => "inconclusive",
        Verdict::Invalid => "invalid",
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.iter().copied());
    if !std::io::stdout().is_terminal() {
        table.set_width(150);
    }
    table
}

fn verdict(verdict: Verdict) -> Cell {
    let color = match verdict {
        Verdict::Pass => Color::Green,
        Verdict::Fail => Color::Red,
        Verdict::Inconclusive => Color::Yellow,
        Verdict::Invalid => Color::Magenta,
    };
    Cell::new(label(verdict)).fg(color)
}

fn findings(result: &RunResult) -> Option<Table> {
    let mut shown: Vec<_> =
        result.findings.iter().filter(|finding| finding.verdict != Verdict::Pass).collect();
    let rest = shown.len().saturating_sub(MOST_FINDINGS);
    shown.truncate(MOST_FINDINGS);
    if shown.is_empty() {
        return None;
    }
    let mut table =
        table(&["Verdict", "Workload / phase", "Build", "Tool", "What", "Per operation", "Says"]);
    for finding in shown {
        let place = if finding.phase.is_empty() {
            finding.workload.clone()
        } else {
            format!("{} / {}", finding.workload, finding.phase)
        };
        let figure = match (finding.bytes_per_operation, finding.low, finding.high) {
            (Some(figure), Some(low), Some(high)) => {
                format!("{figure:.1} B [{low:.1}, {high:.1}]")
            }
            (Some(figure), ..) => format!("{figure:.1} B"),
            _ => String::new(),
        };
        table.add_row(vec![
            verdict(finding.verdict),
            Cell::new(place),
            Cell::new(format!("{} ({})", finding.build, finding.arm)),
            Cell::new(finding.tool),
            Cell::new(&finding.subject),
            Cell::new(figure),
            Cell::new(&finding.message),
        ]);
    }
    if rest > 0 {
        table.add_row(vec![Cell::new(format!("… and {rest} more"))]);
    }
    Some(table)
}

fn budgets(result: &RunResult) -> Option<Table> {
    if result.budgets.is_empty() {
        return None;
    }
    let mut table = table(&["Operation", "Build", "Budget", "Measured", "Status"]);
    for budget in &result.budgets {
        let unit = if budget.what == "growth_per_operation" { " per operation" } else { "" };
        let measured = budget
            .measured_bytes
            .map_or_else(|| "not measured".to_owned(), |b| format!("{}{unit}", words::bytes(b)));
        table.add_row(vec![
            Cell::new(format!("{} / {}: {}", budget.workload, budget.phase, budget.what)),
            Cell::new(format!("{} ({})", budget.build, budget.arm)),
            Cell::new(format!("{}{unit}", words::bytes(budget.budget_bytes))),
            Cell::new(measured),
            verdict(budget.verdict),
        ]);
    }
    Some(table)
}

fn comparisons(result: &RunResult) -> Option<Table> {
    let mut table = table(&["Workload / phase", "What", "Candidate", "Baseline", "Answer"]);
    let mut any = false;
    for row in result.comparisons.iter().filter(|row| row.answer != Compared::Same) {
        any = true;
        let figure = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), words::bytes);
        let (answer, color) = match row.answer {
            Compared::Worse => ("worse", Color::Red),
            Compared::Better => ("better", Color::Green),
            Compared::Same => ("same", Color::Reset),
            Compared::CantTell => ("can't tell", Color::Yellow),
        };
        table.add_row(vec![
            Cell::new(format!("{} / {} ({})", row.workload, row.phase, row.tool)),
            Cell::new(&row.what),
            Cell::new(figure(row.candidate)),
            Cell::new(figure(row.baseline)),
            Cell::new(answer).fg(color),
        ]);
    }
    any.then_some(table)
}

fn jobs(result: &RunResult) -> Option<Table> {
    let mut table = table(&["Workload", "Tool", "Build", "Agent", "Outcome", "Samples", "Reason"]);
    for job in &result.jobs {
        table.add_row(vec![
            Cell::new(&job.workload),
            Cell::new(job.tool),
            Cell::new(format!("{} ({})", job.build, job.arm)),
            Cell::new(&job.agent),
            Cell::new(job.outcome),
            Cell::new(format!("{}/{}", job.samples.stored, job.samples.expected)),
            Cell::new(&job.reason),
        ]);
    }
    (!result.jobs.is_empty()).then_some(table)
}
