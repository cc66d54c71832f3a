//! What a comparison needs of one job: a handful of figures, so that the evidence of many runs need not be held at once.

use crate::budgets::What;
use crate::compare::keyed;
use crate::evidence::JobEvidence;
use crate::facts::{Facts, gather_jobs};
use crate::over_time::{Whose, levels, over_time};
use crate::result::{Owner, Verdict};
use crate::rounds::{Subject, named};
use pgsoak_proto::evidence::LeakKind;
use pgsoak_proto::id::RunId;
use pgsoak_proto::job::{Arm, Outcome, Tool};
use pgsoak_workloads::workload::{Budget, Phase, Workload};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Name of the growth of all contexts.
pub(super) const CONTEXTS: &str = "memory contexts";
/// Name of the growth of RssAnon.
pub(super) const ANONYMOUS: &str = "RssAnon";

/// The figures of one job. A function of its evidence, kept by the store so that a comparison need not read that again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobFigures {
    /// Its run.
    pub run: RunId,
    /// Name of the agent.
    pub agent: String,
    /// Wall clock of the host, microseconds since 1970.
    pub started_at_unix_us: u64,
    /// The build.
    pub build: String,
    /// The arm that it played.
    pub arm: Arm,
    /// As in `pg_config --version`.
    pub postgres_version: String,
    pub(super) workload: String,
    pub(super) tool: Tool,
    /// What must be equal for any comparison: the work itself.
    pub(super) work: String,
    /// What must be equal for levels and amounts: how much of it.
    pub(super) length: String,
    /// Why its memory means nothing; `None`: it does.
    pub(super) unsound: Option<String>,
    /// Whether the product failed: a statement, or the server.
    pub(super) has_failed: bool,
    /// Names of the phases, in order.
    pub(super) phases: Vec<String>,
    /// By phase and slot.
    #[serde(with = "keyed")]
    pub(super) levels: BTreeMap<(String, String), f64>,
    /// By phase and whose: slope and threshold, bytes per second.
    #[serde(with = "keyed")]
    pub(super) drifts: BTreeMap<(String, Whose), (f64, f64)>,
    /// By phase and what grows.
    #[serde(with = "keyed")]
    pub(super) rates: BTreeMap<(String, String), Rate>,
    /// By phase and what: bytes, and the budget.
    #[serde(with = "keyed")]
    pub(super) amounts: BTreeMap<(String, What), (f64, Option<f64>)>,
    /// By phase, kind and fingerprint.
    #[serde(with = "keyed")]
    pub(super) stacks: BTreeMap<(String, LeakKind, String), Stack>,
    /// Phases whose leak checks were judged.
    pub(super) checked: BTreeSet<String>,
}

/// Growth per operation of one subject.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Rate {
    pub(super) slope: f64,
    pub(super) half_width: f64,
    pub(super) threshold: f64,
    /// Whether it is a leak by itself.
    pub(super) is_leak: bool,
}

/// A stack of memcheck that grows in proportion to the operations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Stack {
    pub(super) bytes_per_operation: f64,
    pub(super) function: String,
    pub(super) is_own: bool,
}

impl JobFigures {
    /// Name of the workload.
    pub fn workload(&self) -> &str {
        &self.workload
    }

    /// Takes the figures of a job from its evidence.
    pub fn of(job: &JobEvidence) -> Self {
        let all = gather_jobs(std::slice::from_ref(job));
        let started = job.attempt.started.as_ref();
        let mut figures = Self {
            run: job.spec.run,
            agent: job.agent.clone(),
            started_at_unix_us: started.map_or(0, |started| started.started_at_unix_us),
            build: job.spec.build.to_string(),
            arm: job.spec.arm,
            postgres_version: started.map(|s| s.postgres_version.clone()).unwrap_or_default(),
            workload: job.workload.name.clone(),
            tool: job.spec.tool,
            work: work(&job.workload),
            length: format!("{:?} at scale {}", job.spec.loop_for, job.spec.scale),
            unsound: None,
            has_failed: job.outcome == Outcome::Failed,
            phases: job.workload.phases.iter().map(|phase| phase.name.clone()).collect(),
            levels: BTreeMap::new(),
            drifts: BTreeMap::new(),
            rates: BTreeMap::new(),
            amounts: BTreeMap::new(),
            stacks: BTreeMap::new(),
            checked: BTreeSet::new(),
        };
        let Some(facts) = all.first() else { return figures };
        figures.unsound = unsound(facts);
        if figures.unsound.is_none() {
            figures.take(facts, &all);
        }
        figures
    }

    fn take(&mut self, facts: &Facts<'_>, all: &[Facts<'_>]) {
        if self.tool == Tool::Plain {
            self.take_growth(facts, all);
        }
        for measured in &facts.measured {
            if let Some(bytes) = measured.measured
                && measured.what != What::GrowthPerOperation
            {
                self.amounts
                    .insert((measured.phase.clone(), measured.what), (bytes, measured.budget));
            }
        }
        for leaks in facts.leaks.iter().filter(|leaks| leaks.intervals >= 2) {
            self.checked.insert(leaks.phase.clone());
            for growth in leaks.stacks.iter().filter(|growth| growth.proportional) {
                let stack = Stack {
                    bytes_per_operation: growth.bytes_per_operation,
                    function: growth.function.clone(),
                    is_own: growth.owner == Owner::Extension,
                };
                let key = (growth.phase.clone(), growth.kind, growth.fingerprint.clone());
                self.stacks.insert(key, stack);
            }
        }
    }

    fn take_growth(&mut self, facts: &Facts<'_>, all: &[Facts<'_>]) {
        for level in levels(facts.job) {
            self.levels.insert((level.phase, level.slot), level.bytes);
        }
        for group in over_time(all) {
            if let Some(slope) = group.trend.bytes_per_second {
                self.drifts.insert((group.phase, group.whose), (slope, group.trend.threshold));
            }
        }
        for rounds in &facts.rounds {
            let leaks: BTreeSet<Subject> = named(rounds).into_iter().map(|leak| leak.of).collect();
            for (subject, growth) in &rounds.raw {
                let name = match subject {
                    Subject::Used => CONTEXTS.to_owned(),
                    Subject::Anonymous => ANONYMOUS.to_owned(),
                    // Of single contexts only what leaks is worth a line.
                    Subject::Context(name) if growth.is_leak() => format!("context {name}"),
                    _ => continue,
                };
                let rate = Rate {
                    slope: growth.slope,
                    half_width: growth.half_width(),
                    threshold: growth.threshold,
                    is_leak: growth.is_leak() || leaks.contains(subject),
                };
                self.rates.insert((rounds.phase.clone(), name), rate);
            }
        }
    }
}

fn unsound(facts: &Facts<'_>) -> Option<String> {
    if facts.job.outcome != Outcome::Finished {
        return Some(format!("its job ended as {}", facts.job.outcome));
    }
    if let Some(unmet) = facts.unmet.first() {
        return Some(format!("a check of phase {} did not hold", unmet.phase));
    }
    let entry = facts.entries.iter().find(|entry| entry.verdict >= Verdict::Inconclusive)?;
    Some(entry.message.trim_end_matches('.').to_owned())
}

/// The work that a workload does, whatever its budgets are.
fn work(workload: &Workload) -> String {
    let phases: Vec<Phase> = workload
        .phases
        .iter()
        .map(|phase| Phase { budget: Budget::default(), ..phase.clone() })
        .collect();
    format!(
        "{:?} {phases:?} {} {:?}",
        workload.cluster, workload.allow_bytes_per_row, workload.warm_up
    )
}
