//! What a person wants to see at the end of a run: what is wrong, the budgets, and one line of verdict. The report has the rest.

use crate::show::words;
use comfy_table::{Cell, Color, Table, presets};
use pgsoak_analysis::result::{Compared, Comparison, Finding, RunResult, Verdict};
use pgsoak_analysis::verdict::decides;
use pgsoak_proto::job::Outcome;
use std::fmt::Write;

/// Most findings that are shown.
const MOST_FINDINGS: usize = 12;

/// The word for a verdict.
pub const fn label(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Inconclusive => "inconclusive",
        Verdict::Invalid => "invalid",
    }
}

/// Everything, ending with the line of verdict.
pub fn text(result: &RunResult) -> String {
    let mut out = String::new();
    findings(result, &mut out);
    budgets(result, &mut out);
    comparisons(result, &mut out);
    jobs(result, &mut out);
    detects(result, &mut out);
    // The sentence begins with the verdict's word.
    let word = label(result.verdict).to_uppercase();
    let reason = result.sentence.split_once(": ").map_or("", |(_, reason)| reason);
    let _ = writeln!(out, "\n{word}: {reason}");
    out
}

fn findings(result: &RunResult, out: &mut String) {
    let open = |finding: &&Finding| finding.verdict != Verdict::Pass;
    let (own, other): (Vec<_>, Vec<_>) =
        result.findings.iter().filter(open).partition(|finding| decides(finding));
    if !own.is_empty() {
        out.push_str("\nFindings\n");
    }
    for finding in own.iter().take(MOST_FINDINGS) {
        let place = [finding.workload.as_str(), finding.phase.as_str()];
        let place: Vec<_> = place.into_iter().filter(|part| !part.is_empty()).collect();
        let _ = writeln!(
            out,
            "  {:<12} {} ({}): {}",
            label(finding.verdict),
            place.join("/"),
            finding.tool,
            finding.subject
        );
        for line in wrapped(&finding.message) {
            let _ = writeln!(out, "               {line}");
        }
    }
    if own.len() > MOST_FINDINGS {
        let _ = writeln!(out, "  … and {} more in the report", own.len() - MOST_FINDINGS);
    }
    if !other.is_empty() {
        let _ = writeln!(
            out,
            "  {} further findings on the baseline and control arms, which do not decide, are in the report.",
            other.len()
        );
    }
}

/// Lines of at most 100 characters; a message of many sentences is cut after four lines.
fn wrapped(text: &str) -> Vec<String> {
    const WIDTH: usize = 100;
    const LINES: usize = 4;
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    if lines.len() > LINES {
        lines.truncate(LINES);
        if let Some(line) = lines.last_mut() {
            line.push_str(" …");
        }
    }
    lines
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header.iter().copied());
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

fn budgets(result: &RunResult, out: &mut String) {
    if result.budgets.is_empty() {
        return;
    }
    let mut table = table(&["Operation", "Build", "Budget", "Measured", "Status"]);
    for budget in &result.budgets {
        let unit = if budget.what == "growth_per_operation" { " per operation" } else { "" };
        let measured = budget
            .measured_bytes
            .map_or_else(|| "not measured".to_owned(), |b| format!("{}{unit}", words::bytes(b)));
        table.add_row(vec![
            Cell::new(format!("{}/{}: {}", budget.workload, budget.phase, budget.what)),
            Cell::new(format!("{} ({})", budget.build, budget.arm)),
            Cell::new(format!("< {}{unit}", words::bytes(budget.budget_bytes))),
            Cell::new(measured),
            verdict(budget.verdict),
        ]);
    }
    let _ = writeln!(out, "\nBudgets\n{table}");
}

fn comparisons(result: &RunResult, out: &mut String) {
    let count = |answer| result.comparisons.iter().filter(|row| row.answer == answer).count();
    let told = |row: &&Comparison| matches!(row.answer, Compared::Worse | Compared::Better);
    let Some(first) = result.comparisons.first() else { return };
    let mut table = table(&["Workload/phase", "What", "Candidate", "Baseline", "Answer"]);
    let figure = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), words::bytes);
    for row in result.comparisons.iter().filter(told) {
        let (answer, color) = match row.answer {
            Compared::Worse => ("worse", Color::Red),
            _ => ("better", Color::Green),
        };
        table.add_row(vec![
            Cell::new(format!("{}/{} ({})", row.workload, row.phase, row.tool)),
            Cell::new(&row.what),
            Cell::new(figure(row.candidate)),
            Cell::new(figure(row.baseline)),
            Cell::new(answer).fg(color),
        ]);
    }
    let _ = writeln!(out, "\n{} against {}", first.candidate_build, first.baseline_build);
    if !table.is_empty() {
        let _ = writeln!(out, "{table}");
    }
    let _ = writeln!(
        out,
        "  {} figures worse, {} better, {} the same; of {} one run cannot tell.",
        count(Compared::Worse),
        count(Compared::Better),
        count(Compared::Same),
        count(Compared::CantTell)
    );
}

fn jobs(result: &RunResult, out: &mut String) {
    let finished = result.jobs.iter().filter(|job| job.outcome == Outcome::Finished).count();
    let (expected, stored) = result.jobs.iter().fold((0, 0), |(expected, stored), job| {
        (expected + job.samples.expected, stored + job.samples.stored)
    });
    let _ = writeln!(
        out,
        "\nJobs: {finished} of {} finished; {stored} of {expected} samples stored.",
        result.jobs.len()
    );
    for job in result.jobs.iter().filter(|job| job.outcome != Outcome::Finished) {
        let _ = writeln!(
            out,
            "  {:<14} {} {} {} ({})",
            job.outcome, job.workload, job.tool, job.build, job.arm
        );
        for line in wrapped(&job.reason) {
            let _ = writeln!(out, "                 {line}");
        }
    }
}

fn detects(result: &RunResult, out: &mut String) {
    let limits = [
        result.detects.bytes_per_operation.map(|b| format!("{} per operation", words::bytes(b))),
        result.detects.bytes_per_second.map(|b| format!("{} per second", words::bytes(b))),
    ];
    let limits: Vec<_> = limits.into_iter().flatten().collect();
    if !limits.is_empty() {
        let _ = writeln!(out, "Growth above {} would have failed.", limits.join(" or "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_wrapped_and_cut() {
        assert_eq!(wrapped("a b"), ["a b"]);
        let long = wrapped(&"word ".repeat(200));
        assert_eq!(long.len(), 4);
        assert!(long.iter().all(|line| line.chars().count() <= 102) && long[3].ends_with('…'));
    }
}
