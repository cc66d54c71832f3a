//! A run's result as people and programs read it: Markdown, JSON, JUnit XML, HTML.
//!
//! Pure text from a [`RunResult`] (HTML takes charts from the evidence as well); the same input gives the same bytes. What is in the tables is decided once, in `table`, so that
//! all formats, and the command line, say the same.

mod chart;
mod charts;
mod github;
mod html;
mod junit;
mod ledger;
mod markdown;
mod memory;
mod releases;
mod table;
mod timed;
mod tools;

pub use github::to_github;
pub use html::to_html;
pub use junit::to_junit;
pub use ledger::{horizon, ledgers};
pub use markdown::to_markdown;
pub use memory::{attributions, captures};
pub use releases::release_chart;
pub use table::{Table, budgets, comparisons, environment, findings, holders, jobs, parameters};

pub use tools::{blind_spots, suppressions, unseen};

use table::HOLDERS;
use tools::{SUPPRESSIONS, UNSEEN};

use crate::result::{Finding, RunResult, Verdict};
use crate::verdict::decides;

/// Indented JSON, with a line break at its end.
pub fn to_json(result: &RunResult) -> String {
    let mut text = serde_json::to_string_pretty(result).unwrap_or_default();
    text.push('\n');
    text
}

/// Findings shown before everything else.
const MATTER: usize = 3;

/// The findings that matter most: what decides first, each cause once.
fn matter(result: &RunResult) -> Vec<&Finding> {
    let mut first: Vec<&Finding> = result
        .findings
        .iter()
        .filter(|finding| decides(finding) && finding.verdict != Verdict::Pass)
        .collect();
    // `sort_by_key` is stable: within a verdict the order of the result stands.
    first.sort_by_key(|finding| std::cmp::Reverse(finding.verdict));
    first.truncate(MATTER);
    first
}

/// "tview_ddl, phase steady, plain, pg_tviews@0.1.0 (candidate), on a, b"
fn place(finding: &Finding) -> String {
    if finding.workload.is_empty() {
        return "the whole run".to_owned();
    }
    let mut parts = vec![finding.workload.clone()];
    if !finding.phase.is_empty() {
        parts.push(format!("phase {}", finding.phase));
    }
    parts.push(finding.tool.to_string());
    parts.push(format!("{} ({})", finding.build, finding.arm));
    if !finding.hosts.is_empty() {
        parts.push(format!("on {}", finding.hosts.join(", ")));
    }
    parts.join(", ")
}

/// What the run would have failed, as a sentence; empty: nothing of that kind was judged.
fn detects(result: &RunResult) -> String {
    use crate::figures::rate_text;
    let detects = &result.detects;
    let mut parts = Vec::new();
    if let Some(limit) = detects.bytes_per_operation {
        parts.push(format!("{} per operation in memory contexts", rate_text(limit)));
    }
    if let Some(limit) = detects.bytes_per_operation_outside_contexts {
        parts.push(format!("{} per operation outside them", rate_text(limit)));
    }
    if let Some(limit) = detects.bytes_per_second {
        parts.push(format!("{} per second of one process", rate_text(limit)));
    }
    match parts.is_empty() {
        true => String::new(),
        false => format!("Steady growth of {} would have failed this run.", parts.join(", or of ")),
    }
}

/// The word of a verdict.
fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Inconclusive => "inconclusive",
        Verdict::Invalid => "invalid",
        Verdict::Fail => "fail",
    }
}
