//! Rounds of a loop → findings: each leak that they show, or what stayed level.

use crate::facts::{Control, Facts};
use crate::figures::{bytes_text, capital, count_text, rate_text};
use crate::result::{EvidenceKind, Finding, Owner, Verdict};
use crate::rounds::MEMORY_CONTEXTS;
use crate::rounds::OUTSIDE_CONTEXTS;
use crate::rounds::{Leak, PhaseRounds, Shape, Subject, named, trimmed};
use crate::verdict::findings::{Found, blank};
use pgsoak_proto::job::{Arm, BuildRef, Outcome, Tool};

pub(crate) fn of_rounds(
    facts: &Facts<'_>,
    all: &[Facts<'_>],
    is_covered: impl Fn(&str) -> bool,
    found: &mut Vec<Found>,
) {
    for rounds in &facts.rounds {
        if !facts.carries_rounds(all, &rounds.phase) {
            continue;
        }
        if rounds.judged == 0 {
            if !is_covered(&rounds.phase) {
                found.extend(not_judged(facts, rounds).map(Found::from));
            }
            continue;
        }
        let leaks = named(rounds);
        let is_traced = all
            .iter()
            .any(|other| other.is_same_subject(facts) && other.job.spec.tool != Tool::Plain);
        for leak in &leaks {
            found.push(leak_finding(facts, rounds, leak, is_traced).into());
        }
        if leaks.is_empty() {
            found.push(level_finding(facts, rounds).into());
        }
        if rounds.judged < rounds.sessions && !is_covered(&rounds.phase) {
            let mut finding = blank(facts, EvidenceKind::Rounds, Verdict::Inconclusive);
            finding.phase.clone_from(&rounds.phase);
            finding.subject = "sessions".to_owned();
            finding.message = format!(
                "{} of {} sessions could not be judged: {}.",
                rounds.sessions - rounds.judged,
                rounds.sessions,
                rounds.reasons.first().map_or("no reason", String::as_str)
            );
            found.push(finding.into());
        }
    }
}

/// A loop that the rounds could not judge. Under a tool that has a line of its own that is no loss.
pub(crate) fn not_judged(facts: &Facts<'_>, rounds: &PhaseRounds) -> Option<Finding> {
    if facts.job.spec.tool != Tool::Plain || facts.job.outcome != Outcome::Finished {
        return None;
    }
    let mut finding = blank(facts, EvidenceKind::Rounds, Verdict::Inconclusive);
    finding.phase.clone_from(&rounds.phase);
    finding.subject = "rounds".to_owned();
    let why = rounds.reasons.first().map_or("no session was read at rest", String::as_str);
    finding.message = format!("Growth per operation is not judged: {why}.");
    Some(finding)
}

fn leak_finding(facts: &Facts<'_>, rounds: &PhaseRounds, leak: &Leak, is_traced: bool) -> Finding {
    let is_vanilla =
        facts.job.spec.build == BuildRef::Vanilla || facts.job.spec.arm == Arm::Control;
    let verdict =
        if facts.control == Control::Unusable { Verdict::Inconclusive } else { Verdict::Fail };
    let mut finding = blank(facts, EvidenceKind::Rounds, verdict);
    finding.phase.clone_from(&rounds.phase);
    finding.subject.clone_from(&leak.subject);
    finding.owner = match (is_vanilla, facts.control) {
        (true, _) => Owner::Postgres,
        (false, Control::Used) => Owner::Extension,
        _ => Owner::Unknown,
    };
    let growth = &leak.growth;
    finding.bytes_per_operation = Some(growth.slope);
    finding.low = Some(growth.low);
    finding.high = Some(growth.high);
    let mut message = format!(
        "{} {} by {} per operation (95 % interval {} to {}), steadily over {} rounds and {} operations",
        capital(&leak.subject),
        if leak.subject == MEMORY_CONTEXTS { "grow" } else { "grows" },
        rate_text(growth.slope),
        rate_text(growth.low),
        rate_text(growth.high),
        growth.rounds,
        count_text(growth.operations),
    );
    match leak.session {
        Some(session) => message
            .push_str(&format!(" in worker {session} alone (one of {} sessions).", rounds.judged)),
        None if rounds.judged > 1 => {
            message.push_str(&format!(", on average over {} sessions.", rounds.judged));
        }
        None => message.push('.'),
    }
    if !leak.others.is_empty() {
        let others: Vec<String> = leak
            .others
            .iter()
            .take(6)
            .map(|(name, slope)| format!("{name} {}", rate_text(*slope)))
            .collect();
        message.push_str(&format!(" Growing beside it: {}.", others.join(", ")));
    }
    if let Some(anonymous) = rounds.raw.get(&Subject::Anonymous)
        && leak.of != Subject::Anonymous
    {
        message.push_str(&format!(
            " RssAnon as a whole: {} per operation.",
            rate_text(anonymous.slope)
        ));
    }
    if let Some(used) = rounds.raw.get(&Subject::Used)
        && matches!(leak.of, Subject::OverTotal | Subject::Anonymous)
    {
        message.push_str(&format!(" Memory contexts: {} per operation.", rate_text(used.slope)));
        if !is_traced {
            message.push_str(
                " Who asked for it (malloc or mmap), a memcheck job of this workload would show.",
            );
        }
    }
    if leak.subject == OUTSIDE_CONTEXTS || leak.of == Subject::Anonymous {
        message.push_str(&slack(facts, &rounds.phase, leak.session));
    }
    if matches!(leak.of, Subject::ContextTotal(_)) {
        message.push_str(
            " It takes blocks that it does not hand out: fragmentation inside the context.",
        );
    }
    match facts.control {
        Control::Used => {
            let taken = rounds.allowances.get(&leak.of).map_or(0.0, |allowance| allowance.slope);
            message.push_str(&format!(" The control arm's {} is taken off.", rate_text(taken)));
        }
        Control::Unusable => message.push_str(
            " The plan has a control arm and it cannot be used, so this may be PostgreSQL's own growth: no failure is proven.",
        ),
        Control::None => {}
    }
    finding.message = message;
    finding
}

/// What trimming the allocator at the loop's end says of growth outside contexts; empty: nothing.
fn slack(facts: &Facts<'_>, phase: &str, session: Option<u32>) -> String {
    let Some(trimmed) = trimmed(&facts.job.attempt, phase, session) else { return String::new() };
    let [before, after, left] = [trimmed.before, trimmed.after, trimmed.trimmed].map(bytes_text);
    if trimmed.is_slack() {
        format!(
            " malloc_trim at the end takes RssAnon from {after} back to {left} ({before} before the first round): \
             this is fragmentation or slack of the allocator, not blocks that are still allocated."
        )
    } else {
        format!(
            " malloc_trim at the end takes RssAnon from {after} to {left} ({before} before the first round)."
        )
    }
}

/// A phase without a leak: `pass`, or `inconclusive` where its shape cannot be told.
fn level_finding(facts: &Facts<'_>, rounds: &PhaseRounds) -> Finding {
    let whole = [Subject::Used, Subject::Anonymous];
    let unsteady = whole.iter().find_map(|subject| {
        rounds
            .pooled
            .get(subject)
            .filter(|growth| growth.shape == Shape::Unsteady)
            .map(|growth| (subject, growth))
    });
    if let Some((subject, growth)) = unsteady {
        let mut finding = blank(facts, EvidenceKind::Rounds, Verdict::Inconclusive);
        finding.phase.clone_from(&rounds.phase);
        finding.subject = subject_text(subject).to_owned();
        finding.bytes_per_operation = Some(growth.slope);
        finding.low = Some(growth.low);
        finding.high = Some(growth.high);
        finding.message = format!(
            "{} grew by {} per operation (95 % interval {} to {}), but not steadily: a leak is neither proven nor excluded. \
             More operations would tell; this run would have failed {} per operation.",
            capital(subject_text(subject)),
            rate_text(growth.slope),
            rate_text(growth.low),
            rate_text(growth.high),
            rate_text(growth.limit),
        );
        if growth.is_few {
            finding.message.push_str(&format!(
                " With {:.0} operations in the fit, a warm-up of single pages looks the same.",
                growth.operations
            ));
        }
        if *subject == Subject::Anonymous {
            finding.message.push_str(&slack(facts, &rounds.phase, None));
        }
        return finding;
    }
    let judged_contexts = rounds.pooled.contains_key(&Subject::Used);
    let judged_pages = rounds.pooled.contains_key(&Subject::Anonymous);
    let is_plain = facts.job.spec.tool == Tool::Plain;
    // RssAnon alone still catches everything, only more coarsely; without either there was nothing to read.
    let verdict = if judged_pages || (judged_contexts && !is_plain) {
        Verdict::Pass
    } else {
        Verdict::Inconclusive
    };
    let mut finding = blank(facts, EvidenceKind::Rounds, verdict);
    finding.phase.clone_from(&rounds.phase);
    finding.subject = "memory at rest".to_owned();
    let first = whole.iter().find_map(|subject| rounds.pooled.get(subject));
    finding.bytes_per_operation = first.map(|growth| growth.slope);
    finding.low = first.map(|growth| growth.low);
    finding.high = first.map(|growth| growth.high);
    let parts: Vec<String> = whole
        .iter()
        .filter_map(|subject| {
            let growth = rounds.pooled.get(subject)?;
            let shape = match growth.shape {
                Shape::Plateau => ", come to a plateau",
                Shape::GivenBack => ", given back in between",
                _ => "",
            };
            Some(format!(
                "{} {} per operation{shape} (a leak of {} would have failed)",
                subject_text(subject),
                rate_text(growth.slope),
                rate_text(growth.limit)
            ))
        })
        .collect();
    finding.message = match parts.is_empty() {
        true => "Nothing was read at rest.".to_owned(),
        false => format!("No leak: {}.", parts.join("; ")),
    };
    finding
}

fn subject_text(subject: &Subject) -> &'static str {
    match subject {
        Subject::Used => "memory contexts",
        _ => "RssAnon",
    }
}
