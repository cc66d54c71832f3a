//! The one line that people read first.

use crate::figures::{capital, rate_text};
use crate::result::{BudgetResult, Compared, Comparison, Detects, EvidenceKind, Finding, Verdict};
use crate::rounds::MEMORY_CONTEXTS;
use crate::verdict::decides;
use pgsoak_proto::job::Arm;

/// The verdict and its reason.
pub(crate) fn sentence(
    verdict: Verdict,
    found: &[Finding],
    budgets: &[BudgetResult],
    comparisons: &[Comparison],
    detects: Detects,
) -> String {
    let deciding: Vec<&Finding> =
        found.iter().filter(|finding| decides(finding) && finding.verdict == verdict).collect();
    let reason = match verdict {
        Verdict::Pass => passed(budgets, detects),
        _ => {
            let first = deciding.first().map(|finding| reason(finding)).unwrap_or_default();
            match deciding.len() {
                0 | 1 => first,
                2 => format!("{first}; one further finding"),
                n => format!("{first}; {} further findings", n - 1),
            }
        }
    };
    let worse = comparisons.iter().filter(|row| row.answer == Compared::Worse).count();
    let better = comparisons.iter().filter(|row| row.answer == Compared::Better).count();
    let compared = match (worse, better, comparisons.first()) {
        (_, _, None) => String::new(),
        (0, 0, Some(row)) => format!(" No difference to {} is proven.", row.baseline_build),
        (worse, better, Some(row)) => {
            format!(
                " Against {}: {worse} {} worse, {better} better.",
                row.baseline_build,
                if worse == 1 { "figure is" } else { "figures are" }
            )
        }
    };
    format!("{}: {reason}.{compared}", capital(word(verdict)))
}

/// The word of a verdict, as in results.
pub(crate) const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Inconclusive => "inconclusive",
        Verdict::Invalid => "invalid",
        Verdict::Fail => "fail",
    }
}

fn passed(budgets: &[BudgetResult], detects: Detects) -> String {
    let mut parts = Vec::new();
    match (detects.bytes_per_operation, detects.bytes_per_operation_outside_contexts) {
        (Some(inside), Some(outside)) => parts.push(format!(
            "no growth above {} per operation in memory contexts or {} outside them",
            rate_text(inside),
            rate_text(outside)
        )),
        (Some(inside), None) => parts.push(format!(
            "no growth above {} per operation in memory contexts",
            rate_text(inside)
        )),
        (None, Some(outside)) => {
            parts.push(format!("no growth above {} per operation", rate_text(outside)));
        }
        (None, None) => {}
    }
    if let Some(limit) = detects.bytes_per_second {
        parts.push(format!("no growth above {} per second", rate_text(limit)));
    }
    let kept = budgets
        .iter()
        .filter(|budget| budget.arm == Arm::Candidate && budget.verdict == Verdict::Pass)
        .count();
    match kept {
        0 => {}
        1 => parts.push("its one budget holds".to_owned()),
        n => parts.push(format!("all {n} budgets hold")),
    }
    if parts.is_empty() {
        parts.push("nothing was found that fails".to_owned());
    }
    parts.join("; ")
}

fn reason(finding: &Finding) -> String {
    let place = match (finding.workload.as_str(), finding.phase.as_str()) {
        ("", _) => String::new(),
        (workload, "") => format!(" in {workload}"),
        (workload, phase) => format!(" in {workload}/{phase}"),
    };
    match (finding.evidence, finding.bytes_per_operation) {
        (EvidenceKind::Rounds | EvidenceKind::LeakRecord, Some(figure))
            if finding.verdict == Verdict::Fail =>
        {
            format!(
                "{}{place}: {} {} by {} per operation",
                finding.build,
                finding.subject,
                if finding.subject == MEMORY_CONTEXTS { "grow" } else { "grows" },
                rate_text(figure)
            )
        }
        (EvidenceKind::Trend, _) if finding.verdict == Verdict::Fail => {
            let figure =
                finding.bytes_per_second.map_or_else(|| "an unknown rate".to_owned(), rate_text);
            format!(
                "{}{place}: {}: growth over time of {figure} per second",
                finding.build, finding.subject
            )
        }
        (EvidenceKind::Budget, _) => {
            format!("{}{place}: {}: {}", finding.build, finding.subject, first_sentence(finding))
        }
        _ if finding.workload.is_empty() => first_sentence(finding),
        _ => format!("{}{place}: {}", finding.build, first_sentence(finding)),
    }
}

fn first_sentence(finding: &Finding) -> String {
    let message = finding.message.trim();
    let end = message.find(". ").unwrap_or(message.len());
    message.get(..end).unwrap_or(message).trim_end_matches('.').to_owned()
}
