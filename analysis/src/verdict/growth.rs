//! Whether a result shows growth that a tool which names stacks should look into.

use crate::result::{EvidenceKind, Finding, RunResult, Verdict};
use pgsoak_proto::job::{Arm, Tool};

/// Budgets whose excess is growth; a peak is none.
const GROWTH_BUDGETS: [&str; 2] = ["growth", "growth_per_operation"];

/// What grows, one sentence: the worst finding of the candidate's plain jobs that is growth, proven or not excluded. `None`: nothing does.
pub fn growth(result: &RunResult) -> Option<String> {
    let found = result.findings.iter().filter(|finding| is_growth(finding));
    // The worst stands first in a result; `max_by_key` would take the last of equals.
    let worst = found.min_by_key(|finding| std::cmp::Reverse(finding.verdict))?;
    Some(format!("{} in {}: {}", worst.subject, worst.workload, worst.message))
}

fn is_growth(finding: &Finding) -> bool {
    if finding.arm != Arm::Candidate || finding.tool != Tool::Plain {
        return false;
    }
    match finding.evidence {
        EvidenceKind::Rounds | EvidenceKind::Trend => match finding.verdict {
            Verdict::Fail => true,
            // Above the threshold and not steady, or with a control that cannot be used: worth a look.
            Verdict::Inconclusive => finding.low.is_some_and(|low| low > 0.0),
            Verdict::Pass | Verdict::Invalid => false,
        },
        EvidenceKind::Budget => {
            finding.verdict == Verdict::Fail && GROWTH_BUDGETS.contains(&finding.subject.as_str())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Detects, Owner};
    use pgsoak_proto::id::RunId;

    fn finding(evidence: EvidenceKind, verdict: Verdict, low: Option<f64>) -> Finding {
        Finding { evidence, verdict, low, ..blank() }
    }

    fn blank() -> Finding {
        serde_json::from_value(serde_json::json!({
            "verdict": "fail", "evidence": "rounds", "workload": "w", "phase": "loop", "tool": "plain",
            "build": "x@1", "arm": "candidate", "hosts": [], "subject": "context A", "owner": Owner::Unknown,
            "bytes_per_operation": 9.0, "low": null, "high": null, "bytes_per_second": null, "message": "It grows.",
        }))
        .unwrap()
    }

    fn result(findings: Vec<Finding>) -> RunResult {
        RunResult {
            run: RunId::from_bytes([7; 16]),
            plan: "p".to_owned(),
            verdict: Verdict::Fail,
            sentence: String::new(),
            detects: Detects::default(),
            findings,
            budgets: Vec::new(),
            comparisons: Vec::new(),
            holders: Vec::new(),
            suppressed: Vec::new(),
            attributions: Vec::new(),
            captures: Vec::new(),
            horizon: Vec::new(),
            jobs: Vec::new(),
            engine: 1,
        }
    }

    #[test]
    fn only_growth_of_the_candidates_plain_jobs_is_growth() {
        let grows = |finding: Finding| growth(&result(vec![finding])).is_some();
        use EvidenceKind::{Budget, Check, LeakRecord, Rounds, Trend};
        assert!(grows(finding(Rounds, Verdict::Fail, None)));
        assert!(grows(finding(Trend, Verdict::Fail, None)));
        assert!(grows(finding(Rounds, Verdict::Inconclusive, Some(2.0))), "not excluded");
        assert!(!grows(finding(Rounds, Verdict::Inconclusive, Some(-2.0))), "could be level");
        assert!(!grows(finding(Rounds, Verdict::Inconclusive, None)), "not judged");
        assert!(!grows(finding(Rounds, Verdict::Pass, Some(2.0))));
        assert!(
            !grows(finding(LeakRecord, Verdict::Fail, None))
                && !grows(finding(Check, Verdict::Fail, None))
        );
        let budget = |subject: &str| Finding {
            subject: subject.into(),
            ..finding(Budget, Verdict::Fail, None)
        };
        assert!(grows(budget("growth_per_operation")) && !grows(budget("peak")));
        assert!(!grows(Finding { arm: Arm::Baseline, ..blank() }));
        assert!(!grows(Finding { tool: Tool::Memcheck, ..blank() }));
    }

    #[test]
    fn the_worst_is_told() {
        let all = vec![
            Finding {
                subject: "maybe".into(),
                ..finding(EvidenceKind::Rounds, Verdict::Inconclusive, Some(1.0))
            },
            Finding { subject: "surely".into(), ..blank() },
        ];
        assert_eq!(growth(&result(all)).unwrap(), "surely in w: It grows.");
    }
}
