//! All lines of evidence of all jobs, each measured once: what the verdict, the comparison and the report draw on.

use crate::budgets::{Measured, budgets};
use crate::checks::{Unmet, unmet};
use crate::evidence::{JobEvidence, RunEvidence};
use crate::exits::{ExitLoss, exits};
use crate::leaks::{PhaseLeaks, errors, leaks};
use crate::ledger::{COVERAGE_FLOOR, Entry, covered, ledger};
use crate::result::Verdict;
use crate::rounds::{Allowances, PhaseRounds, allowances, named, rounds_for};
use crate::sites::{PhaseSites, sites};
use pgsoak_proto::evidence::MemcheckError;
use pgsoak_proto::job::{Arm, Outcome, Tool};
use std::collections::BTreeMap;

/// One job, measured.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The evidence.
    pub job: &'a JobEvidence,
    /// Loop phases.
    pub rounds: Vec<PhaseRounds>,
    /// Of memcheck, by phase.
    pub leaks: Vec<PhaseLeaks>,
    /// Of memcheck, with a frame of the extension.
    pub errors: Vec<MemcheckError>,
    /// Of heaptrack, by phase; empty where its coverage is below the floor.
    pub sites: Vec<PhaseSites>,
    /// Of memcheck and heaptrack, what processes lose by their end; empty where the tool's coverage is below the floor.
    pub exits: Vec<ExitLoss>,
    /// Budgets, and figures without one.
    pub measured: Vec<Measured>,
    /// Checks that did not hold.
    pub unmet: Vec<Unmet>,
    /// What the ledger shows.
    pub entries: Vec<Entry>,
    /// Where the plan has a control of the same workload and tool.
    pub control: Control,
}

/// The control arm of a job.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Control {
    /// The plan has none.
    None,
    /// Taken off.
    Used,
    /// The plan has one, and it cannot be used: what needs it is no more than a suspicion.
    Unusable,
}

impl Facts<'_> {
    /// Whether the job did its work, so that its memory means something.
    pub fn is_sound(&self) -> bool {
        self.job.outcome == Outcome::Finished
            && self.unmet.is_empty()
            && self.entries.iter().all(|entry| entry.verdict != Verdict::Invalid)
    }

    /// Whether both stand for the same workload.
    pub fn is_same_workload(&self, other: &Self) -> bool {
        self.job.workload.name == other.job.workload.name
    }

    /// Whether both stand for the same workload, build and arm, under whatever tool.
    pub fn is_same_subject(&self, other: &Self) -> bool {
        self.is_same_workload(other)
            && self.job.spec.arm == other.job.spec.arm
            && self.job.spec.build == other.job.spec.build
    }

    /// Whether the rounds of this phase found a leak.
    pub fn rounds_grow(&self, phase: &str) -> bool {
        self.rounds.iter().any(|rounds| rounds.phase == phase && !named(rounds).is_empty())
    }

    /// Whether this job's rounds count for the verdict: another tool's do only where no `plain` job of the same subject judged the phase,
    /// since that has more operations.
    pub fn carries_rounds(&self, all: &[Self], phase: &str) -> bool {
        self.job.spec.tool == Tool::Plain
            || !all.iter().any(|other| {
                other.job.spec.tool == Tool::Plain
                    && other.is_same_subject(self)
                    && other.rounds.iter().any(|rounds| rounds.phase == phase && rounds.judged > 0)
            })
    }
}

/// Measures every job of a run; control arms first, since their slopes are taken off the others'.
pub fn gather(evidence: &RunEvidence) -> Vec<Facts<'_>> {
    let floor = evidence.plan.floor.coverage.unwrap_or(COVERAGE_FLOOR);
    gather_with(&evidence.jobs, Rules { looks: 1, coverage: floor })
}

/// The same for jobs of any run.
pub fn gather_jobs(jobs: &[JobEvidence]) -> Vec<Facts<'_>> {
    gather_for(jobs, 1)
}

/// The same where so many looks at the jobs share the chance of a false alarm.
pub fn gather_for(jobs: &[JobEvidence], looks: u32) -> Vec<Facts<'_>> {
    gather_with(jobs, Rules { looks, coverage: COVERAGE_FLOOR })
}

/// By what jobs are measured beside their evidence.
#[derive(Clone, Copy)]
struct Rules {
    /// Looks that share the chance of a false alarm.
    looks: u32,
    /// Share of the sessions' seconds that a tool must have seen.
    coverage: f64,
}

fn gather_with(jobs: &[JobEvidence], rules: Rules) -> Vec<Facts<'_>> {
    let nothing = BTreeMap::new();
    let of_controls: Vec<Facts<'_>> = jobs
        .iter()
        .filter(|job| job.spec.arm == Arm::Control)
        .map(|job| facts(job, &nothing, Control::None, rules))
        .collect();
    jobs.iter()
        .map(|job| {
            if job.spec.arm == Arm::Control {
                return facts(job, &nothing, Control::None, rules);
            }
            let replicas: Vec<&Facts<'_>> = of_controls
                .iter()
                .filter(|control| {
                    control.job.workload.name == job.workload.name
                        && control.job.spec.tool == job.spec.tool
                })
                .collect();
            let sound: Vec<&Facts<'_>> =
                replicas.iter().copied().filter(|control| control.is_sound()).collect();
            let control = match (replicas.is_empty(), sound.is_empty()) {
                (true, _) => Control::None,
                (false, true) => Control::Unusable,
                (false, false) => Control::Used,
            };
            facts(job, &control_slopes(&sound), control, rules)
        })
        .collect()
}

fn control_slopes(controls: &[&Facts<'_>]) -> BTreeMap<String, Allowances> {
    let mut by_phase: BTreeMap<String, Vec<&PhaseRounds>> = BTreeMap::new();
    for rounds in controls.iter().flat_map(|control| &control.rounds) {
        by_phase.entry(rounds.phase.clone()).or_default().push(rounds);
    }
    by_phase.into_iter().map(|(phase, replicas)| (phase, allowances(replicas))).collect()
}

fn facts<'a>(
    job: &'a JobEvidence,
    controls: &BTreeMap<String, Allowances>,
    control: Control,
    rules: Rules,
) -> Facts<'a> {
    let rounds = rounds_for(job, controls, rules.looks);
    Facts {
        leaks: leaks(job),
        sites: match covered(job) {
            Some(share) if share >= rules.coverage => sites(job),
            _ => Vec::new(),
        },
        exits: match covered(job) {
            Some(share) if share >= COVERAGE_FLOOR => exits(job),
            _ => Vec::new(),
        },
        errors: errors(job),
        measured: budgets(job, &rounds),
        unmet: unmet(job),
        entries: ledger(job, rules.coverage),
        job,
        rounds,
        control,
    }
}
