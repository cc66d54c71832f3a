//! Facts → findings, job by job, before those with one cause become one.

use crate::facts::Facts;
use crate::figures::{bytes_text, capital};
use crate::ledger::one_line;
use crate::over_time::OverTime;
use crate::result::{EvidenceKind, Finding, Owner, Verdict};
use crate::verdict::exits::of_exits;
use crate::verdict::memcheck::{of_errors, of_leaks};
use crate::verdict::rounds::{not_judged, of_rounds};
use crate::verdict::sites::of_sites;
use pgsoak_proto::evidence::LeakKind;
use pgsoak_proto::job::{Arm, Outcome, Tool};

/// A finding, and of a leak record how memcheck counts it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) finding: Finding,
    pub(crate) kind: Option<LeakKind>,
}

impl From<Finding> for Found {
    fn from(finding: Finding) -> Self {
        Self { finding, kind: None }
    }
}

/// All findings of all jobs.
pub(crate) fn findings(all: &[Facts<'_>], grown: &[OverTime]) -> Vec<Found> {
    let mut found = Vec::new();
    for (at, facts) in all.iter().enumerate() {
        // What the rounds cannot follow is no gap where growth over time was judged.
        let is_covered = |phase: &str| {
            grown.iter().any(|group| {
                group.reconnects
                    && group.judges(at, phase)
                    && group.trend.verdict != Verdict::Inconclusive
            })
        };
        of_rounds(facts, all, is_covered, &mut found);
        of_leaks(facts, all, &mut found);
        of_sites(facts, &mut found);
        of_errors(facts, &mut found);
        of_exits(facts, &mut found);
        of_budgets(facts, &mut found);
        of_checks(facts, &mut found);
        of_ledger(facts, &mut found);
        if !grown.iter().any(|group| group.jobs.contains(&at)) {
            of_nothing(facts, &mut found);
        }
    }
    found
}

pub(crate) fn blank(facts: &Facts<'_>, evidence: EvidenceKind, verdict: Verdict) -> Finding {
    let spec = &facts.job.spec;
    Finding {
        verdict,
        evidence,
        agreeing: Vec::new(),
        workload: facts.job.workload.name.clone(),
        phase: String::new(),
        tool: spec.tool,
        build: spec.build.to_string(),
        arm: spec.arm,
        hosts: if facts.job.agent.is_empty() { Vec::new() } else { vec![facts.job.agent.clone()] },
        subject: String::new(),
        owner: Owner::Unknown,
        bytes_per_operation: None,
        low: None,
        high: None,
        bytes_per_second: None,
        stack: Vec::new(),
        fingerprint: String::new(),
        message: String::new(),
    }
}

fn of_budgets(facts: &Facts<'_>, found: &mut Vec<Found>) {
    if facts.job.spec.arm == Arm::Control {
        return;
    }
    for measured in &facts.measured {
        let Some(budget) = measured.budget else { continue };
        if measured.verdict == Verdict::Pass {
            continue;
        }
        // A job that did not finish says so itself; its unmeasured budgets need no words of their own.
        if measured.verdict == Verdict::Inconclusive && facts.job.outcome != Outcome::Finished {
            continue;
        }
        let mut finding = blank(facts, EvidenceKind::Budget, measured.verdict);
        finding.phase.clone_from(&measured.phase);
        finding.subject = measured.what.label().to_owned();
        let unit = match measured.what {
            crate::budgets::What::GrowthPerOperation => " per operation",
            _ => "",
        };
        finding.message = match (measured.verdict, measured.measured) {
            (Verdict::Fail, Some(value)) => format!(
                "Over budget: {} of {}{unit} allowed.",
                bytes_text(value),
                bytes_text(budget)
            ),
            (_, Some(value)) => format!(
                "Budget {}{unit} not decided at {}: {}.",
                bytes_text(budget),
                bytes_text(value),
                measured.message
            ),
            (_, None) => {
                format!("Budget {}{unit} not measured: {}.", bytes_text(budget), measured.message)
            }
        };
        if measured.what == crate::budgets::What::GrowthPerOperation {
            finding.bytes_per_operation = measured.measured;
        }
        if measured.what == crate::budgets::What::Residual
            && measured.verdict == Verdict::Fail
            && !measured.message.is_empty()
        {
            finding.message.push_str(&format!(" {}.", capital(&measured.message)));
        }
        found.push(finding.into());
    }
}

fn of_checks(facts: &Facts<'_>, found: &mut Vec<Found>) {
    for unmet in &facts.unmet {
        let mut finding = blank(facts, EvidenceKind::Check, Verdict::Invalid);
        finding.phase.clone_from(&unmet.phase);
        finding.subject = "check".to_owned();
        let when =
            if unmet.round > 0 { format!(" from round {} on", unmet.round) } else { String::new() };
        finding.message = format!(
            "A check of the workload does not hold{when} ({} of {} times), so the work was not done and its memory means nothing: {} \
             The server said: {}",
            unmet.times,
            unmet.asked,
            one_line(&unmet.sql, 200),
            one_line(&unmet.answer, 300),
        );
        found.push(finding.into());
    }
}

fn of_ledger(facts: &Facts<'_>, found: &mut Vec<Found>) {
    for entry in &facts.entries {
        let mut finding = blank(facts, EvidenceKind::Ledger, entry.verdict);
        finding.phase.clone_from(&entry.phase);
        finding.subject.clone_from(&entry.subject);
        finding.message.clone_from(&entry.message);
        if entry.verdict == Verdict::Fail {
            finding.owner = Owner::Unknown;
            let tail = facts.job.attempt.ended.as_ref().map_or("", |e| e.server_log_tail.as_str());
            let last: Vec<&str> =
                tail.lines().rev().filter(|line| !line.trim().is_empty()).take(3).collect();
            if !last.is_empty() {
                let last: Vec<String> =
                    last.into_iter().rev().map(|line| one_line(line, 200)).collect();
                finding.message.push_str(&format!(" The server's log ends: {}", last.join(" | ")));
            }
        }
        found.push(finding.into());
    }
}

/// A finished job of which no line of evidence judged anything.
fn of_nothing(facts: &Facts<'_>, found: &mut Vec<Found>) {
    let judged = facts.rounds.iter().any(|rounds| rounds.judged > 0)
        || !facts.leaks.is_empty()
        || facts.job.attempt.site_digests.iter().any(|digest| digest.session.is_some())
        || facts.measured.iter().any(|measured| measured.budget.is_some())
        || (facts.job.spec.tool == Tool::Memcheck && !facts.job.attempt.memcheck_errors.is_empty())
        || !facts.unmet.is_empty()
        || !facts.entries.is_empty();
    let said = facts.rounds.iter().any(|rounds| not_judged(facts, rounds).is_some());
    if judged || said || facts.job.spec.arm == Arm::Control {
        return;
    }
    let mut finding = blank(facts, EvidenceKind::Ledger, Verdict::Inconclusive);
    finding.subject = "nothing".to_owned();
    finding.message = format!(
        "Nothing of this job was judged under {}: it has no loop of {} rounds and no budget.",
        facts.job.spec.tool,
        crate::rounds::FEWEST_ROUNDS
    );
    found.push(finding.into());
}
