//! The canary: whether each tool, on each agent, finds the leak that was planted and leaves the plateau alone.
//!
//! Judged from the facts of the canary's jobs, before anything was combined: each tool has to find the leak by itself. What it finds says nothing
//! about the product, so the findings of these jobs go, and one for each job says what came of it: `pass`, or `invalid` on that agent.

use crate::facts::Facts;
use crate::leaks;
use crate::result::{EvidenceKind, Finding, Verdict};
use crate::sites::PhaseSites;
use crate::stats::bytes;
use crate::verdict::findings::blank;
use pgsoak_proto::evidence::LeakKind;
use pgsoak_proto::job::{Arm, Outcome, Tool};
use pgsoak_workloads::canary::{LEAK, LEAK_BYTES, LEAK_FUNCTION};
use std::collections::BTreeSet;

/// Share of the planted leak that a tool with exact counts must find, and may at most.
const EXACT: std::ops::RangeInclusive<f64> = 0.95..=1.1;

/// Share that massif's peak must hold: it leaves out what is below its threshold.
const AT_THE_PEAK: f64 = 0.8;

/// Puts the canary's word in the place of its jobs' findings.
pub(super) fn decide(found: &mut Vec<Finding>, is_asked: bool, all: &[Facts<'_>]) {
    found.retain(|finding| finding.arm != Arm::Canary);
    let canaries = || all.iter().filter(|facts| facts.job.spec.arm == Arm::Canary);
    found.extend(canaries().map(word));
    if !is_asked {
        return;
    }
    // Who ran the plan's jobs under a tool that no canary tried there.
    let mut untried: BTreeSet<(&str, Tool)> = BTreeSet::new();
    for facts in all.iter().filter(|facts| facts.job.spec.arm != Arm::Canary) {
        let (agent, tool) = (facts.job.agent.as_str(), facts.job.spec.tool);
        let is_tried =
            canaries().any(|canary| canary.job.agent == agent && canary.job.spec.tool == tool);
        if !agent.is_empty() && !is_tried && untried.insert((agent, tool)) {
            let mut finding = blank(facts, EvidenceKind::Ledger, Verdict::Invalid);
            finding.arm = Arm::Canary;
            finding.subject = "canary".to_owned();
            finding.message = format!(
                "No canary ran under {tool} on {agent}, which ran jobs of the plan under it: it came after the run was submitted, \
                 or the canary could not go there."
            );
            found.push(finding);
        }
    }
}

/// What came of one job.
fn word(facts: &Facts<'_>) -> Finding {
    let tool = facts.job.spec.tool;
    let is_leak = facts.job.workload.name == LEAK;
    let seen = match is_sound(facts) {
        Err(why) => Err(why),
        Ok(()) if is_leak => leak(facts),
        Ok(()) => plateau(facts),
    };
    let verdict = if seen.is_ok() { Verdict::Pass } else { Verdict::Invalid };
    let mut finding = blank(facts, EvidenceKind::Ledger, verdict);
    finding.subject = "canary".to_owned();
    let agent = match facts.job.agent.as_str() {
        "" => "no agent".to_owned(),
        agent => agent.to_owned(),
    };
    finding.message = match seen {
        Ok(what) => format!("{tool} on {agent}: {what}"),
        Err(why) => format!(
            "{tool} on {agent} cannot be trusted: {why} What it found or did not find in this run says nothing; see `pgsoak doctor --canary` on that host."
        ),
    };
    finding
}

fn is_sound(facts: &Facts<'_>) -> Result<(), String> {
    if facts.job.outcome != Outcome::Finished {
        let reason = facts.job.reason.trim_end_matches('.');
        return Err(format!("the canary did not come to its end ({reason})."));
    }
    let bad = facts.entries.iter().find(|entry| entry.verdict != Verdict::Pass);
    match bad {
        Some(entry) => Err(format!("the canary's evidence is not whole: {}", entry.message)),
        None => Ok(()),
    }
}

/// The planted leak, in the words of one tool.
fn leak(facts: &Facts<'_>) -> Result<String, String> {
    let missed = |what: &str| {
        format!("it missed the leak of {LEAK_BYTES} B per operation that was planted ({what}).")
    };
    match facts.job.spec.tool {
        Tool::Plain => {
            let grows = facts.rounds.iter().any(|rounds| facts.rounds_grow(&rounds.phase));
            if grows {
                Ok("the planted leak grows from round to round.".to_owned())
            } else {
                Err(missed("memory between rounds does not grow"))
            }
        }
        Tool::Memcheck => facts
            .leaks
            .iter()
            .flat_map(|phase| &phase.stacks)
            .find(|stack| {
                stack.kind == LeakKind::Definite
                    && stack.proportional
                    && stack.function == LEAK_FUNCTION
                    && is_exact(stack.bytes_per_operation)
            })
            .map(|stack| named(&stack.function, &stack.place, stack.bytes_per_operation))
            .ok_or_else(|| missed("no definite loss in lose_block between checks")),
        Tool::Heaptrack => facts
            .sites
            .iter()
            .flat_map(PhaseSites::failing)
            .find(|site| site.function == LEAK_FUNCTION && is_exact(site.bytes_per_operation))
            .map(|site| named(&site.function, &site.place, site.bytes_per_operation))
            .ok_or_else(|| missed("no site in lose_block grows between marks")),
        Tool::Massif => {
            at_peak(facts).ok_or_else(|| missed("lose_block does not hold it at the peak"))
        }
    }
}

fn is_exact(rate: f64) -> bool {
    EXACT.contains(&(rate / LEAK_BYTES))
}

fn named(function: &str, place: &str, rate: f64) -> String {
    let place = if place.is_empty() { String::new() } else { format!(" ({place})") };
    format!("the planted leak is found in {function}{place}, {rate:.1} B per operation.")
}

/// massif knows no operations: what the function holds at the peak, over those that the job did.
fn at_peak(facts: &Facts<'_>) -> Option<String> {
    let attempt = &facts.job.attempt;
    let ended = attempt.phases.iter().filter_map(|span| span.ended.as_ref());
    let operations = ended.map(|ended| ended.operations).max().filter(|count| *count > 0)?;
    let held =
        attempt.site_digests.iter().filter(|digest| digest.session.is_some()).map(|digest| {
            let of_leak = digest
                .sites
                .iter()
                .filter(|site| site.stack.iter().any(|frame| frame.function == LEAK_FUNCTION));
            of_leak.fold(0_u64, |sum, site| sum.saturating_add(site.peak_bytes))
        });
    let rate = bytes(held.max()?) / bytes(operations);
    (rate >= AT_THE_PEAK * LEAK_BYTES).then(|| named(LEAK_FUNCTION, "at the peak", rate))
}

/// What stays, and must not be called a leak.
fn plateau(facts: &Facts<'_>) -> Result<String, String> {
    let flagged = match facts.job.spec.tool {
        Tool::Plain => facts.rounds.iter().any(|rounds| facts.rounds_grow(&rounds.phase)),
        Tool::Memcheck => facts
            .leaks
            .iter()
            .flat_map(|phase| &phase.stacks)
            .any(|stack| leaks::verdict(stack, false) == Verdict::Fail),
        Tool::Heaptrack => facts.sites.iter().any(|phase| phase.failing().next().is_some()),
        Tool::Massif => false,
    };
    if flagged {
        Err(format!("it calls {} a leak, which fills up and stays.", facts.job.workload.name))
    } else {
        Ok(format!("{}, which fills up and stays, is left alone.", facts.job.workload.name))
    }
}
