//! Facts → findings, job by job, before those with one cause become one.

use crate::facts::{Control, Facts};
use crate::figures::{bytes_text, capital, count_text, rate_text};
use crate::leaks::{PhaseLeaks, StackGrowth};
use crate::ledger::one_line;
use crate::over_time::OverTime;
use crate::result::{EvidenceKind, Finding, Owner, Verdict};
use crate::rounds::MEMORY_CONTEXTS;
use crate::rounds::OUTSIDE_CONTEXTS;
use crate::rounds::{Leak, PhaseRounds, Shape, Subject, named, trimmed};
use crate::stack::{fingerprint, normal_stack, owner, telling_frame};
use crate::verdict::exits::of_exits;
use crate::verdict::sites::of_sites;
use pgsoak_proto::evidence::{LeakKind, PhaseKind};
use pgsoak_proto::job::{Arm, BuildRef, Outcome, Tool};

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

fn of_rounds(
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
fn not_judged(facts: &Facts<'_>, rounds: &PhaseRounds) -> Option<Finding> {
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

fn of_leaks(facts: &Facts<'_>, all: &[Facts<'_>], found: &mut Vec<Found>) {
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

fn of_errors(facts: &Facts<'_>, found: &mut Vec<Found>) {
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
