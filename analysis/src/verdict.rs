//! The combined verdict of a run: a deterministic function of its evidence.
//!
//! The worst finding decides: `fail` > `invalid` > `inconclusive` > `pass`. Findings of the candidate decide, and those of the ledger that say
//! that the harness failed in any arm (a run that lacks an arm it asked for is not whole). What else the baseline and the control arm
//! show is listed: an earlier release that leaks is no failure of this one.

mod canary;
mod cause;
mod exits;
mod findings;
mod growth;
mod memcheck;
mod rounds;
mod sentence;
mod sites;
mod trends;

pub use growth::growth;

use crate::attribution::{attributions, explain};
use crate::captures::{attach, captures};
use crate::compare::compare;
use crate::evidence::RunEvidence;
use crate::facts::{Facts, gather};
use crate::horizon::horizon;
use crate::ledger::job_result;
use crate::over_time::{OverTime, over_time};
use crate::result::{
    Attribution, BudgetResult, Captured, Detects, EvidenceKind, Finding, Owner, RunResult, Verdict,
};
use crate::sites::holders;
use crate::suppressed::suppressed;
use pgsoak_proto::job::{Arm, Tool};

/// Version of the judging engine; stands in every result, so that a replay knows what it repeats.
pub const ENGINE: u32 = 5;

/// What of RssAnon a floor can ask at most: pages are no finer.
const FINEST_OUTSIDE: f64 = 4.0;

/// Judges a run. The same evidence gives the same result, byte by byte.
pub fn judge(evidence: &RunEvidence) -> RunResult {
    let all = gather(evidence);
    let grown = over_time(&all);
    let mut found = cause::combined(findings::findings(&all, &grown), &all);
    trends::add(&mut found, &grown, &all);
    canary::decide(&mut found, evidence.plan.canary, &all);
    let detects = detects(&all, &grown);
    let attributions = attributed(&all);
    let captures: Vec<Captured> = evidence.jobs.iter().flat_map(captures).collect();
    for finding in &mut found {
        if matches!(finding.evidence, EvidenceKind::Rounds | EvidenceKind::Trend)
            && finding.verdict != Verdict::Pass
        {
            explain(finding, &attributions);
        }
        attach(finding, &captures);
    }
    found.extend(floor(evidence, detects));
    if !all.iter().any(|facts| facts.job.spec.arm == Arm::Candidate) {
        found.push(run_finding(
            "nothing",
            "The run has no job of a candidate: nothing was judged.".to_owned(),
        ));
    }
    found.sort_by(|a, b| {
        b.verdict
            .cmp(&a.verdict)
            .then(a.arm.cmp(&b.arm))
            .then(a.evidence.cmp(&b.evidence))
            .then(a.workload.cmp(&b.workload))
            .then(size(b).total_cmp(&size(a)))
            .then(a.phase.cmp(&b.phase))
            .then(a.subject.cmp(&b.subject))
            .then(a.tool.cmp(&b.tool))
            .then(a.build.cmp(&b.build))
            .then(a.message.cmp(&b.message))
    });
    let verdict =
        found.iter().filter(|finding| decides(finding)).map(|finding| finding.verdict).max();
    let verdict = verdict.unwrap_or(Verdict::Pass);
    let budgets = budgets(&all);
    let comparisons = compare(&all);
    let sentence = sentence::sentence(verdict, &found, &budgets, &comparisons, detects);
    RunResult {
        run: evidence.run,
        plan: evidence.plan.name.clone(),
        verdict,
        sentence,
        detects,
        findings: found,
        budgets,
        comparisons,
        holders: all
            .iter()
            .filter(|facts| facts.job.spec.arm != Arm::Canary)
            .filter_map(|facts| holders(facts.job))
            .collect(),
        suppressed: suppressed(&evidence.jobs),
        attributions,
        captures,
        horizon: horizon(&all, &grown),
        jobs: evidence.jobs.iter().map(job_result).collect(),
        engine: ENGINE,
    }
}

/// The ledgers of all sound jobs, each beside what heaptrack saw of the same workload and build.
fn attributed(all: &[Facts<'_>]) -> Vec<Attribution> {
    let mut ledgers = Vec::new();
    let judged = |facts: &&Facts<'_>| facts.is_sound() && facts.job.spec.arm != Arm::Canary;
    for facts in all.iter().filter(judged) {
        for mut ledger in attributions(facts.job) {
            let of_heaptrack = all.iter().filter(|other| other.is_same_subject(facts));
            ledger.heaptrack_bytes_per_operation = of_heaptrack
                .flat_map(|other| &other.sites)
                .find(|sites| sites.phase == ledger.phase)
                .map(|sites| sites.all_bytes_per_operation);
            ledgers.push(ledger);
        }
    }
    ledgers
}

/// Whether a finding counts for the run's verdict.
pub fn decides(finding: &Finding) -> bool {
    finding.arm == Arm::Candidate
        || (finding.evidence == EvidenceKind::Ledger && finding.verdict == Verdict::Invalid)
}

fn size(finding: &Finding) -> f64 {
    finding.bytes_per_operation.or(finding.bytes_per_second).unwrap_or(0.0)
}

/// The coarsest limit over the candidate's judged phases: a leak below it could have gone unseen in one of them.
fn detects(all: &[Facts<'_>], grown: &[OverTime]) -> Detects {
    let mut detects = Detects::default();
    for group in grown.iter().filter(|group| group.arm(all) == Some(Arm::Candidate)) {
        detects.bytes_per_second =
            larger(detects.bytes_per_second, group.trend.detects_bytes_per_second);
    }
    for facts in all.iter().filter(|facts| facts.job.spec.arm == Arm::Candidate) {
        for rounds in &facts.rounds {
            if !facts.carries_rounds(all, &rounds.phase) {
                continue;
            }
            let inside = rounds.context_limit();
            detects.bytes_per_operation = larger(detects.bytes_per_operation, inside);
            detects.bytes_per_operation_outside_contexts =
                larger(detects.bytes_per_operation_outside_contexts, rounds.outside_limit());
        }
    }
    detects
}

fn larger(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.max(b)),
        (a, b) => a.or(b),
    }
}

/// A plan can demand what the run must be able to find.
fn floor(evidence: &RunEvidence, detects: Detects) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut miss = |demanded: f64, unit: &str, reached: Option<f64>| {
        let reached = match reached {
            Some(limit) => format!("it would have found {limit:.1} {unit}"),
            None => "no line of evidence judged that".to_owned(),
        };
        found.push(run_finding(
            "floor",
            format!(
                "The plan demands that growth of {demanded} {unit} be found; {reached}. \
                 More operations, a longer run or a steadier load would lower the limit."
            ),
        ));
    };
    let exceeds =
        |limit: Option<f64>, floor: f64| limit.is_none_or(|limit| limit > floor * 1.000_001);
    if let Some(demanded) = evidence.plan.floor.bytes_per_operation {
        if exceeds(detects.bytes_per_operation, demanded) {
            miss(demanded, "bytes per operation", detects.bytes_per_operation);
        } else if let Some(limit) = detects.bytes_per_operation_outside_contexts
            && exceeds(Some(limit), demanded.max(FINEST_OUTSIDE))
        {
            miss(demanded.max(FINEST_OUTSIDE), "bytes per operation outside contexts", Some(limit));
        }
    }
    if let Some(demanded) = evidence.plan.floor.bytes_per_second
        && exceeds(detects.bytes_per_second, demanded)
    {
        miss(demanded, "bytes per second", detects.bytes_per_second);
    }
    found
}

/// A finding about the run as a whole.
fn run_finding(subject: &str, message: String) -> Finding {
    Finding {
        verdict: Verdict::Inconclusive,
        evidence: EvidenceKind::Ledger,
        agreeing: Vec::new(),
        workload: String::new(),
        phase: String::new(),
        tool: Tool::Plain,
        build: String::new(),
        arm: Arm::Candidate,
        hosts: Vec::new(),
        subject: subject.to_owned(),
        owner: Owner::Unknown,
        bytes_per_operation: None,
        low: None,
        high: None,
        bytes_per_second: None,
        stack: Vec::new(),
        fingerprint: String::new(),
        message,
    }
}

fn budgets(all: &[Facts<'_>]) -> Vec<BudgetResult> {
    let mut results = Vec::new();
    // A control arm's figures stand beside the others'.
    for facts in
        all.iter().filter(|facts| !matches!(facts.job.spec.arm, Arm::Control | Arm::Canary))
    {
        for measured in &facts.measured {
            let Some(budget_bytes) = measured.budget else { continue };
            let control = all
                .iter()
                .filter(|other| {
                    other.job.spec.arm == Arm::Control
                        && other.is_same_workload(facts)
                        && other.is_sound()
                })
                .flat_map(|other| &other.measured)
                .find(|other| other.phase == measured.phase && other.what == measured.what);
            results.push(BudgetResult {
                workload: facts.job.workload.name.clone(),
                phase: measured.phase.clone(),
                build: facts.job.spec.build.to_string(),
                arm: facts.job.spec.arm,
                what: measured.what.label().to_owned(),
                budget_bytes,
                measured_bytes: measured.measured,
                held_by_contexts_bytes: measured.held_by_contexts,
                after_trim_bytes: measured.after_trim,
                control_bytes: control.and_then(|other| other.measured),
                verdict: measured.verdict,
                message: measured.message.clone(),
            });
        }
    }
    results
}
