//! What `pgsoak report` prints. Reads well as plain text too.

use crate::figures::capital;
use crate::report::memory::{CAPTURES, LEDGER, LEDGER_WORDS};
use crate::report::{
    HOLDERS, SUPPRESSIONS, Table, UNSEEN, attributions, budgets, captures, comparisons, detects,
    environment, findings, holders, horizon, jobs, ledgers, matter, place, suppressions, unseen,
    word,
};
use crate::result::{Finding, RunResult, Verdict};

/// Frames of a stack that are shown.
const FRAMES: usize = 12;

/// Of the table of memory ahead.
const AHEAD: &str = "If the growth goes on as it was; a straight line, not a finding.";

/// The report.
pub fn to_markdown(result: &RunResult) -> String {
    let mut text =
        format!("# {} · {}\n\n", word(result.verdict).to_uppercase(), escaped(&result.plan));
    text.push_str(&format!("{}\n\n", escaped(&result.sentence)));
    let detects = detects(result);
    if !detects.is_empty() {
        text.push_str(&format!("{detects}\n\n"));
    }
    text.push_str(&format!("Run `{}`, judged by engine {}.\n", result.run, result.engine));
    section_of_matter(&mut text, result);
    section(&mut text, "Budgets", "", &budgets(result));
    section(&mut text, "Memory ahead", AHEAD, &horizon(result));
    section(&mut text, "Release against release", &against(result), &comparisons(result));
    section_of_findings(&mut text, result);
    section(&mut text, LEDGER, LEDGER_WORDS, &attributions(result));
    section(&mut text, CAPTURES, "", &captures(result));
    section(&mut text, HOLDERS, "", &holders(result));
    section(&mut text, SUPPRESSIONS, "", &suppressions(result));
    section(&mut text, UNSEEN, "", &unseen(result));
    section(&mut text, "Jobs", "", &jobs(result));
    section(&mut text, "Ledger", "", &ledgers(result));
    section(&mut text, "Environment", "", &environment(result));
    section_of_logs(&mut text, result);
    text
}

fn against(result: &RunResult) -> String {
    result.comparisons.first().map_or_else(String::new, |row| {
        format!(
            "Candidate {} against baseline {}; the difference with its 95 % interval.",
            row.candidate_build, row.baseline_build
        )
    })
}

pub(super) fn section(text: &mut String, title: &str, words: &str, table: &Table) {
    if table.rows.is_empty() {
        return;
    }
    text.push_str(&format!("\n## {title}\n\n"));
    if !words.is_empty() {
        text.push_str(&format!("{}\n\n", escaped(words)));
    }
    text.push_str(&table_text(table));
}

/// Columns are padded, so that the source is a table as well.
fn table_text(table: &Table) -> String {
    let cells = |row: &[String]| row.iter().map(|cell| cell_text(cell)).collect::<Vec<_>>();
    let head: Vec<String> = table.columns.iter().map(|column| (*column).to_owned()).collect();
    let rows: Vec<Vec<String>> = table.rows.iter().map(|row| cells(row)).collect();
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let longest =
                rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
            longest.max().unwrap_or(0).max(column.chars().count()).max(3)
        })
        .collect();
    let line = |row: &[String]| {
        let padded: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| {
                format!("{cell}{}", " ".repeat(width.saturating_sub(cell.chars().count())))
            })
            .collect();
        format!("| {} |\n", padded.join(" | "))
    };
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let mut text = line(&head);
    text.push_str(&line(&rule));
    for row in &rows {
        text.push_str(&line(row));
    }
    text
}

pub(super) fn section_of_matter(text: &mut String, result: &RunResult) {
    let first = matter(result);
    if first.is_empty() {
        return;
    }
    text.push_str("\n## What matters\n\n");
    for (number, finding) in first.iter().enumerate() {
        text.push_str(&format!(
            "{}. **{}: {}** ({})  \n   {}\n",
            number + 1,
            word(finding.verdict),
            escaped(&finding.subject),
            escaped(&place(finding)),
            escaped(&finding.message)
        ));
    }
}

fn section_of_findings(text: &mut String, result: &RunResult) {
    if result.findings.is_empty() {
        return;
    }
    section(text, "Findings", "", &findings(result));
    let told: Vec<&Finding> = result
        .findings
        .iter()
        .filter(|finding| finding.verdict != Verdict::Pass || !finding.stack.is_empty())
        .collect();
    for finding in told {
        text.push_str(&format!(
            "\n### {}: {}\n\n{}.\n\n{}\n",
            capital(word(finding.verdict)),
            escaped(&finding.subject),
            escaped(&place(finding)),
            escaped(&finding.message)
        ));
        stack(text, finding);
    }
    let fine: Vec<&Finding> = result
        .findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Pass && finding.stack.is_empty())
        .collect();
    if !fine.is_empty() {
        text.push_str("\n### Judged, and fine\n\n");
        for finding in fine {
            text.push_str(&format!(
                "- {}: {}\n",
                escaped(&place(finding)),
                escaped(&finding.message)
            ));
        }
    }
}

fn stack(text: &mut String, finding: &Finding) {
    if finding.stack.is_empty() {
        return;
    }
    text.push_str("\n```text\n");
    for line in finding.stack.iter().take(FRAMES) {
        text.push_str(&format!("{}\n", line.replace("```", "'''")));
    }
    if finding.stack.len() > FRAMES {
        text.push_str(&format!("… {} more frames\n", finding.stack.len() - FRAMES));
    }
    text.push_str("```\n");
}

fn section_of_logs(text: &mut String, result: &RunResult) {
    let with_tail = result.jobs.iter().filter(|job| !job.server_log_tail.trim().is_empty());
    for (number, job) in with_tail.enumerate() {
        if number == 0 {
            text.push_str("\n## The servers' last words\n");
        }
        text.push_str(&format!(
            "\n{} under {} with {}{}:\n\n```text\n{}\n```\n",
            escaped(&job.workload),
            job.tool,
            escaped(&job.build),
            if job.agent.is_empty() {
                String::new()
            } else {
                format!(" on {}", escaped(&job.agent))
            },
            job.server_log_tail.trim_end().replace("```", "'''")
        ));
    }
}

/// Text from outside cannot make headings, links or markup of its own.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\r' => out.push(' '),
            '*' | '`' | '[' | ']' | '<' | '\\' | '#' => {
                out.push('\\');
                out.push(letter);
            }
            letter => out.push(letter),
        }
    }
    out
}

fn cell_text(text: &str) -> String {
    escaped(text).replace('|', "\\|")
}
