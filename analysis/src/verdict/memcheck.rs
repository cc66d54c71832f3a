//! What memcheck said → findings: stacks that lose or keep memory in proportion, and its errors.

use crate::facts::Facts;
use crate::figures::{bytes_text, rate_text};
use crate::leaks::{PhaseLeaks, StackGrowth};
use crate::result::{EvidenceKind, Finding, Owner, Verdict};
use crate::stack::{fingerprint, normal_stack, owner, telling_frame};
use crate::verdict::findings::{Found, blank};
use pgsoak_proto::evidence::{LeakKind, PhaseKind};
use pgsoak_proto::job::{Outcome, Tool};

pub(crate) fn of_leaks(facts: &Facts<'_>, all: &[Facts<'_>], found: &mut Vec<Found>) {
    if facts.job.spec.tool != Tool::Memcheck {
        return;
    }
    let loops: Vec<&str> = facts
        .job
        .attempt
        .phases
        .iter()
        .filter(|span| span.started.kind == PhaseKind::Loop)
        .map(|span| span.started.name.as_str())
        .collect();
    for phase in loops {
        let judged = facts.leaks.iter().find(|leaks| leaks.phase == phase && leaks.intervals >= 2);
        let Some(leaks) = judged else {
            if facts.job.outcome == Outcome::Finished {
                let mut finding = blank(facts, EvidenceKind::LeakRecord, Verdict::Inconclusive);
                finding.phase = phase.to_owned();
                finding.subject = "leak checks".to_owned();
                finding.message =
                    "Fewer than three leak checks of one backend: losses per operation are not judged.".to_owned();
                found.push(finding.into());
            }
            continue;
        };
        of_phase_leaks(facts, all, leaks, found);
    }
}

fn of_phase_leaks(
    facts: &Facts<'_>,
    all: &[Facts<'_>],
    leaks: &PhaseLeaks,
    found: &mut Vec<Found>,
) {
    let rounds_grow =
        all.iter().any(|other| other.is_same_subject(facts) && other.rounds_grow(&leaks.phase));
    let mut once = (0_usize, 0_u64);
    let before = found.len();
    for growth in &leaks.stacks {
        let is_own_and_kept =
            growth.owner == Owner::Extension && growth.kind == LeakKind::Reachable;
        if !growth.proportional {
            once.0 += 1;
            once.1 = once.1.saturating_add(growth.bytes);
            continue;
        }
        // What PostgreSQL keeps by pointer and grows is for the rounds to find; lost blocks of its own are listed.
        if growth.owner != Owner::Extension && growth.kind == LeakKind::Reachable {
            continue;
        }
        let verdict = crate::leaks::verdict(growth, rounds_grow);
        found.push(Found {
            finding: stack_finding(facts, growth, verdict, is_own_and_kept && !rounds_grow),
            kind: Some(growth.kind),
        });
    }
    if found.len() == before {
        let mut finding = blank(facts, EvidenceKind::LeakRecord, Verdict::Pass);
        finding.phase.clone_from(&leaks.phase);
        finding.subject = "leak checks".to_owned();
        finding.message = format!(
            "No stack of the extension loses memory in proportion to the operations, over {} intervals between checks; \
             {} stacks grew without that ({} in them, PostgreSQL's own included).",
            leaks.intervals,
            once.0,
            bytes_text(crate::stats::bytes(once.1)),
        );
        found.push(finding.into());
    }
}

fn stack_finding(
    facts: &Facts<'_>,
    growth: &StackGrowth,
    verdict: Verdict,
    kept_and_flat: bool,
) -> Finding {
    let mut finding = blank(facts, EvidenceKind::LeakRecord, verdict);
    finding.phase.clone_from(&growth.phase);
    finding.subject.clone_from(&growth.function);
    finding.owner = growth.owner;
    finding.bytes_per_operation = Some(growth.bytes_per_operation);
    finding.low = Some(growth.range.0);
    finding.high = Some(growth.range.1);
    finding.stack.clone_from(&growth.stack);
    finding.fingerprint.clone_from(&growth.fingerprint);
    let how = match growth.kind {
        LeakKind::Definite => "loses",
        LeakKind::Indirect => "loses (through blocks that are lost themselves)",
        LeakKind::Possible => {
            "possibly loses (only pointers into the middle of the blocks are left)"
        }
        LeakKind::Reachable => "keeps",
    };
    let place =
        if growth.place.is_empty() { String::new() } else { format!(" ({})", growth.place) };
    let mut message = format!(
        "{}{place} {how} {} in {:.3} blocks per operation, in {} of {} intervals between leak checks ({} by the last one).",
        growth.function,
        rate_text(growth.bytes_per_operation),
        growth.blocks_per_operation,
        growth.grew_in.0,
        growth.grew_in.1,
        bytes_text(crate::stats::bytes(growth.bytes)),
    );
    if growth.owner != Owner::Extension {
        message.push_str(" No frame is the extension's: listed, not failed.");
    } else if kept_and_flat {
        message.push_str(" Memory as a whole does not grow between rounds: listed, not failed.");
    }
    finding.message = message;
    finding
}

pub(crate) fn of_errors(facts: &Facts<'_>, found: &mut Vec<Found>) {
    let image = crate::leaks::image(facts.job);
    for error in &facts.errors {
        let mut finding = blank(facts, EvidenceKind::LeakRecord, Verdict::Fail);
        finding.subject = error.what.clone();
        finding.owner = owner(&error.stack, &image);
        finding.stack = normal_stack(&error.stack);
        finding.fingerprint = fingerprint(&error.stack);
        let place = telling_frame(&error.stack, &image)
            .map(|frame| match frame.file.is_empty() {
                true => frame.function.clone(),
                false => format!("{} ({}:{})", frame.function, frame.file, frame.line),
            })
            .unwrap_or_default();
        finding.message = format!(
            "{} in {place}, {} (stack {}).",
            error.what,
            if error.count == 1 { "once".to_owned() } else { format!("{} times", error.count) },
            finding.fingerprint,
        );
        found.push(finding.into());
    }
}
