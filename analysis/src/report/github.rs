//! The summary of a CI step, as GitHub shows it under a workflow's run: Markdown with foldable parts, within its limit of 1 MiB.

use crate::report::markdown::{escaped, section, section_of_matter};
use crate::report::{budgets, comparisons, findings, jobs, word};
use crate::result::{RunResult, Verdict};

/// GitHub refuses a step's summary of more; other steps have their own.
const MOST: usize = 1_000_000;

/// The summary. What does not fit is left out as a whole section, and said.
pub fn to_github(result: &RunResult) -> String {
    let sign = match result.verdict {
        Verdict::Pass => "✅",
        Verdict::Fail => "❌",
        Verdict::Inconclusive => "❔",
        Verdict::Invalid => "⚠️",
    };
    let name = word(result.verdict).to_uppercase();
    let mut text =
        format!("# {sign} {name} · {}\n\n{}\n", escaped(&result.plan), escaped(&result.sentence));
    if result.verdict == Verdict::Invalid {
        text.push_str("\nThe harness or a host failed; this says nothing about the product.\n");
    }
    section_of_matter(&mut text, result);
    section(&mut text, "Budgets", "", &budgets(result));
    let folded = [
        ("Release against release", comparisons(result)),
        ("All findings", findings(result)),
        ("Jobs", jobs(result)),
    ];
    let mut left_out = Vec::new();
    for (title, table) in folded.into_iter().filter(|(_, table)| !table.rows.is_empty()) {
        let mut part = String::new();
        section(&mut part, title, "", &table);
        // GitHub reads Markdown inside HTML only after an empty line.
        let body = part.trim_start_matches(['\n', '#', ' ']).trim_start_matches(title);
        let folded = format!(
            "\n<details><summary>{title} ({})</summary>\n{body}\n</details>\n",
            table.rows.len()
        );
        if text.len() + folded.len() > MOST {
            left_out.push(title);
        } else {
            text.push_str(&folded);
        }
    }
    if !left_out.is_empty() {
        text.push_str(&format!("\nToo long for here: {}.\n", left_out.join(", ")));
    }
    text.push_str(&format!("\nRun `{}`.\n", result.run));
    text
}
