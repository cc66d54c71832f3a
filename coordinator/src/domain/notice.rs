//! Messages to people: what is said of a run, of a new finding, of an agent. Pure; `engine` queues them, `notify` sends them.
//!
//! The product's failure and the infrastructure's never share a message: a run in which both failed makes two.

use crate::domain::time::UnixUs;
use pgsoak_analysis::figures;
use pgsoak_analysis::result::{EvidenceKind, Finding, RunResult, Verdict};
use pgsoak_analysis::verdict::decides;
use pgsoak_proto::id::RunId;
use pgsoak_proto::job::Outcome;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Lines of a message beside its title.
const LINES: usize = 3;
/// Characters of a line.
const WIDTH: usize = 300;
/// Messages about new findings of one run; what is more stands in the run's own.
const NEW_FINDINGS: usize = 5;

/// Numbers messages; rises for ever. Derived from the time of its making.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NoticeId(pub u64);

/// What a message is about; people choose by it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// A run passed.
    Pass,
    /// A run failed: the product.
    Fail,
    /// A run had too little evidence.
    Inconclusive,
    /// A run was invalid, or part of it failed for reasons of the harness or the host.
    Infrastructure,
    /// The product shows something that it never showed before.
    Finding,
    /// An agent is gone for long, or quarantined.
    Agent,
    /// A schedule did not do what it should.
    Schedule,
    /// Somebody asked for one.
    Test,
}

/// A message to people, until every target has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Its number; receivers can tell a repeat by it.
    pub id: NoticeId,
    /// When it was made.
    pub at: UnixUs,
    /// What it says.
    #[serde(flatten)]
    pub says: Says,
    /// Who has still to get it, by the target's name.
    pub waiting: BTreeMap<String, Waiting>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Says {
    /// What it is about.
    pub kind: NoticeKind,
    /// One line.
    pub title: String,
    /// At most three more.
    pub lines: Vec<String>,
    /// The run, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

/// How far the delivery to one target is.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// Tries so far.
    pub tries: u32,
    /// Not before this.
    pub next_at: UnixUs,
    /// What the last try said; empty: there was none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// A new finding: what tells it from others, and the message.
#[derive(Clone, Debug, PartialEq)]
pub struct NewFinding {
    /// See [`condition`].
    pub condition: String,
    /// The message.
    pub says: Says,
}

// === impl NoticeKind ===

impl NoticeKind {
    /// All that people can choose.
    pub const CHOICE: [Self; 7] = [
        Self::Pass,
        Self::Fail,
        Self::Inconclusive,
        Self::Infrastructure,
        Self::Finding,
        Self::Agent,
        Self::Schedule,
    ];

    /// The word in settings and messages.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
            Self::Infrastructure => "infrastructure",
            Self::Finding => "finding",
            Self::Agent => "agent",
            Self::Schedule => "schedule",
            Self::Test => "test",
        }
    }

    /// Whose trouble it is: `product` or `infrastructure`.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Pass | Self::Fail | Self::Inconclusive | Self::Finding => "product",
            Self::Infrastructure | Self::Agent | Self::Schedule | Self::Test => "infrastructure",
        }
    }
}

/// The messages about a finished run: one about the product unless the run is invalid, one about the infrastructure where that
/// failed.
pub fn about_run(result: &RunResult) -> Vec<Says> {
    let mut said = Vec::new();
    let kind = match result.verdict {
        Verdict::Pass => Some(NoticeKind::Pass),
        Verdict::Fail => Some(NoticeKind::Fail),
        Verdict::Inconclusive => Some(NoticeKind::Inconclusive),
        Verdict::Invalid => None,
    };
    if let Some(kind) = kind {
        let title = format!("{}: {}", kind.label().to_uppercase(), result.plan);
        let mut lines = vec![result.sentence.clone()];
        let wanted = result.findings.iter().filter(|finding| {
            decides(finding) && finding.verdict == result.verdict && !is_infrastructure(finding)
        });
        // The first is in the sentence already.
        lines.extend(wanted.skip(1).map(line));
        lines.truncate(LINES - 1);
        lines.push(jobs(result));
        said.push(says(kind, &title, lines, Some(result.run)));
    }
    let troubles: Vec<&Finding> =
        result.findings.iter().filter(|finding| is_infrastructure(finding)).collect();
    if result.verdict == Verdict::Invalid || !troubles.is_empty() {
        let title = format!("Infrastructure trouble in a run of {}", result.plan);
        let mut lines: Vec<String> = troubles.into_iter().map(line).collect();
        if lines.is_empty() {
            lines.push(result.sentence.clone());
        }
        lines.truncate(LINES - 1);
        lines.push(jobs(result));
        said.push(says(NoticeKind::Infrastructure, &title, lines, Some(result.run)));
    }
    said
}

/// The product's failures in a run that are not among the known conditions, each once.
pub fn new_findings(result: &RunResult, is_known: impl Fn(&str) -> bool) -> Vec<NewFinding> {
    let mut found: BTreeMap<String, &Finding> = BTreeMap::new();
    for finding in &result.findings {
        if decides(finding) && finding.verdict == Verdict::Fail && !is_infrastructure(finding) {
            let condition = condition(&result.plan, finding);
            if !is_known(&condition) {
                found.entry(condition).or_insert(finding);
            }
        }
    }
    let all = found.len();
    found
        .into_iter()
        .enumerate()
        .map(|(at, (condition, finding))| {
            let title = format!("New finding in {}: {}", finding.workload, finding.subject);
            let mut lines = vec![finding.message.clone(), place(finding)];
            if at + 1 == NEW_FINDINGS && all > NEW_FINDINGS {
                lines.push(format!("{} more are in the report.", all - NEW_FINDINGS));
            } else if let Some(function) = finding.stack.first() {
                lines.push(format!("In {function}."));
            }
            let says = says(NoticeKind::Finding, &title, lines, Some(result.run));
            NewFinding { condition, says }
        })
        .collect()
}

/// How many of the new findings of one run are said; the rest are only remembered.
pub const fn most_new_findings() -> usize {
    NEW_FINDINGS
}

/// What tells a finding from others over runs and releases: plan, workload, phase, tool, evidence, extension and subject.
pub fn condition(plan: &str, finding: &Finding) -> String {
    // The same finding in the next release is no news.
    let extension = finding.build.split('@').next().unwrap_or_default();
    let parts = [
        plan,
        &finding.workload,
        &finding.phase,
        finding.tool.label(),
        extension,
        &finding.subject,
        finding.stack.first().map_or("", String::as_str),
    ];
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let hex: String = hash.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("finding/{hex}")
}

/// Cuts a message to its size.
pub fn says(kind: NoticeKind, title: &str, lines: Vec<String>, run: Option<RunId>) -> Says {
    let lines =
        lines.into_iter().filter(|line| !line.is_empty()).take(LINES).map(|line| cut(&line));
    Says { kind, title: cut(title), lines: lines.collect(), run }
}

fn is_infrastructure(finding: &Finding) -> bool {
    finding.evidence == EvidenceKind::Ledger && finding.verdict == Verdict::Invalid
}

fn line(finding: &Finding) -> String {
    if finding.workload.is_empty() {
        return finding.message.clone();
    }
    format!("{} ({}): {}", finding.workload, finding.tool, finding.message)
}

fn place(finding: &Finding) -> String {
    let mut parts = vec![finding.build.clone()];
    if !finding.phase.is_empty() {
        parts.push(format!("phase {}", finding.phase));
    }
    parts.push(finding.tool.to_string());
    if !finding.hosts.is_empty() {
        parts.push(format!("on {}", finding.hosts.join(", ")));
    }
    if let Some(rate) = finding.bytes_per_operation {
        parts.push(format!("{} per operation", figures::rate_text(rate)));
    }
    parts.join(", ")
}

fn jobs(result: &RunResult) -> String {
    let ended = result.jobs.iter().filter(|job| job.outcome == Outcome::Finished).count();
    format!("{ended} of {} jobs ran to their end.", result.jobs.len())
}

/// One line, of a sensible length.
fn cut(text: &str) -> String {
    let flat: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.chars().count() <= WIDTH {
        return flat;
    }
    let head: String = flat.chars().take(WIDTH - 1).collect();
    format!("{head}…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgsoak_analysis::result::{Detects, Owner};
    use pgsoak_proto::job::{Arm, Tool};

    fn finding(subject: &str, verdict: Verdict, evidence: EvidenceKind) -> Finding {
        let json = serde_json::json!({
            "verdict": verdict, "evidence": evidence, "workload": "w", "phase": "p",
            "tool": Tool::Plain, "build": "e@1", "arm": Arm::Candidate, "hosts": ["a"],
            "subject": subject, "owner": Owner::Extension, "bytes_per_operation": 12.0,
            "low": null, "high": null, "bytes_per_second": null, "message": format!("{subject} grew"),
            "fingerprint": "",
        });
        serde_json::from_value(json).unwrap()
    }

    fn result(verdict: Verdict, findings: &[Finding]) -> RunResult {
        let json = serde_json::json!({
            "run": RunId::issue(), "plan": "nightly", "verdict": verdict, "sentence": "the sentence",
            "detects": Detects::default(), "findings": findings, "budgets": [], "jobs": [], "engine": 1,
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn product_and_infrastructure_never_share_a_message() {
        let both = result(
            Verdict::Fail,
            &[
                finding("context X", Verdict::Fail, EvidenceKind::Rounds),
                finding("the host", Verdict::Invalid, EvidenceKind::Ledger),
            ],
        );
        let said = about_run(&both);
        let kinds: Vec<_> = said.iter().map(|says| says.kind).collect();
        assert_eq!(kinds, [NoticeKind::Fail, NoticeKind::Infrastructure]);
        assert!(!said[0].lines.join(" ").contains("the host"), "{:?}", said[0]);
        assert!(!said[1].lines.join(" ").contains("context X"), "{:?}", said[1]);
        let broken = result(Verdict::Invalid, &[]);
        let kinds: Vec<_> = about_run(&broken).iter().map(|says| says.kind).collect();
        assert_eq!(kinds, [NoticeKind::Infrastructure]);
        for says in about_run(&both) {
            assert!(says.lines.len() <= LINES);
        }
    }

    #[test]
    fn a_finding_is_new_once_over_releases() {
        let first =
            result(Verdict::Fail, &[finding("context X", Verdict::Fail, EvidenceKind::Rounds)]);
        let new = new_findings(&first, |_| false);
        assert_eq!(new.len(), 1);
        let known = new[0].condition.clone();
        let mut later = finding("context X", Verdict::Fail, EvidenceKind::Rounds);
        later.build = "e@2".to_owned();
        let next = result(
            Verdict::Fail,
            &[later, finding("context Y", Verdict::Fail, EvidenceKind::Rounds)],
        );
        let new = new_findings(&next, |condition| condition == known);
        assert_eq!(new.len(), 1);
        assert!(new[0].says.title.contains("context Y"), "{:?}", new[0]);
    }

    #[test]
    fn lines_are_short_and_flat() {
        let long = says(NoticeKind::Test, "a\nb", vec!["x ".repeat(1_000); 9], None);
        assert_eq!(long.title, "a b");
        assert!(long.lines.len() == 3 && long.lines.iter().all(|l| l.chars().count() <= WIDTH));
    }
}
