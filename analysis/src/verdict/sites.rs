//! Growth by allocation site → findings, and joined with what rounds and leak records say of the same cause.

use crate::facts::Facts;
use crate::figures::{bytes_text, count_text, rate_text};
use crate::result::{EvidenceKind, Finding, Owner, Verdict};
use crate::rounds::OUTSIDE_CONTEXTS;
use crate::sites::{PhaseSites, SiteGrowth};
use crate::stats::bytes;
use crate::verdict::findings::{Found, blank};
use pgsoak_proto::evidence::PhaseKind;
use pgsoak_proto::job::{Outcome, Tool};

/// Share of a growth that sites must come to, to be its cause.
const EXPLAINS: f64 = 0.5;

/// Of contexts less is asked: they take blocks in steps.
const EXPLAINS_CONTEXTS: f64 = 0.25;

/// Findings of heaptrack's marks.
pub(crate) fn of_sites(facts: &Facts<'_>, found: &mut Vec<Found>) {
    if facts.job.spec.tool != Tool::Heaptrack || facts.job.outcome != Outcome::Finished {
        return;
    }
    let phases = facts.job.attempt.phases.iter();
    for span in phases.filter(|span| span.started.kind == PhaseKind::Loop) {
        // A phase that ran nothing (a control arm's) has no workers.
        if span.started.workers == 0 {
            continue;
        }
        let name = &span.started.name;
        let judged = facts.sites.iter().find(|sites| sites.phase == *name && sites.intervals >= 2);
        let Some(sites) = judged else {
            let mut finding = blank(facts, EvidenceKind::Site, Verdict::Inconclusive);
            finding.phase.clone_from(name);
            finding.subject = "allocation sites".to_owned();
            finding.message =
                "Fewer than three marks of one backend in heaptrack's file: growth by site is not judged.".to_owned();
            found.push(finding.into());
            continue;
        };
        of_phase(facts, sites, found);
    }
}

fn of_phase(facts: &Facts<'_>, sites: &PhaseSites, found: &mut Vec<Found>) {
    let before = found.len();
    found.extend(sites.failing().map(|site| grown(facts, sites, site).into()));
    if found.len() > before {
        return;
    }
    let verdict = if sites.truncated { Verdict::Inconclusive } else { Verdict::Pass };
    let mut finding = blank(facts, EvidenceKind::Site, verdict);
    finding.phase.clone_from(&sites.phase);
    finding.subject = "allocation sites".to_owned();
    finding.message = format!(
        "No site of the extension outside memory contexts grows in proportion to the operations, over {} intervals between marks and {} operations; \
         the process as a whole grew by {} of malloc per operation.",
        sites.intervals,
        count_text(bytes(sites.operations)),
        rate_text(sites.all_bytes_per_operation),
    );
    if let Some(site) = sites.sites.first().filter(|site| site.bytes_per_operation >= 0.1) {
        finding.message.push_str(&format!(
            " Most of one stack: {} per operation in {} of {} intervals, {}{}{}.",
            rate_text(site.bytes_per_operation),
            site.grew_in.0,
            site.grew_in.1,
            site.function,
            place(site),
            if site.of_contexts { " (blocks of contexts)" } else { "" },
        ));
    }
    if sites.truncated {
        finding.message.push_str(
            " heaptrack's file ends in the middle, so what came after it is not excluded.",
        );
    }
    found.push(finding.into());
}

fn grown(facts: &Facts<'_>, sites: &PhaseSites, site: &SiteGrowth) -> Finding {
    let mut finding = blank(facts, EvidenceKind::Site, Verdict::Fail);
    finding.phase.clone_from(&sites.phase);
    finding.subject.clone_from(&site.function);
    finding.owner = site.owner;
    finding.bytes_per_operation = Some(site.bytes_per_operation);
    (finding.low, finding.high) = (Some(site.range.0), Some(site.range.1));
    finding.stack.clone_from(&site.stack);
    finding.fingerprint.clone_from(&site.fingerprint);
    finding.message = message(site);
    finding
}

fn place(site: &SiteGrowth) -> String {
    if site.place.is_empty() { String::new() } else { format!(" ({})", site.place) }
}

fn message(site: &SiteGrowth) -> String {
    format!(
        "{}{} holds {} more with each operation, in {} of {} intervals between marks ({} at the last one).",
        site.function,
        place(site),
        rate_text(site.bytes_per_operation),
        site.grew_in.0,
        site.grew_in.1,
        bytes_text(bytes(site.live_bytes)),
    )
}

/// Heaptrack's jobs of the same workload, build, arm and phase that can be believed.
pub(crate) fn seen<'a>(
    grown: &'a Finding,
    all: &'a [Facts<'_>],
) -> impl Iterator<Item = &'a PhaseSites> {
    let is_same = |facts: &&Facts<'_>| {
        facts.job.workload.name == grown.workload
            && facts.job.spec.build.to_string() == grown.build
            && facts.job.spec.arm == grown.arm
            && facts.is_sound()
    };
    all.iter()
        .filter(is_same)
        .flat_map(|facts| &facts.sites)
        .filter(|sites| sites.phase == grown.phase && sites.intervals >= 2)
}

/// Joins a growth between rounds with the sites that hold it, and takes their own findings out of `found`.
pub(crate) fn agree(grown: &mut Finding, found: &mut Vec<Found>, all: &[Facts<'_>]) {
    let is_outside = grown.subject == OUTSIDE_CONTEXTS;
    if !is_outside && !grown.subject.starts_with("context ") {
        return;
    }
    let slope = grown.bytes_per_operation.unwrap_or(0.0);
    let share = if is_outside { EXPLAINS } else { EXPLAINS_CONTEXTS };
    let mut best: Option<(SiteGrowth, f64)> = None;
    for sites in seen(grown, all) {
        let own = sites
            .sites
            .iter()
            .filter(|site| site.owner == Owner::Extension && site.of_contexts != is_outside);
        let together: f64 = own.clone().map(|site| site.bytes_per_operation).sum();
        // Sorted by growth: the first is the largest.
        if let Some(largest) = own.clone().next()
            && best.as_ref().is_none_or(|(_, known)| together > *known)
        {
            best = Some((largest.clone(), together));
        }
    }
    let Some((largest, together)) = best.filter(|(_, together)| *together >= share * slope) else {
        return;
    };
    grown.agreeing.push(EvidenceKind::Site);
    grown.owner = Owner::Extension;
    grown.message.push_str(&format!(" heaptrack: {}", message(&largest)));
    if together > 1.05 * largest.bytes_per_operation {
        let all = rate_text(together);
        grown.message.push_str(&format!(" All stacks of the extension together: {all}."));
    }
    if grown.stack.is_empty() {
        grown.stack.clone_from(&largest.stack);
        grown.fingerprint.clone_from(&largest.fingerprint);
        if is_outside && together <= 1.05 * largest.bytes_per_operation {
            // malloc's own headers are in RssAnon and not in heaptrack's count, which is exact.
            grown.bytes_per_operation = Some(largest.bytes_per_operation);
            (grown.low, grown.high) = (Some(largest.range.0), Some(largest.range.1));
        }
    }
    absorb(grown, found, |_| is_outside);
}

/// Joins a leak record with the site of the same function.
pub(crate) fn confirm(record: &mut Finding, found: &mut Vec<Found>) {
    let function = record.subject.clone();
    let joined = absorb(record, found, |site| site.subject == function);
    if let Some(site) = joined.first() {
        record.agreeing.push(EvidenceKind::Site);
        record.message.push_str(&format!(" heaptrack: {}", site.message));
    }
}

/// Takes out the failing sites of the same subject that `is_it` names.
fn absorb(
    into: &mut Finding,
    found: &mut Vec<Found>,
    is_it: impl Fn(&Finding) -> bool,
) -> Vec<Finding> {
    let mut taken = Vec::new();
    found.retain(|other| {
        let site = &other.finding;
        let is_same = site.evidence == EvidenceKind::Site
            && site.verdict == Verdict::Fail
            && site.workload == into.workload
            && site.phase == into.phase
            && site.build == into.build
            && site.arm == into.arm
            && is_it(site);
        if is_same {
            taken.push(site.clone());
        }
        !is_same
    });
    for site in &taken {
        into.hosts.extend(site.hosts.iter().cloned());
    }
    into.hosts.sort();
    into.hosts.dedup();
    taken
}
